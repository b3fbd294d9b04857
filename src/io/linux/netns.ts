import { mkdir, readdir, stat } from 'node:fs/promises';
import { formatIpv4, formatMac, type Ipv4, type Mac } from '../../core/address.ts';
import { invariant } from '../../core/invariant.ts';
import type { Ipv6 } from '../../core/ip.ts';
import { type RunCommand, runCommand, withPrefix } from '../process.ts';
import { IpCommand } from './ip-command.ts';

/** Where iproute2 keeps named network namespaces (ip-netns(8)). */
export const NETNS_DIRECTORY = '/run/netns';

/** Every namespace that weft makes starts with this, and weft touches no other one. */
export const NETNS_PREFIX = 'weft-';

/** The path that `nsenter --net=` and `setns` take. */
export function netnsPath(name: string): string {
  return `${NETNS_DIRECTORY}/${name}`;
}

/** A {@link RunCommand} that works inside the namespace `name`. /sys stays the host's. */
export function runInNetns(name: string, run: RunCommand = runCommand): RunCommand {
  return withPrefix(run, ['nsenter', `--net=${netnsPath(name)}`, '--']);
}

/** Kernel settings by path below /proc/sys, such as `net/ipv4/ip_forward`. */
export type Sysctls = Readonly<Record<string, string>>;

/**
 * What a task's namespace needs that the kernel's defaults do not give.
 */
const TASK_SYSCTLS: Sysctls = {
  // The stack is the task's own: its user may serve port 80 and ping, as in a Docker container.
  'net/ipv4/ip_unprivileged_port_start': '0',
  'net/ipv4/ping_group_range': '0 2147483647',
  // A task on several networks gets packets by one interface whose answer leaves by another. `all`
  // and `default`, because the stricter of `all` and the interface wins, and a new namespace copies
  // the host's.
  'net/ipv4/conf/all/rp_filter': '0',
  'net/ipv4/conf/default/rp_filter': '0',
  'net/ipv4/conf/all/forwarding': '0',
  'net/ipv6/conf/all/forwarding': '0',
  // Most networks are IPv4: no router solicitations and duplicate address detection into the switch.
  // configureInterface() switches IPv6 on where a network has it.
  'net/ipv6/conf/default/disable_ipv6': '1',
};

/** Smallest MTU of an interface with IPv6 (RFC 8200 section 5): the kernel takes it off smaller ones. */
const IPV6_MTU_MIN_BYTES = 1_280;

/**
 * Whether an interface of this MTU can have IPv6 on this host, whose kernel may be without it or have
 * been booted with `ipv6.disable=1`. What is `disable_ipv6` for single interfaces is no obstacle.
 */
export async function canHaveIpv6(mtuBytes: number): Promise<boolean> {
  if (mtuBytes < IPV6_MTU_MIN_BYTES) return false;
  return await stat('/proc/sys/net/ipv6').then(
    () => true,
    () => false,
  );
}

/**
 * IPv6 on an interface into the switch: its address is given, and nothing else is there that it could
 * find out. It has no link-local address: nothing on the network is reached by one.
 */
function ipv6Sysctls(device: string): Sysctls {
  const conf = `net/ipv6/conf/${device}`;
  return {
    [`${conf}/accept_ra`]: '0',
    [`${conf}/autoconf`]: '0',
    [`${conf}/router_solicitations`]: '0',
    [`${conf}/accept_dad`]: '0',
    [`${conf}/addr_gen_mode`]: '1', // IN6_ADDR_GEN_MODE_NONE (linux/if_link.h)
    [`${conf}/disable_ipv6`]: '0', // last: what it does when it comes up depends on the others
  };
}

/**
 * Reads one kernel setting.
 *
 * @param key - Path below /proc/sys.
 * @throws {CommandError} if there is no such setting
 */
export async function readSysctl(key: string, run: RunCommand = runCommand): Promise<string> {
  return (await run(['cat', `/proc/sys/${key}`])).trim();
}

/**
 * Writes kernel settings, skipping those that this kernel does not have (IPv6 may be switched off).
 *
 * @param run - Give {@link runInNetns} to write those of a namespace.
 * @throws {CommandError} if one is refused
 */
export async function writeSysctls(sysctls: Sysctls, run: RunCommand = runCommand): Promise<void> {
  const script =
    'while [ $# -gt 0 ]; do if [ -e "$1" ]; then printf %s "$2" >"$1" || exit; fi; shift 2; done';
  const pairs = Object.entries(sysctls).flatMap(([key, value]) => [`/proc/sys/${key}`, value]);
  await run(['sh', '-c', script, 'sysctl', ...pairs]);
}

/**
 * Whether the namespace exists. A plain file of that name, left by a machine that went down, is not
 * one: a namespace's file is a mount of its own.
 */
export async function netnsExists(name: string): Promise<boolean> {
  const [file, directory] = await Promise.all([
    stat(netnsPath(name)).catch(() => undefined),
    stat(NETNS_DIRECTORY).catch(() => undefined),
  ]);
  return file !== undefined && directory !== undefined && file.dev !== directory.dev;
}

/**
 * Makes sure that the namespace exists, with its loopback up and the settings of a task.
 *
 * @param name - Starts with {@link NETNS_PREFIX}.
 * @throws {CommandError} if `ip` refuses
 */
export async function createNetns(name: string): Promise<void> {
  requireOwnName(name);
  const ip = new IpCommand();
  if (!(await netnsExists(name))) {
    await mkdir(NETNS_DIRECTORY, { recursive: true });
    const isStale = await stat(netnsPath(name)).then(
      () => true,
      () => false,
    );
    if (isStale) await ip.command(['netns', 'delete', name]);
    await ip.command(['netns', 'add', name]);
  }
  await ip.batch(name, ['link set dev lo up']);
  await writeSysctls(TASK_SYSCTLS, runInNetns(name));
}

/**
 * Makes sure that the namespace has no name any more; the kernel frees it with its last process and
 * descriptor, and its interfaces with it.
 *
 * @param name - Starts with {@link NETNS_PREFIX}.
 * @throws {CommandError} if `ip` refuses
 */
export async function deleteNetns(name: string): Promise<void> {
  requireOwnName(name);
  if (!(await listNetns(name)).includes(name)) return;
  await new IpCommand().command(['netns', 'delete', name]);
}

/** Names of the namespaces (and of stale files in their directory) that start with `prefix`. */
export async function listNetns(prefix: string = NETNS_PREFIX): Promise<readonly string[]> {
  const names = await readdir(NETNS_DIRECTORY).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []; // no namespace was ever made on this host
    throw error;
  });
  return names.filter((name) => name.startsWith(prefix)).sort();
}

/**
 * Deletes the namespaces whose name starts with `prefix`, except `keep`: what a killed agent left.
 *
 * @param prefix - Starts with {@link NETNS_PREFIX}; agents on one host need distinct ones.
 * @returns the deleted names
 */
export async function sweepNetns(
  prefix: string,
  keep: ReadonlySet<string>,
): Promise<readonly string[]> {
  requireOwnName(prefix);
  const leftovers = (await listNetns(prefix)).filter((name) => !keep.has(name));
  for (const name of leftovers) await deleteNetns(name);
  return leftovers;
}

function requireOwnName(name: string): void {
  invariant(
    /^weft-[A-Za-z0-9_.-]*$/.test(name),
    `network namespaces of weft are named ${NETNS_PREFIX}<word>, not ${JSON.stringify(name)}`,
  );
}

/**
 * The processes whose network namespace is `name`, whatever session or group they moved to.
 *
 * @returns process ids; empty when there is no such namespace
 */
export async function processesInNetns(name: string): Promise<readonly number[]> {
  if (!(await netnsExists(name))) return [];
  const wanted = await stat(netnsPath(name));
  const pids = (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry));
  const inside = await Promise.all(
    pids.map(async (pid) => {
      // A process may end while we look, and a zombie has no namespace left.
      const netns = await stat(`/proc/${pid}/ns/net`).catch(() => undefined);
      return netns?.ino === wanted.ino && netns.dev === wanted.dev;
    }),
  );
  return pids.filter((_, index) => inside[index]).map(Number);
}

/** How an interface is to be. */
export interface InterfaceConfig {
  /** Such as `eth0`. It must exist. */
  readonly name: string;
  readonly address: Ipv4;
  /** Prefix length in bits. */
  readonly prefix: number;
  readonly mac?: Mac;
  readonly mtuBytes?: number;
  /** Largest superframe that the stack hands over, headers included. */
  readonly gsoMaxBytes?: number;
  /**
   * Whether it is a TAP of several queues. Linux makes room for 256 of them, each with a queueing discipline
   * of its own, megabytes in all. Such an interface gets none: a TAP's own queues drop what is too much.
   */
  readonly hasManyQueues?: boolean;
  /** Next hop of the default route, which then leaves by this interface. */
  readonly gateway?: Ipv4;
  /** On a dual-stack network, where {@link canHaveIpv6}. */
  readonly ipv6?: InterfaceIpv6;
}

/** The IPv6 side of an interface. */
export interface InterfaceIpv6 {
  readonly address: Ipv6;
  /** Prefix length in bits. */
  readonly prefix: number;
  /** Next hop of the IPv6 default route. */
  readonly gateway?: Ipv6;
}

/**
 * Gives an interface its addresses and sets it up. Repeatable: another lasting address that it had is
 * removed, what is right already stays. IPv6 is left as it is without `config.ipv6`.
 *
 * @param netns - Name of the namespace that holds it; undefined for this one.
 * @throws {CommandError} if there is no such interface, or `ip` refuses a value
 */
export async function configureInterface(
  netns: string | undefined,
  config: InterfaceConfig,
  ip: IpCommand = new IpCommand(),
): Promise<void> {
  const { ipv6 } = config;
  const dev = `dev ${config.name}`;
  const address = `${formatIpv4(config.address)}/${config.prefix}`;
  const address6 = ipv6 && `${ipv6.address}/${ipv6.prefix}`;
  const known = (await ip.interfaces(netns)).find((link) => link.name === config.name);
  if (config.hasManyQueues === true) await leaveOutQdisc(netns, config.name);
  const others = (known?.addresses ?? [])
    .map((entry) => `${entry.address}/${entry.prefix}`)
    .filter((entry) => entry !== address && entry !== address6);
  const lines = others.map((other) => `addr del ${other} ${dev}`);
  const mac = config.mac === undefined ? known?.mac : formatMac(config.mac);
  // Even the same one, set again, makes the kernel forget its neighbours.
  if (mac !== known?.mac) lines.push(`link set ${dev} address ${mac}`);
  if (config.mtuBytes !== undefined) lines.push(`link set ${dev} mtu ${config.mtuBytes}`);
  if (config.gsoMaxBytes !== undefined) {
    lines.push(`link set ${dev} gso_max_size ${config.gsoMaxBytes}`);
  }
  lines.push(`addr replace ${address} ${dev}`);
  if (address6 !== undefined) lines.push(`addr replace ${address6} ${dev} nodad`);
  lines.push(`link set ${dev} up`);
  if (config.gateway !== undefined) {
    lines.push(`route replace default via ${formatIpv4(config.gateway)} ${dev}`);
  }
  if (ipv6?.gateway !== undefined) lines.push(`route replace ::/0 via ${ipv6.gateway} ${dev}`);
  if (ipv6 !== undefined) {
    const run = netns === undefined ? runCommand : runInNetns(netns);
    await writeSysctls(ipv6Sysctls(config.name), run);
  }
  await ip.batch(netns, lines);
}

async function leaveOutQdisc(netns: string | undefined, name: string): Promise<void> {
  const inNetns = netns === undefined ? [] : ['-n', netns];
  await runCommand(['tc', ...inNetns, 'qdisc', 'replace', 'dev', name, 'root', 'noqueue']);
}
