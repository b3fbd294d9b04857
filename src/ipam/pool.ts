import {
  cidrContains,
  formatCidr,
  formatIpv4,
  type Ipv4,
  type Ipv4Cidr,
  parseCidr,
  parseIpv4,
} from '../core/address.ts';
import { IpamError } from './errors.ts';
import { lowerBound, nextFree } from './next-fit.ts';
import {
  createPairing,
  type Ipv6Config,
  type Ipv6Pairing,
  pairedAddress,
  pairedIpv4,
} from './pairing.ts';
import {
  isHostAddress,
  lastAddress,
  parseIpv4Subnet,
  parseOrRefuse,
  type Refuse,
} from './subnet.ts';

/**
 * How many released addresses stay unused while others are free. A peer that missed the release
 * would send to whoever has the address next; the larger the number, the longer that is put off.
 */
export const RECENTLY_RELEASED_MAX = 128;

/** What can be given an address: a service's VIP, a task, or a node's own end on the network. */
export type HolderKind = 'vip' | 'task' | 'node';

/**
 * What an address is taken for; `gateway` and `aux` come with the subnet and are never released.
 */
export type AddressKind = HolderKind | 'gateway' | 'aux';

/** `holder` is an object's id, or the name of an auxiliary address; empty for the gateway. */
export type AddressAllocation = readonly [address: Ipv4, kind: AddressKind, holder: string];

/**
 * The addresses of one network: a document for the store, replaced and never changed. (A type and
 * not an interface, so that it is assignable to `Json`.)
 */
export type PoolState = {
  /** `a.b.c.d/n`. */
  readonly subnet: string;
  readonly gateway: string;
  /** Where addresses that nobody asked for by value come from: the subnet or a part of it. */
  readonly ipRange: string;
  /** Where the next search begins. */
  readonly cursor: Ipv4;
  /** Free again, oldest release first. BOUNDED by {@link RECENTLY_RELEASED_MAX}. */
  readonly recentlyReleased: readonly Ipv4[];
  /** Sorted by address, each address once. BOUNDED by the size of the subnet. */
  readonly allocations: readonly AddressAllocation[];
  /** The IPv6 addresses beside those; absent on a network without IPv6. */
  readonly ipv6?: Ipv6Pairing;
};

/** One IPAM configuration of a network, as Docker's `--subnet`, `--gateway` and so on give it. */
export interface PoolConfig {
  readonly subnet: string;
  /** The subnet's first address by default. */
  readonly gateway?: string;
  /** The whole subnet by default. */
  readonly ipRange?: string;
  /** Addresses that something else on the network has, by name. */
  readonly auxAddresses?: Readonly<Record<string, string>>;
  /** Of a dual-stack network. */
  readonly ipv6?: Ipv6Config;
}

/** Who asks for an address. */
export interface AddressRequest {
  readonly holder: string;
  readonly kind: HolderKind;
  /** A certain address, which need not be in the IP range; any one of the range by default. */
  readonly address?: string;
}

/** What an endpoint is given. */
export interface AddressPair {
  /** A dotted quad. */
  readonly address: string;
  /** On a dual-stack network, in the form of RFC 5952. */
  readonly address6?: string;
}

/** How full a pool is. Addresses given by value outside of the IP range count in neither. */
export interface PoolUsage {
  /** How many addresses of the range can have a holder at once. */
  readonly capacity: number;
  /** How many have one. */
  readonly used: number;
}

/**
 * Makes the pool of a network, in which only the gateway and the auxiliary addresses are taken. An
 * IPv4 address beside a reserved IPv6 one is taken, too.
 *
 * @throws {IpamError} SUBNET_INVALID, GATEWAY_INVALID, IP_RANGE_INVALID or AUX_ADDRESS_INVALID
 */
export function createPool(config: PoolConfig): PoolState {
  const subnet = parseIpv4Subnet(config.subnet);
  const ipRange = config.ipRange === undefined ? subnet : parseIpRange(config.ipRange, subnet);
  const gateway = parseGateway(config.gateway ?? formatIpv4(subnet.address + 1), subnet);
  const taken = new Map<Ipv4, AddressAllocation>([[gateway, [gateway, 'gateway', '']]]);
  for (const [name, text] of Object.entries(config.auxAddresses ?? {})) {
    const refuse: Refuse = (reason, options) =>
      new IpamError({ code: 'AUX_ADDRESS_INVALID', name, address: text, reason }, options);
    const address = parseHostAddress(text, subnet, refuse);
    const holder = taken.get(address);
    if (holder !== undefined) throw refuse(`${describeHolder(holder)} has it`);
    taken.set(address, [address, 'aux', name]);
  }
  const ipv6 = config.ipv6 === undefined ? undefined : pairWith(config.ipv6, subnet, taken);
  return {
    subnet: formatCidr(subnet),
    gateway: formatIpv4(gateway),
    ipRange: formatCidr(ipRange),
    cursor: ipRange.address,
    recentlyReleased: [],
    allocations: [...taken.values()].sort((a, b) => a[0] - b[0]),
    ...(ipv6 === undefined ? {} : { ipv6 }),
  };
}

/** Pairs the addresses of `subnet`, and takes those beside which no endpoint may be. */
function pairWith(
  config: Ipv6Config,
  subnet: Ipv4Cidr,
  taken: Map<Ipv4, AddressAllocation>,
): Ipv6Pairing {
  const { pairing, reserved } = createPairing(config, subnet);
  for (const address6 of reserved) {
    const address = pairedIpv4(pairing, subnet, address6);
    if (address === undefined || taken.has(address) || !isHostAddress(subnet, address)) continue;
    taken.set(address, [address, 'aux', address6]);
  }
  return pairing;
}

/**
 * Gives an address to a holder. One that was released lately is given only when no other is free,
 * the one released first before the others; one that is asked for by value is given whenever it is
 * free.
 *
 * @returns the pool to store, the address as a dotted quad, and the IPv6 address beside it
 * @throws {IpamError} POOL_EXHAUSTED, ADDRESS_IN_USE, ADDRESS_OUT_OF_RANGE or ADDRESS_INVALID
 */
export function allocateAddress(
  pool: PoolState,
  request: AddressRequest,
): { readonly pool: PoolState } & AddressPair {
  const wanted = request.address;
  const address = wanted === undefined ? findAddress(pool) : checkWanted(pool, wanted);
  const allocation: AddressAllocation = [address, request.kind, request.holder];
  const index = lowerBound(pool.allocations, address);
  const next: PoolState = {
    ...pool,
    cursor: wanted === undefined ? address + 1 : pool.cursor,
    recentlyReleased: pool.recentlyReleased.filter((released) => released !== address),
    allocations: pool.allocations.toSpliced(index, 0, allocation),
  };
  const { ipv6 } = pool;
  return {
    pool: next,
    address: formatIpv4(address),
    ...(ipv6 && { address6: pairedAddress(ipv6, parseCidr(pool.subnet), address) }),
  };
}

/**
 * Takes `address` back from its holder.
 *
 * @param address - A dotted quad that {@link allocateAddress} returned.
 * @throws {IpamError} ADDRESS_NOT_ALLOCATED if it has no holder; the gateway and auxiliary
 *   addresses have none
 * @throws {RangeError} if `address` is not a dotted quad
 */
export function releaseAddress(pool: PoolState, address: string): PoolState {
  const value = parseIpv4(address);
  const allocation = pool.allocations[lowerBound(pool.allocations, value)];
  if (allocation?.[0] !== value || !isReleasable(allocation)) {
    throw new IpamError({ code: 'ADDRESS_NOT_ALLOCATED', address, subnet: pool.subnet });
  }
  return release(pool, (candidate) => candidate === allocation);
}

/** Takes all addresses of `holder` back; the same pool if it has none. */
export function releaseHolder(pool: PoolState, holder: string): PoolState {
  return release(pool, (candidate) => isReleasable(candidate) && candidate[2] === holder);
}

/** How full `pool` is. */
export function usage(pool: PoolState): PoolUsage {
  const { first, last } = dynamicRange(pool);
  let used = 0;
  let reserved = 0;
  for (const allocation of pool.allocations) {
    if (allocation[0] < first || allocation[0] > last) continue;
    if (isReleasable(allocation)) used += 1;
    else reserved += 1;
  }
  return { capacity: last - first + 1 - reserved, used };
}

/** The addresses that may be given unasked: host addresses of the IP range. */
function dynamicRange(pool: PoolState): { readonly first: Ipv4; readonly last: Ipv4 } {
  const subnet = parseCidr(pool.subnet);
  const ipRange = parseCidr(pool.ipRange);
  return {
    first: Math.max(ipRange.address, subnet.address + 1),
    last: Math.min(lastAddress(ipRange), lastAddress(subnet) - 1),
  };
}

function findAddress(pool: PoolState): Ipv4 {
  const except = new Set(pool.recentlyReleased);
  const range = { ...dynamicRange(pool), from: pool.cursor, except };
  const address = nextFree(pool.allocations, range) ?? pool.recentlyReleased[0];
  if (address === undefined) {
    const { capacity } = usage(pool);
    throw new IpamError({ code: 'POOL_EXHAUSTED', subnet: pool.subnet, capacity });
  }
  return address;
}

function checkWanted(pool: PoolState, text: string): Ipv4 {
  const address = parseOrRefuse(
    parseIpv4,
    text,
    (reason, options) => new IpamError({ code: 'ADDRESS_INVALID', address: text, reason }, options),
  );
  if (!isHostAddress(parseCidr(pool.subnet), address)) {
    throw new IpamError({ code: 'ADDRESS_OUT_OF_RANGE', address: text, subnet: pool.subnet });
  }
  const allocation = pool.allocations[lowerBound(pool.allocations, address)];
  if (allocation?.[0] === address) {
    const holder = describeHolder(allocation);
    throw new IpamError({ code: 'ADDRESS_IN_USE', address: text, holder });
  }
  return address;
}

function release(
  pool: PoolState,
  isReleased: (allocation: AddressAllocation) => boolean,
): PoolState {
  const { first, last } = dynamicRange(pool);
  const kept: AddressAllocation[] = [];
  const recentlyReleased = [...pool.recentlyReleased];
  for (const allocation of pool.allocations) {
    const address = allocation[0];
    if (!isReleased(allocation)) kept.push(allocation);
    else if (address >= first && address <= last) recentlyReleased.push(address);
  }
  if (kept.length === pool.allocations.length) return pool;
  return {
    ...pool,
    recentlyReleased: recentlyReleased.slice(-RECENTLY_RELEASED_MAX),
    allocations: kept,
  };
}

function isReleasable(allocation: AddressAllocation): boolean {
  return allocation[1] !== 'gateway' && allocation[1] !== 'aux';
}

function describeHolder([, kind, holder]: AddressAllocation): string {
  if (kind === 'gateway') return 'the gateway';
  return kind === 'aux' ? `auxiliary address ${JSON.stringify(holder)}` : `${kind} ${holder}`;
}

function parseHostAddress(text: string, subnet: Ipv4Cidr, refuse: Refuse): Ipv4 {
  const address = parseOrRefuse(parseIpv4, text, refuse);
  if (!isHostAddress(subnet, address)) {
    throw refuse(`expected a host address of ${formatCidr(subnet)}`);
  }
  return address;
}

function parseGateway(text: string, subnet: Ipv4Cidr): Ipv4 {
  return parseHostAddress(
    text,
    subnet,
    (reason, options) => new IpamError({ code: 'GATEWAY_INVALID', gateway: text, reason }, options),
  );
}

function parseIpRange(text: string, subnet: Ipv4Cidr): Ipv4Cidr {
  const refuse: Refuse = (reason, options) =>
    new IpamError({ code: 'IP_RANGE_INVALID', ipRange: text, reason }, options);
  const range = parseOrRefuse(parseCidr, text, refuse);
  if (range.prefix < subnet.prefix || !cidrContains(subnet, range.address)) {
    throw refuse(`expected a part of ${formatCidr(subnet)}`);
  }
  return range;
}
