// Agents of serf, and nodes of ours as processes of their own, on addresses of the loopback network.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import type { GossipEvent } from '../../src/gossip/effects.ts';
import type {
  GossipNodeCommand,
  GossipNodeConfig,
  GossipNodeLine,
  GossipNodeState,
} from './gossip-node.ts';

const run = promisify(execFile);
const PORT = 7946;
const RPC_PORT = 7373;

/** What a member of either kind knows of another one. */
export interface Known {
  readonly state: string;
  readonly address: string;
  readonly tags: Readonly<Record<string, string>>;
}

/** A member of either kind. */
export interface MixedMember {
  readonly name: string;
  readonly address: string;
  /** All members that it knows, itself included, by name. */
  known(): Promise<ReadonlyMap<string, Known>>;
  /** Ends it without a word. */
  kill(): Promise<void>;
  /** Lets it leave, and ends it. */
  leave(): Promise<void>;
}

/** Each of the commands without its number. */
type Unnumbered<Command> = Command extends unknown ? Omit<Command, 'id'> : never;

/** How the members of a cluster talk. */
export interface MixedClusterOptions {
  /** First two bytes of the addresses: `127.N`. */
  readonly prefix: string;
  readonly compressed: boolean;
  /** 32 bytes in base64; without one nothing is encrypted. */
  readonly key?: string | undefined;
}

/** Some agents of each kind that talk alike. */
export class MixedCluster {
  readonly #options: MixedClusterOptions;
  readonly #children = new Set<ChildProcess>();
  /** What serf agents logged, all lives of all of them. */
  readonly serfLog: string[] = [];

  constructor(options: MixedClusterOptions) {
    this.#options = options;
  }

  /** The address of the cluster's host `number`. */
  address(number: number): string {
    return `${this.#options.prefix}.0.${number}`;
  }

  /** Starts a serf agent, and waits until it runs. */
  async serf(name: string, number: number, joins: readonly MixedMember[]): Promise<SerfAgent> {
    const address = this.address(number);
    const { compressed, key } = this.#options;
    const child = this.#spawn('serf', [
      ...['agent', `-node=${name}`, `-bind=${address}:${PORT}`],
      ...[`-rpc-addr=${address}:${RPC_PORT}`, '-log-level=debug'],
      ...joins.map((member) => `-retry-join=${member.address}:${PORT}`),
      ...['-retry-interval=1s'],
      ...(compressed ? [] : ['-disable-compression']),
      ...(key === undefined ? [] : [`-encrypt=${key}`]),
    ]);
    const running = Promise.withResolvers<void>();
    const read = (line: string): void => {
      this.serfLog.push(`${name} ${line}`);
      if (line.includes('Serf agent running')) running.resolve();
    };
    if (child.stdout === null || child.stderr === null) throw new Error('No output to read');
    createInterface({ input: child.stdout }).on('line', read);
    createInterface({ input: child.stderr }).on('line', read);
    child.once('exit', () => running.reject(new Error(`serf ${name} ended:\n${this.#lastLog()}`)));
    await running.promise;
    return new SerfAgent(name, address, child);
  }

  /** Starts a node of ours, and waits until it runs. */
  async weft(name: string, number: number, joins: readonly MixedMember[]): Promise<WeftNode> {
    const config: GossipNodeConfig = {
      ...{ name, address: this.address(number), port: PORT },
      ...{ compression: this.#options.compressed, key: this.#options.key },
      tags: { hostname: `host-${name}`, version: '1.2.3' },
    };
    const script = new URL('./gossip-node.ts', import.meta.url).pathname;
    const child = this.#spawn(process.execPath, [script, JSON.stringify(config)]);
    const node = new WeftNode(name, config.address, child);
    await node.ready;
    const seeds = joins.map(({ address }) => ({ address, port: PORT }));
    await node.tell({ do: 'join', seeds });
    await node.tell({ do: 'set', key: 'task', value: { on: name } });
    return node;
  }

  /** Ends whatever still runs. */
  async close(): Promise<void> {
    await Promise.all([...this.#children].map(kill));
  }

  #spawn(command: string, args: readonly string[]): ChildProcess {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#children.add(child);
    child.once('exit', () => this.#children.delete(child));
    return child;
  }

  #lastLog(): string {
    return this.serfLog.slice(-20).join('\n');
  }
}

/** An agent of serf, asked by its own command. */
export class SerfAgent implements MixedMember {
  readonly name: string;
  readonly address: string;
  readonly child: ChildProcess;

  constructor(name: string, address: string, child: ChildProcess) {
    this.name = name;
    this.address = address;
    this.child = child;
  }

  /** Runs `serf ARGUMENTS` against this agent. @returns what it printed, however it ended */
  async command(name: string, ...args: readonly string[]): Promise<string> {
    const rpc = `-rpc-addr=${this.address}:${RPC_PORT}`;
    const { stdout } = await run('serf', [name, rpc, ...args]).catch((error: unknown) => {
      // `serf reachability` fails when a member does not answer, which is of interest, too.
      if (error instanceof Error && 'stdout' in error) return { stdout: String(error.stdout) };
      throw error;
    });
    return stdout;
  }

  async known(): Promise<ReadonlyMap<string, Known>> {
    const { members } = JSON.parse(await this.command('members', '-format=json')) as {
      readonly members: readonly {
        readonly name: string;
        readonly addr: string;
        readonly status: string;
        readonly tags: Readonly<Record<string, string>>;
      }[];
    };
    return new Map(
      members.map(({ name, addr, status, tags }) => [name, { state: status, address: addr, tags }]),
    );
  }

  async kill(): Promise<void> {
    await kill(this.child);
  }

  async leave(): Promise<void> {
    const ended = once(this.child, 'exit');
    await this.command('leave');
    await ended;
  }
}

/** A node of ours, told what to do by lines of JSON. */
export class WeftNode implements MixedMember {
  readonly name: string;
  readonly address: string;
  readonly child: ChildProcess;
  readonly ready: Promise<void>;
  /** All that it reported. */
  readonly events: GossipEvent[] = [];
  readonly #answers = new Map<number, (state: GossipNodeState | undefined) => void>();
  #nextId = 1;

  constructor(name: string, address: string, child: ChildProcess) {
    this.name = name;
    this.address = address;
    this.child = child;
    const ready = Promise.withResolvers<void>();
    this.ready = ready.promise;
    const errors: string[] = [];
    child.stderr?.on('data', (chunk) => errors.push(String(chunk)));
    child.once('exit', () => ready.reject(new Error(`${name} ended: ${errors.join('')}`)));
    if (child.stdout === null) throw new Error('No output to read');
    createInterface({ input: child.stdout }).on('line', (text) => {
      const line = JSON.parse(text) as GossipNodeLine;
      if (line.kind === 'ready') ready.resolve();
      else if (line.kind === 'event') this.events.push(line.event);
      else this.#answers.get(line.id)?.(line.state);
    });
  }

  /** Has it do something, and waits until that is done. */
  async tell(command: Unnumbered<GossipNodeCommand>): Promise<GossipNodeState | undefined> {
    const id = this.#nextId++;
    const answer = Promise.withResolvers<GossipNodeState | undefined>();
    this.#answers.set(id, answer.resolve);
    this.child.stdin?.write(`${JSON.stringify({ id, ...command })}\n`);
    return await answer.promise;
  }

  async state(): Promise<GossipNodeState> {
    const state = await this.tell({ do: 'state' });
    if (state === undefined) throw new Error('An answer without a state');
    return state;
  }

  async known(): Promise<ReadonlyMap<string, Known>> {
    const { members } = await this.state();
    return new Map(
      members.map(({ name, address, port, state, tags }) => [
        name,
        { state: state === 'dead' ? 'failed' : state, address: `${address}:${port}`, tags },
      ]),
    );
  }

  async kill(): Promise<void> {
    await kill(this.child);
  }

  async leave(): Promise<void> {
    await this.tell({ do: 'leave' });
    const ended = once(this.child, 'exit');
    this.child.stdin?.end();
    await ended;
  }
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}
