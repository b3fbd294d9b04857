import { Address6 } from 'ip-address';
import { formatCidr, type Ipv4Cidr, parseCidr } from './address.ts';
import { formatIp, type Ip, type Ipv6, isIpv6, parseIpv6 } from './ip.ts';

/** An IPv6 network: `address` has no host bits set. */
export interface Ipv6Cidr {
  readonly address: Ipv6;
  /** Prefix length in bits, 0 to 128. */
  readonly prefix: number;
}

/** A network of either family. For control code: its arithmetic is in bigints. */
export type IpCidr = Ipv4Cidr | Ipv6Cidr;

/** Whether `cidr` is an IPv6 network. */
export function isIpv6Cidr(cidr: IpCidr): cidr is Ipv6Cidr {
  return isIpv6(cidr.address);
}

/** Whether two addresses, or the addresses of two networks, are of one family. */
export function isSameFamily(a: Ip, b: Ip): boolean {
  return isIpv6(a) === isIpv6(b);
}

/** Bits of an address of the family that `ip` is of. */
export function widthOf(ip: Ip): 32 | 128 {
  return isIpv6(ip) ? 128 : 32;
}

/** `ip` as a number of {@link widthOf} bits, the first octet highest. */
export function ipBits(ip: Ip): bigint {
  return isIpv6(ip) ? new Address6(ip).bigInt() : BigInt(ip);
}

/**
 * The address that `bits` are, of the family that `like` is of.
 *
 * @throws {RangeError} if the family has no such address
 */
export function ipOfBits<Family extends Ip>(bits: bigint, like: Family): Family;
export function ipOfBits(bits: bigint, like: Ip): Ip {
  if (bits < 0n || bits >> BigInt(widthOf(like)) !== 0n) {
    throw new RangeError(`Cannot make an address of ${bits}: expected ${widthOf(like)} bits`);
  }
  return isIpv6(like) ? parseIpv6(Address6.fromBigInt(bits).correctForm()) : Number(bits);
}

/** The network of `prefix` bits that begins at `bits`, of the family that `like` is of. */
export function cidrOfBits(bits: bigint, prefix: number, like: IpCidr): IpCidr {
  return isIpv6Cidr(like)
    ? { address: ipOfBits(bits, like.address), prefix }
    : { address: ipOfBits(bits, like.address), prefix };
}

/** The number of host bits of `cidr`. */
export function hostBitsOf(cidr: IpCidr): number {
  return widthOf(cidr.address) - cidr.prefix;
}

/** The highest address of `cidr`, as a number. */
export function lastBitsOf(cidr: IpCidr): bigint {
  return ipBits(cidr.address) + (1n << BigInt(hostBitsOf(cidr))) - 1n;
}

/**
 * Reads `fd00:1::/64`; host bits must be zero.
 *
 * @throws {RangeError} naming what is wrong with `text`
 */
export function parseIpv6Cidr(text: string): Ipv6Cidr {
  const [addressText = '', prefixText = '', ...rest] = text.split('/');
  const prefix = /^\d{1,3}$/.test(prefixText) && rest.length === 0 ? Number(prefixText) : -1;
  if (prefix < 0 || prefix > 128) {
    throw new RangeError(
      `Cannot read ${JSON.stringify(text)} as a subnet: expected an IPv6 address and /n with n in [0, 128]`,
    );
  }
  const address = parseIpv6(addressText);
  const hostBits = BigInt(128 - prefix);
  const network = ipOfBits((ipBits(address) >> hostBits) << hostBits, address);
  if (network !== address) {
    throw new RangeError(
      `Cannot use ${text} as a subnet: host bits are set, did you mean ${network}/${prefix}?`,
    );
  }
  return { address, prefix };
}

/**
 * Reads a network of either family.
 *
 * @throws {RangeError} naming what is wrong with `text`
 */
export function parseIpCidr(text: string): IpCidr {
  return text.includes(':') ? parseIpv6Cidr(text) : parseCidr(text);
}

/** `10.0.0.0/24`, or `fd00:1::/64`. */
export function formatIpCidr(cidr: IpCidr): string {
  return isIpv6Cidr(cidr) ? `${formatIp(cidr.address)}/${cidr.prefix}` : formatCidr(cidr);
}

/** Whether `ip` lies in `cidr`; never if it is of the other family. */
export function ipCidrContains(cidr: IpCidr, ip: Ip): boolean {
  if (!isSameFamily(cidr.address, ip)) return false;
  const hostBits = BigInt(hostBitsOf(cidr));
  return ipBits(ip) >> hostBits === ipBits(cidr.address) >> hostBits;
}

/** Whether two networks share an address; never if they are of different families. */
export function ipCidrsOverlap(a: IpCidr, b: IpCidr): boolean {
  return a.prefix <= b.prefix ? ipCidrContains(a, b.address) : ipCidrContains(b, a.address);
}

/** Orders networks: IPv4 before IPv6, then by address. */
export function compareIpCidrs(a: IpCidr, b: IpCidr): number {
  if (!isSameFamily(a.address, b.address)) return isIpv6Cidr(a) ? 1 : -1;
  const [left, right] = [ipBits(a.address), ipBits(b.address)];
  return left < right ? -1 : left > right ? 1 : 0;
}
