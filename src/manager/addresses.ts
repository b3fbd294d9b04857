import { invariant } from '../core/invariant.ts';
import {
  type AddressPool,
  allocateSubnet,
  allocateVni,
  EMPTY_ADDRESS_SPACE,
  type HostRoute,
  releaseSubnet,
  releaseVni,
} from '../ipam/address-space.ts';
import type { IpamError } from '../ipam/errors.ts';
import {
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
import { type NetworkCreate, VNI_OPTION } from './network-spec.ts';
import type { ClusterRecord, TaskRecord, VirtualIp } from './records.ts';
import type { Draft } from './state-writer.ts';

/** What a new network has been given. */
export interface NetworkRange {
  readonly subnet: string;
  readonly gateway: string;
  readonly vni: number;
}

/** The cluster's default address pools. */
export function addressPoolsOf(
  cluster: Pick<ClusterRecord, 'addressPools' | 'subnetPrefix'>,
): readonly AddressPool[] {
  const { addressPools, subnetPrefix } = cluster;
  return addressPools.map((base) => ({ base, subnetPrefix }));
}

/**
 * Gives a network its subnet, gateway, VNI and pool of addresses.
 *
 * @throws {IpamError} if the request cannot be met
 */
export function claimNetwork(
  draft: Draft,
  networkId: string,
  request: {
    readonly spec: Pick<NetworkCreate, 'IPAM' | 'Options'>;
    readonly pools: readonly AddressPool[];
    readonly hostRoutes: readonly HostRoute[];
  },
): NetworkRange {
  const { spec, pools, hostRoutes } = request;
  const config = spec.IPAM?.Config?.[0] ?? {};
  const vniText = spec.Options?.[VNI_OPTION];
  const before = draft.get(ADDRESS_SPACE_KEY) ?? EMPTY_ADDRESS_SPACE;
  const withSubnet = allocateSubnet(before, {
    networkId,
    ...(config.Subnet ? { subnet: config.Subnet } : {}),
    pools,
    hostRoutes,
  });
  const { space, vni } = allocateVni(withSubnet.space, {
    networkId,
    ...(vniText === undefined ? {} : { vni: Number(vniText) }),
  });
  const pool = createPool({
    subnet: withSubnet.subnet,
    ...(config.Gateway ? { gateway: config.Gateway } : {}),
    ...(config.IPRange ? { ipRange: config.IPRange } : {}),
    auxAddresses: config.AuxiliaryAddresses ?? {},
  });
  draft.put(ADDRESS_SPACE_KEY, space);
  draft.put(poolKey(networkId), pool);
  return { subnet: pool.subnet, gateway: pool.gateway, vni };
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
 * Gives `holder` an address on a network.
 *
 * @returns a dotted quad
 * @throws {IpamError} POOL_EXHAUSTED
 */
export function claimAddress(
  draft: Draft,
  networkId: string,
  request: { readonly holder: string; readonly kind: HolderKind },
): string {
  const { pool, address } = allocateAddress(poolOf(draft, networkId), request);
  draft.put(poolKey(networkId), pool);
  return address;
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
export function claimTaskAddresses(draft: Draft, task: TaskRecord): VirtualIp[] {
  const claims = task.networkIds.map((networkId) => {
    const request = { holder: task.id, kind: 'task' } as const;
    return { networkId, ...allocateAddress(poolOf(draft, networkId), request) };
  });
  for (const { networkId, pool } of claims) draft.put(poolKey(networkId), pool);
  return claims.map(({ networkId, address }) => ({ networkId, address }));
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
