import { formatCidr, type Ipv4, type Ipv4Cidr } from '../core/address.ts';
import {
  formatIpCidr,
  hostBitsOf,
  type Ipv6Cidr,
  ipBits,
  ipCidrContains,
  ipOfBits,
  parseIpv6Cidr,
} from '../core/cidr.ts';
import { type Ipv6, parseIpv6 } from '../core/ip.ts';
import { IpamError } from './errors.ts';
import { parseIpv6Subnet, parseOrRefuse, type Refuse } from './subnet.ts';

/**
 * How the IPv6 addresses of a dual-stack network follow from its IPv4 ones: the n-th address of the
 * IPv4 subnet has the n-th one of `ipRange` beside it. So an endpoint has one host number, in both
 * of its addresses and in its MAC, and what keeps IPv4 addresses apart keeps IPv6 addresses apart:
 * there is no second book to keep. (A type and not an interface, so that it is assignable to `Json`.)
 */
export type Ipv6Pairing = {
  /** Such as `fd00:1::/64`. */
  readonly subnet: string;
  readonly gateway: string;
  /** The subnet or a part of it, with at least as many addresses as the IPv4 subnet. */
  readonly ipRange: string;
};

/** The IPv6 configuration of a network; its fields are those of an IPv4 one. */
export interface Ipv6Config {
  readonly subnet: string;
  /** The subnet's first address by default. */
  readonly gateway?: string;
  /** The whole subnet by default. */
  readonly ipRange?: string;
  /** Addresses that something else on the network has, by name. */
  readonly auxAddresses?: Readonly<Record<string, string>>;
}

/**
 * Checks the IPv6 configuration of a network.
 *
 * @param subnet - The network's IPv4 subnet, whose addresses will be paired.
 * @returns the pairing, and the addresses that no endpoint may have: the gateway's and auxiliary ones
 * @throws {IpamError} SUBNET_INVALID, GATEWAY_INVALID, IP_RANGE_INVALID or AUX_ADDRESS_INVALID
 */
export function createPairing(
  config: Ipv6Config,
  subnet: Ipv4Cidr,
): { readonly pairing: Ipv6Pairing; readonly reserved: readonly Ipv6[] } {
  const cidr = parseIpv6Subnet(config.subnet);
  requireRoom(cidr, subnet, (reason) => {
    return new IpamError({ code: 'SUBNET_INVALID', subnet: config.subnet, reason });
  });
  const ipRange = config.ipRange === undefined ? cidr : parseRange(config.ipRange, cidr, subnet);
  const gateway = parseGateway(config.gateway, cidr);
  const reserved = new Map<Ipv6, string>([[gateway, 'the gateway']]);
  for (const [name, text] of Object.entries(config.auxAddresses ?? {})) {
    const refuse: Refuse = (reason, options) =>
      new IpamError({ code: 'AUX_ADDRESS_INVALID', name, address: text, reason }, options);
    const address = parseHost(text, cidr, refuse);
    const holder = reserved.get(address);
    if (holder !== undefined) throw refuse(`${holder} has it`);
    reserved.set(address, `auxiliary address ${JSON.stringify(name)}`);
  }
  return {
    pairing: { subnet: formatIpCidr(cidr), gateway, ipRange: formatIpCidr(ipRange) },
    reserved: [...reserved.keys()],
  };
}

/** The IPv6 address beside `address`, an address of `subnet`. */
export function pairedAddress(pairing: Ipv6Pairing, subnet: Ipv4Cidr, address: Ipv4): Ipv6 {
  const { address: first } = parseIpv6Cidr(pairing.ipRange);
  return ipOfBits(ipBits(first) + BigInt(address - subnet.address), first);
}

/** The address of `subnet` that `address` is beside; undefined if it is beside none. */
export function pairedIpv4(
  pairing: Ipv6Pairing,
  subnet: Ipv4Cidr,
  address: Ipv6,
): Ipv4 | undefined {
  const number = ipBits(address) - ipBits(parseIpv6Cidr(pairing.ipRange).address);
  const isBeside = number >= 0n && number >> BigInt(hostBitsOf(subnet)) === 0n;
  return isBeside ? subnet.address + Number(number) : undefined;
}

function parseRange(text: string, subnet6: Ipv6Cidr, subnet: Ipv4Cidr): Ipv6Cidr {
  const refuse: Refuse = (reason, options) =>
    new IpamError({ code: 'IP_RANGE_INVALID', ipRange: text, reason }, options);
  const range = parseOrRefuse(parseIpv6Cidr, text, refuse);
  if (range.prefix < subnet6.prefix || !ipCidrContains(subnet6, range.address)) {
    throw refuse(`expected a part of ${formatIpCidr(subnet6)}`);
  }
  requireRoom(range, subnet, refuse);
  return range;
}

function requireRoom(range: Ipv6Cidr, subnet: Ipv4Cidr, refuse: Refuse): void {
  const prefixMax = 128 - hostBitsOf(subnet);
  if (range.prefix <= prefixMax) return;
  throw refuse(
    `it has fewer addresses than ${formatCidr(subnet)}, expected /${prefixMax} or larger`,
  );
}

function parseGateway(text: string | undefined, subnet: Ipv6Cidr): Ipv6 {
  if (text === undefined) return ipOfBits(ipBits(subnet.address) + 1n, subnet.address);
  return parseHost(
    text,
    subnet,
    (reason, options) => new IpamError({ code: 'GATEWAY_INVALID', gateway: text, reason }, options),
  );
}

/** A host may have any address of the subnet but the first: that one means its routers (RFC 4291). */
function parseHost(text: string, subnet: Ipv6Cidr, refuse: Refuse): Ipv6 {
  const address = parseOrRefuse(parseIpv6, text, refuse);
  if (!ipCidrContains(subnet, address) || address === subnet.address) {
    throw refuse(`expected a host address of ${formatIpCidr(subnet)}`);
  }
  return address;
}
