import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { formatHostPort } from '../../src/core/ip.ts';
import { HttpClient } from '../../src/io/http-client.ts';
import type { Lab, LabHost, Output } from './lab.ts';
import { Lines } from './lines.ts';

/** The checkout's. */
const WEFT = new URL('../../bin/weft.mjs', import.meta.url).pathname;

/** An agent that runs in a host of a lab, and the means to talk to it. */
export class LabAgent {
  readonly host: LabHost;
  readonly socket: string;
  readonly stateDirectory: string;
  /** JSON over the agent's unix socket. */
  readonly api: HttpClient;
  readonly #program: string;
  readonly #lab: Lab;
  readonly #runDirectory: string;
  #process: ChildProcess | undefined;
  /** What the agent wrote to its log since it was started, the last part of it. */
  log = '';

  /** @param program - The `weft.mjs` to run. */
  constructor(lab: Lab, host: LabHost, program: string = WEFT) {
    this.#program = program;
    this.#lab = lab;
    this.host = host;
    this.stateDirectory = `${lab.folder}/${host.name}-state`;
    this.#runDirectory = `${lab.folder}/${host.name}-run`;
    this.socket = `${this.#runDirectory}/weft.sock`;
    this.api = new HttpClient({ kind: 'unix', path: this.socket }, { peerName: 'the weft agent' });
  }

  /**
   * Starts the agent and waits until it answers.
   *
   * @param more - Further flags, without their dashes.
   */
  async start(more: Readonly<Record<string, string>> = {}): Promise<void> {
    mkdirSync(this.#runDirectory, { recursive: true });
    const flags = {
      'state-dir': this.stateDirectory,
      'run-dir': this.#runDirectory,
      hostname: this.host.name,
      'netns-prefix': `${this.#lab.prefix}${this.host.name}-`,
      ...more,
    };
    const args = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, value]);
    const child = this.#lab.spawn(this.host, [process.execPath, this.#program, 'agent', ...args]);
    this.#process = child;
    this.log = '';
    const ready = new Promise<void>((resolve, reject) => {
      child.stderr?.on('data', (chunk) => {
        this.log = (this.log + String(chunk)).slice(-100_000);
        if (this.log.includes('"agent ready"')) resolve();
      });
      child.once('exit', () => reject(new Error(`The agent ended: ${this.log}`)));
    });
    child.stdout?.resume();
    await ready;
  }

  /** Kills the agent as a crash would. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  /** Stops the agent as an operator would, and waits until it has ended. */
  async stop(): Promise<void> {
    const child = this.#process;
    if (child === undefined || !this.isRunning) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }

  /** The agent's process id. */
  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** Whether the agent's process is alive. */
  get isRunning(): boolean {
    const child = this.#process;
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  /** Runs a `weft` command against this agent. @throws {Error} if it fails, with its stderr */
  async weft(...args: readonly string[]): Promise<Output> {
    const url = `unix://${this.socket}`;
    const command = [process.execPath, this.#program, '-H', url, ...args];
    return await this.#lab.exec(this.host, command, 120_000);
  }

  /** Runs a `weft` command that must fail, and returns what it says on stderr. */
  async refused(...args: readonly string[]): Promise<string> {
    const output = await this.weft(...args).catch((error: unknown) => error);
    if (output instanceof Error) return String((output as Error & { stderr?: string }).stderr);
    throw new Error(`Expected "weft ${args.join(' ')}" to fail`);
  }

  /** Objects that a list command prints with `--format json`. */
  async list(...args: readonly string[]): Promise<readonly Record<string, string>[]> {
    const { stdout } = await this.weft(...args, '--format', 'json');
    const lines = stdout.split('\n').filter((line) => line !== '');
    return lines.map((line) => JSON.parse(line) as Record<string, string>);
  }
}

/** Hosts with agents in one cluster; the first one is the manager. */
export interface Cluster {
  readonly lab: Lab;
  readonly agents: readonly LabAgent[];
  readonly manager: LabAgent;
}

/**
 * Starts an agent on each of `count` new hosts of `lab` and makes them one cluster.
 *
 * @param count - Up to 100.
 * @param init - Further words of `weft init`.
 * @param program - The `weft.mjs` to run.
 */
export async function startCluster(
  lab: Lab,
  count: number,
  init: readonly string[] = [],
  program: string = WEFT,
): Promise<Cluster> {
  const hosts = Array.from({ length: count }, (_, index) => lab.addHost(`host${index + 1}`));
  const agents = hosts.map((host) => new LabAgent(lab, host, program));
  await Promise.all(agents.map((agent) => agent.start()));
  const [manager, ...workers] = agents;
  if (manager === undefined) throw new RangeError('Cannot start a cluster of no hosts');
  await manager.weft('init', ...init);
  const { stdout } = await manager.weft('join-token', '-q', 'worker');
  const address = formatHostPort(manager.host.address, 2377);
  for (const worker of workers) await worker.weft('join', '--token', stdout.trim(), address);
  return { lab, agents, manager };
}

/** Starts a script of the project in a namespace and waits for its first line. */
export async function startScript(
  lab: Lab,
  netns: string | LabHost,
  script: string,
  args: readonly string[],
): Promise<Lines> {
  const path = new URL(script, import.meta.url).pathname;
  return new Lines(lab.spawn(netns, [process.execPath, path, ...args]));
}

/** The network namespace of a task, by the start of its id. */
export function taskNetns(lab: Lab, agent: LabAgent, taskId: string): string {
  return `${lab.prefix}${agent.host.name}-${taskId}`;
}

/** Polls `probe` until it gives something, at most for `timeoutMs`. */
export async function eventually<Value>(
  what: string,
  probe: () => Promise<Value | undefined>,
  timeoutMs = 30_000,
): Promise<Value> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value !== undefined) return value;
    if (performance.now() > deadline) throw new Error(`It did not happen in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
