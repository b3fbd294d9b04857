import { type ChecksumKernel, fold16, swap16 } from '../core/checksum.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_IPV4,
  IPV4_HEADER_BYTES_MIN,
  PROTO_TCP,
  PROTO_UDP,
  TCP_HEADER_BYTES_MIN,
  UDP_HEADER_BYTES,
} from '../core/packet.ts';

/** What a sum over a segment with a right checksum gives. */
const VALID_SUM = 0xffff;
/** Where the checksum field is in a TCP and in a UDP header. */
export const TCP_CHECKSUM_OFFSET = 16;
export const UDP_CHECKSUM_OFFSET = 6;

/**
 * The folded sum of an IPv4 pseudo-header, in the byte order of {@link ChecksumKernel}.
 *
 * @param ip - Where the IPv4 header starts.
 * @param l4Bytes - Length of the transport segment.
 */
export function pseudoHeaderSum(
  checksum: ChecksumKernel,
  ip: number,
  protocol: number,
  l4Bytes: number,
): number {
  return fold16(checksum.sum16(ip + 12, 8) + swap16(protocol) + swap16(l4Bytes));
}

/**
 * Whether a transport checksum is right: either complete, or partial as a kernel leaves it that sends
 * to another one through memory (veth, virtio): the field holds the pseudo-header's sum, and nothing
 * on the way computed the rest.
 */
export function isSoundSegment(
  view: DataView,
  checksum: ChecksumKernel,
  ip: number,
  l4: number,
  protocol: number,
  l4Bytes: number,
): boolean {
  const pseudo = pseudoHeaderSum(checksum, ip, protocol, l4Bytes);
  if (fold16(pseudo + checksum.sum16(l4, l4Bytes)) === VALID_SUM) return true;
  const offset = protocol === PROTO_TCP ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET;
  return view.getUint16(l4 + offset, true) === pseudo;
}

/**
 * Where the transport header of the frame starts if its checksum was left partial, else 0. The Linux
 * VXLAN device does so when its underlay is a veth or a virtio interface: the receiver must finish
 * the checksum, or its own kernel drops the segment.
 *
 * @param frame - Where the Ethernet frame starts; nothing of it has been checked yet.
 * @returns offset from `frame`, in bytes
 */
export function partialChecksumStart(
  view: DataView,
  checksum: ChecksumKernel,
  frame: number,
  length: number,
): number {
  const ip = frame + ETHERNET_HEADER_BYTES;
  if (length < ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES_MIN + UDP_HEADER_BYTES) return 0;
  if (view.getUint16(frame + 12) !== ETHERTYPE_IPV4) return 0;
  if ((view.getUint16(ip + 6) & 0x3fff) !== 0) return 0;
  const protocol = view.getUint8(ip + 9);
  const headerBytes = (view.getUint8(ip) & 15) * 4;
  const l4Bytes = view.getUint16(ip + 2) - headerBytes;
  const minimum = protocol === PROTO_TCP ? TCP_HEADER_BYTES_MIN : UDP_HEADER_BYTES;
  if (protocol !== PROTO_TCP && protocol !== PROTO_UDP) return 0;
  if (l4Bytes < minimum || ETHERNET_HEADER_BYTES + headerBytes + l4Bytes > length) return 0;
  const l4 = ip + headerBytes;
  const offset = protocol === PROTO_TCP ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET;
  const pseudo = pseudoHeaderSum(checksum, ip, protocol, l4Bytes);
  if (view.getUint16(l4 + offset, true) !== pseudo) return 0;
  // A complete checksum may happen to have the same value.
  const isComplete = fold16(pseudo + checksum.sum16(l4, l4Bytes)) === VALID_SUM;
  return isComplete ? 0 : ETHERNET_HEADER_BYTES + headerBytes;
}
