import { Arena, IOVEC_BYTES } from './arena.ts';
import { check, close, recvmsg, sendmsg, setsockopt, socketpair } from './ffi.ts';

// asm-generic/socket.h, linux/socket.h
const AF_UNIX = 1;
const SOCK_SEQPACKET = 5;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x8_0000;
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
const SCM_RIGHTS = 1;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
// struct msghdr and struct cmsghdr on 64 bits
const MSGHDR_BYTES = 56;
const MSG_IOV = 16;
const MSG_IOV_COUNT = 24;
const MSG_CONTROL = 32;
const MSG_CONTROL_LENGTH = 40;
const CMSG_BYTES = 20;
const CMSG_SPACE_BYTES = 24;
const CMSG_DATA = 16;

/** A message counts for a kilobyte or less: room for thousands of descriptors. */
const SEND_BUFFER_BYTES = 8 * 1024 * 1024;
/** Longest name of a descriptor. */
export const FD_NAME_BYTES_MAX = 255;

/** A descriptor and what it was called when it was sent. */
export interface NamedFd {
  readonly name: string;
  readonly fd: number;
}

/**
 * Descriptors in a socket: what was sent and not received yet belongs to no process, and is kept open
 * by the socket alone (unix(7), `SCM_RIGHTS`). Whoever has the socket can take them out.
 */
export class FdQueue {
  /** The two ends: what is sent into `inlet` comes out of `outlet`. */
  readonly inlet: number;
  readonly outlet: number;
  readonly #arena = new Arena(1);
  readonly #name: number;
  readonly #vector: number;
  readonly #control: number;
  readonly #message: number;

  /** Takes both ends over: {@link FdQueue.close} closes them. */
  constructor(inlet: number, outlet: number) {
    this.inlet = inlet;
    this.outlet = outlet;
    const arena = this.#arena;
    this.#name = arena.allocate(FD_NAME_BYTES_MAX);
    this.#vector = arena.allocate(IOVEC_BYTES);
    this.#control = arena.allocate(CMSG_SPACE_BYTES);
    this.#message = arena.allocate(MSGHDR_BYTES);
    arena.setPointer(this.#message + MSG_IOV, this.#vector);
    arena.setSize(this.#message + MSG_IOV_COUNT, 1);
    arena.setPointer(this.#message + MSG_CONTROL, this.#control);
  }

  /** @throws {SyscallError} if there is no socket to be had */
  static create(): FdQueue {
    const [inlet, outlet] = socketPair();
    const size = new Uint8Array(4);
    new DataView(size.buffer).setInt32(0, SEND_BUFFER_BYTES, true);
    setsockopt(inlet, SOL_SOCKET, SO_SNDBUFFORCE, size, 4);
    return new FdQueue(inlet, outlet);
  }

  /**
   * Puts a copy of `fd` in.
   *
   * @returns whether there was room
   * @throws {RangeError} if the name is longer than {@link FD_NAME_BYTES_MAX}, or empty
   */
  send({ name, fd }: NamedFd): boolean {
    const text = new TextEncoder().encode(name);
    if (text.length === 0 || text.length > FD_NAME_BYTES_MAX) {
      throw new RangeError(
        `Cannot name a descriptor ${JSON.stringify(name)}: expected 1 to ${FD_NAME_BYTES_MAX} bytes`,
      );
    }
    const arena = this.#arena;
    arena.bytes.set(text, this.#name);
    arena.setIovec(this.#vector, this.#name, text.length);
    arena.setSize(this.#control, CMSG_BYTES);
    arena.view.setInt32(this.#control + 8, SOL_SOCKET, true);
    arena.view.setInt32(this.#control + 12, SCM_RIGHTS, true);
    arena.view.setInt32(this.#control + CMSG_DATA, fd, true);
    arena.setSize(this.#message + MSG_CONTROL_LENGTH, CMSG_SPACE_BYTES);
    return sendmsg(this.inlet, arena.base + this.#message, 0) >= 0;
  }

  /** Takes the descriptor out that was put in first; undefined when there is none. */
  receive(): NamedFd | undefined {
    const arena = this.#arena;
    arena.setIovec(this.#vector, this.#name, FD_NAME_BYTES_MAX);
    arena.setSize(this.#message + MSG_CONTROL_LENGTH, CMSG_SPACE_BYTES);
    const length = recvmsg(this.outlet, arena.base + this.#message, MSG_CMSG_CLOEXEC);
    if (length <= 0) return undefined;
    const name = new TextDecoder().decode(arena.bytes.slice(this.#name, this.#name + length));
    return { name, fd: arena.view.getInt32(this.#control + CMSG_DATA, true) };
  }

  /** Takes all out. */
  receiveAll(): readonly NamedFd[] {
    const all: NamedFd[] = [];
    for (let one = this.receive(); one !== undefined; one = this.receive()) all.push(one);
    return all;
  }

  /** Closes this process's ends; what is in the queue stays while another process has them. */
  close(): void {
    close(this.inlet);
    close(this.outlet);
  }
}

/**
 * Two connected unix sockets that keep messages apart, non-blocking.
 *
 * @throws {SyscallError} if the kernel refuses
 */
export function socketPair(): readonly [number, number] {
  const pair = new Uint8Array(8);
  const type = SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC;
  check(socketpair(AF_UNIX, type, 0, pair), 'socketpair', 'make a pair of sockets');
  const view = new DataView(pair.buffer);
  return [view.getInt32(0, true), view.getInt32(4, true)];
}
