import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { eventually } from '../../test/support/cluster.ts';
import type { Lab, LabHost } from '../../test/support/lab.ts';

/** As in `peer` of a row. */
export const SERF = 'serf';

/** Something that an agent of serf has logged. */
export interface SerfEvent {
  /** On this process's clock, when the line was read. */
  readonly atMs: number;
  /** `EventMemberFailed`, `EventMemberJoin`, …, or `user-event`. */
  readonly kind: string;
  /** Name of the member or of the event. */
  readonly subject: string;
}

const MEMBER_EVENT = /serf: (EventMember\w+): (\S+) /;
const USER_EVENT = /Received event: (user-event): (\S+)/;

/** An agent of serf as Debian has it, with its defaults: profile `lan`, no encryption. */
export class SerfHost {
  readonly host: LabHost;
  readonly #lab: Lab;
  #child: ChildProcess | undefined;
  /** What all its lives have logged. BOUNDED by what a bench does. */
  readonly events: SerfEvent[] = [];

  constructor(lab: Lab, host: LabHost) {
    this.#lab = lab;
    this.host = host;
  }

  /** Starts it, and waits until it runs. @param seed - Whom to join; tried until it answers. */
  async start(seed: LabHost): Promise<void> {
    const { name, address } = this.host;
    const join = seed === this.host ? [] : [`-retry-join=${seed.address}`, '-retry-interval=1s'];
    const command = ['serf', 'agent', `-node=${name}`, `-bind=${address}`, ...join];
    const child = this.#lab.spawn(this.host, command);
    this.#child = child;
    const running = Promise.withResolvers<void>();
    child.once('error', running.reject);
    child.once('exit', () => running.reject(new Error(`serf ${name} ended`)));
    for (const input of [child.stdout, child.stderr]) {
      if (input === null) continue;
      createInterface({ input }).on('line', (line) => {
        if (line.includes('Serf agent running')) running.resolve();
        const [, kind, subject] = MEMBER_EVENT.exec(line) ?? USER_EVENT.exec(line) ?? [];
        if (kind !== undefined && subject !== undefined) {
          this.events.push({ atMs: Date.now(), kind, subject });
        }
      });
    }
    await running.promise;
  }

  /** Ends it without a word. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  /** Runs a command of serf against it. */
  async command(...args: readonly string[]): Promise<string> {
    return (await this.#lab.exec(this.host, ['serf', ...args])).stdout;
  }

  /** Names of the members that it takes for alive. */
  async alive(): Promise<readonly string[]> {
    const { members } = JSON.parse(await this.command('members', '-format=json')) as {
      readonly members: readonly { readonly name: string; readonly status: string }[];
    };
    return members.flatMap(({ name, status }) => (status === 'alive' ? [name] : []));
  }

  /** When it first logged this after `sinceMs`; undefined if it did not. */
  firstMs(kind: string, subject: string, sinceMs: number): number | undefined {
    return this.events.find(
      (event) => event.kind === kind && event.subject === subject && event.atMs >= sinceMs,
    )?.atMs;
  }
}

/** Starts an agent of serf on each of `hosts`, and waits until all know all. */
export async function startSerf(lab: Lab, hosts: readonly LabHost[]): Promise<readonly SerfHost[]> {
  const agents = hosts.map((host) => new SerfHost(lab, host));
  const [seed] = hosts;
  if (seed === undefined) throw new RangeError('Cannot start serf on no hosts');
  await Promise.all(agents.map((agent) => agent.start(seed)));
  await untilWhole(agents);
  return agents;
}

/** Waits until all agents take all for alive. */
export async function untilWhole(agents: readonly SerfHost[], timeoutMs = 60_000): Promise<void> {
  await eventually(
    'all agents of serf are alive to all',
    async () => {
      const alive = await Promise.all(agents.map((agent) => agent.alive()));
      return alive.every((names) => names.length === agents.length) || undefined;
    },
    timeoutMs,
  );
}
