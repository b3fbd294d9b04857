import type { Ipv4, Mac } from './address.ts';

/** Ethernet types and IP protocol numbers (IANA) that weft looks at. */
export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_IPV6 = 0x86dd;
export const PROTO_ICMP = 1;
export const PROTO_TCP = 6;
export const PROTO_UDP = 17;

export const ETHERNET_HEADER_BYTES = 14;
export const IPV4_HEADER_BYTES_MIN = 20;
export const TCP_HEADER_BYTES_MIN = 20;
export const UDP_HEADER_BYTES = 8;

export const TCP_FIN = 0x01;
export const TCP_SYN = 0x02;
export const TCP_RST = 0x04;
export const TCP_PSH = 0x08;
export const TCP_ACK = 0x10;

/** Why a frame could not be parsed. 'none' means that it was. */
export type ParseFault = 'none' | 'runt' | 'bad-ipv4' | 'bad-l4';

/**
 * One parsed Ethernet frame. A reused object: {@link parseFrame} overwrites every field, so nothing
 * is allocated per packet. All offsets are absolute in the view that was parsed.
 */
export class Packet {
  /** Where the Ethernet header starts, and the frame's length in bytes. */
  start = 0;
  length = 0;
  destinationMac: Mac = 0;
  sourceMac: Mac = 0;
  etherType = 0;
  /** The rest is meaningful only when `etherType` is ETHERTYPE_IPV4. */
  ipStart = 0;
  ipHeaderBytes = 0;
  /** The IPv4 total length field; may be less than the frame holds (Ethernet padding). */
  ipTotalBytes = 0;
  protocol = 0;
  source: Ipv4 = 0;
  destination: Ipv4 = 0;
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
  /** ICMP type, -1 for other protocols. */
  icmpType = -1;
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

/**
 * Parses the Ethernet frame in [start, start + length) into `packet`. Checks every length before it
 * reads, and trusts no field. A non-IPv4 frame parses with its Ethernet fields only.
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
  packet.isFragment = false;
  packet.isLaterFragment = false;
  packet.l4HeaderBytes = 0;
  packet.sourcePort = 0;
  packet.destinationPort = 0;
  packet.tcpFlags = 0;
  packet.icmpType = -1;
  if (length < ETHERNET_HEADER_BYTES) return 'runt';
  packet.destinationMac = readMac(view, start);
  packet.sourceMac = readMac(view, start + 6);
  packet.etherType = view.getUint16(start + 12);
  if (packet.etherType !== ETHERTYPE_IPV4) return 'none';
  return parseIpv4Header(view, packet);
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
  packet.ipStart = ip;
  packet.ipHeaderBytes = headerBytes;
  packet.ipTotalBytes = totalBytes;
  packet.identification = view.getUint16(ip + 4);
  packet.isFragment = fragment !== 0;
  packet.isLaterFragment = (fragment & 0x1fff) !== 0;
  packet.protocol = view.getUint8(ip + 9);
  packet.source = view.getUint32(ip + 12);
  packet.destination = view.getUint32(ip + 16);
  packet.l4Start = ip + headerBytes;
  if (packet.isLaterFragment) return 'none';
  return parseTransportHeader(view, packet, totalBytes - headerBytes);
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
    packet.l4HeaderBytes = UDP_HEADER_BYTES;
  } else if (packet.protocol === PROTO_ICMP) {
    if (available < 8) return 'bad-l4';
    packet.l4HeaderBytes = 8;
    packet.icmpType = view.getUint8(l4);
    const isEcho = packet.icmpType === 8 || packet.icmpType === 0;
    packet.sourcePort = isEcho ? view.getUint16(l4 + 4) : 0;
    packet.destinationPort = packet.sourcePort;
    return 'none';
  } else {
    return 'none';
  }
  packet.sourcePort = view.getUint16(l4);
  packet.destinationPort = view.getUint16(l4 + 2);
  return 'none';
}
