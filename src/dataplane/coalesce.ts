import type { ChecksumKernel } from '../core/checksum.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_IPV4,
  IPV4_HEADER_BYTES_MIN,
  PROTO_TCP,
  TCP_ACK,
  TCP_HEADER_BYTES_MIN,
  TCP_PSH,
} from '../core/packet.ts';
import { type Arena, IOVEC_BYTES } from '../io/linux/arena.ts';
import { UDP_SEGMENTS_MAX } from '../io/linux/vxlan-socket.ts';
import { VXLAN_HEADER_BYTES } from '../vxlan/header.ts';
import { isSoundSegment, pseudoHeaderSum, TCP_CHECKSUM_OFFSET } from './partial-checksum.ts';

/** Most bytes of a superframe's IP packet: its length field has 16 bits. */
const IP_BYTES_MAX = 65_535;
/** Most datagrams that one receive brings; larger runs are cut. */
const SEGMENTS_MAX = 2 * UDP_SEGMENTS_MAX;
const HEADERS_BYTES_MIN = ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES_MIN + TCP_HEADER_BYTES_MIN;
const VALID_SUM = 0xffff;

/**
 * Joins datagrams that hold consecutive TCP segments of one flow into a superframe, by the rules of
 * the kernel's own receive offload (net/ipv4/tcp_offload.c, `tcp_gro_receive`): same headers but
 * for length, identification, sequence, checksum and PSH; in order; of one size but the last.
 *
 * Checksums are verified before segments are joined, because the superframe gets new ones.
 */
export class Coalescer {
  /** Of the last {@link Coalescer.join}: how many datagrams were joined, 1 if none could be. */
  segments = 1;
  /** Headers of the joined frame, and its payload bytes. */
  headerBytes = 0;
  payloadBytes = 0;
  /** Payload of every segment but the last. */
  gsoBytes = 0;
  /**
   * Iovecs of the payload behind the first segment's, `segments - 1` of them. The entry in front of
   * them is the caller's, for the header and the first payload.
   */
  readonly iovecs: number;
  readonly #arena: Arena;
  readonly #checksum: ChecksumKernel;

  constructor(arena: Arena, checksum: ChecksumKernel) {
    this.#arena = arena;
    this.#checksum = checksum;
    this.iovecs = arena.allocate(IOVEC_BYTES * SEGMENTS_MAX);
  }

  /**
   * Joins what follows the datagram at `datagram` to it, as far as the rules allow. If anything was
   * joined, the first frame's headers become the superframe's: total length, IP checksum, and the
   * pseudo-header's sum in the TCP checksum field.
   *
   * @param datagram - Where the first VXLAN header starts.
   * @param stride - Distance between datagrams.
   * @param end - End of what was received.
   */
  join(datagram: number, stride: number, end: number): void {
    this.segments = 1;
    const length = Math.min(stride, end - datagram);
    if (datagram + stride >= end || !this.#canLead(datagram, length)) return;
    const { view } = this.#arena;
    const ip = datagram + VXLAN_HEADER_BYTES + ETHERNET_HEADER_BYTES;
    const tcp = ip + IPV4_HEADER_BYTES_MIN;
    // Signed: V8 keeps 32 bits without a heap object that way.
    let sequence = (view.getInt32(tcp + 4) + this.gsoBytes) | 0;
    let flags = view.getUint8(tcp + 13);
    let next = datagram + stride;
    let last = this.gsoBytes;
    while (next < end && last === this.gsoBytes && (flags & TCP_PSH) === 0) {
      const payload = this.#matches(datagram, next, Math.min(stride, end - next), sequence);
      if (payload === 0) break;
      const source = next + VXLAN_HEADER_BYTES + this.headerBytes;
      this.#arena.setIovec(this.iovecs + this.segments * IOVEC_BYTES, source, payload);
      flags = view.getUint8(next + (tcp - datagram) + 13);
      sequence = (sequence + payload) | 0;
      this.payloadBytes += payload;
      this.segments += 1;
      next += stride;
      last = payload;
    }
    if (this.segments > 1) this.#finish(ip, flags);
  }

  /** Whether a superframe can start with this datagram; sets its sizes. */
  #canLead(datagram: number, length: number): boolean {
    const { view } = this.#arena;
    const frame = datagram + VXLAN_HEADER_BYTES;
    const ip = frame + ETHERNET_HEADER_BYTES;
    const tcp = ip + IPV4_HEADER_BYTES_MIN;
    if (length < VXLAN_HEADER_BYTES + HEADERS_BYTES_MIN) return false;
    if (view.getUint16(frame + 12) !== ETHERTYPE_IPV4 || view.getUint8(ip) !== 0x45) return false;
    if (view.getUint8(ip + 9) !== PROTO_TCP || (view.getUint16(ip + 6) & 0x3fff) !== 0)
      return false;
    if ((view.getUint8(tcp + 13) & ~TCP_PSH) !== TCP_ACK) return false;
    const tcpHeaderBytes = (view.getUint8(tcp + 12) >>> 4) * 4;
    this.headerBytes = ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES_MIN + tcpHeaderBytes;
    this.gsoBytes = length - VXLAN_HEADER_BYTES - this.headerBytes;
    this.payloadBytes = this.gsoBytes;
    if (tcpHeaderBytes < TCP_HEADER_BYTES_MIN || this.gsoBytes <= 0) return false;
    return this.#isSound(ip, tcpHeaderBytes + this.gsoBytes);
  }

  /**
   * @param sequence - TCP sequence number that is due, as a signed integer.
   * @returns the payload bytes of the datagram at `next` if it continues the run, else 0
   */
  #matches(first: number, next: number, length: number, sequence: number): number {
    const { view } = this.#arena;
    const payload = length - VXLAN_HEADER_BYTES - this.headerBytes;
    const frame = first + VXLAN_HEADER_BYTES;
    const nextFrame = next + VXLAN_HEADER_BYTES;
    const ip = frame + ETHERNET_HEADER_BYTES;
    const nextIp = nextFrame + ETHERNET_HEADER_BYTES;
    const tcp = ip + IPV4_HEADER_BYTES_MIN;
    const nextTcp = nextIp + IPV4_HEADER_BYTES_MIN;
    const total = this.headerBytes - ETHERNET_HEADER_BYTES + this.payloadBytes + payload;
    if (payload <= 0 || payload > this.gsoBytes || total > IP_BYTES_MAX) return 0;
    if (this.segments >= SEGMENTS_MAX || view.getInt32(nextTcp + 4) !== sequence) return 0;
    const same =
      view.getUint32(first) === view.getUint32(next) && // VXLAN flags
      view.getUint32(first + 4) === view.getUint32(next + 4) && // VNI
      view.getUint32(frame) === view.getUint32(nextFrame) && // MACs and type
      view.getUint32(frame + 4) === view.getUint32(nextFrame + 4) &&
      view.getUint32(frame + 8) === view.getUint32(nextFrame + 8) &&
      view.getUint16(frame + 12) === view.getUint16(nextFrame + 12) &&
      view.getUint16(ip) === view.getUint16(nextIp) && // version, length, service
      view.getUint32(ip + 6) === view.getUint32(nextIp + 6) && // fragment, TTL, protocol
      view.getUint32(ip + 12) === view.getUint32(nextIp + 12) &&
      view.getUint32(ip + 16) === view.getUint32(nextIp + 16) &&
      view.getUint32(tcp) === view.getUint32(nextTcp) && // ports
      view.getUint32(tcp + 8) === view.getUint32(nextTcp + 8) && // acknowledgement
      view.getUint8(tcp + 12) === view.getUint8(nextTcp + 12) && // header length
      (view.getUint8(nextTcp + 13) & ~TCP_PSH) === TCP_ACK &&
      view.getUint16(tcp + 14) === view.getUint16(nextTcp + 14); // window
    if (!same || !this.#sameOptions(tcp, nextTcp)) return 0;
    const l4Bytes = this.headerBytes - ETHERNET_HEADER_BYTES - IPV4_HEADER_BYTES_MIN + payload;
    return this.#isSound(nextIp, l4Bytes) ? payload : 0;
  }

  #sameOptions(tcp: number, nextTcp: number): boolean {
    const { view } = this.#arena;
    const end = this.headerBytes - ETHERNET_HEADER_BYTES - IPV4_HEADER_BYTES_MIN;
    for (let at = TCP_HEADER_BYTES_MIN; at < end; at += 4) {
      if (view.getUint32(tcp + at) !== view.getUint32(nextTcp + at)) return false;
    }
    return true;
  }

  /** Whether length and both checksums of the segment are right. */
  #isSound(ip: number, l4Bytes: number): boolean {
    const { view } = this.#arena;
    if (view.getUint16(ip + 2) !== IPV4_HEADER_BYTES_MIN + l4Bytes) return false;
    if (this.#checksum.sum16(ip, IPV4_HEADER_BYTES_MIN) !== VALID_SUM) return false;
    const tcp = ip + IPV4_HEADER_BYTES_MIN;
    return isSoundSegment(view, this.#checksum, ip, tcp, PROTO_TCP, l4Bytes);
  }

  #finish(ip: number, lastFlags: number): void {
    const { view } = this.#arena;
    const tcp = ip + IPV4_HEADER_BYTES_MIN;
    const total = this.headerBytes - ETHERNET_HEADER_BYTES + this.payloadBytes;
    view.setUint16(ip + 2, total);
    view.setUint16(ip + 10, 0);
    const ipSum = this.#checksum.sum16(ip, IPV4_HEADER_BYTES_MIN);
    view.setUint16(ip + 10, ~ipSum & 0xffff, true);
    view.setUint8(tcp + 13, view.getUint8(tcp + 13) | (lastFlags & TCP_PSH));
    const l4Bytes = total - IPV4_HEADER_BYTES_MIN;
    const pseudo = pseudoHeaderSum(this.#checksum, ip, PROTO_TCP, l4Bytes);
    view.setUint16(tcp + TCP_CHECKSUM_OFFSET, pseudo, true);
  }
}
