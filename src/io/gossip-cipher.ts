import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto';
import type { GossipCipher } from '../gossip/sealing.ts';

const TAG_BYTES = 16;

type GcmName = 'aes-128-gcm' | 'aes-192-gcm' | 'aes-256-gcm';

/** AES-GCM for gossip, by Node's OpenSSL. Keys are prepared once, for as long as they live. */
export class NodeGossipCipher implements GossipCipher {
  /** By the array that a {@link Keyring} holds: a key is the same one while it is installed. */
  readonly #keys = new WeakMap<Uint8Array, { readonly name: GcmName; readonly key: KeyObject }>();

  seal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, data: Uint8Array): Uint8Array {
    const { name, key: prepared } = this.#prepared(key);
    const cipher = createCipheriv(name, prepared, nonce);
    if (data.length > 0) cipher.setAAD(data);
    const sealed = new Uint8Array(plaintext.length + TAG_BYTES);
    sealed.set(cipher.update(plaintext));
    cipher.final();
    sealed.set(cipher.getAuthTag(), plaintext.length);
    return sealed;
  }

  open(
    key: Uint8Array,
    nonce: Uint8Array,
    sealed: Uint8Array,
    data: Uint8Array,
  ): Uint8Array | undefined {
    const end = sealed.length - TAG_BYTES;
    if (end < 0) return undefined;
    const { name, key: prepared } = this.#prepared(key);
    const cipher = createDecipheriv(name, prepared, nonce, { authTagLength: TAG_BYTES });
    if (data.length > 0) cipher.setAAD(data);
    cipher.setAuthTag(sealed.subarray(end));
    const plaintext = cipher.update(sealed.subarray(0, end));
    try {
      cipher.final();
    } catch {
      return undefined; // the tag does not match
    }
    return new Uint8Array(plaintext.buffer, plaintext.byteOffset, plaintext.length);
  }

  #prepared(key: Uint8Array): { readonly name: GcmName; readonly key: KeyObject } {
    const known = this.#keys.get(key);
    if (known !== undefined) return known;
    const name =
      key.length === 16 ? 'aes-128-gcm' : key.length === 24 ? 'aes-192-gcm' : 'aes-256-gcm';
    const prepared = { name, key: createSecretKey(key) } as const;
    this.#keys.set(key, prepared);
    return prepared;
  }
}
