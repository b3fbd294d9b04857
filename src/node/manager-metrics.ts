import type { Metrics, Sample } from '../io/metrics.ts';
import type { ManagerSnapshot } from '../manager/manager.ts';
import type { ManagerHost } from './manager-host.ts';

/** Adds the metrics of this host's manager, if it is one, to `metrics`. */
export function addManagerMetrics(metrics: Metrics, manager: () => ManagerHost | undefined): void {
  const add = (
    name: string,
    help: string,
    labels: readonly string[],
    read: (snapshot: ManagerSnapshot) => readonly Sample[],
  ): void => {
    metrics.add({
      name,
      kind: 'gauge',
      help,
      labels,
      read: () => {
        const snapshot = manager()?.snapshot();
        return snapshot === undefined ? [] : read(snapshot);
      },
    });
  };
  const byState = (counts: ReadonlyMap<string, number>): Sample[] =>
    [...counts].map(([state, value]) => ({ labels: { state }, value }));
  add('weft_cluster_tasks', 'Tasks of the cluster, by state.', ['state'], ({ tasksByState }) =>
    byState(tasksByState),
  );
  add('weft_cluster_nodes', 'Nodes of the cluster, by state.', ['state'], ({ nodesByState }) =>
    byState(nodesByState),
  );
  add('weft_cluster_services', 'Services of the cluster.', [], ({ services }) => [
    { labels: {}, value: services },
  ]);
  const perPool = (field: 'capacity' | 'used') => (snapshot: ManagerSnapshot) =>
    snapshot.pools.map((pool) => ({ labels: { network: pool.networkName }, value: pool[field] }));
  add(
    'weft_pool_addresses',
    'Addresses that each network has to give.',
    ['network'],
    perPool('capacity'),
  );
  add(
    'weft_pool_addresses_used',
    'Addresses of each network that are given.',
    ['network'],
    perPool('used'),
  );
  add(
    'weft_gossip_key_age_seconds',
    'Age of the key that gossip is sealed by; absent if it is not encrypted.',
    [],
    ({ gossipKeyAgeMs }) =>
      gossipKeyAgeMs === undefined ? [] : [{ labels: {}, value: gossipKeyAgeMs / 1000 }],
  );
}
