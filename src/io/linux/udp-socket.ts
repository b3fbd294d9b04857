import { formatIpPort, type Ip, isIpv6, writeIp16 } from '../../core/ip.ts';
import {
  bind,
  check,
  close,
  connect,
  EADDRINUSE,
  errno,
  getsockname,
  getsockopt,
  SyscallError,
  setsockopt,
  socket,
} from './ffi.ts';

// asm-generic/socket.h, linux/udp.h, linux/in.h, linux/in6.h
export const AF_INET = 2;
export const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x8_0000;
export const SOL_SOCKET = 1;
const SO_REUSEPORT = 15;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const IPPROTO_IP = 0;
const IP_MTU_DISCOVER = 10;
const IP_MTU = 14;
const IPPROTO_IPV6 = 41;
const IPV6_MTU_DISCOVER = 23;
const IPV6_MTU = 24;
const IPV6_V6ONLY = 26;
const IPV6_DONTFRAG = 62;
/** Values of `IP_MTU_DISCOVER` and of `IPV6_MTU_DISCOVER`. */
const PMTUDISC_DONT = 0;
const PMTUDISC_DO = 2;
const PMTUDISC_PROBE = 3;
export const SOL_UDP = 17;
export const UDP_SEGMENT = 103;
export const UDP_GRO = 104;
const UDP_NO_CHECK6_RX = 102;

/** Sizes of `struct sockaddr_in` and `struct sockaddr_in6`. */
export const SOCKADDR_IN_BYTES = 16;
export const SOCKADDR_IN6_BYTES = 28;
/** Size of `struct msghdr` (64-bit), and where its fields are. */
export const MSGHDR_BYTES = 56;
export const MSG_NAME_LENGTH = 8;
export const MSG_IOV = 16;
export const MSG_IOV_COUNT = 24;
export const MSG_CONTROL = 32;
export const MSG_CONTROL_LENGTH = 40;
/** Size of `struct mmsghdr`: a msghdr, a length of 32 bits, padding. */
export const MMSGHDR_BYTES = 64;
/** Size of `struct cmsghdr`, whose fields are length (64 bits), level and type. */
export const CMSGHDR_BYTES = 16;

/** Room for the bursts of several senders; the kernel doubles it for its own bookkeeping. */
const SOCKET_BUFFER_BYTES = 8 * 1024 * 1024;
/** Most segments that the kernel cuts out of one send (`UDP_MAX_SEGMENTS`, 64 until Linux 6.9). */
export const UDP_SEGMENTS_MAX = 64;
/** Most payload bytes of one datagram before it is segmented, IPv4's limit being the smaller one. */
export const UDP_PAYLOAD_BYTES_MAX = 65_507;

/** Turns a socket option on. */
export const ON: Uint8Array = option(1);

/** The value of an integer option. */
function option(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setInt32(0, value, true);
  return bytes;
}

/**
 * What becomes of a datagram that is larger than the path's MTU:
 * - `refused`: the send fails, if the kernel knows that MTU
 * - `tried`: it leaves whole if the interface takes it, whatever the kernel knows of the path
 * - `fragmented`: it leaves in fragments as the kernel knows the path; IPv4 may also be cut on its way,
 *   IPv6 never is (RFC 8200 section 5)
 */
export type Oversize = 'refused' | 'tried' | 'fragmented';

/**
 * Opens a non-blocking UDP socket of the underlay and binds it.
 *
 * @param address - Its family is the socket's; an IPv6 socket takes IPv6 alone.
 * @param port - 0 lets the kernel choose.
 * @param options.shared - Whether other sockets of this process share the port, so that the kernel spreads
 *   flows over them (`SO_REUSEPORT`).
 * @param options.oversize - `refused` unless said otherwise: an outer packet is never fragmented
 *   (RFC 7348 section 4.3).
 * @throws {SyscallError} if the port is taken
 */
export function openUdp(
  address: Ip,
  port: number,
  options: { readonly shared?: boolean; readonly oversize?: Oversize } = {},
): number {
  const { shared = false, oversize = 'refused' } = options;
  const family = isIpv6(address) ? AF_INET6 : AF_INET;
  const type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  const fd = check(socket(family, type, 0), 'socket', 'open a UDP socket');
  for (const name of [SO_RCVBUFFORCE, SO_SNDBUFFORCE]) {
    setsockopt(fd, SOL_SOCKET, name, option(SOCKET_BUFFER_BYTES), 4);
  }
  if (shared) sharePort(fd);
  setOversize(fd, family, oversize);
  if (family === AF_INET6) {
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, ON, 4);
    // VTEPs may send without an outer checksum (RFC 7348 section 5, RFC 6935).
    setsockopt(fd, SOL_UDP, UDP_NO_CHECK6_RX, ON, 4);
  }
  const name = socketAddress(address, port);
  if (bind(fd, name, name.length) < 0) {
    const reason = errno();
    close(fd);
    const hint = reason === EADDRINUSE ? ' (another process or a kernel VXLAN device uses it)' : '';
    throw new SyscallError('bind', `use UDP ${formatIpPort(address, port)}${hint}`, reason);
  }
  return fd;
}

function setOversize(fd: number, family: number, oversize: Oversize): void {
  const discovery = { refused: PMTUDISC_DO, tried: PMTUDISC_PROBE, fragmented: PMTUDISC_DONT };
  const value = option(discovery[oversize]);
  if (family === AF_INET) {
    setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, value, 4);
    return;
  }
  setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, value, 4);
  // Without it the kernel would make fragments where for IPv4 it refuses.
  if (oversize !== 'fragmented') setsockopt(fd, IPPROTO_IPV6, IPV6_DONTFRAG, ON, 4);
}

/**
 * What the kernel takes for the MTU of the path to `address`, from its routes and the ICMP errors that it
 * believed; undefined where there is no route.
 */
export function kernelPathMtu(address: Ip): number | undefined {
  const isV6 = isIpv6(address);
  const fd = socket(isV6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return undefined;
  try {
    const name = socketAddress(address, 9); // no datagram is sent: any port will do
    if (connect(fd, name, name.length) < 0) return undefined;
    const value = option(0);
    const [level, mtu] = isV6 ? [IPPROTO_IPV6, IPV6_MTU] : [IPPROTO_IP, IP_MTU];
    if (getsockopt(fd, level, mtu, value, option(value.length)) < 0) return undefined;
    return new DataView(value.buffer).getInt32(0, true);
  } finally {
    close(fd);
  }
}

/** Lets other sockets of this user have the port of `fd` too (`SO_REUSEPORT`). */
export function sharePort(fd: number): void {
  check(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, ON, 4), 'setsockopt', 'share a UDP port');
}

/** The port that the socket `fd` is bound to. */
export function udpPort(fd: number): number {
  const name = new Uint8Array(SOCKADDR_IN6_BYTES);
  const length = Uint8Array.of(SOCKADDR_IN6_BYTES, 0, 0, 0);
  check(getsockname(fd, name, length), 'getsockname', 'see the port of a UDP socket');
  return new DataView(name.buffer).getUint16(2);
}

/** A `struct sockaddr_in` or `sockaddr_in6`. */
function socketAddress(address: Ip, port: number): Uint8Array {
  const isV6 = isIpv6(address);
  const name = new Uint8Array(isV6 ? SOCKADDR_IN6_BYTES : SOCKADDR_IN_BYTES);
  const view = new DataView(name.buffer);
  view.setUint16(0, isV6 ? AF_INET6 : AF_INET, true);
  view.setUint16(2, port);
  if (isV6) writeIp16(view, 8, address);
  else view.setUint32(4, address);
  return name;
}
