import { gcm } from '@noble/ciphers/aes.js';
import type { Arena } from '../linux/arena.ts';
import {
  type AeadProvider,
  RECORD_AD_BYTES,
  RECORD_COUNTER_BYTES,
  RECORD_HEADER_BYTES,
  RECORD_TAG_BYTES,
  type RecordOpener,
  type RecordSealer,
} from './aead.ts';

const NONCE_BYTES = 12;
const NONCE_COUNTER = NONCE_BYTES - RECORD_COUNTER_BYTES;
const AD_LENGTH = 11;

/**
 * AES-256-GCM in plain JavaScript, for where no OpenSSL can be called. It allocates for each record and
 * takes a hundred times longer: what is sealed is the same.
 */
export class NobleAead implements AeadProvider {
  readonly name = '@noble/ciphers';
  readonly #arena: Arena;

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  sealer(key: Uint8Array, header: Uint8Array, lane: number): RecordSealer {
    const { bytes, view } = this.#arena;
    const secret = key.slice();
    const nonce = new Uint8Array(NONCE_BYTES);
    const counter = new DataView(nonce.buffer, NONCE_COUNTER);
    let next = BigInt(lane) << 56n;
    return {
      seal: (offset, length) => {
        const start = offset + RECORD_COUNTER_BYTES;
        counter.setBigUint64(0, next);
        view.setBigUint64(offset, next);
        next += 1n;
        const cipher = gcm(secret, nonce, associatedData(header, length));
        bytes.set(cipher.encrypt(bytes.slice(start, start + length)), start);
      },
      close: () => secret.fill(0),
    };
  }

  opener(key: Uint8Array, header: Uint8Array): RecordOpener {
    const { bytes } = this.#arena;
    const secret = key.slice();
    const nonce = new Uint8Array(NONCE_BYTES);
    return {
      open: (offset, length) => {
        const start = offset + RECORD_COUNTER_BYTES;
        nonce.set(bytes.subarray(offset, start), NONCE_COUNTER);
        const cipher = gcm(secret, nonce, associatedData(header, length));
        try {
          bytes.set(cipher.decrypt(bytes.slice(start, start + length + RECORD_TAG_BYTES)), start);
          return true;
        } catch {
          return false; // The library's only word for a wrong tag.
        }
      },
      close: () => secret.fill(0),
    };
  }
}

function associatedData(header: Uint8Array, length: number): Uint8Array {
  const ad = new Uint8Array(RECORD_AD_BYTES);
  ad.set(header.subarray(0, RECORD_HEADER_BYTES));
  new DataView(ad.buffer).setUint16(AD_LENGTH, length);
  return ad;
}
