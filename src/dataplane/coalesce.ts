import { type ChecksumKernel, fold16, swap16 } from '../core/checksum.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  IPV4_HEADER_BYTES_MIN,
  PROTO_TCP,
  PROTO_UDP,
  TCP_ACK,
  TCP_HEADER_BYTES_MIN,
  TCP_PSH,
  UDP_HEADER_BYTES,
} from '../core/packet.ts';
import { type Arena, IOVEC_BYTES } from '../io/linux/arena.ts';
import { UDP_SEGMENTS_MAX } from '../io/linux/udp-socket.ts';
import { VXLAN_HEADER_BYTES } from '../vxlan/header.ts';
import { GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4 } from './offload.ts';
import { TCP_CHECKSUM_OFFSET, UDP_CHECKSUM_OFFSET } from './partial-checksum.ts';

/** Most bytes of a superframe's IP packet: its length field has 16 bits. */
const IP_BYTES_MAX = 65_535;
/** Most datagrams that one receive brings; larger runs are cut. */
const SEGMENTS_MAX = 2 * UDP_SEGMENTS_MAX;
const IPV6_HEADER_BYTES = 40;
const VERSION_4_WITHOUT_OPTIONS = 0x45;
const DONT_FRAGMENT = 0x4000;
const VALID_SUM = 0xffff;

/**
 * Joins datagrams that hold consecutive TCP segments, or equal UDP datagrams, of one flow into a
 * superframe, by the rules of the kernel's own receive offload (net/ipv4/tcp_offload.c
 * `tcp_gro_receive`, net/ipv4/udp_offload.c `udp_gro_receive_segment`): same headers but for length,
 * identification, sequence, checksum and PSH; in order; of one size but the last. IPv4 without
 * options and IPv6 without extension headers.
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
  /** What kind of superframe it is, as a virtio-net header says it. */
  gsoType = 0;
  /** Where its transport header starts in the frame, and the checksum field in that. */
  checksumStart = 0;
  checksumOffset = 0;
  /**
   * Iovecs of the payload behind the first segment's, `segments - 1` of them. The entry in front of
   * them is the caller's, for the header and the first payload.
   */
  readonly iovecs: number;
  readonly #arena: Arena;
  readonly #checksum: ChecksumKernel;
  #isIpv4 = false;
  #isTcp = false;
  /** The pseudo-header's sum without the length, the same for all segments. */
  #pseudo = 0;

  constructor(arena: Arena, checksum: ChecksumKernel) {
    this.#arena = arena;
    this.#checksum = checksum;
    this.iovecs = arena.allocate(IOVEC_BYTES * SEGMENTS_MAX);
  }

  /**
   * Joins what follows the datagram at `datagram` to it, as far as the rules allow. If anything was
   * joined, the first frame's headers become the superframe's: total length, IP checksum, and the
   * pseudo-header's sum in the transport checksum field.
   *
   * @param datagram - Where the first VXLAN header starts.
   * @param stride - Distance between datagrams.
   * @param end - End of the last datagram.
   * @param size - Of each but the last: less than `stride` where something lies between them.
   */
  join(datagram: number, stride: number, end: number, size: number = stride): void {
    this.segments = 1;
    const length = Math.min(size, end - datagram);
    if (datagram + stride >= end || !this.#canLead(datagram, length)) return;
    const { view } = this.#arena;
    const l4 = VXLAN_HEADER_BYTES + this.checksumStart;
    // Signed: V8 keeps 32 bits without a heap object that way.
    let sequence = (view.getInt32(datagram + l4 + 4) + this.gsoBytes) | 0;
    let flags = this.#isTcp ? view.getUint8(datagram + l4 + 13) : 0;
    let next = datagram + stride;
    let last = this.gsoBytes;
    while (next < end && last === this.gsoBytes && (flags & TCP_PSH) === 0) {
      const payload = this.#matches(datagram, next, Math.min(size, end - next), sequence);
      if (payload === 0) break;
      const source = next + VXLAN_HEADER_BYTES + this.headerBytes;
      this.#arena.setIovec(this.iovecs + this.segments * IOVEC_BYTES, source, payload);
      if (this.#isTcp) flags = view.getUint8(next + l4 + 13);
      sequence = (sequence + payload) | 0;
      this.payloadBytes += payload;
      this.segments += 1;
      last = payload;
      next += stride;
    }
    if (this.segments > 1) this.#finish(datagram + VXLAN_HEADER_BYTES, flags);
  }

  /** Whether the datagram's frame may be the first of a superframe. Notes its shape. */
  #canLead(datagram: number, length: number): boolean {
    const { view } = this.#arena;
    const frame = datagram + VXLAN_HEADER_BYTES;
    const ip = frame + ETHERNET_HEADER_BYTES;
    const minimum = VXLAN_HEADER_BYTES + ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES_MIN;
    if (length < minimum + UDP_HEADER_BYTES) return false;
    const etherType = view.getUint16(frame + 12);
    if (etherType === ETHERTYPE_IPV4) {
      if (!this.#leadsIpv4(ip)) return false;
    } else if (etherType !== ETHERTYPE_IPV6 || !this.#leadsIpv6(ip, length)) return false;
    const ipBytes = this.#isIpv4 ? IPV4_HEADER_BYTES_MIN : IPV6_HEADER_BYTES;
    const l4HeaderBytes = this.#transportHeaderBytes(ip + ipBytes, datagram + length);
    if (l4HeaderBytes === 0) return false;
    this.checksumStart = ETHERNET_HEADER_BYTES + ipBytes;
    this.headerBytes = this.checksumStart + l4HeaderBytes;
    this.gsoBytes = length - VXLAN_HEADER_BYTES - this.headerBytes;
    this.payloadBytes = this.gsoBytes;
    return this.gsoBytes > 0 && this.#isSound(ip, l4HeaderBytes + this.gsoBytes);
  }

  #leadsIpv4(ip: number): boolean {
    const { view } = this.#arena;
    const protocol = view.getUint8(ip + 9);
    const fragment = view.getUint16(ip + 6);
    this.#isIpv4 = true;
    this.#isTcp = protocol === PROTO_TCP;
    this.#pseudo = this.#checksum.sum16(ip + 12, 8) + swap16(protocol);
    // Without DF the identifications of UDP datagrams mean something, and a superframe has but one.
    const isWhole = (fragment & ~DONT_FRAGMENT) === 0 && (this.#isTcp || fragment !== 0);
    return (
      view.getUint8(ip) === VERSION_4_WITHOUT_OPTIONS &&
      isWhole &&
      (this.#isTcp || protocol === PROTO_UDP)
    );
  }

  #leadsIpv6(ip: number, length: number): boolean {
    const { view } = this.#arena;
    const minimum = VXLAN_HEADER_BYTES + ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES;
    if (length < minimum + UDP_HEADER_BYTES) return false;
    const protocol = view.getUint8(ip + 6);
    this.#isIpv4 = false;
    this.#isTcp = protocol === PROTO_TCP;
    this.#pseudo = this.#checksum.sum16(ip + 8, 32) + swap16(protocol);
    return view.getUint8(ip) >>> 4 === 6 && (this.#isTcp || protocol === PROTO_UDP);
  }

  /** Bytes of the transport header at `l4`, 0 if its segment cannot be joined to others. */
  #transportHeaderBytes(l4: number, end: number): number {
    const { view } = this.#arena;
    if (!this.#isTcp) {
      this.gsoType = GSO_UDP_L4;
      this.checksumOffset = UDP_CHECKSUM_OFFSET;
      return view.getUint16(l4 + UDP_CHECKSUM_OFFSET) === 0 ? 0 : UDP_HEADER_BYTES;
    }
    this.gsoType = this.#isIpv4 ? GSO_TCPV4 : GSO_TCPV6;
    this.checksumOffset = TCP_CHECKSUM_OFFSET;
    if (l4 + TCP_HEADER_BYTES_MIN > end) return 0;
    const bytes = (view.getUint8(l4 + 12) >>> 4) * 4;
    if (bytes < TCP_HEADER_BYTES_MIN || l4 + bytes > end) return 0;
    // Only ACK and PSH: a segment that opens, ends or urges stands alone.
    return (view.getUint8(l4 + 13) & ~TCP_PSH) === TCP_ACK ? bytes : 0;
  }

  /** Payload of the datagram at `next` if it continues the run that starts at `first`, else 0. */
  #matches(first: number, next: number, length: number, sequence: number): number {
    const { view } = this.#arena;
    const payload = length - VXLAN_HEADER_BYTES - this.headerBytes;
    const total = this.headerBytes - ETHERNET_HEADER_BYTES + this.payloadBytes + payload;
    if (payload <= 0 || payload > this.gsoBytes || total > IP_BYTES_MAX) return 0;
    if (this.segments >= SEGMENTS_MAX) return 0;
    const frame = first + VXLAN_HEADER_BYTES;
    const nextFrame = next + VXLAN_HEADER_BYTES;
    const same =
      view.getInt32(first) === view.getInt32(next) && // VXLAN flags
      view.getInt32(first + 4) === view.getInt32(next + 4) && // VNI
      view.getInt32(frame) === view.getInt32(nextFrame) && // MACs and type
      view.getInt32(frame + 4) === view.getInt32(nextFrame + 4) &&
      view.getInt32(frame + 8) === view.getInt32(nextFrame + 8) &&
      view.getUint16(frame + 12) === view.getUint16(nextFrame + 12);
    if (!same) return 0;
    const ip = frame + ETHERNET_HEADER_BYTES;
    const nextIp = nextFrame + ETHERNET_HEADER_BYTES;
    if (!(this.#isIpv4 ? this.#sameIpv4(ip, nextIp) : this.#sameIpv6(ip, nextIp))) return 0;
    const l4 = frame + this.checksumStart;
    const nextL4 = nextFrame + this.checksumStart;
    if (view.getInt32(l4) !== view.getInt32(nextL4)) return 0; // ports
    if (this.#isTcp) {
      if (view.getInt32(nextL4 + 4) !== sequence || !this.#sameTcp(l4, nextL4)) return 0;
    } else if (view.getUint16(nextL4 + UDP_CHECKSUM_OFFSET) === 0) return 0;
    const l4Bytes = this.headerBytes - this.checksumStart + payload;
    return this.#isSound(nextIp, l4Bytes) ? payload : 0;
  }

  #sameIpv4(ip: number, nextIp: number): boolean {
    const { view } = this.#arena;
    return (
      view.getUint16(ip) === view.getUint16(nextIp) && // version, length, service
      view.getInt32(ip + 6) === view.getInt32(nextIp + 6) && // fragment, TTL, protocol
      view.getInt32(ip + 12) === view.getInt32(nextIp + 12) &&
      view.getInt32(ip + 16) === view.getInt32(nextIp + 16)
    );
  }

  #sameIpv6(ip: number, nextIp: number): boolean {
    const { view } = this.#arena;
    if (view.getInt32(ip) !== view.getInt32(nextIp)) return false; // version, class, flow label
    if (view.getUint16(ip + 6) !== view.getUint16(nextIp + 6)) return false; // protocol, hop limit
    for (let at = 8; at < IPV6_HEADER_BYTES; at += 4) {
      if (view.getInt32(ip + at) !== view.getInt32(nextIp + at)) return false;
    }
    return true;
  }

  #sameTcp(tcp: number, nextTcp: number): boolean {
    const { view } = this.#arena;
    const same =
      view.getInt32(tcp + 8) === view.getInt32(nextTcp + 8) && // acknowledgement
      view.getUint8(tcp + 12) === view.getUint8(nextTcp + 12) && // header length
      (view.getUint8(nextTcp + 13) & ~TCP_PSH) === TCP_ACK &&
      view.getUint16(tcp + 14) === view.getUint16(nextTcp + 14); // window
    if (!same) return false;
    const end = this.headerBytes - this.checksumStart;
    for (let at = TCP_HEADER_BYTES_MIN; at < end; at += 4) {
      if (view.getInt32(tcp + at) !== view.getInt32(nextTcp + at)) return false;
    }
    return true;
  }

  /** Whether lengths and checksums of the segment are right. */
  #isSound(ip: number, l4Bytes: number): boolean {
    const { view } = this.#arena;
    let l4 = ip + IPV6_HEADER_BYTES;
    if (this.#isIpv4) {
      l4 = ip + IPV4_HEADER_BYTES_MIN;
      if (view.getUint16(ip + 2) !== IPV4_HEADER_BYTES_MIN + l4Bytes) return false;
      if (this.#checksum.sum16(ip, IPV4_HEADER_BYTES_MIN) !== VALID_SUM) return false;
    } else if (view.getUint16(ip + 4) !== l4Bytes) return false;
    if (!this.#isTcp && view.getUint16(l4 + 4) !== l4Bytes) return false;
    const pseudo = fold16(this.#pseudo + swap16(l4Bytes));
    // Partial, as a kernel leaves it that sends to another one through memory, and as sealed segments have it.
    if (view.getUint16(l4 + this.checksumOffset, true) === pseudo) return true;
    return fold16(pseudo + this.#checksum.sum16(l4, l4Bytes)) === VALID_SUM;
  }

  #finish(frame: number, lastFlags: number): void {
    const { view } = this.#arena;
    const ip = frame + ETHERNET_HEADER_BYTES;
    const l4 = frame + this.checksumStart;
    const l4Bytes = this.headerBytes - this.checksumStart + this.payloadBytes;
    if (this.#isIpv4) {
      view.setUint16(ip + 2, IPV4_HEADER_BYTES_MIN + l4Bytes);
      view.setUint16(ip + 10, 0);
      const sum = this.#checksum.sum16(ip, IPV4_HEADER_BYTES_MIN);
      view.setUint16(ip + 10, ~sum & 0xffff, true);
    } else view.setUint16(ip + 4, l4Bytes);
    if (this.#isTcp) view.setUint8(l4 + 13, view.getUint8(l4 + 13) | (lastFlags & TCP_PSH));
    else view.setUint16(l4 + 4, l4Bytes);
    const pseudo = fold16(this.#pseudo + swap16(l4Bytes));
    view.setUint16(l4 + this.checksumOffset, pseudo, true);
  }
}
