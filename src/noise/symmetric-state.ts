import { concatBytes, KEY_BYTES, labelBytes, type NoiseCrypto } from './crypto.ts';

const EMPTY = new Uint8Array();
const ONE = Uint8Array.of(1);

/** HKDF of the Noise specification, section 4.3, with two outputs. */
function hkdf(
  crypto: NoiseCrypto,
  chainingKey: Uint8Array,
  input: Uint8Array,
): readonly [Uint8Array, Uint8Array] {
  const temporary = crypto.hmacSha256(chainingKey, input);
  const first = crypto.hmacSha256(temporary, ONE);
  return [first, crypto.hmacSha256(temporary, concatBytes(first, Uint8Array.of(2)))];
}

/** A nonce of AESGCM: 32 zero bits, then `n` as 64 bits, highest byte first (section 12.4). */
export function aesGcmNonce(n: number): Uint8Array {
  const nonce = new Uint8Array(12);
  const view = new DataView(nonce.buffer);
  view.setUint32(4, Math.floor(n / 2 ** 32));
  view.setUint32(8, n >>> 0);
  return nonce;
}

/**
 * The symmetric state of a Noise handshake (specification revision 34, section 5.2) together with the
 * cipher state inside it: chaining key, transcript hash, and the key and nonce of the moment.
 */
export class SymmetricState {
  readonly #crypto: NoiseCrypto;
  #chainingKey: Uint8Array;
  #hash: Uint8Array;
  #key: Uint8Array | undefined;
  #nonce = 0;

  /**
   * @param protocolName - At most 32 ASCII characters, as in `Noise_IK_25519_AESGCM_SHA256`.
   * @param prologue - What both ends must agree on beforehand.
   */
  constructor(crypto: NoiseCrypto, protocolName: string, prologue: Uint8Array) {
    this.#crypto = crypto;
    this.#hash = new Uint8Array(KEY_BYTES);
    this.#hash.set(labelBytes(protocolName));
    this.#chainingKey = this.#hash;
    this.mixHash(prologue);
  }

  /** The transcript hash: equal at both ends, and unlike that of any other handshake. */
  get handshakeHash(): Uint8Array {
    return this.#hash;
  }

  mixHash(data: Uint8Array): void {
    this.#hash = this.#crypto.sha256(concatBytes(this.#hash, data));
  }

  mixKey(input: Uint8Array): void {
    [this.#chainingKey, this.#key] = hkdf(this.#crypto, this.#chainingKey, input);
    this.#nonce = 0;
  }

  encryptAndHash(plaintext: Uint8Array): Uint8Array {
    if (this.#key === undefined) {
      this.mixHash(plaintext);
      return plaintext;
    }
    const nonce = aesGcmNonce(this.#nonce);
    const ciphertext = this.#crypto.seal(this.#key, nonce, this.#hash, plaintext);
    this.#nonce += 1;
    this.mixHash(ciphertext);
    return ciphertext;
  }

  /** @returns undefined, with the state unchanged, if `ciphertext` is not authentic */
  decryptAndHash(ciphertext: Uint8Array): Uint8Array | undefined {
    if (this.#key === undefined) {
      this.mixHash(ciphertext);
      return ciphertext;
    }
    const nonce = aesGcmNonce(this.#nonce);
    const plaintext = this.#crypto.open(this.#key, nonce, this.#hash, ciphertext);
    if (plaintext === undefined) return undefined;
    this.#nonce += 1;
    this.mixHash(ciphertext);
    return plaintext;
  }

  /** The initiator's and the responder's sending keys. */
  split(): readonly [Uint8Array, Uint8Array] {
    return hkdf(this.#crypto, this.#chainingKey, EMPTY);
  }

  /** An independent copy: reading a message that may be forged must not spoil the original. */
  clone(): SymmetricState {
    const copy = new SymmetricState(this.#crypto, '', EMPTY);
    copy.#chainingKey = this.#chainingKey;
    copy.#hash = this.#hash;
    copy.#key = this.#key;
    copy.#nonce = this.#nonce;
    return copy;
  }
}
