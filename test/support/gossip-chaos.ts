import type { Json } from '../../src/core/store.ts';
import type { GossipSim } from './gossip-sim.ts';

/** How much goes wrong per second of virtual time; each figure is for the whole cluster. */
export interface ChaosOptions {
  readonly durationMs: number;
  /** Endpoints that are set or deleted. */
  readonly changes: number;
  /** Hosts that die, and start anew some seconds later with a higher generation. */
  readonly restarts: number;
  /** Hosts that stall, whose messages wait, or whose clocks jump by up to an hour. */
  readonly stalls: number;
  readonly blocks: number;
  readonly clockJumps: number;
  /** Nodes that are cut off together, for some seconds at a time: in both directions, and in one. */
  readonly cutOff: number;
  readonly deaf: number;
}

/** A fault of one host, or a cut, lasts at most so long. */
const FAULT_MS_MAX = 6_000;
const CLOCK_JUMP_MS_MAX = 3_600_000;
/** Whom a new life joins by: a node that knows nobody whom anybody knows is lost, and rightly so. */
const SEEDS = ['n0', 'n1', 'n2'];
/** Keys that endpoints change under: those that nodes begin with, and some more. */
const KEYS = 120;

/**
 * Lets all that a network and hosts can do to a cluster happen to `sim` for a while, by its own seed, and
 * keeps count of what each node says of itself. Everything is healed at the end, but for the hosts' clocks.
 */
export class GossipChaos {
  readonly #sim: GossipSim;
  readonly #options: ChaosOptions;
  /** What each node announces in its present life, by key: the truth that all others must end up with. */
  readonly #own = new Map<string, Map<string, Json>>();
  readonly #generations = new Map<string, number>();

  /** @param sim - Its nodes are running, and announce what `own` gives. */
  constructor(sim: GossipSim, options: ChaosOptions) {
    this.#sim = sim;
    this.#options = options;
    for (const { name, gossip } of sim.running()) {
      const own = [...gossip.table.records()].find(({ node }) => node === name)!;
      const entries = [...own.live()].map(
        ({ key, content }) => [key, JSON.parse(content)] as const,
      );
      this.#own.set(name, new Map(entries));
      this.#generations.set(name, 1);
    }
  }

  /** Runs the cluster through it, and heals it. */
  run(): void {
    const { durationMs, changes, restarts, stalls, blocks, clockJumps } = this.#options;
    this.#often(changes, () => this.#change(this.#anyone()));
    this.#often(restarts, () => this.#restart(this.#anyone()));
    this.#often(stalls, () => this.#sim.stall(this.#anyone(), this.#upTo(FAULT_MS_MAX)));
    this.#often(blocks, () => this.#sim.block(this.#anyone(), this.#upTo(FAULT_MS_MAX)));
    this.#often(clockJumps, () =>
      this.#sim.jumpClock(this.#anyone(), this.#upTo(2 * CLOCK_JUMP_MS_MAX) - CLOCK_JUMP_MS_MAX),
    );
    for (let atMs = 0; atMs < durationMs; ) {
      this.#sim.after(atMs, () => this.#cut());
      atMs += this.#upTo(FAULT_MS_MAX);
      this.#sim.after(atMs, () => this.#sim.heal());
      atMs += this.#upTo(FAULT_MS_MAX / 4);
    }
    // The last restart may still be under way.
    this.#sim.run(durationMs + FAULT_MS_MAX);
    this.#sim.heal();
    this.#sim.loss = 0;
  }

  /** What all nodes must see in the end, in the form of {@link GossipSim.visible}. */
  expected(): string {
    const entries = [...this.#own].flatMap(([node, own]) =>
      [...own].map(([key, value]) => [node, key, value]),
    );
    return JSON.stringify(entries.sort());
  }

  #often(perSecond: number, happen: () => void): void {
    const { durationMs } = this.#options;
    const count = Math.round((perSecond * durationMs) / 1_000);
    for (let event = 0; event < count; event++) this.#sim.after(this.#upTo(durationMs), happen);
  }

  #change(name: string): void {
    const node = this.#sim.get(name);
    if (!node.running) return;
    const key = `endpoint/${Math.floor(this.#sim.random.next() * KEYS)}`;
    const own = this.#own.get(name)!;
    if (this.#sim.random.next() < 0.3) {
      node.gossip.table.deleteLocal(key);
      own.delete(key);
    } else {
      const value = { changedMs: Math.round(this.#sim.nowMs), state: 'draining' };
      node.gossip.table.setLocal(key, value);
      own.set(key, value);
    }
    this.#sim.announce(name);
  }

  /** A new life begins with other endpoints than the last one had. */
  #restart(name: string): void {
    if (!this.#sim.get(name).running) return;
    this.#sim.kill(name);
    this.#sim.after(this.#upTo(FAULT_MS_MAX), () => {
      const generation = this.#generations.get(name)! + 1;
      this.#generations.set(name, generation);
      const { gossip } = this.#sim.add(name, SEEDS, generation);
      const value = { life: generation };
      gossip.table.setLocal('endpoint/0', value);
      this.#own.set(name, new Map([['endpoint/0', value]]));
    });
  }

  #cut(): void {
    const { cutOff, deaf } = this.#options;
    const away = new Set(Array.from({ length: cutOff }, () => this.#anyone()));
    const hearNothing = new Set(Array.from({ length: deaf }, () => this.#anyone()));
    this.#sim.partition((from, to) => away.has(from) !== away.has(to) || hearNothing.has(to));
  }

  #anyone(): string {
    return `n${Math.floor(this.#sim.random.next() * this.#sim.nodes.size)}`;
  }

  #upTo(limit: number): number {
    return this.#sim.random.next() * limit;
  }
}
