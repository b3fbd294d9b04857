import type { Arena } from './arena.ts';
import {
  check,
  close,
  EINTR,
  epollCreate,
  epollCtl,
  epollWait,
  errno,
  eventfd,
  readAt,
  SyscallError,
  writeBuffer,
} from './ffi.ts';

// sys/epoll.h, sys/eventfd.h
const EPOLL_CLOEXEC = 0x8_0000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLLIN = 1;
const EFD_NONBLOCK = 0x800;
const EFD_CLOEXEC = 0x8_0000;
/** `struct epoll_event` is packed on x86-64: u32 events, u64 data. */
const EVENT_BYTES = process.arch === 'x64' ? 12 : 16;
const EVENT_DATA_OFFSET = EVENT_BYTES - 8;
const EVENTS_MAX = 64;

/** Waits until descriptors become readable (level-triggered). Each has a number of the caller's. */
export class Epoll {
  readonly #arena: Arena;
  readonly #fd: number;
  readonly #events: number;

  constructor(arena: Arena) {
    this.#arena = arena;
    this.#fd = check(epollCreate(EPOLL_CLOEXEC), 'epoll_create1', 'wait for packets');
    this.#events = arena.allocate(EVENT_BYTES * EVENTS_MAX);
  }

  /** @param token - A non-negative integer below 2^32, returned by {@link Epoll.token}. */
  add(fd: number, token: number): void {
    const event = new Uint8Array(EVENT_BYTES);
    const view = new DataView(event.buffer);
    view.setUint32(0, EPOLLIN, true);
    view.setUint32(EVENT_DATA_OFFSET, token, true);
    check(epollCtl(this.#fd, EPOLL_CTL_ADD, fd, event), 'epoll_ctl', `watch descriptor ${fd}`);
  }

  /** Forgets `fd`. A descriptor that is closed already is no error. */
  remove(fd: number): void {
    epollCtl(this.#fd, EPOLL_CTL_DEL, fd, null);
  }

  /**
   * Blocks until something is readable.
   *
   * @param timeoutMs - -1 waits for good.
   * @returns how many tokens {@link Epoll.token} now gives; 0 after the timeout or a signal
   */
  wait(timeoutMs: number): number {
    const ready = epollWait(this.#fd, this.#arena.base + this.#events, EVENTS_MAX, timeoutMs);
    if (ready >= 0) return ready;
    const reason = errno();
    if (reason === EINTR) return 0;
    throw new SyscallError('epoll_wait', 'wait for packets', reason);
  }

  /** The token of the `index`th readable descriptor of the last {@link Epoll.wait}. */
  token(index: number): number {
    return this.#arena.view.getUint32(this.#events + index * EVENT_BYTES + EVENT_DATA_OFFSET, true);
  }

  close(): void {
    close(this.#fd);
  }
}

const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);

/** A descriptor by which one thread wakes another that blocks in {@link Epoll.wait}. */
export class WakeUp {
  /** Give it to the other thread as a number. */
  readonly fd: number;

  constructor() {
    this.fd = check(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 'eventfd', 'make a wake-up descriptor');
  }

  /** Makes the descriptor readable. */
  signal(): void {
    writeBuffer(this.fd, ONE, ONE.length);
  }

  close(): void {
    close(this.fd);
  }
}

/** Makes a {@link WakeUp}'s descriptor unreadable again, on the thread that waits on it. */
export function clearWakeUp(arena: Arena, fd: number, scratch: number): void {
  readAt(fd, arena.base + scratch, 8);
}
