import { type Ip, isIpv6 } from '../../core/ip.ts';
import { addressOf, check, close, setsockopt } from './ffi.ts';
import { openUdp, SOL_SOCKET, sharePort, udpPort } from './udp-socket.ts';

// asm-generic/socket.h
const SO_ATTACH_REUSEPORT_CBPF = 51;
// linux/filter.h: a program of struct sock_filter, and struct sock_fprog (64-bit) around it
const BPF_LOAD_HALF_ABSOLUTE = 0x28;
const BPF_MODULO = 0x94;
const BPF_RETURN_ACCUMULATOR = 0x16;
const SOCK_FILTER_BYTES = 8;
const SOCK_FPROG_BYTES = 16;
/** Loads count from the network header when they are this much below zero. */
const SKF_NET_OFF = -0x10_0000;
/** Where UDP's source port is behind an IPv4 or IPv6 header without options. */
const IPV4_SOURCE_PORT = 20;
const IPV6_SOURCE_PORT = 40;

/** Attempts to get a source port that suits. One in as many as there are senders does. */
const ATTEMPTS_MAX = 1_000;

/**
 * Opens the sockets of one UDP port, over which the kernel spreads what arrives: a datagram goes to socket
 * number (source port modulo `count`), so a flow of a sender stays in one. The first socket is bound
 * alone: another process that has the port is not joined by accident.
 *
 * @param count - How many, at least 1.
 * @param kept - Sockets of the port that an earlier process left: up to `count`, and there are no others.
 * @returns all of them, those that were kept first
 * @throws {SyscallError} if the port is taken
 */
export function openSharedPort(
  address: Ip,
  port: number,
  count: number,
  kept: readonly number[] = [],
): readonly number[] {
  const [first = openUdp(address, port), ...more] = kept;
  const fds = [first, ...more];
  try {
    if (count === 1) return fds;
    sharePort(first);
    const shared = udpPort(first);
    while (fds.length < count) fds.push(openUdp(address, shared, { shared: true }));
    spread(first, isIpv6(address) ? IPV6_SOURCE_PORT : IPV4_SOURCE_PORT, count);
    return fds;
  } catch (error) {
    for (const fd of fds) close(fd);
    throw error;
  }
}

/**
 * Opens sending socket `index` of `count`, with a source port that leaves `index` when divided by `count`.
 * So a receiver of {@link openSharedPort} with `count` sockets, or half or a quarter of them, gets an even
 * share in each; and a flow whose number is `index` stays in one of them, whichever thread it leaves by.
 *
 * @throws {SyscallError} if the address is not this host's
 */
export function openSender(address: Ip, index: number, count: number): number {
  for (let attempt = 1; ; attempt += 1) {
    const fd = openUdp(address, 0);
    const suits = udpPort(fd) % count === index;
    // Any other port serves as well, but for an uneven share of the receiver's sockets.
    if (suits || attempt === ATTEMPTS_MAX) return fd;
    close(fd);
  }
}

/** Gives the group of `fd` the program that chooses among its `count` sockets. */
function spread(fd: number, sourcePortAt: number, count: number): void {
  const program = [
    [BPF_LOAD_HALF_ABSOLUTE, SKF_NET_OFF + sourcePortAt],
    [BPF_MODULO, count],
    [BPF_RETURN_ACCUMULATOR, 0],
  ] as const;
  // The header points to the program behind it, in one buffer that lives through the call.
  const bytes = new Uint8Array(SOCK_FPROG_BYTES + program.length * SOCK_FILTER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, program.length, true);
  view.setBigUint64(8, BigInt(addressOf(bytes) + SOCK_FPROG_BYTES), true);
  for (const [index, [operation, operand]] of program.entries()) {
    const at = SOCK_FPROG_BYTES + index * SOCK_FILTER_BYTES;
    view.setUint16(at, operation, true);
    view.setInt32(at + 4, operand, true);
  }
  const result = setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, bytes, SOCK_FPROG_BYTES);
  check(result, 'setsockopt', 'spread a UDP port over several threads');
}
