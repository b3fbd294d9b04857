import { GATEWAY_MAC } from '../core/address.ts';
import type { AddressWords } from '../core/address-words.ts';
import { fold16, sum16BigEndian } from '../core/checksum.ts';
import {
  IPV6_DESTINATION_OFFSET,
  IPV6_HEADER_BYTES,
  IPV6_NEXT_HEADER_OFFSET,
  IPV6_PAYLOAD_LENGTH_OFFSET,
  IPV6_SOURCE_OFFSET,
} from '../core/ipv6-headers.ts';
import {
  ETHERNET_HEADER_BYTES,
  ICMP_HEADER_BYTES,
  IPV4_HEADER_BYTES_MIN,
  type Packet,
  PROTO_ICMP,
  PROTO_ICMPV6,
  writeMac,
} from '../core/packet.ts';
import { IPV4_CHECKSUM_OFFSET } from './nat.ts';

/** The smallest MTU of an IPv6 link (RFC 8200 section 5): no packet is called too big for less. */
export const IPV6_MTU_BYTES_MIN = 1280;
/** Largest ICMP error over IPv4 (RFC 1812 section 4.3.2.3), and over IPv6 (RFC 4443 section 3.2). */
const ICMPV4_ERROR_BYTES_MAX = 576;
const ICMPV6_ERROR_BYTES_MAX = IPV6_MTU_BYTES_MIN;
/** The largest frame that {@link writeTooBig} writes. */
export const TOO_BIG_FRAME_BYTES_MAX: number = ETHERNET_HEADER_BYTES + ICMPV6_ERROR_BYTES_MAX;

const DEFAULT_TTL = 64;
/** Type and code: destination unreachable, fragmentation needed and DF set (RFC 792, RFC 1191). */
const FRAGMENTATION_NEEDED = 0x0304;
/** Type and code: packet too big (RFC 4443 section 3.2). */
const PACKET_TOO_BIG = 0x0200;
/** ICMPv4 types that may be answered by an error: all others are errors themselves (RFC 1122 section 3.2.2). */
const ICMP_QUERIES: readonly number[] = [0, 8, 9, 10, 13, 14, 15, 16, 17, 18];
/** ICMPv6 types from here on are informational (RFC 4443 section 2.1). */
const ICMPV6_INFORMATIONAL_MIN = 128;

/**
 * Writes the frame that tells the sender of `packet` the largest packet that passes: ICMP "fragmentation
 * needed" (RFC 1191) or ICMPv6 "packet too big", quoting as much of the packet as their RFCs say.
 *
 * @param offset - Where the frame goes, {@link TOO_BIG_FRAME_BYTES_MAX} bytes; must not overlap the packet.
 * @param packet - Parsed from `view`. Its frame may be a superframe.
 * @param from - The sender of the error, a router of the network, of the packet's family.
 * @param mtuBytes - The largest IP packet that passes.
 * @returns bytes written; 0 if the packet must not be answered: an ICMP error, a later fragment
 */
export function writeTooBig(
  view: DataView,
  offset: number,
  packet: Packet,
  from: AddressWords,
  mtuBytes: number,
): number {
  if (!isAnswerable(packet)) return 0;
  writeMac(view, offset, packet.sourceMac);
  writeMac(view, offset + 6, GATEWAY_MAC);
  view.setUint16(offset + 12, packet.etherType);
  const ip = offset + ETHERNET_HEADER_BYTES;
  return packet.family === 6
    ? writePacketTooBig(view, ip, packet, from, mtuBytes)
    : writeFragmentationNeeded(view, ip, packet, from, mtuBytes);
}

function isAnswerable(packet: Packet): boolean {
  if (packet.family === 6) {
    return !packet.isIcmp || packet.isLaterFragment || packet.icmpType >= ICMPV6_INFORMATIONAL_MIN;
  }
  if (packet.family === 0 || packet.isLaterFragment) return false;
  return !packet.isIcmp || ICMP_QUERIES.includes(packet.icmpType);
}

function writeFragmentationNeeded(
  view: DataView,
  ip: number,
  packet: Packet,
  from: AddressWords,
  mtuBytes: number,
): number {
  const headerBytes = IPV4_HEADER_BYTES_MIN + ICMP_HEADER_BYTES;
  const quoted = Math.min(packet.ipTotalBytes, ICMPV4_ERROR_BYTES_MAX - headerBytes);
  const icmp = ip + IPV4_HEADER_BYTES_MIN;
  view.setUint16(ip, 0x4500);
  view.setUint16(ip + 2, headerBytes + quoted);
  view.setUint32(ip + 4, 0);
  view.setUint16(ip + 8, (DEFAULT_TTL << 8) | PROTO_ICMP);
  view.setUint16(ip + IPV4_CHECKSUM_OFFSET, 0);
  view.setInt32(ip + 12, from.w3);
  view.setUint32(ip + 16, view.getUint32(packet.sourceStart));
  const ipSum = sum16BigEndian(view, ip, IPV4_HEADER_BYTES_MIN);
  view.setUint16(ip + IPV4_CHECKSUM_OFFSET, ~ipSum & 0xffff);

  view.setUint16(icmp, FRAGMENTATION_NEEDED);
  view.setUint16(icmp + 2, 0);
  view.setUint16(icmp + 4, 0);
  view.setUint16(icmp + 6, mtuBytes);
  copy(view, packet.ipStart, icmp + ICMP_HEADER_BYTES, quoted);
  const sum = sum16BigEndian(view, icmp, ICMP_HEADER_BYTES + quoted);
  view.setUint16(icmp + 2, ~sum & 0xffff);
  return ETHERNET_HEADER_BYTES + headerBytes + quoted;
}

function writePacketTooBig(
  view: DataView,
  ip: number,
  packet: Packet,
  from: AddressWords,
  mtuBytes: number,
): number {
  const headerBytes = IPV6_HEADER_BYTES + ICMP_HEADER_BYTES;
  const quoted = Math.min(packet.ipTotalBytes, ICMPV6_ERROR_BYTES_MAX - headerBytes);
  const icmpBytes = ICMP_HEADER_BYTES + quoted;
  const icmp = ip + IPV6_HEADER_BYTES;
  view.setUint32(ip, 0x6000_0000);
  view.setUint16(ip + IPV6_PAYLOAD_LENGTH_OFFSET, icmpBytes);
  view.setUint16(ip + IPV6_NEXT_HEADER_OFFSET, (PROTO_ICMPV6 << 8) | DEFAULT_TTL);
  view.setInt32(ip + IPV6_SOURCE_OFFSET, from.w0);
  view.setInt32(ip + IPV6_SOURCE_OFFSET + 4, from.w1);
  view.setInt32(ip + IPV6_SOURCE_OFFSET + 8, from.w2);
  view.setInt32(ip + IPV6_SOURCE_OFFSET + 12, from.w3);
  copy(view, packet.sourceStart, ip + IPV6_DESTINATION_OFFSET, 16);

  view.setUint16(icmp, PACKET_TOO_BIG);
  view.setUint16(icmp + 2, 0);
  view.setUint32(icmp + 4, Math.max(mtuBytes, IPV6_MTU_BYTES_MIN));
  copy(view, packet.ipStart, icmp + ICMP_HEADER_BYTES, quoted);
  // The pseudo-header: both addresses, which lie in front, length and next header.
  const sum = sum16BigEndian(view, ip + IPV6_SOURCE_OFFSET, 32 + icmpBytes);
  view.setUint16(icmp + 2, ~fold16(sum + icmpBytes + PROTO_ICMPV6) & 0xffff);
  return ETHERNET_HEADER_BYTES + headerBytes + quoted;
}

/** Word by word, since a view over the same bytes would be made anew each time. */
function copy(view: DataView, from: number, to: number, bytes: number): void {
  const words = bytes & ~3;
  for (let at = 0; at < words; at += 4) view.setInt32(to + at, view.getInt32(from + at));
  for (let at = words; at < bytes; at += 1) view.setUint8(to + at, view.getUint8(from + at));
}
