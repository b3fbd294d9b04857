import { sha256 } from '../io/system.ts';
import type { VisibleEntry } from './endpoint-view.ts';

/** Digits of a digest. */
const DIGEST_DIGITS = 16;

/**
 * What two nodes compare to see whether they know the same: the sum modulo 2^64 of the first 64 bits
 * of each entry's SHA-256, so that the order of entries does not matter. An entry is its node, its
 * key, and its value as JSON text, which keeps the order of fields that its node gave them.
 *
 * @param entries - At most one for each node and key, as gossip has them.
 * @returns 16 hexadecimal digits; zeros for no entries
 */
export function endpointDigest(entries: Iterable<VisibleEntry>): string {
  const encoder = new TextEncoder();
  let sum = 0n;
  for (const { node, key, value } of entries) {
    const text = JSON.stringify([node, key, JSON.stringify(value)]);
    const hash = sha256(encoder.encode(text));
    sum += new DataView(hash.buffer, hash.byteOffset).getBigUint64(0);
  }
  return BigInt.asUintN(64, sum).toString(16).padStart(DIGEST_DIGITS, '0');
}
