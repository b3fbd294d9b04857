/** A number from 0 to below `limit`. Its seed decides all that follows. */
export type Below = (limit: number) => number;

/** Numbers at which sizes, counts and signs go wrong, by their width in bytes. */
const INTERESTING: readonly (readonly [width: number, values: readonly number[]])[] = [
  [1, [0, 1, 0x7f, 0x80, 0xff]],
  [2, [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff]],
  [4, [0, 1, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]],
];
const EDITS_MAX = 6;

/** Changes inputs in the ways that decoders are wrong about. */
export class Mutator {
  readonly #below: Below;
  readonly #dictionary: readonly Uint8Array[];
  readonly #bytesMax: number;

  constructor(below: Below, dictionary: readonly Uint8Array[], bytesMax: number) {
    this.#below = below;
    this.#dictionary = dictionary;
    this.#bytesMax = bytesMax;
  }

  /**
   * A changed copy.
   *
   * @param other - Another input, to take a part of.
   */
  mutate(input: Uint8Array, other: Uint8Array): Uint8Array {
    let bytes = Uint8Array.from(input);
    for (let edits = 1 + this.#below(EDITS_MAX); edits > 0; edits -= 1) {
      bytes = this.#edit(bytes, other);
    }
    return bytes.length > this.#bytesMax ? bytes.slice(0, this.#bytesMax) : bytes;
  }

  #edit(bytes: Uint8Array<ArrayBuffer>, other: Uint8Array): Uint8Array<ArrayBuffer> {
    const below = this.#below;
    const at = below(bytes.length + 1);
    switch (below(9)) {
      case 0:
        if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << below(8));
        return bytes;
      case 1:
        if (at < bytes.length) bytes[at] = below(256);
        return bytes;
      case 2:
        return this.#putNumber(bytes, at);
      case 3:
        return this.#nudgeLength(bytes, at);
      case 4:
        return bytes.slice(0, at);
      case 5:
        return replaced(
          bytes,
          at,
          at + below(Math.min(16, bytes.length - at + 1)),
          new Uint8Array(),
        );
      case 6:
        return replaced(bytes, at, at, bytes.slice(at, at + below(64)));
      case 7: {
        const from = below(other.length + 1);
        const part = other.subarray(from, from + 1 + below(64));
        return replaced(bytes, at, below(2) === 0 ? at : at + part.length, part);
      }
      default: {
        const word = this.#dictionary[below(this.#dictionary.length)] ?? Uint8Array.of(below(256));
        return replaced(bytes, at, below(2) === 0 ? at : at + word.length, word);
      }
    }
  }

  #putNumber(bytes: Uint8Array<ArrayBuffer>, at: number): Uint8Array<ArrayBuffer> {
    const [width, values] = INTERESTING[this.#below(INTERESTING.length)] ?? [1, [0]];
    if (at + width > bytes.length) return bytes;
    put(bytes, at, width, values[this.#below(values.length)] ?? 0, this.#below(2) === 0);
    return bytes;
  }

  /** Makes what may be a length a little longer or shorter, or exactly the bytes that follow it. */
  #nudgeLength(bytes: Uint8Array<ArrayBuffer>, at: number): Uint8Array<ArrayBuffer> {
    const width = [1, 2, 4][this.#below(3)] ?? 1;
    if (at + width > bytes.length) return bytes;
    const isLittle = this.#below(2) === 0;
    const known = read(bytes, at, width, isLittle);
    const rest = bytes.length - at - width;
    const base = this.#below(2) === 0 ? known : rest;
    put(bytes, at, width, base + this.#below(5) - 2, isLittle);
    return bytes;
  }
}

function replaced(
  bytes: Uint8Array,
  from: number,
  to: number,
  by: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const tail = bytes.subarray(Math.min(to, bytes.length));
  const result = new Uint8Array(from + by.length + tail.length);
  result.set(bytes.subarray(0, from));
  result.set(by, from);
  result.set(tail, from + by.length);
  return result;
}

function read(bytes: Uint8Array, at: number, width: number, isLittle: boolean): number {
  let value = 0;
  for (let index = 0; index < width; index += 1) {
    value = value * 256 + (bytes[at + (isLittle ? width - 1 - index : index)] ?? 0);
  }
  return value;
}

function put(bytes: Uint8Array, at: number, width: number, value: number, isLittle: boolean): void {
  for (let index = 0; index < width; index += 1) {
    const place = at + (isLittle ? index : width - 1 - index);
    bytes[place] = Math.floor(value / 256 ** index) & 0xff;
  }
}
