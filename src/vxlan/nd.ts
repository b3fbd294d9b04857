import { type MacWords, macWords } from '../core/address.ts';
import type { AddressWords } from '../core/address-words.ts';
import { fold16, sum16BigEndian } from '../core/checksum.ts';
import {
  IPV6_DESTINATION_OFFSET,
  IPV6_HEADER_BYTES,
  IPV6_HOP_LIMIT_OFFSET,
  IPV6_SOURCE_OFFSET,
} from '../core/ipv6-headers.ts';
import {
  copyMac,
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_IPV6,
  type Packet,
  PROTO_ICMPV6,
  writeMacWords,
} from '../core/packet.ts';

// RFC 4861 section 4: | type code checksum | reserved or flags 32 | target 128 | options |
const ROUTER_ADVERTISEMENT = 134;
const NEIGHBOR_SOLICITATION = 135;
const NEIGHBOR_ADVERTISEMENT = 136;
const REDIRECT = 137;
const TARGET = 8;
const OPTIONS = 24;
const OPTION_SOURCE_LINK_LAYER = 1;
const OPTION_TARGET_LINK_LAYER = 2;
/** Only a packet that no router has passed on has it. */
const HOP_LIMIT = 255;
const FLAG_ROUTER = 0x8000_0000 | 0;
const FLAG_SOLICITED = 0x4000_0000;
const FLAG_OVERRIDE = 0x2000_0000;
const ADVERTISEMENT_BYTES: number = OPTIONS + 8;
/** `ff02::1` and its MAC: where those hear it who have no address yet. */
const ALL_NODES_FIRST_WORD = 0xff02_0000 | 0;
const ALL_NODES_LAST_WORD = 1;
const ALL_NODES: MacWords = macWords(0x3333_0000_0001);
/** `ff02::1:ff00:0/104` (RFC 4291 section 2.7.1). */
const SOLICITED_NODE_WORD = 1;
const SOLICITED_NODE_BYTE = 0xff;

/** Bytes of the frame that {@link writeNeighborAdvertisement} writes. */
export const NEIGHBOR_ADVERTISEMENT_FRAME_BYTES: number =
  ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES + ADVERTISEMENT_BYTES;

/**
 * Whether `packet` tells or asks of neighbours and routes: advertisements, redirects, Neighbor Solicitations. A
 * Router Solicitation does no harm to whom it reaches.
 */
export function isNeighborDiscovery({ family, icmpType }: Packet): boolean {
  return family === 6 && icmpType >= ROUTER_ADVERTISEMENT && icmpType <= REDIRECT;
}

/** Whether `packet` asks who has an address, with all that RFC 4861 section 7.1.1 and RFC 6980 demand. */
export function isNeighborSolicitation(view: DataView, packet: Packet): boolean {
  const { icmpType, isFragment, ipStart, ipHeaderBytes, ipTotalBytes, l4Start } = packet;
  const bytes = ipTotalBytes - ipHeaderBytes;
  return (
    icmpType === NEIGHBOR_SOLICITATION &&
    !isFragment &&
    bytes >= OPTIONS &&
    view.getUint8(ipStart + IPV6_HOP_LIMIT_OFFSET) === HOP_LIMIT &&
    view.getUint8(l4Start + 1) === 0 &&
    view.getUint8(l4Start + TARGET) !== 0xff &&
    hasSoundOptions(view, packet, l4Start + OPTIONS, l4Start + bytes) &&
    (!isUnspecified(view, packet.sourceStart) || isSolicitedNode(view, packet.destinationStart)) &&
    isSoundChecksum(view, packet, bytes)
  );
}

/** Whether the solicitation asks if an address is free (RFC 4862 section 5.4): its sender has none yet. */
export function isAddressProbe(view: DataView, packet: Packet): boolean {
  return isUnspecified(view, packet.sourceStart);
}

/** The address that the solicitation asks for, into `target`. */
export function readSolicitedTarget(view: DataView, packet: Packet, target: AddressWords): void {
  target.read(view, packet.l4Start + TARGET, 6);
}

/**
 * Writes the frame that answers the solicitation `packet`: `owner` has the address asked for. A probe is
 * answered to all nodes (RFC 4861 section 7.2.4).
 *
 * @param offset - Where the frame goes, {@link NEIGHBOR_ADVERTISEMENT_FRAME_BYTES} bytes; must not overlap
 *   the solicitation.
 * @param isRouter - Whether the owner is the gateway.
 */
export function writeNeighborAdvertisement(
  view: DataView,
  offset: number,
  packet: Packet,
  owner: MacWords,
  isRouter: boolean,
): void {
  const isProbe = isUnspecified(view, packet.sourceStart);
  const ip = offset + ETHERNET_HEADER_BYTES;
  const icmp = ip + IPV6_HEADER_BYTES;
  const target = packet.l4Start + TARGET;
  if (isProbe) writeMacWords(view, offset, ALL_NODES);
  else copyMac(view, packet.start + 6, offset);
  writeMacWords(view, offset + 6, owner);
  view.setUint16(offset + 12, ETHERTYPE_IPV6);

  view.setUint32(ip, 0x6000_0000);
  view.setUint16(ip + 4, ADVERTISEMENT_BYTES);
  view.setUint16(ip + 6, (PROTO_ICMPV6 << 8) | HOP_LIMIT);
  copyAddress(view, target, ip + IPV6_SOURCE_OFFSET);
  if (isProbe) writeAllNodes(view, ip + IPV6_DESTINATION_OFFSET);
  else copyAddress(view, packet.sourceStart, ip + IPV6_DESTINATION_OFFSET);

  view.setUint32(icmp, NEIGHBOR_ADVERTISEMENT << 24);
  const flags = (isRouter ? FLAG_ROUTER : 0) | (isProbe ? 0 : FLAG_SOLICITED) | FLAG_OVERRIDE;
  view.setInt32(icmp + 4, flags);
  copyAddress(view, target, icmp + TARGET);
  view.setUint16(icmp + OPTIONS, (OPTION_TARGET_LINK_LAYER << 8) | 1);
  writeMacWords(view, icmp + OPTIONS + 2, owner);
  const pseudo = sum16BigEndian(view, ip + IPV6_SOURCE_OFFSET, 32);
  const sum = pseudo + PROTO_ICMPV6 + ADVERTISEMENT_BYTES;
  const total = fold16(sum + sum16BigEndian(view, icmp, ADVERTISEMENT_BYTES));
  view.setUint16(icmp + 2, ~total & 0xffff);
}

/** Every option has a length, all of them fit, and who has no address names no link-layer address. */
function hasSoundOptions(view: DataView, packet: Packet, start: number, end: number): boolean {
  let at = start;
  while (at < end) {
    if (at + 2 > end) return false;
    const bytes = view.getUint8(at + 1) * 8;
    if (bytes === 0 || at + bytes > end) return false;
    const isSource = view.getUint8(at) === OPTION_SOURCE_LINK_LAYER;
    if (isSource && isUnspecified(view, packet.sourceStart)) return false;
    at += bytes;
  }
  return true;
}

function isSoundChecksum(view: DataView, packet: Packet, bytes: number): boolean {
  const pseudo = sum16BigEndian(view, packet.sourceStart, 32) + PROTO_ICMPV6 + bytes;
  return fold16(pseudo + sum16BigEndian(view, packet.l4Start, bytes)) === 0xffff;
}

function isUnspecified(view: DataView, at: number): boolean {
  return (
    view.getInt32(at) === 0 &&
    view.getInt32(at + 4) === 0 &&
    view.getInt32(at + 8) === 0 &&
    view.getInt32(at + 12) === 0
  );
}

function isSolicitedNode(view: DataView, at: number): boolean {
  return (
    view.getInt32(at) === ALL_NODES_FIRST_WORD &&
    view.getInt32(at + 4) === 0 &&
    view.getInt32(at + 8) === SOLICITED_NODE_WORD &&
    view.getUint8(at + 12) === SOLICITED_NODE_BYTE
  );
}

function writeAllNodes(view: DataView, at: number): void {
  view.setInt32(at, ALL_NODES_FIRST_WORD);
  view.setInt32(at + 4, 0);
  view.setInt32(at + 8, 0);
  view.setInt32(at + 12, ALL_NODES_LAST_WORD);
}

function copyAddress(view: DataView, from: number, to: number): void {
  for (let word = 0; word < 16; word += 4) view.setInt32(to + word, view.getInt32(from + word));
}
