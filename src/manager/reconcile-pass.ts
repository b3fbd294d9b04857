import type { Random } from '../core/capabilities.ts';

/** New tasks in one transaction; the rest follows in the next one. */
const CREATIONS_PER_PASS_MAX = 200;

/** What the stages of one reconciliation share. */
export class ReconcilePass {
  /** Milliseconds since the Unix epoch: the same moment for all stages. */
  readonly nowMs: number;
  readonly random: Random;
  /** Finished tasks kept per slot. */
  readonly historyLimit: number;
  #nextAtMs = Number.POSITIVE_INFINITY;
  #creationsLeft = CREATIONS_PER_PASS_MAX;

  constructor(options: {
    readonly nowMs: number;
    readonly random: Random;
    readonly historyLimit: number;
  }) {
    this.nowMs = options.nowMs;
    this.random = options.random;
    this.historyLimit = options.historyLimit;
  }

  /** Asks for another pass at `atMs`, at the latest. */
  wakeAt(atMs: number): void {
    this.#nextAtMs = Math.min(this.#nextAtMs, atMs);
  }

  /** When the next pass is due though nothing changes; undefined if never. */
  get nextAtMs(): number | undefined {
    return Number.isFinite(this.#nextAtMs) ? this.#nextAtMs : undefined;
  }

  /** Whether one more task may be created in this pass; if not, another pass follows at once. */
  takeCreation(): boolean {
    if (this.#creationsLeft > 0) {
      this.#creationsLeft -= 1;
      return true;
    }
    this.wakeAt(this.nowMs);
    return false;
  }
}
