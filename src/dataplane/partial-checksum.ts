import { type ChecksumKernel, fold16, swap16 } from '../core/checksum.ts';
import {
  IPV6_HEADER_BYTES,
  IPV6_PAYLOAD_LENGTH_OFFSET,
  IPV6_SOURCE_OFFSET,
  walkIpv6Headers,
} from '../core/ipv6-headers.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
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

/** The transport segment of a frame, as far as checksums need it. Reused: one frame at a time is looked at. */
const segment = {
  protocol: 0,
  l4Start: 0,
  l4Bytes: 0,
  /** Where the addresses lie, and their length in bytes. */
  addresses: 0,
  addressBytes: 0,
  identification: 0,
  isFragment: false,
  isLaterFragment: false,
};

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
  if (!findSegment(view, frame, length)) return 0;
  const { protocol, l4Start, l4Bytes, addresses, addressBytes } = segment;
  if (protocol !== PROTO_TCP && protocol !== PROTO_UDP) return 0;
  const minimum = protocol === PROTO_TCP ? TCP_HEADER_BYTES_MIN : UDP_HEADER_BYTES;
  if (l4Bytes < minimum || l4Start + l4Bytes > frame + length) return 0;
  const offset = protocol === PROTO_TCP ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET;
  const addressSum = checksum.sum16(addresses, addressBytes);
  const pseudo = fold16(addressSum + swap16(protocol) + swap16(l4Bytes));
  if (view.getUint16(l4Start + offset, true) !== pseudo) return 0;
  // A complete checksum may happen to have the same value.
  const isComplete = fold16(pseudo + checksum.sum16(l4Start, l4Bytes)) === VALID_SUM;
  return isComplete ? 0 : l4Start - frame;
}

/** Finds what is behind the IP headers, into {@link segment}; false if the frame is no whole datagram. */
function findSegment(view: DataView, frame: number, length: number): boolean {
  const ip = frame + ETHERNET_HEADER_BYTES;
  if (length < ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES_MIN + UDP_HEADER_BYTES) return false;
  const etherType = view.getUint16(frame + 12);
  if (etherType === ETHERTYPE_IPV4) {
    const headerBytes = (view.getUint8(ip) & 15) * 4;
    segment.protocol = view.getUint8(ip + 9);
    segment.l4Start = ip + headerBytes;
    segment.l4Bytes = view.getUint16(ip + 2) - headerBytes;
    segment.addresses = ip + 12;
    segment.addressBytes = 8;
    return (view.getUint16(ip + 6) & 0x3fff) === 0;
  }
  if (etherType !== ETHERTYPE_IPV6 || length < ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES)
    return false;
  const end = ip + IPV6_HEADER_BYTES + view.getUint16(ip + IPV6_PAYLOAD_LENGTH_OFFSET);
  if (end > frame + length || !walkIpv6Headers(view, ip, end, segment)) return false;
  segment.l4Bytes = end - segment.l4Start;
  segment.addresses = ip + IPV6_SOURCE_OFFSET;
  segment.addressBytes = 32;
  return !segment.isFragment;
}
