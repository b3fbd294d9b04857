/**
 * Resolution of the mesh's clock. Times are counts of ticks modulo 2^32, as signed integers, because V8 boxes
 * a double that crosses a function; differences are right up to 248 days.
 */
export const TICK_MS = 10;

/** A time or duration in milliseconds as ticks. */
export function toTicks(ms: number): number {
  return (ms / TICK_MS) | 0;
}

/** Ticks from `start` to `end`; negative if `end` is earlier. */
export function ticksBetween(start: number, end: number): number {
  return (end - start) | 0;
}
