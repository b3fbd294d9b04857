import type { Ipv4 } from '../core/address.ts';
import { type ChecksumKernel, fold16, swap16 } from '../core/checksum.ts';
import {
  ETHERNET_HEADER_BYTES,
  type Packet,
  PROTO_TCP,
  PROTO_UDP,
  TCP_FIN,
  TCP_PSH,
} from '../core/packet.ts';
import { type Arena, IOVEC_BYTES } from '../io/linux/arena.ts';
import { UDP_PAYLOAD_BYTES_MAX, UDP_SEGMENTS_MAX, VxlanSender } from '../io/linux/vxlan-socket.ts';
import { VXLAN_HEADER_BYTES, writeVxlanHeader } from '../vxlan/header.ts';
import { type Counters, dropIndex, trafficIndex } from './counters.ts';
import { GSO_NONE, GSO_TCPV4, GSO_UDP_L4, type Offload } from './offload.ts';

/** Room for one segment's headers: VXLAN 8, Ethernet 14, IPv4 60, TCP 60. */
const HEADER_SLOT_BYTES = 192;
/** Source ports in use: entropy for the underlay's hashing, few enough for long GRO runs. */
const SENDING_SOCKETS = 4;
/** TCP flags that belong to the last segment of a superframe only. */
const LAST_SEGMENT_FLAGS = TCP_FIN | TCP_PSH;

const DATAGRAMS_OUT = trafficIndex('underlay-datagrams-out');
const BYTES_OUT = trafficIndex('underlay-bytes-out');
const SENDS = trafficIndex('underlay-sends');
const SEND_FAILED = dropIndex('send-failed');
const BAD_OFFLOAD = dropIndex('bad-offload');

/**
 * Sends frames to VTEPs. A superframe is cut by writing headers only: its payload leaves from where it
 * lies, by iovec, in one `UDP_SEGMENT` send (or a few, where the kernel's limits are met).
 */
export class Egress {
  readonly #arena: Arena;
  readonly #checksum: ChecksumKernel;
  readonly #counters: Counters;
  readonly #sender: VxlanSender;
  readonly #slots: number;
  // The segments being cut: fields, so that nothing is allocated or passed along per packet.
  #vtep: Ipv4 = 0;
  #vtepPort = 0;
  #entropy = 0;
  #headerBytes = 0;
  #ipBase = 0;
  #l4Base = 0;

  constructor(arena: Arena, checksum: ChecksumKernel, counters: Counters, vtepAddress: Ipv4) {
    this.#arena = arena;
    this.#checksum = checksum;
    this.#counters = counters;
    this.#sender = new VxlanSender(arena, vtepAddress, SENDING_SOCKETS, 2 * UDP_SEGMENTS_MAX);
    this.#slots = arena.allocate(HEADER_SLOT_BYTES * UDP_SEGMENTS_MAX);
  }

  /**
   * Sends the frame of `packet` to a VTEP. The 8 bytes in front of the frame are overwritten.
   *
   * @param packet - Parsed from the arena; its frame may be a superframe as `offload` says.
   * @param vni - Network identifier to send under.
   * @param vtep - As an unsigned or, which spares V8 a heap object per frame, a signed integer.
   */
  send(packet: Packet, offload: Offload, vni: number, vtep: Ipv4, vtepPort: number): void {
    this.#vtep = vtep | 0;
    this.#vtepPort = vtepPort;
    this.#entropy = flowEntropy(packet);
    writeVxlanHeader(this.#arena.view, packet.start - VXLAN_HEADER_BYTES, vni);
    if (offload.gsoType === GSO_NONE) {
      this.#sendWhole(packet, offload);
      return;
    }
    const expected = offload.gsoType === GSO_TCPV4 ? PROTO_TCP : PROTO_UDP;
    const known = offload.gsoType === GSO_TCPV4 || offload.gsoType === GSO_UDP_L4;
    if (!known || packet.protocol !== expected || offload.gsoBytes === 0 || packet.isFragment) {
      this.#counters.drop(BAD_OFFLOAD);
      return;
    }
    this.#sendSegments(packet, offload.gsoBytes);
  }

  close(): void {
    this.#sender.close();
  }

  #sendWhole(packet: Packet, offload: Offload): void {
    if (offload.needsChecksum && !this.#completeChecksum(packet, offload)) return;
    const length = VXLAN_HEADER_BYTES + packet.length;
    this.#arena.setIovec(this.#sender.iovecs, packet.start - VXLAN_HEADER_BYTES, length);
    this.#submit(1, 1, length, 0);
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
  #sendSegments(packet: Packet, gsoBytes: number): void {
    const headerBytes = packet.l4Start + packet.l4HeaderBytes - packet.start;
    const payload = packet.start + headerBytes;
    const payloadBytes = ETHERNET_HEADER_BYTES + packet.ipTotalBytes - headerBytes;
    this.#headerBytes = VXLAN_HEADER_BYTES + headerBytes;
    this.#sumHeaders(packet);
    const datagramBytes = this.#headerBytes + gsoBytes;
    const perSend = Math.min(UDP_SEGMENTS_MAX, Math.floor(UDP_PAYLOAD_BYTES_MAX / datagramBytes));
    let done = 0;
    let index = 0;
    let inSend = 0;
    let sendBytes = 0;
    while (done < payloadBytes) {
      const bytes = Math.min(gsoBytes, payloadBytes - done);
      const slot = this.#slots + inSend * HEADER_SLOT_BYTES;
      this.#writeHeaders(packet, slot, index, done, bytes, done + bytes === payloadBytes);
      const vector = this.#sender.iovecs + inSend * 2 * IOVEC_BYTES;
      this.#arena.setIovec(vector, slot, this.#headerBytes);
      this.#arena.setIovec(vector + IOVEC_BYTES, payload + done, bytes);
      done += bytes;
      index += 1;
      inSend += 1;
      sendBytes += this.#headerBytes + bytes;
      if (inSend === perSend || done === payloadBytes) {
        this.#submit(inSend * 2, inSend, sendBytes, inSend > 1 ? datagramBytes : 0);
        inSend = 0;
        sendBytes = 0;
      }
    }
  }

  /** Sums what all segments' headers have in common, so that each adds only what differs. */
  #sumHeaders(packet: Packet): void {
    const { view } = this.#arena;
    const { ipStart, l4Start, l4HeaderBytes, protocol } = packet;
    view.setUint16(ipStart + 2, 0);
    view.setUint16(ipStart + 4, 0);
    view.setUint16(ipStart + 10, 0);
    this.#ipBase = this.#checksum.sum16(ipStart, packet.ipHeaderBytes);
    if (protocol === PROTO_TCP) {
      view.setUint16(l4Start + 16, 0);
      view.setUint8(l4Start + 13, packet.tcpFlags & ~LAST_SEGMENT_FLAGS);
    } else {
      view.setUint32(l4Start + 4, 0); // length and checksum
    }
    const skipped = protocol === PROTO_TCP ? 8 : 4; // ports, and TCP's sequence number
    this.#l4Base =
      this.#checksum.sum16(ipStart + 12, 8) +
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
    this.#arena.bytes.copyWithin(slot, from, from + this.#headerBytes);
    const ip = slot + VXLAN_HEADER_BYTES + ETHERNET_HEADER_BYTES;
    const l4 = ip + packet.ipHeaderBytes;
    const totalBytes = packet.ipHeaderBytes + packet.l4HeaderBytes + bytes;
    const identification = (packet.identification + index) & 0xffff;
    view.setUint16(ip + 2, totalBytes);
    view.setUint16(ip + 4, identification);
    const ipSum = fold16(this.#ipBase + swap16(totalBytes) + swap16(identification));
    view.setUint16(ip + 10, ~ipSum & 0xffff, true);
    const payload = packet.l4Start + packet.l4HeaderBytes + done;
    const l4Bytes = packet.l4HeaderBytes + bytes;
    let sum = this.#l4Base + swap16(l4Bytes) + this.#checksum.sum16(payload, bytes);
    if (packet.protocol === PROTO_UDP) {
      view.setUint16(l4 + 4, l4Bytes);
      sum += swap16(l4Bytes);
      view.setUint16(l4 + 6, ~fold16(sum) & 0xffff || 0xffff, true);
      return;
    }
    const sequence = (view.getUint32(packet.l4Start + 4) + done) >>> 0;
    view.setUint32(l4 + 4, sequence);
    sum += swap16(sequence >>> 16) + swap16(sequence & 0xffff);
    if (last) {
      view.setUint8(l4 + 13, packet.tcpFlags);
      sum += (packet.tcpFlags & LAST_SEGMENT_FLAGS) << 8; // the flags are a word's second byte
    }
    view.setUint16(l4 + 16, ~fold16(sum) & 0xffff, true);
  }

  #submit(iovecs: number, datagrams: number, bytes: number, segmentBytes: number): void {
    const sent = this.#sender.send(this.#vtep, this.#vtepPort, this.#entropy, iovecs, segmentBytes);
    this.#counters.add(SENDS, 1);
    if (sent < 0) {
      this.#counters.drop(SEND_FAILED);
      return;
    }
    this.#counters.add(DATAGRAMS_OUT, datagrams);
    this.#counters.add(BYTES_OUT, bytes);
  }
}

/** A number that is equal for all packets of a flow, fragments included (so no ports of fragments). */
function flowEntropy(packet: Packet): number {
  const ports = packet.isFragment ? 0 : (packet.sourcePort << 16) | packet.destinationPort;
  const mixed = Math.imul((packet.source ^ (packet.destination * 31)) | 0, 0x9e37_79b1) ^ ports;
  return (Math.imul(mixed ^ (mixed >>> 15), 0x85eb_ca6b) >>> 13) & 0xffff;
}
