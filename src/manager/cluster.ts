import type { StateView } from './cluster-state.ts';
import { ManagerError } from './errors.ts';
import { CLUSTER_KEY } from './keys.ts';
import type { ClusterRecord } from './records.ts';

/**
 * The cluster's own record.
 *
 * @throws {ManagerError} UNAVAILABLE before the cluster has been initialised
 */
export function clusterOf(view: StateView): ClusterRecord {
  const cluster = view.get(CLUSTER_KEY);
  if (cluster === undefined) {
    throw new ManagerError(
      { code: 'UNAVAILABLE' },
      'This node is not a cluster manager. Use "weft init" or "weft join" to connect this node to a cluster and try again.',
    );
  }
  return cluster;
}
