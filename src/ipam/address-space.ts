import { cidrsOverlap, formatCidr, type Ipv4, type Ipv4Cidr, parseCidr } from '../core/address.ts';
import { invariant } from '../core/invariant.ts';
import { IpamError } from './errors.ts';
import { lowerBound, nextFree } from './next-fit.ts';
import { lastAddress, parseSubnet, type Refuse } from './subnet.ts';

/** First VNI that is given, as in Swarm (moby `drivers/overlay/ovmanager`, `vxlanIDStart`). */
export const VNI_MIN = 4_096;
/** Last VNI: the field has 24 bits (RFC 7348 section 5). */
export const VNI_MAX = 0xff_ff_ff;

/** Smallest subnets that a pool is cut into, as in Swarm (moby `validateDefaultAddrPool`). */
export const POOL_SUBNET_PREFIX_MAX = 29;

/** A block from which networks without a subnet of their own get one (`--default-addr-pool`). */
export interface AddressPool {
  /** `a.b.c.d/n`. */
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
  /** `a.b.c.d/n`. A default route is no obstacle: everything is more specific. */
  readonly destination: string;
  /** Whose it is, for messages: `node alpha (eth0)`. */
  readonly holder: string;
}

/**
 * Which network has which subnets and VNIs: one document for the cluster, replaced and never
 * changed. (A type and not an interface, so that it is assignable to `Json`.)
 */
export type AddressSpaceState = {
  /** Sorted by address; no two overlap. BOUNDED by the number of networks. */
  readonly subnets: readonly (readonly [subnet: string, networkId: string])[];
  /** Sorted, each VNI once. BOUNDED by the number of networks. */
  readonly vnis: readonly (readonly [vni: number, networkId: string])[];
  /** Where the next search begins: a VNI is not used again before all others were. */
  readonly vniCursor: number;
};

/**
 * VPNs write the default route as two halves, 0.0.0.0/1 and 128.0.0.0/1: they win over the real
 * one.
 */
const DEFAULT_ROUTE_PREFIX_MAX = 1;

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
  /** Tried in order. */
  readonly pools: readonly AddressPool[];
  readonly hostRoutes: readonly HostRoute[];
}

interface Occupied {
  readonly cidr: Ipv4Cidr;
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
 * Gives a network a subnet that overlaps no other network and no route of a host.
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
  const subnet = formatCidr(cidr);
  const subnets = [...space.subnets, [subnet, request.networkId] as const].sort(
    ([a], [b]) => parseCidr(a).address - parseCidr(b).address,
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
    cidr: parseCidr(subnet),
    holder: `network ${networkId}`,
  }));
  const routes = hostRoutes
    .map(({ destination, holder }) => ({ cidr: parseCidr(destination), holder }))
    .filter(({ cidr }) => cidr.prefix > DEFAULT_ROUTE_PREFIX_MAX);
  return [...networks, ...routes].sort((a, b) => a.cidr.address - b.cidr.address);
}

function checkSubnet(subnet: Ipv4Cidr, occupied: readonly Occupied[]): Ipv4Cidr {
  const obstacle = occupied.find(({ cidr }) => cidrsOverlap(cidr, subnet));
  if (obstacle !== undefined) {
    throw new IpamError({
      code: 'SUBNET_OVERLAP',
      subnet: formatCidr(subnet),
      with: formatCidr(obstacle.cidr),
      holder: obstacle.holder,
    });
  }
  return subnet;
}

function findSubnet(pools: readonly AddressPool[], occupied: readonly Occupied[]): Ipv4Cidr {
  for (const pool of pools) {
    const subnet = firstFreeSubnet(parsePool(pool), pool.subnetPrefix, occupied);
    if (subnet !== undefined) return subnet;
  }
  throw new IpamError({ code: 'ADDRESS_SPACE_EXHAUSTED', pools: pools.map(({ base }) => base) });
}

/** One pass over `occupied`: each block that overlaps the candidate moves it behind its end. */
function firstFreeSubnet(
  base: Ipv4Cidr,
  prefix: number,
  occupied: readonly Occupied[],
): Ipv4Cidr | undefined {
  const sizeAddresses = 2 ** (32 - prefix);
  let address: Ipv4 = base.address;
  for (const { cidr } of occupied) {
    const end = lastAddress(cidr) + 1;
    // A candidate before this block stays free of the later ones too, all of which begin higher.
    if (address + sizeAddresses <= cidr.address) break;
    if (end > address) address = Math.ceil(end / sizeAddresses) * sizeAddresses;
  }
  return address <= lastAddress(base) ? { address, prefix } : undefined;
}

function parsePool(pool: AddressPool): Ipv4Cidr {
  const refuse: Refuse = (reason, options) =>
    new IpamError({ code: 'ADDRESS_POOL_INVALID', base: pool.base, reason }, options);
  let base: Ipv4Cidr;
  try {
    base = parseSubnet(pool.base);
  } catch (error) {
    const isRefusal = error instanceof IpamError && error.detail.code === 'SUBNET_INVALID';
    throw isRefusal ? refuse(error.detail.reason, { cause: error }) : error;
  }
  const { subnetPrefix } = pool;
  const isPrefix =
    Number.isInteger(subnetPrefix) &&
    subnetPrefix >= base.prefix &&
    subnetPrefix <= POOL_SUBNET_PREFIX_MAX;
  if (!isPrefix) {
    throw refuse(
      `it cannot be cut into /${subnetPrefix} subnets, ` +
        `expected a prefix length that is not below its own and at most ${POOL_SUBNET_PREFIX_MAX}`,
    );
  }
  return base;
}
