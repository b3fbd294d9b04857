// struct virtio_net_hdr (virtio 1.2 section 5.1.6), little-endian:
// | flags 8 | gso_type 8 | hdr_len 16 | gso_size 16 | csum_start 16 | csum_offset 16 |
const NEEDS_CSUM = 1;
const GSO_ECN = 0x80;

/** `gso_type` values. */
export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_TCPV6 = 4;
export const GSO_UDP_L4 = 5;

/** What a TAP says about the frame behind its header. Reused: {@link readOffload} overwrites it. */
export class Offload {
  /** The transport checksum field holds only the pseudo-header's sum; the rest must be added. */
  needsChecksum = false;
  gsoType: number = GSO_NONE;
  /** Payload bytes of each segment. */
  gsoBytes = 0;
  /** Where the checksummed part starts, from the start of the frame. */
  checksumStart = 0;
  /** Where the checksum field is, from `checksumStart`. */
  checksumOffset = 0;

  /** Says that the frame is complete as it is. */
  clear(): void {
    this.needsChecksum = false;
    this.gsoType = GSO_NONE;
    this.gsoBytes = 0;
  }
}

/** Reads the virtio-net header at `offset`. */
export function readOffload(view: DataView, offset: number, offload: Offload): void {
  offload.needsChecksum = (view.getUint8(offset) & NEEDS_CSUM) !== 0;
  offload.gsoType = view.getUint8(offset + 1) & ~GSO_ECN;
  offload.gsoBytes = view.getUint16(offset + 4, true);
  offload.checksumStart = view.getUint16(offset + 6, true);
  offload.checksumOffset = view.getUint16(offset + 8, true);
}

/** Writes a header that says: one complete frame, check it yourself. */
export function writePlain(view: DataView, offset: number): void {
  view.setUint32(offset, 0);
  view.setUint32(offset + 4, 0);
  view.setUint16(offset + 8, 0);
}

/** Writes a header that says: one frame, finish the checksum whose part starts at `checksumStart`. */
export function writeNeedsChecksum(
  view: DataView,
  offset: number,
  checksumStart: number,
  checksumOffset: number,
): void {
  writePlain(view, offset);
  view.setUint8(offset, NEEDS_CSUM);
  view.setUint16(offset + 6, checksumStart, true);
  view.setUint16(offset + 8, checksumOffset, true);
}

/** What the header of a superframe says: see {@link writeSuperframe}. */
export interface Superframe {
  /** {@link GSO_TCPV4}, {@link GSO_TCPV6} or {@link GSO_UDP_L4}. */
  readonly gsoType: number;
  /** Ethernet, IP and transport headers together. */
  readonly headerBytes: number;
  /** Payload of each segment but the last. */
  readonly gsoBytes: number;
  /** Where the transport header starts in the frame, and the checksum field in that. */
  readonly checksumStart: number;
  readonly checksumOffset: number;
}

/** Writes a header for a superframe whose checksum field holds the pseudo-header's sum. */
export function writeSuperframe(view: DataView, offset: number, superframe: Superframe): void {
  view.setUint8(offset, NEEDS_CSUM);
  view.setUint8(offset + 1, superframe.gsoType);
  view.setUint16(offset + 2, superframe.headerBytes, true);
  view.setUint16(offset + 4, superframe.gsoBytes, true);
  view.setUint16(offset + 6, superframe.checksumStart, true);
  view.setUint16(offset + 8, superframe.checksumOffset, true);
}
