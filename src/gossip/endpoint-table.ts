import type { Json } from '../core/store.ts';
import type { Endpoint, EndpointChange } from './effects.ts';
import { checkEndpoint, EndpointError } from './endpoint-limits.ts';
import {
  type ApplyResult,
  type Delta,
  EndpointRecord,
  type EntryContent,
  RECORD_ENTRIES_MAX,
} from './endpoint-record.ts';
import { fnv1a } from './fnv1a.ts';

/** All records together, as {@link EndpointRecord.bytes} counts; past it deltas are dropped. */
export const TABLE_BYTES_MAX: number = 16 * 1_024 * 1_024;

/** What the membership protocol thinks of a record's owner. */
export type OwnerState = 'live' | 'failed' | 'left';

/** What a node has of one record. A higher generation, then a higher version, is newer. */
export interface RecordVersion {
  readonly node: string;
  readonly generation: number;
  readonly version: number;
}

/** What {@link EndpointTable.apply} did. */
export interface TableApplied {
  readonly result: ApplyResult;
  /** Whether anything in it was not known: others may not know it either. */
  readonly news: boolean;
  /** What became different in what is visible. */
  readonly change?: EndpointChange;
}

const NOTHING_NEW: TableApplied = { result: 'stale', news: false };

/** How long records outlive their owners, and deletions their entries. */
export interface TableTuning {
  readonly tombstoneMs: number;
  readonly departedRecordMs: number;
  readonly reconnectTimeoutMs: number;
  /** Records kept at once. */
  readonly membersMax: number;
}

/**
 * The endpoints of all nodes: this node's record, which it alone writes, and copies of the others'.
 * A record is visible while its owner is a live member. BOUNDED by `membersMax` records and
 * {@link TABLE_BYTES_MAX}.
 */
export class EndpointTable {
  readonly #tuning: TableTuning;
  readonly #own: EndpointRecord;
  readonly #records = new Map<string, EndpointRecord>();
  /** Members with or without a record. BOUNDED by the membership protocol's own bound. */
  readonly #owners = new Map<string, { readonly state: OwnerState; readonly sinceMs: number }>();
  #nowMs: number;
  #bytes = 0;
  /** Undefined when something changed since it was computed. */
  #summary: string | undefined;

  /** @param generation - Larger than in every earlier life of this node: a start time will do. */
  constructor(node: string, generation: number, tuning: TableTuning, nowMs: number) {
    this.#tuning = tuning;
    this.#nowMs = nowMs;
    this.#own = new EndpointRecord(node, generation, nowMs);
    // Version 1 is the empty record: it replaces what others hold of an earlier life.
    this.#own.version = 1;
    this.#records.set(node, this.#own);
    this.#owners.set(node, { state: 'live', sinceMs: nowMs });
  }

  /** This node's record. */
  get ownVersion(): RecordVersion {
    return versionOf(this.#own);
  }

  /**
   * Sets an endpoint of this node; other nodes learn it within a few gossip intervals.
   *
   * @returns false if it had that value already
   * @throws {EndpointError} if the key, the value or the record would be too large
   */
  setLocal(key: string, value: Json): boolean {
    const text = JSON.stringify(value);
    checkEndpoint(key, text);
    const known = this.#own.get(key);
    if (known?.text === text) return false;
    if (known === undefined && this.#own.entryCount >= RECORD_ENTRIES_MAX) {
      throw new EndpointError(
        `Cannot add endpoint ${JSON.stringify(key)}: this node has ${RECORD_ENTRIES_MAX} entries`,
        { code: 'RECORD_FULL', entriesMax: RECORD_ENTRIES_MAX },
      );
    }
    // What others get is what was said now, not what the caller makes of the object later.
    this.#write(key, { text, value: JSON.parse(text) });
    return true;
  }

  /** @returns false if there was no such endpoint */
  deleteLocal(key: string): boolean {
    if (this.#own.get(key) === undefined) return false;
    this.#write(key, undefined);
    return true;
  }

  /** The endpoints of live nodes, this one included. */
  *visible(): Iterable<Endpoint & { readonly node: string }> {
    for (const record of this.#records.values()) {
      if (!this.#isLive(record.node)) continue;
      for (const { key, content } of record.live()) {
        yield { node: record.node, key, value: content.value };
      }
    }
  }

  /** Hides or shows what `node` has; undefined if nothing visible changed. */
  setOwner(node: string, state: OwnerState, nowMs: number): EndpointChange | undefined {
    const wasLive = this.#isLive(node);
    if (this.#owners.get(node)?.state === state) return undefined;
    this.#owners.set(node, { state, sinceMs: nowMs });
    this.#summary = undefined;
    const record = this.#records.get(node);
    if (record === undefined || wasLive === (state === 'live')) return undefined;
    const entries = [...record.live()];
    if (entries.length === 0) return undefined;
    if (wasLive) return { node, added: [], changed: [], removed: entries.map(({ key }) => key) };
    const added = entries.map(({ key, content }) => ({ key, value: content.value }));
    return { node, added, changed: [], removed: [] };
  }

  /** Merges a copy of another node's changes. */
  apply(delta: Delta, nowMs: number): TableApplied {
    let record = this.#records.get(delta.node);
    if (record === this.#own) return NOTHING_NEW;
    if (record !== undefined && delta.generation < record.generation) return NOTHING_NEW;
    if (this.#bytes + deltaBytes(delta) > TABLE_BYTES_MAX) return { result: 'full', news: false };
    const touched = new Map<string, EntryContent>();
    if (record === undefined || delta.generation > record.generation) {
      // What came before is needed first: the start of a record tells its generation.
      if (delta.since > 0) return { result: 'gap', news: false };
      const full = record === undefined && this.#records.size >= this.#tuning.membersMax;
      if (full || delta.entries.length > RECORD_ENTRIES_MAX) return { result: 'full', news: false };
      for (const { key, content } of record?.live() ?? []) touched.set(key, content);
      this.#bytes -= record?.bytes ?? 0;
      record = new EndpointRecord(delta.node, delta.generation, nowMs);
      this.#records.set(delta.node, record);
    }
    const before = new Map(touched);
    this.#bytes -= record.bytes;
    const result = record.apply(delta, nowMs, touched);
    this.#bytes += record.bytes;
    this.#summary = undefined;
    for (const [key, content] of before) touched.set(key, content);
    const news = result === 'applied' || (result === 'gap' && touched.size > 0);
    const change = this.#isLive(delta.node) ? changeOf(record, touched) : undefined;
    return { result, news, ...(change && { change }) };
  }

  /**
   * Makes this node's record newer than `claimed`: what others hold of it from a life that had a
   * generation as high as this one's (a clock that was set back, say).
   *
   * @returns whether it was needed
   */
  outbid(claimed: RecordVersion): boolean {
    if (claimed.node !== this.#own.node || !isNewer(claimed, this.#own)) return false;
    if (claimed.generation >= Number.MAX_SAFE_INTEGER) return false;
    this.#own.generation = claimed.generation + 1;
    this.#summary = undefined;
    return true;
  }

  /** What of `node`'s record a copy at `theirs` lacks; undefined if nothing or it is hidden. */
  deltaFor(node: string, theirs: RecordVersion | undefined): Delta | undefined {
    const record = this.#records.get(node);
    if (record === undefined || !this.#isLive(node)) return undefined;
    if (theirs !== undefined && !isNewer(record, theirs)) return undefined;
    const sameLife = theirs?.generation === record.generation;
    const delta = record.deltaSince(sameLife ? theirs.version : 0);
    return delta.version > delta.since ? delta : undefined;
  }

  /** What this node has, hidden records included, by node name. */
  digest(): RecordVersion[] {
    const versions = [...this.#records.values()].map(versionOf);
    return versions.sort((a, b) => (a.node < b.node ? -1 : 1));
  }

  versionOf(node: string): RecordVersion | undefined {
    const record = this.#records.get(node);
    return record && versionOf(record);
  }

  /** Equal on nodes that see the same members and have the same records of them. */
  summary(): string {
    this.#summary ??= this.#computeSummary();
    return this.#summary;
  }

  /** Forgets old deletions, and the records of nodes that are gone for long. */
  collect(nowMs: number): void {
    const { tombstoneMs, departedRecordMs, reconnectTimeoutMs } = this.#tuning;
    this.#nowMs = nowMs;
    for (const [node, { state, sinceMs }] of this.#owners) {
      const keepMs = state === 'failed' ? reconnectTimeoutMs : departedRecordMs;
      if (state === 'live' || nowMs - sinceMs <= keepMs) continue;
      this.#owners.delete(node);
      this.#forget(node);
    }
    for (const record of this.#records.values()) {
      const { node, createdMs } = record;
      if (!this.#owners.has(node) && nowMs - createdMs > departedRecordMs) this.#forget(node);
      this.#bytes -= record.bytes;
      record.forgetDeletions(nowMs - tombstoneMs);
      this.#bytes += record.bytes;
    }
  }

  #write(key: string, content: EntryContent): void {
    this.#bytes -= this.#own.bytes;
    this.#own.write(key, content, this.#nowMs);
    this.#bytes += this.#own.bytes;
    this.#summary = undefined;
  }

  #forget(node: string): void {
    const record = this.#records.get(node);
    if (record === undefined || record === this.#own) return;
    this.#bytes -= record.bytes;
    this.#records.delete(node);
  }

  #isLive(node: string): boolean {
    return this.#owners.get(node)?.state === 'live';
  }

  /** The sum of 64 bits per record: order does not matter. */
  #computeSummary(): string {
    let high = 0;
    let low = 0;
    for (const { node, generation, version } of this.#records.values()) {
      if (!this.#isLive(node)) continue;
      const text = `${generation}/${version}/${node}`;
      high = (high + fnv1a(text, 1)) >>> 0;
      low = (low + fnv1a(text, 2)) >>> 0;
    }
    return high.toString(16).padStart(8, '0') + low.toString(16).padStart(8, '0');
  }
}

/** Whether `a` is newer than `b`, both of one node. */
export function isNewer(a: Omit<RecordVersion, 'node'>, b: Omit<RecordVersion, 'node'>): boolean {
  return a.generation > b.generation || (a.generation === b.generation && a.version > b.version);
}

function versionOf({ node, generation, version }: EndpointRecord): RecordVersion {
  return { node, generation, version };
}

function deltaBytes(delta: Delta): number {
  return delta.entries.reduce(
    (sum, { key, content }) => sum + key.length + (content?.text.length ?? 0),
    0,
  );
}

function changeOf(
  record: EndpointRecord,
  touched: ReadonlyMap<string, EntryContent>,
): EndpointChange | undefined {
  const added: Endpoint[] = [];
  const changed: Endpoint[] = [];
  const removed: string[] = [];
  for (const [key, before] of touched) {
    const after = record.get(key);
    if (before?.text === after?.text) continue;
    if (after === undefined) removed.push(key);
    else (before === undefined ? added : changed).push({ key, value: after.value });
  }
  const count = added.length + changed.length + removed.length;
  return count === 0 ? undefined : { node: record.node, added, changed, removed };
}
