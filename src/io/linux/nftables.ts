import { writeFile } from 'node:fs/promises';
import { formatIpv4, type Ipv4, parseIpv4 } from '../../core/address.ts';
import type { Log } from '../../core/capabilities.ts';
import { type Ipv6, parseIpv6 } from '../../core/ip.ts';
import { type RunCommand, runCommand } from '../process.ts';
import { IpCommand } from './ip-command.ts';
import { readSysctl, writeSysctls } from './netns.ts';

/** A port that this host answers on behalf of a service. */
export interface PublishedPort {
  readonly protocol: 'tcp' | 'udp';
  readonly publishedPort: number;
  /** The service's VIP on the ingress network, `a.b.c.d`. */
  readonly vip: string;
  /** Its IPv6 one; without it the port is not answered on this host's IPv6 addresses. */
  readonly vip6?: string;
  readonly targetPort: number;
}

/** The interface by which the host reaches VIPs. */
export interface Uplink {
  /** Such as `weft0`. */
  readonly device: string;
  /** Its own address: clients on loopback are seen under it. */
  readonly address: Ipv4;
  /** Absent on a host without IPv6, which then publishes nothing by it. */
  readonly address6?: Ipv6;
  /** UDP port of the tunnel that is behind it. */
  readonly tunnelPort: number;
}

/** NF_IP_PRI_NAT_DST (linux/netfilter_ipv4.h). Older nft knows its name in prerouting only. */
const DSTNAT_PRIORITY = -100;

/** A protocol and a family: each has its map, since the values of a map are of one type. */
interface PortMap {
  readonly protocol: PublishedPort['protocol'];
  readonly family: 'ipv4' | 'ipv6';
  /** As rules name it. */
  readonly name: string;
}

const PORT_MAPS: readonly PortMap[] = [
  { protocol: 'tcp', family: 'ipv4', name: 'tcp-ports' },
  { protocol: 'udp', family: 'ipv4', name: 'udp-ports' },
  { protocol: 'tcp', family: 'ipv6', name: 'tcp6-ports' },
  { protocol: 'udp', family: 'ipv6', name: 'udp6-ports' },
];

/**
 * The whole ruleset as `nft -f` takes it: it replaces table `inet weft` and touches no other.
 *
 * Destinations are looked up in one map per protocol and family, so thousands of ports cost what one
 * does. Client addresses are kept, with one exception: 127.0.0.0/8 and ::1 cannot leave loopback (RFC
 * 1122, section 3.2.1.3 g; RFC 4291, section 2.5.3), so such clients appear under the uplink's address.
 * A client with a link-local address is not served: nothing of it may pass a router (RFC 4291, section
 * 2.5.6).
 *
 * The tunnel's own datagrams are exempt from connection tracking, which the rules above switch on for the
 * whole host: it would cost time for each, and entries that say nothing.
 *
 * The forward chain accepts traffic of the uplink. A packet must be accepted by every table: where
 * another one drops forwarded packets (Docker sets its FORWARD policy to drop), its owner must let the
 * uplink through, with Docker by an accept in DOCKER-USER. {@link forwardDropChains} finds such tables.
 *
 * @param ports - In any order; the text does not depend on it.
 * @throws {RangeError} if a port or address is invalid, or a port is published twice
 */
export function renderPublishedPorts(uplink: Uplink, ports: readonly PublishedPort[]): string {
  const { device, address, address6 } = uplink;
  if (!/^[A-Za-z0-9_.-]{1,15}$/.test(device)) {
    throw new RangeError(
      `Cannot use ${JSON.stringify(device)} as the uplink: expected an interface name`,
    );
  }
  const maps = PORT_MAPS.filter(({ family }) => family === 'ipv4' || address6 !== undefined);
  const dnat = maps.map(renderDnat).join('\n');
  const snat6 =
    address6 === undefined ? '' : `\n    oifname "${device}" ip6 saddr ::1 snat ip6 to ${address6}`;
  return `# Made by weft, replaced at every change: edits are lost.
table inet weft
delete table inet weft
table inet weft {
${maps.map((map) => renderMap(map, ports)).join('\n')}
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
${dnat}
  }
  chain output {
    type nat hook output priority ${DSTNAT_PRIORITY}; policy accept;
${dnat}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "${device}" ip saddr 127.0.0.0/8 snat ip to ${formatIpv4(address)}${snat6}
  }
  chain tunnel-in {
    type filter hook prerouting priority raw; policy accept;
    udp dport ${toPort(uplink.tunnelPort)} notrack
  }
  chain tunnel-out {
    type filter hook output priority raw; policy accept;
    udp dport ${toPort(uplink.tunnelPort)} notrack
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "${device}" accept
    oifname "${device}" accept
  }
}
`;
}

function renderDnat({ protocol, family, name }: PortMap): string {
  const [match, target] =
    family === 'ipv4' ? ['meta nfproto ipv4', 'ip'] : ['ip6 saddr != fe80::/10', 'ip6'];
  return `    fib daddr type local ${match} dnat ${target} to ${protocol} dport map @${name}`;
}

function renderMap({ protocol, family, name }: PortMap, ports: readonly PublishedPort[]): string {
  const mine = ports
    .filter((port) => port.protocol === protocol)
    .sort((a, b) => a.publishedPort - b.publishedPort);
  const elements = mine.flatMap((port, index) => {
    if (mine[index - 1]?.publishedPort === port.publishedPort) {
      throw new RangeError(
        `Cannot publish ${port.publishedPort}/${protocol} twice: expected one service per port`,
      );
    }
    const vip = vipOf(port, family);
    if (vip === undefined) return [];
    return [`${toPort(port.publishedPort)} : ${vip} . ${toPort(port.targetPort)}`];
  });
  const list = elements.length === 0 ? '' : `\n    elements = { ${elements.join(',\n      ')} }`;
  return `  map ${name} {\n    type inet_service : ${family}_addr . inet_service${list}\n  }`;
}

function vipOf({ vip, vip6 }: PublishedPort, family: PortMap['family']): string | undefined {
  if (family === 'ipv4') return formatIpv4(parseIpv4(vip));
  return vip6 === undefined ? undefined : parseIpv6(vip6);
}

function toPort(port: number): number {
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new RangeError(`Cannot use ${port} as a port: expected an integer in [1, 65535]`);
  }
  return port;
}

/**
 * Chains outside table `inet weft` that drop forwarded packets by policy: clients from outside cannot
 * reach published ports there, until the uplink is let through.
 *
 * @param json - What `nft -j list chains` printed.
 * @returns such as `ip filter FORWARD`
 */
export function forwardDropChains(json: string): readonly string[] {
  const { nftables } = JSON.parse(json) as { nftables: readonly { chain?: NftChainJson }[] };
  return nftables.flatMap(({ chain }) => {
    const isOther = chain !== undefined && !(chain.family === 'inet' && chain.table === 'weft');
    const drops = chain?.hook === 'forward' && chain.policy === 'drop';
    return isOther && drops ? [`${chain.family} ${chain.table} ${chain.name}`] : [];
  });
}

/** libnftables-json(5). */
interface NftChainJson {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly hook?: string;
  readonly policy?: string;
}

/** Where a {@link PublishedPortTable} works. */
export interface PublishedPortTableOptions {
  readonly uplink: Uplink;
  /** Where the ruleset is written for `nft` to read; stays there to be looked at. */
  readonly file: string;
}

/** What a {@link PublishedPortTable} needs. */
export interface PublishedPortTableDeps {
  readonly log: Log;
  /** Runs `nft` and the settings' shell; give one with a prefix to work in another namespace. */
  readonly run?: RunCommand;
}

/**
 * This host's published ports: the table `inet weft` and the kernel settings that it needs.
 *
 * A connection keeps the destination that its first packet got: a change is for new ones.
 */
export class PublishedPortTable {
  readonly #log: Log;
  readonly #run: RunCommand;
  readonly #options: PublishedPortTableOptions;
  /** The last change asked for; the next waits for it, so that the latest one wins. */
  #tail: Promise<void> = Promise.resolve();

  constructor(deps: PublishedPortTableDeps, options: PublishedPortTableOptions) {
    this.#log = deps.log;
    this.#run = deps.run ?? runCommand;
    this.#options = options;
  }

  /**
   * Lets the kernel forward, and answer loopback clients through the uplink, which must exist.
   * Forwarding stays on afterwards: by then something else may rely on it.
   *
   * @throws {CommandError} if a setting is refused
   */
  async enableForwarding(): Promise<void> {
    const { device, address6 } = this.#options.uplink;
    await this.#setForwarding('net/ipv4/ip_forward');
    await writeSysctls({ [`net/ipv4/conf/${device}/route_localnet`]: '1' }, this.#run);
    if (address6 !== undefined) await this.#enableIpv6Forwarding(device);
    const chains = forwardDropChains(await this.#run(['nft', '-j', 'list', 'chains']));
    if (chains.length === 0) return;
    const fields = { chains, device: this.#options.uplink.device };
    this.#log.warn(fields, 'another firewall drops forwarded packets: let the device through');
  }

  async #setForwarding(key: string): Promise<void> {
    const before = await readSysctl(key, this.#run);
    if (before === '1') return;
    await writeSysctls({ [key]: '1' }, this.#run);
    this.#log.info({ setting: key, before, after: '1' }, 'kernel setting changed');
  }

  async #enableIpv6Forwarding(device: string): Promise<void> {
    // A router ignores router advertisements, and forgets the default route that it had of one, on
    // interfaces with accept_ra = 1 (linux ip-sysctl): a host that lives by them must go on.
    const keepRa = `for file in /proc/sys/net/ipv6/conf/*/accept_ra; do
      if [ "$(cat "$file")" = 1 ]; then printf 2 >"$file" || exit; fi; done`;
    const key = 'net/ipv6/conf/all/forwarding';
    if ((await readSysctl(key, this.#run)) !== '1') await this.#run(['sh', '-c', keepRa]);
    await this.#setForwarding(key);
    // IPv6 has no route_localnet. An answer to a client on ::1 comes in by the uplink, where the
    // kernel looks for ::1 on this very interface: it has to be there, too, after that of loopback.
    const ip = new IpCommand(this.#run);
    await ip.batch(undefined, [
      `route replace local ::1/128 dev ${device} table local metric 1024`,
    ]);
  }

  /**
   * Makes `ports` the published ports, all at once: no packet ever meets half a table.
   *
   * @param ports - All of them; the ones that are missing are no longer published.
   * @throws {RangeError} if one is invalid or appears twice; nothing changes then
   * @throws {CommandError} if `nft` refuses; nothing changes then
   */
  async replace(ports: readonly PublishedPort[]): Promise<void> {
    const ruleset = renderPublishedPorts(this.#options.uplink, ports);
    await this.#serially(async () => {
      await writeFile(this.#options.file, ruleset, { mode: 0o600 });
      // From a file: nft opens /dev/stdin anew for `-`, which fails on the socket that Node gives it.
      await this.#run(['nft', '-f', this.#options.file]);
    });
  }

  /**
   * Removes the table; does nothing when there is none.
   *
   * @throws {CommandError} if `nft` refuses
   */
  async remove(): Promise<void> {
    await this.#serially(async () => {
      // `add` first: nft 1.0.6 has no `destroy`, and deleting what is missing is an error.
      await this.#run(['nft', 'add table inet weft; delete table inet weft']);
    });
  }

  #serially(change: () => Promise<void>): Promise<void> {
    const done = this.#tail.then(change);
    this.#tail = done.catch(() => {}); // its caller is told, the next one is not held up
    return done;
  }
}
