import type { AddressWords } from '../core/address-words.ts';

/**
 * HalfSipHash-1-3 of four 32-bit words, under a secret key: where a flow lies in the table. Clients choose
 * their ports, so a hash without a key would let one of them fill a set of its choice.
 *
 * As the reference implementation (github.com/veorq/SipHash) with a 16-byte message of little-endian
 * words. One loop with one copy of the round: closures cost four times as much.
 *
 * @returns a signed 32-bit integer
 */
export function keyedFlowHash(
  key: FlowHashKey,
  word0: number,
  word1: number,
  word2: number,
  word3: number,
): number {
  const { low, high } = key;
  let v0 = low;
  let v1 = high;
  let v2 = 0x6c796765 ^ low;
  let v3 = 0x74656462 ^ high;
  // Four message words, one with the length, and three rounds of finalisation.
  for (let round = 0; round < 8; round++) {
    let message = 0;
    if (round === 0) message = word0;
    else if (round === 1) message = word1;
    else if (round === 2) message = word2;
    else if (round === 3) message = word3;
    else if (round === 4) message = 16 << 24;
    else if (round === 5) v2 ^= 0xff;
    v3 ^= message;
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
    v0 ^= message;
  }
  return v1 ^ v3;
}

/** The key of {@link keyedFlowHash}: two signed 32-bit integers. */
export interface FlowHashKey {
  readonly low: number;
  readonly high: number;
}

/** {@link keyedFlowHash} of an address's four words: stands for an IPv6 address where there is one word of room. */
export function keyedAddressHash(key: FlowHashKey, address: AddressWords): number {
  return keyedFlowHash(key, address.w0, address.w1, address.w2, address.w3);
}

/**
 * MurmurHash3 (x86, 32 bits, seed 0) of who talks to whom: which slot of a Maglev table a client gets.
 * It has no key because every node, and the same node after a restart, must choose the same backend
 * for a connection that it meets in mid-stream. Hashed are one word per IPv4 address, four per IPv6 one.
 *
 * @param client - The client's address.
 * @param vip - The address that it talks to, of the same family.
 * @param portAndProtocol - The client's port in the high 16 bits, the IP protocol in the low ones.
 * @returns a signed 32-bit integer
 */
export function pickHash(client: AddressWords, vip: AddressWords, portAndProtocol: number): number {
  const isIpv4 = client.isIpv4;
  const afterClient = isIpv4 ? mixWord(0, client.w3) : mixAddress(0, client);
  const afterVip = isIpv4 ? mixWord(afterClient, vip.w3) : mixAddress(afterClient, vip);
  return avalanche(mixWord(afterVip, portAndProtocol) ^ (isIpv4 ? 12 : 36)); // bytes hashed
}

/**
 * A 32-bit hash of a string: FNV-1a over its UTF-16 code units, then MurmurHash3's finaliser, since
 * FNV alone leaves the high bits of short strings alike.
 *
 * @param seed - Gives an independent function per value.
 * @returns an unsigned 32-bit integer
 */
export function hashString(text: string, seed: number): number {
  let hash = 0x811c9dc5 ^ seed;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    hash = Math.imul(hash ^ (unit & 0xff), 0x01000193);
    hash = Math.imul(hash ^ (unit >>> 8), 0x01000193);
  }
  return avalanche(hash) >>> 0;
}

function mixWord(hash: number, word: number): number {
  let k = Math.imul(word, 0xcc9e2d51);
  k = Math.imul((k << 15) | (k >>> 17), 0x1b873593);
  const mixed = hash ^ k;
  return (Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64) | 0;
}

function mixAddress(hash: number, { w0, w1, w2, w3 }: AddressWords): number {
  return mixWord(mixWord(mixWord(mixWord(hash, w0), w1), w2), w3);
}

function avalanche(value: number): number {
  let hash = value;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
