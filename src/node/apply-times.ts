import { Histogram, type HistogramCounts } from '../core/histogram.ts';

/** From what a change takes by itself to what one takes behind a first fill, in seconds. */
const BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** How long changes take from when this node hears of them until its data plane has them. */
export class ApplyTimes {
  readonly #nowMs: () => number;
  readonly #seconds = new Histogram(BOUNDS);
  /** When what is on its way was heard. BOUNDED: taken whenever changes are applied. */
  #heardMs: number[] = [];

  /** @param nowMs - A clock that never goes back, in milliseconds. */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** All changes that have been applied, in seconds. */
  get seconds(): HistogramCounts {
    return this.#seconds;
  }

  /** A change is heard of. */
  heard(): void {
    this.#heardMs.push(this.#nowMs());
  }

  /** Applies what was heard until now. What fails is not counted. */
  async during(apply: () => Promise<void>): Promise<void> {
    const heardMs = this.#heardMs;
    this.#heardMs = [];
    await apply();
    const nowMs = this.#nowMs();
    for (const sinceMs of heardMs) this.#seconds.observe((nowMs - sinceMs) / 1000);
  }
}
