import { Metrics } from '../io/metrics.ts';
import type { ManagerHost } from './manager-host.ts';
import { addManagerMetrics } from './manager-metrics.ts';
import type { Node } from './node.ts';
import { addNodeMetrics } from './node-metrics.ts';

/** All that an agent says of itself; what it is not, at the moment of asking, has no values. */
export function agentMetrics(
  node: () => Node | undefined,
  manager: () => ManagerHost | undefined,
): Metrics {
  const metrics = new Metrics();
  addNodeMetrics(metrics, node);
  addManagerMetrics(metrics, manager);
  return metrics;
}
