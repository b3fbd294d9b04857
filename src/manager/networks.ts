import type { Random } from '../core/capabilities.ts';
import type { HostRoute } from '../ipam/address-space.ts';
import { IpamError } from '../ipam/errors.ts';
import { addressPoolsOf, claimNetwork, describeIpamError, releaseNetwork } from './addresses.ts';
import { clusterOf } from './cluster.ts';
import type { StateView } from './cluster-state.ts';
import { invalid, ManagerError, preconditionFailed } from './errors.ts';
import { newId } from './ids.ts';
import { nameKey } from './keys.ts';
import type { NetworkCreate } from './network-spec.ts';
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
 * Creates a network with its subnet, gateway and VNI.
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
  const pools = addressPoolsOf(clusterOf(draft));
  const record: NetworkRecord = {
    id,
    createdAtMs: context.nowMs,
    updatedAtMs: context.nowMs,
    name,
    spec,
    ...claimOrRefuse(draft, id, { spec, pools, hostRoutes: context.hostRoutes }),
    ingress,
  };
  draft.put(nameKey('networks', name), id);
  draft.save('networks', record);
  return record;
}

function claimOrRefuse(
  draft: Draft,
  id: string,
  request: Parameters<typeof claimNetwork>[2],
): ReturnType<typeof claimNetwork> {
  const config = request.spec.IPAM?.Config?.[0] ?? {};
  if (!config.Subnet && (config.Gateway || config.IPRange)) {
    throw invalid('Invalid IPAM.Config[0]: a gateway or an IP range needs a subnet', 'IPAM.Config');
  }
  try {
    return claimNetwork(draft, id, request);
  } catch (error) {
    if (!(error instanceof IpamError)) throw error;
    throw invalid(describeIpamError(draft, error), undefined, error);
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
