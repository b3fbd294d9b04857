/** What a {@link Histogram} holds. */
export interface HistogramCounts {
  /** Upper limits of the buckets, rising; values above the last are in none. */
  readonly bounds: readonly number[];
  /** Values in each bucket alone: at most its limit, and above the one before. */
  readonly counts: readonly number[];
  /** All values, those above the last limit included. */
  readonly count: number;
  readonly sum: number;
}

/** Counts values by their size. */
export class Histogram implements HistogramCounts {
  readonly bounds: readonly number[];
  readonly #counts: number[];
  #count = 0;
  #sum = 0;

  /** @param bounds - Upper limits of the buckets, rising. */
  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.#counts = bounds.map(() => 0);
  }

  get counts(): readonly number[] {
    return this.#counts;
  }

  get count(): number {
    return this.#count;
  }

  get sum(): number {
    return this.#sum;
  }

  /** Counts a value. */
  observe(value: number): void {
    this.#count += 1;
    this.#sum += value;
    const bucket = this.bounds.findIndex((bound) => value <= bound);
    if (bucket >= 0) this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
  }
}
