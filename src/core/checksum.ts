import { CHECKSUM_WASM_BASE64 } from './checksum-wasm.ts';

/** Sums over a WebAssembly memory; made by {@link loadChecksumKernel}. */
export interface ChecksumKernel {
  /**
   * The one's complement sum (RFC 1071) of the little-endian words in [start, start + length), folded
   * to 16 bits. Complement it and store it little-endian to get a checksum field. Allocates nothing.
   *
   * @param start - Offset into the memory, in bytes; any alignment.
   * @param length - Bytes to sum; odd lengths are padded with a zero byte.
   */
  sum16(start: number, length: number): number;
}

/** Compiles the SIMD kernel over `memory`. Takes about a millisecond. */
export function loadChecksumKernel(memory: WebAssembly.Memory): ChecksumKernel {
  const code = Uint8Array.from(atob(CHECKSUM_WASM_BASE64), (char) => char.charCodeAt(0));
  const instance = new WebAssembly.Instance(new WebAssembly.Module(code), { env: { memory } });
  return { sum16: instance.exports.sum16 as ChecksumKernel['sum16'] };
}

/** Folds a sum of 16-bit words (below 2^32) into 16 bits with end-around carry. */
export function fold16(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/** Exchanges the two bytes of a 16-bit value. */
export function swap16(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8);
}

/**
 * The big-endian one's complement sum of a few bytes, word by word: for headers outside the arena and
 * as the oracle of the kernel.
 *
 * @param view - Any buffer.
 * @param start - First byte.
 * @param length - Bytes to sum; an odd last byte is the high byte of a word.
 */
export function sum16BigEndian(view: DataView, start: number, length: number): number {
  let sum = 0;
  const even = length & ~1;
  for (let at = 0; at < even; at += 2) sum += view.getUint16(start + at);
  if (length & 1) sum += view.getUint8(start + length - 1) << 8;
  return fold16(sum);
}

/**
 * What changing a 16-bit word adds to a one's complement sum (RFC 1624, equation 3: ~m + m'). Some
 * thirty thousand may be added up before {@link fold16}.
 */
export function delta16(before: number, after: number): number {
  return before === after ? 0 : (~before & 0xffff) + after;
}

/** The same for a 32-bit value, signed or not. */
export function delta32(before: number, after: number): number {
  return delta16(before >>> 16, after >>> 16) + delta16(before & 0xffff, after & 0xffff);
}

/** An Internet checksum, big-endian value, after the words that it covers changed by `delta`. */
export function applyDelta(checksum: number, delta: number): number {
  return delta === 0 ? checksum : ~fold16((~checksum & 0xffff) + delta) & 0xffff;
}
