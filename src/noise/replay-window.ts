/** Bits of a window's ring. Linux's WireGuard has as many (drivers/net/wireguard/noise.h). */
const RING_BITS = 8_192;
const RING_WORDS = RING_BITS / 32;
const WORD_MASK = RING_WORDS - 1;
/** How far behind the newest counter a message is still taken: the ring but for the word in motion. */
export const REPLAY_WINDOW: number = RING_BITS - 32;
/** 32-bit words of a window: a lock, the newest counter (high, low), and the ring. */
export const REPLAY_WINDOW_WORDS: number = 3 + RING_WORDS;

const LOCK = 0;
const NEWEST_HIGH = 1;
const NEWEST_LOW = 2;
const RING = 3;

/**
 * Tells messages that were seen before by their counters: a sliding bitmap as in RFC 6479. It lies in
 * memory of the caller, which several threads may share; all zeros is a window that has seen nothing.
 *
 * To be asked after authentication only: who asks for a forged counter moves the window.
 */
export class ReplayWindow {
  readonly #words: Int32Array;
  readonly #start: number;

  /**
   * @param words - Over an ArrayBuffer, or over a SharedArrayBuffer that several threads see.
   * @param start - Index of the first of {@link REPLAY_WINDOW_WORDS} words of this window.
   */
  constructor(words: Int32Array, start: number) {
    this.#words = words;
    this.#start = start;
  }

  /**
   * Whether a message with this counter is new; it is not any more afterwards.
   *
   * @param high - Upper 32 bits of the counter, as a signed integer.
   * @param low - Lower 32 bits, as a signed integer.
   */
  accept(high: number, low: number): boolean {
    const lock = this.#start + LOCK;
    while (Atomics.compareExchange(this.#words, lock, 0, 1) !== 0);
    const isNew = this.#accept(high, low);
    Atomics.store(this.#words, lock, 0);
    return isNew;
  }

  #accept(high: number, low: number): boolean {
    const words = this.#words;
    const start = this.#start;
    const newestHigh = words[start + NEWEST_HIGH] ?? 0;
    const newestLow = words[start + NEWEST_LOW] ?? 0;
    // Exact while the upper halves are close; further apart, only the sign and the size matter.
    const ahead = ((high >>> 0) - (newestHigh >>> 0)) * 2 ** 32 + ((low >>> 0) - (newestLow >>> 0));
    if (ahead > 0) {
      this.#clearBetween(newestLow >>> 5, low >>> 5, ahead > REPLAY_WINDOW);
      words[start + NEWEST_HIGH] = high;
      words[start + NEWEST_LOW] = low;
    } else if (-ahead > REPLAY_WINDOW) {
      return false;
    }
    const index = start + RING + ((low >>> 5) & WORD_MASK);
    const bit = 1 << (low & 31);
    const seen = words[index] ?? 0;
    words[index] = seen | bit;
    return (seen & bit) === 0;
  }

  /** Forgets the words that the window moves over. Word numbers wrap, as the ring does. */
  #clearBetween(from: number, to: number, isAll: boolean): void {
    const words = this.#words;
    const first = this.#start + RING;
    const count = isAll ? RING_WORDS : (to - from) & WORD_MASK;
    for (let step = 1; step <= count; step += 1) words[first + ((from + step) & WORD_MASK)] = 0;
  }
}
