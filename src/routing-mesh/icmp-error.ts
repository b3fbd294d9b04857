import { applyDelta, delta16, delta32 } from '../core/checksum.ts';
import { type Packet, PROTO_ICMP, PROTO_TCP, PROTO_UDP } from '../core/packet.ts';
import {
  IPV4_CHECKSUM_OFFSET,
  type Rewrite,
  TCP_CHECKSUM_OFFSET,
  UDP_CHECKSUM_OFFSET,
  updateUdpChecksum,
} from './nat.ts';

const ICMP_DESTINATION_UNREACHABLE = 3;
const ICMP_TIME_EXCEEDED = 11;
const ICMP_PARAMETER_PROBLEM = 12;
const ICMP_HEADER_BYTES = 8;

/** Whether `packet` is an ICMP error that quotes the packet which caused it (RFC 1812 section 4.3.1). */
export function isIcmpError(packet: Packet): boolean {
  return (
    packet.icmpType === ICMP_DESTINATION_UNREACHABLE ||
    packet.icmpType === ICMP_TIME_EXCEEDED ||
    packet.icmpType === ICMP_PARAMETER_PROBLEM
  );
}

/**
 * The packet that an ICMP error quotes: its header and at least 8 bytes (RFC 792). A reused object; its
 * addresses are signed 32-bit integers.
 */
export class QuotedPacket {
  protocol = 0;
  source = 0;
  destination = 0;
  sourcePort = 0;
  destinationPort = 0;
  ipStart = 0;
  l4Start = 0;
  /** How much of the transport header and payload is there. */
  l4Bytes = 0;
}

/**
 * Reads what the ICMP error `packet` quotes. Checks every length before it reads.
 *
 * @returns false if the quote is cut off, is a later fragment or is of no protocol with flows
 */
export function readQuotedPacket(view: DataView, packet: Packet, quoted: QuotedPacket): boolean {
  const ip = packet.l4Start + ICMP_HEADER_BYTES;
  const available = packet.ipStart + packet.ipTotalBytes - ip;
  if (available < 20) return false;
  const versionAndLength = view.getUint8(ip);
  const headerBytes = (versionAndLength & 15) * 4;
  const isLaterFragment = (view.getUint16(ip + 6) & 0x1fff) !== 0;
  if (versionAndLength >>> 4 !== 4 || headerBytes < 20 || isLaterFragment) return false;
  if (available < headerBytes + 8) return false;
  quoted.protocol = view.getUint8(ip + 9);
  quoted.source = view.getInt32(ip + 12);
  quoted.destination = view.getInt32(ip + 16);
  quoted.ipStart = ip;
  quoted.l4Start = ip + headerBytes;
  quoted.l4Bytes = available - headerBytes;
  if (quoted.protocol === PROTO_ICMP) {
    quoted.sourcePort = view.getUint16(quoted.l4Start + 4);
    quoted.destinationPort = quoted.sourcePort;
    return true;
  }
  quoted.sourcePort = view.getUint16(quoted.l4Start);
  quoted.destinationPort = view.getUint16(quoted.l4Start + 2);
  return quoted.protocol === PROTO_TCP || quoted.protocol === PROTO_UDP;
}

/**
 * Translates an ICMP error as the packet that it answers was translated, outside and in the quote
 * (RFC 5508 section 4.2): the receiver finds its own connection there. Every checksum is updated; the quoted
 * transport's only where the quote reaches that far.
 *
 * @param reply - What a packet *against* the quoted one becomes: the outer packet takes its addresses, the
 *   quoted one the same, turned round.
 */
export function rewriteIcmpError(
  view: DataView,
  packet: Packet,
  quoted: QuotedPacket,
  reply: Rewrite,
): void {
  const outer =
    delta32(packet.source | 0, reply.source) + delta32(packet.destination | 0, reply.destination);
  const outerAt = packet.ipStart + IPV4_CHECKSUM_OFFSET;
  view.setUint16(outerAt, applyDelta(view.getUint16(outerAt), outer));
  view.setInt32(packet.ipStart + 12, reply.source);
  view.setInt32(packet.ipStart + 16, reply.destination);
  packet.source = reply.source >>> 0;
  packet.destination = reply.destination >>> 0;

  const inner = rewriteQuote(view, quoted, reply);
  const icmpAt = packet.l4Start + 2;
  view.setUint16(icmpAt, applyDelta(view.getUint16(icmpAt), inner));
}

/** Rewrites the quote; returns by how much the sum of its words changed. */
function rewriteQuote(view: DataView, quoted: QuotedPacket, reply: Rewrite): number {
  const { ipStart, l4Start } = quoted;
  const addresses =
    delta32(quoted.source, reply.destination) + delta32(quoted.destination, reply.source);
  view.setInt32(ipStart + 12, reply.destination);
  view.setInt32(ipStart + 16, reply.source);
  const ipChecksum = view.getUint16(ipStart + IPV4_CHECKSUM_OFFSET);
  const newIpChecksum = applyDelta(ipChecksum, addresses);
  view.setUint16(ipStart + IPV4_CHECKSUM_OFFSET, newIpChecksum);
  const header = addresses + delta16(ipChecksum, newIpChecksum);
  if (quoted.protocol === PROTO_ICMP) return header;

  const ports =
    delta16(quoted.sourcePort, reply.destinationPort) +
    delta16(quoted.destinationPort, reply.sourcePort);
  view.setUint16(l4Start, reply.destinationPort);
  view.setUint16(l4Start + 2, reply.sourcePort);
  const isTcp = quoted.protocol === PROTO_TCP;
  const at = isTcp ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET;
  if (quoted.l4Bytes < at + 2) return header + ports;
  const before = view.getUint16(l4Start + at);
  const after = isTcp
    ? applyDelta(before, addresses + ports)
    : updateUdpChecksum(before, addresses + ports);
  view.setUint16(l4Start + at, after);
  return header + ports + delta16(before, after);
}
