import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** What a command in a host printed. */
export interface Output {
  readonly stdout: string;
  readonly stderr: string;
}

/** A machine of the lab: a network namespace with `eth0` on the underlay. */
export interface LabHost {
  readonly name: string;
  /** Name of the network namespace. */
  readonly netns: string;
  /** Address of `eth0`: IPv4, or the IPv6 one in a lab without IPv4. */
  readonly address: string;
  /** IPv6 address of `eth0`. */
  readonly address6: string;
}

const UNDERLAY_PREFIX = '172.30.0';
const UNDERLAY_PREFIX6 = 'fd30:0:0:30';
/** Smallest MTU of a link with IPv6 (RFC 8200 section 5). */
const IPV6_MTU_MIN = 1280;

/** What a lab's underlay is made of. */
export interface LabOptions {
  /** Whether machines have IPv4 addresses beside the IPv6 ones; they have by default. */
  readonly ipv4?: boolean;
}

/**
 * Machines made of network namespaces, joined by a bridge in a namespace of its own. Everything that
 * the lab makes, and everything that runs in it, is gone after {@link Lab.close}; names start with
 * {@link Lab.prefix}, so that labs do not meet.
 */
export class Lab {
  /** `weft-xxxx-`: agents of this lab must name their namespaces so, too. */
  readonly prefix: string = `weft-${randomBytes(2).toString('hex')}-`;
  /** A folder for the state of what runs in the lab. */
  readonly folder: string = mkdtempSync(join(tmpdir(), 'weft-lab-'));
  readonly hosts: LabHost[] = [];
  readonly #hasIpv4: boolean;
  readonly #children = new Set<ChildProcess>();
  readonly #exitHook = (): void => this.#removeNow();
  /** A signal ends the process by way of its exit, so that nothing of the lab stays. */
  readonly #signalHook = (): void => process.exit(1);
  #nextHost = 1;

  constructor({ ipv4 = true }: LabOptions = {}) {
    this.#hasIpv4 = ipv4;
    process.once('exit', this.#exitHook);
    for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, this.#signalHook);
    this.#batch([`netns add ${this.#switch}`]);
    this.#batch(['link add br0 type bridge', 'link set br0 up', 'link set lo up'], this.#switch);
  }

  get #switch(): string {
    return `${this.prefix}sw`;
  }

  /**
   * Adds a machine to the underlay.
   *
   * @param name - A few letters; part of the namespace's name.
   * @param mtu - Of its underlay interface, in bytes; below 1280 the machine has no IPv6 there.
   */
  addHost(name: string, mtu = 1500): LabHost {
    const index = this.#nextHost++;
    const address4 = `${UNDERLAY_PREFIX}.${index}`;
    const address6 = `${UNDERLAY_PREFIX6}::${index.toString(16)}`;
    const host = {
      name,
      netns: `${this.prefix}${name}`,
      address: this.#hasIpv4 ? address4 : address6,
      address6,
    };
    this.#batch([
      `netns add ${host.netns}`,
      `link add eth0 netns ${host.netns} type veth peer name p${index} netns ${this.#switch}`,
    ]);
    this.#batch([`link set p${index} mtu ${mtu} master br0 up`], this.#switch);
    const addresses = [
      ...(this.#hasIpv4 ? [`addr add ${address4}/24 dev eth0`] : []),
      ...(mtu >= IPV6_MTU_MIN ? [`addr add ${address6}/64 dev eth0 nodad`] : []),
    ];
    const up = [`link set eth0 mtu ${mtu} up`, 'link set lo up'];
    this.#batch([...up, ...addresses], host.netns);
    this.hosts.push(host);
    return host;
  }

  /** Takes a machine's cable out, or plugs it in again. */
  setLink(host: LabHost, up: boolean): void {
    const index = this.hosts.indexOf(host) + 1;
    this.#batch([`link set p${index} ${up ? 'up' : 'down'}`], this.#switch);
  }

  /** Cuts the underlay in two: `hosts` reach each other and no one else, until {@link Lab.mend}. */
  cut(hosts: readonly LabHost[]): void {
    const moves = hosts.map((host) => `link set p${this.hosts.indexOf(host) + 1} master br1`);
    this.#batch(['link add br1 type bridge', 'link set br1 up', ...moves], this.#switch);
  }

  /** Makes one underlay of both parts. */
  mend(): void {
    const moves = this.hosts.map((_, index) => `link set p${index + 1} master br0`);
    this.#batch([...moves, 'link del br1'], this.#switch);
  }

  /** Runs a command in a machine and waits for it. @throws {Error} if it fails, with its stderr */
  async exec(
    netns: string | LabHost,
    command: readonly string[],
    timeoutMs = 60_000,
  ): Promise<Output> {
    const [file, ...args] = inNamespace(netns, command);
    return await run(file, args, { timeout: timeoutMs, maxBuffer: 64 * 1024 * 1024 });
  }

  /** Starts a command in a machine. It ends with the lab at the latest. */
  spawn(
    netns: string | LabHost,
    command: readonly string[],
    options: {
      readonly env?: NodeJS.ProcessEnv;
      readonly stdio?: 'pipe' | 'ignore' | 'inherit';
    } = {},
  ): ChildProcess {
    const [file, ...args] = inNamespace(netns, command);
    const child = spawn(file, args, {
      stdio: options.stdio ?? 'pipe',
      env: options.env ?? process.env,
    });
    this.#children.add(child);
    child.once('exit', () => this.#children.delete(child));
    return child;
  }

  /** Runs several `ip` commands, in `netns` if given. */
  ip(commands: readonly string[], netns?: string | LabHost): void {
    this.#batch(commands, typeof netns === 'object' ? netns.netns : netns);
  }

  /** Runs one `bridge` command in `netns`. */
  bridge(netns: string, args: readonly string[]): void {
    execFileSync('bridge', ['-n', netns, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  }

  /** Ends all processes and removes all namespaces and files of the lab. */
  async close(): Promise<void> {
    const children = [...this.#children].filter((child) => child.exitCode === null);
    const ended = children.map((child) => once(child, 'exit'));
    this.#killAll();
    await Promise.all(ended);
    this.#removeNow();
    process.removeListener('exit', this.#exitHook);
    for (const signal of ['SIGINT', 'SIGTERM']) process.removeListener(signal, this.#signalHook);
  }

  #removeNow(): void {
    this.#killAll();
    for (const netns of this.#namespaces()) {
      execFileSync('ip', ['netns', 'delete', netns], { stdio: 'ignore' });
    }
    rmSync(this.folder, { recursive: true, force: true });
  }

  #namespaces(): string[] {
    return readdirSync('/run/netns').filter((name) => name.startsWith(this.prefix));
  }

  #killAll(): void {
    for (const child of this.#children) child.kill('SIGKILL');
    for (const netns of this.#namespaces()) {
      const pids = execFileSync('ip', ['netns', 'pids', netns], { encoding: 'utf8' });
      for (const pid of pids.split('\n').filter((line) => line !== '')) {
        try {
          process.kill(Number(pid), 'SIGKILL');
        } catch {
          // It ended by itself meanwhile.
        }
      }
    }
  }

  #batch(commands: readonly string[], netns?: string): void {
    const file = join(this.folder, 'ip.batch');
    writeFileSync(file, `${commands.join('\n')}\n`);
    const where = netns === undefined ? [] : ['-n', netns];
    execFileSync('ip', [...where, '-batch', file], { stdio: ['ignore', 'pipe', 'pipe'] });
  }
}

/**
 * The command line that runs `command` in a network namespace and nothing else of its own. tap hooks
 * into every child of a test through NODE_OPTIONS; an agent is to run here as it does anywhere.
 */
export function inNamespace(
  netns: string | LabHost,
  command: readonly string[],
): [string, ...string[]] {
  const name = typeof netns === 'object' ? netns.netns : netns;
  const net = `--net=/run/netns/${name}`;
  return ['nsenter', net, '--', 'env', '-u', 'NODE_OPTIONS', ...command];
}

/** Whether this process may make network namespaces: the system tests need root. */
export function canMakeLab(): boolean {
  return process.geteuid?.() === 0;
}
