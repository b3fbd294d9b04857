import { writeFile } from 'node:fs/promises';
import { formatIpv4, type Ipv4, parseIpv4 } from '../../core/address.ts';
import type { Log } from '../../core/capabilities.ts';
import { type RunCommand, runCommand } from '../process.ts';
import { readSysctl, writeSysctls } from './netns.ts';

/** A port that this host answers on behalf of a service. */
export interface PublishedPort {
  readonly protocol: 'tcp' | 'udp';
  readonly publishedPort: number;
  /** The service's VIP on the ingress network, `a.b.c.d`. */
  readonly vip: string;
  readonly targetPort: number;
}

/** The interface by which the host reaches VIPs. */
export interface Uplink {
  /** Such as `weft0`. */
  readonly device: string;
  /** Its own address: clients on loopback are seen under it. */
  readonly address: Ipv4;
}

/** NF_IP_PRI_NAT_DST (linux/netfilter_ipv4.h). Older nft knows its name in prerouting only. */
const DSTNAT_PRIORITY = -100;

/**
 * The whole ruleset as `nft -f` takes it: it replaces table `inet weft` and touches no other.
 *
 * Destinations are looked up in one map per protocol, so thousands of ports cost what one does. Client
 * addresses are kept, with one exception: 127.0.0.0/8 cannot leave loopback (RFC 1122, section
 * 3.2.1.3 g), so such clients appear under the uplink's address.
 *
 * The forward chain accepts traffic of the uplink. A packet must be accepted by every table: where
 * another one drops forwarded packets (Docker sets its FORWARD policy to drop), its owner must let the
 * uplink through, with Docker by an accept in DOCKER-USER. {@link forwardDropChains} finds such tables.
 *
 * @param ports - In any order; the text does not depend on it.
 * @throws {RangeError} if a port or address is invalid, or a port is published twice
 */
export function renderPublishedPorts(uplink: Uplink, ports: readonly PublishedPort[]): string {
  if (!/^[A-Za-z0-9_.-]{1,15}$/.test(uplink.device)) {
    throw new RangeError(
      `Cannot use ${JSON.stringify(uplink.device)} as the uplink: expected an interface name`,
    );
  }
  const dnat = (protocol: 'tcp' | 'udp') =>
    `    fib daddr type local meta nfproto ipv4 dnat ip to ${protocol} dport map @${protocol}-ports`;
  return `# Made by weft, replaced at every change: edits are lost.
table inet weft
delete table inet weft
table inet weft {
${renderMap('tcp', ports)}
${renderMap('udp', ports)}
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
${dnat('tcp')}
${dnat('udp')}
  }
  chain output {
    type nat hook output priority ${DSTNAT_PRIORITY}; policy accept;
${dnat('tcp')}
${dnat('udp')}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "${uplink.device}" ip saddr 127.0.0.0/8 snat ip to ${formatIpv4(uplink.address)}
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "${uplink.device}" accept
    oifname "${uplink.device}" accept
  }
}
`;
}

function renderMap(protocol: 'tcp' | 'udp', ports: readonly PublishedPort[]): string {
  const mine = ports
    .filter((port) => port.protocol === protocol)
    .sort((a, b) => a.publishedPort - b.publishedPort);
  const elements = mine.map((port, index) => {
    if (mine[index - 1]?.publishedPort === port.publishedPort) {
      throw new RangeError(
        `Cannot publish ${port.publishedPort}/${protocol} twice: expected one service per port`,
      );
    }
    const vip = formatIpv4(parseIpv4(port.vip));
    return `${toPort(port.publishedPort)} : ${vip} . ${toPort(port.targetPort)}`;
  });
  const list = elements.length === 0 ? '' : `\n    elements = { ${elements.join(',\n      ')} }`;
  return `  map ${protocol}-ports {\n    type inet_service : ipv4_addr . inet_service${list}\n  }`;
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
   * `ip_forward` stays on afterwards: by then something else may rely on it.
   *
   * @throws {CommandError} if a setting is refused
   */
  async enableForwarding(): Promise<void> {
    const before = await readSysctl('net/ipv4/ip_forward', this.#run);
    await writeSysctls(
      {
        'net/ipv4/ip_forward': '1',
        [`net/ipv4/conf/${this.#options.uplink.device}/route_localnet`]: '1',
      },
      this.#run,
    );
    if (before !== '1') this.#log.info({ before, after: '1' }, 'set net.ipv4.ip_forward');
    const chains = forwardDropChains(await this.#run(['nft', '-j', 'list', 'chains']));
    if (chains.length === 0) return;
    const fields = { chains, device: this.#options.uplink.device };
    this.#log.warn(fields, 'another firewall drops forwarded packets: let the device through');
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
