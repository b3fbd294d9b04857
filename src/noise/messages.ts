import { TAG_BYTES } from './crypto.ts';
import { INITIATION_OVERHEAD_BYTES, RESPONSE_OVERHEAD_BYTES } from './handshake.ts';
import { TAI64N_BYTES } from './tai64n.ts';

// WireGuard's message shapes (whitepaper section 5.4): type u8, 3 reserved bytes, indexes as
// little-endian u32. The MACs are truncated HMAC-SHA256, see cookie.ts.
//
//   1 initiation  | sender | Noise message 1 (payload: TAI64N) | mac1 | mac2 |          148 bytes
//   2 response    | sender | receiver | Noise message 2 | mac1 | mac2 |                  92 bytes
//   3 cookie      | receiver | nonce 24 | encrypted cookie 32 |                          64 bytes
//   4 data        | receiver | counter u64 big-endian | ciphertext | tag |        32 bytes and more

/** First byte of each message; the data plane tells messages from VXLAN, which begins with 8, by it. */
export const MESSAGE_INITIATION = 1;
export const MESSAGE_RESPONSE = 2;
export const MESSAGE_COOKIE_REPLY = 3;
export const MESSAGE_DATA = 4;

/** Size of mac1, of mac2, and of a cookie. */
export const MAC_BYTES = 16;
/** Size of the nonce of a cookie reply. */
export const COOKIE_NONCE_BYTES = 24;

const SENDER = 4;
const INITIATION_NOISE = 8;
const INITIATION_NOISE_BYTES = INITIATION_OVERHEAD_BYTES + TAI64N_BYTES;
/** Size of an initiation. */
export const INITIATION_BYTES: number = INITIATION_NOISE + INITIATION_NOISE_BYTES + 2 * MAC_BYTES;

const RESPONSE_RECEIVER = 8;
const RESPONSE_NOISE = 12;
/** Size of a response. */
export const RESPONSE_BYTES: number = RESPONSE_NOISE + RESPONSE_OVERHEAD_BYTES + 2 * MAC_BYTES;

const COOKIE_NONCE = 8;
const COOKIE_SEALED = COOKIE_NONCE + COOKIE_NONCE_BYTES;
/** Size of a cookie reply. */
export const COOKIE_REPLY_BYTES: number = COOKIE_SEALED + MAC_BYTES + TAG_BYTES;

/** Size of a data message's header, counter included. */
export const DATA_HEADER_BYTES = 16;
/** Where a data message has its counter. */
export const DATA_COUNTER_OFFSET = 8;
/** What a data message is longer than what it carries. */
export const DATA_OVERHEAD_BYTES: number = DATA_HEADER_BYTES + TAG_BYTES;

/** A handshake message, taken apart. Byte strings are views into it. */
export type HandshakeMessage =
  | {
      readonly type: typeof MESSAGE_INITIATION;
      readonly sender: number;
      readonly noise: Uint8Array;
    }
  | {
      readonly type: typeof MESSAGE_RESPONSE;
      readonly sender: number;
      readonly receiver: number;
      readonly noise: Uint8Array;
    }
  | {
      readonly type: typeof MESSAGE_COOKIE_REPLY;
      readonly receiver: number;
      readonly nonce: Uint8Array;
      readonly sealedCookie: Uint8Array;
    };

/** @returns undefined unless `bytes` has the type and exactly the size of a handshake message */
export function decodeHandshake(bytes: Uint8Array): HandshakeMessage | undefined {
  const [type] = bytes;
  if (type === MESSAGE_INITIATION && bytes.length === INITIATION_BYTES) {
    const noise = bytes.subarray(INITIATION_NOISE, INITIATION_NOISE + INITIATION_NOISE_BYTES);
    return { type, sender: readIndex(bytes, SENDER), noise };
  }
  if (type === MESSAGE_RESPONSE && bytes.length === RESPONSE_BYTES) {
    const noise = bytes.subarray(RESPONSE_NOISE, RESPONSE_NOISE + RESPONSE_OVERHEAD_BYTES);
    const receiver = readIndex(bytes, RESPONSE_RECEIVER);
    return { type, sender: readIndex(bytes, SENDER), receiver, noise };
  }
  if (type === MESSAGE_COOKIE_REPLY && bytes.length === COOKIE_REPLY_BYTES) {
    const nonce = bytes.subarray(COOKIE_NONCE, COOKIE_SEALED);
    return {
      type,
      receiver: readIndex(bytes, SENDER),
      nonce,
      sealedCookie: bytes.subarray(COOKIE_SEALED),
    };
  }
  return undefined;
}

/** An initiation without its MACs. */
export function encodeInitiation(sender: number, noise: Uint8Array): Uint8Array {
  const bytes = startMessage(MESSAGE_INITIATION, INITIATION_BYTES, sender);
  bytes.set(noise, INITIATION_NOISE);
  return bytes;
}

/** A response without its MACs. */
export function encodeResponse(sender: number, receiver: number, noise: Uint8Array): Uint8Array {
  const bytes = startMessage(MESSAGE_RESPONSE, RESPONSE_BYTES, sender);
  writeIndex(bytes, RESPONSE_RECEIVER, receiver);
  bytes.set(noise, RESPONSE_NOISE);
  return bytes;
}

/** A cookie reply to the sender of the message with sender index `receiver`. */
export function encodeCookieReply(
  receiver: number,
  nonce: Uint8Array,
  sealedCookie: Uint8Array,
): Uint8Array {
  const bytes = startMessage(MESSAGE_COOKIE_REPLY, COOKIE_REPLY_BYTES, receiver);
  bytes.set(nonce, COOKIE_NONCE);
  bytes.set(sealedCookie, COOKIE_SEALED);
  return bytes;
}

/** The first eight bytes of every data message to the session that its receiver calls `receiver`. */
export function dataHeader(receiver: number): Uint8Array {
  return startMessage(MESSAGE_DATA, DATA_COUNTER_OFFSET, receiver);
}

function startMessage(type: number, length: number, index: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes[0] = type;
  writeIndex(bytes, SENDER, index);
  return bytes;
}

function readIndex(bytes: Uint8Array, offset: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(offset, true);
}

function writeIndex(bytes: Uint8Array, offset: number, index: number): void {
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(offset, index, true);
}
