import { ByteWriter, utf8Text } from './bytes.ts';
import { lzwCompress, lzwDecompress } from './lzw.ts';
import { MESSAGE_TYPE } from './messages.ts';
import { decodeMsgpack, writeMsgpack } from './msgpack.ts';

/** The one algorithm (memberlist net.go `lzwAlgo`). */
const ALGORITHM_LZW = 0;
/** Type byte, map, `Algo`, its value, `Buf`, and the shortest length of its value. */
const ENVELOPE_BYTES_MIN = 13;
/** Fields that memberlist's struct has, and room for as many that it may get. */
const FIELDS_MAX = 4;
/** Largest encoding of one field that is not `Buf`. */
const FIELD_BYTES_MAX = 64;

/** Why a compressed message was dropped. */
export type CompressionDrop = 'bad-compression' | 'unsupported-compression' | 'too-large';

/**
 * Wraps a message, a compound or a stream's message in a compressed one (util.go
 * `compressPayload`).
 *
 * @param onlySmaller - As in packets: what does not gain is not compressed. Streams always are.
 * @returns undefined if it is not smaller
 */
export function compress(bytes: Uint8Array, onlySmaller: true): Uint8Array | undefined;
export function compress(bytes: Uint8Array, onlySmaller: false): Uint8Array;
export function compress(bytes: Uint8Array, onlySmaller: boolean): Uint8Array | undefined {
  const limit = onlySmaller ? bytes.length - ENVELOPE_BYTES_MIN - 1 : Number.POSITIVE_INFINITY;
  const buffer = limit < 0 ? undefined : lzwCompress(bytes, limit);
  if (buffer === undefined) return undefined;
  const writer = new ByteWriter().uint8(MESSAGE_TYPE.compress);
  writeMsgpack(writer, { Algo: ALGORITHM_LZW, Buf: buffer });
  const message = writer.finish();
  return onlySmaller && message.length >= bytes.length ? undefined : message;
}

/**
 * Unwraps the compressed message that `bytes` begins with, type byte first.
 *
 * @param limits - `inMax` bounds what is compressed, `outMax` what comes out, in bytes. Both are
 *   checked before anything is allocated for them.
 * @returns what was in it, at least one byte; 'truncated' if more bytes may make it whole
 */
export function decompress(
  bytes: Uint8Array,
  limits: { readonly inMax: number; readonly outMax: number },
): Uint8Array | CompressionDrop | 'truncated' {
  const fields = readFields(bytes, limits.inMax);
  if (typeof fields === 'string') return fields;
  if (fields.algorithm !== ALGORITHM_LZW) return 'unsupported-compression';
  const output = lzwDecompress(fields.buffer, limits.outMax);
  if (output === 'too-large') return output;
  return typeof output === 'string' || output.length === 0 ? 'bad-compression' : output;
}

/**
 * The struct `compress`. Read by hand: in a stream the length of `Buf` must be judged before its
 * bytes have come, and a struct that is tried again with each chunk must not cost its size each time.
 */
function readFields(
  bytes: Uint8Array,
  inMax: number,
): { algorithm: number; buffer: Uint8Array } | CompressionDrop | 'truncated' {
  const type = bytes[1];
  if (type === undefined) return 'truncated';
  if (type < 0x80 || type > 0x80 + FIELDS_MAX) return 'bad-compression';
  const fields = { algorithm: ALGORITHM_LZW, buffer: new Uint8Array() };
  let offset = 2;
  for (let index = 0; index < type - 0x80; index++) {
    const key = readField(bytes, offset);
    if (typeof key === 'string') return key;
    const name = key.value instanceof Uint8Array ? utf8Text(key.value) : undefined;
    if (name === 'Buf') {
      const raw = rawAt(bytes, key.end);
      if (typeof raw === 'string') return raw;
      if (raw.end - raw.start > inMax) return 'too-large';
      if (raw.end > bytes.length) return 'truncated';
      fields.buffer = bytes.subarray(raw.start, raw.end) as Uint8Array<ArrayBuffer>;
      offset = raw.end;
    } else {
      const value = readField(bytes, key.end);
      if (typeof value === 'string') return value;
      if (name === 'Algo') fields.algorithm = typeof value.value === 'number' ? value.value : -1;
      offset = value.end;
    }
  }
  return fields;
}

function readField(bytes: Uint8Array, offset: number) {
  const end = Math.min(bytes.length, offset + FIELD_BYTES_MAX);
  const result = decodeMsgpack(bytes.subarray(0, end), offset);
  if (result.ok) return result;
  return result.fault === 'truncated' && end === bytes.length ? 'truncated' : 'bad-compression';
}

/** Where the raw value at `offset` starts and ends, whether or not it is there yet. */
function rawAt(
  bytes: Uint8Array,
  offset: number,
): { start: number; end: number } | 'truncated' | 'bad-compression' {
  const type = bytes[offset];
  if (type === undefined) return 'truncated';
  if (type >= 0xa0 && type <= 0xbf) return { start: offset + 1, end: offset + 1 + (type & 31) };
  if (type !== 0xda && type !== 0xdb) return 'bad-compression';
  const start = offset + (type === 0xda ? 3 : 5);
  if (bytes.length < start) return 'truncated';
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = type === 0xda ? view.getUint16(offset + 1) : view.getUint32(offset + 1);
  return { start, end: start + length };
}
