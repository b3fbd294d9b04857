import { formatIpv4, type Ipv4 } from '../../core/address.ts';
import type { Arena } from './arena.ts';
import {
  bind,
  check,
  close,
  EADDRINUSE,
  errno,
  recvmsg,
  SyscallError,
  sendmsg,
  setsockopt,
  socket,
} from './ffi.ts';

// asm-generic/socket.h, linux/udp.h, linux/in.h
const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x8_0000;
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;
const IPPROTO_IP = 0;
const IP_MTU_DISCOVER = 10;
const IP_PMTUDISC_DO = 2;
const SOCKADDR_IN_BYTES = 16;
const MSGHDR_BYTES = 56;
const CMSGHDR_BYTES = 16;
const CONTROL_BYTES = 64;
// offsets in struct msghdr (64-bit)
const MSG_IOV = 16;
const MSG_IOV_COUNT = 24;
const MSG_CONTROL = 32;
const MSG_CONTROL_LENGTH = 40;

/** Room for the bursts of several senders; the kernel doubles it for its own bookkeeping. */
const SOCKET_BUFFER_BYTES = 8 * 1024 * 1024;
/** Most segments that the kernel cuts out of one send (`UDP_MAX_SEGMENTS`, 64 until Linux 6.9). */
export const UDP_SEGMENTS_MAX = 64;
/** Most payload bytes of one IPv4 datagram before it is segmented. */
export const UDP_PAYLOAD_BYTES_MAX = 65_507;

function option(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setInt32(0, value, true);
  return bytes;
}

function openUdp(address: Ipv4, port: number): number {
  const fd = check(
    socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
    'socket',
    'open a UDP socket',
  );
  for (const name of [SO_RCVBUFFORCE, SO_SNDBUFFORCE]) {
    setsockopt(fd, SOL_SOCKET, name, option(SOCKET_BUFFER_BYTES), 4);
  }
  // An outer packet is never fragmented (RFC 7348 section 4.3): the kernel refuses it instead.
  setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, option(IP_PMTUDISC_DO), 4);
  const name = new Uint8Array(SOCKADDR_IN_BYTES);
  const view = new DataView(name.buffer);
  view.setUint16(0, AF_INET, true);
  view.setUint16(2, port);
  view.setUint32(4, address);
  if (bind(fd, name, SOCKADDR_IN_BYTES) < 0) {
    const reason = errno();
    close(fd);
    const hint = reason === EADDRINUSE ? ' (another process or a kernel VXLAN device uses it)' : '';
    throw new SyscallError('bind', `use UDP ${formatIpv4(address)}:${port}${hint}`, reason);
  }
  return fd;
}

/** The socket on which VXLAN arrives: one receive brings many datagrams of one flow (`UDP_GRO`). */
export class VxlanReceiver {
  readonly fd: number;
  /** Where received bytes are, in the arena. */
  readonly buffer: number;
  /** Of the last {@link VxlanReceiver.receive}: the sender, and the size of each datagram but the last. */
  source: Ipv4 = 0;
  segmentBytes = 0;
  readonly #arena: Arena;
  readonly #message: number;
  readonly #name: number;
  readonly #control: number;

  /**
   * @param port - UDP port, 4789 by default (RFC 7348 section 5).
   * @throws {SyscallError} if the port is taken
   */
  constructor(arena: Arena, address: Ipv4, port: number) {
    this.#arena = arena;
    this.fd = openUdp(address, port);
    check(setsockopt(this.fd, SOL_UDP, UDP_GRO, option(1), 4), 'setsockopt', 'turn UDP_GRO on');
    this.buffer = arena.allocate(RECEIVE_BYTES + 64) + 2; // inner IP headers start on 4 bytes
    this.#name = arena.allocate(SOCKADDR_IN_BYTES);
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
    view.setUint32(message + 8, SOCKADDR_IN_BYTES, true);
    this.#arena.setSize(message + MSG_CONTROL_LENGTH, CONTROL_BYTES);
    const received = recvmsg(this.fd, base + message, 0);
    if (received < 0) return received;
    this.source = view.getUint32(this.#name + 4);
    const hasSize =
      view.getUint32(message + MSG_CONTROL_LENGTH, true) >= CMSGHDR_BYTES + 4 &&
      view.getInt32(this.#control + 8, true) === SOL_UDP &&
      view.getInt32(this.#control + 12, true) === UDP_GRO;
    this.segmentBytes = hasSize ? view.getInt32(this.#control + CMSGHDR_BYTES, true) : received;
    return received;
  }

  close(): void {
    close(this.fd);
  }
}

const RECEIVE_BYTES = 65_536;

/**
 * The sockets from which VXLAN leaves: several, so that the outer source port carries some flow
 * entropy (RFC 7348 section 5), each bound to the node's own VTEP address.
 */
export class VxlanSender {
  readonly #fds: number[];
  readonly #arena: Arena;
  readonly #message: number;
  readonly #name: number;
  readonly #control: number;
  /** Where the caller puts up to `iovecsMax` iovecs. */
  readonly iovecs: number;

  /**
   * @param address - The node's VTEP address, the source of every datagram.
   * @param sockets - How many source ports.
   * @param iovecsMax - Most iovecs of one send.
   */
  constructor(arena: Arena, address: Ipv4, sockets: number, iovecsMax: number) {
    this.#arena = arena;
    this.#fds = Array.from({ length: sockets }, () => openUdp(address, 0));
    this.iovecs = arena.allocate(16 * iovecsMax);
    this.#name = arena.allocate(SOCKADDR_IN_BYTES);
    this.#control = arena.allocate(CONTROL_BYTES);
    this.#message = arena.allocate(MSGHDR_BYTES);
    arena.setPointer(this.#message, this.#name);
    arena.setSize(this.#message + 8, SOCKADDR_IN_BYTES);
    arena.setPointer(this.#message + MSG_IOV, this.iovecs);
    arena.setPointer(this.#message + MSG_CONTROL, this.#control);
    const { view } = arena;
    view.setUint16(this.#name, AF_INET, true);
    arena.setSize(this.#control, CMSGHDR_BYTES + 2);
    view.setInt32(this.#control + 8, SOL_UDP, true);
    view.setInt32(this.#control + 12, UDP_SEGMENT, true);
  }

  /**
   * Sends what the first `iovecCount` iovecs describe.
   *
   * @param to - VTEP address.
   * @param port - VTEP port.
   * @param entropy - Any integer; equal for packets of one flow, which must stay in order.
   * @param iovecCount - Filled entries of {@link VxlanSender.iovecs}.
   * @param segmentBytes - Size of each datagram but the last; 0 sends one datagram.
   * @returns the bytes sent, or a negative number on failure
   */
  send(to: Ipv4, port: number, entropy: number, iovecCount: number, segmentBytes: number): number {
    const { view, base } = this.#arena;
    view.setUint16(this.#name + 2, port);
    view.setUint32(this.#name + 4, to);
    this.#arena.setSize(this.#message + MSG_IOV_COUNT, iovecCount);
    this.#arena.setSize(this.#message + MSG_CONTROL_LENGTH, segmentBytes === 0 ? 0 : 24);
    if (segmentBytes !== 0) view.setUint16(this.#control + CMSGHDR_BYTES, segmentBytes, true);
    const fd = this.#fds[(entropy >>> 0) % this.#fds.length] ?? -1;
    return sendmsg(fd, base + this.#message, 0);
  }

  close(): void {
    for (const fd of this.#fds) close(fd);
  }
}
