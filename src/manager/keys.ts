import type { AddressSpaceState } from '../ipam/address-space.ts';
import type { PoolState } from '../ipam/pool.ts';
import type { GossipKeyRing } from './gossip-key-ring.ts';
import type {
  ClusterRecord,
  NetworkRecord,
  NodeRecord,
  ServiceRecord,
  TaskRecord,
} from './records.ts';

declare const valueType: unique symbol;

/** A key of the store under which a `T` is kept. */
export type Key<T> = string & { readonly [valueType]?: T };

/** The tables that can be listed, and what they hold. */
export interface Tables {
  readonly nodes: NodeRecord;
  readonly networks: NetworkRecord;
  readonly services: ServiceRecord;
  readonly tasks: TaskRecord;
}
/** The name of a table, which is also where its keys begin. */
export type TableName = keyof Tables;
/** All tables. */
export const TABLE_NAMES: readonly TableName[] = ['nodes', 'networks', 'services', 'tasks'];

/** The cluster's own record. */
export const CLUSTER_KEY: Key<ClusterRecord> = 'cluster';
/** The keys that nodes gossip by; absent in a cluster that has never had any. Secret. */
export const GOSSIP_KEYS_KEY: Key<GossipKeyRing> = 'gossip/keys';
/** Subnets and VNIs of all networks. */
export const ADDRESS_SPACE_KEY: Key<AddressSpaceState> = 'ipam/space';

/** Where the object `id` of `table` is kept. */
export function recordKey<N extends TableName>(table: N, id: string): Key<Tables[N]> {
  return `${table}/${id}`;
}

/** The table that `key` belongs to, if it is an object's. */
export function tableOfKey(key: string): TableName | undefined {
  const table = key.slice(0, key.indexOf('/'));
  return TABLE_NAMES.find((name) => name === table);
}

/** The addresses of one network. */
export function poolKey(networkId: string): Key<PoolState> {
  return `ipam/pools/${networkId}`;
}

/** Holds the id of the one object of this name: what makes names unique under concurrency. */
export function nameKey(table: 'networks' | 'services', name: string): Key<string> {
  return `names/${table}/${name}`;
}

/** Holds the id of the service that publishes this port in ingress mode. */
export function publishedPortKey(protocol: string, port: number): Key<string> {
  return `ports/${protocol}/${port}`;
}
