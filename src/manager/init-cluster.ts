import type { Clock, Random } from '../core/capabilities.ts';
import type { Store } from '../core/store.ts';
import { checkAddressPools, DEFAULT_ADDRESS_POOLS, type HostRoute } from '../ipam/address-space.ts';
import { IpamError } from '../ipam/errors.ts';
import { GLOBAL_ID_BYTES, uniqueLocalPrefix } from '../ipam/unique-local.ts';
import { addressPoolsOf } from './addresses.ts';
import { ClusterState } from './cluster-state.ts';
import { invalid, preconditionFailed } from './errors.ts';
import { newId } from './ids.ts';
import { newTokenSecrets } from './join-tokens.ts';
import { CLUSTER_KEY } from './keys.ts';
import { createNetwork } from './networks.ts';
import type { ClusterRecord } from './records.ts';
import { StateWriter } from './state-writer.ts';

/** IANA's port for VXLAN. */
const DATA_PATH_PORT = 4_789;
/** Finished tasks kept per slot (swarmkit `manager.go`). */
const TASK_HISTORY_LIMIT = 5;
/** Prefix length of the subnets that pools are cut into, as in Docker Swarm. */
const SUBNET_PREFIX = 24;
const INGRESS_NAME = 'ingress';

/** How a cluster is set up; what is left out is as in Docker Swarm. */
export interface InitClusterOptions {
  readonly clock: Clock;
  readonly random: Random;
  /**
   * Subnets of either family. Without an IPv4 one it is 10.0.0.0/8, without an IPv6 one a /48 of
   * unique local addresses made by chance (RFC 4193).
   */
  readonly addressPools?: readonly string[];
  /** Prefix length of the subnets that IPv4 ones are cut into; 24 by default. IPv6 ones are /64. */
  readonly subnetPrefix?: number;
  /** UDP port of VXLAN on every node; 4789 by default. */
  readonly dataPathPort?: number;
  /** Blocks that the ingress network must not overlap; none by default. */
  readonly hostRoutes?: readonly HostRoute[];
}

/**
 * Creates a cluster in an empty store: its record, its join tokens and the ingress network.
 *
 * @throws {ManagerError} PRECONDITION if the store holds a cluster, INVALID if a pool cannot be used
 */
export async function initCluster(
  store: Store,
  options: InitClusterOptions,
): Promise<ClusterRecord> {
  const state = new ClusterState(store);
  await state.start();
  try {
    return await new StateWriter(store, state).write((draft) => {
      if (draft.get(CLUSTER_KEY) !== undefined) {
        throw preconditionFailed(
          'This node is already part of a cluster. Use "weft leave" to leave this cluster and join another one.',
        );
      }
      const nowMs = options.clock.epochMs();
      const cluster = newCluster(options, nowMs);
      draft.put(CLUSTER_KEY, cluster);
      const hostRoutes = options.hostRoutes ?? [];
      const context = { random: options.random, nowMs, hostRoutes };
      const ingress = { Name: INGRESS_NAME, Driver: 'overlay', EnableIPv6: true } as const;
      createNetwork(draft, ingress, context, true);
      return cluster;
    });
  } finally {
    state.stop();
  }
}

function newCluster(options: InitClusterOptions, nowMs: number): ClusterRecord {
  const { addressPools = [], random } = options;
  const pools = addressPools.filter((pool) => !pool.includes(':'));
  const pools6 = addressPools.filter((pool) => pool.includes(':'));
  const cluster: ClusterRecord = {
    id: newId(random),
    createdAtMs: nowMs,
    updatedAtMs: nowMs,
    tokenSecrets: newTokenSecrets(random),
    addressPools: pools.length > 0 ? pools : DEFAULT_ADDRESS_POOLS.map((pool) => pool.base),
    addressPools6: pools6.length > 0 ? pools6 : [uniqueLocalPrefix(random.bytes(GLOBAL_ID_BYTES))],
    subnetPrefix: options.subnetPrefix ?? SUBNET_PREFIX,
    dataPathPort: options.dataPathPort ?? DATA_PATH_PORT,
    taskHistoryLimit: TASK_HISTORY_LIMIT,
  };
  try {
    const { ipv4, ipv6 } = addressPoolsOf(cluster);
    checkAddressPools([...ipv4, ...ipv6]);
  } catch (error) {
    if (!(error instanceof IpamError)) throw error;
    throw invalid(error.message, 'DefaultAddrPool', error);
  }
  return cluster;
}
