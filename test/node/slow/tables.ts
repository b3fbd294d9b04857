import { parseCidr, parseIpv4 } from '../../../src/core/address.ts';
import { parseIpv6Cidr } from '../../../src/core/cidr.ts';
import { formatIp, type Ip, isIpv6, parseIp, parseIpv6 } from '../../../src/core/ip.ts';
import type { DataPlaneCommand } from '../../../src/dataplane/commands.ts';
import type {
  NetworkAssignment,
  ServiceAssignment,
} from '../../../src/manager/session-protocol.ts';
import {
  type EndpointRecord,
  endpointKey,
  type VtepRecord,
} from '../../../src/node/endpoint-record.ts';
import type { MeshService } from '../../../src/routing-mesh/services.ts';
import { HOST_SCOPE } from '../../../src/routing-mesh/verdict.ts';
import { toVni } from '../../../src/vxlan/vni.ts';

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
  /** VTEPs of the other nodes that are alive, and where each is counted. */
  readonly vteps: readonly (VtepRecord & { readonly slot: number })[];
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
  for (const network of sources.networks) {
    const command = networkCommand(network);
    tables.set(`network/${command.vni}`, command);
  }
  for (const { address, port, slot } of sources.vteps) {
    tables.set(`vtep/${address}`, { kind: 'setVtep', address, port, slot });
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
    const { address, address6, mac } = record;
    tables.set(`endpoint/${network.vni}/${address}`, {
      kind: 'setEndpoint',
      vni: network.vni,
      address,
      ...(address6 === undefined ? {} : { address6 }),
      mac,
      vtep: vtep.address,
    });
  }
  for (const service of meshServices(sources, networks)) {
    tables.set(`service/${service.scope}/${service.vip}`, { kind: 'setService', service });
  }
  return tables;
}

function networkCommand(network: NetworkAssignment): TableCommand & { kind: 'setNetwork' } {
  const { vni, subnet, gateway, subnet6, gateway6, encrypted } = network;
  const ipv6 =
    subnet6 === undefined || gateway6 === undefined
      ? {}
      : { subnet6: parseIpv6Cidr(subnet6), gateway6: parseIpv6(gateway6) };
  return {
    kind: 'setNetwork',
    vni: toVni(vni),
    subnet: parseCidr(subnet),
    gateway: parseIpv4(gateway),
    ...ipv6,
    ...(encrypted === true ? { encrypted } : {}),
  };
}

/** A service's address in one scope and family, and the endpoints that may be behind it. */
interface Vip {
  readonly scope: number;
  readonly vip: string;
  readonly gateway: string;
  readonly placed: readonly PlacedEndpoint[];
}

/** One mesh service for each VIP: a dual-stack service has two in each scope. */
function meshServices(
  sources: TableSources,
  networks: ReadonlyMap<string, NetworkAssignment>,
): MeshService[] {
  const byService = Map.groupBy(sources.endpoints, ({ record }) => record.serviceId);
  return sources.services.flatMap((service) => {
    const placed = byService.get(service.id) ?? [];
    const vips = [
      ...internalVips(service, placed, networks),
      ...ingressVips(service, placed, networks),
    ];
    return vips.map((vip) => meshService(vip, networks));
  });
}

function internalVips(
  service: ServiceAssignment,
  placed: readonly PlacedEndpoint[],
  networks: ReadonlyMap<string, NetworkAssignment>,
): Vip[] {
  return service.vips.flatMap(({ networkId, address, address6 }): Vip[] => {
    const network = networks.get(networkId);
    if (network === undefined) return [];
    const { vni: scope, gateway, gateway6 } = network;
    const here = placed.filter(({ record }) => record.networkId === networkId);
    const vips: Vip[] = [{ scope, vip: address, gateway, placed: here }];
    if (address6 === undefined || gateway6 === undefined) return vips;
    return [...vips, { scope, vip: address6, gateway: gateway6, placed: here }];
  });
}

function ingressVips(
  { ingressVip, ingressVip6 }: ServiceAssignment,
  all: readonly PlacedEndpoint[],
  networks: ReadonlyMap<string, NetworkAssignment>,
): Vip[] {
  if (ingressVip === undefined) return [];
  const ingress = [...networks.values()].find((network) => network.ingress);
  const placed = all.filter(({ record }) => record.primary);
  const scope = HOST_SCOPE;
  const vips: Vip[] = [{ scope, vip: ingressVip, gateway: ingress?.gateway ?? '0.0.0.0', placed }];
  if (ingressVip6 === undefined) return vips;
  return [...vips, { scope, vip: ingressVip6, gateway: ingress?.gateway6 ?? '::', placed }];
}

function meshService(
  { scope, vip, gateway, placed }: Vip,
  networks: ReadonlyMap<string, NetworkAssignment>,
): MeshService {
  const isTrusted = ({ record, suspect }: PlacedEndpoint): boolean =>
    record.state === 'active' && suspect !== true;
  const address = parseIp(vip);
  const reachable = placed.filter(({ record }) => addressLike(address, record) !== undefined);
  // When all are suspect it is rather this node that is cut off: then they are as good as ever.
  const someTrusted = reachable.some(isTrusted);
  const backends = reachable.flatMap((endpoint) => {
    const { networkId, taskId, state } = endpoint.record;
    const network = networks.get(networkId);
    const own = addressLike(address, endpoint.record);
    if (network === undefined || own === undefined || state === 'warm') return [];
    const takesFlows = someTrusted ? isTrusted(endpoint) : state === 'active';
    const meshState = takesFlows ? ('active' as const) : ('draining' as const);
    return [{ id: taskId, address: own, scope: network.vni, weight: 1, state: meshState }];
  });
  // Every node must build the same Maglev table: same backends, same order.
  const rank = (backend: { readonly id: string; readonly address: Ip }): string =>
    `${backend.id} ${formatIp(backend.address)}`;
  backends.sort((a, b) => (rank(a) < rank(b) ? -1 : 1));
  return { scope, vip: address, gateway: parseIp(gateway), backends };
}

/** The address of an endpoint that is of the family of `ip`, if it has one. */
function addressLike(ip: Ip, { address, address6 }: EndpointRecord): Ip | undefined {
  return isIpv6(ip) ? address6 : address;
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
