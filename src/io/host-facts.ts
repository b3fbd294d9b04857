import { arch, availableParallelism, cpus, platform, totalmem } from 'node:os';
import { parseIpv6 } from '../core/ip.ts';
import type { InterfaceState, IpCommand } from './linux/ip-command.ts';

/** The interface by which other nodes reach this host. */
export interface Underlay {
  readonly device: string;
  readonly address: string;
  /** Of the interface, or of its route with the smallest MTU. */
  readonly mtuBytes: number;
}

/**
 * Finds the interface that other nodes reach this host by.
 *
 * @param wanted - An address of this host, or an interface's name; undefined for the interface of the
 *   default route, or else the only one that has an address. Of an interface with addresses of both
 *   families it is the IPv4 one.
 * @throws {Error} if there is none, saying what to give
 */
export async function findUnderlay(ip: IpCommand, wanted: string | undefined): Promise<Underlay> {
  const interfaces = (await ip.interfaces()).filter(({ name }) => name !== 'lo');
  if (wanted !== undefined) return await chooseWanted(ip, interfaces, wanted);
  const device = (await defaultRouteDevice(ip, '-4')) ?? (await defaultRouteDevice(ip, '-6'));
  const addressed = interfaces.filter((link) => link.isUp && addressOf(link) !== undefined);
  const chosen =
    addressed.find(({ name }) => name === device) ??
    (addressed.length === 1 ? addressed[0] : undefined);
  if (chosen === undefined) {
    const known = addressed.map((link) => `${link.name} (${addressOf(link)})`).join(', ');
    throw new Error(
      `Cannot choose the address to advertise: there is no default route; give --advertise-addr one of ${known || 'this host’s addresses (it has none yet)'}`,
    );
  }
  return await underlayOf(ip, chosen, addressOf(chosen) ?? '');
}

async function chooseWanted(
  ip: IpCommand,
  interfaces: readonly InterfaceState[],
  given: string,
): Promise<Underlay> {
  const wanted = given.includes(':') ? canonical(given) : given;
  for (const link of interfaces) {
    const address = link.name === wanted ? addressOf(link) : undefined;
    if (address !== undefined) return await underlayOf(ip, link, address);
    if (link.addresses.some((entry) => entry.address === wanted)) {
      return await underlayOf(ip, link, wanted);
    }
  }
  const known = interfaces.map((link) => `${link.name} (${addressOf(link) ?? 'no address'})`);
  throw new Error(
    `Cannot advertise ${JSON.stringify(given)}: expected an IP address or interface of this host, which has ${known.join(', ')}`,
  );
}

/** The form in which the kernel shows an IPv6 address; what is none stays, to be found nowhere. */
function canonical(text: string): string {
  try {
    return parseIpv6(text);
  } catch {
    return text;
  }
}

async function defaultRouteDevice(ip: IpCommand, family: '-4' | '-6'): Promise<string | undefined> {
  const text = await ip.command(['-j', family, 'route', 'show', 'default']);
  const routes = JSON.parse(text.trim() || '[]') as readonly { readonly dev?: string }[];
  return routes[0]?.dev;
}

function addressOf(link: InterfaceState): string | undefined {
  const [first] = link.addresses;
  return (link.addresses.find(({ address }) => address.includes('.')) ?? first)?.address;
}

async function underlayOf(ip: IpCommand, link: InterfaceState, address: string): Promise<Underlay> {
  const family = address.includes(':') ? '-6' : '-4';
  const text = await ip.command(['-j', family, 'route', 'show', 'dev', link.name]);
  const routes = JSON.parse(text.trim() || '[]') as readonly {
    readonly metrics?: readonly { readonly mtu?: number }[];
  }[];
  const mtus = routes.flatMap(({ metrics = [] }) => metrics.flatMap(({ mtu = [] }) => mtu));
  return { device: link.name, address, mtuBytes: Math.min(link.mtuBytes, ...mtus) };
}

/**
 * Networks that this host has routes to, which an overlay must not overlap. Link-local ones are on
 * every interface, and on no overlay.
 *
 * @param ignoredDevice - The agent's own interface, whose routes lead into the overlay.
 */
export async function hostRoutes(
  ip: IpCommand,
  ignoredDevice: string,
): Promise<readonly { readonly destination: string; readonly holder: string }[]> {
  const texts = await Promise.all(
    ['-4', '-6'].map((family) => ip.command(['-j', family, 'route', 'show'])),
  );
  const routes = texts.flatMap((text) => JSON.parse(text.trim() || '[]') as readonly IpRouteJson[]);
  return routes
    .filter(({ dst, dev }) => dst !== 'default' && dev !== ignoredDevice)
    .filter(({ dst }) => !dst.startsWith('fe80:'))
    .map(({ dst, dev }) => ({
      destination: dst.includes('/') ? dst : `${dst}/${dst.includes(':') ? 128 : 32}`,
      holder: `this host (${dev ?? 'a route'})`,
    }));
}

/** The fields that {@link hostRoutes} reads of `ip -j route`. */
interface IpRouteJson {
  readonly dst: string;
  readonly dev?: string;
}

/** Cores that this process may use: the machine's, less what affinity or a control group withholds. */
export function usableCores(): number {
  return availableParallelism();
}

/** What this machine is and has. */
export function machineFacts(): {
  readonly platform: { readonly architecture: string; readonly os: string };
  readonly resources: { readonly nanoCpus: number; readonly memoryBytes: number };
} {
  const architecture = arch() === 'x64' ? 'x86_64' : arch() === 'arm64' ? 'aarch64' : arch();
  return {
    platform: { architecture, os: platform() },
    resources: { nanoCpus: cpus().length * 1_000_000_000, memoryBytes: totalmem() },
  };
}
