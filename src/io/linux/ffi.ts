import koffi from 'koffi';

/**
 * The only module that loads native code: the system calls that Node does not offer. Pointers that
 * cross on a hot path are numbers (`uintptr_t`); whoever passes one keeps the buffer behind it alive
 * from a JavaScript object, because an address alone does not.
 */
const libc = koffi.load('libc.so.6');

type Syscall<Arguments extends unknown[]> = (...args: Arguments) => number;

function declare<Arguments extends unknown[]>(prototype: string): Syscall<Arguments> {
  return libc.func(prototype) as unknown as Syscall<Arguments>;
}

const openFile: Syscall<[path: string, flags: number, mode: number]> = declare(
  'int open(const char *path, int flags, int mode)',
);

/** open(2). `mode` matters only when a file is made. */
export function open(path: string, flags: number, mode = 0): number {
  return openFile(path, flags, mode);
}

/** ftruncate(2). */
export const ftruncate: Syscall<[fd: number, length: number]> = declare(
  'int ftruncate(int fd, int64_t length)',
);
/** close(2). */
export const close: Syscall<[fd: number]> = declare('int close(int fd)');
/** ioctl(2) with a buffer. */
export const ioctlBuffer: Syscall<[fd: number, request: number, argument: Uint8Array]> = declare(
  'int ioctl(int fd, unsigned long request, void *argument)',
);
/** ioctl(2) with a plain number. */
export const ioctlNumber: Syscall<[fd: number, request: number, argument: number]> = declare(
  'int ioctl(int fd, unsigned long request, uintptr_t argument)',
);
/** setns(2): changes the network namespace of the calling thread only. */
export const setns: Syscall<[fd: number, namespaceType: number]> = declare(
  'int setns(int fd, int nstype)',
);
/** socket(2). */
export const socket: Syscall<[domain: number, type: number, protocol: number]> = declare(
  'int socket(int domain, int type, int protocol)',
);
/** socketpair(2); `pair` takes two 32-bit descriptors. */
export const socketpair: Syscall<
  [domain: number, type: number, protocol: number, pair: Uint8Array]
> = declare('int socketpair(int domain, int type, int protocol, void *pair)');
/** bind(2). */
export const bind: Syscall<[fd: number, address: Uint8Array, length: number]> = declare(
  'int bind(int fd, void *address, int length)',
);
/** connect(2). */
export const connect: Syscall<[fd: number, address: Uint8Array, length: number]> = declare(
  'int connect(int fd, void *address, int length)',
);
/** getsockopt(2); `length` holds the size of `value`. */
export const getsockopt: Syscall<
  [fd: number, level: number, name: number, value: Uint8Array, length: Uint8Array]
> = declare('int getsockopt(int fd, int level, int name, void *value, void *length)');
/** getsockname(2); `length` holds a `socklen_t`, which is overwritten. */
export const getsockname: Syscall<[fd: number, address: Uint8Array, length: Uint8Array]> = declare(
  'int getsockname(int fd, void *address, void *length)',
);
/** setsockopt(2). */
export const setsockopt: Syscall<
  [fd: number, level: number, name: number, value: Uint8Array, length: number]
> = declare('int setsockopt(int fd, int level, int name, void *value, int length)');
/** eventfd(2). */
export const eventfd: Syscall<[initial: number, flags: number]> = declare(
  'int eventfd(unsigned int initial, int flags)',
);
/** epoll_create1(2). */
export const epollCreate: Syscall<[flags: number]> = declare('int epoll_create1(int flags)');
/** epoll_ctl(2). */
export const epollCtl: Syscall<
  [epoll: number, operation: number, fd: number, event: Uint8Array | null]
> = declare('int epoll_ctl(int epfd, int op, int fd, void *event)');
/** epoll_wait(2); `events` is an address. */
export const epollWait: Syscall<
  [epoll: number, events: number, maxEvents: number, timeoutMs: number]
> = declare('int epoll_wait(int epfd, uintptr_t events, int maxevents, int timeout)');
/** read(2) into an address. */
export const readAt: Syscall<[fd: number, address: number, length: number]> = declare(
  'int64_t read(int fd, uintptr_t address, uintptr_t length)',
);
/** write(2) from an address. */
export const writeAt: Syscall<[fd: number, address: number, length: number]> = declare(
  'int64_t write(int fd, uintptr_t address, uintptr_t length)',
);
/** write(2) from a buffer: for cold paths. */
export const writeBuffer: Syscall<[fd: number, data: Uint8Array, length: number]> = declare(
  'int64_t write(int fd, void *data, uintptr_t length)',
);
/** writev(2); `vectors` is the address of an iovec array. */
export const writev: Syscall<[fd: number, vectors: number, count: number]> = declare(
  'int64_t writev(int fd, uintptr_t vectors, int count)',
);
/** sendmsg(2); `message` is the address of a msghdr. */
export const sendmsg: Syscall<[fd: number, message: number, flags: number]> = declare(
  'int64_t sendmsg(int fd, uintptr_t message, int flags)',
);
/** sendmmsg(2); `messages` is the address of an array of mmsghdr. */
export const sendmmsg: Syscall<[fd: number, messages: number, count: number, flags: number]> =
  declare('int sendmmsg(int fd, uintptr_t messages, unsigned int count, int flags)');
/** recvmmsg(2) without a timeout; `messages` is the address of an array of mmsghdr. */
export const recvmmsg: Syscall<
  [fd: number, messages: number, count: number, flags: number, timeout: 0]
> = declare(
  'int recvmmsg(int fd, uintptr_t messages, unsigned int count, int flags, uintptr_t timeout)',
);
/** recvmsg(2); `message` is the address of a msghdr. */
export const recvmsg: Syscall<[fd: number, message: number, flags: number]> = declare(
  'int64_t recvmsg(int fd, uintptr_t message, int flags)',
);
/** malloc_trim(3): gives free memory of all arenas back to the system. */
export const mallocTrim: Syscall<[keepBytes: number]> = declare('int malloc_trim(size_t pad)');

// The same on all architectures (asm-generic/unistd.h); libc has no functions for them before 2.36.
const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_GETFD = 438;
const syscall3: Syscall<[number: number, a: number, b: number, c: number]> = declare(
  'long syscall(long number, long a, long b, long c)',
);

/** pidfd_open(2), Linux 5.3. */
export function pidfdOpen(pid: number): number {
  return syscall3(SYS_PIDFD_OPEN, pid, 0, 0);
}

/** pidfd_getfd(2), Linux 5.6: a copy of another process's descriptor. It needs CAP_SYS_PTRACE. */
export function pidfdGetfd(pidfd: number, fd: number): number {
  return syscall3(SYS_PIDFD_GETFD, pidfd, fd, 0);
}

/** madvise(2). */
export const madvise: Syscall<[address: number, length: number, advice: number]> = declare(
  'int madvise(uintptr_t address, size_t length, int advice)',
);

/** The address of the first byte of `bytes`. It stays valid only while `bytes` is referenced. */
export function addressOf(bytes: Uint8Array): number {
  return Number(koffi.address(bytes));
}

/** The errno of the last failed call on this thread. */
export function errno(): number {
  return koffi.errno();
}

/** memfd_create(2): a file in memory, without a name in any directory. */
export const memfdCreate: Syscall<[name: string, flags: number]> = declare(
  'int memfd_create(const char *name, unsigned int flags)',
);

const mmap = libc.func(
  'void *mmap(uintptr_t at, uintptr_t length, int protection, int flags, int fd, int64_t offset)',
) as unknown as (
  at: number,
  length: number,
  protection: number,
  flags: number,
  fd: number,
  offset: number,
) => bigint;
/** What mmap(2) returns on failure: (void *) -1. */
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/**
 * mmap(2) of a whole file; the mapping lasts as long as the process.
 *
 * @throws {SyscallError} if the kernel refuses
 */
export function mapShared(
  length: number,
  protection: number,
  flags: number,
  fd: number,
): Uint8Array {
  const address = mmap(0, length, protection, flags, fd, 0);
  if (address === MAP_FAILED) throw new SyscallError('mmap', 'map a file', errno());
  return new Uint8Array(koffi.view(address, length));
}

/**
 * mmap(2) of a whole file at the address `at`, for those who need only the address.
 *
 * @returns whether the kernel mapped it there; if not, {@link errno} says why
 */
export function mapAt(
  at: number,
  length: number,
  protection: number,
  flags: number,
  fd: number,
): boolean {
  return mmap(at, length, protection, flags, fd, 0) === BigInt(at);
}

/** The part of OpenSSL's EVP interface that seals and opens records. Contexts and buffers are addresses. */
export interface Evp {
  /** EVP_aes_256_gcm(3): the cipher. */
  readonly aes256Gcm: () => number;
  /** EVP_CIPHER_CTX_new(3); 0 on failure. */
  readonly newContext: () => number;
  /** EVP_CIPHER_CTX_free(3). */
  readonly freeContext: (context: number) => void;
  /** EVP_CipherInit_ex(3) without an engine: 1, or 0 on failure. */
  readonly init: (
    context: number,
    cipher: number,
    engine: number,
    key: number,
    iv: number,
    encrypt: number,
  ) => number;
  /** EVP_CIPHER_CTX_ctrl(3). */
  readonly control: (context: number, type: number, length: number, argument: number) => number;
  /** EVP_CIPHER_CTX_set_params(3); `params` is the address of an OSSL_PARAM array. */
  readonly setParams: (context: number, params: number) => number;
  /** EVP_Cipher(3): negative on failure. */
  readonly cipher: (context: number, output: number, input: number, length: number) => number;
}

/**
 * EVP as some loaded or loadable library has it.
 *
 * @param library - A shared object, or null for what the running program itself exports: Node's binary
 *   has OpenSSL within it.
 * @returns undefined if it is not there or has no EVP of OpenSSL 3
 */
export function loadEvp(library: string | null): Evp | undefined {
  try {
    // Node exports the same names: without `deep`, a library's calls to itself would land in Node's.
    const code = library === null ? koffi.load(null) : koffi.load(library, { deep: true });
    const functions = {
      aes256Gcm: code.func('uintptr_t EVP_aes_256_gcm()'),
      newContext: code.func('uintptr_t EVP_CIPHER_CTX_new()'),
      freeContext: code.func('void EVP_CIPHER_CTX_free(uintptr_t context)'),
      init: code.func(
        'int EVP_CipherInit_ex(uintptr_t context, uintptr_t cipher, uintptr_t engine, uintptr_t key, uintptr_t iv, int encrypt)',
      ),
      control: code.func(
        'int EVP_CIPHER_CTX_ctrl(uintptr_t context, int type, int length, uintptr_t argument)',
      ),
      setParams: code.func('int EVP_CIPHER_CTX_set_params(uintptr_t context, uintptr_t params)'),
      cipher: code.func(
        'int EVP_Cipher(uintptr_t context, uintptr_t output, uintptr_t input, unsigned int length)',
      ),
    };
    return functions as unknown as Evp;
  } catch {
    return undefined; // Koffi's only word for a library or a symbol that is missing.
  }
}

/** errno values that weft tells apart (asm-generic/errno*.h). */
export const EINTR = 4;
export const EIO = 5;
export const EAGAIN = 11;
export const EBUSY = 16;
export const EEXIST = 17;
export const EINVAL = 22;
export const EMSGSIZE = 90;
export const EADDRINUSE = 98;

const ERRNO_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(koffi.os.errno).map(([name, code]) => [code, name]),
);

/** A system call that failed where it must not. `code` is the errno's name, as in Node's errors. */
export class SyscallError extends Error {
  override readonly name = 'SyscallError';
  readonly code: string;
  readonly syscall: string;

  constructor(syscall: string, detail: string, error: number) {
    const code = ERRNO_NAMES.get(error) ?? `errno ${error}`;
    super(`Cannot ${detail}: ${syscall} failed with ${code}`);
    this.code = code;
    this.syscall = syscall;
  }
}

/**
 * Passes a system call's result through.
 *
 * @param result - What the call returned.
 * @param syscall - Its name.
 * @param detail - What was being done, to complete "Cannot …".
 * @throws {SyscallError} if `result` is negative
 */
export function check(result: number, syscall: string, detail: string): number {
  if (result < 0) throw new SyscallError(syscall, detail, errno());
  return result;
}
