import { formatIp, formatIpPort, type Ip, parseIp } from '../core/ip.ts';
import { PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP } from '../core/packet.ts';
import type { FlowRecord } from '../routing-mesh/flow-listing.ts';
import { HOST_SCOPE } from '../routing-mesh/verdict.ts';
import { findNamed, type Named } from './find-named.ts';

/** Slots that are looked at for one answer: about a millisecond's work where they are free. */
const SLOTS_PER_PAGE = 65_536;
/** Flows of one answer, at most. */
export const FLOWS_PER_PAGE = 1_000;

/** Which flows an operator wants to see. */
export interface FlowRequest {
  /** Name or id of a network. */
  readonly network?: string | undefined;
  /** Name or id of a task: only those that it is an end of. */
  readonly task?: string | undefined;
  /** Name or id of a service: only those to its VIPs and tasks. */
  readonly service?: string | undefined;
  /** Flows of this answer; {@link FLOWS_PER_PAGE} at most. */
  readonly limit: number;
  /** Where the last answer ended; 0 to begin with. */
  readonly cursor: number;
}

/** A task's attachment to a network. */
export interface FlowEndpoint {
  readonly networkId: string;
  readonly address: Ip;
  readonly address6?: Ip;
  readonly taskId: string;
  readonly serviceId: string;
}

/** What the addresses of flows are called. */
export interface FlowNames {
  readonly networks: readonly (Named & { readonly vni: number; readonly ingress: boolean })[];
  readonly services: readonly (Named & {
    readonly vips: readonly {
      readonly networkId: string;
      readonly address: string;
      readonly address6?: string;
    }[];
    readonly ingressVip?: string;
    readonly ingressVip6?: string;
  })[];
  /** Tasks that have a name here; others are known by their id. */
  readonly tasks: readonly Named[];
  /** Those of all nodes. */
  readonly endpoints: readonly FlowEndpoint[];
}

/**
 * A flow as it is shown. Its way:
 * - `vip`: a task of this node called a service
 * - `published`: a client came in by a published port of this node
 * - `return`: a client came in by another node, `via`, and talks to a task of this one
 */
export interface FlowView {
  readonly way: 'vip' | 'published' | 'return';
  readonly protocol: string;
  /** Address and port, as all of these. */
  readonly client: string;
  /** The VIP that the client called; another node knows that of a `return` flow. */
  readonly vip?: string;
  readonly service?: string;
  readonly backend: string;
  readonly taskId?: string;
  /** Its name, where that is known on this node. */
  readonly task?: string;
  readonly via?: string;
  readonly network: string;
  readonly state: string;
  /** Whether the backend has left its service. */
  readonly gone: boolean;
  readonly ageMs: number;
  readonly idleMs: number;
}

/** Some flows, and where to go on. */
export interface FlowPage {
  readonly flows: readonly FlowView[];
  /** For the next request; absent at the end of the table. */
  readonly next?: number;
}

/** A flow table, as `FlowTableReader` reads it. */
export interface FlowSource {
  readonly capacity: number;
  read(slot: number, nowMs: number): FlowRecord | undefined;
}

type Matches = (flow: FlowRecord) => boolean;

/**
 * The next flows of the table that a request is about. Looks at a bounded part of the table: a page may
 * be empty and still have a next one.
 *
 * @param nowMs - Wall-clock milliseconds since the Unix epoch.
 * @throws {LocalApiError} if the request names something that is not here, with what is
 */
export function flowPage(
  table: FlowSource,
  names: FlowNames,
  request: FlowRequest,
  nowMs: number,
): FlowPage {
  const matches = flowFilter(request, names);
  const describe = flowDescriber(names);
  const limit = Math.min(request.limit, FLOWS_PER_PAGE);
  const end = Math.min(table.capacity, request.cursor + SLOTS_PER_PAGE);
  const flows: FlowView[] = [];
  let slot = request.cursor;
  for (; slot < end && flows.length < limit; slot++) {
    const flow = table.read(slot, nowMs);
    // A balanced flow is in the table twice: by what its client sends, and by what comes back.
    if (flow === undefined || flow.kind === 'reverse' || !matches(flow)) continue;
    flows.push(describe(flow));
  }
  return slot < table.capacity ? { flows, next: slot } : { flows };
}

function flowFilter({ network, task, service }: FlowRequest, names: FlowNames): Matches {
  const filters: Matches[] = [];
  if (network !== undefined) filters.push(ofNetwork(network, names));
  if (task !== undefined) filters.push(ofTask(task, names));
  if (service !== undefined) filters.push(ofService(service, names));
  return (flow) => filters.every((matches) => matches(flow));
}

function ofNetwork(reference: string, { networks }: FlowNames): Matches {
  const { vni, ingress } = findNamed('networks', reference, networks);
  const scopes = ingress ? [vni, HOST_SCOPE] : [vni];
  return ({ scope, outScope }) => scopes.includes(scope) || scopes.includes(outScope || scope);
}

function ofTask(reference: string, names: FlowNames): Matches {
  const known = new Map(
    names.endpoints.map(({ taskId }) => [taskId, { id: taskId, name: taskId }]),
  );
  const tasks = [
    ...new Map<string, Named>([
      ...known,
      ...names.tasks.map((one) => [one.id, one] as const),
    ]).values(),
  ];
  const { id } = findNamed('tasks', reference, tasks);
  const ends = endsOf(names, ({ taskId }) => taskId === id);
  return (flow) => ends.has(clientKey(flow)) || ends.has(backendKey(flow));
}

function ofService(reference: string, names: FlowNames): Matches {
  const { id } = findNamed('services', reference, names.services);
  const vips = vipNames({ ...names, services: names.services.filter((one) => one.id === id) });
  const ends = endsOf(names, ({ serviceId }) => serviceId === id);
  return (flow) => (flow.kind === 'return' ? ends.has(backendKey(flow)) : vips.has(vipKey(flow)));
}

function flowDescriber(names: FlowNames): (flow: FlowRecord) => FlowView {
  const networkNames = new Map(names.networks.map(({ vni, name }) => [vni, name]));
  const taskNames = new Map(names.tasks.map(({ id, name }) => [id, name]));
  const services = vipNames(names);
  const tasks = new Map<string, string>();
  const vnis = vnisOf(names);
  for (const end of names.endpoints) {
    for (const key of keysOf(end, vnis)) tasks.set(key, end.taskId);
  }
  return (flow) => {
    const taskId = tasks.get(backendKey(flow));
    const task = taskNames.get(taskId ?? '');
    const common = {
      protocol: PROTOCOL_NAMES.get(flow.protocol) ?? String(flow.protocol),
      network: networkNames.get(flow.outScope || flow.scope) ?? String(flow.outScope || flow.scope),
      ...(taskId === undefined ? {} : { taskId }),
      ...(task === undefined ? {} : { task }),
      state: flow.state,
      gone: flow.gone,
      ageMs: flow.ageMs,
      idleMs: flow.idleMs,
    };
    if (flow.kind === 'return') {
      return {
        way: 'return',
        client: formatIpPort(flow.destination, flow.destinationPort),
        backend: formatIpPort(flow.source, flow.sourcePort),
        via: formatIpPort(flow.vtep, flow.vtepPort),
        ...common,
      };
    }
    const service = services.get(vipKey(flow));
    return {
      way: flow.scope === HOST_SCOPE ? 'published' : 'vip',
      client: formatIpPort(flow.source, flow.sourcePort),
      vip: formatIpPort(flow.destination, flow.destinationPort),
      backend: formatIpPort(flow.newDestination, flow.newDestinationPort),
      ...(service === undefined ? {} : { service }),
      ...common,
    };
  };
}

/** The scope of a network that is not known here: no flow has it. */
const NO_SCOPE = -1;

const PROTOCOL_NAMES: ReadonlyMap<number, string> = new Map([
  [PROTO_TCP, 'tcp'],
  [PROTO_UDP, 'udp'],
  [PROTO_ICMP, 'icmp'],
  [PROTO_ICMPV6, 'icmpv6'],
]);

/** Names of services by their VIPs. */
function vipNames(names: FlowNames): ReadonlyMap<string, string> {
  const vnis = vnisOf(names);
  const found = new Map<string, string>();
  const add = (scope: number, vips: readonly (string | undefined)[], name: string): void => {
    for (const vip of vips) if (vip !== undefined) found.set(addressKey(scope, parseIp(vip)), name);
  };
  for (const { name, vips, ingressVip, ingressVip6 } of names.services) {
    for (const { networkId, address, address6 } of vips) {
      add(vnis.get(networkId) ?? NO_SCOPE, [address, address6], name);
    }
    add(HOST_SCOPE, [ingressVip, ingressVip6], name);
  }
  return found;
}

function endsOf(
  names: FlowNames,
  isWanted: (endpoint: FlowEndpoint) => boolean,
): ReadonlySet<string> {
  const vnis = vnisOf(names);
  return new Set(names.endpoints.filter(isWanted).flatMap((endpoint) => keysOf(endpoint, vnis)));
}

function vnisOf({ networks }: FlowNames): ReadonlyMap<string, number> {
  return new Map(networks.map(({ id, vni }) => [id, vni]));
}

/** The keys of an endpoint's addresses; none if its network is not known here. */
function keysOf(
  { networkId, address, address6 }: FlowEndpoint,
  vnis: ReadonlyMap<string, number>,
): string[] {
  const vni = vnis.get(networkId);
  if (vni === undefined) return [];
  const addresses = address6 === undefined ? [address] : [address, address6];
  return addresses.map((one) => addressKey(vni, one));
}

function clientKey(flow: FlowRecord): string {
  return addressKey(flow.scope, flow.kind === 'return' ? flow.destination : flow.source);
}

function backendKey({ kind, scope, source, outScope, newDestination }: FlowRecord): string {
  return kind === 'return' ? addressKey(scope, source) : addressKey(outScope, newDestination);
}

function vipKey({ scope, destination }: FlowRecord): string {
  return addressKey(scope, destination);
}

function addressKey(scope: number, address: Ip): string {
  return `${scope}/${formatIp(address)}`;
}
