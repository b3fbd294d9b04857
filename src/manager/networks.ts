import type { Random } from '../core/capabilities.ts';
import type { HostRoute } from '../ipam/address-space.ts';
import { IpamError } from '../ipam/errors.ts';
import { addressPoolsOf, claimNetwork, describeIpamError, releaseNetwork } from './addresses.ts';
import { clusterOf } from './cluster.ts';
import type { StateView } from './cluster-state.ts';
import { invalid, ManagerError, preconditionFailed } from './errors.ts';
import { newId } from './ids.ts';
import { nameKey } from './keys.ts';
import { ipamConfigsOf, type NetworkCreate, VNI_OPTION } from './network-spec.ts';
import type { NetworkRecord } from './records.ts';
import type { Draft } from './state-writer.ts';
import { isFinished } from './task-states.ts';

/** Networks that every Docker engine has: the names mean something else there. */
const PREDEFINED_NAMES: readonly string[] = ['bridge', 'host', 'none', 'default'];

/** What a new network depends on besides its spec. */
export interface NetworkContext {
  readonly random: Random;
  /** Milliseconds since the Unix epoch. */
  readonly nowMs: number;
  /** Blocks that hosts reach without weft. */
  readonly hostRoutes: readonly HostRoute[];
}

/**
 * Creates a network with its subnets, gateways and VNI.
 *
 * @throws {ManagerError} NAME_CONFLICT, FORBIDDEN for a name of Docker's own, or INVALID if the subnet,
 *   an address or the VNI cannot be given
 */
export function createNetwork(
  draft: Draft,
  spec: NetworkCreate,
  context: NetworkContext,
  ingress = false,
): NetworkRecord {
  const name = spec.Name;
  if (PREDEFINED_NAMES.includes(name)) {
    throw new ManagerError(
      { code: 'FORBIDDEN' },
      `operation is not permitted on predefined ${name} network`,
    );
  }
  if (draft.get(nameKey('networks', name)) !== undefined) {
    throw new ManagerError(
      { code: 'NAME_CONFLICT', kind: 'network', name },
      `network with name ${name} already exists`,
    );
  }
  const id = newId(context.random);
  const record: NetworkRecord = {
    id,
    createdAtMs: context.nowMs,
    updatedAtMs: context.nowMs,
    name,
    spec,
    ...claimOrRefuse(draft, id, spec, context.hostRoutes),
    ingress,
  };
  draft.put(nameKey('networks', name), id);
  draft.save('networks', record);
  return record;
}

function claimOrRefuse(
  draft: Draft,
  id: string,
  spec: NetworkCreate,
  hostRoutes: readonly HostRoute[],
): ReturnType<typeof claimNetwork> {
  const pools = addressPoolsOf(clusterOf(draft));
  const { ipv4, ipv6 } = configsOrRefuse(spec);
  if (ipv6 !== undefined && !ipv6.Subnet && pools.ipv6.length === 0) {
    throw invalid(
      'Invalid IPAM.Config: this cluster has no IPv6 address pool, expected an IPv6 subnet',
      'IPAM.Config',
    );
  }
  try {
    const vni = spec.Options?.[VNI_OPTION];
    return claimNetwork(draft, id, { ipv4, ipv6, vni, pools, hostRoutes });
  } catch (error) {
    if (!(error instanceof IpamError)) throw error;
    throw invalid(describeIpamError(draft, error), undefined, error);
  }
}

function configsOrRefuse(spec: NetworkCreate): ReturnType<typeof ipamConfigsOf> {
  try {
    return ipamConfigsOf(spec);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw invalid(error.message, 'IPAM.Config', error);
  }
}

/**
 * Deletes a network that nothing uses.
 *
 * @throws {ManagerError} FORBIDDEN for the ingress network, PRECONDITION if it is in use
 */
export function deleteNetwork(draft: Draft, network: NetworkRecord): void {
  if (network.ingress) {
    throw new ManagerError(
      { code: 'FORBIDDEN' },
      `network ${network.name} cannot be removed: the routing mesh is on it`,
    );
  }
  for (const service of draft.all('services')) {
    if (service.networkIds.includes(network.id)) {
      throw preconditionFailed(`network ${network.name} is in use by service ${service.spec.Name}`);
    }
  }
  for (const task of draft.all('tasks')) {
    if (!isFinished(task.status.state) && task.networkIds.includes(network.id)) {
      throw preconditionFailed(`network ${network.name} is in use by task ${task.id}`);
    }
  }
  releaseNetwork(draft, network.id);
  draft.delete(nameKey('networks', network.name));
  draft.drop('networks', network.id);
}

/** The network of the routing mesh; every cluster has one from its first moment. */
export function ingressNetworkOf(view: StateView): NetworkRecord {
  for (const network of view.all('networks')) {
    if (network.ingress) return network;
  }
  throw preconditionFailed('the cluster has no ingress network: it has not been initialised');
}
