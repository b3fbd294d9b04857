import {
  cidrOfBits,
  compareIpCidrs,
  formatIpCidr,
  type IpCidr,
  ipBits,
  ipCidrsOverlap,
  isIpv6Cidr,
  isSameFamily,
  lastBitsOf,
  parseIpCidr,
  widthOf,
} from '../core/cidr.ts';
import { invariant } from '../core/invariant.ts';
import { IpamError } from './errors.ts';
import { lowerBound, nextFree } from './next-fit.ts';
import { parseSubnet, type Refuse } from './subnet.ts';

/** First VNI that is given, as in Swarm (moby `drivers/overlay/ovmanager`, `vxlanIDStart`). */
export const VNI_MIN = 4_096;
/** Last VNI: the field has 24 bits (RFC 7348 section 5). */
export const VNI_MAX = 0xff_ff_ff;

/** Smallest IPv4 subnets that a pool is cut into, as in Swarm (moby `validateDefaultAddrPool`). */
export const POOL_SUBNET_PREFIX_MAX = 29;
/** The subnets that IPv6 pools are cut into: interface identifiers have 64 bits (RFC 4291). */
export const POOL_SUBNET_PREFIX_IPV6 = 64;

/** A block from which networks without a subnet of their own get one (`--default-addr-pool`). */
export interface AddressPool {
  /** `a.b.c.d/n`, or an IPv6 prefix. */
  readonly base: string;
  /** Prefix length of the subnets that it is cut into (`--default-addr-pool-mask-length`). */
  readonly subnetPrefix: number;
}

/** What Docker Swarm uses when nothing is configured. */
export const DEFAULT_ADDRESS_POOLS: readonly AddressPool[] = [
  { base: '10.0.0.0/8', subnetPrefix: 24 },
];

/**
 * An address block that a host reaches without weft: a network on it would hide it from the host.
 * Routes that weft made itself are not among them.
 */
export interface HostRoute {
  /** Of either family. A default route is no obstacle: everything is more specific. */
  readonly destination: string;
  /** Whose it is, for messages: `node alpha (eth0)`. */
  readonly holder: string;
}

/**
 * Which network has which subnets and VNIs: one document for the cluster, replaced and never
 * changed. (A type and not an interface, so that it is assignable to `Json`.)
 */
export type AddressSpaceState = {
  /**
   * Sorted by address, IPv4 first; no two overlap. BOUNDED by twice the number of networks: a
   * dual-stack one has a subnet of each family.
   */
  readonly subnets: readonly (readonly [subnet: string, networkId: string])[];
  /** Sorted, each VNI once. BOUNDED by the number of networks. */
  readonly vnis: readonly (readonly [vni: number, networkId: string])[];
  /** Where the next search begins: a VNI is not used again before all others were. */
  readonly vniCursor: number;
};

/**
 * VPNs write the default route as two halves, 0.0.0.0/1 and 128.0.0.0/1: they win over the real
 * one. With IPv6 the halves are ::/1 and 8000::/1, or 2000::/3 is all that is routed.
 */
const DEFAULT_ROUTE_PREFIX_MAX = { 32: 1, 128: 3 } as const;

/** A cluster without networks. */
export const EMPTY_ADDRESS_SPACE: AddressSpaceState = {
  subnets: [],
  vnis: [],
  vniCursor: VNI_MIN,
};

/** Which subnet a network asks for. */
export interface SubnetRequest {
  readonly networkId: string;
  /** A certain subnet; the first free one of `pools` by default. */
  readonly subnet?: string;
  /** Tried in order. Their family is that of the subnet. */
  readonly pools: readonly AddressPool[];
  readonly hostRoutes: readonly HostRoute[];
}

interface Occupied {
  readonly cidr: IpCidr;
  readonly holder: string;
}

/**
 * Checks what an operator gave as default address pools.
 *
 * @throws {IpamError} ADDRESS_POOL_INVALID naming the first pool that cannot be cut as it says
 */
export function checkAddressPools(pools: readonly AddressPool[]): void {
  for (const pool of pools) parsePool(pool);
}

/**
 * Gives a network a subnet that overlaps no other network and no route of a host. A dual-stack
 * network calls twice.
 *
 * @returns the state to store, and the subnet
 * @throws {IpamError} SUBNET_INVALID, SUBNET_OVERLAP, ADDRESS_POOL_INVALID or
 *   ADDRESS_SPACE_EXHAUSTED
 * @throws {RangeError} if the destination of a host route is not a subnet
 */
export function allocateSubnet(
  space: AddressSpaceState,
  request: SubnetRequest,
): { readonly space: AddressSpaceState; readonly subnet: string } {
  const occupied = occupiedBlocks(space, request.hostRoutes);
  const cidr =
    request.subnet === undefined
      ? findSubnet(request.pools, occupied)
      : checkSubnet(parseSubnet(request.subnet), occupied);
  const subnet = formatIpCidr(cidr);
  const subnets = [...space.subnets, [subnet, request.networkId] as const].sort(([a], [b]) =>
    compareIpCidrs(parseIpCidr(a), parseIpCidr(b)),
  );
  return { space: { ...space, subnets }, subnet };
}

/** Takes the subnets of a network back; the same state if it has none. */
export function releaseSubnet(space: AddressSpaceState, networkId: string): AddressSpaceState {
  const subnets = space.subnets.filter(([, holder]) => holder !== networkId);
  return subnets.length === space.subnets.length ? space : { ...space, subnets };
}

/**
 * Gives a network a VXLAN network identifier.
 *
 * @param request - `vni` asks for a certain one, in [{@link VNI_MIN}, {@link VNI_MAX}].
 * @returns the state to store, and the VNI
 * @throws {IpamError} VNI_IN_USE or VNI_OUT_OF_RANGE
 */
export function allocateVni(
  space: AddressSpaceState,
  request: { readonly networkId: string; readonly vni?: number },
): { readonly space: AddressSpaceState; readonly vni: number } {
  const { networkId } = request;
  const range = { first: VNI_MIN, last: VNI_MAX, from: space.vniCursor };
  const vni = request.vni ?? nextFree(space.vnis, range);
  invariant(vni !== undefined, 'There are fewer networks than VNIs');
  if (!Number.isInteger(vni) || vni < VNI_MIN || vni > VNI_MAX) {
    throw new IpamError({ code: 'VNI_OUT_OF_RANGE', vni, min: VNI_MIN, max: VNI_MAX });
  }
  const index = lowerBound(space.vnis, vni);
  const holder = space.vnis[index];
  if (holder?.[0] === vni) throw new IpamError({ code: 'VNI_IN_USE', vni, networkId: holder[1] });
  const vniCursor = request.vni === undefined ? vni + 1 : space.vniCursor;
  const vnis = space.vnis.toSpliced(index, 0, [vni, networkId]);
  return { space: { ...space, vnis, vniCursor }, vni };
}

/** Takes the VNIs of a network back; the same state if it has none. */
export function releaseVni(space: AddressSpaceState, networkId: string): AddressSpaceState {
  const vnis = space.vnis.filter(([, holder]) => holder !== networkId);
  return vnis.length === space.vnis.length ? space : { ...space, vnis };
}

/** Everything that a new subnet must not overlap, sorted by address. */
function occupiedBlocks(space: AddressSpaceState, hostRoutes: readonly HostRoute[]): Occupied[] {
  const networks = space.subnets.map(([subnet, networkId]) => ({
    cidr: parseIpCidr(subnet),
    holder: `network ${networkId}`,
  }));
  const routes = hostRoutes
    .map(({ destination, holder }) => ({ cidr: parseIpCidr(destination), holder }))
    .filter(({ cidr }) => cidr.prefix > DEFAULT_ROUTE_PREFIX_MAX[widthOf(cidr.address)]);
  return [...networks, ...routes].sort((a, b) => compareIpCidrs(a.cidr, b.cidr));
}

function checkSubnet(subnet: IpCidr, occupied: readonly Occupied[]): IpCidr {
  const obstacle = occupied.find(({ cidr }) => ipCidrsOverlap(cidr, subnet));
  if (obstacle !== undefined) {
    throw new IpamError({
      code: 'SUBNET_OVERLAP',
      subnet: formatIpCidr(subnet),
      with: formatIpCidr(obstacle.cidr),
      holder: obstacle.holder,
    });
  }
  return subnet;
}

function findSubnet(pools: readonly AddressPool[], occupied: readonly Occupied[]): IpCidr {
  for (const pool of pools) {
    const subnet = firstFreeSubnet(parsePool(pool), pool.subnetPrefix, occupied);
    if (subnet !== undefined) return subnet;
  }
  throw new IpamError({ code: 'ADDRESS_SPACE_EXHAUSTED', pools: pools.map(({ base }) => base) });
}

/** One pass over `occupied`: each block that overlaps the candidate moves it behind its end. */
function firstFreeSubnet(
  base: IpCidr,
  prefix: number,
  occupied: readonly Occupied[],
): IpCidr | undefined {
  const hostBits = BigInt(widthOf(base.address) - prefix);
  const size = 1n << hostBits;
  let first = ipBits(base.address);
  for (const { cidr } of occupied) {
    if (!isSameFamily(cidr.address, base.address)) continue;
    // A candidate before this block stays free of the later ones too, all of which begin higher.
    if (first + size <= ipBits(cidr.address)) break;
    const last = lastBitsOf(cidr);
    if (last >= first) first = ((last >> hostBits) + 1n) << hostBits;
  }
  if (first > lastBitsOf(base)) return undefined;
  return cidrOfBits(first, prefix, base);
}

function parsePool(pool: AddressPool): IpCidr {
  const refuse: Refuse = (reason, options) =>
    new IpamError({ code: 'ADDRESS_POOL_INVALID', base: pool.base, reason }, options);
  let base: IpCidr;
  try {
    base = parseSubnet(pool.base);
  } catch (error) {
    const isRefusal = error instanceof IpamError && error.detail.code === 'SUBNET_INVALID';
    throw isRefusal ? refuse(error.detail.reason, { cause: error }) : error;
  }
  const { subnetPrefix } = pool;
  const prefixMax = isIpv6Cidr(base) ? POOL_SUBNET_PREFIX_IPV6 : POOL_SUBNET_PREFIX_MAX;
  const isPrefix =
    Number.isInteger(subnetPrefix) && subnetPrefix >= base.prefix && subnetPrefix <= prefixMax;
  if (!isPrefix) {
    throw refuse(
      `it cannot be cut into /${subnetPrefix} subnets, ` +
        `expected a prefix length that is not below its own and at most ${prefixMax}`,
    );
  }
  return base;
}
