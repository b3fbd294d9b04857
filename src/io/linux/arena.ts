import { invariant } from '../../core/invariant.ts';
import { addressOf } from './ffi.ts';

const PAGE_BYTES = 65_536;
const ALIGNMENT_BYTES = 64;

/**
 * One fixed piece of memory in which frames, headers, iovecs and msghdrs live, so that the kernel and
 * the checksum kernel reach them without a copy and the packet loop allocates nothing.
 *
 * Offsets are relative to the arena; `base` turns them into addresses. The arena object must stay
 * referenced while the kernel may use an address in it.
 */
export class Arena {
  readonly memory: WebAssembly.Memory;
  readonly bytes: Uint8Array;
  /** Network byte order by default: pass `true` for the kernel's little-endian structures. */
  readonly view: DataView;
  /** Address of the first byte. Node's addresses fit a double exactly (47 bits). */
  readonly base: number;
  #next = ALIGNMENT_BYTES; // offset 0 stays unused: it means "nothing"

  /** @param capacityBytes - Rounded up to whole WebAssembly pages. */
  constructor(capacityBytes: number) {
    const pages = Math.ceil(capacityBytes / PAGE_BYTES);
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.bytes = new Uint8Array(this.memory.buffer);
    this.view = new DataView(this.memory.buffer);
    this.base = addressOf(this.bytes);
  }

  /** Reserves `length` zeroed bytes for good; the result is 64-byte aligned. */
  allocate(length: number): number {
    const start = this.#next;
    this.#next = Math.ceil((start + length) / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
    invariant(this.#next <= this.bytes.length, 'the arena was made large enough for its tenants');
    return start;
  }

  /** Stores the address of arena offset `target` at `offset` (a 64-bit pointer field). */
  setPointer(offset: number, target: number): void {
    const address = this.base + target;
    this.view.setUint32(offset, address >>> 0, true);
    this.view.setUint32(offset + 4, (address / 0x1_0000_0000) >>> 0, true);
  }

  /** Stores a `size_t` below 2^32 at `offset`. */
  setSize(offset: number, value: number): void {
    this.view.setUint32(offset, value, true);
    this.view.setUint32(offset + 4, 0, true);
  }

  /** Fills in one `struct iovec` (16 bytes) at `offset`. */
  setIovec(offset: number, target: number, length: number): void {
    this.setPointer(offset, target);
    this.setSize(offset + 8, length);
  }
}

/** Size of a `struct iovec`. */
export const IOVEC_BYTES = 16;
