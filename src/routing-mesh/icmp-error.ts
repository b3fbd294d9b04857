import { AddressWords } from '../core/address-words.ts';
import { applyDelta, delta16 } from '../core/checksum.ts';
import {
  IPV6_DESTINATION_OFFSET,
  IPV6_HEADER_BYTES,
  IPV6_SOURCE_OFFSET,
  type Ipv6Upper,
  walkIpv6Headers,
} from '../core/ipv6-headers.ts';
import {
  ICMP_HEADER_BYTES,
  IPV4_HEADER_BYTES_MIN,
  type Packet,
  PROTO_ICMP,
  PROTO_ICMPV6,
  PROTO_TCP,
  PROTO_UDP,
} from '../core/packet.ts';
import {
  IPV4_CHECKSUM_OFFSET,
  type Rewrite,
  rewriteAddresses,
  TCP_CHECKSUM_OFFSET,
  UDP_CHECKSUM_OFFSET,
  updateUdpChecksum,
} from './nat.ts';

const ICMP_DESTINATION_UNREACHABLE = 3;
const ICMP_TIME_EXCEEDED = 11;
const ICMP_PARAMETER_PROBLEM = 12;
// RFC 4443: errors have types below 128; these are the defined ones.
const ICMPV6_DESTINATION_UNREACHABLE = 1;
const ICMPV6_PARAMETER_PROBLEM = 4;
const ICMP_CHECKSUM_OFFSET = 2;
/** What a quote must have of the transport header: the ports (RFC 792). */
const QUOTED_L4_BYTES_MIN = 8;

/**
 * Whether `packet` is an ICMP error that quotes the packet which caused it: RFC 1812 section 4.3.1, RFC 4443
 * section 3.
 */
export function isIcmpError({ icmpType, family }: Packet): boolean {
  if (family === 6) {
    return icmpType >= ICMPV6_DESTINATION_UNREACHABLE && icmpType <= ICMPV6_PARAMETER_PROBLEM;
  }
  return (
    icmpType === ICMP_DESTINATION_UNREACHABLE ||
    icmpType === ICMP_TIME_EXCEEDED ||
    icmpType === ICMP_PARAMETER_PROBLEM
  );
}

/** The packet that an ICMP error quotes, of the error's family: its header and a little more. A reused object. */
export class QuotedPacket implements Ipv6Upper {
  family: 4 | 6 = 4;
  protocol = 0;
  readonly source: AddressWords = new AddressWords();
  readonly destination: AddressWords = new AddressWords();
  sourcePort = 0;
  destinationPort = 0;
  ipStart = 0;
  l4Start = 0;
  /** How much of the transport header and payload is there. */
  l4Bytes = 0;
  identification = 0;
  isFragment = false;
  isLaterFragment = false;
}

/**
 * Reads what the ICMP error `packet` quotes. Checks every length before it reads.
 *
 * @returns false if the quote is cut off, is a later fragment or is of no protocol with flows
 */
export function readQuotedPacket(view: DataView, packet: Packet, quoted: QuotedPacket): boolean {
  const ip = packet.l4Start + ICMP_HEADER_BYTES;
  const end = packet.ipStart + packet.ipTotalBytes;
  const isRead =
    packet.family === 6
      ? readIpv6Header(view, ip, end, quoted)
      : readIpv4Header(view, ip, end, quoted);
  if (!isRead || quoted.isLaterFragment) return false;
  const { protocol, l4Start } = quoted;
  quoted.l4Bytes = end - l4Start;
  if (quoted.l4Bytes < QUOTED_L4_BYTES_MIN) return false;
  if (protocol === (quoted.family === 6 ? PROTO_ICMPV6 : PROTO_ICMP)) {
    quoted.sourcePort = view.getUint16(l4Start + 4);
    quoted.destinationPort = quoted.sourcePort;
    return true;
  }
  quoted.sourcePort = view.getUint16(l4Start);
  quoted.destinationPort = view.getUint16(l4Start + 2);
  return protocol === PROTO_TCP || protocol === PROTO_UDP;
}

function readIpv4Header(view: DataView, ip: number, end: number, quoted: QuotedPacket): boolean {
  if (end - ip < IPV4_HEADER_BYTES_MIN) return false;
  const versionAndLength = view.getUint8(ip);
  const headerBytes = (versionAndLength & 15) * 4;
  if (versionAndLength >>> 4 !== 4 || headerBytes < IPV4_HEADER_BYTES_MIN) return false;
  quoted.family = 4;
  quoted.protocol = view.getUint8(ip + 9);
  quoted.isLaterFragment = (view.getUint16(ip + 6) & 0x1fff) !== 0;
  quoted.source.read(view, ip + 12, 4);
  quoted.destination.read(view, ip + 16, 4);
  quoted.ipStart = ip;
  quoted.l4Start = ip + headerBytes;
  return true;
}

function readIpv6Header(view: DataView, ip: number, end: number, quoted: QuotedPacket): boolean {
  if (end - ip < IPV6_HEADER_BYTES || view.getUint8(ip) >>> 4 !== 6) return false;
  quoted.family = 6;
  quoted.ipStart = ip;
  quoted.source.read(view, ip + IPV6_SOURCE_OFFSET, 6);
  quoted.destination.read(view, ip + IPV6_DESTINATION_OFFSET, 6);
  return walkIpv6Headers(view, ip, end, quoted);
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
  const outer = rewriteAddresses(view, packet, reply);
  const inner = rewriteQuote(view, quoted, reply);
  const at = packet.l4Start + ICMP_CHECKSUM_OFFSET;
  // ICMPv6 sums the pseudo-header as well (RFC 4443 section 2.3).
  const delta = packet.family === 6 ? outer + inner : inner;
  view.setUint16(at, applyDelta(view.getUint16(at), delta));
}

/** Rewrites the quote; returns by how much the sum of its words changed. */
function rewriteQuote(view: DataView, quoted: QuotedPacket, reply: Rewrite): number {
  const { family, ipStart, l4Start, protocol } = quoted;
  const from = ipStart + (family === 6 ? IPV6_SOURCE_OFFSET : 12);
  const to = ipStart + (family === 6 ? IPV6_DESTINATION_OFFSET : 16);
  const addresses =
    reply.destination.replaceAt(view, from, family) + reply.source.replaceAt(view, to, family);
  const header =
    family === 6
      ? addresses
      : addresses + updateAt(view, ipStart + IPV4_CHECKSUM_OFFSET, addresses);
  if (protocol === PROTO_ICMP) return header;
  if (protocol === PROTO_ICMPV6) {
    return header + updateAt(view, l4Start + ICMP_CHECKSUM_OFFSET, addresses);
  }
  const ports =
    delta16(quoted.sourcePort, reply.destinationPort) +
    delta16(quoted.destinationPort, reply.sourcePort);
  view.setUint16(l4Start, reply.destinationPort);
  view.setUint16(l4Start + 2, reply.sourcePort);
  const isTcp = protocol === PROTO_TCP;
  const at = isTcp ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET;
  if (quoted.l4Bytes < at + 2) return header + ports;
  if (isTcp) return header + ports + updateAt(view, l4Start + at, addresses + ports);
  const before = view.getUint16(l4Start + at);
  const after = updateUdpChecksum(before, addresses + ports);
  view.setUint16(l4Start + at, after);
  return header + ports + delta16(before, after);
}

/** Updates the checksum field at `at`; returns by how much the field itself changed. */
function updateAt(view: DataView, at: number, delta: number): number {
  const before = view.getUint16(at);
  const after = applyDelta(before, delta);
  view.setUint16(at, after);
  return delta16(before, after);
}
