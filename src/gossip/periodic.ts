/** Something that is due every so often. Missed turns are skipped, not made up for. */
export class Periodic {
  #nextMs: number;

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
    const onTimeMs = this.#nextMs + intervalMs;
    this.#nextMs = onTimeMs > nowMs ? onTimeMs : nowMs + intervalMs;
    return true;
  }
}
