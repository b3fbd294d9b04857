import { bytesEqual } from './bytes.ts';

/** Sizes of a key in bytes: AES-128, AES-192, AES-256. */
export const KEY_SIZES: readonly number[] = [16, 24, 32];
/** Keys of one ring: what no key opens costs a try with each. Our own bound; memberlist has none. */
export const KEYS_MAX = 32;

/** Why a key cannot be used. Sizes are in bytes; no key is ever told. */
export type KeyringErrorDetail =
  | { readonly code: 'KEY_SIZE'; readonly bytes: number }
  | { readonly code: 'KEY_UNKNOWN' }
  | { readonly code: 'KEY_IS_PRIMARY' }
  | { readonly code: 'KEYRING_FULL'; readonly keysMax: number }
  | { readonly code: 'NO_CIPHER' };

/** A refusal the caller is expected to handle. Match on `detail.code`, never on `message`. */
export class KeyringError extends Error {
  override readonly name = 'KeyringError';
  readonly detail: KeyringErrorDetail;

  constructor(message: string, detail: KeyringErrorDetail) {
    super(message);
    this.detail = detail;
  }
}

/**
 * The keys of gossip encryption (memberlist keyring.go). The first one is primary: it alone seals.
 * All of them open. To change a key without a loss it is installed on all nodes, then used on all,
 * then the old one is removed. BOUNDED by {@link KEYS_MAX}.
 */
export class Keyring {
  #keys: readonly Uint8Array[] = [];

  /**
   * @param keys - The primary one first; a key that is there twice counts once.
   * @throws {KeyringError} if a key has a wrong size, or there are too many
   */
  constructor(keys: readonly Uint8Array[] = []) {
    for (const key of keys) this.install(key);
  }

  /** All keys, the primary one first. The arrays are the same ones as long as a key is installed. */
  get keys(): readonly Uint8Array[] {
    return this.#keys;
  }

  /** The key that seals; undefined if the ring is empty. */
  get primary(): Uint8Array | undefined {
    return this.#keys[0];
  }

  /**
   * Adds a copy of `key`, which then opens; the first key of an empty ring seals, too. One that is
   * there already stays where it is.
   *
   * @throws {KeyringError} if its size is wrong, or the ring is full
   */
  install(key: Uint8Array): void {
    if (!KEY_SIZES.includes(key.length)) {
      throw new KeyringError(
        `Cannot use a gossip key of ${key.length} bytes: expected 16, 24 or 32`,
        { code: 'KEY_SIZE', bytes: key.length },
      );
    }
    if (this.#find(key) !== undefined) return;
    if (this.#keys.length >= KEYS_MAX) {
      throw new KeyringError(
        `Cannot install another gossip key: there are ${KEYS_MAX}, expected at most as many`,
        { code: 'KEYRING_FULL', keysMax: KEYS_MAX },
      );
    }
    this.#keys = [...this.#keys, key.slice()];
  }

  /** Makes an installed key the primary one. @throws {KeyringError} if it is not installed */
  use(key: Uint8Array): void {
    const known = this.#find(key);
    if (known === undefined) {
      throw new KeyringError(
        'Cannot seal with a gossip key that is not installed: expected one of the keyring',
        { code: 'KEY_UNKNOWN' },
      );
    }
    this.#keys = [known, ...this.#keys.filter((other) => other !== known)];
  }

  /**
   * Removes a key; one that is not there is as good as removed.
   *
   * @throws {KeyringError} if it is the primary one
   */
  remove(key: Uint8Array): void {
    const known = this.#find(key);
    if (known !== undefined && known === this.primary) {
      throw new KeyringError(
        'Cannot remove the primary gossip key: expected one that does not seal',
        { code: 'KEY_IS_PRIMARY' },
      );
    }
    this.#keys = this.#keys.filter((other) => other !== known);
  }

  #find(key: Uint8Array): Uint8Array | undefined {
    return this.#keys.find((other) => bytesEqual(other, key));
  }
}
