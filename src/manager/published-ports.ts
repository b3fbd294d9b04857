import type { StateView } from './cluster-state.ts';
import { invalid, preconditionFailed } from './errors.ts';
import { publishedPortKey } from './keys.ts';
import type { ServiceRecord } from './records.ts';
import { isIngressPort, type PortConfig, type ServiceSpec } from './service-spec.ts';
import type { Draft } from './state-writer.ts';

/** Ports given when a service does not ask for one (swarmkit `portallocator.go`). */
export const AUTOMATIC_PORT_MIN = 30_000;
/** The last of them. */
export const AUTOMATIC_PORT_MAX = 32_767;

/** `tcp/8080`. */
export type PortName = `${'tcp' | 'udp'}/${number}`;

/** The name of a port's published side. */
export function portName(port: Pick<PortConfig, 'Protocol' | 'PublishedPort'>): PortName {
  return `${port.Protocol}/${port.PublishedPort}`;
}

/**
 * The ports of a service with every published port known: as asked, as before the update, or the
 * lowest free one.
 *
 * @param view - Where to look for what is taken.
 * @param request - `previous` is the service as it is, when it is being updated; `avoid` holds ports
 *   that are taken by something else than a service.
 * @throws {ManagerError} INVALID if a port is given twice, or another service has it
 */
export function resolvePorts(
  view: StateView,
  request: {
    readonly spec: ServiceSpec;
    readonly previous: ServiceRecord | undefined;
    readonly avoid: ReadonlySet<PortName>;
  },
): PortConfig[] {
  const { spec, previous, avoid } = request;
  const asked = spec.EndpointSpec?.Ports ?? [];
  const mine = new Set<PortName>();
  for (const port of asked) {
    if (port.PublishedPort === 0) continue;
    const name = portName(port);
    if (mine.has(name)) {
      throw invalid('EndpointSpec: duplicate published ports provided', 'EndpointSpec.Ports');
    }
    mine.add(name);
    refuseIfTaken(view, port, previous?.id);
  }
  return asked.map((port) => {
    if (port.PublishedPort !== 0 || !isIngressPort(port)) return port;
    const before = previous?.ports.find(
      (old) => isSameTarget(old, port) && isIngressPort(old) && !mine.has(portName(old)),
    );
    const PublishedPort =
      before?.PublishedPort ??
      lowestFree(
        (name) => mine.has(name) || avoid.has(name) || isTaken(view, name, previous?.id),
        port.Protocol,
      );
    const resolved = { ...port, PublishedPort };
    mine.add(portName(resolved));
    return resolved;
  });
}

/** Makes the ingress ports of `next` its own, and those of `previous` that it gave up free. */
export function claimPorts(
  draft: Draft,
  next: ServiceRecord,
  previous: ServiceRecord | undefined,
): void {
  const wanted = new Set(next.ports.filter(isIngressPort).map(portName));
  for (const port of previous?.ports.filter(isIngressPort) ?? []) {
    if (!wanted.has(portName(port)))
      draft.delete(publishedPortKey(port.Protocol, port.PublishedPort));
  }
  for (const port of next.ports.filter(isIngressPort)) {
    const key = publishedPortKey(port.Protocol, port.PublishedPort);
    if (draft.get(key) !== next.id) draft.put(key, next.id);
  }
}

/** Makes a service's ingress ports free. */
export function releasePorts(draft: Draft, service: ServiceRecord): void {
  for (const port of service.ports.filter(isIngressPort)) {
    draft.delete(publishedPortKey(port.Protocol, port.PublishedPort));
  }
}

function isSameTarget(a: PortConfig, b: PortConfig): boolean {
  return a.Protocol === b.Protocol && a.TargetPort === b.TargetPort;
}

/** Two services may publish one port in host mode: on different nodes, which the scheduler sees to. */
function refuseIfTaken(view: StateView, port: PortConfig, ownId: string | undefined): void {
  for (const service of view.all('services')) {
    if (service.id === ownId) continue;
    const other = service.ports.find((candidate) => portName(candidate) === portName(port));
    if (other === undefined || (!isIngressPort(port) && !isIngressPort(other))) continue;
    const how = isIngressPort(other) ? 'as an ingress port' : 'as a host-published port';
    throw invalid(
      `port '${port.PublishedPort}' is already in use by service '${service.spec.Name}' (${service.id}) ${how}`,
      'EndpointSpec.Ports',
    );
  }
}

function isTaken(view: StateView, name: PortName, ownId: string | undefined): boolean {
  for (const service of view.all('services')) {
    if (service.id !== ownId && service.ports.some((port) => portName(port) === name)) return true;
  }
  return false;
}

function lowestFree(isUsed: (name: PortName) => boolean, protocol: 'tcp' | 'udp'): number {
  for (let port = AUTOMATIC_PORT_MIN; port <= AUTOMATIC_PORT_MAX; port += 1) {
    if (!isUsed(`${protocol}/${port}`)) return port;
  }
  throw preconditionFailed(
    `no ${protocol} port is free in [${AUTOMATIC_PORT_MIN}, ${AUTOMATIC_PORT_MAX}]: publish a port of your choice`,
  );
}
