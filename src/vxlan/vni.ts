declare const vniBrand: unique symbol;

/** Highest VXLAN network identifier: 24 bits (RFC 7348 section 4). */
export const VNI_MAX = 0xff_ffff;

/** A VXLAN network identifier in `[1, VNI_MAX]`; 0 is our "none". Only {@link toVni} makes one. */
export type Vni = number & { readonly [vniBrand]: true };

/** @throws {RangeError} if `value` is not an integer in `[1, VNI_MAX]` */
export function toVni(value: number): Vni {
  if (!Number.isInteger(value) || value < 1 || value > VNI_MAX) {
    throw new RangeError(`Cannot use ${value} as a VNI: expected an integer in [1, ${VNI_MAX}]`);
  }
  return value as Vni;
}
