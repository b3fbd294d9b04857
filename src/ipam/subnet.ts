import {
  cidrContains,
  cidrsOverlap,
  formatCidr,
  type Ipv4,
  type Ipv4Cidr,
  parseCidr,
} from '../core/address.ts';
import { IpamError } from './errors.ts';

/** Longest prefix of a subnet: a gateway and one more address. */
export const SUBNET_PREFIX_MAX = 30;

/** Blocks that no host may have an address in (RFC 6890, RFC 1112 for multicast and class E). */
const UNUSABLE_BLOCKS: readonly (readonly [block: Ipv4Cidr, use: string])[] = [
  [parseCidr('0.0.0.0/8'), 'this network'],
  [parseCidr('127.0.0.0/8'), 'loopback'],
  [parseCidr('224.0.0.0/4'), 'multicast'],
  [parseCidr('240.0.0.0/4'), 'reserved'],
];

/**
 * Reads a subnet that a network can have.
 *
 * @param text - `a.b.c.d/n`, host bits zero.
 * @throws {IpamError} SUBNET_INVALID if it cannot be read, is smaller than a /30, or is no unicast
 *   block
 */
export function parseSubnet(text: string): Ipv4Cidr {
  const refuse: Refuse = (reason, options) =>
    new IpamError({ code: 'SUBNET_INVALID', subnet: text, reason }, options);
  const subnet = parseOrRefuse(parseCidr, text, refuse);
  if (subnet.prefix > SUBNET_PREFIX_MAX) {
    throw refuse(
      `it has no room for a gateway and a host, expected /${SUBNET_PREFIX_MAX} or larger`,
    );
  }
  for (const [block, use] of UNUSABLE_BLOCKS) {
    if (cidrsOverlap(subnet, block)) {
      throw refuse(`it overlaps ${formatCidr(block)} (${use}), expected unicast addresses`);
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
