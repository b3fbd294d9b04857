/**
 * Largest time. Serf's has 64 bits and wraps; this one stays where it is, so that whatever is heard,
 * it never goes back and remains an exact number.
 */
export const LAMPORT_TIME_MAX: number = Number.MAX_SAFE_INTEGER;

/** A logical clock that is ahead of every time it was shown (serf lamport.go). */
export class LamportClock {
  // From 1: 0 is the time of a member that nothing was said about yet (serf.go `Create`).
  #time = 1;

  /** The time of whatever is said next. */
  get time(): number {
    return this.#time;
  }

  /** Steps on. @returns the new time */
  increment(): number {
    this.#time = Math.min(this.#time + 1, LAMPORT_TIME_MAX);
    return this.#time;
  }

  /** Gets ahead of `time`, an integer in [0, {@link LAMPORT_TIME_MAX}]. */
  witness(time: number): void {
    if (time >= this.#time) this.#time = Math.min(time + 1, LAMPORT_TIME_MAX);
  }
}
