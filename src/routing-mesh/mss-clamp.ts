import { applyDelta, delta16, swap16 } from '../core/checksum.ts';
import { IPV6_HEADER_BYTES } from '../core/ipv6-headers.ts';
import {
  IPV4_HEADER_BYTES_MIN,
  type Packet,
  PROTO_TCP,
  TCP_HEADER_BYTES_MIN,
  TCP_SYN,
} from '../core/packet.ts';
import { TCP_CHECKSUM_OFFSET } from './nat.ts';

// RFC 9293 section 3.1: TCP options
const OPTION_END = 0;
const OPTION_NONE = 1;
const OPTION_MSS = 2;
const OPTION_MSS_BYTES = 4;

/**
 * Lowers the maximum segment size that a SYN or SYN-ACK announces to what fits `mtuBytes`, so that the other
 * end sends no segment which must be cut on the way. Options that are malformed, and a segment
 * without the option, are left alone.
 *
 * @param packet - Parsed from `view`; neither its headers nor its payload are trusted.
 * @param mtuBytes - The largest IP packet on the way to the other end.
 * @param partialChecksum - The TCP checksum field holds the sum of the pseudo-header alone, to which
 *   options do not belong: it stays as it is.
 * @returns whether the segment was changed
 */
export function clampMss(
  view: DataView,
  packet: Packet,
  mtuBytes: number,
  partialChecksum: boolean,
): boolean {
  if (packet.protocol !== PROTO_TCP || (packet.tcpFlags & TCP_SYN) === 0) return false;
  if (packet.isFragment) return false;
  const at = mssOption(view, packet);
  if (at === 0) return false;
  const ipBytes = packet.family === 6 ? IPV6_HEADER_BYTES : IPV4_HEADER_BYTES_MIN;
  const fitting = mtuBytes - ipBytes - TCP_HEADER_BYTES_MIN;
  const announced = view.getUint16(at + 2);
  if (announced <= fitting || fitting <= 0) return false;
  view.setUint16(at + 2, fitting);
  if (partialChecksum) return true;
  // Behind an odd number of padding bytes the value's halves belong to two words of the sum.
  const isOdd = ((at - packet.l4Start) & 1) === 1;
  const delta = isOdd ? delta16(swap16(announced), swap16(fitting)) : delta16(announced, fitting);
  const checksumAt = packet.l4Start + TCP_CHECKSUM_OFFSET;
  view.setUint16(checksumAt, applyDelta(view.getUint16(checksumAt), delta));
  return true;
}

/** Where the MSS option of the TCP segment `packet` starts; 0 without a sound one. */
function mssOption(view: DataView, packet: Packet): number {
  const end = packet.l4Start + packet.l4HeaderBytes;
  let at = packet.l4Start + TCP_HEADER_BYTES_MIN;
  while (at < end) {
    const kind = view.getUint8(at);
    if (kind === OPTION_END) return 0;
    if (kind === OPTION_NONE) {
      at += 1;
      continue;
    }
    if (at + 2 > end) return 0;
    const bytes = view.getUint8(at + 1);
    if (bytes < 2 || at + bytes > end) return 0;
    if (kind === OPTION_MSS) return bytes === OPTION_MSS_BYTES ? at : 0;
    at += bytes;
  }
  return 0;
}
