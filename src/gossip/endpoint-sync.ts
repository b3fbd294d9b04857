import type { Random } from '../core/capabilities.ts';
import type { BroadcastQueue } from './broadcast-queue.ts';
import type { GossipTuning } from './config.ts';
import type { Outbox } from './effects.ts';
import { EndpointComparison } from './endpoint-comparison.ts';
import { decodeEndpointMessage } from './endpoint-decoder.ts';
import type { Delta } from './endpoint-delta.ts';
import { encodeEndpointPayload } from './endpoint-encoder.ts';
import { ALL_LEAVES, type EndpointMessage, type LeafRange } from './endpoint-messages.ts';
import { encodeDeltas } from './endpoint-packing.ts';
import { EndpointPull } from './endpoint-pull.ts';
import type { EndpointTable, TableApplied } from './endpoint-table.ts';
import { leafOf } from './endpoint-tree.ts';
import { MESSAGE_TYPE } from './messages.ts';
import type { PeerAddress } from './peer-address.ts';
import { isNewer, type RecordVersion } from './record-version.ts';

/** Room for the containers around a user message in a packet: CRC, compound. */
const PACKET_OVERHEAD_BYTES = 16;
/** Packets that a burst of own changes is broadcast in; what does not fit is fetched by others. */
const BROADCAST_PACKETS_MAX = 8;
/** Gaps that are asked about between two summaries. */
const ASKED_MAX = 256;

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
 * al., 2008): see {@link EndpointComparison}. If that is much, the other is told that it is
 * 'behind', and pulls it by stream: see {@link EndpointPull}.
 */
export class EndpointSync {
  readonly #parts: EndpointSyncParts;
  readonly #pull: EndpointPull;
  readonly #comparison: EndpointComparison;
  readonly #messageBytesMax: number;
  /** This node's record up to here has been broadcast. */
  #flushed: Omit<RecordVersion, 'node'>;
  /** Nodes whose gaps were asked about since the last summary. BOUNDED by {@link ASKED_MAX}. */
  readonly #asked = new Set<string>();
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
    this.#comparison = new EndpointComparison({
      ...parts,
      messageBytesMax: this.#messageBytesMax,
      pull: (from, range, nowMs) => this.#pullRange(from, range, nowMs),
    });
  }

  get stats(): SyncStats {
    const { mismatches } = this.#comparison;
    return { mismatches, repairs: this.#repairs, lagMs: this.#lagMs };
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
    this.#comparison.start(peers);
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
      case 'branches':
      case 'leaves':
      case 'digest':
        this.#comparison.receive(message, from, nowMs);
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
    this.#comparison.askFor(from, [leafOf(node)], nowMs);
  }
}
