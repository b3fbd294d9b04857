import { ByteWriter, utf8Bytes, utf8Text } from './bytes.ts';

/**
 * MessagePack as memberlist's codec (hashicorp/go-msgpack, `WriteExt` off) speaks it: the old
 * specification, where text and bytes are one type, "raw", and there is no str8, bin or ext.
 */
export type MsgpackValue =
  | null
  | boolean
  | number
  | Uint8Array
  | readonly MsgpackValue[]
  | ReadonlyMap<string, MsgpackValue>;

/**
 * What {@link encodeMsgpack} takes: text becomes raw, an object a map in its own key order, which for
 * keys that look like integers is not that of writing; a `Map` keeps its order.
 */
export type MsgpackInput =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | readonly MsgpackInput[]
  | ReadonlyMap<string, MsgpackInput>
  | { readonly [key: string]: MsgpackInput };

/**
 * Why bytes are not a value. 'truncated': more bytes may make it one; the others are final.
 * 'unsafe-integer': an integer beyond 2^53 - 1, which no field of the protocol needs.
 */
export type MsgpackFault =
  | 'truncated'
  | 'too-deep'
  | 'too-many-values'
  | 'unsupported-type'
  | 'unsafe-integer'
  | 'bad-map-key';

/** A value and where it ends, as an offset into the bytes; or why there is none. */
export type MsgpackResult =
  | { readonly ok: true; readonly value: MsgpackValue; readonly end: number }
  | { readonly ok: false; readonly fault: MsgpackFault };

/** Containers inside containers that a value may have. The protocol's own messages need 4. */
export const MSGPACK_DEPTH_MAX = 8;

/**
 * Values that one value may consist of: a byte of input costs some hundred of memory as an empty map. A push
 * of serf's state of 65,536 members has 200,000. Our own bound.
 */
export const MSGPACK_VALUES_MAX = 262_144;

/** Encodes `value` into `writer`, integers and lengths in their shortest form. */
export function writeMsgpack(writer: ByteWriter, value: MsgpackInput): void {
  if (value === null) writer.uint8(0xc0);
  else if (typeof value === 'boolean') writer.uint8(value ? 0xc3 : 0xc2);
  else if (typeof value === 'number') writeNumber(writer, value);
  else if (typeof value === 'string') writeRaw(writer, utf8Bytes(value));
  else if (value instanceof Uint8Array) writeRaw(writer, value);
  else if (isArray(value)) {
    writeLength(writer, value.length, { fixed: 0x90, fixedMax: 15, wide: 0xdc });
    for (const item of value) writeMsgpack(writer, item);
  } else {
    const entries = value instanceof Map ? [...value] : Object.entries(value);
    writeLength(writer, entries.length, { fixed: 0x80, fixedMax: 15, wide: 0xde });
    for (const [key, item] of entries) {
      writeRaw(writer, utf8Bytes(key));
      writeMsgpack(writer, item);
    }
  }
}

/** @returns the encoding of `value` */
export function encodeMsgpack(value: MsgpackInput): Uint8Array {
  const writer = new ByteWriter();
  writeMsgpack(writer, value);
  return writer.finish();
}

// Array.isArray does not narrow readonly arrays.
function isArray(value: object): value is readonly MsgpackInput[] {
  return Array.isArray(value);
}

function writeRaw(writer: ByteWriter, bytes: Uint8Array): void {
  writeLength(writer, bytes.length, { fixed: 0xa0, fixedMax: 31, wide: 0xda });
  writer.bytes(bytes);
}

/** `wide` is the type with a 16-bit length; the one with 32 bits follows it. */
function writeLength(
  writer: ByteWriter,
  length: number,
  types: { readonly fixed: number; readonly fixedMax: number; readonly wide: number },
): void {
  if (length <= types.fixedMax) writer.uint8(types.fixed | length);
  else if (length <= 0xffff) writer.uint8(types.wide).uint16(length);
  else writer.uint8(types.wide + 1).uint32(length);
}

function writeNumber(writer: ByteWriter, value: number): void {
  if (!Number.isSafeInteger(value) || Object.is(value, -0)) writer.uint8(0xcb).float64(value);
  else if (value >= 0) {
    if (value <= 0x7f) writer.uint8(value);
    else if (value <= 0xff) writer.uint8(0xcc).uint8(value);
    else if (value <= 0xffff) writer.uint8(0xcd).uint16(value);
    else if (value <= 0xffff_ffff) writer.uint8(0xce).uint32(value);
    else writer.uint8(0xcf).int64(BigInt(value));
  } else if (value >= -0x20) writer.uint8(value & 0xff);
  else if (value >= -0x80) writer.uint8(0xd0).uint8(value & 0xff);
  else if (value >= -0x8000) writer.uint8(0xd1).uint16(value & 0xffff);
  else if (value >= -0x8000_0000) writer.uint8(0xd2).uint32(value >>> 0);
  else writer.uint8(0xd3).int64(BigInt(value));
}

/**
 * Decodes the one value that starts at `offset`; bytes after it are left alone (see `end`). Raw
 * values are views into `bytes`. Work and memory are bounded by the length of `bytes`.
 *
 * @returns the value, or why there is none; never throws
 */
export function decodeMsgpack(bytes: Uint8Array, offset = 0): MsgpackResult {
  const reader = new Reader(bytes, offset);
  const value = reader.value(0);
  return reader.fault === undefined
    ? { ok: true, value, end: reader.offset }
    : { ok: false, fault: reader.fault };
}

/** Reads until a fault; after one, every read gives null or 0 and the fault stays. */
class Reader {
  fault: MsgpackFault | undefined;
  offset: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #valuesLeft = MSGPACK_VALUES_MAX;

  constructor(bytes: Uint8Array, offset: number) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.offset = offset;
  }

  value(depth: number): MsgpackValue {
    if (this.#valuesLeft-- <= 0) return this.#fail('too-many-values');
    const type = this.#unsigned(1);
    if (type <= 0x7f) return type;
    if (type <= 0x8f) return this.#map(type & 15, depth);
    if (type <= 0x9f) return this.#array(type & 15, depth);
    if (type <= 0xbf) return this.#raw(type & 31);
    if (type >= 0xe0) return type - 0x100;
    switch (type) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xda:
        return this.#raw(this.#unsigned(2));
      case 0xdb:
        return this.#raw(this.#unsigned(4));
      case 0xdc:
        return this.#array(this.#unsigned(2), depth);
      case 0xdd:
        return this.#array(this.#unsigned(4), depth);
      case 0xde:
        return this.#map(this.#unsigned(2), depth);
      case 0xdf:
        return this.#map(this.#unsigned(4), depth);
      default:
        return this.#number(type);
    }
  }

  #number(type: number): MsgpackValue {
    switch (type) {
      case 0xca:
        return this.#at(4, (offset) => this.#view.getFloat32(offset));
      case 0xcb:
        return this.#at(8, (offset) => this.#view.getFloat64(offset));
      case 0xcc:
        return this.#unsigned(1);
      case 0xcd:
        return this.#unsigned(2);
      case 0xce:
        return this.#unsigned(4);
      case 0xcf:
        return this.#safe(this.#at(8, (offset) => Number(this.#view.getBigUint64(offset))));
      case 0xd0:
        return this.#at(1, (offset) => this.#view.getInt8(offset));
      case 0xd1:
        return this.#at(2, (offset) => this.#view.getInt16(offset));
      case 0xd2:
        return this.#at(4, (offset) => this.#view.getInt32(offset));
      case 0xd3:
        return this.#safe(this.#at(8, (offset) => Number(this.#view.getBigInt64(offset))));
      default:
        return this.#fail('unsupported-type');
    }
  }

  #raw(length: number): MsgpackValue {
    const start = this.offset;
    if (!this.#has(length)) return this.#fail('truncated');
    this.offset += length;
    return this.#bytes.subarray(start, this.offset);
  }

  #array(length: number, depth: number): MsgpackValue {
    if (depth >= MSGPACK_DEPTH_MAX) return this.#fail('too-deep');
    if (!this.#has(length)) return this.#fail('truncated'); // an item has at least one byte
    const items: MsgpackValue[] = [];
    for (let index = 0; index < length && this.fault === undefined; index++) {
      items.push(this.value(depth + 1));
    }
    return items;
  }

  #map(length: number, depth: number): MsgpackValue {
    if (depth >= MSGPACK_DEPTH_MAX) return this.#fail('too-deep');
    if (!this.#has(length * 2)) return this.#fail('truncated');
    const map = new Map<string, MsgpackValue>();
    for (let index = 0; index < length && this.fault === undefined; index++) {
      const key = this.value(depth + 1);
      if (this.fault !== undefined) return null;
      const text = key instanceof Uint8Array ? utf8Text(key) : undefined;
      if (text === undefined) return this.#fail('bad-map-key');
      map.set(text, this.value(depth + 1));
    }
    return map;
  }

  #unsigned(size: 1 | 2 | 4): number {
    return this.#at(size, (offset) => {
      if (size === 1) return this.#view.getUint8(offset);
      return size === 2 ? this.#view.getUint16(offset) : this.#view.getUint32(offset);
    });
  }

  #at(size: number, read: (offset: number) => number): number {
    const offset = this.offset;
    if (!this.#has(size)) {
      this.#fail('truncated');
      return 0;
    }
    this.offset += size;
    return read(offset);
  }

  #safe(value: number): MsgpackValue {
    return Number.isSafeInteger(value) ? value : this.#fail('unsafe-integer');
  }

  #has(size: number): boolean {
    return this.fault === undefined && this.#bytes.length - this.offset >= size;
  }

  #fail(fault: MsgpackFault): null {
    this.fault ??= fault;
    return null;
  }
}
