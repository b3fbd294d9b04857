import { invariant } from '../core/invariant.ts';
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
import { EndpointTree } from './endpoint-tree.ts';
import { NameIndex } from './name-index.ts';

/**
 * All records together, as {@link EndpointRecord.bytes} counts; past it deltas are dropped. With what
 * weft announces of a task, 424 bytes, that is 600,000 of them, and resident memory is about as much as
 * is counted: see "A table of 100,000 endpoints" in docs/performance.md.
 */
export const TABLE_BYTES_MAX: number = 256 * 1_024 * 1_024;
/** This node's record, counted likewise: a quarter of what others have room for. Our own bound. */
export const RECORD_BYTES_MAX: number = TABLE_BYTES_MAX / 4;

/** Of the records that may be kept, one in so many may have come before news of its owner. */
const UNKNOWN_SHARE = 4;

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
  /** Whether it brought a record of which an earlier version was known to a newer one. */
  readonly isUpdate: boolean;
  /** What became different in what is visible. */
  readonly change?: EndpointChange;
}

const NOTHING_NEW: TableApplied = { result: 'stale', news: false, isUpdate: false };
const NO_ROOM: TableApplied = { ...NOTHING_NEW, result: 'full' };

/** How long records outlive their owners, and deletions their entries. */
export interface TableTuning {
  readonly tombstoneMs: number;
  readonly departedRecordMs: number;
  readonly reconnectTimeoutMs: number;
  /** Records kept at once. */
  readonly membersMax: number;
}

/** What an {@link EndpointTable} works with. */
export interface TableParts {
  readonly tuning: TableTuning;
  /** Milliseconds since the epoch: when this node changed its record. */
  readonly epochMs?: () => number;
  /** Gives one object for all that say the same of a record; see {@link Sharing}. */
  readonly share?: ((record: EndpointRecord) => EndpointRecord) | undefined;
}

/** Why a record is not visible, and since when. */
interface Absence {
  /** 'unknown': the record has come before news of its owner. */
  state: 'failed' | 'left' | 'unknown';
  sinceMs: number;
}

/**
 * The endpoints of all nodes: this node's record, which it alone writes, and copies of the others'.
 * A record is visible while its owner is a live member. BOUNDED by `membersMax` records and
 * {@link TABLE_BYTES_MAX}.
 */
export class EndpointTable {
  readonly #parts: TableParts;
  readonly #node: string;
  /** Owners, and nodes that a record is kept of. */
  #index = new NameIndex();
  /** By slot. */
  #records: (EndpointRecord | undefined)[] = [];
  /** By slot; owners that live are not in it. */
  readonly #absent = new Map<number, Absence>();
  /** Slots of records that have deletions to be forgotten in time. */
  readonly #withDeletions = new Set<number>();
  /** Sums of the records that are visible. */
  readonly #tree = new EndpointTree();
  #nowMs: number;
  #bytes = 0;
  #count = 1;

  /** @param generation - Larger than in every earlier life of this node: a start time will do. */
  constructor(node: string, generation: number, parts: TableParts, nowMs: number) {
    this.#parts = parts;
    this.#node = node;
    this.#nowMs = nowMs;
    const own = new EndpointRecord(node, generation);
    // Version 1 is the empty record: it replaces what others hold of an earlier life.
    own.version = 1;
    this.#records[this.#index.add(node)] = own;
    this.#tree.add(own.fingerprint);
  }

  /** This node's record. */
  get ownVersion(): RecordVersion {
    return versionOf(this.#own);
  }

  /** Records that are kept, this node's included. */
  get recordCount(): number {
    return this.#count;
  }

  /** Names that are kept: of owners that live, and of all records. */
  get ownerCount(): number {
    return this.#index.size;
  }

  /** Memory of all records, roughly. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Sums of all visible records, to compare with those of other nodes. */
  get tree(): Pick<EndpointTree, 'root' | 'branches' | 'leaves'> {
    return this.#tree;
  }

  /**
   * Sets an endpoint of this node; other nodes learn it within a few gossip intervals.
   *
   * @returns false if it had that value already
   * @throws {EndpointError} if the key, the value or the record would be too large
   */
  setLocal(key: string, value: Json): boolean {
    // What others get is what was said now, not what the caller makes of the object later.
    const text = JSON.stringify(value);
    checkEndpoint(key, text);
    const known = this.#own.get(key);
    if (known === text) return false;
    if (known === undefined && this.#own.entryCount >= RECORD_ENTRIES_MAX) {
      throw new EndpointError(
        `Cannot add endpoint ${JSON.stringify(key)}: this node has ${RECORD_ENTRIES_MAX} entries`,
        { code: 'RECORD_FULL', entriesMax: RECORD_ENTRIES_MAX },
      );
    }
    // Whoever cannot hold it never has the same as the others.
    const grownBytes = key.length + text.length - (known?.length ?? 0);
    if (grownBytes > 0 && this.#own.bytes + grownBytes > RECORD_BYTES_MAX) {
      throw new EndpointError(
        `Cannot set endpoint ${JSON.stringify(key)}: this node has ${this.#own.bytes} bytes of ` +
          `endpoints, expected at most ${RECORD_BYTES_MAX}`,
        { code: 'RECORD_TOO_LARGE', bytesMax: RECORD_BYTES_MAX },
      );
    }
    this.#write(key, text);
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
    for (const record of this.records()) {
      for (const { key, content } of record.live()) {
        yield { node: record.node, key, value: JSON.parse(content) };
      }
    }
  }

  /** Hides or shows what `node` has; undefined if nothing visible changed. */
  setOwner(node: string, state: OwnerState, nowMs: number): EndpointChange | undefined {
    const slot = this.#index.add(node);
    const record = this.#records[slot];
    const absence = this.#absent.get(slot);
    if (record === undefined && state !== 'live') {
      // Nothing to hide; a record that comes yet waits for news of its owner, as any does.
      this.#absent.delete(slot);
      this.#index.delete(node);
      return undefined;
    }
    if (state === 'live') this.#absent.delete(slot);
    else if (absence?.state !== state) this.#absent.set(slot, { state, sinceMs: nowMs });
    const wasLive = absence === undefined;
    if (record === undefined || wasLive === (state === 'live')) return undefined;
    if (wasLive) this.#tree.remove(record.fingerprint);
    else this.#tree.add(record.fingerprint);
    const entries = [...record.live()];
    if (entries.length === 0) return undefined;
    if (wasLive) return { node, added: [], changed: [], removed: entries.map(({ key }) => key) };
    return { node, added: entries.map(endpointOf), changed: [], removed: [] };
  }

  /** Merges a copy of another node's changes. */
  apply(delta: Delta, nowMs: number): TableApplied {
    if (delta.node === this.#node) return NOTHING_NEW;
    const known = this.#recordOf(delta.node);
    if (known !== undefined && delta.generation < known.generation) return NOTHING_NEW;
    if (this.#bytes + deltaBytes(delta) > TABLE_BYTES_MAX) return NO_ROOM;
    const touched = new Map<string, EntryContent>();
    let record = known;
    if (known === undefined || delta.generation > known.generation) {
      // What came before is needed first: the start of a record tells its generation.
      if (delta.since > 0) return { ...NOTHING_NEW, result: 'gap' };
      const full = known === undefined && !this.#hasRoomFor(delta.node);
      if (full || delta.entries.length > RECORD_ENTRIES_MAX) return NO_ROOM;
      for (const { key, content } of known?.live() ?? []) touched.set(key, content);
      record = new EndpointRecord(delta.node, delta.generation);
    } else if (known.isShared) record = known.clone();
    if (record === undefined) return NOTHING_NEW;
    const before = new Map(touched);
    this.#take(delta.node);
    const result = record.apply(delta, nowMs, touched);
    this.#keep(record, nowMs);
    for (const [key, content] of before) touched.set(key, content);
    const news = result === 'applied' || (result === 'gap' && touched.size > 0);
    const change = this.isLive(delta.node) ? changeOf(record, touched, delta) : undefined;
    const isUpdate = result === 'applied' && known !== undefined;
    return { result, news, isUpdate, ...(change && { change }) };
  }

  /** The records that are visible. Only to be read. */
  *records(): Iterable<EndpointRecord> {
    for (const [slot, record] of this.#records.entries()) {
      if (record !== undefined && !this.#absent.has(slot)) yield record;
    }
  }

  /** Starts with `records`, of owners that live: as if all had been heard before. */
  restore(records: Iterable<EndpointRecord>, nowMs: number): void {
    for (const record of records) {
      if (record.node === this.#node || this.#recordOf(record.node) !== undefined) continue;
      this.#absent.delete(this.#index.add(record.node));
      this.#keep(record, nowMs);
    }
  }

  /** Starts with what `other` has, this node's own record included. */
  adopt(other: EndpointTable): void {
    this.#index = other.#index.clone();
    this.#records = other.#records.slice();
    this.#absent.clear();
    for (const [slot, absence] of other.#absent) this.#absent.set(slot, { ...absence });
    this.#tree.adopt(other.#tree);
    this.#withDeletions.clear();
    for (const slot of other.#withDeletions) this.#withDeletions.add(slot);
    this.#bytes = other.#bytes;
    this.#count = other.#count;
  }

  /**
   * Makes this node's record newer than `claimed`: what others hold of it from a life that had a
   * generation as high as this one's (a clock that was set back, say).
   *
   * @returns whether it was needed
   */
  outbid(claimed: RecordVersion): boolean {
    const own = this.#own;
    if (claimed.node !== this.#node || !isNewer(claimed, own)) return false;
    if (claimed.generation >= Number.MAX_SAFE_INTEGER) return false;
    this.#changeOwn((record) => {
      record.generation = claimed.generation + 1;
    });
    return true;
  }

  /**
   * What of `node`'s record a copy at `theirs` lacks; undefined if nothing or it is hidden.
   *
   * @param fullUntil - The copy is being filled by a full delta and has it up to this version.
   */
  deltaFor(node: string, theirs: RecordVersion | undefined, fullUntil = 0): Delta | undefined {
    const record = this.#recordOf(node);
    if (record === undefined || !this.isLive(node)) return undefined;
    if (theirs !== undefined && !isNewer(record, theirs)) return undefined;
    const sameLife = theirs?.generation === record.generation;
    const delta = record.deltaSince(sameLife ? theirs.version : 0, fullUntil);
    return delta.version > delta.since ? delta : undefined;
  }

  /** What this node has, hidden records included, by node name. */
  digest(): RecordVersion[] {
    const versions = [...this.#allRecords()].map(versionOf);
    return versions.sort((a, b) => (a.node < b.node ? -1 : 1));
  }

  /**
   * Versions of the records in leaves [`first`, `last`), hidden ones included, in the order of leaves,
   * then of names.
   */
  versionsIn(first: number, last: number): (RecordVersion & { readonly leaf: number })[] {
    const found: (RecordVersion & { readonly leaf: number })[] = [];
    for (const record of this.#allRecords()) {
      const { leaf } = record.fingerprint;
      if (leaf >= first && leaf < last) found.push({ ...versionOf(record), leaf });
    }
    return found.sort((a, b) => a.leaf - b.leaf || (a.node < b.node ? -1 : 1));
  }

  versionOf(node: string): RecordVersion | undefined {
    const record = this.#recordOf(node);
    return record && versionOf(record);
  }

  /** Whether what `node` has is visible: it is known as a live member. */
  isLive(node: string): boolean {
    const slot = this.#index.get(node);
    return slot !== undefined && !this.#absent.has(slot);
  }

  /** Equal on nodes that see the same members and have the same records of them. */
  summary(): string {
    return this.#tree.root;
  }

  /** Forgets old deletions, and the records of nodes that are gone for long. */
  collect(nowMs: number): void {
    const { tombstoneMs, departedRecordMs, reconnectTimeoutMs } = this.#parts.tuning;
    this.#nowMs = nowMs;
    for (const [slot, { state, sinceMs }] of this.#absent) {
      const keepMs = state === 'failed' ? reconnectTimeoutMs : departedRecordMs;
      const name = this.#index.nameOf(slot);
      if (name === undefined || nowMs - sinceMs <= keepMs) continue;
      this.#take(name);
      this.#absent.delete(slot);
      this.#index.delete(name);
    }
    const beforeMs = nowMs - tombstoneMs;
    for (const slot of [...this.#withDeletions]) {
      const record = this.#records[slot];
      if (record === undefined || !record.hasOldDeletions(beforeMs)) continue;
      const kept = record.isShared ? record.clone() : record;
      this.#take(record.node);
      kept.forgetDeletions(beforeMs);
      this.#keep(kept, nowMs);
    }
  }

  /** Names that nobody has heard of leave room for the records of members. */
  #hasRoomFor(node: string): boolean {
    const { membersMax } = this.#parts.tuning;
    if (this.#count >= membersMax) return false;
    if (this.isLive(node)) return true;
    let unknown = 0;
    for (const { state } of this.#absent.values()) if (state === 'unknown') unknown++;
    return unknown < membersMax / UNKNOWN_SHARE;
  }

  get #own(): EndpointRecord {
    const own = this.#recordOf(this.#node);
    invariant(own !== undefined, 'a node has a record of its own');
    return own;
  }

  #recordOf(node: string): EndpointRecord | undefined {
    const slot = this.#index.get(node);
    return slot === undefined ? undefined : this.#records[slot];
  }

  *#allRecords(): Generator<EndpointRecord, void, undefined> {
    for (const record of this.#records) if (record !== undefined) yield record;
  }

  #write(key: string, content: EntryContent): void {
    const atMs = Math.floor(this.#parts.epochMs?.() ?? 0);
    this.#changeOwn((record) => record.write(key, content, this.#nowMs, atMs));
  }

  #changeOwn(change: (record: EndpointRecord) => void): void {
    const known = this.#own;
    this.#take(this.#node);
    const own = known.isShared ? known.clone() : known;
    change(own);
    this.#keep(own, this.#nowMs);
  }

  /** Puts a record in, which counts from now on. One whose owner is not known waits for news of it. */
  #keep(record: EndpointRecord, nowMs: number): void {
    const { share } = this.#parts;
    const isKnown = this.#index.get(record.node) !== undefined;
    const slot = this.#index.add(record.node);
    if (!isKnown) this.#absent.set(slot, { state: 'unknown', sinceMs: nowMs });
    const kept = share !== undefined && record.isWhole ? share(record) : record;
    this.#records[slot] = kept;
    this.#bytes += kept.bytes;
    this.#count++;
    if (kept.hasDeletions) this.#withDeletions.add(slot);
    if (!this.#absent.has(slot)) this.#tree.add(kept.fingerprint);
  }

  /** Takes a record out, if there is one. */
  #take(node: string): void {
    const slot = this.#index.get(node);
    const record = slot === undefined ? undefined : this.#records[slot];
    if (slot === undefined || record === undefined) return;
    this.#records[slot] = undefined;
    this.#withDeletions.delete(slot);
    this.#bytes -= record.bytes;
    this.#count--;
    if (!this.#absent.has(slot)) this.#tree.remove(record.fingerprint);
  }
}

/** Whether `a` is newer than `b`, both of one node. */
export function isNewer(a: Omit<RecordVersion, 'node'>, b: Omit<RecordVersion, 'node'>): boolean {
  return a.generation > b.generation || (a.generation === b.generation && a.version > b.version);
}

function versionOf({ node, generation, version }: EndpointRecord): RecordVersion {
  return { node, generation, version };
}

function endpointOf({
  key,
  content,
}: {
  readonly key: string;
  readonly content: string;
}): Endpoint {
  return { key, value: JSON.parse(content) };
}

function deltaBytes(delta: Delta): number {
  return delta.entries.reduce(
    (sum, { key, content }) => sum + key.length + (content?.length ?? 0),
    0,
  );
}

function changeOf(
  record: EndpointRecord,
  touched: ReadonlyMap<string, EntryContent>,
  { entries }: Delta,
): EndpointChange | undefined {
  const parsed = new Map(entries.map((entry) => [entry.key, entry]));
  const added: Endpoint[] = [];
  const changed: Endpoint[] = [];
  const removed: string[] = [];
  for (const [key, before] of touched) {
    const content = record.get(key);
    if (before === content) continue;
    if (content === undefined) removed.push(key);
    else {
      const { content: text, value } = parsed.get(key) ?? {};
      const known = text === content && value !== undefined;
      const endpoint = known ? { key, value } : endpointOf({ key, content });
      (before === undefined ? added : changed).push(endpoint);
    }
  }
  const count = added.length + changed.length + removed.length;
  return count === 0 ? undefined : { node: record.node, added, changed, removed };
}
