/** Bytes of the fixed IPv6 header (RFC 8200 section 3). */
export const IPV6_HEADER_BYTES = 40;
/** Where things lie in it. */
export const IPV6_PAYLOAD_LENGTH_OFFSET = 4;
export const IPV6_NEXT_HEADER_OFFSET = 6;
export const IPV6_HOP_LIMIT_OFFSET = 7;
export const IPV6_SOURCE_OFFSET = 8;
export const IPV6_DESTINATION_OFFSET = 24;

// Next header numbers of extension headers (IANA).
const HOP_BY_HOP = 0;
const ROUTING = 43;
/** The fragment header, RFC 8200 section 4.5: | next 8 | reserved 8 | offset 13, 0 0, more | identification 32 |. */
export const PROTO_IPV6_FRAGMENT = 44;
const AUTHENTICATION = 51;
const DESTINATION_OPTIONS = 60;

/** RFC 8200 knows six, in one order; a packet with more headers than this only costs time. */
const EXTENSION_HEADERS_MAX = 8;

/** What {@link walkIpv6Headers} finds behind the extension headers. */
export interface Ipv6Upper {
  /** The upper-layer protocol; the routing header's number where the destination is not yet the last one. */
  protocol: number;
  /** Where the upper layer's header starts; of a later fragment, its data. */
  l4Start: number;
  /** The fragment header's, signed; 0 without one. */
  identification: number;
  isFragment: boolean;
  isLaterFragment: boolean;
}

/**
 * Goes through the extension headers of an IPv6 packet, each by its own length rule, to the upper layer. A
 * fragment that is the whole datagram is none (RFC 6946). What follows a later fragment's header is data.
 * Checks every length before it reads.
 *
 * @param ip - Where the fixed header starts; it must be all there.
 * @param end - Where the packet ends.
 * @returns false if a header does not fit, stands where it must not, or is one too many
 */
export function walkIpv6Headers(
  view: DataView,
  ip: number,
  end: number,
  upper: Ipv6Upper,
): boolean {
  let next = view.getUint8(ip + IPV6_NEXT_HEADER_OFFSET);
  let at = ip + IPV6_HEADER_BYTES;
  let sawFragmentHeader = false;
  upper.identification = 0;
  upper.isFragment = false;
  upper.isLaterFragment = false;
  for (let count = 0; isExtensionHeader(next) && !upper.isLaterFragment; count++) {
    const isMisplaced =
      next === HOP_BY_HOP ? count > 0 : next === PROTO_IPV6_FRAGMENT && sawFragmentHeader;
    if (count === EXTENSION_HEADERS_MAX || isMisplaced || at + 8 > end) return false;
    const bytes = extensionHeaderBytes(view, at, next);
    if (at + bytes > end) return false;
    if (next === PROTO_IPV6_FRAGMENT) {
      sawFragmentHeader = true;
      readFragmentHeader(view, at, upper);
    }
    // Segments left: the checksum is over a destination that stands elsewhere (RFC 8200 section 8.1).
    if (next === ROUTING && view.getUint8(at + 3) !== 0) break;
    next = view.getUint8(at);
    at += bytes;
  }
  upper.protocol = next;
  upper.l4Start = at;
  return true;
}

function isExtensionHeader(next: number): boolean {
  return (
    next === HOP_BY_HOP ||
    next === ROUTING ||
    next === PROTO_IPV6_FRAGMENT ||
    next === AUTHENTICATION ||
    next === DESTINATION_OPTIONS
  );
}

/** The length byte counts 8-byte units after the first one; the authentication header's, 4-byte ones less 2. */
function extensionHeaderBytes(view: DataView, at: number, header: number): number {
  if (header === PROTO_IPV6_FRAGMENT) return 8;
  const length = view.getUint8(at + 1);
  return header === AUTHENTICATION ? (length + 2) * 4 : (length + 1) * 8;
}

function readFragmentHeader(view: DataView, at: number, upper: Ipv6Upper): void {
  const offsetAndFlags = view.getUint16(at + 2);
  const offset = offsetAndFlags >>> 3;
  upper.isLaterFragment = offset !== 0;
  upper.isFragment = offset !== 0 || (offsetAndFlags & 1) !== 0;
  upper.identification = view.getInt32(at + 4);
}
