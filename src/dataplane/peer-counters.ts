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

/** Numeric index of a peer's counter, so that the packet loop handles small integers only. */
export function peerCounterIndex(counter: PeerCounter): number {
  return PEER_COUNTERS.indexOf(counter);
}

/**
 * Counters of each peer, in memory that the packet thread writes and the control thread reads: doubles, as in
 * {@link file://./counters.ts}. The control thread gives out the slots.
 */
export class PeerCounters {
  readonly shared: SharedArrayBuffer;
  readonly #values: Float64Array;

  /** @param shared - Another thread's {@link PeerCounters.shared}; a new one when absent. */
  constructor(
    shared: SharedArrayBuffer = new SharedArrayBuffer(PEER_SLOTS * PEER_COUNTERS.length * 8),
  ) {
    this.shared = shared;
    this.#values = new Float64Array(shared);
  }

  /** Adds to the counter with {@link peerCounterIndex} `index` of the peer in `slot`. */
  add(slot: number, index: number, amount: number): void {
    const at = slot * PEER_COUNTERS.length + index;
    this.#values[at] = (this.#values[at] ?? 0) + amount;
  }

  /** All counters of the peer in `slot`, by name. */
  read(slot: number): Record<PeerCounter, number> {
    const at = slot * PEER_COUNTERS.length;
    const entries = PEER_COUNTERS.map((name, index) => [name, this.#values[at + index] ?? 0]);
    return Object.fromEntries(entries) as Record<PeerCounter, number>;
  }

  /** Makes the counters of `slot` zero. For the control thread, while no peer has the slot. */
  clear(slot: number): void {
    this.#values.fill(0, slot * PEER_COUNTERS.length, (slot + 1) * PEER_COUNTERS.length);
  }
}
