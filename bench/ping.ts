import type { Lab } from '../test/support/lab.ts';
import type { Path } from './ground.ts';

/** An echo without a reply counts as one that took so long: ping waits no longer for it. */
const LOST_MS = 1_000;

/**
 * Round trips of `count` echoes, the shortest first.
 *
 * @returns milliseconds
 * @throws {Error} if none is answered
 */
export async function pingTimesMs(
  lab: Lab,
  { from, address }: Path,
  count: number,
  intervalSeconds: number,
): Promise<readonly number[]> {
  const flags = ['-n', '-c', String(count), '-i', String(intervalSeconds), '-W', '1'];
  const { stdout } = await lab.exec(from, ['ping', ...flags, address]);
  const times = new Map<string, number>();
  for (const [, sequence = '', time] of stdout.matchAll(/icmp_seq=(\d+) .*time=([\d.]+) ms/g)) {
    if (!times.has(sequence)) times.set(sequence, Number(time));
  }
  const lost = Array.from({ length: count - times.size }, () => LOST_MS);
  return [...times.values(), ...lost].sort((a, b) => a - b);
}

/** Waits until the far end answers. @throws {Error} if it does not within `seconds` */
export async function untilReachable(
  lab: Lab,
  { from, address }: Path,
  seconds: number,
): Promise<void> {
  try {
    await lab.exec(from, ['ping', '-n', '-c', '1', '-i', '0.2', '-w', String(seconds), address]);
  } catch (error) {
    throw new Error(`${address} does not answer`, { cause: error });
  }
}
