/**
 * The 32-bit FNV-1a hash of the UTF-16 code units of `text`, finished with murmur3's mixer so that
 * sums of hashes of similar texts stay apart. Not for adversaries.
 *
 * @param seed - Gives independent hashes of the same text.
 */
export function fnv1a(text: string, seed: number): number {
  let hash = 0x811c_9dc5 ^ seed;
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x0100_0193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
