import { invariant } from '../../core/invariant.ts';
import {
  addressOf,
  check,
  close,
  EEXIST,
  errno,
  ftruncate,
  mapAt,
  memfdCreate,
  SyscallError,
} from './ffi.ts';

const PAGE_BYTES = 65_536;
const ALIGNMENT_BYTES = 64;
// asm-generic/mman-common.h, linux/memfd.h
const PROT_READ_WRITE = 3;
const MAP_SHARED = 0x1;
const MAP_FIXED = 0x10;
const MAP_FIXED_NOREPLACE = 0x10_0000;
const MFD_CLOEXEC = 1;
/** Where arenas are looked for room: V8 keeps integers below 2^31 without a heap object. */
const LOW_START = 0x4000_0000;
const LOW_END = 0x8000_0000;

/**
 * One fixed piece of memory in which frames, headers, iovecs and msghdrs live, so that the kernel and
 * the checksum kernel reach them without a copy and the packet loop allocates nothing.
 *
 * Offsets are relative to the arena; `base` turns them into addresses. V8 puts a WebAssembly memory
 * high up, where every address that a system call takes would become a heap object of 16 bytes. So
 * the memory's pages are those of a file in memory, which is mapped below 2 GiB as well: `base` is
 * its address there. The arena lasts as long as the process.
 */
export class Arena {
  readonly memory: WebAssembly.Memory;
  readonly bytes: Uint8Array;
  /** Network byte order by default: pass `true` for the kernel's little-endian structures. */
  readonly view: DataView;
  /** Address of the first byte, below 2^31 like those of all other bytes: a small integer to V8. */
  readonly base: number;
  #next = ALIGNMENT_BYTES; // offset 0 stays unused: it means "nothing"

  /**
   * @param capacityBytes - Rounded up to whole WebAssembly pages.
   * @throws {SyscallError} if the kernel has no memory, or none below 2 GiB
   */
  constructor(capacityBytes: number) {
    const pages = Math.ceil(capacityBytes / PAGE_BYTES);
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.bytes = new Uint8Array(this.memory.buffer);
    this.view = new DataView(this.memory.buffer);
    this.base = mapLow(addressOf(this.bytes), this.bytes.length);
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
    this.setSize(offset, this.base + target);
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

/**
 * Puts a file in memory in place of the `length` bytes at `address`, and maps it a second time below
 * 2 GiB.
 *
 * @returns the second address of the same bytes, which are zero now
 * @throws {SyscallError} if the kernel refuses
 */
function mapLow(address: number, length: number): number {
  const fd = check(memfdCreate('weft-arena', MFD_CLOEXEC), 'memfd_create', 'make an arena');
  try {
    check(ftruncate(fd, length), 'ftruncate', 'make an arena');
    const low = findLow(length, fd);
    const inPlace = MAP_SHARED | MAP_FIXED;
    if (mapAt(address, length, PROT_READ_WRITE, inPlace, fd)) return low;
    throw new SyscallError('mmap', 'share the pages of an arena', errno());
  } finally {
    close(fd);
  }
}

function findLow(length: number, fd: number): number {
  for (let at = LOW_START; at + length <= LOW_END; at += length) {
    if (mapAt(at, length, PROT_READ_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd)) return at;
    if (errno() !== EEXIST) break;
  }
  throw new SyscallError('mmap', 'map an arena below 2 GiB', errno());
}
