import type { Delta, DeltaEntry, EntryContent } from './endpoint-delta.ts';
import { type Fingerprint, leafOf } from './endpoint-tree.ts';
import { fnv1a } from './fnv1a.ts';

/** Entries of one record, deletions that are still remembered included. Our own bound. */
export const RECORD_ENTRIES_MAX = 16_384;
/** Version ranges that may be known ahead of a gap; more are fetched again. */
const AHEAD_MAX = 16;
/** Latest changes by the owner that are known without a look at all entries. */
const RECENT_MAX = 256;
/** What an entry costs in memory besides its text, roughly. */
const ENTRY_OVERHEAD_BYTES = 160;

interface Entry extends Omit<DeltaEntry, 'value'> {
  /** When a deletion came to be known; 0 otherwise, since nothing asks and a fraction takes memory. */
  readonly changedMs: number;
}

/**
 * 'applied': the record is now at `delta.version` or later. 'stale': nothing new. 'gap': changes in
 * front of the delta are missing; those of the delta itself are in. 'full': no room.
 */
export type ApplyResult = 'applied' | 'stale' | 'gap' | 'full';

/**
 * What one node says of its endpoints: a map whose every change has the next `version`. A new life
 * of the node has a higher `generation` and starts over. Only the node itself changes it; all
 * others hold copies, which may be behind. BOUNDED by {@link RECORD_ENTRIES_MAX}.
 */
export class EndpointRecord {
  readonly node: string;
  /** Whether others hold this object, too: then it must not be changed any more. */
  isShared = false;
  #generation: number;
  #version = 0;
  #atMs = 0;
  #fingerprint: Fingerprint | undefined;
  /** Deletions at or below this version have been forgotten. */
  #floor = 0;
  /** Ranges above `version` that are known. BOUNDED by {@link AHEAD_MAX}. */
  #ahead: { readonly since: number; readonly version: number }[] = [];
  readonly #entries = new Map<string, Entry>();
  /** Keys of the latest versions, one each, if the owner made them here. BOUNDED by twice {@link RECENT_MAX}. */
  #recent: string[] = [];
  #bytes = 0;
  /** Entries that are deletions. */
  #deletions = 0;

  constructor(node: string, generation: number) {
    this.node = node;
    this.#generation = generation;
  }

  get generation(): number {
    return this.#generation;
  }

  set generation(generation: number) {
    this.#generation = generation;
    this.#fingerprint = undefined;
  }

  /** All changes up to here are known. */
  get version(): number {
    return this.#version;
  }

  set version(version: number) {
    this.#version = version;
    this.#fingerprint = undefined;
    this.#recent = [];
  }

  /** When the owner last changed what is known of it, by its own clock: see {@link Delta.atMs}. */
  get atMs(): number {
    return this.#atMs;
  }

  /** Whether this copy is what its version says: no change behind a gap is in it. */
  get isWhole(): boolean {
    return this.#ahead.length === 0;
  }

  /** Of the node's name, generation and version: a single writer makes each of them only once. */
  get fingerprint(): Fingerprint {
    this.#fingerprint ??= fingerprintOf(this);
    return this.#fingerprint;
  }

  /** A copy that may be changed. */
  clone(): EndpointRecord {
    const copy = new EndpointRecord(this.node, this.generation);
    copy.#version = this.#version;
    copy.#atMs = this.#atMs;
    copy.#floor = this.#floor;
    copy.#ahead = [...this.#ahead];
    copy.#recent = [...this.#recent];
    for (const [key, entry] of this.#entries) copy.#entries.set(key, entry);
    copy.#bytes = this.#bytes;
    copy.#deletions = this.#deletions;
    return copy;
  }

  /** Memory of the entries, roughly. */
  get bytes(): number {
    return this.#bytes;
  }

  get entryCount(): number {
    return this.#entries.size;
  }

  /** What `key` holds now; undefined if it does not exist. */
  get(key: string): EntryContent {
    return this.#entries.get(key)?.content;
  }

  /** The entries that exist. */
  *live(): Iterable<{ readonly key: string; readonly content: string }> {
    for (const { key, content } of this.#entries.values()) {
      if (content !== undefined) yield { key, content };
    }
  }

  /**
   * A change by the owner.
   *
   * @param atMs - Milliseconds since the epoch.
   */
  write(key: string, content: EntryContent, nowMs: number, atMs = 0): void {
    this.#version++;
    this.#fingerprint = undefined;
    this.#atMs = atMs;
    this.#put({ key, content, version: this.#version }, nowMs);
    this.#recent.push(key);
    if (this.#recent.length >= 2 * RECENT_MAX) this.#recent = this.#recent.slice(-RECENT_MAX);
  }

  /**
   * Merges changes of the same generation. Order does not matter: each entry has its version.
   *
   * @param touched - Gets the content before the change of each key that changed.
   */
  apply(delta: Delta, nowMs: number, touched: Map<string, EntryContent>): ApplyResult {
    const known = this.version;
    if (delta.version <= known && !delta.full) return 'stale';
    if (!this.#hasRoomFor(delta)) return 'full';
    for (const entry of delta.entries) {
      const held = this.#entries.get(entry.key);
      // Up to `known` all is known: an entry that is not held was deleted, and that is forgotten.
      if (entry.version <= Math.max(known, held?.version ?? 0)) continue;
      if (!touched.has(entry.key)) touched.set(entry.key, held?.content);
      this.#put(entry, nowMs);
    }
    if (delta.full) this.#dropUnlisted(delta, touched);
    if (delta.since > this.version) {
      this.#noteAhead(delta);
      return 'gap';
    }
    this.version = Math.max(known, delta.version);
    this.#atMs = Math.max(this.#atMs, delta.atMs);
    this.#closeGaps();
    return this.version > known || touched.size > 0 ? 'applied' : 'stale';
  }

  /**
   * What a copy at version `copied` of this generation lacks: all there is, if the copy may hold
   * what was deleted so long ago that the deletion is forgotten.
   *
   * @param fullUntil - How far the copy has got with such a delta, of which it was sent a part.
   */
  deltaSince(copied: number, fullUntil = 0): Delta {
    const full = copied < this.#floor;
    const since = full ? fullUntil : copied;
    const entries = this.#recentSince(since) ?? this.#since(since);
    const { node, generation, version, atMs } = this;
    return { node, generation, since, version, atMs, full, entries };
  }

  /** What the owner's latest changes left; undefined if they do not go back to `since`. */
  #recentSince(since: number): DeltaEntry[] | undefined {
    const first = this.#version - this.#recent.length;
    if (since < first) return undefined;
    const entries: DeltaEntry[] = [];
    for (let version = since + 1; version <= this.#version; version++) {
      const entry = this.#entries.get(this.#recent[version - first - 1] ?? '');
      if (entry?.version === version) entries.push(bare(entry));
    }
    return entries;
  }

  #since(since: number): DeltaEntry[] {
    const entries: DeltaEntry[] = [];
    for (const entry of this.#entries.values()) {
      if (entry.version > since && entry.version <= this.version) entries.push(bare(entry));
    }
    return entries.sort((a, b) => a.version - b.version);
  }

  get hasDeletions(): boolean {
    return this.#deletions > 0;
  }

  /** @returns whether {@link forgetDeletions} would forget any */
  hasOldDeletions(beforeMs: number): boolean {
    for (const entry of this.#entries.values()) if (this.#isOld(entry, beforeMs)) return true;
    return false;
  }

  /** Forgets deletions from before `beforeMs`. */
  forgetDeletions(beforeMs: number): void {
    for (const entry of this.#entries.values()) {
      if (!this.#isOld(entry, beforeMs)) continue;
      this.#remove(entry.key);
      this.#floor = Math.max(this.#floor, entry.version);
    }
  }

  #isOld({ version, content, changedMs }: Entry, beforeMs: number): boolean {
    // Above `version` there are gaps, in which a deletion may still be needed.
    return content === undefined && changedMs < beforeMs && version <= this.version;
  }

  #put({ key, version, content }: DeltaEntry, nowMs: number): void {
    this.#remove(key);
    const entry = { key, version, content, changedMs: content === undefined ? nowMs : 0 };
    this.#entries.set(key, entry);
    this.#bytes += entryBytes(entry);
    if (content === undefined) this.#deletions++;
  }

  #remove(key: string): void {
    const known = this.#entries.get(key);
    if (known === undefined) return;
    this.#bytes -= entryBytes(known);
    if (known.content === undefined) this.#deletions--;
    this.#entries.delete(key);
  }

  #hasRoomFor(delta: Delta): boolean {
    if (this.#entries.size + delta.entries.length <= RECORD_ENTRIES_MAX) return true;
    const listed = new Set(delta.entries.map(({ key }) => key));
    let kept = listed.size;
    for (const { key, version } of this.#entries.values()) {
      const goes = delta.full && version > delta.since && version <= delta.version;
      if (!goes && !listed.has(key)) kept++;
    }
    return kept <= RECORD_ENTRIES_MAX;
  }

  /** Entries in the range of a full delta that do not exist any more. */
  *#unlisted({ since, version, entries }: Delta): Generator<Entry, void, undefined> {
    const listed = new Set(entries.map(({ key }) => key));
    for (const entry of this.#entries.values()) {
      if (entry.version > since && entry.version <= version && !listed.has(entry.key)) yield entry;
    }
  }

  #dropUnlisted(delta: Delta, touched: Map<string, EntryContent>): void {
    for (const { key, content } of this.#unlisted(delta)) {
      if (!touched.has(key)) touched.set(key, content);
      this.#remove(key);
    }
    this.#floor = Math.max(this.#floor, delta.version);
  }

  #noteAhead({ since, version }: Delta): void {
    if (this.#ahead.some((range) => range.since <= since && range.version >= version)) return;
    this.#ahead.push({ since, version });
    if (this.#ahead.length > AHEAD_MAX) this.#ahead.shift();
  }

  #closeGaps(): void {
    this.#ahead.sort((a, b) => a.since - b.since);
    for (const { since, version } of this.#ahead) {
      if (since <= this.version) this.version = Math.max(this.version, version);
    }
    this.#ahead = this.#ahead.filter((range) => range.version > this.version);
  }
}

function bare({ key, version, content }: Entry): DeltaEntry {
  return { key, version, content };
}

function entryBytes({ key, content }: Entry): number {
  return key.length + (content?.length ?? 0) + ENTRY_OVERHEAD_BYTES;
}

function fingerprintOf({ node, generation, version }: EndpointRecord): Fingerprint {
  const text = `${generation}/${version}/${node}`;
  return { leaf: leafOf(node), high: fnv1a(text, 1), low: fnv1a(text, 2) };
}
