import { sum16BigEndian } from '../core/checksum.ts';
import { ETHERNET_HEADER_BYTES, IPV4_HEADER_BYTES_MIN, type Packet } from '../core/packet.ts';
import { IPV4_CHECKSUM_OFFSET } from './nat.ts';

// RFC 791 section 3.1: | 0 | DF | MF | fragment offset, in units of 8 bytes, 13 |
const DO_NOT_FRAGMENT = 0x4000;
const MORE_FRAGMENTS = 0x2000;
const OFFSET_BITS = 0x1fff;
const OFFSET_UNIT_BYTES = 8;

const OPTION_END = 0;
const OPTION_NONE = 1;
/** The bit of an option's kind that says: into every fragment (RFC 791 section 3.1). */
const OPTION_COPIED = 0x80;

/** Whether the sender of the IPv4 packet `packet` forbids to fragment it. */
export function mustNotFragment(view: DataView, packet: Packet): boolean {
  return (view.getUint16(packet.ipStart + 6) & DO_NOT_FRAGMENT) !== 0;
}

/**
 * How much payload each fragment of `packet` carries but the last: as many units of 8 bytes as fit.
 *
 * @param mtuBytes - The largest IP packet.
 * @returns 0 if not even one unit fits behind the header
 */
export function fragmentPayloadBytes(packet: Packet, mtuBytes: number): number {
  return Math.max(0, (mtuBytes - packet.ipHeaderBytes) & ~(OFFSET_UNIT_BYTES - 1));
}

/**
 * Writes the Ethernet and IPv4 headers of one fragment of `packet`: RFC 791 section 3.2, "An Example
 * Fragmentation Procedure". The payload is not touched. A packet that is a fragment itself may be cut again.
 * In later fragments, options that do not belong there become padding, so that all headers are of one
 * length.
 *
 * @param slot - Where the headers go; must not overlap the packet.
 * @param packet - Parsed from `view`, whole as to its checksums, left as it is.
 * @param done - Payload bytes in front of this fragment: a multiple of 8.
 * @param payloadBytes - Payload of this fragment: a multiple of 8, but in the last one.
 * @returns bytes written
 */
export function writeIpv4FragmentHeaders(
  view: DataView,
  slot: number,
  packet: Packet,
  done: number,
  payloadBytes: number,
): number {
  const { start, ipStart, ipHeaderBytes, ipTotalBytes } = packet;
  const headerBytes = ETHERNET_HEADER_BYTES + ipHeaderBytes;
  for (let at = 0; at < headerBytes; at += 1) view.setUint8(slot + at, view.getUint8(start + at));
  const ip = slot + ETHERNET_HEADER_BYTES;
  if (done > 0) padOptions(view, ip + IPV4_HEADER_BYTES_MIN, ip + ipHeaderBytes);
  const original = view.getUint16(ipStart + 6);
  const isLast = ipHeaderBytes + done + payloadBytes >= ipTotalBytes;
  const more = isLast ? original & MORE_FRAGMENTS : MORE_FRAGMENTS;
  const offset = (original & OFFSET_BITS) + done / OFFSET_UNIT_BYTES;
  view.setUint16(ip + 2, ipHeaderBytes + payloadBytes);
  view.setUint16(ip + 6, more | (offset & OFFSET_BITS));
  view.setUint16(ip + IPV4_CHECKSUM_OFFSET, 0);
  view.setUint16(ip + IPV4_CHECKSUM_OFFSET, ~sum16BigEndian(view, ip, ipHeaderBytes) & 0xffff);
  return headerBytes;
}

/** Makes padding of the options in [at, end) that are not for every fragment, as the kernel does. */
function padOptions(view: DataView, start: number, end: number): void {
  let at = start;
  while (at < end) {
    const kind = view.getUint8(at);
    if (kind === OPTION_END) return;
    if (kind === OPTION_NONE) {
      at += 1;
      continue;
    }
    const bytes = at + 1 < end ? view.getUint8(at + 1) : 0;
    if (bytes < 2 || at + bytes > end) return;
    if ((kind & OPTION_COPIED) === 0) {
      for (let pad = at; pad < at + bytes; pad += 1) view.setUint8(pad, OPTION_NONE);
    }
    at += bytes;
  }
}
