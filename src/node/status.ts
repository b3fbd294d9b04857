import { formatIp, formatIpPort } from '../core/ip.ts';
import { machineFacts } from '../io/host-facts.ts';
import { API_VERSION, API_VERSION_MIN } from '../manager/api-system.ts';
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
  const { ports, vteps, networks, endpoints, services, flows, aead } =
    await node.dataPlane.status();
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
      threads: node.dataPlane.threads,
      ports,
      vteps,
      networks,
      endpoints,
      services,
      flows,
      mtuBytes: node.overlayMtuBytes,
      aead,
      packets: node.dataPlane.counters.traffic(),
      drops: Object.fromEntries(drops),
    },
    paths: pathStatus(node),
    sessions: sessionStatus(node),
    gossip: {
      members: node.peers.members().map(({ name, address, state }) => ({ name, address, state })),
    },
    peers: node.insight.peers(),
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

/** What is known of the paths to the other nodes' VTEPs; times in milliseconds. */
function pathStatus(node: Node): readonly Readonly<Record<string, unknown>>[] {
  const names = new Map(node.peers.members().map(({ name, address }) => [address, name]));
  return node.paths.reports().map(({ address, port, state, mtuBytes, roundTrips, lossRatio }) => ({
    node: names.get(formatIp(address)),
    address: formatIpPort(address, port),
    state,
    mtuBytes,
    rttMs: roundTrips === undefined ? undefined : roundTrips.smoothedUs / 1000,
    rttMinMs: roundTrips === undefined ? undefined : roundTrips.minUs / 1000,
    lossRatio,
  }));
}

/** The encrypted channels to the other nodes. */
function sessionStatus(node: Node): readonly Readonly<Record<string, unknown>>[] {
  return node.encryption.status().map(({ peerId, endpoint, state, sessionAgeMs }) => ({
    node: peerId,
    address: formatIpPort(endpoint.address, endpoint.port),
    state,
    ageSeconds: sessionAgeMs === undefined ? undefined : Math.round(sessionAgeMs / 1000),
  }));
}

/** Docker's `GET /info` of a host that is no manager. */
export function nodeInfo(
  version: string,
  hostname: string,
  identity: Identity | undefined,
): Readonly<Record<string, unknown>> {
  const { platform, resources } = machineFacts();
  return {
    ID: identity?.nodeId ?? '',
    Name: hostname,
    ServerVersion: version,
    OSType: platform.os,
    Architecture: platform.architecture,
    NCPU: resources.nanoCpus / 1e9,
    MemTotal: resources.memoryBytes,
    Swarm: {
      NodeID: identity?.nodeId ?? '',
      NodeAddr: identity?.advertiseAddress ?? '',
      LocalNodeState: identity === undefined ? 'inactive' : 'active',
      ControlAvailable: false,
      Error: '',
      RemoteManagers: (identity?.managers ?? []).map((manager) => ({ NodeID: '', Addr: manager })),
    },
  };
}

/** Docker's `GET /version` of a host that is no manager. */
export function nodeVersion(version: string): Readonly<Record<string, unknown>> {
  const { platform } = machineFacts();
  return {
    Platform: { Name: 'weft' },
    Version: version,
    ApiVersion: API_VERSION,
    MinAPIVersion: API_VERSION_MIN,
    Os: platform.os,
    Arch: platform.architecture,
    Components: [{ Name: 'weft', Version: version }],
  };
}
