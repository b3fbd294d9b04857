import { invariant } from '../core/invariant.ts';
import {
  type AddressPool,
  allocateSubnet,
  allocateVni,
  EMPTY_ADDRESS_SPACE,
  type HostRoute,
  POOL_SUBNET_PREFIX_IPV6,
  releaseSubnet,
  releaseVni,
} from '../ipam/address-space.ts';
import type { IpamError } from '../ipam/errors.ts';
import {
  type AddressPair,
  allocateAddress,
  createPool,
  type HolderKind,
  type PoolState,
  type PoolUsage,
  releaseHolder,
  usage,
} from '../ipam/pool.ts';
import type { StateView } from './cluster-state.ts';
import { ADDRESS_SPACE_KEY, poolKey } from './keys.ts';
import type { IpamConfig } from './network-spec.ts';
import type { ClusterRecord, NetworkAddress, TaskRecord } from './records.ts';
import type { Draft } from './state-writer.ts';

/** What a new network has been given. */
export interface NetworkRange {
  readonly subnet: string;
  readonly gateway: string;
  readonly subnet6?: string;
  readonly gateway6?: string;
  readonly vni: number;
}

/** The default address pools of a cluster, by family. */
export interface ClusterPools {
  readonly ipv4: readonly AddressPool[];
  readonly ipv6: readonly AddressPool[];
}

/** What a new network asks for. */
export interface NetworkClaim {
  readonly ipv4: IpamConfig;
  /** Of a dual-stack network; empty if any subnet will do. */
  readonly ipv6: IpamConfig | undefined;
  /** A certain VNI, in decimal. */
  readonly vni: string | undefined;
  readonly pools: ClusterPools;
  readonly hostRoutes: readonly HostRoute[];
}

/** The cluster's default address pools. */
export function addressPoolsOf(
  cluster: Pick<ClusterRecord, 'addressPools' | 'addressPools6' | 'subnetPrefix'>,
): ClusterPools {
  const { addressPools, addressPools6 = [], subnetPrefix } = cluster;
  return {
    ipv4: addressPools.map((base) => ({ base, subnetPrefix })),
    ipv6: addressPools6.map((base) => ({ base, subnetPrefix: POOL_SUBNET_PREFIX_IPV6 })),
  };
}

/**
 * Gives a network its subnets, gateways, VNI and pool of addresses.
 *
 * @throws {IpamError} if the request cannot be met
 */
export function claimNetwork(draft: Draft, networkId: string, claim: NetworkClaim): NetworkRange {
  const before = draft.get(ADDRESS_SPACE_KEY) ?? EMPTY_ADDRESS_SPACE;
  const { hostRoutes, pools } = claim;
  const withSubnet = allocateSubnet(before, {
    networkId,
    ...wantedSubnet(claim.ipv4),
    pools: pools.ipv4,
    hostRoutes,
  });
  const withSubnet6 =
    claim.ipv6 &&
    allocateSubnet(withSubnet.space, {
      networkId,
      ...wantedSubnet(claim.ipv6),
      pools: pools.ipv6,
      hostRoutes,
    });
  const { space, vni } = allocateVni((withSubnet6 ?? withSubnet).space, {
    networkId,
    ...(claim.vni === undefined ? {} : { vni: Number(claim.vni) }),
  });
  const pool = createPool({
    subnet: withSubnet.subnet,
    ...rangeOf(claim.ipv4),
    ...(withSubnet6 && { ipv6: { subnet: withSubnet6.subnet, ...rangeOf(claim.ipv6) } }),
  });
  draft.put(ADDRESS_SPACE_KEY, space);
  draft.put(poolKey(networkId), pool);
  const { subnet, gateway, ipv6 } = pool;
  return { subnet, gateway, ...(ipv6 && { subnet6: ipv6.subnet, gateway6: ipv6.gateway }), vni };
}

function wantedSubnet({ Subnet }: IpamConfig): { readonly subnet?: string } {
  return Subnet ? { subnet: Subnet } : {};
}

/** What is set apart in a subnet, in the words of IPAM. */
function rangeOf(config: IpamConfig = {}): {
  readonly gateway?: string;
  readonly ipRange?: string;
  readonly auxAddresses: Readonly<Record<string, string>>;
} {
  return {
    ...(config.Gateway ? { gateway: config.Gateway } : {}),
    ...(config.IPRange ? { ipRange: config.IPRange } : {}),
    auxAddresses: config.AuxiliaryAddresses ?? {},
  };
}

/** Takes back all that {@link claimNetwork} gave. */
export function releaseNetwork(draft: Draft, networkId: string): void {
  const space = draft.get(ADDRESS_SPACE_KEY);
  if (space !== undefined) {
    draft.put(ADDRESS_SPACE_KEY, releaseVni(releaseSubnet(space, networkId), networkId));
  }
  draft.delete(poolKey(networkId));
}

/**
 * Gives `holder` an address on a network, one of each family on a dual-stack network.
 *
 * @throws {IpamError} POOL_EXHAUSTED
 */
export function claimAddress(
  draft: Draft,
  networkId: string,
  request: { readonly holder: string; readonly kind: HolderKind },
): AddressPair {
  const { pool, ...addresses } = allocateAddress(poolOf(draft, networkId), request);
  draft.put(poolKey(networkId), pool);
  return addresses;
}

/** Takes back all addresses of `holder` on a network; nothing happens if there are none. */
export function releaseAddresses(draft: Draft, networkId: string, holder: string): void {
  const pool = draft.get(poolKey(networkId));
  if (pool === undefined) return;
  const released = releaseHolder(pool, holder);
  if (released !== pool) draft.put(poolKey(networkId), released);
}

/**
 * Gives a task an address on each of its networks, or on none.
 *
 * @throws {IpamError} POOL_EXHAUSTED; the draft is unchanged then
 */
export function claimTaskAddresses(draft: Draft, task: TaskRecord): NetworkAddress[] {
  const claims = task.networkIds.map((networkId) => {
    const request = { holder: task.id, kind: 'task' } as const;
    return { networkId, ...allocateAddress(poolOf(draft, networkId), request) };
  });
  for (const { networkId, pool } of claims) draft.put(poolKey(networkId), pool);
  return claims.map(({ pool: _, ...addresses }) => addresses);
}

/** Takes back a task's addresses, if it holds any. */
export function releaseTaskAddresses(draft: Draft, task: TaskRecord): void {
  if (!task.holdsAddresses) return;
  for (const { networkId } of task.attachments) releaseAddresses(draft, networkId, task.id);
}

/** How full a network's pool is; undefined if there is no such network. */
export function poolUsage(view: StateView, networkId: string): PoolUsage | undefined {
  const pool = view.get(poolKey(networkId));
  return pool === undefined ? undefined : usage(pool);
}

/** What a refusal says to people, with the names of networks for their ids. */
export function describeIpamError(view: StateView, error: IpamError): string {
  const { detail } = error;
  const networkId =
    detail.code === 'SUBNET_OVERLAP'
      ? detail.holder.replace(/^network /, '')
      : detail.code === 'VNI_IN_USE'
        ? detail.networkId
        : undefined;
  const network = networkId === undefined ? undefined : view.find('networks', networkId);
  return network === undefined || networkId === undefined
    ? error.message
    : error.message.replace(networkId, network.name);
}

function poolOf(draft: Draft, networkId: string): PoolState {
  const pool = draft.get(poolKey(networkId));
  invariant(pool !== undefined, 'A network that something is attached to has a pool');
  return pool;
}
