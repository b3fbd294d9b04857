import type { ChecksumKernel } from '../core/checksum.ts';
import { PROTO_TCP, TCP_SYN } from '../core/packet.ts';
import type { Arena } from '../io/linux/arena.ts';
import { VNET_HEADER_BYTES } from '../io/linux/tap.ts';
import type { VxlanReceiver } from '../io/linux/vxlan-socket.ts';
import {
  DATA_HEADER_BYTES,
  DATA_OVERHEAD_BYTES,
  MESSAGE_COOKIE_REPLY,
  MESSAGE_DATA,
  MESSAGE_INITIATION,
} from '../noise/messages.ts';
import { clampMss } from '../routing-mesh/mss-clamp.ts';
import { NOT_VXLAN, readVxlanVni, VXLAN_HEADER_BYTES } from '../vxlan/header.ts';
import { type CaptureTaps, CROSSING_PEER_IN } from './capture-taps.ts';
import { Coalescer } from './coalesce.ts';
import { type Counters, dropIndex, trafficIndex } from './counters.ts';
import type { Egress } from './egress.ts';
import { Offload, writeNeedsChecksum, writePlain, writeSuperframe } from './offload.ts';
import {
  partialChecksumStart,
  TCP_CHECKSUM_OFFSET,
  UDP_CHECKSUM_OFFSET,
} from './partial-checksum.ts';
import type { PathProbes } from './path-probes.ts';
import { peerCounterIndex } from './peer-counters.ts';
import type { Peer, Peers } from './peers.ts';
import type { Port } from './port.ts';
import type { PortWriter } from './port-writer.ts';
import { OPEN_REPLAYED, type SecureSession } from './secure-session.ts';
import type { SecureSessions } from './secure-sessions.ts';
import type { Switch } from './switch.ts';

const RECEIVES = trafficIndex('underlay-receives');
const DATAGRAMS_IN = trafficIndex('underlay-datagrams-in');
const BYTES_IN = trafficIndex('underlay-bytes-in');
const PEER_DATAGRAMS_IN = peerCounterIndex('datagrams-in');
const PEER_BYTES_IN = peerCounterIndex('bytes-in');
const PEER_DROPS_IN = peerCounterIndex('drops-in');
const UNKNOWN_VTEP = dropIndex('unknown-vtep');
const NOT_VXLAN_DROP = dropIndex('not-vxlan');
const UNKNOWN_VNI = dropIndex('unknown-vni');
const TOO_BIG = dropIndex('too-big');
const NOT_ENCRYPTED = dropIndex('not-encrypted');
const UNKNOWN_SESSION = dropIndex('unknown-session');
const BAD_AUTH = dropIndex('bad-auth');
const REPLAY = dropIndex('replay');
/** How every data message begins: its type and three zero bytes. */
const DATA_FIRST_WORD = MESSAGE_DATA << 24;
const NOTHING_TO_OFFLOAD = new Offload();

/** What {@link Ingress} works with. */
export interface IngressDeps {
  readonly arena: Arena;
  readonly checksum: ChecksumKernel;
  readonly counters: Counters;
  readonly receiver: VxlanReceiver;
  readonly decide: Switch;
  readonly ports: PortWriter;
  readonly egress: Egress;
  readonly taps: CaptureTaps;
  /** Only members among them are listened to. */
  readonly peers: Peers;
  readonly probes: PathProbes;
  readonly secure: SecureSessions;
}

/** Takes what the underlay brings, checks it, joins segments, and hands it to the ports. */
export class Ingress {
  readonly #deps: IngressDeps;
  readonly #coalescer: Coalescer;
  /** 1 if the last run of data messages ended with one that was dropped. */
  #refused = 0;

  constructor(deps: IngressDeps) {
    this.#deps = deps;
    this.#coalescer = new Coalescer(deps.arena, deps.checksum);
  }

  /**
   * Receives once and handles all that it brought.
   *
   * @param nowMs - Wall-clock milliseconds.
   * @returns whether there was anything to receive
   */
  receive(nowMs: number): boolean {
    const { receiver, counters } = this.#deps;
    const received = receiver.receive();
    if (received < 0) return false;
    const stride = Math.max(1, receiver.segmentBytes);
    counters.add(RECEIVES, 1);
    counters.add(DATAGRAMS_IN, Math.max(1, Math.ceil(received / stride))); // one may be empty
    counters.add(BYTES_IN, received);
    const end = receiver.buffer + received;
    let at = receiver.buffer;
    do at += stride * this.#take(at, stride, end, nowMs);
    while (at < end);
    this.#deps.egress.flush();
    return true;
  }

  /** Handles the datagram at `at`, with what follows it and is of its kind; returns how many that were. */
  #take(at: number, stride: number, end: number, nowMs: number): number {
    const { arena } = this.#deps;
    const length = Math.min(stride, end - at);
    const kind = length === 0 ? 0 : arena.view.getUint8(at);
    if (kind === MESSAGE_DATA) return this.#takeSealed(at, stride, end, nowMs);
    if (kind >= MESSAGE_INITIATION && kind <= MESSAGE_COOKIE_REPLY) {
      this.#deps.secure.handshake(at, length, this.#deps.receiver);
      return 1;
    }
    return this.#takePlain(at, stride, end, nowMs);
  }

  /** VXLAN as it is: only from members, and not for encrypted networks. */
  #takePlain(at: number, stride: number, end: number, nowMs: number): number {
    const { arena, counters, secure } = this.#deps;
    const peer = this.#sender();
    if (peer?.isKnown !== true) {
      counters.drop(UNKNOWN_VTEP);
      return 1;
    }
    const vni = readVxlanVni(arena.view, at, Math.min(stride, end - at));
    if (secure.encryptedVnis.has(vni)) {
      counters.drop(NOT_ENCRYPTED);
      peer.count(PEER_DROPS_IN, 1);
      return 1;
    }
    const taken = this.#handle(peer, at, stride, end, stride, nowMs);
    this.#count(peer, taken, Math.min(taken * stride, end - at));
    return taken;
  }

  #count(peer: Peer, datagrams: number, bytes: number): void {
    peer.count(PEER_DATAGRAMS_IN, datagrams);
    peer.count(PEER_BYTES_IN, bytes);
  }

  /**
   * Data messages of one session, back to back: all are opened, then handled as VXLAN with gaps. The sender is
   * whoever has the keys, wherever it sends from.
   */
  #takeSealed(at: number, stride: number, end: number, nowMs: number): number {
    const { arena, counters, secure } = this.#deps;
    const length = Math.min(stride, end - at);
    if (length < DATA_OVERHEAD_BYTES || arena.view.getInt32(at) !== DATA_FIRST_WORD) {
      counters.drop(BAD_AUTH);
      return 1;
    }
    const session = secure.find(arena.view.getInt32(at + 4, true));
    if (session === undefined) {
      counters.drop(UNKNOWN_SESSION);
      const peer = this.#sender();
      if (peer?.isKnown === true) secure.want(peer);
      return 1;
    }
    const opened = this.#openRun(session, at, stride, end);
    if (opened > 0) {
      this.#authenticated(session);
      const runEnd = Math.min(end, at + opened * stride);
      this.#count(session.peer, opened, runEnd - at);
      this.#handleOpened(session.peer, at, stride, runEnd, nowMs);
    }
    return opened + this.#refused;
  }

  /**
   * Opens data messages of `session` as long as they are authentic and new. The one that is not is dropped
   * and noted: it cannot be opened a second time.
   *
   * @returns how many were opened
   */
  #openRun(session: SecureSession, start: number, stride: number, end: number): number {
    let opened = 0;
    this.#refused = 0;
    for (let at = start; at < end; at += stride) {
      const bytes = Math.min(stride, end - at);
      if (at !== start && !this.#continues(session, at, bytes)) return opened;
      const length = session.open(at, bytes);
      if (length < 0) {
        this.#deps.counters.drop(length === OPEN_REPLAYED ? REPLAY : BAD_AUTH);
        session.peer.count(PEER_DROPS_IN, 1);
        this.#refused = 1;
        return opened;
      }
      opened += 1;
    }
    return opened;
  }

  /** Whether the datagram at `at` is one more data message of `session`, and not an empty one. */
  #continues(session: SecureSession, at: number, bytes: number): boolean {
    const { view } = this.#deps.arena;
    return (
      bytes > DATA_OVERHEAD_BYTES &&
      view.getInt32(at) === DATA_FIRST_WORD &&
      view.getInt32(at + 4, true) === session.localIndex
    );
  }

  /** The owner of `session` was heard, from where the last receive came from. */
  #authenticated(session: SecureSession): void {
    const { egress, receiver, secure } = this.#deps;
    if (!session.isConfirmed) {
      secure.proven(session);
      egress.sendWaiting(session.peer);
    }
    secure.heardFrom(session, receiver);
  }

  /** Handles what data messages held: VXLAN packets with a tag and a header between them. */
  #handleOpened(peer: Peer, start: number, stride: number, runEnd: number, nowMs: number): void {
    const end = runEnd - (DATA_OVERHEAD_BYTES - DATA_HEADER_BYTES);
    const size = stride - DATA_OVERHEAD_BYTES;
    let at = start + DATA_HEADER_BYTES;
    while (at < end) at += stride * this.#handle(peer, at, stride, end, size, nowMs);
  }

  /** The VTEP that the last receive came from. */
  #sender(): Peer | undefined {
    return this.#deps.peers.find(this.#deps.receiver.source);
  }

  /**
   * Handles the VXLAN packet at `at` and those joined to it; returns how many that were.
   *
   * @param stride - Distance between packets.
   * @param end - End of the last one.
   * @param size - Of each but the last.
   */
  #handle(
    peer: Peer,
    at: number,
    stride: number,
    end: number,
    size: number,
    nowMs: number,
  ): number {
    const { arena, counters, decide, probes, secure } = this.#deps;
    const length = Math.min(size, end - at);
    const vni = readVxlanVni(arena.view, at, length);
    const network = decide.networks.get(vni);
    if (network === undefined) {
      if (vni === NOT_VXLAN && probes.receive(peer, at, length, nowMs)) return 1;
      counters.drop(vni === NOT_VXLAN ? NOT_VXLAN_DROP : UNKNOWN_VNI);
      peer.count(PEER_DROPS_IN, 1);
      return 1;
    }
    decide.origin.vtep.copy(peer.words);
    decide.origin.vtepPort = peer.port;
    const joined = this.#coalescer;
    joined.join(at, stride, end, size);
    const isSuperframe = joined.segments > 1;
    const frame = at + VXLAN_HEADER_BYTES;
    const frameBytes = isSuperframe
      ? joined.headerBytes + joined.payloadBytes
      : length - VXLAN_HEADER_BYTES;
    if (this.#deps.taps.active) this.#capture(peer, vni, frame, frameBytes);
    const partialStart = isSuperframe
      ? joined.checksumStart
      : partialChecksumStart(arena.view, this.#deps.checksum, frame, frameBytes);
    const decision = decide.fromVtep(network, frame, frameBytes, partialStart !== 0, nowMs);
    if (decision.action === 'drop') {
      counters.drop(decision.drop);
      peer.count(PEER_DROPS_IN, joined.segments);
    } else if (decision.action === 'back') this.#answer(network.vni, peer);
    else if (decision.port !== undefined) {
      // What a peer's end announces is the size of what this one will send there.
      const { packet } = decide;
      if ((packet.tcpFlags & TCP_SYN) !== 0) {
        const isEncrypted = secure.encryptedVnis.has(vni);
        const mtuBytes = peer.innerMtuBytes - (isEncrypted ? DATA_OVERHEAD_BYTES : 0);
        clampMss(arena.view, packet, mtuBytes, partialStart !== 0);
      }
      if (isSuperframe) this.#writeSuperframe(decision.port, frame, frameBytes);
      else this.#writeFrame(decision.port, frame, frameBytes, partialStart);
    }
    return joined.segments;
  }

  /** Shows what the peer sent, joined as it will go on, before any of it is rewritten. */
  #capture(peer: Peer, vni: number, frame: number, frameBytes: number): void {
    const { arena, taps } = this.#deps;
    const { iovecs, segments, headerBytes, gsoBytes } = this.#coalescer;
    if (segments === 1) {
      taps.frame(CROSSING_PEER_IN, vni, peer.slot, frame, frameBytes);
      return;
    }
    arena.setIovec(iovecs, frame, headerBytes + gsoBytes);
    taps.vectors(CROSSING_PEER_IN, vni, peer.slot, iovecs, segments, frameBytes);
  }

  /** The VXLAN header in front of the frame makes room for the virtio-net header. */
  #writeFrame(port: Port, frame: number, frameBytes: number, partialStart: number): void {
    const { view } = this.#deps.arena;
    const header = frame - VNET_HEADER_BYTES;
    if (partialStart === 0) writePlain(view, header);
    else {
      const isTcp = this.#deps.decide.packet.protocol === PROTO_TCP;
      const offset = isTcp ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET;
      writeNeedsChecksum(view, header, partialStart, offset);
    }
    this.#deps.ports.write(port, frame, frameBytes);
  }

  #writeSuperframe(port: Port, frame: number, frameBytes: number): void {
    const { arena, ports } = this.#deps;
    const joined = this.#coalescer;
    const header = frame - VNET_HEADER_BYTES;
    writeSuperframe(arena.view, header, joined);
    const bytes = VNET_HEADER_BYTES + joined.headerBytes + joined.gsoBytes;
    arena.setIovec(joined.iovecs, header, bytes);
    ports.writeVectors(port, joined.iovecs, joined.segments, frameBytes);
  }

  /** Sends an answer (ARP, ND, echo) to the node that asked; at once, as the next one may be made in its place. */
  #answer(vni: number, peer: Peer): void {
    const { counters, decide, egress, ports } = this.#deps;
    const { decision, packet } = decide;
    ports.countAnswer(decision.answer);
    packet.start = decision.answerStart;
    packet.length = decision.answerBytes;
    const mtuBytes = egress.send(packet, NOTHING_TO_OFFLOAD, vni, peer);
    if (mtuBytes !== 0) counters.drop(TOO_BIG); // nobody is told that an answer is lost
    egress.flush();
  }
}
