import { formatMac } from '../core/address.ts';
import { formatIp } from '../core/ip.ts';
import { endpointDigest } from './endpoint-digest.ts';
import { readEndpointRecord, readVtepRecord, VTEP_KEY } from './endpoint-record.ts';
import type { VisibleEntry } from './endpoint-view.ts';
import { findNamed, type Named } from './find-named.ts';

/** Which endpoints are asked for: names, ids, or the starts of ids. */
export interface EndpointRequest {
  readonly network?: string | undefined;
  readonly service?: string | undefined;
  readonly node?: string | undefined;
}

/** What ids are called. */
export interface EndpointNames {
  readonly networks: readonly Named[];
  readonly services: readonly Named[];
  /** Those of this node. */
  readonly tasks: readonly Named[];
}

/** A task's attachment to a network, as its node announces it. */
export interface EndpointReport {
  /** Names where they are known, else ids, here and in the fields without `Id` below. */
  readonly network: string;
  readonly networkId: string;
  readonly address: string;
  readonly address6?: string;
  readonly mac: string;
  readonly node: string;
  readonly nodeId: string;
  readonly service: string;
  readonly serviceId: string;
  readonly task: string;
  readonly taskId: string;
  readonly state: string;
}

/** What is known of one network, or of all, in one number. */
export interface DigestReport {
  /** Absent in the last line, which is about all that nodes announce, their VTEPs included. */
  readonly network?: string;
  readonly networkId?: string;
  readonly endpoints: number;
  readonly digest: string;
}

/** Ids and host names of the nodes that announce anything. */
export function announcingNodes(entries: readonly VisibleEntry[]): Named[] {
  const names = new Map<string, string>();
  for (const { node, key, value } of entries) {
    const hostname = key === VTEP_KEY ? readVtepRecord(value)?.hostname : undefined;
    names.set(node, hostname ?? names.get(node) ?? node);
  }
  return [...names].map(([id, name]) => ({ id, name }));
}

/**
 * The endpoints that gossip shows, by network, address and node.
 *
 * @throws {LocalApiError} if the request names something that is not here, with what is
 */
export function endpointReports(
  entries: readonly VisibleEntry[],
  names: EndpointNames,
  request: EndpointRequest,
): EndpointReport[] {
  const nodes = announcingNodes(entries);
  const { network, service, node } = request;
  const idOf = (these: string, reference: string | undefined, from: readonly Named[]) =>
    reference === undefined ? undefined : findNamed(these, reference, from).id;
  const networkId = idOf('networks', network, names.networks);
  const serviceId = idOf('services', service, names.services);
  const nodeId = idOf('nodes', node, nodes);
  const nameOf = nameFinder([...names.networks, ...names.services, ...names.tasks, ...nodes]);
  return entries
    .flatMap((entry) => endpointReport(entry, nameOf) ?? [])
    .filter(
      (report) =>
        (networkId ?? report.networkId) === report.networkId &&
        (serviceId ?? report.serviceId) === report.serviceId &&
        (nodeId ?? report.nodeId) === report.nodeId,
    )
    .sort(
      (a, b) =>
        compare(a.network, b.network) || compare(a.address, b.address) || compare(a.node, b.node),
    );
}

/** A line for each network, and one for everything that gossip shows. */
export function digestReports(
  entries: readonly VisibleEntry[],
  networks: readonly Named[],
): DigestReport[] {
  const byNetwork = Map.groupBy(entries, ({ key }) => /^endpoint\/([^/]*)\//.exec(key)?.[1]);
  const nameOf = nameFinder(networks);
  const ids = new Set([...networks.map(({ id }) => id), ...byNetwork.keys()]);
  const lines = [...ids].flatMap((networkId): DigestReport[] => {
    if (networkId === undefined) return [];
    const those = byNetwork.get(networkId) ?? [];
    const network = nameOf(networkId);
    return [{ network, networkId, endpoints: those.length, digest: endpointDigest(those) }];
  });
  lines.sort((a, b) => compare(a.network ?? '', b.network ?? ''));
  const endpoints = lines.reduce((sum, line) => sum + line.endpoints, 0);
  return [...lines, { endpoints, digest: endpointDigest(entries) }];
}

function endpointReport(
  { node, key, value }: VisibleEntry,
  nameOf: (id: string) => string,
): EndpointReport | undefined {
  const record = key === VTEP_KEY ? undefined : readEndpointRecord(value);
  if (record === undefined) return undefined;
  const { networkId, address, address6, serviceId, taskId, state } = record;
  return {
    network: nameOf(networkId),
    networkId,
    address: formatIp(address),
    ...(address6 === undefined ? {} : { address6: formatIp(address6) }),
    mac: formatMac(record.mac),
    node: nameOf(node),
    nodeId: node,
    service: nameOf(serviceId),
    serviceId,
    task: nameOf(taskId),
    taskId,
    state,
  };
}

function nameFinder(named: readonly Named[]): (id: string) => string {
  const names = new Map(named.map(({ id, name }) => [id, name]));
  return (id) => names.get(id) ?? id;
}

const ORDER = new Intl.Collator('en', { numeric: true });

function compare(a: string, b: string): number {
  return ORDER.compare(a, b);
}
