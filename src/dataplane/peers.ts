import { type Ip, ipWords } from '../core/ip.ts';
import type { Destination } from '../io/linux/datagram-queue.ts';

/** Another node's VTEP. One object per address, for as long as anything refers to it. */
export class Peer implements Destination {
  readonly address: Ip;
  readonly w0: number;
  readonly w1: number;
  readonly w2: number;
  readonly w3: number;
  /** UDP port of its VXLAN. */
  port = 0;
  /** Whether it is a member: only then datagrams are taken from it and sent to it. */
  isKnown = false;
  /** The next one with the same hash. */
  next: Peer | undefined = undefined;

  /** @param address - In the family of the underlay. */
  constructor(address: Ip) {
    this.address = address;
    [this.w0, this.w1, this.w2, this.w3] = ipWords(address);
  }
}

/**
 * The VTEPs that this node knows or that an endpoint names, by address.
 *
 * BOUNDED by the members that gossip reports and by the endpoints of the FDB.
 */
export class Peers {
  readonly #byHash = new Map<number, Peer>();
  #known = 0;

  /** How many are members. */
  get size(): number {
    return this.#known;
  }

  /** All that have an object. */
  *[Symbol.iterator](): Generator<Peer> {
    for (const first of this.#byHash.values()) {
      for (let peer: Peer | undefined = first; peer !== undefined; peer = peer.next) yield peer;
    }
  }

  /** The peer at the address of four words. Allocates nothing. */
  find(w0: number, w1: number, w2: number, w3: number): Peer | undefined {
    let peer = this.#byHash.get(w0 ^ w1 ^ w2 ^ w3);
    while (peer !== undefined) {
      if (peer.w3 === w3 && peer.w2 === w2 && peer.w1 === w1 && peer.w0 === w0) return peer;
      peer = peer.next;
    }
    return undefined;
  }

  /** The peer at `address`, made if there is none. It is no member by that. */
  at(address: Ip): Peer {
    const found = this.find(...ipWords(address));
    if (found !== undefined) return found;
    const peer = new Peer(address);
    const hash = peer.w0 ^ peer.w1 ^ peer.w2 ^ peer.w3;
    peer.next = this.#byHash.get(hash);
    this.#byHash.set(hash, peer);
    return peer;
  }

  /** Makes the peer at `address` a member, served at `port`. */
  add(address: Ip, port: number): Peer {
    const peer = this.at(address);
    if (!peer.isKnown) this.#known += 1;
    peer.isKnown = true;
    peer.port = port;
    return peer;
  }

  /** Ends the membership of the peer at `address`. Endpoints that name it keep it. */
  remove(address: Ip): void {
    const peer = this.find(...ipWords(address));
    if (peer?.isKnown !== true) return;
    peer.isKnown = false;
    this.#known -= 1;
  }

  /** Forgets all that are neither members nor in `used`. */
  forgetUnused(used: ReadonlySet<Peer>): void {
    const unused = [...this].filter((peer) => !peer.isKnown && !used.has(peer));
    for (const peer of unused) this.#forget(peer);
  }

  #forget(peer: Peer): void {
    const hash = peer.w0 ^ peer.w1 ^ peer.w2 ^ peer.w3;
    const first = this.#byHash.get(hash);
    if (first === peer) {
      if (peer.next === undefined) this.#byHash.delete(hash);
      else this.#byHash.set(hash, peer.next);
      return;
    }
    let before = first;
    while (before !== undefined && before.next !== peer) before = before.next;
    if (before !== undefined) before.next = peer.next;
  }
}
