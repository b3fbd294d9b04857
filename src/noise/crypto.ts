/** Size of X25519 keys and their shared secret, of AES-256 keys, and of a SHA-256 hash. */
export const KEY_BYTES = 32;
/** Size of the authentication tag of AES-GCM and XChaCha20-Poly1305. */
export const TAG_BYTES = 16;

/** An X25519 key pair (RFC 7748), both halves as 32 raw bytes. */
export interface KeyPair {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
}

/**
 * The primitives of `25519_AESGCM_SHA256`, as an argument: the fast ones are Node's, and pure code
 * sees no `node:` module. All byte strings are the caller's; nothing is kept or changed.
 */
export interface NoiseCrypto {
  /** A fresh key pair from the machine's randomness. */
  generateKeyPair(): KeyPair;
  /** The key pair of a private key. */
  keyPair(privateKey: Uint8Array): KeyPair;
  /** X25519; undefined where the result would be all zeros (RFC 7748 section 6.1). */
  dh(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined;
  sha256(data: Uint8Array): Uint8Array;
  hmacSha256(key: Uint8Array, data: Uint8Array): Uint8Array;
  /** AES-256-GCM with a 12-byte nonce; the 16-byte tag follows the ciphertext. */
  seal(key: Uint8Array, nonce: Uint8Array, ad: Uint8Array, plaintext: Uint8Array): Uint8Array;
  /** The plaintext; undefined if the tag is wrong. */
  open(
    key: Uint8Array,
    nonce: Uint8Array,
    ad: Uint8Array,
    ciphertext: Uint8Array,
  ): Uint8Array | undefined;
}

/** Whether two byte strings are equal, in a time that depends on their lengths alone. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let index = 0; index < a.length; index += 1) {
    difference |= (a[index] ?? 0) ^ (b[index] ?? 0);
  }
  return difference === 0;
}

/** `parts` one after the other. */
export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

/** The ASCII bytes of a protocol's label. */
export function labelBytes(label: string): Uint8Array {
  return Uint8Array.from(label, (character) => character.charCodeAt(0));
}

/** Lower-case hex: what keys are compared and shown by. */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
