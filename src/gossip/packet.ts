import { ByteWriter } from './bytes.ts';
import { crc32 } from './crc32.ts';
import { decodeMessage, MESSAGE_TYPE, type Message, type MessageDrop } from './messages.ts';

/** Bytes of the `hasCrc` header: type, CRC-32 of the rest. */
export const CRC_HEADER_BYTES = 5;
/** Bytes of a compound header, without its lengths. */
export const COMPOUND_HEADER_BYTES = 2;
/** Bytes of a compound header per message: its length. */
export const COMPOUND_ENTRY_BYTES = 2;
/** Messages that fit in one compound: its count is a byte. */
export const COMPOUND_MESSAGES_MAX = 255;
/** Compounds in compounds. memberlist sends one level; it bounds our recursion. */
const COMPOUND_DEPTH_MAX = 4;

/** Why (a part of) a packet was dropped. One counter per value. */
export type PacketDrop = MessageDrop | 'bad-checksum' | 'truncated-compound' | 'too-deep';

/** What a UDP payload holds: the messages in order, and a reason for each that was dropped. */
export interface DecodedPacket {
  readonly messages: readonly Message[];
  readonly drops: readonly PacketDrop[];
}

/** Splits a UDP payload into messages. Never throws; work is bounded by the packet's length. */
export function decodePacket(bytes: Uint8Array): DecodedPacket {
  const messages: Message[] = [];
  const drops: PacketDrop[] = [];
  let body = bytes;
  if (bytes[0] === MESSAGE_TYPE.hasCrc) {
    body = bytes.subarray(CRC_HEADER_BYTES);
    if (bytes.length < CRC_HEADER_BYTES || viewOf(bytes).getUint32(1) !== crc32(body)) {
      return { messages, drops: ['bad-checksum'] };
    }
  }
  decodeInto(body, 0, { messages, drops });
  return { messages, drops };
}

function decodeInto(
  bytes: Uint8Array,
  depth: number,
  into: { readonly messages: Message[]; readonly drops: PacketDrop[] },
): void {
  if (bytes[0] !== MESSAGE_TYPE.compound) {
    const message = decodeMessage(bytes);
    if (typeof message === 'string') into.drops.push(message);
    else into.messages.push(message);
    return;
  }
  if (depth === COMPOUND_DEPTH_MAX) {
    into.drops.push('too-deep');
    return;
  }
  const view = viewOf(bytes);
  const count = bytes[1] ?? 0;
  let offset = COMPOUND_HEADER_BYTES + count * COMPOUND_ENTRY_BYTES;
  let whole = count > 0 && offset <= bytes.length;
  for (let index = 0; index < count && whole; index++) {
    const length = view.getUint16(COMPOUND_HEADER_BYTES + index * COMPOUND_ENTRY_BYTES);
    whole = offset + length <= bytes.length;
    if (whole) decodeInto(bytes.subarray(offset, offset + length), depth + 1, into);
    offset += length;
  }
  if (!whole) into.drops.push('truncated-compound');
}

/**
 * Packs encoded messages into one UDP payload: bare if there is one, else a compound.
 *
 * @param messages - 1 to {@link COMPOUND_MESSAGES_MAX}.
 * @param checksum - Whether to put a CRC in front: receivers of protocol 5 and later check it.
 */
export function encodePacket(messages: readonly Uint8Array[], checksum: boolean): Uint8Array {
  const body = encodeBody(messages);
  if (!checksum) return body;
  return new ByteWriter().uint8(MESSAGE_TYPE.hasCrc).uint32(crc32(body)).bytes(body).finish();
}

function encodeBody(messages: readonly Uint8Array[]): Uint8Array {
  const [only] = messages;
  if (only !== undefined && messages.length === 1) return only;
  const writer = new ByteWriter().uint8(MESSAGE_TYPE.compound).uint8(messages.length);
  for (const message of messages) writer.uint16(message.length);
  for (const message of messages) writer.bytes(message);
  return writer.finish();
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
