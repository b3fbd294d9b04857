/** Lets events pass at a steady rate, and a burst of them after a pause. Allocates nothing. */
export class TokenBucket {
  readonly #perSecond: number;
  readonly #burst: number;
  #tokens: number;
  #filledMs = 0;

  /**
   * @param perSecond - Events that pass in a second, in the long run.
   * @param burst - Events that pass at once when there were none for a while; it starts full.
   */
  constructor(perSecond: number, burst: number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#tokens = burst;
  }

  /**
   * Whether one more event may pass.
   *
   * @param nowMs - Milliseconds on any clock; a clock that goes back gives nothing.
   */
  take(nowMs: number): boolean {
    const elapsedMs = Math.max(0, nowMs - this.#filledMs);
    this.#filledMs = nowMs;
    this.#tokens = Math.min(this.#burst, this.#tokens + (elapsedMs * this.#perSecond) / 1000);
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
