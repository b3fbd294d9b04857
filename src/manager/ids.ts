import type { Random } from '../core/capabilities.ts';

/** Base36 digits of an id: 128 bits fit into 25 (swarmkit `identity/randomid.go`). */
export const ID_LENGTH = 25;
const ID_BYTES = 16;

/** `bytes` as one big-endian number. */
function numberOf(bytes: Uint8Array): bigint {
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  return value;
}

/**
 * `bytes` as one big-endian number in base36, padded with zeros on the left.
 *
 * @param length - Digits; the caller makes sure that the number fits.
 */
export function toBase36(bytes: Uint8Array, length: number): string {
  return numberOf(bytes).toString(36).padStart(length, '0');
}

/** A new object id: 25 base36 digits, 128 bits of chance. */
export function newId(random: Random): string {
  return toBase36(random.bytes(ID_BYTES), ID_LENGTH);
}

/** A new secret of 128 bits, as 25 base36 digits. */
export function newSecret(random: Random): string {
  return toBase36(random.bytes(ID_BYTES), ID_LENGTH);
}

/**
 * Compares two strings in a time that depends only on their lengths, so that a secret cannot be
 * guessed digit by digit.
 */
export function equalInConstantTime(a: string, b: string): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let at = 0; at < a.length; at += 1) difference |= a.charCodeAt(at) ^ b.charCodeAt(at);
  return difference === 0;
}

/** `bytes` in lower-case hexadecimal. */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
