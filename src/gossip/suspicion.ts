/** The window of one suspicion, see {@link suspicionTimeoutMs}. */
export interface SuspicionWindow {
  /** Independent confirmations seen, and how many bring the timeout down to `minMs`. */
  readonly confirmations: number;
  readonly confirmationsWanted: number;
  readonly minMs: number;
  readonly maxMs: number;
}

/**
 * Time from the start of a suspicion until its member is declared dead: starts at `maxMs` and falls
 * with the logarithm of confirmations (Lifeguard, section IV-B; memberlist suspicion.go).
 */
export function suspicionTimeoutMs(window: SuspicionWindow): number {
  if (window.confirmationsWanted < 1) return window.minMs;
  const fraction = Math.log(window.confirmations + 1) / Math.log(window.confirmationsWanted + 1);
  const timeoutMs = window.maxMs - fraction * (window.maxMs - window.minMs);
  return Math.max(window.minMs, Math.floor(timeoutMs));
}

/**
 * The shortest suspicion in a cluster of `members` (memberlist `suspicionTimeout`).
 *
 * @param members - Members known, this node included.
 */
export function suspicionMinMs(mult: number, members: number, probeIntervalMs: number): number {
  const nodeScale = Math.max(1, Math.log10(Math.max(1, members)));
  return Math.floor((mult * Math.floor(nodeScale * 1_000) * probeIntervalMs) / 1_000);
}

/** How a suspicion that begins is treated. */
export interface SuspicionTerms extends Omit<SuspicionWindow, 'confirmations'> {
  /** The suspect is told so often, until as many confirm it as are wanted. */
  readonly tellMs: number;
}

/** One member's time to refute. */
export class Suspicion {
  readonly #startMs: number;
  readonly #window: SuspicionTerms;
  #toldMs: number;
  /** Who has accused. BOUNDED by `confirmationsWanted` + 1. */
  readonly #accusers: Set<string>;

  /** @param from - The first accuser; hearing it again confirms nothing. */
  constructor(from: string, startMs: number, window: SuspicionTerms) {
    this.#startMs = startMs;
    this.#window = window;
    this.#toldMs = startMs;
    this.#accusers = new Set([from]);
  }

  /** When the member is to be declared dead, if it has not refuted. */
  get deadlineMs(): number {
    return this.#startMs + suspicionTimeoutMs({ ...this.#window, confirmations: this.#confirmed });
  }

  /** When there is something to do: to declare the member dead, or to tell it. */
  get nextMs(): number {
    return Math.min(this.deadlineMs, this.#toldMs + this.#tellMs);
  }

  /** @returns whether the suspect should be told now; if so it is taken as told */
  takeTell(nowMs: number): boolean {
    if (nowMs < this.#toldMs + this.#tellMs) return false;
    this.#toldMs = nowMs;
    return true;
  }

  /** Once it is confirmed all nodes hold it, and one word of each is enough. */
  get #tellMs(): number {
    const { confirmationsWanted, minMs, tellMs } = this.#window;
    return this.#confirmed < confirmationsWanted ? tellMs : Math.max(tellMs, minMs / 2);
  }

  /** @returns true if `from` is news that others should hear of */
  confirm(from: string): boolean {
    if (this.#confirmed >= this.#window.confirmationsWanted || this.#accusers.has(from))
      return false;
    this.#accusers.add(from);
    return true;
  }

  get #confirmed(): number {
    return this.#accusers.size - 1;
  }
}
