import { readFile } from 'node:fs/promises';
import { parseListeners } from '../io/linux/listeners.ts';

/** How often a starting task is looked at. The kernel tells nobody of a new listener. */
const LOOK_MS = 100;
/** A task that listens on nothing after this long gets its flows all the same. */
const GIVE_UP_MS = 60_000;

/**
 * Waits until a task accepts connections: until something in its network namespace listens on each of
 * `ports`. Flows that a task gets before that would be refused.
 *
 * @param pid - A process of the task.
 * @param ports - TCP ports that its service publishes; none is ready at once.
 * @param signal - Ends the wait.
 * @returns whether it listens; false when it still does not after a minute, or has ended
 */
export async function waitUntilListening(
  pid: number,
  ports: readonly number[],
  signal: AbortSignal,
): Promise<boolean> {
  const deadline = performance.now() + GIVE_UP_MS;
  while (!signal.aborted && performance.now() < deadline) {
    const listening = await listeningPorts(pid);
    if (listening === undefined) return false;
    if (ports.every((port) => listening.has(port))) return true;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  return false;
}

/** TCP ports with a listener in the namespace of `pid`; undefined when there is no such process. */
async function listeningPorts(pid: number): Promise<ReadonlySet<number> | undefined> {
  const texts = await Promise.all(
    ['tcp', 'tcp6'].map((file) =>
      readFile(`/proc/${pid}/net/${file}`, 'utf8').catch(() => undefined),
    ),
  );
  if (texts.every((text) => text === undefined)) return undefined;
  const listeners = texts.flatMap((text) => parseListeners('tcp', text ?? ''));
  return new Set(listeners.map(({ port }) => port));
}
