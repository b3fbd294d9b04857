import { AddressWords } from '../../core/address-words.ts';
import { type Ip, isIpv6 } from '../../core/ip.ts';
import { type Arena, IOVEC_BYTES } from './arena.ts';
import {
  DatagramQueue,
  type Destination,
  type SendFailure,
  type SendReport,
} from './datagram-queue.ts';
import { check, close, recvmmsg, setsockopt } from './ffi.ts';
import { openSender } from './shared-port.ts';
import {
  CMSGHDR_BYTES,
  MMSGHDR_BYTES,
  MSG_CONTROL,
  MSG_CONTROL_LENGTH,
  MSG_IOV,
  MSG_IOV_COUNT,
  MSG_NAME_LENGTH,
  MSGHDR_BYTES,
  ON,
  openUdp,
  SOCKADDR_IN6_BYTES,
  SOL_UDP,
  UDP_GRO,
} from './udp-socket.ts';

const RECEIVE_BYTES = 65_536;
/** Messages that one call brings at most, when the last one was no larger than this. */
const BATCH = 8;
const SMALL_BYTES = 2048;
/** Distances between the parts of the messages of a batch. */
const BUFFER_STRIDE = RECEIVE_BYTES + 64;
const NAME_STRIDE = 32;
const CONTROL_STRIDE = 64;

/**
 * The socket on which VXLAN arrives. A message brings many datagrams of one flow (`UDP_GRO`). While messages
 * are small, as those that the kernel could not join, one call brings several of them (`recvmmsg`).
 */
export class VxlanReceiver {
  readonly fd: number;
  /** Where the bytes of the last {@link VxlanReceiver.receive} are, in the arena. */
  buffer: number;
  /** The sender of the last {@link VxlanReceiver.receive}. */
  readonly source: AddressWords = new AddressWords();
  sourcePort = 0;
  /** The size of each datagram of the last {@link VxlanReceiver.receive} but its last one. */
  segmentBytes = 0;
  readonly #arena: Arena;
  readonly #isIpv6: boolean;
  readonly #messages: number;
  readonly #names: number;
  readonly #controls: number;
  readonly #buffers: number;
  /** Messages of the last call, and how many of them have been handed out. */
  #count = 0;
  #next = 0;
  #isSmall = false;

  /**
   * @param fd - A bound UDP socket; it stays the caller's.
   * @param isIpv6 - The family of the socket, and so of the underlay.
   * @throws {SyscallError} if the kernel has no `UDP_GRO`
   */
  constructor(arena: Arena, fd: number, isIpv6: boolean) {
    this.#arena = arena;
    this.#isIpv6 = isIpv6;
    this.fd = fd;
    check(setsockopt(this.fd, SOL_UDP, UDP_GRO, ON, 4), 'setsockopt', 'turn UDP_GRO on');
    this.#buffers = arena.allocate(BUFFER_STRIDE * BATCH) + 2; // inner IP headers start on 4 bytes
    this.#names = arena.allocate(NAME_STRIDE * BATCH);
    this.#controls = arena.allocate(CONTROL_STRIDE * BATCH);
    this.#messages = arena.allocate(MMSGHDR_BYTES * BATCH);
    const vectors = arena.allocate(IOVEC_BYTES * BATCH);
    this.buffer = this.#buffers;
    for (let index = 0; index < BATCH; index += 1) {
      const message = this.#messages + index * MMSGHDR_BYTES;
      const vector = vectors + index * IOVEC_BYTES;
      arena.setIovec(vector, this.#buffers + index * BUFFER_STRIDE, RECEIVE_BYTES);
      arena.setPointer(message, this.#names + index * NAME_STRIDE);
      arena.setPointer(message + MSG_IOV, vector);
      arena.setSize(message + MSG_IOV_COUNT, 1);
      arena.setPointer(message + MSG_CONTROL, this.#controls + index * CONTROL_STRIDE);
    }
  }

  /** Whether messages of the last call wait in the arena: their socket may be empty by now. */
  get hasMore(): boolean {
    return this.#next < this.#count;
  }

  /** @returns the bytes received, or a negative number when there is nothing to receive */
  receive(): number {
    if (this.hasMore) return this.#take(this.#next++);
    const wanted = this.#isSmall ? BATCH : 1;
    for (let index = 0; index < wanted; index += 1) this.#prepare(index);
    const messages = this.#arena.base + this.#messages;
    const count = recvmmsg(this.fd, messages, wanted, 0, 0);
    this.#count = Math.max(0, count);
    this.#next = 1;
    return count > 0 ? this.#take(0) : -1;
  }

  #prepare(index: number): void {
    const message = this.#messages + index * MMSGHDR_BYTES;
    this.#arena.view.setUint32(message + MSG_NAME_LENGTH, SOCKADDR_IN6_BYTES, true);
    this.#arena.setSize(message + MSG_CONTROL_LENGTH, CONTROL_STRIDE);
  }

  #take(index: number): number {
    const { view } = this.#arena;
    const message = this.#messages + index * MMSGHDR_BYTES;
    const control = this.#controls + index * CONTROL_STRIDE;
    const received = view.getInt32(message + MSGHDR_BYTES, true);
    this.buffer = this.#buffers + index * BUFFER_STRIDE;
    this.#isSmall = received <= SMALL_BYTES;
    this.#readSource(this.#names + index * NAME_STRIDE);
    const hasSize =
      view.getUint32(message + MSG_CONTROL_LENGTH, true) >= CMSGHDR_BYTES + 4 &&
      view.getInt32(control + 8, true) === SOL_UDP &&
      view.getInt32(control + 12, true) === UDP_GRO;
    this.segmentBytes = hasSize ? view.getInt32(control + CMSGHDR_BYTES, true) : received;
    return received;
  }

  #readSource(name: number): void {
    const { view } = this.#arena;
    this.sourcePort = view.getUint16(name + 2);
    if (this.#isIpv6) this.source.read(view, name + 8, 6);
    else this.source.read(view, name + 4, 4);
  }
}

/**
 * The sockets from which VXLAN leaves: several, so that the outer source port carries some flow
 * entropy (RFC 7348 section 5), each bound to the node's own VTEP address. Datagrams wait in a queue per
 * socket until {@link VxlanSender.flush}.
 */
export class VxlanSender {
  /** All queues, for counting: those of flows, and {@link VxlanSender.fragmenting}. */
  readonly queues: readonly DatagramQueue[];
  /** For datagrams that may travel in fragments. They must not become a run: flush after each. */
  readonly fragmenting: DatagramQueue;
  readonly #flowMask: number;

  /**
   * @param address - The node's VTEP address, the source of every datagram.
   * @param sockets - How many source ports flows have: a power of two.
   */
  constructor(
    arena: Arena,
    address: Ip,
    sockets: number,
    onFailure: SendFailure,
    onSent?: SendReport,
  ) {
    const queue = (fd: number): DatagramQueue =>
      new DatagramQueue(arena, fd, isIpv6(address), onFailure, onSent);
    const flows = Array.from({ length: sockets }, (_, index) =>
      queue(openSender(address, index, sockets)),
    );
    this.fragmenting = queue(openUdp(address, 0, { oversize: 'fragmented' }));
    this.queues = [...flows, this.fragmenting];
    this.#flowMask = sockets - 1;
  }

  /** @param entropy - Any integer; equal for packets of one flow, which must stay in order. */
  queue(entropy: number): DatagramQueue {
    return this.queues[entropy & this.#flowMask] as DatagramQueue;
  }

  /** Sends all that waits. */
  flush(): void {
    for (let index = 0; index < this.queues.length; index += 1) this.queues[index]?.flush();
  }

  close(): void {
    for (const { fd } of this.queues) close(fd);
  }
}

export type { Destination, SendFailure };
