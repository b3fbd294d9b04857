import type { Ipv4, Mac, MacWords } from './address.ts';
import { IPV4_MAPPED_WORD } from './ip.ts';
import {
  IPV6_DESTINATION_OFFSET,
  IPV6_HEADER_BYTES,
  IPV6_PAYLOAD_LENGTH_OFFSET,
  IPV6_SOURCE_OFFSET,
  type Ipv6Upper,
  walkIpv6Headers,
} from './ipv6-headers.ts';

/** Ethernet types and IP protocol numbers (IANA) that weft looks at. */
export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_IPV6 = 0x86dd;
export const PROTO_ICMP = 1;
export const PROTO_TCP = 6;
export const PROTO_UDP = 17;
export const PROTO_ICMPV6 = 58;

/** ICMP types of a ping and its answer, in either family (RFC 792, RFC 4443). */
export const ICMP_ECHO_REQUEST = 8;
export const ICMP_ECHO_REPLY = 0;
export const ICMPV6_ECHO_REQUEST = 128;
export const ICMPV6_ECHO_REPLY = 129;

export const ETHERNET_HEADER_BYTES = 14;
export const IPV4_HEADER_BYTES_MIN = 20;
export const TCP_HEADER_BYTES_MIN = 20;
export const UDP_HEADER_BYTES = 8;
/** Type, code, checksum, and four bytes that depend on the type; the same in both families. */
export const ICMP_HEADER_BYTES = 8;

export const TCP_FIN = 0x01;
export const TCP_SYN = 0x02;
export const TCP_RST = 0x04;
export const TCP_PSH = 0x08;
export const TCP_ACK = 0x10;

/** Why a frame could not be parsed. 'none' means that it was. */
export type ParseFault = 'none' | 'runt' | 'bad-ipv4' | 'bad-ipv6' | 'bad-l4';

/**
 * One parsed Ethernet frame. A reused object: {@link parseFrame} overwrites every field, so nothing
 * is allocated per packet. All offsets are absolute in the view that was parsed.
 */
export class Packet implements Ipv6Upper {
  /** Where the Ethernet header starts, and the frame's length in bytes. */
  start = 0;
  length = 0;
  destinationMac: Mac = 0;
  sourceMac: Mac = 0;
  etherType = 0;
  /** The IP version; 0 for a frame of another type, for which the rest means nothing. */
  family: 0 | 4 | 6 = 0;
  ipStart = 0;
  /** From the IP header's start to the transport header: with IPv4 options and IPv6 extension headers. */
  ipHeaderBytes = 0;
  /** Header and payload by the IP length field; may be less than the frame holds (Ethernet padding). */
  ipTotalBytes = 0;
  /** IP protocol, of IPv6 that of the upper layer. */
  protocol = 0;
  /** The addresses; of IPv6 ones the last four bytes. */
  source: Ipv4 = 0;
  destination: Ipv4 = 0;
  /** Where the addresses lie: 4 bytes of IPv4, 16 of IPv6. */
  sourceStart = 0;
  destinationStart = 0;
  /** 16 bits of IPv4, all 32 of an IPv6 fragment header as a signed integer. */
  identification = 0;
  /** True for every fragment, the first one included. */
  isFragment = false;
  /** True for a fragment that does not start the datagram: it has no transport header. */
  isLaterFragment = false;
  /** Where the transport header starts. */
  l4Start = 0;
  /** Length of the TCP, UDP or ICMP header; 0 where there is none. */
  l4HeaderBytes = 0;
  /** TCP and UDP ports; for ICMP echo both hold the identifier; else 0. */
  sourcePort = 0;
  destinationPort = 0;
  tcpFlags = 0;
  /** Whether the protocol is the ICMP of the packet's family; a later fragment has no type, though. */
  isIcmp = false;
  /** ICMP or ICMPv6 type, -1 for other protocols. */
  icmpType = -1;
}

/** Whether `packet` is a ping, or the first fragment of one. */
export function isEchoRequest(packet: Packet): boolean {
  return packet.icmpType === (packet.family === 6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO_REQUEST);
}

/** Reads the 48-bit MAC at `offset`. */
export function readMac(view: DataView, offset: number): Mac {
  return view.getUint16(offset) * 0x1_0000_0000 + view.getUint32(offset + 2);
}

/** Writes the 48-bit `mac` at `offset`. */
export function writeMac(view: DataView, offset: number, mac: Mac): void {
  view.setUint16(offset, Math.floor(mac / 0x1_0000_0000));
  view.setUint32(offset + 2, mac >>> 0);
}

/** {@link writeMac} of a MAC in two words. */
export function writeMacWords(view: DataView, offset: number, mac: MacWords): void {
  view.setUint16(offset, mac.macHigh);
  view.setInt32(offset + 2, mac.macLow);
}

/** Copies the MAC at `from` to `to`. */
export function copyMac(view: DataView, from: number, to: number): void {
  view.setUint16(to, view.getUint16(from));
  view.setInt32(to + 2, view.getInt32(from + 2));
}

/**
 * Parses the Ethernet frame in [start, start + length) into `packet`. Checks every length before it
 * reads, and trusts no field. A frame that is not IP parses with its Ethernet fields only.
 *
 * @returns 'none', or why the frame must be dropped
 */
export function parseFrame(
  view: DataView,
  start: number,
  length: number,
  packet: Packet,
): ParseFault {
  packet.start = start;
  packet.length = length;
  packet.family = 0;
  packet.isFragment = false;
  packet.isLaterFragment = false;
  packet.l4HeaderBytes = 0;
  packet.sourcePort = 0;
  packet.destinationPort = 0;
  packet.tcpFlags = 0;
  packet.isIcmp = false;
  packet.icmpType = -1;
  if (length < ETHERNET_HEADER_BYTES) return 'runt';
  packet.destinationMac = readMac(view, start);
  packet.sourceMac = readMac(view, start + 6);
  packet.etherType = view.getUint16(start + 12);
  if (packet.etherType === ETHERTYPE_IPV4) return parseIpv4Header(view, packet);
  if (packet.etherType === ETHERTYPE_IPV6) return parseIpv6Header(view, packet);
  return 'none';
}

function parseIpv4Header(view: DataView, packet: Packet): ParseFault {
  const ip = packet.start + ETHERNET_HEADER_BYTES;
  const available = packet.length - ETHERNET_HEADER_BYTES;
  if (available < IPV4_HEADER_BYTES_MIN) return 'bad-ipv4';
  const versionAndLength = view.getUint8(ip);
  const headerBytes = (versionAndLength & 15) * 4;
  const totalBytes = view.getUint16(ip + 2);
  const malformed =
    versionAndLength >>> 4 !== 4 ||
    headerBytes < IPV4_HEADER_BYTES_MIN ||
    totalBytes < headerBytes ||
    totalBytes > available;
  if (malformed) return 'bad-ipv4';
  const fragment = view.getUint16(ip + 6) & 0x3fff; // more-fragments flag and 13 bits of offset
  packet.family = 4;
  packet.ipStart = ip;
  packet.ipHeaderBytes = headerBytes;
  packet.ipTotalBytes = totalBytes;
  packet.identification = view.getUint16(ip + 4);
  packet.isFragment = fragment !== 0;
  packet.isLaterFragment = (fragment & 0x1fff) !== 0;
  packet.protocol = view.getUint8(ip + 9);
  packet.isIcmp = packet.protocol === PROTO_ICMP;
  packet.sourceStart = ip + 12;
  packet.destinationStart = ip + 16;
  packet.source = view.getUint32(ip + 12);
  packet.destination = view.getUint32(ip + 16);
  packet.l4Start = ip + headerBytes;
  if (packet.isLaterFragment) return 'none';
  return parseTransportHeader(view, packet, totalBytes - headerBytes);
}

/**
 * A jumbogram (RFC 2675) says that it has no payload, and is refused for what it then lacks. IPv4-mapped
 * addresses have no place on the wire (RFC 4942 section 2.2): here they would be taken for IPv4 ones.
 */
function parseIpv6Header(view: DataView, packet: Packet): ParseFault {
  const ip = packet.start + ETHERNET_HEADER_BYTES;
  const available = packet.length - ETHERNET_HEADER_BYTES;
  if (available < IPV6_HEADER_BYTES || view.getUint8(ip) >>> 4 !== 6) return 'bad-ipv6';
  const totalBytes = IPV6_HEADER_BYTES + view.getUint16(ip + IPV6_PAYLOAD_LENGTH_OFFSET);
  const source = ip + IPV6_SOURCE_OFFSET;
  const destination = ip + IPV6_DESTINATION_OFFSET;
  if (totalBytes > available) return 'bad-ipv6';
  if (isIpv4Mapped(view, source) || isIpv4Mapped(view, destination)) return 'bad-ipv6';
  if (!walkIpv6Headers(view, ip, ip + totalBytes, packet)) return 'bad-ipv6';
  packet.family = 6;
  packet.ipStart = ip;
  packet.ipHeaderBytes = packet.l4Start - ip;
  packet.ipTotalBytes = totalBytes;
  packet.isIcmp = packet.protocol === PROTO_ICMPV6;
  packet.sourceStart = source;
  packet.destinationStart = destination;
  packet.source = view.getUint32(source + 12);
  packet.destination = view.getUint32(destination + 12);
  if (packet.isLaterFragment) return 'none';
  return parseTransportHeader(view, packet, totalBytes - packet.ipHeaderBytes);
}

function isIpv4Mapped(view: DataView, at: number): boolean {
  return (
    view.getInt32(at + 8) === IPV4_MAPPED_WORD &&
    view.getInt32(at) === 0 &&
    view.getInt32(at + 4) === 0
  );
}

function parseTransportHeader(view: DataView, packet: Packet, available: number): ParseFault {
  const l4 = packet.l4Start;
  if (packet.protocol === PROTO_TCP) {
    if (available < TCP_HEADER_BYTES_MIN) return 'bad-l4';
    const headerBytes = (view.getUint8(l4 + 12) >>> 4) * 4;
    if (headerBytes < TCP_HEADER_BYTES_MIN || headerBytes > available) return 'bad-l4';
    packet.l4HeaderBytes = headerBytes;
    packet.tcpFlags = view.getUint8(l4 + 13);
  } else if (packet.protocol === PROTO_UDP) {
    if (available < UDP_HEADER_BYTES) return 'bad-l4';
    const udpBytes = view.getUint16(l4 + 4);
    // The first fragment has the length of the whole datagram.
    if (udpBytes < UDP_HEADER_BYTES || (udpBytes > available && !packet.isFragment))
      return 'bad-l4';
    packet.l4HeaderBytes = UDP_HEADER_BYTES;
  } else if (packet.isIcmp) {
    return parseIcmpHeader(view, packet, available);
  } else {
    return 'none';
  }
  packet.sourcePort = view.getUint16(l4);
  packet.destinationPort = view.getUint16(l4 + 2);
  return 'none';
}

function parseIcmpHeader(view: DataView, packet: Packet, available: number): ParseFault {
  const l4 = packet.l4Start;
  if (available < ICMP_HEADER_BYTES) return 'bad-l4';
  const type = view.getUint8(l4);
  packet.l4HeaderBytes = ICMP_HEADER_BYTES;
  packet.icmpType = type;
  const isEcho =
    packet.family === 4
      ? type === ICMP_ECHO_REQUEST || type === ICMP_ECHO_REPLY
      : type === ICMPV6_ECHO_REQUEST || type === ICMPV6_ECHO_REPLY;
  packet.sourcePort = isEcho ? view.getUint16(l4 + 4) : 0;
  packet.destinationPort = packet.sourcePort;
  return 'none';
}
