import { formatMac, GATEWAY_MAC, macOfIpv4, parseCidr, parseIpv4 } from '../core/address.ts';
import type { Log } from '../core/capabilities.ts';
import { parseIpv6 } from '../core/ip.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';
import { IpCommand } from '../io/linux/ip-command.ts';
import { portHolder } from '../io/linux/listeners.ts';
import { canHaveIpv6, configureInterface } from '../io/linux/netns.ts';
import { type PublishedPort, PublishedPortTable } from '../io/linux/nftables.ts';
import { closeTap } from '../io/linux/tap.ts';
import type { TapOpener } from '../io/linux/tap-opener.ts';
import type { ServiceAssignment } from '../manager/session-protocol.ts';
import { GSO_BYTES_MAX } from './attachments.ts';
import { openPortTap } from './port-tap.ts';

/** The host's own interface into the mesh. */
export const HOST_DEVICE = 'weft0';

/** A published port that this host cannot serve. */
export interface PortConflict {
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
  /** What listens on it already, for instance `nginx (pid 123)`. */
  readonly holder: string;
}

/** What {@link HostPort} works with. */
export interface HostPortDeps {
  readonly dataPlane: DataPlane;
  readonly opener: TapOpener;
  readonly log: Log;
  readonly nextPortId: () => number;
}

/** How the host port is set up. */
export interface HostPortOptions {
  /** This node's address on the ingress network. */
  readonly address: string;
  /** The ingress network, whose addresses are routed into the mesh. */
  readonly subnet: string;
  /** The same of IPv6, and the gateway there. */
  readonly ipv6?: { readonly address: string; readonly subnet: string; readonly gateway: string };
  readonly mtuBytes: number;
  /** UDP port of VXLAN. */
  readonly tunnelPort: number;
  /** Where the ruleset for `nft` is written. */
  readonly rulesetFile: string;
}

/** `weft0` and the published ports that lead into it. */
export class HostPort {
  readonly #deps: HostPortDeps;
  readonly #options: HostPortOptions;
  readonly #table: PublishedPortTable;
  /** Its id among the ports of the data plane. */
  readonly portId: number;
  readonly #fds: readonly number[];
  #conflicts: readonly PortConflict[] = [];
  #applied = '';
  #isSetUp = false;

  private constructor(
    deps: HostPortDeps,
    options: HostPortOptions,
    portId: number,
    fds: readonly number[],
  ) {
    this.#deps = deps;
    this.#options = options;
    this.portId = portId;
    this.#fds = fds;
    const { address, ipv6 } = options;
    const own6 = ipv6 && { address6: parseIpv6(ipv6.address) };
    const { tunnelPort } = options;
    const uplink = { device: HOST_DEVICE, address: parseIpv4(address), ...own6, tunnelPort };
    this.#table = new PublishedPortTable({ log: deps.log }, { uplink, file: options.rulesetFile });
  }

  /**
   * Opens `weft0` and serves it.
   *
   * @throws {Error} if the device is refused
   */
  static async open(deps: HostPortDeps, options: HostPortOptions): Promise<HostPort> {
    const address = parseIpv4(options.address);
    const mac = macOfIpv4(address);
    const ipv6 = (await canHaveIpv6(options.mtuBytes)) ? options.ipv6 : undefined;
    if (ipv6 !== options.ipv6) {
      const fields = { device: HOST_DEVICE, mtuBytes: options.mtuBytes };
      deps.log.warn(fields, 'this host has no IPv6, or too small an MTU: it serves by IPv4 alone');
    }
    const { ipv6: _refused, ...rest } = options;
    const possible = { ...rest, ...(ipv6 && { ipv6 }) };
    const own6 = ipv6 && { address6: parseIpv6(ipv6.address) };
    const { fds } = await openPortTap(deps, '/proc/self/ns/net', HOST_DEVICE);
    const id = deps.nextPortId();
    try {
      await deps.dataPlane.apply([{ kind: 'addHostPort', id, fds, address, ...own6, mac }]);
      return new HostPort(deps, possible, id, fds);
    } catch (error) {
      deps.opener.discard(fds);
      throw error;
    }
  }

  /**
   * Routes the ingress network into `weft0` and lets the host forward. Does nothing the second time.
   *
   * @throws {Error} if an address, a route or a setting is refused
   */
  async setUp(): Promise<void> {
    if (this.#isSetUp) return;
    const { address, subnet, mtuBytes, ipv6 } = this.#options;
    await configureInterface(undefined, {
      name: HOST_DEVICE,
      address: parseIpv4(address),
      prefix: parseCidr(subnet).prefix,
      mac: macOfIpv4(parseIpv4(address)),
      mtuBytes,
      gsoMaxBytes: GSO_BYTES_MAX,
      hasManyQueues: this.#fds.length > 1,
      ...(ipv6 && { ipv6: { address: parseIpv6(ipv6.address), prefix: 128 } }),
    });
    if (ipv6 !== undefined) await routeIpv6(ipv6);
    await this.#table.enableForwarding();
    this.#isSetUp = true;
  }

  /** Published ports that something else holds on this host. */
  get conflicts(): readonly PortConflict[] {
    return this.#conflicts;
  }

  /** Publishes exactly the ports of `services`, except those that a process of this host holds. */
  async publish(services: readonly ServiceAssignment[]): Promise<void> {
    const wanted = services.flatMap(({ ingressVip, ingressVip6, ports }): PublishedPort[] => {
      if (ingressVip === undefined) return [];
      const vips = { vip: ingressVip, ...(ingressVip6 === undefined ? {} : { vip6: ingressVip6 }) };
      return ports.map((port) => ({ ...port, ...vips }));
    });
    const holders = await Promise.all(
      wanted.map(({ protocol, publishedPort }) => portHolder(protocol, publishedPort)),
    );
    const free = wanted.filter((_, index) => holders[index] === undefined);
    this.#noteConflicts(wanted, holders);
    const key = JSON.stringify(free);
    if (key === this.#applied) return;
    await this.#table.replace(free);
    this.#applied = key;
  }

  /** Removes the rules and the device. */
  async remove(): Promise<void> {
    await this.#table.remove();
    // A packet thread that has died serves no port; all else is closed just the same.
    await this.#deps.dataPlane.apply([{ kind: 'removePort', id: this.portId }]).catch(() => {});
    this.#deps.opener.discard(this.#fds);
    await new IpCommand().batch(undefined, [`link delete ${HOST_DEVICE}`]);
  }

  /** Lets go of the device, which no packet thread serves any more. All else stays for the next agent. */
  close(): void {
    closeTap(this.#fds);
  }

  #noteConflicts(wanted: readonly PublishedPort[], holders: readonly (string | undefined)[]): void {
    const known = new Set(this.#conflicts.map(({ protocol, port }) => `${protocol}/${port}`));
    this.#conflicts = wanted.flatMap(({ protocol, publishedPort: port }, index) => {
      const holder = holders[index];
      if (holder === undefined) return [];
      if (!known.has(`${protocol}/${port}`)) {
        this.#deps.log.warn({ protocol, port, holder }, 'published port is taken on this host');
      }
      return [{ protocol, port, holder }];
    });
  }
}

/**
 * Routes the IPv6 ingress network by its gateway, whose MAC is known. Without neighbours to be found:
 * of a packet that the host forwards the kernel would ask from a link-local address, and has none here.
 */
async function routeIpv6(ipv6: {
  readonly subnet: string;
  readonly gateway: string;
}): Promise<void> {
  const { subnet, gateway } = ipv6;
  const dev = `dev ${HOST_DEVICE}`;
  await new IpCommand().batch(undefined, [
    `neigh replace ${gateway} lladdr ${formatMac(GATEWAY_MAC)} ${dev} nud permanent`,
    `route replace ${subnet} via ${gateway} ${dev} onlink`,
  ]);
}
