import type { ChildProcess } from 'node:child_process';
import type { Lab, LabHost } from '../../test/support/lab.ts';

/** How much of a program's output a message quotes. */
const TAIL_CHARACTERS = 2_000;

/**
 * Starts a program that stays until the lab closes, and waits for the line that says it is up. What it
 * writes later is read and dropped, so that it never waits for a reader.
 *
 * @throws {Error} if it ends instead, with what it said
 */
export async function startDaemon(
  lab: Lab,
  host: LabHost,
  command: readonly string[],
  ready: RegExp,
): Promise<ChildProcess> {
  const child = lab.spawn(host, command);
  let tail = '';
  await new Promise<void>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk) => {
        tail = (tail + String(chunk)).slice(-TAIL_CHARACTERS);
        if (ready.test(tail)) resolve();
      });
    }
    child.once('error', reject);
    child.once('exit', () => reject(new Error(`${command.join(' ')} ended: ${tail.trim()}`)));
  });
  return child;
}
