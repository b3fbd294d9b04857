/**
 * Sizes of IP packets that links of this world carry, ascending: of RFC 1191 section 7.1, and of today's
 * tunnels and clouds.
 */
const COMMON_MTUS: readonly number[] = [
  576, 1006, 1200, 1280, 1320, 1360, 1380, 1400, 1420, 1440, 1450, 1460, 1472, 1480, 1492, 1500,
  2002, 4352, 8166, 8500, 8896, 8950, 9000, 9216, 16_384, 32_000, 65_535,
];
/** A gap this small between what passes and what does not is not worth more probes. */
const GAP_BYTES = 8;

/** What is known of a path: `passes` gets through, `fails` does not (or is more than the link takes). */
export interface MtuBracket {
  readonly passes: number;
  readonly fails: number;
}

/**
 * Which size to probe next between what passes and what does not: the largest possible one first, then
 * the middle of the common sizes, then the middle (RFC 8899 section 5.3.1 leaves this to us).
 *
 * @param bracket - Outer IP packets, in bytes.
 * @param maxBytes - What the link carries.
 * @returns undefined if the search is over
 */
export function nextProbeBytes(bracket: MtuBracket, maxBytes: number): number | undefined {
  const { passes, fails } = bracket;
  if (passes >= maxBytes) return undefined;
  if (fails > maxBytes) return maxBytes;
  const common = COMMON_MTUS.filter((size) => size > passes && size < fails);
  if (common.length > 0) return common[common.length >> 1];
  return fails - passes <= GAP_BYTES ? undefined : (passes + fails) >> 1;
}
