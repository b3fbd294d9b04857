import { parseCidr, parseIpv4 } from '../core/address.ts';
import type { DataPlaneCommand } from '../dataplane/commands.ts';
import type { NetworkAssignment, ServiceAssignment } from '../manager/session-protocol.ts';
import type { MeshService } from '../routing-mesh/services.ts';
import { HOST_SCOPE } from '../routing-mesh/verdict.ts';
import { toVni } from '../vxlan/vni.ts';
import { type EndpointRecord, endpointKey, type VtepRecord } from './endpoint-record.ts';

/** An endpoint and where it is; without a VTEP it is this node's own. */
export interface PlacedEndpoint {
  readonly record: EndpointRecord;
  readonly vtep?: VtepRecord;
  /** Whether its node does not answer just now: not dead yet, but no good address for a new flow. */
  readonly suspect?: boolean;
}

/** What the tables follow from: the manager's definitions and what the nodes announce. */
export interface TableSources {
  readonly networks: readonly NetworkAssignment[];
  readonly services: readonly ServiceAssignment[];
  /** Endpoints of this node and of all nodes that are alive. */
  readonly endpoints: readonly PlacedEndpoint[];
  /** VTEPs of the other nodes that are alive. */
  readonly vteps: readonly VtepRecord[];
}

type TableCommand = Extract<
  DataPlaneCommand,
  { kind: 'setNetwork' | 'setEndpoint' | 'setVtep' | 'setService' }
>;

/** Table entries by a key that says what they are about, in the order to apply them. */
export type DesiredTables = ReadonlyMap<string, TableCommand>;

/** What the data plane's tables should hold, ports apart. */
export function desiredTables(sources: TableSources): DesiredTables {
  const tables = new Map<string, TableCommand>();
  const networks = new Map(sources.networks.map((network) => [network.id, network]));
  for (const { vni: number, subnet, gateway } of sources.networks) {
    const vni = toVni(number);
    tables.set(`network/${vni}`, {
      kind: 'setNetwork',
      vni,
      subnet: parseCidr(subnet),
      gateway: parseIpv4(gateway),
    });
  }
  for (const { address, port } of sources.vteps) {
    tables.set(`vtep/${address}`, { kind: 'setVtep', address, port });
  }
  const isOwn = new Set(
    sources.endpoints.flatMap(({ record, vtep }) =>
      vtep === undefined ? [endpointKey(record.networkId, String(record.address))] : [],
    ),
  );
  for (const { record, vtep } of sources.endpoints) {
    const network = networks.get(record.networkId);
    if (network === undefined || vtep === undefined) continue;
    if (isOwn.has(endpointKey(record.networkId, String(record.address)))) continue;
    const { address, mac } = record;
    tables.set(`endpoint/${network.vni}/${address}`, {
      kind: 'setEndpoint',
      vni: network.vni,
      address,
      mac,
      vtep: vtep.address,
    });
  }
  for (const service of meshServices(sources, networks)) {
    tables.set(`service/${service.scope}/${service.vip}`, { kind: 'setService', service });
  }
  return tables;
}

function meshServices(
  { services, endpoints }: TableSources,
  networks: ReadonlyMap<string, NetworkAssignment>,
): MeshService[] {
  const byService = Map.groupBy(endpoints, ({ record }) => record.serviceId);
  return services.flatMap((service) => {
    const placed = byService.get(service.id) ?? [];
    const internal = service.vips.flatMap(({ networkId, address }) => {
      const network = networks.get(networkId);
      if (network === undefined) return [];
      const here = placed.filter(({ record }) => record.networkId === networkId);
      return [meshService(network.vni, address, network.gateway, here, networks)];
    });
    if (service.ingressVip === undefined) return internal;
    const primary = placed.filter(({ record }) => record.primary);
    const gateway = [...networks.values()].find((network) => network.ingress)?.gateway ?? '0.0.0.0';
    const ingress = meshService(HOST_SCOPE, service.ingressVip, gateway, primary, networks);
    return [...internal, ingress];
  });
}

function meshService(
  scope: number,
  vip: string,
  gateway: string,
  placed: readonly PlacedEndpoint[],
  networks: ReadonlyMap<string, NetworkAssignment>,
): MeshService {
  const isTrusted = ({ record, suspect }: PlacedEndpoint): boolean =>
    record.state === 'active' && suspect !== true;
  // When all are suspect it is rather this node that is cut off: then they are as good as ever.
  const someTrusted = placed.some(isTrusted);
  const backends = placed.flatMap((endpoint) => {
    const { networkId, address, taskId, state } = endpoint.record;
    const network = networks.get(networkId);
    if (network === undefined || state === 'warm') return [];
    const takesFlows = someTrusted ? isTrusted(endpoint) : state === 'active';
    const meshState = takesFlows ? ('active' as const) : ('draining' as const);
    return [{ id: taskId, address, scope: network.vni, weight: 1, state: meshState }];
  });
  // Every node must build the same Maglev table: same backends, same order.
  backends.sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : a.address - b.address));
  return { scope, vip: parseIpv4(vip), gateway: parseIpv4(gateway), backends };
}

/**
 * The commands that turn the tables `applied` into `desired`: removals of what is on a network before the
 * network, and additions the other way round.
 */
export function tableChanges(applied: DesiredTables, desired: DesiredTables): DataPlaneCommand[] {
  const gone = [...applied].filter(([key]) => !desired.has(key)).map(([, command]) => command);
  const changed = [...desired]
    .filter(([key, command]) => JSON.stringify(applied.get(key)) !== JSON.stringify(command))
    .map(([, command]) => command);
  return [...gone.reverse().map(removalOf), ...changed];
}

function removalOf(command: TableCommand): DataPlaneCommand {
  switch (command.kind) {
    case 'setNetwork':
      return { kind: 'removeNetwork', vni: command.vni };
    case 'setVtep':
      return { kind: 'removeVtep', address: command.address };
    case 'setEndpoint': {
      const { vni, address, vtep } = command;
      return { kind: 'removeEndpoint', vni, address, vtep };
    }
    case 'setService': {
      const { scope, vip } = command.service;
      return { kind: 'removeService', scope, vip };
    }
  }
}
