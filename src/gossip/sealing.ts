// Sealed bytes are (memberlist security.go):
//
//   | version, 1 byte | nonce, 12 bytes | ciphertext | tag, 16 bytes |
//
// AES-GCM. Version 0, of protocol 1, pads the plaintext to whole blocks of 16 bytes as PKCS #7 does,
// with a block more if it is whole; version 1 does not pad.

/** AES-GCM, by the size of the key: 16, 24 or 32 bytes. */
export interface GossipCipher {
  /** @returns ciphertext and tag */
  seal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, data: Uint8Array): Uint8Array;
  /** @returns the plaintext; undefined if `sealed` was not made with this key, nonce and data */
  open(
    key: Uint8Array,
    nonce: Uint8Array,
    sealed: Uint8Array,
    data: Uint8Array,
  ): Uint8Array | undefined;
}

/** 0 for peers of protocol 1, 1 for all others (net.go `encryptionVersion`). */
export type SealVersion = 0 | 1;

/** Bytes of a nonce. It is random: 2^32 sealed messages per key are safe (NIST SP 800-38D, 8.3). */
export const NONCE_BYTES = 12;
const HEADER_BYTES = 1 + NONCE_BYTES;
const TAG_BYTES = 16;
const BLOCK_BYTES = 16;

/** Why sealed bytes were not opened. */
export type SealDrop = 'not-encrypted' | 'undecryptable';

/** Bytes of `plaintextBytes` when sealed. */
export function sealedBytes(version: SealVersion, plaintextBytes: number): number {
  const padding = version === 0 ? BLOCK_BYTES - (plaintextBytes % BLOCK_BYTES) : 0;
  return HEADER_BYTES + plaintextBytes + padding + TAG_BYTES;
}

/** What {@link seal} seals with. */
export interface SealOptions {
  readonly cipher: GossipCipher;
  readonly key: Uint8Array;
  /** {@link NONCE_BYTES}, never used before with this key. */
  readonly nonce: Uint8Array;
  readonly version?: SealVersion;
}

/**
 * Seals `plaintext`.
 *
 * @param data - Authenticated with it, and not part of the result.
 */
export function seal(plaintext: Uint8Array, data: Uint8Array, options: SealOptions): Uint8Array {
  const { cipher, key, nonce, version = 1 } = options;
  const sealed = cipher.seal(key, nonce, version === 0 ? padded(plaintext) : plaintext, data);
  const result = new Uint8Array(HEADER_BYTES + sealed.length);
  result[0] = version;
  result.set(nonce, 1);
  result.set(sealed, HEADER_BYTES);
  return result;
}

/** Opens what {@link seal} made with any of `keys`. 'not-encrypted': no sealed bytes begin so. */
export function open(
  sealed: Uint8Array,
  data: Uint8Array,
  options: { readonly cipher: GossipCipher; readonly keys: readonly Uint8Array[] },
): Uint8Array | SealDrop {
  const version = sealed[0];
  if (version !== 0 && version !== 1) return 'not-encrypted';
  if (sealed.length < sealedBytes(version, 0)) return 'undecryptable';
  const nonce = sealed.subarray(1, HEADER_BYTES);
  for (const key of options.keys) {
    const plaintext = options.cipher.open(key, nonce, sealed.subarray(HEADER_BYTES), data);
    if (plaintext === undefined) continue;
    return version === 0 ? (unpadded(plaintext) ?? 'undecryptable') : plaintext;
  }
  return 'undecryptable';
}

function padded(plaintext: Uint8Array): Uint8Array {
  const padding = BLOCK_BYTES - (plaintext.length % BLOCK_BYTES);
  const result = new Uint8Array(plaintext.length + padding).fill(padding);
  result.set(plaintext);
  return result;
}

/** @returns undefined if this is not padded: memberlist would crash, or take it for shorter */
function unpadded(bytes: Uint8Array): Uint8Array | undefined {
  const padding = bytes.at(-1) ?? 0;
  const sane = padding >= 1 && padding <= BLOCK_BYTES && padding <= bytes.length;
  return sane ? bytes.subarray(0, bytes.length - padding) : undefined;
}
