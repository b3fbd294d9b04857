import { decodeEndpointMessage } from './endpoint-decoder.ts';
import type { Delta } from './endpoint-delta.ts';
import { encodeEndpointPayload } from './endpoint-encoder.ts';
import type { LeafRange, PullRequest, Resume } from './endpoint-messages.ts';
import { cutDelta } from './endpoint-packing.ts';
import type { EndpointTable } from './endpoint-table.ts';
import { formatPeer, type PeerAddress } from './peer-address.ts';

/** Nodes that are pulled from at once. */
const PULLS_MAX = 2;
/** Versions that one request lists: it says what is lacking of as many records. */
const REQUEST_VERSIONS_MAX = 2_000;
/** An answer has no more deltas than fill this; one entry more if need be. */
const ANSWER_BYTES_MAX = 256 * 1_024;
/** Answers without news that may follow each other: parts of a large record, of which all was known. */
const IDLE_MAX = 1_024;

/** What {@link EndpointPull} needs of its surroundings. */
export interface EndpointPullParts {
  readonly table: EndpointTable;
  /** How long an answer may take, in milliseconds; then another pull may start. */
  readonly timeoutMs: number;
  /** Sends a payload by stream; the answer to it comes to {@link EndpointPull.answered}. */
  readonly ask: (to: PeerAddress, payload: Uint8Array) => void;
  /** Merges what came. @returns whether any of it was news */
  readonly apply: (delta: Delta, nowMs: number) => boolean;
}

/** One walk over a part of another node's table. */
interface Walk {
  /** What the last request asked for. */
  first: number;
  /** Where the walk ends: sooner once another one has taken over a part of it. */
  last: number;
  untilMs: number;
  /** Answers since the last that brought news. */
  idle: number;
}

/**
 * Fetches by TCP what would not fit in a few packets: all tables when a node is new, a large record, all
 * that changed beyond a partition. One node asks for some leaves of the tree and says what it has of
 * them; the other sends what is lacking, up to a bound, and where to go on. So neither ever holds more
 * than one request and one answer, and a walk that breaks off has lost nothing.
 */
export class EndpointPull {
  readonly #parts: EndpointPullParts;
  /** By peer. BOUNDED by {@link PULLS_MAX}. */
  readonly #walks = new Map<string, Walk>();

  constructor(parts: EndpointPullParts) {
    this.#parts = parts;
  }

  /**
   * Starts to fetch what `to` has in `range`, unless enough is being fetched already. What another walk
   * has yet to fetch is shared with it, or left to it: nothing comes twice.
   */
  start(to: PeerAddress, range: LeafRange, nowMs: number): void {
    for (const [peer, { untilMs }] of this.#walks) if (untilMs <= nowMs) this.#walks.delete(peer);
    const key = formatPeer(to);
    if (this.#walks.has(key) || this.#walks.size >= PULLS_MAX) return;
    const { last } = range;
    let { first } = range;
    for (const other of this.#walks.values()) {
      if (first >= other.last || last <= other.first) continue;
      first = Math.max(first, Math.ceil((other.first + other.last) / 2));
      if (first >= last || last < other.last) return;
      other.last = Math.min(other.last, first);
    }
    const walk = { first, last, untilMs: 0, idle: 0 };
    this.#walks.set(key, walk);
    this.#request(to, walk, undefined, nowMs);
  }

  /**
   * Takes the answer to a request.
   *
   * @returns false if it is none
   */
  answered(to: PeerAddress, payload: Uint8Array, nowMs: number): boolean {
    const key = formatPeer(to);
    const walk = this.#walks.get(key);
    this.#walks.delete(key);
    const answer = decodeEndpointMessage(payload);
    if (typeof answer === 'string' || answer.kind !== 'pulled') return false;
    let news = false;
    for (const delta of answer.deltas) news = this.#parts.apply(delta, nowMs) || news;
    // It is over, or whoever answers has nothing to say and yet does not end.
    const goesOn = news || answer.resume !== undefined || answer.next > (walk?.first ?? 0);
    if (walk === undefined || answer.next >= walk.last || !goesOn) return true;
    walk.idle = news ? 0 : walk.idle + 1;
    if (walk.idle > IDLE_MAX) return true;
    walk.first = answer.next;
    this.#walks.set(key, walk);
    this.#request(to, walk, answer.resume, nowMs);
    return true;
  }

  /** Nothing came from `to`, and nothing will: another pull may start. */
  unanswered(to: PeerAddress): void {
    this.#walks.delete(formatPeer(to));
  }

  /** What a node that sends `request` lacks. */
  serve({ first, last, versions, resume }: PullRequest): Uint8Array {
    const { table } = this.#parts;
    const known = new Map(versions.map((version) => [version.node, version]));
    const deltas: Delta[] = [];
    const answer = (next: number, more?: Resume): Uint8Array =>
      encodeEndpointPayload({ kind: 'pulled', deltas, next, ...(more && { resume: more }) });
    let room = ANSWER_BYTES_MAX;
    for (const { node, leaf } of table.versionsIn(first, last)) {
      const until = resume?.node === node ? resume.until : 0;
      const delta = table.deltaFor(node, known.get(node), until);
      if (delta === undefined) continue;
      if (room <= 0) return answer(leaf);
      const { part, bytes } = cutDelta(delta, room);
      deltas.push(part);
      room -= bytes;
      if (part.version === delta.version) continue;
      // A full delta says nothing of its progress by the copy's version.
      return answer(leaf, part.full ? { node, until: part.version } : undefined);
    }
    return answer(last);
  }

  #request(to: PeerAddress, walk: Walk, resume: Resume | undefined, nowMs: number): void {
    const { table, timeoutMs, ask } = this.#parts;
    walk.untilMs = nowMs + timeoutMs;
    const { first } = walk;
    const all = table.versionsIn(first, walk.last);
    const last = Math.max(all[REQUEST_VERSIONS_MAX]?.leaf ?? walk.last, first + 1);
    const versions = all
      .filter(({ leaf }) => leaf < last)
      .map(({ node, generation, version }) => {
        return { node, generation, version, isLive: table.isLive(node) };
      });
    const request: PullRequest = { kind: 'pull', first, last, versions, ...(resume && { resume }) };
    ask(to, encodeEndpointPayload(request));
  }
}
