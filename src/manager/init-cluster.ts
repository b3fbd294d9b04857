import type { Clock, Random } from '../core/capabilities.ts';
import type { Store } from '../core/store.ts';
import { checkAddressPools, DEFAULT_ADDRESS_POOLS, type HostRoute } from '../ipam/address-space.ts';
import { IpamError } from '../ipam/errors.ts';
import { GLOBAL_ID_BYTES, uniqueLocalPrefix } from '../ipam/unique-local.ts';
import { addressPoolsOf } from './addresses.ts';
import { ClusterState } from './cluster-state.ts';
import { invalid, preconditionFailed } from './errors.ts';
import { firstRing, type GossipKey } from './gossip-key-ring.ts';
import {
  KEY_ROTATION_MS_DEFAULT,
  KEY_ROTATION_MS_MIN,
  newGossipKey,
  readGossipKey,
} from './gossip-keys.ts';
import { GOSSIP_SETTINGS_BEFORE, type GossipSettings } from './gossip-protocol.ts';
import { newId } from './ids.ts';
import { newTokenSecrets, type Sha256 } from './join-tokens.ts';
import { CLUSTER_KEY, GOSSIP_KEYS_KEY } from './keys.ts';
import { createNetwork } from './networks.ts';
import type { ClusterGossip, ClusterRecord } from './records.ts';
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
  readonly sha256: Sha256;
  /** By default encrypted by a random key, with memberlist's LAN profile, compressed, with no label. */
  readonly gossip?: InitGossipOptions;
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

/** How the cluster is to gossip. */
export interface InitGossipOptions extends Partial<GossipSettings> {
  /** The first key, 16, 24 or 32 bytes in base64: one that serf agents have. */
  readonly key?: string;
  /** How long a key seals, 12 h by default; 0 for ever. */
  readonly keyRotationMs?: number;
}

/** UTF-8 bytes of a label (memberlist `label.go`). */
const LABEL_BYTES_MAX = 255;

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
      const key = firstKey(options, nowMs);
      if (key !== undefined) draft.put(GOSSIP_KEYS_KEY, firstRing(key));
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
    gossip: clusterGossip(options.gossip ?? {}),
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

/** Undefined if nothing is to be encrypted. */
function firstKey(options: InitClusterOptions, nowMs: number): GossipKey | undefined {
  const { random, sha256, gossip = {} } = options;
  const context = { random, sha256, nowMs };
  const { encryption = true, key } = gossip;
  if (key === undefined) return encryption ? newGossipKey(context) : undefined;
  if (encryption) return readGossipKey(key, 'Gossip.Key', context);
  throw invalid('Invalid Gossip.Key: a key was given, and encryption is off', 'Gossip.Key');
}

function clusterGossip(wish: InitGossipOptions): ClusterGossip {
  const { profile, compression, label, keyRotationMs = KEY_ROTATION_MS_DEFAULT } = wish;
  if (label !== undefined) {
    const bytes = new TextEncoder().encode(label).length;
    if (bytes < 1 || bytes > LABEL_BYTES_MAX) {
      const expected = `expected 1 to ${LABEL_BYTES_MAX} bytes`;
      throw invalid(`Invalid Gossip.Label: ${expected}; ${bytes} were given`, 'Gossip.Label');
    }
  }
  if (keyRotationMs !== 0 && keyRotationMs < KEY_ROTATION_MS_MIN) {
    throw invalid(
      `Invalid Gossip.KeyRotation: expected 0 or at least one minute; ${keyRotationMs} ms were given`,
      'Gossip.KeyRotation',
    );
  }
  return {
    profile: profile ?? GOSSIP_SETTINGS_BEFORE.profile,
    compression: compression ?? GOSSIP_SETTINGS_BEFORE.compression,
    ...(label === undefined ? {} : { label }),
    keyRotationMs,
  };
}
