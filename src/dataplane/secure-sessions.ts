import { AddressWords } from '../core/address-words.ts';
import type { Ip } from '../core/ip.ts';
import { REJECT_AFTER_MS } from '../noise/constants.ts';
import type { SessionActivity } from '../noise/secure-peer.ts';
import type { SecureCommand, SecureEvent } from './commands.ts';
import { type Counters, dropIndex } from './counters.ts';
import type { Offload } from './offload.ts';
import { type Peer, PeerPlace, type Peers } from './peers.ts';
import { SecureSession, type SecureSessionDeps } from './secure-session.ts';
import { WaitingFrames } from './waiting-frames.ts';

/** At most one request for a session per peer in this time: the control thread paces the handshakes. */
const WANT_INTERVAL_MS = 500;
/** Handshake messages that the control thread is told of per second: each costs it up to a millisecond. */
const HANDSHAKES_PER_SECOND_MAX = 500;

const NO_SESSION = dropIndex('no-session');
const QUEUE_FULL = dropIndex('queue-full');
const HANDSHAKE_FLOOD = dropIndex('handshake-flood');

/** What {@link SecureSessions} works with. */
export interface SecureSessionsDeps extends SecureSessionDeps {
  readonly counters: Counters;
  readonly peers: Peers;
  /** Tells the control thread. */
  readonly post: (event: SecureEvent) => void;
  /** A monotonic clock, in milliseconds. */
  readonly nowMs: () => number;
}

/** Where a datagram came from, as a receiver says it. */
export interface DatagramSource {
  readonly source: AddressWords;
  readonly sourcePort: number;
}

type Installation = Extract<SecureCommand, { readonly kind: 'installSession' }>;

/**
 * The sessions of a packet thread: which networks need them, which frames wait for them, and what the
 * control thread must hear of them. It makes no handshakes.
 */
export class SecureSessions {
  /** VNIs that nothing leaves or enters unsealed. BOUNDED by the networks. */
  readonly encryptedVnis: Set<number> = new Set();
  readonly #deps: SecureSessionsDeps;
  /** By local index. BOUNDED by the control thread: three per peer. */
  readonly #sessions = new Map<number, SecureSession>();
  /** Peers that frames wait for. */
  readonly #waitedFor = new Set<Peer>();
  #handshakesLeft = HANDSHAKES_PER_SECOND_MAX;

  constructor(deps: SecureSessionsDeps) {
    this.#deps = deps;
  }

  /** Of the AEAD provider, for people. */
  get aeadName(): string {
    return this.#deps.aead.name;
  }

  /** The session that the peer names `localIndex` in its messages. */
  find(localIndex: number): SecureSession | undefined {
    return this.#sessions.get(localIndex);
  }

  /** Starts to accept messages of a session; where it is confirmed, also to send by it. @returns its peer */
  install({ vtep, address, port, keypair, replayWords, isConfirmed }: Installation): Peer {
    const { peers, nowMs } = this.#deps;
    this.remove(keypair.localIndex);
    const peer = peers.at(vtep);
    peer.sealedTo = new PeerPlace(peer, address, port);
    const session = new SecureSession(this.#deps, peer, keypair, replayWords, isConfirmed, nowMs());
    this.#sessions.set(keypair.localIndex, session);
    peer.sessions += 1;
    if (isConfirmed) peer.session = session;
    return peer;
  }

  /** Ends a session at once. */
  remove(localIndex: number): void {
    const session = this.#sessions.get(localIndex);
    if (session === undefined) return;
    this.#sessions.delete(localIndex);
    session.peer.sessions -= 1;
    if (session.peer.session === session) session.peer.session = undefined;
    session.close();
    this.#deps.peers.forgetUnused(session.peer);
  }

  /** The peer has proven to this thread that it has the session's keys: data goes by it from now on. */
  proven(session: SecureSession): void {
    session.isConfirmed = true;
    session.peer.session = session;
    this.#deps.post({ kind: 'sessionConfirmed', localIndex: session.localIndex });
  }

  /** The same, proven to another thread. @returns the peer, if data goes by the session only now */
  confirm(localIndex: number): Peer | undefined {
    const session = this.#sessions.get(localIndex);
    if (session === undefined || session.isConfirmed) return undefined;
    session.isConfirmed = true;
    session.peer.session = session;
    return session.peer;
  }

  /** Sends the messages of a VTEP's sessions to another address. */
  move(vtep: Ip, address: Ip, port: number): void {
    const peer = this.#deps.peers.find(AddressWords.of(vtep));
    if (peer !== undefined) peer.sealedTo = new PeerPlace(peer, address, port);
  }

  /** An authentic message of `session` came from `source`: says so if that is another address. */
  heardFrom(session: SecureSession, source: DatagramSource): void {
    const { peer, destination, localIndex } = session;
    if (destination.words.equals(source.source)) return;
    const nowMs = this.#deps.nowMs();
    if (nowMs < peer.nextMoveMs) return;
    peer.nextMoveMs = nowMs + WANT_INTERVAL_MS;
    this.#deps.post({ kind: 'peerMoved', localIndex, address: source.source.toIp() });
  }

  /** Keeps a frame until its peer has a session, if there is room, and asks for one. */
  hold(peer: Peer, start: number, length: number, offload: Offload, vni: number): void {
    const { arena, counters, nowMs } = this.#deps;
    peer.waiting ??= new WaitingFrames();
    const isHeld = peer.waiting.add(arena, start, length, offload, vni, nowMs());
    if (isHeld) this.#waitedFor.add(peer);
    else counters.drop(QUEUE_FULL);
    this.want(peer);
  }

  /** Asks the control thread for a session with `peer`, unless it was asked just now. */
  want(peer: Peer): void {
    const nowMs = this.#deps.nowMs();
    if (peer.session !== undefined || nowMs < peer.nextWantMs) return;
    peer.nextWantMs = nowMs + WANT_INTERVAL_MS;
    this.#deps.post({ kind: 'needSession', vtep: peer.address });
  }

  /** Hands a handshake message to the control thread, unless there are too many of them. */
  handshake(message: number, length: number, source: DatagramSource): void {
    const { arena, counters, post } = this.#deps;
    if (this.#handshakesLeft === 0) {
      counters.drop(HANDSHAKE_FLOOD);
      return;
    }
    this.#handshakesLeft -= 1;
    const bytes = arena.bytes.slice(message, message + length);
    const { sourcePort: port } = source;
    post({ kind: 'handshake', address: source.source.toIp(), port, bytes });
  }

  /** Once a second: drops what has waited too long or is too old, and reports what sessions carried. */
  sweep(): void {
    const { counters, nowMs, post } = this.#deps;
    const now = nowMs();
    this.#handshakesLeft = HANDSHAKES_PER_SECOND_MAX;
    for (const peer of this.#waitedFor) {
      counters.dropMany(NO_SESSION, peer.waiting?.dropOld(now) ?? 0);
      if ((peer.waiting?.size ?? 0) > 0) continue;
      peer.waiting = undefined;
      this.#waitedFor.delete(peer);
    }
    for (const [localIndex, { installedAtMs }] of this.#sessions) {
      if (now - installedAtMs >= REJECT_AFTER_MS) this.remove(localIndex);
    }
    const sessions = this.#takeActivities();
    if (sessions.length > 0) post({ kind: 'sessionActivity', sessions });
  }

  /** Lets go of all keys. */
  close(): void {
    for (const localIndex of [...this.#sessions.keys()]) this.remove(localIndex);
  }

  #takeActivities(): SessionActivity[] {
    const activities: SessionActivity[] = [];
    for (const session of this.#sessions.values()) {
      const { localIndex, sent, received, keepalivesSent, keepalivesReceived } = session;
      if (sent + received + keepalivesSent + keepalivesReceived === 0) continue;
      activities.push({ localIndex, sent, received, keepalivesSent, keepalivesReceived });
      session.sent = 0;
      session.received = 0;
      session.keepalivesSent = 0;
      session.keepalivesReceived = 0;
    }
    return activities;
  }
}
