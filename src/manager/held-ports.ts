import type { ApiContext } from './api-context.ts';
import {
  AUTOMATIC_PORT_MAX,
  AUTOMATIC_PORT_MIN,
  type PortName,
  portName,
} from './published-ports.ts';
import type { ServiceRecord } from './records.ts';
import { isIngressPort, type ServiceSpec } from './service-spec.ts';

/** Ports of this host that no service can have, because a process of the host has them. */
export interface HeldPorts {
  /** Those that the spec asks for by number. */
  readonly asked: readonly { readonly port: number; readonly holder: string }[];
  /** Those that must not be chosen for it. */
  readonly automatic: ReadonlySet<PortName>;
}

/**
 * Finds out which ports of a spec are taken on this host. Ports in host mode are not looked at: their
 * tasks may run elsewhere.
 *
 * @param previous - The service as it is: its own ports are held by weft.
 */
export async function heldPorts(
  context: Pick<ApiContext, 'portHolder' | 'state'>,
  spec: ServiceSpec,
  previous: ServiceRecord | undefined,
): Promise<HeldPorts> {
  const { portHolder, state } = context;
  if (portHolder === undefined) return { asked: [], automatic: new Set() };
  const published = new Set<PortName>();
  for (const service of state.all('services')) {
    for (const port of service.ports) published.add(portName(port));
  }
  const ingress = (spec.EndpointSpec?.Ports ?? []).filter(isIngressPort);
  const mine = new Set(previous?.ports.map(portName));
  const asked: { readonly port: number; readonly holder: string }[] = [];
  for (const port of ingress) {
    if (port.PublishedPort === 0 || mine.has(portName(port))) continue;
    const holder = await portHolder(port.Protocol, port.PublishedPort);
    // Another service's port is refused with that service's name.
    if (holder !== undefined && !published.has(portName(port))) {
      asked.push({ port: port.PublishedPort, holder });
    }
  }
  const automatic = new Set<PortName>();
  for (const Protocol of ['tcp', 'udp'] as const) {
    let wanted = ingress.filter((p) => p.PublishedPort === 0 && p.Protocol === Protocol).length;
    for (let port = AUTOMATIC_PORT_MIN; wanted > 0 && port <= AUTOMATIC_PORT_MAX; port += 1) {
      const name: PortName = `${Protocol}/${port}`;
      if (published.has(name)) continue;
      if ((await portHolder(Protocol, port)) === undefined) wanted -= 1;
      else automatic.add(name);
    }
  }
  return { asked, automatic };
}
