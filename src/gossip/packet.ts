import { ByteWriter } from './bytes.ts';
import { type CompressionDrop, decompress } from './compression.ts';
import { crc32 } from './crc32.ts';
import type { LabelDrop } from './label.ts';
import { decodeMessage, MESSAGE_TYPE, type Message, type MessageDrop } from './messages.ts';
import type { SealDrop } from './sealing.ts';

/** Bytes of the `hasCrc` header: type, CRC-32 of the rest. */
export const CRC_HEADER_BYTES = 5;
/** Bytes of a compound header, without its lengths. */
export const COMPOUND_HEADER_BYTES = 2;
/** Bytes of a compound header per message: its length. */
export const COMPOUND_ENTRY_BYTES = 2;
/** Messages that fit in one compound: its count is a byte. */
export const COMPOUND_MESSAGES_MAX = 255;
/**
 * What one packet may be decompressed to, all its parts together. Our own bound, as large as a
 * datagram can be; memberlist has 40 MiB for each part.
 */
export const PACKET_DECOMPRESSED_BYTES_MAX = 65_536;
/** Containers in containers. memberlist sends two levels; it bounds our recursion. */
const DEPTH_MAX = 4;

/** Why (a part of) a packet was dropped. One counter per value. */
export type PacketDrop =
  | MessageDrop
  | CompressionDrop
  | LabelDrop
  | SealDrop
  | 'bad-checksum'
  | 'truncated-compound'
  | 'too-deep';

/** What a UDP payload holds: the messages in order, and a reason for each that was dropped. */
export interface DecodedPacket {
  readonly messages: readonly Message[];
  readonly drops: readonly PacketDrop[];
}

/**
 * Splits a UDP payload, without label and encryption, into messages. Never throws; work is bounded by
 * the packet's length and {@link PACKET_DECOMPRESSED_BYTES_MAX}.
 *
 * @param defaultPort - See {@link decodeMessage}.
 */
export function decodePacket(bytes: Uint8Array, defaultPort = 0): DecodedPacket {
  let body = bytes;
  if (bytes[0] === MESSAGE_TYPE.hasCrc) {
    body = bytes.subarray(CRC_HEADER_BYTES);
    if (bytes.length < CRC_HEADER_BYTES || viewOf(bytes).getUint32(1) !== crc32(body)) {
      return { messages: [], drops: ['bad-checksum'] };
    }
  }
  const decoder = new PacketDecoder(defaultPort);
  decoder.decode(body, 0);
  return decoder;
}

class PacketDecoder implements DecodedPacket {
  readonly messages: Message[] = [];
  readonly drops: PacketDrop[] = [];
  readonly #defaultPort: number;
  #decompressedLeft = PACKET_DECOMPRESSED_BYTES_MAX;

  constructor(defaultPort: number) {
    this.#defaultPort = defaultPort;
  }

  decode(bytes: Uint8Array, depth: number): void {
    const type = bytes[0];
    if (type !== MESSAGE_TYPE.compound && type !== MESSAGE_TYPE.compress) {
      const message = decodeMessage(bytes, this.#defaultPort);
      if (typeof message === 'string') this.drops.push(message);
      else this.messages.push(message);
    } else if (depth === DEPTH_MAX) this.drops.push('too-deep');
    else if (type === MESSAGE_TYPE.compound) this.#compound(bytes, depth);
    else this.#compressed(bytes, depth);
  }

  #compressed(bytes: Uint8Array, depth: number): void {
    const limits = { inMax: Number.POSITIVE_INFINITY, outMax: this.#decompressedLeft };
    const inner = decompress(bytes, limits);
    if (typeof inner === 'string') {
      // A part that was too much says so, and takes the rest of the room with it.
      if (inner === 'too-large') this.#decompressedLeft = 0;
      this.drops.push(inner === 'truncated' ? 'bad-compression' : inner);
      return;
    }
    this.#decompressedLeft -= inner.length;
    this.decode(inner, depth + 1);
  }

  #compound(bytes: Uint8Array, depth: number): void {
    const view = viewOf(bytes);
    const count = bytes[1] ?? 0;
    let offset = COMPOUND_HEADER_BYTES + count * COMPOUND_ENTRY_BYTES;
    let whole = count > 0 && offset <= bytes.length;
    for (let index = 0; index < count && whole; index++) {
      const length = view.getUint16(COMPOUND_HEADER_BYTES + index * COMPOUND_ENTRY_BYTES);
      whole = offset + length <= bytes.length;
      if (whole) this.decode(bytes.subarray(offset, offset + length), depth + 1);
      offset += length;
    }
    if (!whole) this.drops.push('truncated-compound');
  }
}

/**
 * Packs encoded messages into one: bare if there is one, else a compound.
 *
 * @param messages - 1 to {@link COMPOUND_MESSAGES_MAX}.
 */
export function encodeCompound(messages: readonly Uint8Array[]): Uint8Array {
  const [only] = messages;
  if (only !== undefined && messages.length === 1) return only;
  const writer = new ByteWriter().uint8(MESSAGE_TYPE.compound).uint8(messages.length);
  for (const message of messages) writer.uint16(message.length);
  for (const message of messages) writer.bytes(message);
  return writer.finish();
}

/** Puts a CRC in front: receivers of protocol 5 and later check it. */
export function withChecksum(body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(CRC_HEADER_BYTES + body.length);
  bytes[0] = MESSAGE_TYPE.hasCrc;
  viewOf(bytes).setUint32(1, crc32(body));
  bytes.set(body, CRC_HEADER_BYTES);
  return bytes;
}

/**
 * Packs encoded messages into one UDP payload that is neither compressed nor encrypted.
 *
 * @param messages - 1 to {@link COMPOUND_MESSAGES_MAX}.
 * @param checksum - Whether to put a CRC in front.
 */
export function encodePacket(messages: readonly Uint8Array[], checksum: boolean): Uint8Array {
  const body = encodeCompound(messages);
  return checksum ? withChecksum(body) : body;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
