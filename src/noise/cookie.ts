import { xchacha20poly1305 } from '@noble/ciphers/chacha.js';
import type { Clock, Random } from '../core/capabilities.ts';
import { COOKIE_MS } from './constants.ts';
import { concatBytes, equalBytes, KEY_BYTES, labelBytes, type NoiseCrypto } from './crypto.ts';
import { COOKIE_NONCE_BYTES, encodeCookieReply, MAC_BYTES } from './messages.ts';

// The denial-of-service defence of WireGuard, whitepaper section 5.4.7. mac1 shows that the sender knows
// whom it talks to; mac2, which a node asks for only under load, that it receives at its address. Where
// WireGuard has keyed BLAKE2s, this has HMAC-SHA256 truncated to 16 bytes: one hash serves the whole
// suite. A cookie reply is sealed by XChaCha20-Poly1305 as there: its nonces are random under a lasting
// key, and 24 bytes can be drawn for ever where the 12 of AES-GCM would collide in time.

const LABEL_MAC1 = labelBytes('mac1----');
const LABEL_COOKIE = labelBytes('cookie--');

function truncatedMac(crypto: NoiseCrypto, key: Uint8Array, data: Uint8Array): Uint8Array {
  return crypto.hmacSha256(key, data).subarray(0, MAC_BYTES);
}

function mac1KeyOf(crypto: NoiseCrypto, publicKey: Uint8Array): Uint8Array {
  return crypto.sha256(concatBytes(LABEL_MAC1, publicKey));
}

function cookieKeyOf(crypto: NoiseCrypto, publicKey: Uint8Array): Uint8Array {
  return crypto.sha256(concatBytes(LABEL_COOKIE, publicKey));
}

/** What cookies depend on from outside. */
export interface CookieDeps {
  readonly crypto: NoiseCrypto;
  readonly clock: Clock;
  readonly random: Random;
}

/** The receiver's side: checks MACs and hands cookies out. It keeps no state per sender. */
export class CookieChecker {
  readonly #deps: CookieDeps;
  readonly #mac1Key: Uint8Array;
  readonly #cookieKey: Uint8Array;
  #secret: Uint8Array = new Uint8Array(KEY_BYTES);
  #secretUntilMs = Number.NEGATIVE_INFINITY;

  /** @param publicKey - This node's own static key. */
  constructor(deps: CookieDeps, publicKey: Uint8Array) {
    this.#deps = deps;
    this.#mac1Key = mac1KeyOf(deps.crypto, publicKey);
    this.#cookieKey = cookieKeyOf(deps.crypto, publicKey);
  }

  /** Whether the initiation or response `message` is meant for this node. */
  hasMac1(message: Uint8Array): boolean {
    const body = message.subarray(0, -2 * MAC_BYTES);
    const mac1 = message.subarray(-2 * MAC_BYTES, -MAC_BYTES);
    return equalBytes(truncatedMac(this.#deps.crypto, this.#mac1Key, body), mac1);
  }

  /** Whether `message` proves by a cookie that its sender receives at `source`. */
  hasMac2(message: Uint8Array, source: Uint8Array): boolean {
    if (this.#deps.clock.nowMs() >= this.#secretUntilMs) return false;
    const body = message.subarray(0, -MAC_BYTES);
    const expected = truncatedMac(this.#deps.crypto, this.#cookieOf(source), body);
    return equalBytes(expected, message.subarray(-MAC_BYTES));
  }

  /**
   * The answer to an initiation or response that has no valid mac2.
   *
   * @param message - That message; its mac1 is authenticated, so that only its sender can use the reply.
   * @param sender - Its sender index.
   * @param source - The address and port that it came from, in any form.
   */
  reply(message: Uint8Array, sender: number, source: Uint8Array): Uint8Array {
    const { clock, random } = this.#deps;
    const nowMs = clock.nowMs();
    if (nowMs >= this.#secretUntilMs) {
      this.#secret = random.bytes(KEY_BYTES);
      this.#secretUntilMs = nowMs + COOKIE_MS;
    }
    const nonce = random.bytes(COOKIE_NONCE_BYTES);
    const mac1 = message.subarray(-2 * MAC_BYTES, -MAC_BYTES);
    const cipher = xchacha20poly1305(this.#cookieKey, nonce, mac1);
    return encodeCookieReply(sender, nonce, cipher.encrypt(this.#cookieOf(source)));
  }

  #cookieOf(source: Uint8Array): Uint8Array {
    return truncatedMac(this.#deps.crypto, this.#secret, source);
  }
}

/** The sender's side for one peer: adds MACs, and keeps the last cookie that the peer gave. */
export class CookieJar {
  readonly #deps: CookieDeps;
  readonly #mac1Key: Uint8Array;
  readonly #cookieKey: Uint8Array;
  #lastMac1: Uint8Array | undefined;
  #cookie: Uint8Array | undefined;
  #cookieUntilMs = 0;

  /** @param publicKey - The peer's static key. */
  constructor(deps: CookieDeps, publicKey: Uint8Array) {
    this.#deps = deps;
    this.#mac1Key = mac1KeyOf(deps.crypto, publicKey);
    this.#cookieKey = cookieKeyOf(deps.crypto, publicKey);
  }

  /** Fills in the MACs of `message`, in place: mac2 stays zero without a fresh cookie. */
  addMacs(message: Uint8Array): void {
    const { crypto, clock } = this.#deps;
    const mac1 = truncatedMac(crypto, this.#mac1Key, message.subarray(0, -2 * MAC_BYTES));
    message.set(mac1, message.length - 2 * MAC_BYTES);
    this.#lastMac1 = mac1;
    if (this.#cookie === undefined || clock.nowMs() >= this.#cookieUntilMs) return;
    const mac2 = truncatedMac(crypto, this.#cookie, message.subarray(0, -MAC_BYTES));
    message.set(mac2, message.length - MAC_BYTES);
  }

  /** Keeps the cookie of a reply; false if it does not answer the last message. */
  accept(nonce: Uint8Array, sealedCookie: Uint8Array): boolean {
    if (this.#lastMac1 === undefined) return false;
    try {
      const cipher = xchacha20poly1305(this.#cookieKey, nonce, this.#lastMac1);
      this.#cookie = cipher.decrypt(sealedCookie);
    } catch {
      return false; // The library's only word for a wrong tag.
    }
    this.#cookieUntilMs = this.#deps.clock.nowMs() + COOKIE_MS;
    return true;
  }
}
