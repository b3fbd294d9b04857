import { invariant } from '../core/invariant.ts';
import type { CaptureRecords, CaptureRingReader } from './capture-ring.ts';

/**
 * The rings of several packet threads as one: of the records that are there, the oldest comes first. What a
 * thread writes later may be older than what came already, by as much as the reader was behind.
 */
export class MergedCapture implements CaptureRecords {
  readonly #rings: readonly CaptureRingReader[];
  /** Those that have moved to a record which was not given out yet. */
  readonly #waiting = new Set<CaptureRingReader>();
  #current: CaptureRingReader;

  /** @param rings - At least one; nobody else reads them. */
  constructor(rings: readonly CaptureRingReader[]) {
    const [first] = rings;
    invariant(first !== undefined, 'a capture has a ring per packet thread');
    this.#rings = rings;
    this.#current = first;
  }

  get point(): number {
    return this.#current.point;
  }

  get crossing(): number {
    return this.#current.crossing;
  }

  get originalBytes(): number {
    return this.#current.originalBytes;
  }

  get lostBefore(): number {
    return this.#current.lostBefore;
  }

  get timeUs(): number {
    return this.#current.timeUs;
  }

  get frame(): Uint8Array {
    return this.#current.frame;
  }

  get lost(): number {
    return this.#rings.reduce((sum, ring) => sum + ring.lost, 0) >>> 0;
  }

  next(): boolean {
    let oldest: CaptureRingReader | undefined;
    for (const ring of this.#rings) {
      if (!this.#waiting.has(ring)) {
        if (!ring.next()) continue;
        this.#waiting.add(ring);
      }
      if (oldest === undefined || ring.timeUs < oldest.timeUs) oldest = ring;
    }
    if (oldest === undefined) return false;
    this.#waiting.delete(oldest);
    this.#current = oldest;
    return true;
  }

  release(): void {
    for (const ring of this.#rings) {
      if (this.#waiting.has(ring)) ring.releasePast();
      else ring.release();
    }
  }
}
