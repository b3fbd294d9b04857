import type { Identity } from './identity.ts';
import type { Node } from './node.ts';

/**
 * What `weft status` shows of this host.
 *
 * @param node - Undefined while this host is in no cluster.
 */
export async function nodeStatus(
  version: string,
  hostname: string,
  identity: Identity | undefined,
  node: Node | undefined,
): Promise<Readonly<Record<string, unknown>>> {
  if (identity === undefined || node === undefined) {
    return { version, node: { hostname }, cluster: undefined };
  }
  const { ports, vteps, networks, endpoints, services, flows } = await node.dataPlane.status();
  const drops = Object.entries(node.dataPlane.counters.drops()).filter(([, count]) => count > 0);
  const names = new Map(node.assignments?.tasks.map(({ id, name }) => [id, name]) ?? []);
  return {
    version,
    node: {
      id: identity.nodeId,
      hostname,
      role: identity.role,
      advertiseAddress: identity.advertiseAddress,
    },
    cluster: {
      id: identity.clusterId,
      managers: node.assignments?.managers ?? identity.managers,
      connected: node.manager !== undefined,
    },
    dataPlane: {
      ports,
      vteps,
      networks,
      endpoints,
      services: services.length,
      flows,
      mtuBytes: node.overlayMtuBytes,
      packets: node.dataPlane.counters.traffic(),
      drops: Object.fromEntries(drops),
    },
    gossip: {
      members: node.gossip.members().map(({ name, address, state }) => ({ name, address, state })),
    },
    tasks: node.tasks.statuses().map(({ taskId, state, message, error, pid }) => ({
      id: taskId,
      name: names.get(taskId) ?? taskId,
      state,
      message,
      error,
      pid,
    })),
    portConflicts: node.portConflicts,
  };
}
