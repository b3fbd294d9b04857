import type { Random } from '../core/capabilities.ts';
import type { Outbox } from './effects.ts';
import type { Delta } from './endpoint-delta.ts';
import { encodeEndpointMessage } from './endpoint-encoder.ts';
import {
  ALL_LEAVES,
  type DigestWindow,
  type EndpointMessage,
  type LeafRange,
  type SeenVersion,
} from './endpoint-messages.ts';
import { encodeDeltas, packDigests, packWindows } from './endpoint-packing.ts';
import type { EndpointTable } from './endpoint-table.ts';
import { differingSums, leafOf, TREE_FANOUT } from './endpoint-tree.ts';
import type { PeerAddress } from './peer-address.ts';
import { isNewer, type RecordVersion } from './record-version.ts';

/** Packets that answer one digest; what does not fit goes by TCP. */
const REPAIR_PACKETS_MAX = 8;
/** Digests, and sums of leaves, that answer one message. */
const DIGESTS_MAX = 4;
/** A node with more records compares sums before it lists what it has. */
const WHOLE_DIGEST_RECORDS_MAX = 64;
/**
 * Comparisons that are taken on between two summaries, and packets that answer them, together. Some
 * ten nodes compare with one in that time, at some ten packets each; who sends more, in whatever
 * name, gets no more out of this node.
 */
const ANSWERS_MAX = 512;
/** Members that are told of between two summaries. */
const TOLD_MAX = 64;

/** What {@link EndpointComparison} needs of its surroundings. */
export interface ComparisonParts {
  readonly random: Random;
  readonly table: EndpointTable;
  readonly outbox: Outbox;
  /** Largest user message that fits in a packet. */
  readonly messageBytesMax: number;
  /** Sends encoded user messages, a packet each. */
  readonly send: (to: PeerAddress, messages: readonly Uint8Array[]) => void;
  /** Sends what this node thinks of the member `node`. */
  readonly tellOf: (to: PeerAddress, node: string) => void;
  /** Whether a live member has this address: what is sent elsewhere may hit whoever never asked. */
  readonly isPeer: (peer: PeerAddress) => boolean;
  /** Fetches by stream what `from` has in `range`. */
  readonly pull: (from: PeerAddress, range: LeafRange, nowMs: number) => void;
}

/** What two nodes say to find in what their tables differ. */
export type ComparisonMessage = Extract<
  EndpointMessage,
  { readonly kind: 'summary' | 'branches' | 'leaves' | 'digest' }
>;

/**
 * Finds in what the tables of two nodes differ: every node sends a 'summary' of all it has to random
 * members, about once a second. One with another summary answers with the sums of its tree's
 * branches, and both go down to the leaves in which they differ ('branches', 'leaves'); few records
 * are listed at once. Of these they list what they have ('digest'), and what the other lacks goes
 * out as 'repair' deltas; if that is much, the other is told that it is 'behind'. Where both have
 * the same and yet their sums differ, they disagree on who lives, and tell each other of these
 * members.
 */
export class EndpointComparison {
  readonly #parts: ComparisonParts;
  /** Members that were told of since the last summary. */
  #told = 0;
  #answersLeft = ANSWERS_MAX;
  #mismatches = 0;

  constructor(parts: ComparisonParts) {
    this.#parts = parts;
  }

  /** Summaries of other nodes that differed from this node's. */
  get mismatches(): number {
    return this.#mismatches;
  }

  /** Sends the summary of all records to `peers`; others may be answered anew from now on. */
  start(peers: readonly PeerAddress[]): void {
    this.#told = 0;
    const summary = this.#parts.table.summary();
    for (const peer of peers) this.#send(peer, { kind: 'summary', summary });
    this.#answersLeft = ANSWERS_MAX;
  }

  /** Answers what another node says of its table, if it differs. */
  receive(message: ComparisonMessage, from: PeerAddress, nowMs: number): void {
    if (message.kind === 'summary' && message.summary === this.#parts.table.summary()) return;
    if (!this.#mayAnswer()) return;
    switch (message.kind) {
      case 'summary':
        this.#compare(from);
        return;
      case 'branches':
        this.#compareBranches(message.sums, from);
        return;
      case 'leaves':
        this.#compareLeaves(message.branch, message.sums, from, nowMs);
        return;
      case 'digest':
        this.#answerDigest(message.windows, message.answer, from, nowMs);
    }
  }

  /** Tells `from` what is here of some leaves, to be sent what is not; pulls that if it is much. */
  askFor(from: PeerAddress, leaves: readonly number[], nowMs: number): void {
    const wanted = new Set(leaves);
    const whole = { first: Math.min(...wanted), last: Math.max(...wanted) + 1 };
    const versions = this.#seenIn(whole).filter(({ leaf }) => wanted.has(leaf));
    const byLeaf = Map.groupBy(versions, ({ leaf }) => leaf);
    const windows: DigestWindow[] = [];
    for (const first of wanted) {
      const range = { first, last: first + 1 };
      const inside = byLeaf.get(first) ?? [];
      const { windows: packed, rest } = packWindows(range, inside, this.#parts.messageBytesMax, 1);
      if (rest === undefined) windows.push(...packed);
      else this.#parts.pull(from, range, nowMs);
    }
    const all = this.#sendDigests(from, windows, true);
    if (!all) this.#parts.pull(from, whole, nowMs);
  }

  #mayAnswer(): boolean {
    if (this.#answersLeft <= 0) {
      this.#parts.outbox.count('endpoint_answers_full');
      return false;
    }
    this.#answersLeft--;
    return true;
  }

  #compare(from: PeerAddress): void {
    const { table } = this.#parts;
    this.#mismatches++;
    if (table.recordCount <= WHOLE_DIGEST_RECORDS_MAX) {
      const versions = this.#seenIn(ALL_LEAVES);
      const { windows, rest } = packWindows(ALL_LEAVES, versions, this.#parts.messageBytesMax, 1);
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
      const packed = packWindows(range, versions, this.#parts.messageBytesMax, DIGESTS_MAX);
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
      const packed = packWindows(range, inside, this.#parts.messageBytesMax, 1);
      windows.push(...packed.windows);
      if (packed.rest === undefined) continue;
      // More names than a packet lists: each side fetches what it lacks.
      this.#send(from, { kind: 'behind', ...range });
      this.#parts.pull(from, range, nowMs);
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
    if (!isAnswer && leaves.length > 0) this.askFor(from, leaves, nowMs);
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
      const part = encodeDeltas(delta, 'repair', this.#parts.messageBytesMax, room);
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
    const digests = packDigests(windows, this.#parts.messageBytesMax);
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
