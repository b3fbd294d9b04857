import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const gc: () => void = runInNewContext('gc');

const CALLS = 10_000;
const ROUNDS = 5;
/** By then the optimising compiler has seen it, and what it got wrong at first. */
const WARM_UP_CALLS = 10 * CALLS;

/**
 * What a call costs of the heap: the quietest of a few rounds, since a compiler may work beside.
 *
 * @param round - Makes as many calls as it is told.
 * @returns bytes per call
 */
export function heapBytesPerCall(round: (calls: number) => void): number {
  round(WARM_UP_CALLS);
  let quietest = Number.POSITIVE_INFINITY;
  for (let index = 0; index < ROUNDS; index += 1) {
    gc();
    const before = process.memoryUsage().heapUsed;
    round(CALLS);
    quietest = Math.min(quietest, (process.memoryUsage().heapUsed - before) / CALLS);
  }
  return quietest;
}
