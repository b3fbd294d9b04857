import { AddressWords } from '../../core/address-words.ts';
import { type Ip, isIpv6 } from '../../core/ip.ts';
import type { Arena } from './arena.ts';
import {
  DatagramQueue,
  type Destination,
  type SendFailure,
  type SendReport,
} from './datagram-queue.ts';
import { check, close, recvmsg, setsockopt } from './ffi.ts';
import { openSender } from './shared-port.ts';
import {
  CMSGHDR_BYTES,
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
const CONTROL_BYTES = 64;

/** The socket on which VXLAN arrives: one receive brings many datagrams of one flow (`UDP_GRO`). */
export class VxlanReceiver {
  readonly fd: number;
  /** Where received bytes are, in the arena. */
  readonly buffer: number;
  /** The sender of the last {@link VxlanReceiver.receive}. */
  readonly source: AddressWords = new AddressWords();
  sourcePort = 0;
  /** The size of each datagram of the last {@link VxlanReceiver.receive} but its last one. */
  segmentBytes = 0;
  readonly #arena: Arena;
  readonly #isIpv6: boolean;
  readonly #message: number;
  readonly #name: number;
  readonly #control: number;

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
    this.buffer = arena.allocate(RECEIVE_BYTES + 64) + 2; // inner IP headers start on 4 bytes
    this.#name = arena.allocate(SOCKADDR_IN6_BYTES);
    this.#control = arena.allocate(CONTROL_BYTES);
    this.#message = arena.allocate(MSGHDR_BYTES);
    const vector = arena.allocate(16);
    arena.setIovec(vector, this.buffer, RECEIVE_BYTES);
    arena.setPointer(this.#message, this.#name);
    arena.setPointer(this.#message + MSG_IOV, vector);
    arena.setSize(this.#message + MSG_IOV_COUNT, 1);
    arena.setPointer(this.#message + MSG_CONTROL, this.#control);
  }

  /** @returns the bytes received, or a negative number when there is nothing to receive */
  receive(): number {
    const { view, base } = this.#arena;
    const message = this.#message;
    view.setUint32(message + MSG_NAME_LENGTH, SOCKADDR_IN6_BYTES, true);
    this.#arena.setSize(message + MSG_CONTROL_LENGTH, CONTROL_BYTES);
    const received = recvmsg(this.fd, base + message, 0);
    if (received < 0) return received;
    this.#readSource();
    const hasSize =
      view.getUint32(message + MSG_CONTROL_LENGTH, true) >= CMSGHDR_BYTES + 4 &&
      view.getInt32(this.#control + 8, true) === SOL_UDP &&
      view.getInt32(this.#control + 12, true) === UDP_GRO;
    this.segmentBytes = hasSize ? view.getInt32(this.#control + CMSGHDR_BYTES, true) : received;
    return received;
  }

  #readSource(): void {
    const { view } = this.#arena;
    this.sourcePort = view.getUint16(this.#name + 2);
    if (this.#isIpv6) this.source.read(view, this.#name + 8, 6);
    else this.source.read(view, this.#name + 4, 4);
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
