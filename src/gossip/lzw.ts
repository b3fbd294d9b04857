// LZW as Go's compress/lzw has it, least significant bit first, with literals of 8 bits: what
// memberlist compresses with (util.go `compressPayload`). Codes have 9 to 12 bits.

/** Codes that are no literal and no entry: forget all entries; the end. */
const CLEAR = 256;
const END = 257;
const WIDTH_MIN = 9;
const WIDTH_MAX = 12;
const CODES = 1 << WIDTH_MAX;
/** The writer starts anew when this code would be next (writer.go `maxCode`). */
const CODE_MAX = CODES - 1;
const NONE = -1;

/** Places of the writer's hash table: four per code. */
const SLOTS = CODES * 4;
// Scratch memory of a call: nothing in it outlives one, and calls do not overlap. A table per node
// would cost a simulation of thousands some hundred megabytes.
const SLOT_KEYS: Int32Array = new Int32Array(SLOTS);
const SLOT_CODES: Uint16Array = new Uint16Array(SLOTS);
/** An entry is what its prefix stands for, and one byte more. */
const PREFIXES: Uint16Array = new Uint16Array(CODES);
const SUFFIXES: Uint8Array = new Uint8Array(CODES);
/** Bytes that a code stands for; 1 for literals. */
const LENGTHS: Uint16Array = new Uint16Array(CODES).fill(1);

/** Why bytes are not what a writer makes. 'too-large': more comes out than was allowed. */
export type LzwFault = 'truncated' | 'invalid-code' | 'too-large';

/** Packs codes into bytes; what does not fit into them is only counted. */
class CodeSink {
  readonly bytes: Uint8Array;
  length = 0;
  #bits = 0;
  #bitCount = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  write(code: number, width: number): void {
    this.#bits |= code << this.#bitCount;
    this.#bitCount += width;
    for (; this.#bitCount >= 8; this.#bitCount -= 8) {
      this.bytes[this.length++] = this.#bits & 255;
      this.#bits >>>= 8;
    }
  }

  flush(): void {
    if (this.#bitCount > 0) this.bytes[this.length++] = this.#bits & 255;
    this.#bitCount = 0;
  }
}

/**
 * Compresses as Go's writer does, byte for byte.
 *
 * @param bytesMax - Largest output that is of use; with it the work ends early if there is no gain.
 * @returns undefined if the output would be larger than `bytesMax`
 */
export function lzwCompress(
  bytes: Uint8Array,
  bytesMax: number = Number.POSITIVE_INFINITY,
): Uint8Array | undefined {
  // A code per byte, of 12 bits at most, and few others: the first, the last two, those of restarts.
  const worst = Math.ceil(((bytes.length + 4 + (bytes.length >> 10)) * WIDTH_MAX) / 8);
  const sink = new CodeSink(new Uint8Array(Math.max(0, Math.min(worst, bytesMax))));
  SLOT_KEYS.fill(NONE);
  sink.write(CLEAR, WIDTH_MIN);
  let width = WIDTH_MIN;
  let last = END;
  let code = bytes[0] ?? NONE;
  for (let at = 1; at <= bytes.length; at++) {
    const byte = bytes[at] ?? NONE; // none behind the last: its code is written
    const key = (code << 8) | byte;
    let slot = ((key >>> 12) ^ key) & (SLOTS - 1);
    if (byte !== NONE) {
      while (SLOT_KEYS[slot] !== key && SLOT_KEYS[slot] !== NONE) slot = (slot + 1) & (SLOTS - 1);
      if (SLOT_KEYS[slot] === key) {
        code = SLOT_CODES[slot] ?? 0;
        continue;
      }
    }
    sink.write(code, width);
    if (sink.length > bytesMax) return undefined;
    code = byte;
    last++;
    if (last === 1 << width) width++;
    if (last === CODE_MAX) {
      sink.write(CLEAR, width);
      SLOT_KEYS.fill(NONE);
      width = WIDTH_MIN;
      last = END;
    } else if (byte !== NONE) {
      SLOT_KEYS[slot] = key;
      SLOT_CODES[slot] = last;
    }
  }
  sink.write(END, width);
  sink.flush();
  return sink.length > bytesMax ? undefined : sink.bytes.slice(0, sink.length);
}

/**
 * Undoes {@link lzwCompress}. As in Go's reader, what follows the end code is left alone. Memory is
 * BOUNDED by `bytesMax`, and by some 2,000 times the input.
 */
export function lzwDecompress(bytes: Uint8Array, bytesMax: number): Uint8Array | LzwFault {
  let output = new Uint8Array(Math.min(bytesMax, Math.max(256, bytes.length * 4)));
  let length = 0;
  let at = 0;
  let bits = 0;
  let bitCount = 0;
  let width = WIDTH_MIN;
  /** The entry that the next code will complete. */
  let next = END;
  let last = NONE;
  for (;;) {
    for (; bitCount < width; bitCount += 8) {
      const byte = bytes[at++];
      if (byte === undefined) return 'truncated';
      bits |= byte << bitCount;
    }
    const code = bits & ((1 << width) - 1);
    bits >>>= width;
    bitCount -= width;
    if (code === END) return output.slice(0, length);
    if (code === CLEAR) {
      width = WIDTH_MIN;
      next = END;
      last = NONE;
      continue;
    }
    if (code > next) return 'invalid-code';
    // The entry that is being completed is the last one and its own first byte.
    const own = code === next && last !== NONE;
    const base = own ? last : code;
    const end = length + (LENGTHS[base] ?? 0) + (own ? 1 : 0);
    if (end > bytesMax) return 'too-large';
    if (end > output.length) output = grown(output, length, Math.min(bytesMax, end * 2));
    expand(output, own ? end - 1 : end, base);
    const first = output[length] ?? 0;
    if (own) output[end - 1] = first;
    if (last !== NONE) {
      PREFIXES[next] = last;
      SUFFIXES[next] = first;
      LENGTHS[next] = (LENGTHS[last] ?? 0) + 1;
    }
    length = end;
    last = code;
    next++;
    if (next < 1 << width) continue;
    if (width < WIDTH_MAX) width++;
    else {
      // Full: codes go on without new entries until the writer clears.
      last = NONE;
      next--;
    }
  }
}

/** Writes what `code` stands for in front of `end`. */
function expand(output: Uint8Array, end: number, code: number): void {
  let at = end - 1;
  let rest = code;
  for (; rest >= CLEAR; at--) {
    output[at] = SUFFIXES[rest] ?? 0;
    rest = PREFIXES[rest] ?? 0;
  }
  output[at] = rest;
}

function grown(bytes: Uint8Array, length: number, size: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(size);
  larger.set(bytes.subarray(0, length));
  return larger;
}
