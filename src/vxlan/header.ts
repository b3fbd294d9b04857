// RFC 7348 section 5: | flags 8 | reserved 24 | VNI 24 | reserved 8 |, big-endian

/** Size of the VXLAN header. */
export const VXLAN_HEADER_BYTES = 8;
/** UDP port assigned by IANA. */
export const VXLAN_PORT = 4789;
/** The I flag: the VNI field is valid. */
const FLAGS_VNI_VALID = 0x0800_0000;

/** What {@link readVxlanVni} returns for a packet that is no VXLAN. */
export const NOT_VXLAN = -1;

/**
 * Writes a VXLAN header, reserved bits included: a reused buffer must not leak its last packet.
 *
 * @param target - View over the caller's buffer, at least `offset + VXLAN_HEADER_BYTES` bytes.
 * @param offset - Where the header starts, in bytes.
 * @param vni - Network identifier, below 2^24.
 */
export function writeVxlanHeader(target: DataView, offset: number, vni: number): void {
  target.setUint32(offset, FLAGS_VNI_VALID);
  target.setUint32(offset + 4, vni << 8);
}

/**
 * Reads the VNI of the datagram in [offset, offset + length). Reserved bits are ignored on receipt, as
 * RFC 7348 section 5 demands.
 *
 * @returns the VNI, or {@link NOT_VXLAN} if the datagram is too short or its I flag is not set
 */
export function readVxlanVni(source: DataView, offset: number, length: number): number {
  if (length < VXLAN_HEADER_BYTES) return NOT_VXLAN;
  if ((source.getUint32(offset) & FLAGS_VNI_VALID) === 0) return NOT_VXLAN;
  return source.getUint32(offset + 4) >>> 8;
}
