/** Names that silence is kept about at once; of more nothing is said. */
const NAMES_MAX = 4_096;

/** Keeps what would be said again and again to once in a while. BOUNDED by {@link NAMES_MAX}. */
export class QuietTimes {
  readonly #quietMs: number;
  readonly #untilMs = new Map<string, number>();

  /** @param quietMs - Silence after something was said. */
  constructor(quietMs: number) {
    this.#quietMs = quietMs;
  }

  /** @returns whether something may be said about, or to, `name`; then there is silence for a while */
  break(name: string, nowMs: number): boolean {
    const untilMs = this.#untilMs.get(name);
    if (untilMs === undefined ? this.#untilMs.size >= NAMES_MAX : nowMs < untilMs) return false;
    this.#untilMs.set(name, nowMs + this.#quietMs);
    return true;
  }

  /** Forgets silence that is over. */
  expire(nowMs: number): void {
    for (const [name, untilMs] of this.#untilMs) {
      if (untilMs <= nowMs) this.#untilMs.delete(name);
    }
  }
}
