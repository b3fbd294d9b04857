import { invariant } from '../core/invariant.ts';
import type { Json } from '../core/store.ts';
import type { Endpoint, EndpointChange } from './effects.ts';
import { changeOf, visibilityChange } from './endpoint-change.ts';
import { type Delta, deltaBytes, type EntryContent } from './endpoint-delta.ts';
import { checkEndpoint, checkRoom, TABLE_BYTES_MAX } from './endpoint-limits.ts';
import { type ApplyResult, EndpointRecord, RECORD_ENTRIES_MAX } from './endpoint-record.ts';
import type { EndpointTree } from './endpoint-tree.ts';
import { type OwnerState, RecordStore } from './record-store.ts';
import { isNewer, type RecordVersion, versionOf } from './record-version.ts';

/** Of the records that may be kept, one in so many may have come before news of its owner. */
const UNKNOWN_SHARE = 4;

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

/**
 * The endpoints of all nodes: this node's record, which it alone writes, and copies of the others'.
 * A record is visible while its owner is a live member. BOUNDED by `membersMax` records and
 * {@link TABLE_BYTES_MAX}.
 */
export class EndpointTable {
  readonly #parts: TableParts;
  readonly #node: string;
  readonly #store = new RecordStore();
  #nowMs: number;

  /** @param generation - Larger than in every earlier life of this node: a start time will do. */
  constructor(node: string, generation: number, parts: TableParts, nowMs: number) {
    this.#parts = parts;
    this.#node = node;
    this.#nowMs = nowMs;
    const own = new EndpointRecord(node, generation);
    // Version 1 is the empty record: it replaces what others hold of an earlier life.
    own.version = 1;
    this.#store.setOwner(node, 'live', nowMs);
    this.#store.put(own, nowMs);
  }

  /** This node's record. */
  get ownVersion(): RecordVersion {
    return versionOf(this.#own);
  }

  /** Records that are kept, this node's included. */
  get recordCount(): number {
    return this.#store.recordCount;
  }

  /** Names that are kept: of owners that live, and of all records. */
  get ownerCount(): number {
    return this.#store.nameCount;
  }

  /** Memory of all records, roughly. */
  get bytes(): number {
    return this.#store.bytes;
  }

  /** Sums of all visible records, to compare with those of other nodes. */
  get tree(): Pick<EndpointTree, 'root' | 'branches' | 'leaves'> {
    return this.#store.tree;
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
    if (this.#own.get(key) === text) return false;
    checkRoom(this.#own, key, text);
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
    const record = this.#store.setOwner(node, state, nowMs);
    return record && visibilityChange(record, state === 'live');
  }

  /** Merges a copy of another node's changes. */
  apply(delta: Delta, nowMs: number): TableApplied {
    if (delta.node === this.#node) return NOTHING_NEW;
    const known = this.#store.get(delta.node);
    if (known !== undefined && delta.generation < known.generation) return NOTHING_NEW;
    if (this.#store.bytes + deltaBytes(delta) > TABLE_BYTES_MAX) return NO_ROOM;
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
    this.#store.take(delta.node);
    const result = record.apply(delta, nowMs, touched);
    this.#keep(record, nowMs);
    for (const [key, content] of before) touched.set(key, content);
    const news = result === 'applied' || (result === 'gap' && touched.size > 0);
    const change = this.isLive(delta.node) ? changeOf(record, touched, delta) : undefined;
    const isUpdate = result === 'applied' && known !== undefined;
    return { result, news, isUpdate, ...(change && { change }) };
  }

  /** The records that are visible. Only to be read. */
  records(): Iterable<EndpointRecord> {
    return this.#store.visible();
  }

  /** Starts with `records`, of owners that live: as if all had been heard before. */
  restore(records: Iterable<EndpointRecord>, nowMs: number): void {
    for (const record of records) {
      if (record.node === this.#node || this.#store.get(record.node) !== undefined) continue;
      this.#store.setOwner(record.node, 'live', nowMs);
      this.#keep(record, nowMs);
    }
  }

  /** Starts with what `other` has, this node's own record included. */
  adopt(other: EndpointTable): void {
    this.#store.adopt(other.#store);
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
    const record = this.#store.get(node);
    if (record === undefined || !this.isLive(node)) return undefined;
    if (theirs !== undefined && !isNewer(record, theirs)) return undefined;
    const sameLife = theirs?.generation === record.generation;
    const delta = record.deltaSince(sameLife ? theirs.version : 0, fullUntil);
    return delta.version > delta.since ? delta : undefined;
  }

  /** What this node has, hidden records included, by node name. */
  digest(): RecordVersion[] {
    const versions = [...this.#store.all()].map(versionOf);
    return versions.sort((a, b) => (a.node < b.node ? -1 : 1));
  }

  /**
   * Versions of the records in leaves [`first`, `last`), hidden ones included, in the order of leaves,
   * then of names.
   */
  versionsIn(first: number, last: number): (RecordVersion & { readonly leaf: number })[] {
    const found: (RecordVersion & { readonly leaf: number })[] = [];
    for (const record of this.#store.all()) {
      const { leaf } = record.fingerprint;
      if (leaf >= first && leaf < last) found.push({ ...versionOf(record), leaf });
    }
    return found.sort((a, b) => a.leaf - b.leaf || (a.node < b.node ? -1 : 1));
  }

  versionOf(node: string): RecordVersion | undefined {
    const record = this.#store.get(node);
    return record && versionOf(record);
  }

  /** Whether what `node` has is visible: it is known as a live member. */
  isLive(node: string): boolean {
    return this.#store.isLive(node);
  }

  /** Equal on nodes that see the same members and have the same records of them. */
  summary(): string {
    return this.#store.tree.root;
  }

  /** Forgets old deletions, and the records of nodes that are gone for long. */
  collect(nowMs: number): void {
    const { tombstoneMs, departedRecordMs, reconnectTimeoutMs } = this.#parts.tuning;
    this.#nowMs = nowMs;
    const keepMs = {
      failed: reconnectTimeoutMs,
      left: departedRecordMs,
      unknown: departedRecordMs,
    };
    this.#store.forgetAbsent(keepMs, nowMs);
    const beforeMs = nowMs - tombstoneMs;
    for (const record of this.#store.withDeletions()) {
      if (!record.hasOldDeletions(beforeMs)) continue;
      const kept = record.isShared ? record.clone() : record;
      this.#store.take(record.node);
      kept.forgetDeletions(beforeMs);
      this.#keep(kept, nowMs);
    }
  }

  /** Names that nobody has heard of leave room for the records of members. */
  #hasRoomFor(node: string): boolean {
    const { membersMax } = this.#parts.tuning;
    if (this.#store.recordCount >= membersMax) return false;
    if (this.isLive(node)) return true;
    return this.#store.unknownCount < membersMax / UNKNOWN_SHARE;
  }

  get #own(): EndpointRecord {
    const own = this.#store.get(this.#node);
    invariant(own !== undefined, 'a node has a record of its own');
    return own;
  }

  #write(key: string, content: EntryContent): void {
    const atMs = Math.floor(this.#parts.epochMs?.() ?? 0);
    this.#changeOwn((record) => record.write(key, content, this.#nowMs, atMs));
  }

  #changeOwn(change: (record: EndpointRecord) => void): void {
    const known = this.#own;
    this.#store.take(this.#node);
    const own = known.isShared ? known.clone() : known;
    change(own);
    this.#keep(own, this.#nowMs);
  }

  /** Puts a record in, or the object that all share who say the same. */
  #keep(record: EndpointRecord, nowMs: number): void {
    const { share } = this.#parts;
    this.#store.put(share !== undefined && record.isWhole ? share(record) : record, nowMs);
  }
}
