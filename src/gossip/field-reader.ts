import { utf8Text } from './bytes.ts';
import type { MsgpackValue } from './msgpack.ts';
import { addressText } from './peer-address.ts';

/** Largest node name in UTF-8. Our own bound; memberlist has none. */
export const NODE_NAME_BYTES_MAX = 255;

/**
 * Reads the fields of a decoded struct. As in Go, a missing or nil field is its zero value; one of
 * the wrong type, size or range sets `failed` and reads as zero.
 */
export class FieldReader {
  failed = false;
  readonly #fields: ReadonlyMap<string, MsgpackValue>;

  constructor(fields: ReadonlyMap<string, MsgpackValue>) {
    this.#fields = fields;
  }

  /** @returns undefined if `value` is not a map */
  static of(value: MsgpackValue | undefined): FieldReader | undefined {
    return value instanceof Map ? new FieldReader(value) : undefined;
  }

  /** Whether the field is there and is neither nil, 0 nor empty (Go's `omitempty`). */
  present(name: string): boolean {
    const value = this.#fields.get(name) ?? 0;
    return value !== 0 && !(value instanceof Uint8Array && value.length === 0);
  }

  /** An integer in [0, `max`]. */
  integer(name: string, max: number): number {
    const value = this.#fields.get(name) ?? 0;
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= max) {
      return value;
    }
    return this.#fail(0);
  }

  uint32(name: string): number {
    return this.integer(name, 0xffff_ffff);
  }

  /** A port that can be sent to: `defaultPort`, if that is one, where there is none or 0. */
  port(name: string, defaultPort = 0): number {
    const port = this.integer(name, 0xffff) || defaultPort;
    return port === 0 ? this.#fail(0) : port;
  }

  flag(name: string): boolean {
    const value = this.#fields.get(name) ?? false;
    return typeof value === 'boolean' ? value : this.#fail(false);
  }

  /** A copy of the bytes of the field, at most `max`. */
  bytes(name: string, max: number): Uint8Array {
    const value = this.#raw(name, max);
    return value.slice();
  }

  /** UTF-8 of at most `max` bytes. */
  text(name: string, max: number): string {
    return utf8Text(this.#raw(name, max)) ?? this.#fail('');
  }

  /** A name that is not empty. */
  nodeName(name: string): string {
    return this.text(name, NODE_NAME_BYTES_MAX) || this.#fail('');
  }

  /** An address of 4 or 16 bytes, as text. */
  address(name: string): string {
    return addressText(this.#raw(name, 16)) ?? this.#fail('');
  }

  array(name: string): readonly MsgpackValue[] {
    const value = this.#fields.get(name) ?? [];
    return isArray(value) ? value : this.#fail([]);
  }

  /** The entries of a map in their order. */
  map(name: string): ReadonlyMap<string, MsgpackValue> {
    const value = this.#fields.get(name) ?? new Map();
    return value instanceof Map ? value : this.#fail(new Map());
  }

  #raw(name: string, max: number): Uint8Array {
    const value = this.#fields.get(name) ?? new Uint8Array();
    const valid = value instanceof Uint8Array && value.length <= max;
    return valid ? value : this.#fail(new Uint8Array());
  }

  #fail<T>(zero: T): T {
    this.failed = true;
    return zero;
  }
}

// Array.isArray does not narrow readonly arrays.
function isArray(value: MsgpackValue): value is readonly MsgpackValue[] {
  return Array.isArray(value);
}
