import { type ChecksumKernel, fold16, swap16 } from '../core/checksum.ts';
import type { Ip } from '../core/ip.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  type Packet,
  PROTO_TCP,
  PROTO_UDP,
  TCP_FIN,
  TCP_PSH,
} from '../core/packet.ts';
import type { Arena } from '../io/linux/arena.ts';
import type { DatagramQueue } from '../io/linux/datagram-queue.ts';
import { VxlanSender } from '../io/linux/vxlan-socket.ts';
import { VXLAN_HEADER_BYTES, writeVxlanHeader } from '../vxlan/header.ts';
import { type Counters, dropIndex, trafficIndex } from './counters.ts';
import { GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, type Offload } from './offload.ts';
import type { Peer } from './peers.ts';

/** Room for one segment's headers: VXLAN 8, Ethernet 14, IP with options or extensions, TCP 60. */
const HEADER_SLOT_BYTES = 256;
/** Segments whose headers wait at most. */
const HEADER_SLOTS = 256;
/** Source ports in use: entropy for the underlay's hashing, few enough for long GRO runs. */
const SENDING_SOCKETS = 4;
/** TCP flags that belong to the last segment of a superframe only. */
const LAST_SEGMENT_FLAGS = TCP_FIN | TCP_PSH;
/** Where addresses start in an IPv4 and an IPv6 header, and how many bytes both take. */
const IPV4_ADDRESSES_AT = 12;
const IPV4_ADDRESSES_BYTES = 8;
const IPV6_ADDRESSES_AT = 8;
const IPV6_ADDRESSES_BYTES = 32;
const IPV6_HEADER_BYTES = 40;

const DATAGRAMS_OUT = trafficIndex('underlay-datagrams-out');
const BYTES_OUT = trafficIndex('underlay-bytes-out');
const SENDS = trafficIndex('underlay-sends');
const SEND_FAILED = dropIndex('send-failed');
const BAD_OFFLOAD = dropIndex('bad-offload');
const UNKNOWN_VTEP = dropIndex('unknown-vtep');

/**
 * Sends frames to VTEPs. A superframe is cut by writing headers only: its payload leaves from where it
 * lies, by iovec. Frames and segments wait in queues until {@link Egress.flush}, so that those of one
 * size to one VTEP leave together.
 */
export class Egress {
  readonly #arena: Arena;
  readonly #checksum: ChecksumKernel;
  readonly #counters: Counters;
  readonly #sender: VxlanSender;
  readonly #slots: number;
  #usedSlots = 0;
  // The segments being cut: fields, so that nothing is allocated or passed along per packet.
  #headerBytes = 0;
  #ipBase = 0;
  #l4Base = 0;

  /** @param vtepAddress - Source of all that leaves; its family is the underlay's. */
  constructor(arena: Arena, checksum: ChecksumKernel, counters: Counters, vtepAddress: Ip) {
    this.#arena = arena;
    this.#checksum = checksum;
    this.#counters = counters;
    this.#sender = new VxlanSender(arena, vtepAddress, SENDING_SOCKETS, (_peer, datagrams) => {
      counters.dropMany(SEND_FAILED, datagrams);
    });
    this.#slots = arena.allocate(HEADER_SLOT_BYTES * HEADER_SLOTS);
  }

  /**
   * Queues the frame of `packet` for a VTEP. The 8 bytes in front of the frame are overwritten, and the frame
   * must stay as it is until {@link Egress.flush}.
   *
   * @param packet - Parsed from the arena; its frame may be a superframe as `offload` says.
   * @param vni - Network identifier to send under.
   */
  send(packet: Packet, offload: Offload, vni: number, peer: Peer): void {
    if (!peer.isKnown) {
      this.#counters.drop(UNKNOWN_VTEP);
      return;
    }
    const queue = this.#sender.queue(this.#flowEntropy(packet));
    writeVxlanHeader(this.#arena.view, packet.start - VXLAN_HEADER_BYTES, vni);
    if (offload.gsoType === GSO_NONE) this.#sendWhole(packet, offload, peer, queue);
    else if (isSuperframe(packet, offload))
      this.#sendSegments(packet, offload.gsoBytes, peer, queue);
    else this.#counters.drop(BAD_OFFLOAD);
  }

  /** Hands all that waits to the kernel. Frames that were queued may then be overwritten. */
  flush(): void {
    this.#sender.flush();
    this.#usedSlots = 0;
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
    queue.add(peer, packet.start - VXLAN_HEADER_BYTES, VXLAN_HEADER_BYTES + packet.length);
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
    this.#sumHeaders(packet);
    let done = 0;
    for (let index = 0; done < payloadBytes; index += 1) {
      const bytes = Math.min(gsoBytes, payloadBytes - done);
      const slot = this.#takeSlot();
      this.#writeHeaders(packet, slot, index, done, bytes, done + bytes === payloadBytes);
      queue.addTwo(peer, slot, this.#headerBytes, payload + done, bytes);
      done += bytes;
    }
  }

  #takeSlot(): number {
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
    this.#l4Base =
      addresses +
      swap16(protocol) +
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
    const payload = packet.l4Start + packet.l4HeaderBytes + done;
    let sum = this.#l4Base + swap16(l4Bytes) + this.#checksum.sum16(payload, bytes);
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
  const headerBytes = packet.l4Start + packet.l4HeaderBytes - packet.start;
  if (VXLAN_HEADER_BYTES + headerBytes > HEADER_SLOT_BYTES) return false;
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

/** Copies `length` bytes, rounded up to whole words: header slots have room for that. */
function copyWords(view: DataView, from: number, to: number, length: number): void {
  for (let at = 0; at < length; at += 4) view.setInt32(to + at, view.getInt32(from + at));
}
