import { cidrContains, type Ipv4, type Ipv4Cidr, parseCidr } from '../core/address.ts';
import {
  formatIpCidr,
  hostBitsOf,
  type IpCidr,
  type Ipv6Cidr,
  ipCidrsOverlap,
  parseIpCidr,
  parseIpv6Cidr,
} from '../core/cidr.ts';
import { IpamError } from './errors.ts';

/** Fewest host bits of a subnet: a gateway and one more address. */
const HOST_BITS_MIN = 2;

/**
 * Blocks that no host may have an address in: RFC 6890, RFC 1112 for multicast and class E, RFC 4291
 * section 2.4. Link-local addresses mean another host on each link.
 */
const UNUSABLE_BLOCKS: readonly (readonly [block: IpCidr, use: string])[] = [
  [parseCidr('0.0.0.0/8'), 'this network'],
  [parseCidr('127.0.0.0/8'), 'loopback'],
  [parseCidr('224.0.0.0/4'), 'multicast'],
  [parseCidr('240.0.0.0/4'), 'reserved'],
  [parseIpv6Cidr('::/8'), 'loopback and reserved'],
  [parseIpv6Cidr('fe80::/10'), 'link-local'],
  [parseIpv6Cidr('ff00::/8'), 'multicast'],
];

/**
 * Reads a subnet of either family that a network can have.
 *
 * @param text - `a.b.c.d/n` or `fd00:1::/64`, host bits zero.
 * @throws {IpamError} SUBNET_INVALID if it cannot be read, has fewer than two host bits, or is no
 *   unicast block
 */
export function parseSubnet(text: string): IpCidr {
  return parseUsable(parseIpCidr, text);
}

/**
 * Reads the IPv4 subnet of a network.
 *
 * @throws {IpamError} SUBNET_INVALID, as {@link parseSubnet}
 */
export function parseIpv4Subnet(text: string): Ipv4Cidr {
  return parseUsable(parseCidr, text);
}

/**
 * Reads the IPv6 subnet of a network.
 *
 * @throws {IpamError} SUBNET_INVALID, as {@link parseSubnet}
 */
export function parseIpv6Subnet(text: string): Ipv6Cidr {
  return parseUsable(parseIpv6Cidr, text);
}

function parseUsable<Cidr extends IpCidr>(parse: (text: string) => Cidr, text: string): Cidr {
  const refuse: Refuse = (reason, options) =>
    new IpamError({ code: 'SUBNET_INVALID', subnet: text, reason }, options);
  const subnet = parseOrRefuse(parse, text, refuse);
  const hostBits = hostBitsOf(subnet);
  if (hostBits < HOST_BITS_MIN) {
    const prefixMax = subnet.prefix + hostBits - HOST_BITS_MIN;
    throw refuse(`it has no room for a gateway and a host, expected /${prefixMax} or larger`);
  }
  for (const [block, use] of UNUSABLE_BLOCKS) {
    if (ipCidrsOverlap(subnet, block)) {
      throw refuse(`it overlaps ${formatIpCidr(block)} (${use}), expected unicast addresses`);
    }
  }
  return subnet;
}

/** The highest address of `cidr`; of a subnet, its broadcast address. */
export function lastAddress(cidr: Ipv4Cidr): Ipv4 {
  return cidr.address + 2 ** (32 - cidr.prefix) - 1;
}

/**
 * Whether a host can have `address`: in `subnet`, and neither its network nor its broadcast
 * address.
 */
export function isHostAddress(subnet: Ipv4Cidr, address: Ipv4): boolean {
  return (
    cidrContains(subnet, address) && address !== subnet.address && address !== lastAddress(subnet)
  );
}

/** Makes the error of a refused text from the reason that a parser gave. */
export type Refuse = (reason: string, options?: ErrorOptions) => IpamError;

/**
 * Runs one of core's strict parsers on what a person typed.
 *
 * @throws {IpamError} what `refuse` makes of the parser's complaint
 */
export function parseOrRefuse<T>(parse: (text: string) => T, text: string, refuse: Refuse): T {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    // The parser's sentence names the text, and so does the refusal: keep what comes after.
    const reason = error.message.slice(error.message.lastIndexOf(': ') + 2);
    throw refuse(reason, { cause: error });
  }
}
