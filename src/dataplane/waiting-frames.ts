import type { Arena } from '../io/linux/arena.ts';
import { Offload } from './offload.ts';

/** Frames that wait for one peer's session at most, and their bytes. */
export const WAITING_FRAMES_MAX = 64;
export const WAITING_BYTES_MAX: number = 256 * 1024;
/** How long a frame waits: a client's first repetition of a SYN comes after that. */
export const WAITING_MS_MAX = 1_000;

interface WaitingFrame {
  readonly bytes: Uint8Array;
  readonly offload: Offload;
  readonly vni: number;
  readonly sinceMs: number;
}

/**
 * Frames for a peer that there is no session with yet, oldest first. BOUNDED by
 * {@link WAITING_FRAMES_MAX} and {@link WAITING_BYTES_MAX}: what comes then is refused.
 */
export class WaitingFrames {
  readonly #frames: WaitingFrame[] = [];
  #bytes = 0;

  get size(): number {
    return this.#frames.length;
  }

  /** Copies a frame in. @returns false if there is no room for it */
  add(
    arena: Arena,
    start: number,
    length: number,
    offload: Offload,
    vni: number,
    nowMs: number,
  ): boolean {
    if (this.#frames.length >= WAITING_FRAMES_MAX) return false;
    if (this.#bytes + length > WAITING_BYTES_MAX) return false;
    const bytes = arena.bytes.slice(start, start + length);
    const copy = Object.assign(new Offload(), offload);
    this.#frames.push({ bytes, offload: copy, vni, sinceMs: nowMs });
    this.#bytes += length;
    return true;
  }

  /** Takes the oldest frame out. */
  take(): WaitingFrame | undefined {
    const frame = this.#frames.shift();
    if (frame !== undefined) this.#bytes -= frame.bytes.length;
    return frame;
  }

  /** Drops the frames that have waited too long. @returns how many */
  dropOld(nowMs: number): number {
    let dropped = 0;
    while (this.#frames[0] !== undefined && nowMs - this.#frames[0].sinceMs >= WAITING_MS_MAX) {
      this.take();
      dropped += 1;
    }
    return dropped;
  }
}
