import type { Random } from '../../src/core/capabilities.ts';
import type { GossipTuning } from '../../src/gossip/config.ts';
import type { Effect, GossipEvent, PushPullEffect } from '../../src/gossip/effects.ts';
import { Gossip } from '../../src/gossip/gossip.ts';
import { formatPeer, type PeerAddress } from '../../src/gossip/peer-address.ts';
import { StreamReader } from '../../src/gossip/push-pull.ts';

/** A seeded generator (mulberry32): the same seed is the same run. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b_79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
  return { next, bytes: (length) => Uint8Array.from({ length }, () => Math.floor(next() * 256)) };
}

/** One simulated host. */
export interface SimNode {
  readonly name: string;
  gossip: Gossip;
  running: boolean;
  readonly events: { readonly atMs: number; readonly event: GossipEvent }[];
}

interface Job {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

/** What {@link GossipSim} is made with. */
export interface SimOptions {
  readonly seed: number;
  /** Part of the UDP packets that is lost, 0 to 1. TCP loses nothing, as TCP does. */
  readonly loss?: number;
  readonly tuning?: Partial<GossipTuning>;
}

/**
 * Many {@link Gossip} machines on one network, in virtual time: packets take 0.2 to 5 ms, may be
 * lost, and partitions cut UDP and TCP. Nothing here reads a clock.
 */
export class GossipSim {
  nowMs = 1_000;
  loss: number;
  /** Sent packets, for load figures. */
  packets = 0;
  readonly random: Random;
  readonly nodes: Map<string, SimNode> = new Map();
  readonly #options: SimOptions;
  readonly #byPeer = new Map<string, SimNode>();
  readonly #jobs: Job[] = [];
  #order = 0;
  #cut: (a: string, b: string) => boolean = () => false;

  constructor(options: SimOptions) {
    this.#options = options;
    this.loss = options.loss ?? 0;
    this.random = seededRandom(options.seed);
  }

  /** Adds nodes `n0`, `n1`, ... that join by the first one. */
  addMany(count: number): void {
    for (let index = 0; index < count; index++) {
      this.add(`n${index}`, index === 0 ? [] : ['n0']);
    }
  }

  /** Starts a node, or starts it anew after {@link kill}. */
  add(name: string, seeds: readonly string[], generation = 1): SimNode {
    const peer = this.peer(name);
    const { tuning } = this.#options;
    const config = { name, ...peer, generation, ...(tuning && { tuning }) };
    const gossip = new Gossip({ random: this.random }, config, this.nowMs);
    const node: SimNode = this.nodes.get(name) ?? { name, gossip, running: true, events: [] };
    node.gossip = gossip;
    node.running = true;
    this.nodes.set(name, node);
    this.#byPeer.set(formatPeer(peer), node);
    this.#perform(
      node,
      gossip,
      gossip.join(
        seeds.map((seed) => this.peer(seed)),
        this.nowMs,
      ),
    );
    this.#scheduleTick(node, gossip);
    return node;
  }

  get(name: string): SimNode {
    const node = this.nodes.get(name);
    if (node === undefined) throw new Error(`No simulated node ${name}`);
    return node;
  }

  running(): SimNode[] {
    return [...this.nodes.values()].filter((node) => node.running);
  }

  /** The host is gone without a word. */
  kill(name: string): void {
    this.get(name).running = false;
  }

  leave(name: string): void {
    const node = this.get(name);
    this.#perform(node, node.gossip, node.gossip.leave(this.nowMs));
  }

  /** Cuts every link for which `cut` is true. */
  partition(cut: (a: string, b: string) => boolean): void {
    this.#cut = cut;
  }

  heal(): void {
    this.#cut = () => false;
  }

  /** Hands a packet to a node as if it came from `from`. */
  inject(name: string, bytes: Uint8Array, from: string): void {
    const node = this.get(name);
    this.#perform(node, node.gossip, node.gossip.packet(bytes, this.peer(from), this.nowMs));
  }

  /** Runs for `durationMs` of virtual time. */
  run(durationMs: number): void {
    this.runUntil(() => false, durationMs);
  }

  /**
   * Runs until `done` holds, looked at every 50 ms of virtual time.
   *
   * @returns how long it took, or undefined if it did not hold within `limitMs`
   */
  runUntil(done: () => boolean, limitMs: number): number | undefined {
    const startMs = this.nowMs;
    const endMs = startMs + limitMs;
    for (let sliceMs = startMs; ; ) {
      if (done()) return this.nowMs - startMs;
      if (this.nowMs >= endMs) return undefined;
      sliceMs = Math.min(sliceMs + 50, endMs);
      for (let job = this.#pop(sliceMs); job !== undefined; job = this.#pop(sliceMs)) {
        this.nowMs = Math.max(this.nowMs, job.atMs);
        job.run();
      }
      this.nowMs = sliceMs;
    }
  }

  /** State of `member` as `name` sees it. */
  stateOf(name: string, member: string): string | undefined {
    return this.get(name)
      .gossip.members()
      .find((known) => known.name === member)?.state;
  }

  /** What `name` sees of all endpoints, in an order that can be compared. */
  visible(name: string): string {
    const entries = [...this.get(name).gossip.table.visible()];
    return JSON.stringify(entries.map(({ node, key, value }) => [node, key, value]).sort());
  }

  /** Whether all running nodes see each other alive and the same endpoints. */
  converged(): boolean {
    const nodes = this.running();
    const first = nodes[0];
    if (first === undefined) return true;
    return nodes.every(({ gossip }) => {
      const alive = gossip.members().filter(({ state }) => state === 'alive').length;
      return alive === nodes.length && gossip.table.summary() === first.gossip.table.summary();
    });
  }

  peer(name: string): PeerAddress {
    const index = Number(name.slice(1));
    return { address: `10.0.${index >> 8}.${index & 255}`, port: 7946 };
  }

  #perform(node: SimNode, gossip: Gossip, effects: readonly Effect[]): void {
    for (const effect of effects) {
      if (effect.kind === 'event') node.events.push({ atMs: this.nowMs, event: effect.event });
      else if (effect.kind === 'send') this.#send(node, effect.to, effect.bytes);
      else if (effect.kind === 'pushPull') this.#pushPull(node, gossip, effect);
      else {
        this.#later(4, () => {
          const target = this.#reach(node, effect.to);
          if (target === undefined || node.gossip !== gossip) return;
          this.#perform(node, gossip, gossip.streamAck(effect.sequence, this.nowMs));
        });
      }
    }
  }

  #send(from: SimNode, to: PeerAddress, bytes: Uint8Array): void {
    this.packets++;
    if (this.random.next() < this.loss) return;
    this.#later(0.2 + this.random.next() * 4.8, () => {
      const target = this.#reach(from, to);
      if (target === undefined) return;
      const source = this.peer(from.name);
      this.#perform(target, target.gossip, target.gossip.packet(bytes, source, this.nowMs));
    });
  }

  #pushPull(node: SimNode, gossip: Gossip, effect: PushPullEffect): void {
    this.#later(5, () => {
      const target = this.#reach(node, effect.to);
      const request = new StreamReader().push(effect.bytes);
      if (target === undefined || request.kind !== 'message') return;
      if (request.message.kind !== 'pushPull') throw new Error('Not a push/pull');
      const { effects, reply } = target.gossip.pushPullRequest(request.message, this.nowMs);
      this.#perform(target, target.gossip, effects);
      const answer = new StreamReader().push(reply);
      this.#later(5, () => {
        const gone = this.#reach(target, this.peer(node.name)) !== node || node.gossip !== gossip;
        if (gone || answer.kind !== 'message' || answer.message.kind !== 'pushPull') return;
        const results = gossip.pushPullReply(effect, answer.message, this.nowMs);
        this.#perform(node, gossip, results);
      });
    });
  }

  #reach(from: SimNode, to: PeerAddress): SimNode | undefined {
    const target = this.#byPeer.get(formatPeer(to));
    if (target === undefined || !target.running || !from.running) return undefined;
    return this.#cut(from.name, target.name) ? undefined : target;
  }

  #scheduleTick(node: SimNode, gossip: Gossip): void {
    const atMs = gossip.nextDeadlineMs();
    this.#later(Math.max(0.01, atMs - this.nowMs), () => {
      if (!node.running || node.gossip !== gossip) return;
      this.#perform(node, gossip, gossip.tick(this.nowMs));
      this.#scheduleTick(node, gossip);
    });
  }

  /** A binary heap by time, then by order of arrival. */
  #later(delayMs: number, run: () => void): void {
    const job = { atMs: this.nowMs + delayMs, order: this.#order++, run };
    let place = this.#jobs.push(job) - 1;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (!isBefore(job, this.#jobs[parent]!)) break;
      this.#jobs[place] = this.#jobs[parent]!;
      place = parent;
    }
    this.#jobs[place] = job;
  }

  #pop(untilMs: number): Job | undefined {
    const top = this.#jobs[0];
    if (top === undefined || top.atMs > untilMs) return undefined;
    const last = this.#jobs.pop()!;
    const size = this.#jobs.length;
    if (size === 0) return top;
    let place = 0;
    for (;;) {
      let child = place * 2 + 1;
      if (child >= size) break;
      if (child + 1 < size && isBefore(this.#jobs[child + 1]!, this.#jobs[child]!)) child++;
      if (!isBefore(this.#jobs[child]!, last)) break;
      this.#jobs[place] = this.#jobs[child]!;
      place = child;
    }
    this.#jobs[place] = last;
    return top;
  }
}

function isBefore(a: Job, b: Job): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
