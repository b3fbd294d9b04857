import { type ChecksumKernel, fold16, swap16 } from '../core/checksum.ts';
import type { Ip } from '../core/ip.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  Packet,
  PROTO_TCP,
  PROTO_UDP,
  parseFrame,
  TCP_FIN,
  TCP_PSH,
  TCP_RST,
  TCP_SYN,
} from '../core/packet.ts';
import type { Arena } from '../io/linux/arena.ts';
import type { DatagramQueue } from '../io/linux/datagram-queue.ts';
import { EINVAL, EMSGSIZE } from '../io/linux/ffi.ts';
import { UDP_PAYLOAD_BYTES_MAX } from '../io/linux/udp-socket.ts';
import { type Destination, VxlanSender } from '../io/linux/vxlan-socket.ts';
import { DATA_HEADER_BYTES, DATA_OVERHEAD_BYTES } from '../noise/messages.ts';
import {
  fragmentPayloadBytes,
  mustNotFragment,
  writeIpv4FragmentHeaders,
} from '../routing-mesh/ipv4-fragments.ts';
import { clampMss } from '../routing-mesh/mss-clamp.ts';
import { IPV6_MTU_BYTES_MIN } from '../routing-mesh/too-big.ts';
import { VXLAN_HEADER_BYTES, writeVxlanHeader } from '../vxlan/header.ts';
import { type CaptureTaps, CROSSING_PEER_OUT } from './capture-taps.ts';
import { type Counters, dropIndex, trafficIndex } from './counters.ts';
import { GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, type Offload } from './offload.ts';
import { TCP_CHECKSUM_OFFSET, UDP_CHECKSUM_OFFSET } from './partial-checksum.ts';
import { peerCounterIndex } from './peer-counters.ts';
import type { Peer, PeerPlace } from './peers.ts';
import type { SecureSession } from './secure-session.ts';
import type { SecureSessions } from './secure-sessions.ts';

/** Room for one segment's headers: VXLAN 8, Ethernet 14, IP with options or extensions, TCP 60. */
const HEADER_SLOT_BYTES = 256;
/** Segments whose headers wait at most. */
const HEADER_SLOTS = 256;
/** Sealed messages that wait at most: a superframe with all that its segments add, and some more. */
const SEALED_BYTES = 128 * 1024;
/** What fits a datagram sealed. */
const PLAINTEXT_BYTES_MAX = UDP_PAYLOAD_BYTES_MAX - DATA_OVERHEAD_BYTES;
/** The largest frame: 64 KiB of IP in Ethernet with a VLAN tag. */
const FRAME_BYTES_MAX = 65_535 + 18;
/** In front of frames: Ethernet is 2 off, so that IP is aligned. */
const FRAME_OFFSET = 2;
/** Source ports in use: entropy for the underlay's hashing, few enough for long GRO runs. */
const SENDING_SOCKETS = 4;
/** TCP flags that belong to the last segment of a superframe only. */
const LAST_SEGMENT_FLAGS = TCP_FIN | TCP_PSH;
const TCP_URG = 0x20;
/** TCP flags of segments that are never cut: they say something about one place in the stream. */
const WHOLE_SEGMENT_FLAGS = TCP_SYN | TCP_RST | TCP_URG;
/** Where addresses start in an IPv4 and an IPv6 header, and how many bytes both take. */
const IPV4_ADDRESSES_AT = 12;
const IPV4_ADDRESSES_BYTES = 8;
const IPV6_ADDRESSES_AT = 8;
const IPV6_ADDRESSES_BYTES = 32;
const IPV6_HEADER_BYTES = 40;

const DATAGRAMS_OUT = trafficIndex('underlay-datagrams-out');
const BYTES_OUT = trafficIndex('underlay-bytes-out');
const SENDS = trafficIndex('underlay-sends');
const PEER_DATAGRAMS_OUT = peerCounterIndex('datagrams-out');
const PEER_BYTES_OUT = peerCounterIndex('bytes-out');
const PEER_DROPS_OUT = peerCounterIndex('drops-out');
const SEND_FAILED = dropIndex('send-failed');
const BAD_OFFLOAD = dropIndex('bad-offload');
const UNKNOWN_VTEP = dropIndex('unknown-vtep');
const TOO_BIG = dropIndex('too-big');

/** What {@link Egress} works with. */
export interface EgressDeps {
  readonly arena: Arena;
  readonly checksum: ChecksumKernel;
  readonly counters: Counters;
  readonly taps: CaptureTaps;
  /** Source of all that leaves; its family is the underlay's. */
  readonly vtepAddress: Ip;
  readonly secure: SecureSessions;
  /** Told when the kernel refuses a datagram as too large for its path. */
  readonly onTooBig?: (destination: Destination) => void;
}

/**
 * Sends frames to VTEPs. A superframe is cut by writing headers only: its payload leaves from where it
 * lies, by iovec. Frames and segments wait in queues until {@link Egress.flush}, so that those of one
 * size to one VTEP leave together.
 *
 * What is of an encrypted network is copied behind its headers and sealed there. This is the one way by
 * which frames leave, and without a session none of such a network does.
 */
export class Egress {
  readonly #arena: Arena;
  readonly #checksum: ChecksumKernel;
  readonly #counters: Counters;
  readonly #taps: CaptureTaps;
  readonly #sender: VxlanSender;
  readonly #secure: SecureSessions;
  readonly #slots: number;
  #usedSlots = 0;
  /** Where sealed messages are, and how many bytes of it wait. */
  readonly #sealed: number;
  #sealedBytes = 0;
  /** A frame that has waited for its session, and where it is put. */
  readonly #resumed = new Packet();
  readonly #resumedFrame: number;
  // Of the frame being sent: fields, so that nothing is allocated or passed along per packet.
  #session: SecureSession | undefined;
  #mtuBytes = 0;
  // The segments being cut.
  #headerBytes = 0;
  #ipBase = 0;
  #l4Base = 0;
  /** Whether checksums are left partial: the pseudo-header's sum, whose base is then `#l4Base`. */
  #isPartial = false;
  /** One datagram of a UDP superframe. */
  readonly #datagram = new Packet();

  constructor(deps: EgressDeps) {
    const { arena, checksum, counters, taps, vtepAddress, secure, onTooBig } = deps;
    this.#arena = arena;
    this.#checksum = checksum;
    this.#counters = counters;
    this.#taps = taps;
    this.#secure = secure;
    // All destinations are peers, or places where peers are: nothing else is queued here.
    this.#sender = new VxlanSender(
      arena,
      vtepAddress,
      SENDING_SOCKETS,
      (destination, datagrams, error) => {
        counters.dropMany(SEND_FAILED, datagrams);
        (destination as Peer | PeerPlace).count(PEER_DROPS_OUT, datagrams);
        // Before Linux 6.14 a run of datagrams that are too large is refused as invalid.
        if (error === EMSGSIZE || (error === EINVAL && datagrams > 1)) onTooBig?.(destination);
      },
      (destination, datagrams, bytes) => {
        (destination as Peer | PeerPlace).count(PEER_DATAGRAMS_OUT, datagrams);
        (destination as Peer | PeerPlace).count(PEER_BYTES_OUT, bytes);
      },
    );
    this.#slots = arena.allocate(HEADER_SLOT_BYTES * HEADER_SLOTS);
    this.#sealed = arena.allocate(FRAME_OFFSET + SEALED_BYTES) + FRAME_OFFSET;
    const headroom = FRAME_OFFSET + VXLAN_HEADER_BYTES;
    this.#resumedFrame = arena.allocate(headroom + FRAME_BYTES_MAX) + headroom;
  }

  /**
   * Queues the frame of `packet` for a VTEP. The 8 bytes in front of the frame are overwritten, and the frame
   * must stay as it is until {@link Egress.flush}.
   *
   * What is larger than the path to the peer carries is made to fit where that is nobody's business: TCP
   * is cut into more segments, IPv4 without DF into fragments.
   *
   * @param packet - Parsed from the arena; its frame may be a superframe as `offload` says.
   * @param vni - Network identifier to send under.
   * @returns 0; or else nothing was sent, and the sender must be told of this MTU
   */
  send(packet: Packet, offload: Offload, vni: number, peer: Peer): number {
    if (!peer.isKnown) {
      this.#counters.drop(UNKNOWN_VTEP);
      return 0;
    }
    const isEncrypted = this.#secure.encryptedVnis.has(vni);
    if (isEncrypted && peer.session === undefined) {
      this.#secure.hold(peer, packet.start, packet.length, offload, vni);
      return 0;
    }
    this.#session = isEncrypted ? peer.session : undefined;
    this.#mtuBytes = peer.innerMtuBytes - (isEncrypted ? DATA_OVERHEAD_BYTES : 0);
    const { view } = this.#arena;
    const queue = this.#sender.queue(this.#flowEntropy(packet));
    const mtuBytes = this.#mtuBytes;
    writeVxlanHeader(view, packet.start - VXLAN_HEADER_BYTES, vni);
    if ((packet.tcpFlags & TCP_SYN) !== 0) clampMss(view, packet, mtuBytes, offload.needsChecksum);
    if (this.#taps.active) {
      this.#taps.frame(CROSSING_PEER_OUT, vni, peer.slot, packet.start, packet.length);
    }
    if (offload.gsoType === GSO_NONE) {
      const fits = packet.length <= ETHERNET_HEADER_BYTES + mtuBytes;
      if (!fits) return this.#sendTooLong(packet, offload, peer, queue);
      this.#sendWhole(packet, offload, peer, queue);
      return 0;
    }
    if (!isSuperframe(packet, offload)) {
      this.#counters.drop(BAD_OFFLOAD);
      return 0;
    }
    const room = mtuBytes - (packet.l4Start + packet.l4HeaderBytes - packet.ipStart);
    if (offload.gsoBytes > room && packet.protocol === PROTO_UDP) {
      return this.#sendLongDatagrams(packet, offload.gsoBytes, peer, queue);
    }
    this.#sendSegments(packet, Math.min(offload.gsoBytes, room), peer, queue);
    return 0;
  }

  /** Sends the frames that have waited for a session with `peer`, as far as they are not too old. */
  sendWaiting(peer: Peer): void {
    const { waiting } = peer;
    if (waiting === undefined || peer.session === undefined) return;
    const { bytes, view } = this.#arena;
    for (let frame = waiting.take(); frame !== undefined; frame = waiting.take()) {
      bytes.set(frame.bytes, this.#resumedFrame);
      parseFrame(view, this.#resumedFrame, frame.bytes.length, this.#resumed);
      const mtuBytes = this.send(this.#resumed, frame.offload, frame.vni, peer);
      if (mtuBytes !== 0) this.#counters.drop(TOO_BIG); // its sender hears of it next time
      this.flush();
    }
  }

  /** Sends an empty message by the session with `peer`, if there is one. */
  sendKeepalive(peer: Peer): void {
    this.#session = peer.session;
    if (this.#session === undefined) return;
    this.#seal(peer, this.#sender.queue(0), this.#takeMessage(0), 0);
    this.flush();
  }

  /** Hands all that waits to the kernel. Frames that were queued may then be overwritten. */
  flush(): void {
    this.#sender.flush();
    this.#usedSlots = 0;
    this.#sealedBytes = 0;
    const { queues } = this.#sender;
    for (let index = 0; index < queues.length; index += 1) {
      const queue = queues[index] as DatagramQueue;
      if (queue.sends === 0) continue;
      this.#counters.add(SENDS, queue.sends);
      this.#counters.add(DATAGRAMS_OUT, queue.datagrams);
      this.#counters.add(BYTES_OUT, queue.bytes);
      queue.sends = 0;
      queue.datagrams = 0;
      queue.bytes = 0;
    }
  }

  close(): void {
    this.#sender.close();
  }

  #sendWhole(packet: Packet, offload: Offload, peer: Peer, queue: DatagramQueue): void {
    if (offload.needsChecksum && !this.#completeChecksum(packet, offload)) return;
    this.#add(packet, peer, queue);
  }

  /** Queues the frame with its VXLAN header, as it lies there or sealed. */
  #add(packet: Packet, peer: Peer, queue: DatagramQueue): void {
    const start = packet.start - VXLAN_HEADER_BYTES;
    const bytes = VXLAN_HEADER_BYTES + packet.length;
    if (this.#session === undefined) {
      queue.add(peer, start, bytes);
      return;
    }
    if (bytes > PLAINTEXT_BYTES_MAX) {
      this.#counters.drop(SEND_FAILED);
      return;
    }
    const message = this.#takeMessage(bytes);
    this.#arena.bytes.copyWithin(message + DATA_HEADER_BYTES, start, start + bytes);
    this.#seal(peer, queue, message, bytes);
  }

  /** Queues a datagram whose headers are in a slot of {@link Egress.#takeSlot} and whose payload is not. */
  #addPieces(
    peer: Peer,
    queue: DatagramQueue,
    slot: number,
    headerBytes: number,
    payload: number,
    bytes: number,
  ): void {
    if (this.#session === undefined) {
      queue.addTwo(peer, slot, headerBytes, payload, bytes);
      return;
    }
    this.#arena.bytes.copyWithin(slot + headerBytes, payload, payload + bytes);
    this.#seal(peer, queue, slot - DATA_HEADER_BYTES, headerBytes + bytes);
  }

  #seal(peer: Peer, queue: DatagramQueue, message: number, plaintextBytes: number): void {
    this.#session?.seal(message, plaintextBytes);
    queue.add(peer.sealedTo ?? peer, message, plaintextBytes + DATA_OVERHEAD_BYTES);
  }

  /** Sends a packet that is larger than the path carries, if its sender lets us. */
  #sendTooLong(packet: Packet, offload: Offload, peer: Peer, queue: DatagramQueue): number {
    const mtuBytes = this.#mtuBytes;
    if (mayBeCut(packet)) {
      const headerBytes = packet.l4Start + packet.l4HeaderBytes - packet.ipStart;
      this.#sendSegments(packet, mtuBytes - headerBytes, peer, queue);
      return 0;
    }
    const answer = this.#refusal(packet, packet.length - ETHERNET_HEADER_BYTES, mtuBytes);
    if (answer !== 0) return answer;
    if (offload.needsChecksum && !this.#completeChecksum(packet, offload)) return 0;
    this.#sendInParts(packet, peer, queue);
    return 0;
  }

  /**
   * The MTU to tell the sender of a packet of `ipBytes` that does not fit `mtuBytes`; 0 if it may travel in
   * parts: IPv4 as its sender allows, IPv6 up to the size that every link must carry, if need be by
   * fragments below it (RFC 8200 section 5).
   */
  #refusal(packet: Packet, ipBytes: number, mtuBytes: number): number {
    if (packet.etherType === ETHERTYPE_IPV4) {
      return mustNotFragment(this.#arena.view, packet) ? mtuBytes : 0;
    }
    return ipBytes <= IPV6_MTU_BYTES_MIN ? 0 : Math.max(mtuBytes, IPV6_MTU_BYTES_MIN);
  }

  /** Sends the packet as IPv4 fragments, or inside of an outer packet that may be fragmented. */
  #sendInParts(packet: Packet, peer: Peer, queue: DatagramQueue): void {
    if (packet.etherType === ETHERTYPE_IPV4) {
      this.#sendFragments(packet, peer, queue);
      return;
    }
    const { fragmenting } = this.#sender;
    this.#add(packet, peer, fragmenting);
    fragmenting.flush();
  }

  #sendFragments(packet: Packet, peer: Peer, queue: DatagramQueue): void {
    const { view } = this.#arena;
    const room = fragmentPayloadBytes(packet, this.#mtuBytes);
    const payload = packet.ipStart + packet.ipHeaderBytes;
    const payloadBytes = packet.ipTotalBytes - packet.ipHeaderBytes;
    const headerBytes = VXLAN_HEADER_BYTES + payload - packet.start;
    for (let done = 0; done < payloadBytes; done += room) {
      const bytes = Math.min(room, payloadBytes - done);
      const slot = this.#takeSlot(headerBytes + bytes);
      copyWords(view, packet.start - VXLAN_HEADER_BYTES, slot, VXLAN_HEADER_BYTES);
      const frame = slot + VXLAN_HEADER_BYTES;
      writeIpv4FragmentHeaders(view, frame, packet, done, bytes);
      this.#addPieces(peer, queue, slot, headerBytes, payload + done, bytes);
    }
  }

  /**
   * Sends the datagrams of a UDP superframe that are larger than the path carries. This is rare: whoever sends
   * superframes knows his MTU. So the datagrams are made one by one, in place, and each leaves before
   * the headers of the next one overwrite its end.
   */
  #sendLongDatagrams(packet: Packet, gsoBytes: number, peer: Peer, queue: DatagramQueue): number {
    const { view, bytes } = this.#arena;
    const headerBytes = packet.l4Start + packet.l4HeaderBytes - packet.start;
    const ipBytes = headerBytes - ETHERNET_HEADER_BYTES + gsoBytes;
    const answer = this.#refusal(packet, ipBytes, this.#mtuBytes);
    if (answer !== 0) return answer;
    const payload = packet.start + headerBytes;
    const payloadBytes = ETHERNET_HEADER_BYTES + packet.ipTotalBytes - headerBytes;
    this.#headerBytes = VXLAN_HEADER_BYTES + headerBytes;
    this.#isPartial = false;
    this.#sumHeaders(packet);
    let index = 0;
    for (let done = 0; done < payloadBytes; done += gsoBytes) {
      this.flush();
      const slot = this.#takeHeaderSlot();
      const length = Math.min(gsoBytes, payloadBytes - done);
      this.#writeHeaders(packet, slot, index, done, length, done + length === payloadBytes);
      const datagram = payload + done - this.#headerBytes;
      bytes.copyWithin(datagram, slot, slot + this.#headerBytes);
      parseFrame(view, datagram + VXLAN_HEADER_BYTES, headerBytes + length, this.#datagram);
      this.#sendInParts(this.#datagram, peer, queue);
      index += 1;
    }
    this.flush();
    return 0;
  }

  #completeChecksum(packet: Packet, offload: Offload): boolean {
    const { checksumStart, checksumOffset } = offload;
    if (checksumStart + checksumOffset + 2 > packet.length) {
      this.#counters.drop(BAD_OFFLOAD);
      return false;
    }
    const start = packet.start + checksumStart;
    const sum = this.#checksum.sum16(start, packet.length - checksumStart);
    // A computed zero goes out as 0xffff: in UDP zero means "no checksum" (RFC 768).
    this.#arena.view.setUint16(start + checksumOffset, ~sum & 0xffff || 0xffff, true);
    return true;
  }

  /** Cuts a TCP or UDP superframe into datagrams of `gsoBytes` payload each. */
  #sendSegments(packet: Packet, gsoBytes: number, peer: Peer, queue: DatagramQueue): void {
    const headerBytes = packet.l4Start + packet.l4HeaderBytes - packet.start;
    const payload = packet.start + headerBytes;
    const payloadBytes = ETHERNET_HEADER_BYTES + packet.ipTotalBytes - headerBytes;
    this.#headerBytes = VXLAN_HEADER_BYTES + headerBytes;
    // Between seals nothing can be damaged: who opens them marks the frame, and no sum is needed.
    this.#isPartial = this.#session !== undefined;
    this.#sumHeaders(packet);
    let done = 0;
    for (let index = 0; done < payloadBytes; index += 1) {
      const bytes = Math.min(gsoBytes, payloadBytes - done);
      const slot = this.#takeSlot(this.#headerBytes + bytes);
      this.#writeHeaders(packet, slot, index, done, bytes, done + bytes === payloadBytes);
      this.#addPieces(peer, queue, slot, this.#headerBytes, payload + done, bytes);
      done += bytes;
    }
  }

  /** Room for a datagram's headers: where it is sealed, in front of room for the rest of it. */
  #takeSlot(datagramBytes: number): number {
    if (this.#session === undefined) return this.#takeHeaderSlot();
    return this.#takeMessage(datagramBytes) + DATA_HEADER_BYTES;
  }

  /** Room for a sealed message, right behind the last one: a run of them is one piece of memory. */
  #takeMessage(plaintextBytes: number): number {
    const bytes = plaintextBytes + DATA_OVERHEAD_BYTES;
    if (this.#sealedBytes + bytes > SEALED_BYTES) this.flush();
    const message = this.#sealed + this.#sealedBytes;
    this.#sealedBytes += bytes;
    return message;
  }

  #takeHeaderSlot(): number {
    if (this.#usedSlots === HEADER_SLOTS) this.flush();
    return this.#slots + this.#usedSlots++ * HEADER_SLOT_BYTES;
  }

  /** Sums what all segments' headers have in common, so that each adds only what differs. */
  #sumHeaders(packet: Packet): void {
    const { view } = this.#arena;
    const { ipStart, l4Start, l4HeaderBytes, protocol } = packet;
    const isIpv4 = packet.etherType === ETHERTYPE_IPV4;
    if (isIpv4) {
      view.setUint16(ipStart + 2, 0);
      view.setUint16(ipStart + 4, 0);
      view.setUint16(ipStart + 10, 0);
      this.#ipBase = this.#checksum.sum16(ipStart, packet.ipHeaderBytes);
    }
    if (protocol === PROTO_TCP) {
      view.setUint16(l4Start + 16, 0);
      view.setUint8(l4Start + 13, packet.tcpFlags & ~LAST_SEGMENT_FLAGS);
    } else {
      view.setUint32(l4Start + 4, 0); // length and checksum
    }
    const skipped = protocol === PROTO_TCP ? 8 : 4; // ports, and TCP's sequence number
    const addresses = isIpv4
      ? this.#checksum.sum16(ipStart + IPV4_ADDRESSES_AT, IPV4_ADDRESSES_BYTES)
      : this.#checksum.sum16(ipStart + IPV6_ADDRESSES_AT, IPV6_ADDRESSES_BYTES);
    this.#l4Base = addresses + swap16(protocol);
    if (this.#isPartial) return;
    this.#l4Base +=
      this.#checksum.sum16(l4Start, 4) +
      this.#checksum.sum16(l4Start + skipped, l4HeaderBytes - skipped);
  }

  /** Writes VXLAN to transport header of segment `index`, `done` payload bytes into the superframe. */
  #writeHeaders(
    packet: Packet,
    slot: number,
    index: number,
    done: number,
    bytes: number,
    last: boolean,
  ): void {
    const { view } = this.#arena;
    const from = packet.start - VXLAN_HEADER_BYTES;
    copyWords(view, from, slot, this.#headerBytes);
    const ip = slot + VXLAN_HEADER_BYTES + ETHERNET_HEADER_BYTES;
    const l4 = slot + packet.l4Start - from;
    const l4Bytes = packet.l4HeaderBytes + bytes;
    this.#writeIpLength(packet, ip, index, l4 - ip + l4Bytes);
    let sum = this.#l4Base + swap16(l4Bytes);
    if (this.#isPartial) {
      this.#writePartial(packet, l4, l4Bytes, done, last, fold16(sum));
      return;
    }
    sum += this.#checksum.sum16(packet.l4Start + packet.l4HeaderBytes + done, bytes);
    if (packet.protocol === PROTO_UDP) {
      view.setUint16(l4 + 4, l4Bytes);
      sum += swap16(l4Bytes);
      view.setUint16(l4 + 6, ~fold16(sum) & 0xffff || 0xffff, true);
      return;
    }
    const sequence = (view.getInt32(packet.l4Start + 4) + done) | 0;
    view.setInt32(l4 + 4, sequence);
    sum += swap16(sequence >>> 16) + swap16(sequence & 0xffff);
    if (last) {
      view.setUint8(l4 + 13, packet.tcpFlags);
      sum += (packet.tcpFlags & LAST_SEGMENT_FLAGS) << 8; // the flags are a word's second byte
    }
    view.setUint16(l4 + 16, ~fold16(sum) & 0xffff, true);
  }

  /** Writes what differs in a transport header whose checksum holds the pseudo-header's `sum`. */
  #writePartial(
    packet: Packet,
    l4: number,
    l4Bytes: number,
    done: number,
    last: boolean,
    sum: number,
  ): void {
    const { view } = this.#arena;
    if (packet.protocol === PROTO_UDP) {
      view.setUint16(l4 + 4, l4Bytes);
      view.setUint16(l4 + UDP_CHECKSUM_OFFSET, sum, true);
      return;
    }
    view.setInt32(l4 + 4, (view.getInt32(packet.l4Start + 4) + done) | 0);
    if (last) view.setUint8(l4 + 13, packet.tcpFlags);
    view.setUint16(l4 + TCP_CHECKSUM_OFFSET, sum, true);
  }

  /** Writes what differs in the IP header of segment `index`, which has `ipBytes` in all. */
  #writeIpLength(packet: Packet, ip: number, index: number, ipBytes: number): void {
    const { view } = this.#arena;
    if (packet.etherType !== ETHERTYPE_IPV4) {
      view.setUint16(ip + 4, ipBytes - IPV6_HEADER_BYTES);
      return;
    }
    const identification = (packet.identification + index) & 0xffff;
    view.setUint16(ip + 2, ipBytes);
    view.setUint16(ip + 4, identification);
    const sum = fold16(this.#ipBase + swap16(ipBytes) + swap16(identification));
    view.setUint16(ip + 10, ~sum & 0xffff, true);
  }

  /** A number that is equal for all packets of a flow, fragments included (so no ports of fragments). */
  #flowEntropy(packet: Packet): number {
    const { view } = this.#arena;
    const { ipStart } = packet;
    let mixed = packet.isFragment ? 0 : (packet.sourcePort << 16) | packet.destinationPort;
    if (packet.etherType === ETHERTYPE_IPV4) {
      mixed ^= Math.imul(view.getInt32(ipStart + 12) ^ view.getInt32(ipStart + 16), 0x9e37_79b1);
    } else if (packet.etherType === ETHERTYPE_IPV6) {
      mixed ^= Math.imul(view.getInt32(ipStart + 20) ^ view.getInt32(ipStart + 36), 0x9e37_79b1);
    }
    return (Math.imul(mixed ^ (mixed >>> 15), 0x85eb_ca6b) >>> 13) & 0xffff;
  }
}

/** Whether the TAP's word for a frame to be cut agrees with the frame. */
function isSuperframe(packet: Packet, offload: Offload): boolean {
  if (offload.gsoBytes === 0 || packet.isFragment || packet.l4HeaderBytes === 0) return false;
  if (!fitsHeaderSlot(packet)) return false;
  const { etherType, protocol } = packet;
  switch (offload.gsoType) {
    case GSO_TCPV4:
      return etherType === ETHERTYPE_IPV4 && protocol === PROTO_TCP;
    case GSO_TCPV6:
      return etherType === ETHERTYPE_IPV6 && protocol === PROTO_TCP;
    case GSO_UDP_L4:
      return protocol === PROTO_UDP;
    default:
      return false;
  }
}

/** Whether TCP is none the wiser when the segment is cut into smaller ones. */
function mayBeCut(packet: Packet): boolean {
  const { protocol, l4HeaderBytes, tcpFlags, isFragment } = packet;
  const isSegment = protocol === PROTO_TCP && l4HeaderBytes > 0 && !isFragment;
  return isSegment && (tcpFlags & WHOLE_SEGMENT_FLAGS) === 0 && fitsHeaderSlot(packet);
}

function fitsHeaderSlot(packet: Packet): boolean {
  const headerBytes = packet.l4Start + packet.l4HeaderBytes - packet.start;
  return VXLAN_HEADER_BYTES + headerBytes <= HEADER_SLOT_BYTES;
}

/** Copies `length` bytes, rounded up to whole words: header slots have room for that. */
function copyWords(view: DataView, from: number, to: number, length: number): void {
  for (let at = 0; at < length; at += 4) view.setInt32(to + at, view.getInt32(from + at));
}
