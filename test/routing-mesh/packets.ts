import { parseMac } from '../../src/core/address.ts';
import { sum16BigEndian } from '../../src/core/checksum.ts';
import { formatIp, formatIpPort, type Ip, ipWords, isIpv6, parseIp } from '../../src/core/ip.ts';
import {
  Packet,
  PROTO_ICMP,
  PROTO_ICMPV6,
  PROTO_TCP,
  PROTO_UDP,
  parseFrame,
} from '../../src/core/packet.ts';

/** What a test says of a packet; everything else has a plain default. */
export interface PacketSpec {
  readonly protocol?: number;
  readonly from: string;
  readonly to: string;
  readonly tcpFlags?: number;
  readonly sequence?: number;
  readonly acknowledgment?: number;
  readonly payload?: Uint8Array;
  readonly identification?: number;
  readonly moreFragments?: boolean;
  /** Byte offset in the datagram, a multiple of 8; a later fragment is all payload. */
  readonly fragmentOffset?: number;
  readonly icmpType?: number;
  /** IPv4: 4-byte words of options. IPv6: 8-byte units of a destination options header. */
  readonly ipOptions?: number;
  /** A UDP packet that says "no checksum". */
  readonly noChecksum?: boolean;
  /** The transport checksum field holds the folded pseudo-header sum. */
  readonly partial?: boolean;
}

/** Reads `10.0.0.1:80`, `[fd00::1]:80` or an address alone; the port is 0 without one. */
export function endpoint(text: string): { address: Ip; port: number } {
  const [, bracketed, rest, port = '0'] =
    /^(?:\[(.*)\]|([^:]*|.*:.*:.*))(?::(\d+))?$/.exec(text) ?? [];
  return { address: parseIp(bracketed ?? rest ?? ''), port: Number(port) };
}

/** The other way round; without the port if it is 0. */
export function endpointText(address: Ip, port: number): string {
  return port === 0 ? formatIp(address) : formatIpPort(address, port);
}

const MAC_HERE = parseMac('02:42:0a:00:00:01');
const MAC_THERE = parseMac('02:42:0a:00:00:02');
const ETHERNET_BYTES = 14;
const FRAGMENT_HEADER = 44;
const DESTINATION_OPTIONS = 60;

/** A frame with right checksums, of the family of its addresses. */
export function frame(spec: PacketSpec): DataView {
  const protocol = spec.protocol ?? PROTO_TCP;
  const payload = spec.payload ?? new Uint8Array(0);
  const isLater = (spec.fragmentOffset ?? 0) > 0;
  const l4Bytes = isLater ? 0 : protocol === PROTO_TCP ? 20 : 8;
  const isV6 = isIpv6(endpoint(spec.from).address);
  const ipBytes = isV6 ? ipv6HeaderBytes(spec) : 20 + (spec.ipOptions ?? 0) * 4;
  const length = ETHERNET_BYTES + ipBytes + l4Bytes + payload.length;
  const view = new DataView(new ArrayBuffer(length));
  const l4 = ETHERNET_BYTES + ipBytes;
  view.setUint16(0, Math.floor(MAC_THERE / 2 ** 32));
  view.setUint32(2, MAC_THERE % 2 ** 32);
  view.setUint16(6, Math.floor(MAC_HERE / 2 ** 32));
  view.setUint32(8, MAC_HERE % 2 ** 32);
  if (isV6) writeIpv6Headers(view, l4, protocol, spec);
  else writeIpv4Header(view, l4, protocol, spec);
  new Uint8Array(view.buffer).set(payload, l4 + l4Bytes);
  if (!isLater) writeTransport(view, l4, protocol, spec);
  return view;
}

function writeIpv4Header(view: DataView, l4: number, protocol: number, spec: PacketSpec): void {
  const ip = ETHERNET_BYTES;
  view.setUint16(12, 0x0800);
  view.setUint8(ip, 0x40 | ((l4 - ip) / 4));
  view.setUint16(ip + 2, view.byteLength - ip);
  view.setUint16(ip + 4, spec.identification ?? 1);
  view.setUint16(ip + 6, (spec.moreFragments ? 0x2000 : 0) | ((spec.fragmentOffset ?? 0) / 8));
  view.setUint8(ip + 8, 63);
  view.setUint8(ip + 9, protocol);
  view.setInt32(ip + 12, ipWords(endpoint(spec.from).address)[3]);
  view.setInt32(ip + 16, ipWords(endpoint(spec.to).address)[3]);
  for (let at = ip + 20; at < l4; at++) view.setUint8(at, 1); // no-operation options
  view.setUint16(ip + 10, ~sum16BigEndian(view, ip, l4 - ip) & 0xffff);
}

function isFragment(spec: PacketSpec): boolean {
  return spec.moreFragments === true || (spec.fragmentOffset ?? 0) > 0;
}

function ipv6HeaderBytes(spec: PacketSpec): number {
  return 40 + (spec.ipOptions ?? 0) * 8 + (isFragment(spec) ? 8 : 0);
}

function writeIpv6Headers(view: DataView, l4: number, protocol: number, spec: PacketSpec): void {
  const ip = ETHERNET_BYTES;
  const optionUnits = spec.ipOptions ?? 0;
  const afterOptions = isFragment(spec) ? FRAGMENT_HEADER : protocol;
  view.setUint16(12, 0x86dd);
  view.setUint32(ip, 0x6012_3456);
  view.setUint16(ip + 4, view.byteLength - ip - 40);
  view.setUint8(ip + 6, optionUnits > 0 ? DESTINATION_OPTIONS : afterOptions);
  view.setUint8(ip + 7, 63);
  for (const [index, word] of ipWords(endpoint(spec.from).address).entries()) {
    view.setInt32(ip + 8 + index * 4, word);
  }
  for (const [index, word] of ipWords(endpoint(spec.to).address).entries()) {
    view.setInt32(ip + 24 + index * 4, word);
  }
  if (optionUnits > 0) {
    view.setUint8(ip + 40, afterOptions);
    view.setUint8(ip + 41, optionUnits - 1); // zeros are padding
  }
  if (!isFragment(spec)) return;
  view.setUint8(l4 - 8, protocol);
  view.setUint16(l4 - 6, (spec.fragmentOffset ?? 0) | (spec.moreFragments ? 1 : 0));
  view.setUint32(l4 - 4, spec.identification ?? 1);
}

function writeTransport(view: DataView, l4: number, protocol: number, spec: PacketSpec): void {
  const l4Total = view.byteLength - l4;
  const from = endpoint(spec.from);
  if (protocol === PROTO_ICMP || protocol === PROTO_ICMPV6) {
    const type = spec.icmpType ?? (protocol === PROTO_ICMP ? 8 : 128);
    view.setUint8(l4, type);
    if ([0, 8, 128, 129].includes(type)) view.setUint16(l4 + 4, from.port);
    const pseudo = protocol === PROTO_ICMPV6 ? pseudoHeaderSum(view, 0, protocol, l4Total) : 0;
    view.setUint16(l4 + 2, ~onesSum(pseudo, sum16BigEndian(view, l4, l4Total)) & 0xffff);
    return;
  }
  if (protocol !== PROTO_TCP && protocol !== PROTO_UDP) return;
  view.setUint16(l4, from.port);
  view.setUint16(l4 + 2, endpoint(spec.to).port);
  if (protocol === PROTO_TCP) {
    view.setUint32(l4 + 4, spec.sequence ?? 1000);
    view.setUint32(l4 + 8, spec.acknowledgment ?? 2000);
    view.setUint8(l4 + 12, 5 << 4);
    view.setUint8(l4 + 13, spec.tcpFlags ?? 0x10);
  } else {
    view.setUint16(l4 + 4, l4Total);
  }
  const at = l4 + (protocol === PROTO_TCP ? 16 : 6);
  if (spec.noChecksum) return;
  const pseudo = pseudoHeaderSum(view, 0, protocol, l4Total);
  if (spec.partial) {
    view.setUint16(at, pseudo);
    return;
  }
  const sum = ~onesSum(pseudo, sum16BigEndian(view, l4, l4Total)) & 0xffff;
  view.setUint16(at, sum === 0 ? 0xffff : sum);
}

function onesSum(a: number, b: number): number {
  return a + b > 0xffff ? a + b - 0xffff : a + b;
}

/** The sum of a pseudo-header: RFC 793, and RFC 8200 section 8.1. */
function pseudoHeaderSum(view: DataView, start: number, protocol: number, l4Bytes: number): number {
  const ip = start + ETHERNET_BYTES;
  const isV6 = view.getUint8(ip) >>> 4 === 6;
  const addresses = isV6 ? sum16BigEndian(view, ip + 8, 32) : sum16BigEndian(view, ip + 12, 8);
  return onesSum(onesSum(addresses, protocol), l4Bytes % 0xffff);
}

/** Parses the frame at the start of `view`; the frame must be well-formed. */
export function parsed(view: DataView, length: number = view.byteLength): Packet {
  const packet = new Packet();
  const fault = parseFrame(view, 0, length, packet);
  if (fault !== 'none') throw new Error(`The test built a frame that does not parse: ${fault}`);
  return packet;
}

interface Upper {
  readonly protocol: number;
  readonly l4: number;
  readonly end: number;
  readonly isFragment: boolean;
}

/** What is behind the IP headers, of those that {@link frame} makes. */
function upperLayer(view: DataView, start: number): Upper {
  const ip = start + ETHERNET_BYTES;
  if (view.getUint8(ip) >>> 4 === 4) {
    return {
      protocol: view.getUint8(ip + 9),
      l4: ip + (view.getUint8(ip) & 15) * 4,
      end: ip + view.getUint16(ip + 2),
      isFragment: (view.getUint16(ip + 6) & 0x3fff) !== 0,
    };
  }
  const end = ip + 40 + view.getUint16(ip + 4);
  let protocol = view.getUint8(ip + 6);
  let l4 = ip + 40;
  let isFragment = false;
  while (protocol === FRAGMENT_HEADER || protocol === DESTINATION_OPTIONS) {
    isFragment ||= protocol === FRAGMENT_HEADER;
    const bytes = protocol === FRAGMENT_HEADER ? 8 : (view.getUint8(l4 + 1) + 1) * 8;
    protocol = view.getUint8(l4);
    l4 += bytes;
  }
  return { protocol, l4, end, isFragment };
}

/**
 * Which checksums of a whole packet are wrong, all recomputed from scratch: the oracle of every RFC 1624
 * update. Zero and all ones are the same number to a one's complement sum.
 */
export function wrongChecksums(view: DataView, start = 0, partial = false): string[] {
  const wrong: string[] = [];
  const ip = start + ETHERNET_BYTES;
  const isV4 = view.getUint8(ip) >>> 4 === 4;
  const { protocol, l4, end, isFragment } = upperLayer(view, start);
  if (isV4 && sum16BigEndian(view, ip, l4 - ip) !== 0xffff) wrong.push('ip');
  if (isFragment) return wrong;
  const l4Bytes = end - l4;
  const sum = sum16BigEndian(view, l4, l4Bytes);
  const pseudo = pseudoHeaderSum(view, start, protocol, l4Bytes);
  if (protocol === PROTO_ICMP && isV4 && sum !== 0xffff) wrong.push('icmp');
  if (protocol === PROTO_ICMPV6 && onesSum(pseudo, sum) !== 0xffff) wrong.push('icmp');
  if (protocol !== PROTO_TCP && protocol !== PROTO_UDP) return wrong;
  const field = view.getUint16(l4 + (protocol === PROTO_TCP ? 16 : 6));
  if (partial) {
    if (field % 0xffff !== pseudo % 0xffff) wrong.push('partial');
  } else if (!(protocol === PROTO_UDP && field === 0)) {
    if (onesSum(pseudo, sum) !== 0xffff) wrong.push('transport');
  }
  return wrong;
}
