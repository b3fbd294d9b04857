import { AddressMap } from '../core/address-map.ts';
import { AddressWords } from '../core/address-words.ts';
import { type Ip, isIpv6 } from '../core/ip.ts';
import type { Destination } from '../io/linux/datagram-queue.ts';
import { innerMtuBytes } from '../vxlan/overhead.ts';
import { PeerCounters, SLOT_OF_OTHERS } from './peer-counters.ts';
import type { SecureSession } from './secure-session.ts';
import type { WaitingFrames } from './waiting-frames.ts';

/** The largest IP packet: what a path carries of which nothing is known. */
const IP_PACKET_BYTES_MAX = 65_535;
/** No path is taken for less: every IPv4 host takes as much (RFC 1122 section 3.3.2). */
const PATH_MTU_BYTES_MIN = 576;

/** Another node's VTEP. One object per address, for as long as anything refers to it. */
export class Peer implements Destination {
  readonly address: Ip;
  readonly words: AddressWords;
  /** UDP port of its VXLAN. */
  port = 0;
  /** Whether it is a member: only then datagrams are taken from it and sent to it. */
  isKnown = false;
  /** The largest inner IP packet that one datagram to it carries, unencrypted. */
  innerMtuBytes = 0;
  /** When the control thread was told last that a packet was too large, in milliseconds. */
  refusedMs = 0;
  /** Where it is counted. */
  slot: number = SLOT_OF_OTHERS;
  /** How many endpoints are behind it. */
  endpoints = 0;
  /** How many sessions there are with it, and the one that data is sent by. */
  sessions = 0;
  session: SecureSession | undefined = undefined;
  /** Where sealed data goes: not to its address, if it was heard from elsewhere. */
  sealedTo: PeerPlace | undefined = undefined;
  /** Frames that wait for a session. */
  waiting: WaitingFrames | undefined = undefined;
  /** When the control thread may be asked for a session, or told of a new address, again. */
  nextWantMs = 0;
  nextMoveMs = 0;
  readonly #counters: PeerCounters;

  /**
   * @param address - In the family of the underlay.
   * @param pathMtuBytes - As for {@link Peer.setPathMtu}.
   */
  constructor(address: Ip, pathMtuBytes: number, counters: PeerCounters) {
    this.address = address;
    this.words = AddressWords.of(address);
    this.#counters = counters;
    this.setPathMtu(pathMtuBytes);
  }

  /** @param bytes - The largest outer IP packet that gets through to it. */
  setPathMtu(bytes: number): void {
    const mtuBytes = Math.max(bytes, PATH_MTU_BYTES_MIN);
    this.innerMtuBytes = innerMtuBytes(mtuBytes, { ipv6: isIpv6(this.address), encrypted: false });
  }

  /** Adds to the peer's counter with `peerCounterIndex` `index`. */
  count(index: number, amount: number): void {
    this.#counters.add(this.slot, index, amount);
  }
}

/** An address that a peer is at, which need not be its VTEP's. A new object for every move. */
export class PeerPlace implements Destination {
  readonly peer: Peer;
  readonly words: AddressWords;
  readonly port: number;

  constructor(peer: Peer, address: Ip, port: number) {
    this.peer = peer;
    this.words = AddressWords.of(address);
    this.port = port;
  }

  /** Counts for the peer, as {@link Peer.count} does. */
  count(counter: number, amount: number): void {
    this.peer.count(counter, amount);
  }
}

/**
 * The VTEPs that this node knows or that an endpoint names, by address.
 *
 * BOUNDED by the members that gossip reports and by the endpoints of the FDB.
 */
export class Peers {
  readonly #counters: PeerCounters;
  readonly #byAddress = new AddressMap<Peer>();
  readonly #linkMtuBytes: number;
  #known = 0;

  /**
   * @param linkMtuBytes - What a path carries until more is known of it.
   * @param counters - Where peers are counted.
   */
  constructor(
    linkMtuBytes: number = IP_PACKET_BYTES_MAX,
    counters: PeerCounters = new PeerCounters(),
  ) {
    this.#linkMtuBytes = linkMtuBytes;
    this.#counters = counters;
  }

  /** How many are members. */
  get size(): number {
    return this.#known;
  }

  /** The peer at `words`. Allocates nothing. */
  find(words: AddressWords): Peer | undefined {
    return this.#byAddress.find(words);
  }

  /** All that have an object. */
  [Symbol.iterator](): Generator<Peer> {
    return this.#byAddress.values();
  }

  /** The peer at `address`, made if there is none. It is no member by that. */
  at(address: Ip): Peer {
    const found = this.#byAddress.get(address);
    if (found !== undefined) return found;
    const peer = new Peer(address, this.#linkMtuBytes, this.#counters);
    this.#byAddress.set(address, peer);
    return peer;
  }

  /**
   * Makes the peer at `address` a member, served at `port`.
   *
   * @param slot - Where it is counted.
   */
  add(address: Ip, port: number, slot: number = SLOT_OF_OTHERS): Peer {
    const peer = this.at(address);
    if (!peer.isKnown) this.#known += 1;
    peer.isKnown = true;
    peer.port = port;
    peer.slot = slot;
    return peer;
  }

  /** Ends the membership of the peer at `address`. Endpoints and sessions that name it keep it. */
  remove(address: Ip): void {
    const peer = this.#byAddress.get(address);
    if (peer?.isKnown !== true) return;
    peer.isKnown = false;
    this.#known -= 1;
    this.forgetUnused(peer);
  }

  /** Forgets `peer` unless it is a member, has endpoints or a session. */
  forgetUnused(peer: Peer): void {
    if (peer.isKnown || peer.endpoints > 0 || peer.sessions > 0) return;
    if (this.#byAddress.get(peer.address) === peer) this.#byAddress.delete(peer.address);
  }
}
