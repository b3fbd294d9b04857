import { Address6 } from 'ip-address';
import { formatIpv4, parseIpv4 } from '../core/address.ts';

/** Where a node is reached by UDP and TCP alike. */
export interface PeerAddress {
  /** IPv4 dotted quad, or IPv6 in the form of RFC 5952, without brackets. */
  readonly address: string;
  readonly port: number;
}

/** The longest valid form of an IPv6 address with an embedded IPv4 one. */
const ADDRESS_TEXT_LENGTH_MAX = 45;

/** `a.b.c.d:port` or `[v6]:port`; equal for equal peers. */
export function formatPeer(peer: PeerAddress): string {
  return peer.address.includes(':')
    ? `[${peer.address}]:${peer.port}`
    : `${peer.address}:${peer.port}`;
}

/** Whether two peers are the same address and port. */
export function samePeer(a: PeerAddress, b: PeerAddress): boolean {
  return a.port === b.port && a.address === b.address;
}

/**
 * The 4 or 16 bytes of `address` in network order, as memberlist carries it (Go's `net.IP`).
 *
 * @throws {RangeError} if `address` is neither an IPv4 nor an IPv6 address
 */
export function addressBytes(address: string): Uint8Array {
  if (!address.includes(':')) {
    const value = parseIpv4(address);
    return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
  }
  // Zones ("%eth0") and prefix lengths, which Address6 takes, mean nothing to another node.
  const plain = address.length <= ADDRESS_TEXT_LENGTH_MAX && /^[\da-f:.]+$/i.test(address);
  if (!plain || !Address6.isValid(address)) {
    throw new RangeError(
      `Cannot read ${JSON.stringify(address)} as an IP address: expected a.b.c.d or IPv6`,
    );
  }
  const bytes = new Uint8Array(16);
  const digits = new Address6(address).toByteArray();
  bytes.set(digits, bytes.length - digits.length);
  return bytes;
}

/**
 * The text of an address of 4 or 16 bytes. An IPv4-mapped IPv6 address, which Go's `net.IP` may
 * hold for IPv4, becomes a dotted quad.
 *
 * @returns undefined if `bytes` has another length
 */
export function addressText(bytes: Uint8Array): string | undefined {
  if (bytes.length === 16) {
    const mapped = bytes.subarray(0, 12).every((byte, index) => byte === (index < 10 ? 0 : 0xff));
    if (!mapped) return Address6.fromByteArray([...bytes]).correctForm();
  } else if (bytes.length !== 4) {
    return undefined;
  }
  return formatIpv4(new DataView(bytes.buffer, bytes.byteOffset + bytes.length - 4).getUint32(0));
}
