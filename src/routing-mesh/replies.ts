import { applyDelta, delta16, fold16, sum16BigEndian } from '../core/checksum.ts';
import {
  IPV6_DESTINATION_OFFSET,
  IPV6_HEADER_BYTES,
  IPV6_HOP_LIMIT_OFFSET,
  IPV6_SOURCE_OFFSET,
} from '../core/ipv6-headers.ts';
import {
  ETHERNET_HEADER_BYTES,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  ICMPV6_ECHO_REPLY,
  ICMPV6_ECHO_REQUEST,
  IPV4_HEADER_BYTES_MIN,
  type Packet,
  PROTO_TCP,
  TCP_ACK,
  TCP_FIN,
  TCP_HEADER_BYTES_MIN,
  TCP_RST,
  TCP_SYN,
  writeMac,
} from '../core/packet.ts';
import { IPV4_CHECKSUM_OFFSET, TCP_CHECKSUM_OFFSET } from './nat.ts';

/** The most that {@link writeTcpReset} writes: Ethernet, IPv6 and TCP headers without options. */
export const TCP_RESET_FRAME_BYTES_MAX: number =
  ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES + TCP_HEADER_BYTES_MIN;

/** Time to live of packets made here: RFC 1700's recommended default. */
const DEFAULT_TTL = 64;
const DO_NOT_FRAGMENT = 0x4000;
const IPV6_VERSION = 0x6000_0000;

/**
 * Writes the frame that refuses the TCP segment `packet`, with full checksums, on behalf of the address that
 * the segment was sent to: RFC 9293 section 3.10.7.1. Reads the segment from `view`, too.
 *
 * @param offset - Where the frame goes, {@link TCP_RESET_FRAME_BYTES_MAX} bytes; must not overlap the segment.
 * @returns bytes written; 0 if `packet` is no TCP segment or is itself a reset, which is never answered
 */
export function writeTcpReset(view: DataView, offset: number, packet: Packet): number {
  const answerable = packet.protocol === PROTO_TCP && packet.l4HeaderBytes >= TCP_HEADER_BYTES_MIN;
  if (!answerable || (packet.tcpFlags & TCP_RST) !== 0) return 0;
  const ip = offset + ETHERNET_HEADER_BYTES;
  writeMac(view, offset, packet.sourceMac);
  writeMac(view, offset + 6, packet.destinationMac);
  view.setUint16(offset + 12, packet.etherType);
  const tcp =
    packet.family === 6 ? writeIpv6Header(view, ip, packet) : writeIpv4Header(view, ip, packet);

  view.setUint16(tcp, packet.destinationPort);
  view.setUint16(tcp + 2, packet.sourcePort);
  writeResetNumbers(view, tcp, packet);
  view.setUint32(tcp + 14, 0); // window and checksum
  view.setUint16(tcp + 18, 0);
  // The pseudo-header is the addresses, which lie in front, and the protocol and length, added here.
  const addressBytes = packet.family === 6 ? 32 : 8;
  const sum = sum16BigEndian(view, tcp - addressBytes, addressBytes + TCP_HEADER_BYTES_MIN);
  const tcpSum = fold16(sum + PROTO_TCP + TCP_HEADER_BYTES_MIN);
  view.setUint16(tcp + TCP_CHECKSUM_OFFSET, ~tcpSum & 0xffff);
  return tcp + TCP_HEADER_BYTES_MIN - offset;
}

/** Writes the header of the answer to `packet`; returns where it ends. */
function writeIpv4Header(view: DataView, ip: number, packet: Packet): number {
  view.setUint16(ip, 0x4500);
  view.setUint16(ip + 2, IPV4_HEADER_BYTES_MIN + TCP_HEADER_BYTES_MIN);
  view.setUint32(ip + 4, DO_NOT_FRAGMENT);
  view.setUint16(ip + 8, (DEFAULT_TTL << 8) | PROTO_TCP);
  view.setUint16(ip + IPV4_CHECKSUM_OFFSET, 0);
  view.setInt32(ip + 12, view.getInt32(packet.destinationStart));
  view.setInt32(ip + 16, view.getInt32(packet.sourceStart));
  const sum = sum16BigEndian(view, ip, IPV4_HEADER_BYTES_MIN);
  view.setUint16(ip + IPV4_CHECKSUM_OFFSET, ~sum & 0xffff);
  return ip + IPV4_HEADER_BYTES_MIN;
}

/** The same of an IPv6 packet. */
function writeIpv6Header(view: DataView, ip: number, packet: Packet): number {
  view.setUint32(ip, IPV6_VERSION);
  view.setUint16(ip + 4, TCP_HEADER_BYTES_MIN);
  view.setUint16(ip + 6, (PROTO_TCP << 8) | DEFAULT_TTL);
  for (let word = 0; word < 16; word += 4) {
    const source = view.getInt32(packet.sourceStart + word);
    const destination = view.getInt32(packet.destinationStart + word);
    view.setInt32(ip + IPV6_SOURCE_OFFSET + word, destination);
    view.setInt32(ip + IPV6_DESTINATION_OFFSET + word, source);
  }
  return ip + IPV6_HEADER_BYTES;
}

/** Sequence and acknowledgment number, header length and flags of the answer. */
function writeResetNumbers(view: DataView, tcp: number, packet: Packet): void {
  const segment = packet.l4Start;
  const headerLength = (TCP_HEADER_BYTES_MIN / 4) << 12;
  if ((packet.tcpFlags & TCP_ACK) !== 0) {
    view.setUint32(tcp + 4, view.getUint32(segment + 8));
    view.setUint32(tcp + 8, 0);
    view.setUint16(tcp + 12, headerLength | TCP_RST);
    return;
  }
  const payload = packet.ipTotalBytes - packet.ipHeaderBytes - packet.l4HeaderBytes;
  const syn = (packet.tcpFlags & TCP_SYN) === 0 ? 0 : 1;
  const fin = (packet.tcpFlags & TCP_FIN) === 0 ? 0 : 1;
  view.setUint32(tcp + 4, 0);
  view.setUint32(tcp + 8, view.getUint32(segment + 4) + payload + syn + fin);
  view.setUint16(tcp + 12, headerLength | TCP_RST | TCP_ACK);
}

/**
 * Turns the ICMP or ICMPv6 echo request `packet` into its reply, in place: MACs and addresses change sides,
 * the type changes, the checksum follows. A later fragment only changes sides, so that a fragmented ping
 * is answered fragment by fragment without reassembly. `packet` is left as it was parsed.
 */
export function writeEchoReply(view: DataView, packet: Packet): void {
  writeMac(view, packet.start, packet.sourceMac);
  writeMac(view, packet.start + 6, packet.destinationMac);
  // Swapped addresses leave the sum of the IPv4 header and of a pseudo-header alone.
  const addressBytes = packet.family === 6 ? 16 : 4;
  for (let word = 0; word < addressBytes; word += 4) {
    const source = view.getInt32(packet.sourceStart + word);
    view.setInt32(packet.sourceStart + word, view.getInt32(packet.destinationStart + word));
    view.setInt32(packet.destinationStart + word, source);
  }
  if (packet.family === 6) view.setUint8(packet.ipStart + IPV6_HOP_LIMIT_OFFSET, DEFAULT_TTL);
  else renewTimeToLive(view, packet.ipStart);
  if (packet.isLaterFragment) return;
  const icmp = packet.l4Start;
  const request = packet.family === 6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO_REQUEST;
  const reply = packet.family === 6 ? ICMPV6_ECHO_REPLY : ICMP_ECHO_REPLY;
  const change = delta16(request << 8, reply << 8);
  view.setUint8(icmp, reply);
  // A reply of zeros only has the checksum 0xffff; for any other, 0 and 0xffff are the same.
  view.setUint16(icmp + 2, applyDelta(view.getUint16(icmp + 2), change) || 0xffff);
}

function renewTimeToLive(view: DataView, ip: number): void {
  const before = view.getUint16(ip + 8);
  const after = (DEFAULT_TTL << 8) | (before & 0xff);
  const checksum = view.getUint16(ip + IPV4_CHECKSUM_OFFSET);
  view.setUint16(ip + 8, after);
  view.setUint16(ip + IPV4_CHECKSUM_OFFSET, applyDelta(checksum, delta16(before, after)));
}
