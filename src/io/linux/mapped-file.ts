import { addressOf, check, close, ftruncate, madvise, mapShared, open } from './ffi.ts';

// asm-generic/fcntl.h, asm-generic/mman-common.h
const O_RDWR = 0x2;
const O_CREAT = 0x40;
const O_CLOEXEC = 0x8_0000;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MADV_REMOVE = 9;

/**
 * Maps a file into memory for the life of the process: what is written there is in the file at once and
 * outlives a SIGKILL. The file is made, or brought to `length`, as needed; new bytes are zero.
 *
 * @param path - Best on a tmpfs such as /run: nothing is then written to a disk.
 * @param length - Bytes to map.
 * @throws {SyscallError} if the file cannot be made or mapped
 */
export function mapFile(path: string, length: number): Uint8Array {
  const fd = check(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600), 'open', `open ${path}`);
  try {
    check(ftruncate(fd, length), 'ftruncate', `resize ${path} to ${length} bytes`);
    return mapShared(length, PROT_READ_WRITE, MAP_SHARED, fd);
  } finally {
    close(fd);
  }
}

/**
 * Makes a hole in a mapped file: its memory, and its disk if it has one, go back to the system, and the
 * bytes read as zero from now on. Where the file system makes no holes (tmpfs, ext4, XFS and Btrfs do)
 * nothing happens.
 *
 * @param file - As {@link mapFile} gave it.
 * @param offset - Of the first byte, a multiple of the page size, as is `length`; otherwise nothing happens.
 */
export function releaseMapped(file: Uint8Array, offset: number, length: number): void {
  madvise(addressOf(file) + offset, length, MADV_REMOVE);
}
