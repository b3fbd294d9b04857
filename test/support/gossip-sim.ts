import type { Random } from '../../src/core/capabilities.ts';
import type { GossipTuning } from '../../src/gossip/config.ts';
import type {
  AskEffect,
  Effect,
  GossipEvent,
  PushPullEffect,
  StreamPingEffect,
} from '../../src/gossip/effects.ts';
import { Gossip } from '../../src/gossip/gossip.ts';
import type { PeerAddress } from '../../src/gossip/peer-address.ts';
import { type StreamMessage, StreamReader } from '../../src/gossip/push-pull.ts';
import { EventHeap } from './event-heap.ts';
import { SimSharing } from './sim-sharing.ts';

/** Payload of one TCP segment: a longer message takes more of them, which takes longer. */
const STREAM_MS_PER_MEGABYTE = 10;
const STREAM_MS = 4;

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
  /** What it sent, streams included. */
  packets: number;
  bytes: number;
  /** Its clock, less the simulator's. */
  clockOffsetMs: number;
  /** Until then it does nothing: what comes meanwhile waits, and what is due is late. */
  stalledUntilMs: number;
  /** Until then no message comes in or goes out, though its timers run on. */
  blockedUntilMs: number;
  /** When its next tick is due; only the job that was set for this time does it. */
  tickAtMs: number;
}

/** What {@link GossipSim} is made with. */
export interface SimOptions {
  readonly seed: number;
  /** Part of the UDP packets that is lost, 0 to 1. TCP loses nothing, as TCP does. */
  readonly loss?: number;
  /** Part of the UDP packets that arrives twice, 0 to 1. */
  readonly duplication?: number;
  /** A packet takes at least and at most so long, in milliseconds: a wide range reorders them. */
  readonly delayMs?: readonly [number, number];
  readonly tuning?: Partial<GossipTuning>;
  /** True by default, as in an agent; it takes most of a simulation's time. */
  readonly compression?: boolean;
  /** Told of each event; without it they are kept with their nodes. */
  readonly onEvent?: (node: SimNode, event: GossipEvent) => void;
}

/**
 * Many {@link Gossip} machines on one network, in virtual time: packets take 0.2 to 5 ms and may be lost,
 * doubled and reordered, links may be cut in one direction or both, hosts may stall, and clocks jump.
 * Nothing here reads a clock.
 */
export class GossipSim {
  nowMs = 1_000;
  loss: number;
  duplication: number;
  delayMs: readonly [number, number];
  /** Sent packets, for load figures. */
  packets = 0;
  readonly random: Random;
  readonly nodes: Map<string, SimNode> = new Map();
  readonly #options: SimOptions;
  readonly #sharing = new SimSharing();
  readonly #byAddress = new Map<string, SimNode>();
  readonly #heap = new EventHeap();
  #cut: ((from: string, to: string) => boolean) | undefined;

  constructor(options: SimOptions) {
    this.#options = options;
    this.loss = options.loss ?? 0;
    this.duplication = options.duplication ?? 0;
    this.delayMs = options.delayMs ?? [0.2, 5];
    this.random = seededRandom(options.seed);
  }

  /** Adds nodes `n0`, `n1`, ... that join by the first one. */
  addMany(count: number): void {
    for (let index = 0; index < count; index++) {
      this.add(`n${index}`, index === 0 ? [] : ['n0']);
    }
  }

  /**
   * Adds nodes `n0`, `n1`, ... that know each other and what each has to say, as after a long time.
   *
   * @param endpoints - Of each node.
   */
  addKnown(count: number, endpoints: number): void {
    const names = Array.from({ length: count }, (_, index) => `n${index}`);
    const nodes = names.map((name) => this.#newNode(name, 1));
    for (const { name, gossip } of nodes) {
      for (let entry = 0; entry < endpoints; entry++) {
        gossip.table.setLocal(`endpoint/${entry}`, { node: name, entry, state: 'active' });
      }
    }
    const known = nodes.map(({ gossip }) => gossip.snapshot());
    const members = known.flatMap((snapshot) => snapshot.members);
    const records = known.flatMap((snapshot) => snapshot.records);
    const [first, ...others] = nodes;
    first?.gossip.restore({ members, records }, this.nowMs);
    for (const { gossip } of first ? others : []) gossip.restoreLike(first!.gossip, this.nowMs);
    for (const node of nodes) this.#arm(node, node.gossip);
  }

  /** Starts a node, or starts it anew after {@link kill}. */
  add(name: string, seeds: readonly string[], generation = 1): SimNode {
    const node = this.#newNode(name, generation);
    const { gossip } = node;
    const peers = seeds.map((seed) => this.peer(seed));
    this.#perform(node, gossip, gossip.join(peers, this.#clockOf(node)));
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
    this.#perform(node, node.gossip, node.gossip.leave(this.#clockOf(node)));
  }

  /** The host does nothing for `durationMs`, as if it had no CPU. */
  stall(name: string, durationMs: number): void {
    this.get(name).stalledUntilMs = this.nowMs + durationMs;
  }

  /**
   * The host's messages wait for `durationMs`, in both directions, while its timers go on: how the
   * Lifeguard paper (Dadgar et al., 2018, section V) makes a process slow.
   */
  block(name: string, durationMs: number): void {
    this.get(name).blockedUntilMs = this.nowMs + durationMs;
  }

  /** Sets a host's clock forward, or back. */
  jumpClock(name: string, byMs: number): void {
    this.get(name).clockOffsetMs += byMs;
  }

  /** Cuts every direction of a link for which `cut` is true. */
  partition(cut: (from: string, to: string) => boolean): void {
    this.#cut = cut;
  }

  heal(): void {
    this.#cut = undefined;
  }

  /** Begins to tell of what a node changed, as its agent does. */
  announce(name: string): void {
    const node = this.get(name);
    this.#perform(node, node.gossip, node.gossip.announce(this.#clockOf(node)));
  }

  /** Hands a packet to a node as if it came from `from`. */
  inject(name: string, bytes: Uint8Array, from: string): void {
    const node = this.get(name);
    const peer = this.peer(from);
    this.#perform(node, node.gossip, node.gossip.packet(bytes, peer, this.#clockOf(node)));
  }

  /** Does `run` after `delayMs` of virtual time. */
  after(delayMs: number, run: () => void): void {
    this.#heap.add(this.nowMs + delayMs, run);
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
      for (let job = this.#heap.take(sliceMs); job !== undefined; job = this.#heap.take(sliceMs)) {
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
    const summary = first.gossip.table.summary();
    return nodes.every(({ gossip }) => {
      const { alive } = gossip.memberCounts();
      return alive === nodes.length && gossip.table.summary() === summary;
    });
  }

  peer(name: string): PeerAddress {
    const index = Number(name.slice(1));
    return { address: `10.0.${index >> 8}.${index & 255}`, port: 7946 };
  }

  #newNode(name: string, generation: number): SimNode {
    const peer = this.peer(name);
    const { tuning, compression = true } = this.#options;
    const config = { name, ...peer, generation, compression, ...(tuning && { tuning }) };
    const known = this.nodes.get(name);
    const offset = known?.clockOffsetMs ?? 0;
    const deps = { random: this.random, epochMs: () => this.nowMs, sharing: this.#sharing };
    const gossip = new Gossip(deps, config, this.nowMs + offset);
    const node: SimNode = known ?? {
      ...{ name, gossip, running: true, events: [], packets: 0, bytes: 0 },
      ...{ clockOffsetMs: 0, stalledUntilMs: 0, blockedUntilMs: 0, tickAtMs: 0 },
    };
    node.gossip = gossip;
    node.running = true;
    node.stalledUntilMs = 0;
    node.blockedUntilMs = 0;
    node.tickAtMs = Number.POSITIVE_INFINITY;
    this.nodes.set(name, node);
    this.#byAddress.set(peer.address, node);
    return node;
  }

  #clockOf(node: SimNode): number {
    return this.nowMs + node.clockOffsetMs;
  }

  #perform(node: SimNode, gossip: Gossip, effects: readonly Effect[]): void {
    for (const effect of effects) {
      if (effect.kind === 'event') this.#report(node, effect.event);
      else if (effect.kind === 'send') this.#send(node, effect.to, effect.bytes);
      else if (effect.kind === 'pushPull') this.#pushPull(node, gossip, effect);
      else if (effect.kind === 'ask') this.#ask(node, gossip, effect);
      else this.#streamPing(node, gossip, effect);
    }
    this.#arm(node, gossip);
  }

  #report(node: SimNode, event: GossipEvent): void {
    if (this.#options.onEvent !== undefined) this.#options.onEvent(node, event);
    else node.events.push({ atMs: this.nowMs, event });
  }

  #send(from: SimNode, to: PeerAddress, bytes: Uint8Array): void {
    this.#count(from, bytes);
    const copies = this.duplication > 0 && this.random.next() < this.duplication ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      if (this.loss > 0 && this.random.next() < this.loss) continue;
      const [least, most] = this.delayMs;
      this.after(waitMs(from, this.nowMs) + least + this.random.next() * (most - least), () => {
        const target = this.#reach(from, to);
        if (target === undefined) return;
        this.#listening(target, target.gossip, () => {
          const source = this.peer(from.name);
          const effects = target.gossip.packet(bytes, source, this.#clockOf(target));
          this.#perform(target, target.gossip, effects);
        });
      });
    }
  }

  #streamPing(node: SimNode, gossip: Gossip, effect: StreamPingEffect): void {
    this.#stream(node, gossip, effect, (target) => {
      this.#reply(target, node, gossip, new Uint8Array(32), () =>
        gossip.streamAck(effect.sequence, this.#clockOf(node)),
      );
    });
  }

  #pushPull(node: SimNode, gossip: Gossip, effect: PushPullEffect): void {
    this.#stream(node, gossip, effect, (target) => {
      const request = readStream(effect.bytes, 'pushPull');
      const { effects, reply } = target.gossip.pushPullRequest(request, this.#clockOf(target));
      this.#perform(target, target.gossip, effects);
      this.#reply(target, node, gossip, reply, () =>
        gossip.pushPullReply(effect, readStream(reply, 'pushPull'), this.#clockOf(node)),
      );
    });
  }

  #ask(node: SimNode, gossip: Gossip, effect: AskEffect): void {
    this.#stream(node, gossip, effect, (target) => {
      const { payload } = readStream(effect.bytes, 'user');
      const peer = this.peer(node.name);
      const { effects, reply } = target.gossip.streamUser(payload, peer, this.#clockOf(target));
      this.#perform(target, target.gossip, effects);
      if (reply === undefined) return;
      this.#reply(target, node, gossip, reply, () =>
        gossip.answered(effect, readStream(reply, 'user').payload, this.#clockOf(node)),
      );
    });
  }

  /** Opens a stream and writes to it, if both hosts live and reach each other. */
  #stream(
    node: SimNode,
    gossip: Gossip,
    { to, bytes }: { readonly to: PeerAddress; readonly bytes: Uint8Array },
    serve: (target: SimNode) => void,
  ): void {
    this.#count(node, bytes);
    this.after(waitMs(node, this.nowMs) + streamMs(bytes), () => {
      const target = this.#reach(node, to);
      const back = target && this.#reach(target, this.peer(node.name));
      if (target === undefined || back === undefined || node.gossip !== gossip) return;
      this.#listening(target, target.gossip, () => serve(target));
    });
  }

  #reply(
    target: SimNode,
    node: SimNode,
    gossip: Gossip,
    bytes: Uint8Array,
    take: () => Effect[],
  ): void {
    this.#count(target, bytes);
    this.after(streamMs(bytes), () => {
      const gone = this.#reach(target, this.peer(node.name)) !== node || node.gossip !== gossip;
      if (!gone) this.#listening(node, gossip, () => this.#perform(node, gossip, take()));
    });
  }

  /** Does `work` on a node when it is not stalled, if it still lives then. */
  #awake(node: SimNode, gossip: Gossip, work: () => void): void {
    this.#whenPast(node.stalledUntilMs, node, gossip, work);
  }

  /** Takes a message in when the node is neither stalled nor blocked. */
  #listening(node: SimNode, gossip: Gossip, work: () => void): void {
    this.#whenPast(Math.max(node.stalledUntilMs, node.blockedUntilMs), node, gossip, work);
  }

  #whenPast(untilMs: number, node: SimNode, gossip: Gossip, work: () => void): void {
    if (untilMs <= this.nowMs) work();
    else {
      this.#heap.add(untilMs, () => {
        if (node.running && node.gossip === gossip) work();
      });
    }
  }

  #count(node: SimNode, bytes: Uint8Array): void {
    this.packets++;
    node.packets++;
    node.bytes += bytes.length;
  }

  #reach(from: SimNode, to: PeerAddress): SimNode | undefined {
    const target = this.#byAddress.get(to.address);
    if (target === undefined || !target.running || !from.running) return undefined;
    return this.#cut?.(from.name, target.name) === true ? undefined : target;
  }

  /** Sees to it that a tick comes at the machine's next deadline. */
  #arm(node: SimNode, gossip: Gossip): void {
    if (node.gossip !== gossip) return;
    const delayMs = Math.max(0.01, gossip.nextDeadlineMs() - this.#clockOf(node));
    const atMs = this.nowMs + delayMs;
    if (atMs >= node.tickAtMs) return;
    node.tickAtMs = atMs;
    this.#heap.add(atMs, () => {
      if (!node.running || node.gossip !== gossip || node.tickAtMs !== atMs) return;
      this.#awake(node, gossip, () => {
        node.tickAtMs = Number.POSITIVE_INFINITY;
        this.#perform(node, gossip, gossip.tick(this.#clockOf(node)));
      });
    });
  }
}

/** How long what a node wants to say waits in it. */
function waitMs({ blockedUntilMs }: SimNode, nowMs: number): number {
  return Math.max(0, blockedUntilMs - nowMs);
}

function streamMs(bytes: Uint8Array): number {
  return STREAM_MS + (bytes.length / 1e6) * STREAM_MS_PER_MEGABYTE;
}

function readStream<Kind extends StreamMessage['kind']>(
  bytes: Uint8Array,
  kind: Kind,
): Extract<StreamMessage, { kind: Kind }> {
  const result = new StreamReader().push(bytes);
  if (result.kind !== 'message' || result.message.kind !== kind) {
    throw new Error(`Not a ${kind} message`);
  }
  return result.message as Extract<StreamMessage, { kind: Kind }>;
}
