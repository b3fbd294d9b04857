/**
 * How well this node itself keeps up, as Lifeguard's local health multiplier (memberlist
 * awareness.go): 0 is healthy. A node that misses answers waits longer before it accuses others.
 */
export class Awareness {
  readonly #scoreMax: number;
  #score = 0;

  /** @param multiplierMax - The score stays below it; timeouts grow to at most so many times. */
  constructor(multiplierMax: number) {
    this.#scoreMax = multiplierMax - 1;
  }

  get score(): number {
    return this.#score;
  }

  /** Adds `delta` to the score, within its bounds: negative after a success. */
  apply(delta: number): void {
    this.#score = Math.min(this.#scoreMax, Math.max(0, this.#score + delta));
  }

  /** `timeoutMs`, longer when this node is unhealthy. */
  scale(timeoutMs: number): number {
    return timeoutMs * (this.#score + 1);
  }
}
