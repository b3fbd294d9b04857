import type { Random } from '../core/capabilities.ts';
import type { BroadcastQueue } from './broadcast-queue.ts';
import type { GossipTuning } from './config.ts';
import type { Outbox } from './effects.ts';
import {
  type DigestWindow,
  decodeEndpointMessage,
  type EndpointMessage,
  encodeEndpointMessage,
  encodeEndpointPayload,
  type LeafRange,
  type SeenVersion,
} from './endpoint-codec.ts';
import { encodeDeltas, packDigests, packWindows } from './endpoint-packing.ts';
import { EndpointPull } from './endpoint-pull.ts';
import type { Delta } from './endpoint-record.ts';
import {
  type EndpointTable,
  isNewer,
  type RecordVersion,
  type TableApplied,
} from './endpoint-table.ts';
import { differingSums, leafOf, TREE_FANOUT, TREE_LEAVES } from './endpoint-tree.ts';
import { MESSAGE_TYPE } from './messages.ts';
import type { PeerAddress } from './peer-address.ts';

/** Room for the containers around a user message in a packet: CRC, compound. */
const PACKET_OVERHEAD_BYTES = 16;
/** Packets that a burst of own changes is broadcast in; what does not fit is fetched by others. */
const BROADCAST_PACKETS_MAX = 8;
/** Packets that answer one digest; what does not fit goes by TCP. */
const REPAIR_PACKETS_MAX = 8;
/** Digests, and sums of leaves, that answer one message. */
const DIGESTS_MAX = 4;
/** A node with more records compares sums before it lists what it has. */
const WHOLE_DIGEST_RECORDS_MAX = 64;
/** Gaps that are asked about, and members that are told of, between two summaries. */
const ASKED_MAX = 256;
const TOLD_MAX = 64;
/**
 * Comparisons that are taken on between two summaries, and packets that answer them, together. Some ten
 * nodes compare with one in that time, at some ten packets each; who sends more, in whatever name, gets no
 * more out of this node.
 */
const ANSWERS_MAX = 512;
const ALL_LEAVES: LeafRange = { first: 0, last: TREE_LEAVES };

/** What {@link EndpointSync} needs of its surroundings. */
export interface EndpointSyncParts {
  readonly tuning: GossipTuning;
  readonly random: Random;
  readonly table: EndpointTable;
  readonly outbox: Outbox;
  /** Milliseconds since the epoch. */
  readonly epochMs: () => number;
  /** Broadcasts, which ride on the membership protocol's packets. */
  readonly queue: BroadcastQueue;
  /** There is something new to broadcast, after there was nothing. */
  readonly hasten: (nowMs: number) => void;
  /** Sends encoded user messages, a packet each. */
  readonly send: (to: PeerAddress, messages: readonly Uint8Array[]) => void;
  /** Sends what this node thinks of the member `node`. */
  readonly tellOf: (to: PeerAddress, node: string) => void;
  /** Whether a live member has this address: what is sent elsewhere may hit whoever never asked. */
  readonly isPeer: (peer: PeerAddress) => boolean;
  /** Sends a user message by stream, for an answer. */
  readonly ask: (to: PeerAddress, payload: Uint8Array) => void;
}

/** How the tables of this node and of the others compare. */
export interface SyncStats {
  /** Summaries of other nodes that differed from this node's. */
  readonly mismatches: number;
  /** Changes that came as an answer to a comparison, because their broadcast was missed. */
  readonly repairs: number;
  /** By node: how old its newest change was when it came here, in milliseconds, by both clocks. */
  readonly lagMs: ReadonlyMap<string, number>;
}

/**
 * Keeps the endpoint tables of all nodes equal. Changes are broadcast ('delta'). What was lost is
 * found by comparing and fetched from whoever has it (Scuttlebutt reconciliation; van Renesse et
 * al., 2008): every node sends a 'summary' of all it has to random members, about once a second.
 * One with another summary answers with the sums of its tree's branches, and both go down to the
 * leaves in which they differ ('branches', 'leaves'); few records are listed at once. Of these they
 * list what they have ('digest'), and what the other lacks goes out as 'repair' deltas; if that is
 * much, the other is told that it is 'behind', and pulls it by stream. Where both have the same and
 * yet their sums differ, they disagree on who lives, and tell each other of these members.
 */
export class EndpointSync {
  readonly #parts: EndpointSyncParts;
  readonly #pull: EndpointPull;
  readonly #messageBytesMax: number;
  /** This node's record up to here has been broadcast. */
  #flushed: Omit<RecordVersion, 'node'>;
  /** Nodes whose gaps were asked about since the last summary. BOUNDED by {@link ASKED_MAX}. */
  readonly #asked = new Set<string>();
  /** Members that were told of since the last summary. */
  #told = 0;
  #answersLeft = ANSWERS_MAX;
  #mismatches = 0;
  #repairs = 0;
  /** BOUNDED by `membersMax`. */
  readonly #lagMs = new Map<string, number>();

  constructor(parts: EndpointSyncParts) {
    this.#parts = parts;
    this.#messageBytesMax = parts.tuning.packetBytesMax - PACKET_OVERHEAD_BYTES;
    this.#flushed = { generation: parts.table.ownVersion.generation, version: 0 };
    this.#pull = new EndpointPull({
      table: parts.table,
      timeoutMs: parts.tuning.streamTimeoutMs,
      ask: parts.ask,
      apply: (delta, nowMs) => this.#repair(delta, nowMs).news,
    });
  }

  get stats(): SyncStats {
    return { mismatches: this.#mismatches, repairs: this.#repairs, lagMs: this.#lagMs };
  }

  /** Broadcasts what this node changed since the last call. */
  flush(nowMs: number): void {
    const { table } = this.#parts;
    const own = table.ownVersion;
    if (!isNewer(own, this.#flushed)) return;
    const delta = table.deltaFor(own.node, { node: own.node, ...this.#flushed });
    this.#flushed = own;
    if (delta === undefined) return;
    const limit = BROADCAST_PACKETS_MAX;
    const { messages } = encodeDeltas(delta, 'delta', this.#messageBytesMax, limit);
    for (const [index, bytes] of messages.entries()) {
      this.#broadcast(`${own.node}/${own.generation}/${own.version}/${index}`, bytes, nowMs);
    }
  }

  /** The others know this node's record as it is. */
  restored(): void {
    this.#flushed = this.#parts.table.ownVersion;
    this.#parts.queue.clear();
  }

  /** Sends the summary of all records to `peers`. */
  sendSummaries(peers: readonly PeerAddress[]): void {
    this.#asked.clear();
    this.#told = 0;
    const summary = this.#parts.table.summary();
    for (const peer of peers) this.#send(peer, { kind: 'summary', summary });
    this.#answersLeft = ANSWERS_MAX;
  }

  /** Handles the payload of a user message. */
  receive(payload: Uint8Array, from: PeerAddress, nowMs: number): void {
    const message = decodeEndpointMessage(payload);
    if (typeof message === 'string') this.#parts.outbox.count(`user_message_${message}`);
    else this.#handle(message, payload, from, nowMs);
  }

  /** Handles a user message that came by stream. @returns the answer, if there is to be one */
  serve(payload: Uint8Array): Uint8Array | undefined {
    const message = decodeEndpointMessage(payload);
    if (typeof message === 'string' || message.kind !== 'pull') return undefined;
    for (const version of message.versions) this.#parts.table.outbid(version);
    return this.#pull.serve(message);
  }

  /** Takes the answer to what this node asked `to` by stream. */
  answered(to: PeerAddress, payload: Uint8Array, nowMs: number): void {
    if (!this.#pull.answered(to, payload, nowMs)) this.#parts.outbox.count('pull_malformed');
  }

  /** What this node asked of `to` is not answered. */
  unanswered(to: PeerAddress): void {
    this.#pull.unanswered(to);
  }

  /** This node's user state for a push/pull: what it has, in one sum. */
  state(): Uint8Array {
    return encodeEndpointPayload({ kind: 'summary', summary: this.#parts.table.summary() });
  }

  /**
   * Reads the user state of a push/pull.
   *
   * @returns whether the other side is a weft node that does not have what this one has
   */
  differsFrom(userState: Uint8Array): boolean {
    if (userState.length === 0) return false;
    const state = decodeEndpointMessage(userState);
    if (typeof state === 'string') this.#parts.outbox.count(`user_state_${state}`);
    else if (state.kind === 'summary') return state.summary !== this.#parts.table.summary();
    return false;
  }

  /** Fetches from `to` all that this node lacks. */
  pullFrom(to: PeerAddress, nowMs: number): void {
    this.#pull.start(to, ALL_LEAVES, nowMs);
  }

  #handle(message: EndpointMessage, payload: Uint8Array, from: PeerAddress, nowMs: number): void {
    switch (message.kind) {
      case 'delta':
        this.#hear(message.delta, payload, from, nowMs);
        return;
      case 'repair':
        if (this.#repair(message.delta, nowMs).result === 'gap')
          this.#ask(message.delta.node, from, nowMs);
        return;
      case 'summary':
        if (message.summary !== this.#parts.table.summary() && this.#mayAnswer()) {
          this.#compare(from);
        }
        return;
      case 'branches':
        if (this.#mayAnswer()) this.#compareBranches(message.sums, from);
        return;
      case 'leaves':
        if (this.#mayAnswer()) this.#compareLeaves(message.branch, message.sums, from, nowMs);
        return;
      case 'digest':
        if (this.#mayAnswer()) this.#answerDigest(message.windows, message.answer, from, nowMs);
        return;
      case 'behind':
        this.#pullRange(from, message, nowMs);
        return;
      default:
        this.#parts.outbox.count('user_message_unexpected');
    }
  }

  /** A broadcast. */
  #hear(delta: Delta, payload: Uint8Array, from: PeerAddress, nowMs: number): void {
    const { result, news } = this.#apply(delta, nowMs);
    if (news) this.#passOn(delta, payload, nowMs);
    if (result === 'gap') this.#ask(delta.node, from, nowMs);
  }

  #mayAnswer(): boolean {
    if (this.#answersLeft <= 0) {
      this.#parts.outbox.count('endpoint_answers_full');
      return false;
    }
    this.#answersLeft--;
    return true;
  }

  /** Nobody but a member is connected to, or has one of the few places. */
  #pullRange(from: PeerAddress, range: LeafRange, nowMs: number): void {
    if (this.#parts.isPeer(from)) this.#pull.start(from, range, nowMs);
    else this.#parts.outbox.count('endpoint_stranger');
  }

  #repair(delta: Delta, nowMs: number): TableApplied {
    const applied = this.#apply(delta, nowMs);
    if (applied.news) this.#repairs++;
    return applied;
  }

  #apply(delta: Delta, nowMs: number): TableApplied {
    const { table, outbox } = this.#parts;
    table.outbid(delta);
    const applied = table.apply(delta, nowMs);
    if (applied.result === 'full') outbox.count('endpoint_table_full');
    if (applied.isUpdate && delta.atMs > 0) this.#noteLag(delta);
    if (applied.change !== undefined) outbox.event({ kind: 'endpoints', ...applied.change });
    return applied;
  }

  #noteLag({ node, atMs }: Delta): void {
    const { epochMs, tuning } = this.#parts;
    this.#lagMs.delete(node); // the longest unchanged comes first, and goes first
    this.#lagMs.set(node, Math.max(0, epochMs() - atMs));
    const [oldest] = this.#lagMs.keys();
    if (this.#lagMs.size > tuning.membersMax && oldest !== undefined) this.#lagMs.delete(oldest);
  }

  /** An epidemic: what was news here is sent on as it came. What was not would never die out. */
  #passOn({ node, generation, since, version }: Delta, payload: Uint8Array, nowMs: number): void {
    // No node of ours makes them so large. It would never be sent, and so never be done.
    if (payload.length >= this.#messageBytesMax) return;
    const message = new Uint8Array(payload.length + 1);
    message[0] = MESSAGE_TYPE.user; // was taken off by the decoder
    message.set(payload, 1);
    this.#broadcast(`${node}/${generation}/${since}-${version}`, message, nowMs);
  }

  #broadcast(name: string, message: Uint8Array, nowMs: number): void {
    const { queue, hasten } = this.#parts;
    // While there is a steady stream of news the protocol's own pace is kept.
    if (queue.size === 0) hasten(nowMs);
    queue.push(name, message);
  }

  /** Asks `from`, who has more of `node`'s record, for what is missing here. */
  #ask(node: string, from: PeerAddress, nowMs: number): void {
    if (this.#asked.has(node) || this.#asked.size >= ASKED_MAX) return;
    this.#asked.add(node);
    this.#askForLeaves(from, [leafOf(node)], nowMs);
  }

  /** Tells `from` what is here of some leaves, to be sent what is not; pulls that if it is much. */
  #askForLeaves(from: PeerAddress, leaves: readonly number[], nowMs: number): void {
    const wanted = new Set(leaves);
    const whole = { first: Math.min(...wanted), last: Math.max(...wanted) + 1 };
    const versions = this.#seenIn(whole).filter(({ leaf }) => wanted.has(leaf));
    const byLeaf = Map.groupBy(versions, ({ leaf }) => leaf);
    const windows: DigestWindow[] = [];
    for (const first of wanted) {
      const range = { first, last: first + 1 };
      const inside = byLeaf.get(first) ?? [];
      const { windows: packed, rest } = packWindows(range, inside, this.#messageBytesMax, 1);
      if (rest === undefined) windows.push(...packed);
      else this.#pullRange(from, range, nowMs);
    }
    const all = this.#sendDigests(from, windows, true);
    if (!all) this.#pullRange(from, whole, nowMs);
  }

  #compare(from: PeerAddress): void {
    const { table } = this.#parts;
    this.#mismatches++;
    if (table.recordCount <= WHOLE_DIGEST_RECORDS_MAX) {
      const versions = this.#seenIn(ALL_LEAVES);
      const { windows, rest } = packWindows(ALL_LEAVES, versions, this.#messageBytesMax, 1);
      if (rest === undefined) {
        this.#sendDigests(from, windows, false);
        return;
      }
    }
    this.#send(from, { kind: 'branches', sums: table.tree.branches() });
  }

  /** Lists what is in the branches that differ; if that is too much, compares their leaves first. */
  #compareBranches(sums: Uint8Array, from: PeerAddress): void {
    const { table } = this.#parts;
    const branches = this.#turned(differingSums(table.tree.branches(), sums));
    const windows: DigestWindow[] = [];
    const large: number[] = [];
    const mean = table.recordCount / TREE_FANOUT;
    const few = branches.length * mean <= WHOLE_DIGEST_RECORDS_MAX;
    for (const branch of few ? branches : []) {
      const range = { first: branch * TREE_FANOUT, last: (branch + 1) * TREE_FANOUT };
      const versions = this.#seenIn(range);
      const packed = packWindows(range, versions, this.#messageBytesMax, DIGESTS_MAX);
      if (packed.rest === undefined) windows.push(...packed.windows);
      else large.push(branch);
    }
    this.#sendDigests(from, windows, false);
    for (const branch of (few ? large : branches).slice(0, DIGESTS_MAX)) {
      this.#send(from, { kind: 'leaves', branch, sums: table.tree.leaves(branch) });
    }
  }

  #compareLeaves(branch: number, sums: Uint8Array, from: PeerAddress, nowMs: number): void {
    const { table } = this.#parts;
    const base = branch * TREE_FANOUT;
    const differing = this.#turned(differingSums(table.tree.leaves(branch), sums));
    const versions = this.#seenIn({ first: base, last: base + TREE_FANOUT });
    const windows: DigestWindow[] = [];
    for (const index of differing) {
      const range = { first: base + index, last: base + index + 1 };
      const inside = versions.filter(({ leaf }) => leaf === range.first);
      const packed = packWindows(range, inside, this.#messageBytesMax, 1);
      windows.push(...packed.windows);
      if (packed.rest === undefined) continue;
      // More names than a packet lists: each side fetches what it lacks.
      this.#send(from, { kind: 'behind', ...range });
      this.#pullRange(from, range, nowMs);
    }
    this.#sendDigests(from, windows, false);
  }

  #answerDigest(
    windows: readonly DigestWindow[],
    isAnswer: boolean,
    from: PeerAddress,
    nowMs: number,
  ): void {
    const { table } = this.#parts;
    for (const { versions } of windows) for (const version of versions) table.outbid(version);
    const listed = windows.flatMap(({ versions }) => versions);
    const behind = listed.filter((version) => this.#isBehind(version));
    for (const version of listed) this.#settle(version, from);
    if (!this.#sendRepairs(from, windows)) {
      const first = Math.min(...windows.map((window) => window.first));
      const last = Math.max(...windows.map((window) => window.last));
      this.#send(from, { kind: 'behind', first, last });
    }
    const leaves = behind.map(({ node }) => leafOf(node));
    if (!isAnswer && leaves.length > 0) this.#askForLeaves(from, leaves, nowMs);
  }

  /** What a node lacks that has what is in `windows`, record by record. */
  *#lackedBy(windows: readonly DigestWindow[]): Generator<Delta, void, undefined> {
    const { table } = this.#parts;
    for (const window of windows) {
      const theirs = new Map(window.versions.map((version) => [version.node, version]));
      for (const { node } of table.versionsIn(window.first, window.last)) {
        const delta = table.deltaFor(node, theirs.get(node));
        if (delta !== undefined) yield delta;
      }
    }
  }

  /** @returns false if they are more than some packets hold: then nothing has been sent */
  #sendRepairs(to: PeerAddress, windows: readonly DigestWindow[]): boolean {
    const messages: Uint8Array[] = [];
    for (const delta of this.#lackedBy(windows)) {
      const room = REPAIR_PACKETS_MAX - messages.length;
      if (room <= 0) return false;
      const part = encodeDeltas(delta, 'repair', this.#messageBytesMax, room);
      if (!part.whole) return false; // what is fetched as a whole need not be sent in part
      messages.push(...part.messages);
    }
    if (messages.length > 1 && !this.#parts.isPeer(to)) {
      this.#parts.outbox.count('endpoint_stranger');
      return true;
    }
    this.#answersLeft -= messages.length;
    this.#parts.send(to, messages);
    return true;
  }

  #isBehind(theirs: RecordVersion): boolean {
    const mine = this.#parts.table.versionOf(theirs.node);
    return mine === undefined || isNewer(theirs, mine);
  }

  /** Tells the other node of a member that it takes for live and this node does not, or the reverse. */
  #settle({ node, isLive }: SeenVersion, from: PeerAddress): void {
    const { table, tellOf } = this.#parts;
    if (isLive === table.isLive(node) || this.#told >= TOLD_MAX) return;
    this.#told++;
    tellOf(from, node);
  }

  #seenIn(range: LeafRange): (SeenVersion & { readonly leaf: number })[] {
    const { table } = this.#parts;
    const versions = table.versionsIn(range.first, range.last);
    return versions.map((version) => ({ ...version, isLive: table.isLive(version.node) }));
  }

  /** From a random one on: what is cut off has its turn another time. */
  #turned(indexes: readonly number[]): number[] {
    const start = Math.floor(this.#parts.random.next() * indexes.length);
    return [...indexes.slice(start), ...indexes.slice(0, start)];
  }

  /** @returns false if they are more than some packets hold: then a part has been sent */
  #sendDigests(to: PeerAddress, windows: readonly DigestWindow[], answer: boolean): boolean {
    const digests = packDigests(windows, this.#messageBytesMax);
    for (const some of digests.slice(0, DIGESTS_MAX)) {
      this.#send(to, { kind: 'digest', windows: some, answer });
    }
    return digests.length <= DIGESTS_MAX;
  }

  #send(to: PeerAddress, message: EndpointMessage): void {
    this.#answersLeft--;
    this.#parts.send(to, [encodeEndpointMessage(message)]);
  }
}
