const UTF8_ENCODER = new TextEncoder();
const UTF8_DECODER = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Up to so many bytes a loop over ASCII is faster than a call of the engine's coder. */
const SHORT_BYTES = 48;

/** The UTF-8 form of `text`. */
export function utf8Bytes(text: string): Uint8Array {
  return shortAscii(text) ?? UTF8_ENCODER.encode(text);
}

function shortAscii(text: string): Uint8Array | undefined {
  if (text.length > SHORT_BYTES) return undefined;
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code > 0x7f) return undefined;
    bytes[index] = code;
  }
  return bytes;
}

/**
 * The text of `bytes`, which may well come again: a name.
 *
 * @returns undefined if they are not UTF-8
 */
export function utf8Text(bytes: Uint8Array): string | undefined {
  if (bytes.length > SHORT_BYTES) return newUtf8Text(bytes);
  const place = hashOf(bytes) % RECENT_TEXTS;
  const recent = RECENT[place];
  if (recent !== undefined && isAsciiOf(recent, bytes)) return recent;
  const text = newUtf8Text(bytes);
  if (text !== undefined) RECENT[place] = text;
  return text;
}

/**
 * Short texts that were decoded lately, by a hash of their bytes: names of fields and of nodes come
 * again and again, and a look at a known string takes a fifth of decoding it. BOUNDED by
 * {@link RECENT_TEXTS} texts of {@link SHORT_BYTES}.
 */
const RECENT_TEXTS = 16_384;
const RECENT: (string | undefined)[] = new Array<string | undefined>(RECENT_TEXTS).fill(undefined);

/** The same for what is likely to be another text each time: an entry of a table. */
export function newUtf8Text(bytes: Uint8Array): string | undefined {
  try {
    return UTF8_DECODER.decode(bytes);
  } catch {
    return undefined;
  }
}

/** FNV-1a. */
function hashOf(bytes: Uint8Array): number {
  let hash = 0x811c_9dc5;
  for (let index = 0; index < bytes.length; index++) {
    hash = Math.imul(hash ^ (bytes[index] ?? 0), 0x0100_0193);
  }
  return (hash ^ (hash >>> 15)) >>> 0;
}

/** Whether `text` is what `bytes` say, and ASCII. */
function isAsciiOf(text: string, bytes: Uint8Array): boolean {
  if (text.length !== bytes.length) return false;
  for (let index = 0; index < bytes.length; index++) {
    const code = text.charCodeAt(index);
    if (code !== bytes[index] || code > 0x7f) return false;
  }
  return true;
}

/** Whether two byte strings are equal. */
export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

/** A growing byte string, written from front to back; numbers are big-endian. */
export class ByteWriter {
  #bytes = new Uint8Array(256);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  uint8(value: number): this {
    const offset = this.#reserve(1);
    this.#view.setUint8(offset, value);
    return this;
  }

  uint16(value: number): this {
    const offset = this.#reserve(2);
    this.#view.setUint16(offset, value);
    return this;
  }

  uint32(value: number): this {
    const offset = this.#reserve(4);
    this.#view.setUint32(offset, value);
    return this;
  }

  /** Two's complement for negative values. */
  int64(value: bigint): this {
    const offset = this.#reserve(8);
    this.#view.setBigInt64(offset, value);
    return this;
  }

  float64(value: number): this {
    const offset = this.#reserve(8);
    this.#view.setFloat64(offset, value);
    return this;
  }

  bytes(value: Uint8Array): this {
    const offset = this.#reserve(value.length);
    this.#bytes.set(value, offset);
    return this;
  }

  /** A copy of what was written. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  /** May replace the buffer: to be called before it is looked at. */
  #reserve(size: number): number {
    const offset = this.#length;
    this.#length += size;
    if (this.#length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#length, this.#bytes.length * 2));
      grown.set(this.#bytes.subarray(0, offset));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    return offset;
  }
}
