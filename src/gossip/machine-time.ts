/**
 * A clock for a state machine that must survive clock jumps, suspended hosts and stalled event
 * loops: it never goes back, and one step adds at most `stepMsMax`, however long the machine was
 * not run. Answers that wait in the socket buffer after a stall are then read before timeouts run
 * out.
 */
export class MachineTime {
  readonly #stepMsMax: number;
  #outerMs: number;
  #innerMs: number;

  constructor(startMs: number, stepMsMax: number) {
    this.#outerMs = startMs;
    this.#innerMs = startMs;
    this.#stepMsMax = stepMsMax;
  }

  /** The time as of the last {@link advance}. */
  get nowMs(): number {
    return this.#innerMs;
  }

  /** @returns the machine's time at the clock's `nowMs` */
  advance(nowMs: number): number {
    const stepMs = Math.min(Math.max(0, nowMs - this.#outerMs), this.#stepMsMax);
    this.#outerMs = nowMs;
    this.#innerMs += stepMs;
    return this.#innerMs;
  }

  /** The clock's time at which the machine's time will be `innerMs`. */
  toClockMs(innerMs: number): number {
    return this.#outerMs + Math.max(0, innerMs - this.#innerMs);
  }
}
