import { type Ipv4, parseIpv4, parseMac } from '../../src/core/address.ts';
import { sum16BigEndian } from '../../src/core/checksum.ts';
import { Packet, PROTO_ICMP, PROTO_TCP, PROTO_UDP, parseFrame } from '../../src/core/packet.ts';

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
  readonly ipOptions?: number;
  /** A UDP packet that says "no checksum". */
  readonly noChecksum?: boolean;
  /** The transport checksum field holds the folded pseudo-header sum. */
  readonly partial?: boolean;
}

/** Reads `10.0.0.1:80`; the port is 0 without one. */
export function endpoint(text: string): { address: Ipv4; port: number } {
  const [address = '', port = '0'] = text.split(':');
  return { address: parseIpv4(address), port: Number(port) };
}

const MAC_HERE = parseMac('02:42:0a:00:00:01');
const MAC_THERE = parseMac('02:42:0a:00:00:02');

/** A frame with right checksums, in a buffer with room for a reset behind it. */
export function frame(spec: PacketSpec): DataView {
  const protocol = spec.protocol ?? PROTO_TCP;
  const payload = spec.payload ?? new Uint8Array(0);
  const isLater = (spec.fragmentOffset ?? 0) > 0;
  const l4Bytes = isLater ? 0 : protocol === PROTO_TCP ? 20 : 8;
  const ipBytes = 20 + (spec.ipOptions ?? 0) * 4;
  const length = 14 + ipBytes + l4Bytes + payload.length;
  const view = new DataView(new ArrayBuffer(length));
  const ip = 14;
  const l4 = ip + ipBytes;
  view.setUint16(0, Math.floor(MAC_THERE / 2 ** 32));
  view.setUint32(2, MAC_THERE % 2 ** 32);
  view.setUint16(6, Math.floor(MAC_HERE / 2 ** 32));
  view.setUint32(8, MAC_HERE % 2 ** 32);
  view.setUint16(12, 0x0800);
  view.setUint8(ip, 0x40 | (ipBytes / 4));
  view.setUint16(ip + 2, length - 14);
  view.setUint16(ip + 4, spec.identification ?? 1);
  view.setUint16(ip + 6, (spec.moreFragments ? 0x2000 : 0) | ((spec.fragmentOffset ?? 0) / 8));
  view.setUint8(ip + 8, 63);
  view.setUint8(ip + 9, protocol);
  view.setUint32(ip + 12, endpoint(spec.from).address);
  view.setUint32(ip + 16, endpoint(spec.to).address);
  for (let at = ip + 20; at < l4; at++) view.setUint8(at, 1); // no-operation options
  new Uint8Array(view.buffer).set(payload, l4 + l4Bytes);
  if (!isLater) writeTransport(view, l4, protocol, spec);
  view.setUint16(ip + 10, ~sum16BigEndian(view, ip, ipBytes) & 0xffff);
  return view;
}

function writeTransport(view: DataView, l4: number, protocol: number, spec: PacketSpec): void {
  const l4Total = view.byteLength - l4;
  if (protocol === PROTO_ICMP) {
    view.setUint8(l4, spec.icmpType ?? 8);
    if ((spec.icmpType ?? 8) % 8 === 0) view.setUint16(l4 + 4, endpoint(spec.from).port);
    view.setUint16(l4 + 2, ~sum16BigEndian(view, l4, l4Total) & 0xffff);
    return;
  }
  if (protocol !== PROTO_TCP && protocol !== PROTO_UDP) return;
  view.setUint16(l4, endpoint(spec.from).port);
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
  const pseudo = pseudoHeaderSum(view, 14, l4Total);
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

function pseudoHeaderSum(view: DataView, ip: number, l4Bytes: number): number {
  const addresses = sum16BigEndian(view, ip + 12, 8);
  return onesSum(onesSum(addresses, view.getUint8(ip + 9)), l4Bytes % 0xffff);
}

/** Parses the frame at the start of `view`; the frame must be well-formed. */
export function parsed(view: DataView, length: number = view.byteLength): Packet {
  const packet = new Packet();
  const fault = parseFrame(view, 0, length, packet);
  if (fault !== 'none') throw new Error(`The test built a frame that does not parse: ${fault}`);
  return packet;
}

/**
 * Which checksums of a whole packet are wrong, all recomputed from scratch: the oracle of every RFC 1624
 * update. Zero and all ones are the same number to a one's complement sum.
 */
export function wrongChecksums(view: DataView, start = 0, partial = false): string[] {
  const wrong: string[] = [];
  const ip = start + 14;
  const ipBytes = (view.getUint8(ip) & 15) * 4;
  const l4 = ip + ipBytes;
  const l4Bytes = view.getUint16(ip + 2) - ipBytes;
  const protocol = view.getUint8(ip + 9);
  if (sum16BigEndian(view, ip, ipBytes) !== 0xffff) wrong.push('ip');
  const isWhole = (view.getUint16(ip + 6) & 0x3fff) === 0;
  if (!isWhole) return wrong;
  if (protocol === PROTO_ICMP && sum16BigEndian(view, l4, l4Bytes) !== 0xffff) wrong.push('icmp');
  if (protocol !== PROTO_TCP && protocol !== PROTO_UDP) return wrong;
  const field = view.getUint16(l4 + (protocol === PROTO_TCP ? 16 : 6));
  const pseudo = pseudoHeaderSum(view, ip, l4Bytes);
  if (partial) {
    if (field % 0xffff !== pseudo % 0xffff) wrong.push('partial');
  } else if (!(protocol === PROTO_UDP && field === 0)) {
    if (onesSum(pseudo, sum16BigEndian(view, l4, l4Bytes)) !== 0xffff) wrong.push('transport');
  }
  return wrong;
}
