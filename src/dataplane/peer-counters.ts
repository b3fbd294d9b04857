/** What is counted per peer. Datagrams and bytes are those on the wire, without outer headers. */
export const PEER_COUNTERS = [
  'datagrams-in',
  'bytes-in',
  'datagrams-out',
  'bytes-out',
  /** Datagrams of the peer that were dropped. */
  'drops-in',
  /** Frames for the peer that were not sent. */
  'drops-out',
] as const;
export type PeerCounter = (typeof PEER_COUNTERS)[number];

/**
 * Peers that are counted apart. Slot {@link SLOT_OF_OTHERS} is no peer's own: whoever has no slot counts
 * there, so the packet loop never asks whether there is one.
 */
export const PEER_SLOTS = 4_096;
export const SLOT_OF_OTHERS = 0;

/** Doubles of one thread: whole cache lines, so that no two threads write to the same one. */
const STRIDE = PEER_SLOTS * PEER_COUNTERS.length;

/** Memory for the counters of `threads` packet threads. */
export function makePeerCounterMemory(threads: number): SharedArrayBuffer {
  return new SharedArrayBuffer(threads * STRIDE * 8);
}

/** Numeric index of a peer's counter, so that the packet loop handles small integers only. */
export function peerCounterIndex(counter: PeerCounter): number {
  return PEER_COUNTERS.indexOf(counter);
}

/**
 * Counters of each peer, in memory that packet threads write and the control thread reads: doubles, as in
 * {@link file://./counters.ts}. The control thread gives out the slots.
 */
export class PeerCounters {
  /** This thread's. */
  readonly #own: Float64Array;
  /** Those of all threads. */
  readonly #all: Float64Array;

  /**
   * @param memory - From {@link makePeerCounterMemory}.
   * @param thread - Which thread's counters this object changes.
   */
  constructor(memory: SharedArrayBuffer = makePeerCounterMemory(1), thread = 0) {
    this.#all = new Float64Array(memory);
    this.#own = this.#all.subarray(thread * STRIDE, (thread + 1) * STRIDE);
  }

  /** Adds to the counter with {@link peerCounterIndex} `index` of the peer in `slot`. */
  add(slot: number, index: number, amount: number): void {
    const at = slot * PEER_COUNTERS.length + index;
    this.#own[at] = (this.#own[at] ?? 0) + amount;
  }

  /** All counters of the peer in `slot`, by name, of all threads together. */
  read(slot: number): Record<PeerCounter, number> {
    const sums = Object.fromEntries(PEER_COUNTERS.map((name) => [name, 0]));
    for (const at of this.#places(slot)) {
      for (const [index, name] of PEER_COUNTERS.entries()) {
        sums[name] = (sums[name] ?? 0) + (this.#all[at + index] ?? 0);
      }
    }
    return sums as Record<PeerCounter, number>;
  }

  /** Makes the counters of `slot` zero. For the control thread, while no peer has the slot. */
  clear(slot: number): void {
    for (const at of this.#places(slot)) this.#all.fill(0, at, at + PEER_COUNTERS.length);
  }

  /** Where each thread has `slot`. */
  *#places(slot: number): Generator<number> {
    const first = slot * PEER_COUNTERS.length;
    for (let at = first; at < this.#all.length; at += STRIDE) yield at;
  }
}
