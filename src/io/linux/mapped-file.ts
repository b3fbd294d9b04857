import { check, close, ftruncate, mapShared, open } from './ffi.ts';

// asm-generic/fcntl.h, asm-generic/mman-common.h
const O_RDWR = 0x2;
const O_CREAT = 0x40;
const O_CLOEXEC = 0x8_0000;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;

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
