/**
 * A ring of captured frames in shared memory: one thread writes, another reads, and neither waits for the
 * other. A frame that finds no room is counted and left out.
 *
 * Positions count bytes modulo 2^32 as signed integers, so `write - read` is what lies in the ring. A record
 * is contiguous; one that does not fit before the end starts over at the front.
 *
 *     | record bytes i32, or SKIP | point i32 | crossing i32 | captured i32 |
 *     | original i32 | lost i32   | time, microseconds f64                  |
 *     | captured bytes of the frame, padded to 8                            |
 */

// The header, as indices of 32-bit integers. What each side writes has a cache line of its own.
const WRITE = 0;
const LOST = 1;
const READ = 16;
const HEADER_BYTES = 128;

// A record, as offsets.
const RECORD_BYTES = 0;
const POINT = 4;
const CROSSING = 8;
const CAPTURED = 12;
const ORIGINAL = 16;
const LOST_BEFORE = 20;
const TIME = 24;
const RECORD_HEADER_BYTES = 32;
/** In place of a record's length: the next record is at the front. */
const SKIP = -1;
const ALIGNMENT = 8;

/** Room of a ring for records: some 60 superframes, or 40,000 small frames. A power of two. */
const CAPACITY_BYTES = 4 * 1024 * 1024;

/**
 * Memory for a ring.
 *
 * @param capacityBytes - A power of two of at least 64.
 */
export function makeCaptureRing(capacityBytes: number = CAPACITY_BYTES): SharedArrayBuffer {
  return new SharedArrayBuffer(HEADER_BYTES + capacityBytes);
}

/** The writing end: {@link begin}, {@link append} until the announced bytes are there, {@link commit}. */
export class CaptureRingWriter {
  readonly #header: Int32Array;
  readonly #view: DataView;
  readonly #capacity: number;
  #write: number;
  /** Where the next byte of the record under way goes. */
  #next = 0;
  /** Records that found no room since the last one that did. */
  #lost = 0;

  constructor(memory: SharedArrayBuffer) {
    this.#header = new Int32Array(memory, 0, HEADER_BYTES / 4);
    this.#view = new DataView(memory, HEADER_BYTES);
    this.#capacity = memory.byteLength - HEADER_BYTES;
    this.#write = Atomics.load(this.#header, WRITE);
  }

  /**
   * Starts a record, if there is room for it; else counts it as lost.
   *
   * @param captured - Bytes that will be appended.
   * @param original - Bytes of the whole frame.
   * @param timeUs - Microseconds since the Unix epoch.
   */
  begin(
    point: number,
    crossing: number,
    captured: number,
    original: number,
    timeUs: number,
  ): boolean {
    const bytes = aligned(RECORD_HEADER_BYTES + captured);
    const at = this.#write & (this.#capacity - 1);
    const left = this.#capacity - at;
    const skipped = bytes > left ? left : 0;
    const used = (this.#write - Atomics.load(this.#header, READ)) | 0;
    if (used + skipped + bytes > this.#capacity) {
      this.#lost = (this.#lost + 1) | 0;
      Atomics.add(this.#header, LOST, 1);
      return false;
    }
    const view = this.#view;
    if (skipped > 0) view.setInt32(at, SKIP, true);
    const start = skipped > 0 ? 0 : at;
    this.#write = (this.#write + skipped + bytes) | 0;
    this.#next = start + RECORD_HEADER_BYTES;
    view.setInt32(start + RECORD_BYTES, bytes, true);
    view.setInt32(start + POINT, point, true);
    view.setInt32(start + CROSSING, crossing, true);
    view.setInt32(start + CAPTURED, captured, true);
    view.setInt32(start + ORIGINAL, original, true);
    view.setInt32(start + LOST_BEFORE, this.#lost, true);
    view.setFloat64(start + TIME, timeUs, true);
    this.#lost = 0;
    return true;
  }

  /** Copies the next `bytes` of the record from `source`, by words: a `set()` would allocate a view. */
  append(source: DataView, start: number, bytes: number): void {
    const view = this.#view;
    const target = this.#next;
    const words = bytes & ~3;
    for (let done = 0; done < words; done += 4) {
      view.setInt32(target + done, source.getInt32(start + done, true), true);
    }
    for (let done = words; done < bytes; done++) {
      view.setUint8(target + done, source.getUint8(start + done));
    }
    this.#next = target + bytes;
  }

  /** Shows the record to the reader. */
  commit(): void {
    Atomics.store(this.#header, WRITE, this.#write);
  }
}

/** Captured frames, one after the other. */
export interface CaptureRecords {
  /** Which port or peer, by the number that the writer gave. */
  readonly point: number;
  readonly crossing: number;
  /** Bytes of the whole frame. */
  readonly originalBytes: number;
  /** Frames lost between the record before and this one. */
  readonly lostBefore: number;
  /** Microseconds since the Unix epoch. */
  readonly timeUs: number;
  /** What was captured of the frame; it holds until {@link release}. */
  readonly frame: Uint8Array;
  /** All frames that found no room, modulo 2^32. */
  readonly lost: number;
  /** Moves to the next record. @returns whether there is one */
  next(): boolean;
  /** Gives the room of all records up to this one back to the writer. */
  release(): void;
}

/** The reading end. {@link next} moves to a record, whose fields and bytes hold until {@link release}. */
export class CaptureRingReader implements CaptureRecords {
  /** Which port or peer, by the number that the writer gave. */
  point = 0;
  crossing = 0;
  /** Bytes of the whole frame. */
  originalBytes = 0;
  /** Frames lost between the record before and this one. */
  lostBefore = 0;
  /** Microseconds since the Unix epoch. */
  timeUs = 0;
  readonly #header: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #capacity: number;
  /** Where the next record is, and the present one. */
  #read: number;
  #current: number;
  #data = 0;
  #captured = 0;

  constructor(memory: SharedArrayBuffer) {
    this.#header = new Int32Array(memory, 0, HEADER_BYTES / 4);
    this.#view = new DataView(memory, HEADER_BYTES);
    this.#bytes = new Uint8Array(memory, HEADER_BYTES);
    this.#capacity = memory.byteLength - HEADER_BYTES;
    this.#read = Atomics.load(this.#header, READ);
    this.#current = this.#read;
  }

  /** All frames that found no room, modulo 2^32. */
  get lost(): number {
    return Atomics.load(this.#header, LOST) >>> 0;
  }

  /** What was captured of the frame: a view of the ring. */
  get frame(): Uint8Array {
    return this.#bytes.subarray(this.#data, this.#data + this.#captured);
  }

  /** Moves to the next record. @returns whether there is one */
  next(): boolean {
    if (Atomics.load(this.#header, WRITE) === this.#read) return false;
    let at = this.#read & (this.#capacity - 1);
    if (this.#view.getInt32(at, true) === SKIP) {
      this.#read = (this.#read + this.#capacity - at) | 0;
      at = 0;
    }
    const view = this.#view;
    this.#current = this.#read;
    this.#read = (this.#read + view.getInt32(at + RECORD_BYTES, true)) | 0;
    this.point = view.getInt32(at + POINT, true);
    this.crossing = view.getInt32(at + CROSSING, true);
    this.#captured = view.getInt32(at + CAPTURED, true);
    this.originalBytes = view.getInt32(at + ORIGINAL, true);
    this.lostBefore = view.getInt32(at + LOST_BEFORE, true) >>> 0;
    this.timeUs = view.getFloat64(at + TIME, true);
    this.#data = at + RECORD_HEADER_BYTES;
    return true;
  }

  /** Gives the room of all records up to this one back to the writer. */
  release(): void {
    Atomics.store(this.#header, READ, this.#read);
  }

  /** The same without the present record, which still holds. There must be one. */
  releasePast(): void {
    Atomics.store(this.#header, READ, this.#current);
  }
}

function aligned(bytes: number): number {
  return (bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
}
