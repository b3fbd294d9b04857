// AssemblyScript, not TypeScript: `npm run build:wasm` compiles it into checksum-wasm.ts.

/**
 * The one's complement sum (RFC 1071) of the little-endian 16-bit words in [start, start + length),
 * folded to 16 bits. An odd last byte counts as a word with a zero high byte.
 */
export function sum16(start: usize, length: u32): u32 {
  let at = start;
  const end = start + length;
  let low = i64x2.splat(0);
  let high = i64x2.splat(0);
  // 32-bit lanes widen into 64-bit sums, so no carry is ever lost.
  while (at + 32 <= end) {
    const first = v128.load(at);
    const second = v128.load(at, 16);
    low = i64x2.add(low, i64x2.extend_low_i32x4_u(first));
    high = i64x2.add(high, i64x2.extend_high_i32x4_u(first));
    low = i64x2.add(low, i64x2.extend_low_i32x4_u(second));
    high = i64x2.add(high, i64x2.extend_high_i32x4_u(second));
    at += 32;
  }
  const lanes = i64x2.add(low, high);
  let sum = <u64>i64x2.extract_lane(lanes, 0) + <u64>i64x2.extract_lane(lanes, 1);
  while (at + 4 <= end) {
    sum += <u64>load<u32>(at);
    at += 4;
  }
  if (at + 2 <= end) {
    sum += <u64>load<u16>(at);
    at += 2;
  }
  if (at < end) sum += <u64>load<u8>(at);
  sum = (sum & 0xffff_ffff) + (sum >> 32);
  sum = (sum & 0xffff_ffff) + (sum >> 32);
  let folded = <u32>sum;
  folded = (folded & 0xffff) + (folded >> 16);
  return (folded & 0xffff) + (folded >> 16);
}
