import {
  check,
  close,
  EBUSY,
  EINVAL,
  errno,
  ioctlBuffer,
  ioctlNumber,
  open,
  SyscallError,
  setns,
} from './ffi.ts';

// linux/if_tun.h and asm-generic/fcntl.h
const O_RDWR = 0x2;
const O_RDONLY = 0;
const O_NONBLOCK = 0x800;
const O_CLOEXEC = 0x8_0000;
const TUNSETIFF = 0x4004_54ca;
const TUNGETIFF = 0x8004_54d2;
const TUNSETPERSIST = 0x4004_54cb;
const TUNSETOFFLOAD = 0x4004_54d0;
const TUNSETVNETHDRSZ = 0x4004_54d8;
const IFF_TAP = 0x0002;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const TUN_F_CSUM = 0x01;
const TUN_F_TSO4 = 0x02;
const TUN_F_TSO6 = 0x04;
const TUN_F_USO4 = 0x20;
const TUN_F_USO6 = 0x40;
const CLONE_NEWNET = 0x4000_0000;
const IFREQ_BYTES = 40;
const IFNAME_BYTES_MAX = 15;

/** Size of the `struct virtio_net_hdr` in front of every frame of a TAP that weft opened. */
export const VNET_HEADER_BYTES = 10;

/**
 * Opens the TAP `device` in the calling thread's network namespace, makes it when it does not exist,
 * and makes it persistent: it survives this process, and the next one gets it back by name.
 * Frames carry a virtio-net header; checksums and segmentation (TSO, USO) are left to the reader.
 *
 * @param device - Interface name, at most 15 bytes.
 * @param queues - How many descriptors to open, at least 1; the kernel spreads flows over them. A device
 *   that was made for one of them has one for good, and is opened so.
 * @returns the non-blocking descriptors, one per queue; valid on every thread
 * @throws {SyscallError} if the device is held by another process (EBUSY) or cannot be made
 */
export function openTap(device: string, queues: number): readonly number[] {
  if (device.length === 0 || Buffer.byteLength(device) > IFNAME_BYTES_MAX) {
    throw new RangeError(
      `Cannot name a TAP ${JSON.stringify(device)}: expected 1 to ${IFNAME_BYTES_MAX} bytes`,
    );
  }
  const isMulti = queues > 1;
  const first = openQueue(device, isMulti);
  // The kernel refuses the other kind of an existing device.
  if (first === undefined) return [mustOpenQueue(device, !isMulti)];
  const fds = [first];
  try {
    while (fds.length < queues) fds.push(mustOpenQueue(device, isMulti));
    return fds;
  } catch (error) {
    for (const fd of fds) close(fd);
    throw error;
  }
}

function mustOpenQueue(device: string, isMulti: boolean): number {
  const fd = openQueue(device, isMulti);
  if (fd !== undefined) return fd;
  throw new SyscallError(
    'TUNSETIFF',
    `open the TAP ${device} (it is another kind of device)`,
    EINVAL,
  );
}

/**
 * Opens one queue of the TAP `device`.
 *
 * @param isMulti - Whether it is, or is to be, a device with several queues.
 * @returns the descriptor; undefined if there is a device that is not of this kind
 */
function openQueue(device: string, isMulti: boolean): number | undefined {
  const fd = check(
    open('/dev/net/tun', O_RDWR | O_NONBLOCK | O_CLOEXEC),
    'open',
    'open /dev/net/tun',
  );
  try {
    if (attachQueue(fd, device, isMulti)) {
      setUpQueue(fd, device);
      return fd;
    }
  } catch (error) {
    close(fd);
    throw error;
  }
  close(fd);
  return undefined;
}

function attachQueue(fd: number, device: string, isMulti: boolean): boolean {
  const ifreq = new Uint8Array(IFREQ_BYTES);
  ifreq.set(new TextEncoder().encode(device));
  const flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (isMulti ? IFF_MULTI_QUEUE : 0);
  new DataView(ifreq.buffer).setUint16(16, flags, true);
  if (ioctlBuffer(fd, TUNSETIFF, ifreq) >= 0) return true;
  const reason = errno();
  if (reason === EINVAL) return false;
  const holder = reason === EBUSY ? ' (another process, or another kind of device, holds it)' : '';
  throw new SyscallError('TUNSETIFF', `open the TAP ${device}${holder}`, reason);
}

function setUpQueue(fd: number, device: string): void {
  const headerSize = new Uint8Array(4);
  new DataView(headerSize.buffer).setUint32(0, VNET_HEADER_BYTES, true);
  check(ioctlBuffer(fd, TUNSETVNETHDRSZ, headerSize), 'TUNSETVNETHDRSZ', `set up ${device}`);
  setOffloads(fd, device);
  check(ioctlNumber(fd, TUNSETPERSIST, 1), 'TUNSETPERSIST', `keep ${device}`);
}

/**
 * Takes over a queue of the TAP `device` that an earlier agent had open. It is then set up as {@link openTap}
 * would, whatever that agent's version was.
 *
 * @returns whether the device has one queue for good; undefined if `fd` is not of that device
 * @throws {SyscallError} if the kernel refuses the settings
 */
export function adoptTap(fd: number, device: string): 'single-queue' | 'multi-queue' | undefined {
  const ifreq = new Uint8Array(IFREQ_BYTES);
  if (ioctlBuffer(fd, TUNGETIFF, ifreq) < 0) return undefined; // the device is gone: EBADFD
  const name = new TextDecoder().decode(ifreq.subarray(0, ifreq.indexOf(0)));
  if (name !== device) return undefined;
  setUpQueue(fd, device);
  const flags = new DataView(ifreq.buffer).getUint16(16, true);
  return (flags & IFF_MULTI_QUEUE) === 0 ? 'single-queue' : 'multi-queue';
}

function setOffloads(fd: number, device: string): void {
  const tso = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
  // USO came with Linux 6.2: without it UDP arrives segmented, which is only slower.
  if (ioctlNumber(fd, TUNSETOFFLOAD, tso | TUN_F_USO4 | TUN_F_USO6) >= 0) return;
  check(ioctlNumber(fd, TUNSETOFFLOAD, tso), 'TUNSETOFFLOAD', `set the offloads of ${device}`);
}

/**
 * Opens a TAP in another network namespace. Blocks and moves the calling thread there and back: run
 * it on a thread of its own ({@link file://./tap-opener.ts}).
 *
 * @param netnsPath - For instance `/run/netns/weft-x` or `/proc/123/ns/net`.
 * @throws {SyscallError} if the namespace or the device cannot be opened
 */
export function openTapIn(netnsPath: string, device: string, queues: number): readonly number[] {
  const home = openNamespace('/proc/thread-self/ns/net');
  try {
    const target = openNamespace(netnsPath);
    try {
      check(setns(target, CLONE_NEWNET), 'setns', `enter the network namespace ${netnsPath}`);
    } finally {
      close(target);
    }
    try {
      return openTap(device, queues);
    } finally {
      check(setns(home, CLONE_NEWNET), 'setns', 'return to the own network namespace');
    }
  } finally {
    close(home);
  }
}

function openNamespace(path: string): number {
  return check(open(path, O_RDONLY | O_CLOEXEC), 'open', `open the network namespace ${path}`);
}

/** Closes the descriptors of a TAP that this module opened. The device stays: it is persistent. */
export function closeTap(fds: readonly number[]): void {
  for (const fd of fds) close(fd);
}
