import type { Random } from '../core/capabilities.ts';
import type { BroadcastQueue } from './broadcast-queue.ts';
import type { GossipTuning } from './config.ts';
import type { Outbox } from './effects.ts';
import {
  type DigestWindow,
  decodeEndpointMessage,
  decodeState,
  encodeDeltas,
  encodeDigest,
  encodeState,
  encodeSummary,
  encodeWindow,
} from './endpoint-codec.ts';
import type { Delta } from './endpoint-record.ts';
import {
  type EndpointTable,
  isNewer,
  type RecordVersion,
  type TableApplied,
} from './endpoint-table.ts';
import { MESSAGE_TYPE } from './messages.ts';
import type { PeerAddress } from './peer-address.ts';

/** Room for the containers around a user message in a packet: CRC, compound. */
const PACKET_OVERHEAD_BYTES = 16;
/** Packets that a burst of own changes is broadcast in; what does not fit is fetched by others. */
const BROADCAST_PACKETS_MAX = 8;
/** Packets that answer one digest; what does not fit goes by TCP. */
const REPAIR_PACKETS_MAX = 8;
/** Gaps that are asked about between two summaries. */
const ASKED_MAX = 256;
/** User state of a push/pull stays below this: with the members it fits in what a receiver takes. */
const STATE_BYTES_MAX = 16 * 1_024 * 1_024;

/** What {@link EndpointSync} needs of its surroundings. */
export interface EndpointSyncParts {
  readonly tuning: GossipTuning;
  readonly random: Random;
  readonly table: EndpointTable;
  readonly outbox: Outbox;
  /** Broadcasts, which ride on the membership protocol's packets. */
  readonly queue: BroadcastQueue;
  /** Sends encoded user messages, a packet each. */
  readonly send: (to: PeerAddress, messages: readonly Uint8Array[]) => void;
  /** Starts a regular push/pull. */
  readonly exchange: (to: PeerAddress) => void;
  /** Starts a push/pull with this user state. */
  readonly repair: (to: PeerAddress, userState: Uint8Array) => void;
}

/**
 * Keeps the endpoint tables of all nodes equal. Changes are broadcast ('delta'). What was lost is
 * found by comparing and fetched from whoever has it (Scuttlebutt reconciliation; van Renesse et
 * al., 2008): every node sends a 'summary' of all it has to random members, about once a second;
 * one with another summary answers with its 'digest' of versions, and gets what it lacks as
 * 'repair' deltas, or by a push/pull if that is much. If both have the same records and yet their
 * summaries differ, they disagree on who lives, and a push/pull settles it long before the next
 * regular one.
 */
export class EndpointSync {
  readonly #parts: EndpointSyncParts;
  readonly #messageBytesMax: number;
  /** This node's record up to here has been broadcast. */
  #flushed: Omit<RecordVersion, 'node'>;
  /** Nodes whose gaps were asked about since the last summary. BOUNDED by {@link ASKED_MAX}. */
  readonly #asked = new Set<string>();
  /** Whether a disagreement on members was taken up since the last summary. */
  #exchanged = false;

  constructor(parts: EndpointSyncParts) {
    this.#parts = parts;
    this.#messageBytesMax = parts.tuning.packetBytesMax - PACKET_OVERHEAD_BYTES;
    this.#flushed = { generation: parts.table.ownVersion.generation, version: 0 };
  }

  /** Broadcasts what this node changed since the last call. */
  flush(): void {
    const { table, queue } = this.#parts;
    const own = table.ownVersion;
    if (!isNewer(own, this.#flushed)) return;
    const delta = table.deltaFor(own.node, { node: own.node, ...this.#flushed });
    this.#flushed = own;
    if (delta === undefined) return;
    const limit = BROADCAST_PACKETS_MAX;
    const { messages } = encodeDeltas(delta, 'delta', this.#messageBytesMax, limit);
    for (const [index, bytes] of messages.entries()) {
      queue.push(`${own.node}/${own.generation}/${own.version}/${index}`, bytes);
    }
  }

  /** Sends the summary of all records to `peers`. */
  sendSummaries(peers: readonly PeerAddress[]): void {
    this.#asked.clear();
    this.#exchanged = false;
    const bytes = encodeSummary(this.#parts.table.summary());
    for (const peer of peers) this.#parts.send(peer, [bytes]);
  }

  /** Handles the payload of a user message. */
  receive(payload: Uint8Array, from: PeerAddress, nowMs: number): void {
    const message = decodeEndpointMessage(payload);
    if (typeof message === 'string') {
      this.#parts.outbox.count(`user_message_${message}`);
    } else if (message.kind === 'summary') {
      if (message.summary !== this.#parts.table.summary()) this.#sendDigest(from, false);
    } else if (message.kind === 'digest') {
      this.#answerDigest(message.window, from);
    } else {
      const { result, news } = this.#apply(message.delta, nowMs);
      if (message.kind === 'delta' && news) this.#passOn(message.delta, payload);
      if (result === 'gap') this.#ask(message.delta.node, from);
    }
  }

  /**
   * This node's user state for a push/pull.
   *
   * @param theirs - What the other side has, if it said so; otherwise it gets this node's record.
   */
  state(theirs?: readonly RecordVersion[]): Uint8Array {
    const { table } = this.#parts;
    const own = table.deltaFor(table.ownVersion.node, undefined);
    const deltas = theirs === undefined ? (own ? [own] : []) : this.#lackedBy(theirs);
    return this.#encodeState(deltas);
  }

  /**
   * Merges the user state of a push/pull.
   *
   * @returns what the other side has; undefined if it is no weft node
   */
  merge(userState: Uint8Array, nowMs: number): readonly RecordVersion[] | undefined {
    if (userState.length === 0) return undefined;
    const state = decodeState(userState);
    if (typeof state === 'string') {
      this.#parts.outbox.count(`user_state_${state}`);
      return undefined;
    }
    for (const delta of state.deltas) this.#apply(delta, nowMs);
    for (const version of state.versions) this.#parts.table.outbid(version);
    return state.versions;
  }

  /** Starts a push/pull with `to` if it lacks something. */
  repairIfLacking(to: PeerAddress, theirs: readonly RecordVersion[]): void {
    const deltas = this.#lackedBy(theirs);
    if (deltas.length > 0) this.#parts.repair(to, this.#encodeState(deltas));
  }

  #apply(delta: Delta, nowMs: number): TableApplied {
    const { table, outbox } = this.#parts;
    table.outbid(delta);
    const applied = table.apply(delta, nowMs);
    if (applied.result === 'full') outbox.count('endpoint_table_full');
    if (applied.change !== undefined) outbox.event({ kind: 'endpoints', ...applied.change });
    return applied;
  }

  /** An epidemic: what was news here is sent on as it came. What was not would never die out. */
  #passOn({ node, generation, since, version }: Delta, payload: Uint8Array): void {
    const message = new Uint8Array(payload.length + 1);
    message[0] = MESSAGE_TYPE.user; // was taken off by the decoder
    message.set(payload, 1);
    this.#parts.queue.push(`${node}/${generation}/${since}-${version}`, message);
  }

  /** Asks `from`, who has more of `node`'s record, for what is missing here. */
  #ask(node: string, from: PeerAddress): void {
    if (this.#asked.has(node) || this.#asked.size >= ASKED_MAX) return;
    this.#asked.add(node);
    const version = this.#parts.table.versionOf(node);
    const versions = version === undefined ? [] : [version];
    // The range of this one name: no text lies between a name and it with a zero behind.
    const window = { from: node, until: `${node}\0`, versions, answer: true };
    this.#parts.send(from, [encodeWindow(window)]);
  }

  #sendDigest(to: PeerAddress, answer: boolean): void {
    const versions = this.#parts.table.digest();
    const start = Math.floor(this.#parts.random.next() * versions.length);
    const options = { bytesMax: this.#messageBytesMax, answer };
    this.#parts.send(to, [encodeDigest(versions, start, options)]);
  }

  #answerDigest(window: DigestWindow, from: PeerAddress): void {
    const { table, send, repair, exchange } = this.#parts;
    for (const version of window.versions) table.outbid(version);
    const deltas = this.#lackedBy(window.versions, window);
    const messages: Uint8Array[] = [];
    let whole = true;
    for (const delta of deltas) {
      const room = REPAIR_PACKETS_MAX - messages.length;
      const part = encodeDeltas(delta, 'repair', this.#messageBytesMax, room);
      messages.push(...part.messages);
      whole &&= part.whole;
      if (!whole || messages.length >= REPAIR_PACKETS_MAX) break;
    }
    if (whole) send(from, messages);
    else repair(from, this.#encodeState(deltas));
    const behind = window.versions.some((theirs) => {
      const mine = table.versionOf(theirs.node);
      return mine === undefined || isNewer(theirs, mine);
    });
    if (window.answer) return;
    const isWhole = window.from === '' && window.until === '';
    if (behind) this.#sendDigest(from, true);
    else if (deltas.length === 0 && isWhole && !this.#exchanged) {
      this.#exchanged = true;
      exchange(from);
    }
  }

  /** What the node that has `theirs` lacks, of the records in `range`. */
  #lackedBy(
    theirs: readonly RecordVersion[],
    range: { readonly from: string; readonly until: string } = { from: '', until: '' },
  ): Delta[] {
    const { table } = this.#parts;
    const known = new Map(theirs.map((version) => [version.node, version]));
    const deltas: Delta[] = [];
    for (const { node } of table.digest()) {
      if (node < range.from || (range.until !== '' && node >= range.until)) continue;
      const delta = table.deltaFor(node, known.get(node));
      if (delta !== undefined) deltas.push(delta);
    }
    return deltas;
  }

  /** As many of `deltas` as fit: the others are found lacking again. */
  #encodeState(deltas: readonly Delta[]): Uint8Array {
    const versions = this.#parts.table.digest();
    const bytes = encodeState({ versions, deltas });
    if (bytes.length <= STATE_BYTES_MAX || deltas.length === 0) return bytes;
    return this.#encodeState(deltas.slice(0, deltas.length >> 1));
  }
}
