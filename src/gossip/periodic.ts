/** Something that is due every so often. Missed turns are skipped, not made up for. */
export class Periodic {
  #nextMs: number;
  #lastMs = Number.NEGATIVE_INFINITY;

  /** @param firstMs - When it is due first. */
  constructor(firstMs: number) {
    this.#nextMs = firstMs;
  }

  get nextMs(): number {
    return this.#nextMs;
  }

  /**
   * @param intervalMs - Time until the turn after this one.
   * @returns whether it is due; if so the next turn is set
   */
  take(nowMs: number, intervalMs: number): boolean {
    if (nowMs < this.#nextMs) return false;
    this.#lastMs = nowMs;
    const onTimeMs = this.#nextMs + intervalMs;
    this.#nextMs = onTimeMs > nowMs ? onTimeMs : nowMs + intervalMs;
    return true;
  }

  /** Makes it due as soon as `pauseMs` have passed since the last turn, if that is earlier. */
  hasten(nowMs: number, pauseMs: number): void {
    this.#nextMs = Math.min(this.#nextMs, Math.max(nowMs, this.#lastMs + pauseMs));
  }
}
