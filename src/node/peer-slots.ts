import type { Ip } from '../core/ip.ts';
import { PEER_SLOTS, type PeerCounters, SLOT_OF_OTHERS } from '../dataplane/peer-counters.ts';

/**
 * Which peer is counted in which slot of the {@link PeerCounters}. A peer that has gone keeps its slot, and
 * its counters, until another one needs it.
 */
export class PeerSlots {
  readonly #counters: PeerCounters;
  /** By address, the one that was missed first before the others. BOUNDED by the slots. */
  readonly #slots = new Map<Ip, number>();

  constructor(counters: PeerCounters) {
    this.#counters = counters;
  }

  /** Where the peer at `address` is counted. */
  slotOf(address: Ip): number {
    return this.#slots.get(address) ?? SLOT_OF_OTHERS;
  }

  /**
   * Gives each of `peers` a slot of its own, as far as there are slots.
   *
   * @param peers - All that there are now.
   */
  place<Peer extends { readonly address: Ip }>(
    peers: readonly Peer[],
  ): (Peer & { readonly slot: number })[] {
    for (const { address } of peers) this.#refresh(address);
    const present = new Set(peers.map(({ address }) => address));
    for (const { address } of peers) {
      if (!this.#slots.has(address)) this.#give(address, present);
    }
    return peers.map((peer) => ({ ...peer, slot: this.slotOf(peer.address) }));
  }

  /** Moves a peer that is there behind those that are not. */
  #refresh(address: Ip): void {
    const slot = this.#slots.get(address);
    if (slot === undefined) return;
    this.#slots.delete(address);
    this.#slots.set(address, slot);
  }

  #give(address: Ip, present: ReadonlySet<Ip>): void {
    const next = this.#slots.size + SLOT_OF_OTHERS + 1;
    if (next < PEER_SLOTS) {
      this.#slots.set(address, next);
      return;
    }
    const [gone, slot] = this.#slots.entries().next().value ?? [];
    if (gone === undefined || slot === undefined || present.has(gone)) return;
    this.#slots.delete(gone);
    this.#counters.clear(slot);
    this.#slots.set(address, slot);
  }
}
