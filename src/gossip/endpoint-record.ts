import type { Json } from '../core/store.ts';

/** Entries of one record, deletions that are still remembered included. Our own bound. */
export const RECORD_ENTRIES_MAX = 16_384;
/** Version ranges that may be known ahead of a gap; more are fetched again. */
const AHEAD_MAX = 16;
/** What an entry costs in memory besides its text, roughly. */
const ENTRY_OVERHEAD_BYTES = 64;

/** What an entry says: JSON text with its value, or nothing for a deletion ("tombstone"). */
export type EntryContent = { readonly text: string; readonly value: Json } | undefined;

/** One entry as it travels. */
export interface DeltaEntry {
  readonly key: string;
  /** The record's version when this entry last changed. */
  readonly version: number;
  readonly content: EntryContent;
}

/**
 * The changes of one node's record after version `since`, up to `version`: every entry whose
 * version is in that range, and its latest state only.
 */
export interface Delta {
  readonly node: string;
  readonly generation: number;
  readonly since: number;
  readonly version: number;
  /** Deletions in the range may be missing: what is not listed in the range does not exist. */
  readonly full: boolean;
  /** In the order of versions. */
  readonly entries: readonly DeltaEntry[];
}

interface Entry extends DeltaEntry {
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
  readonly createdMs: number;
  generation: number;
  /** All changes up to here are known. */
  version = 0;
  /** Deletions at or below this version have been forgotten. */
  #floor = 0;
  /** Ranges above `version` that are known. BOUNDED by {@link AHEAD_MAX}. */
  #ahead: { readonly since: number; readonly version: number }[] = [];
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;

  constructor(node: string, generation: number, nowMs: number) {
    this.node = node;
    this.generation = generation;
    this.createdMs = nowMs;
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
  *live(): Iterable<{ readonly key: string; readonly content: NonNullable<EntryContent> }> {
    for (const { key, content } of this.#entries.values()) {
      if (content !== undefined) yield { key, content };
    }
  }

  /** A change by the owner. */
  write(key: string, content: EntryContent, nowMs: number): void {
    this.version++;
    this.#put({ key, content, version: this.version, changedMs: nowMs });
  }

  /**
   * Merges changes of the same generation. Order does not matter: each entry has its version.
   *
   * @param touched - Gets the content before the change of each key that changed.
   */
  apply(delta: Delta, nowMs: number, touched: Map<string, EntryContent>): ApplyResult {
    const known = this.version;
    if (delta.version <= known && !delta.full) return 'stale';
    if (this.#entries.size + delta.entries.length > RECORD_ENTRIES_MAX) return 'full';
    for (const entry of delta.entries) {
      const held = this.#entries.get(entry.key);
      // Up to `known` all is known: an entry that is not held was deleted, and that is forgotten.
      if (entry.version <= Math.max(known, held?.version ?? 0)) continue;
      touched.set(entry.key, held?.content);
      this.#put({ ...entry, changedMs: nowMs });
    }
    if (delta.full) this.#dropUnlisted(delta, touched);
    if (delta.since > this.version) {
      this.#noteAhead(delta);
      return 'gap';
    }
    this.version = Math.max(known, delta.version);
    this.#closeGaps();
    return this.version > known || touched.size > 0 ? 'applied' : 'stale';
  }

  /**
   * What a copy at version `copied` of this generation lacks: all there is, if the copy may hold
   * what was deleted so long ago that the deletion is forgotten.
   */
  deltaSince(copied: number): Delta {
    const full = copied < this.#floor;
    const since = full ? 0 : copied;
    const entries = [...this.#entries.values()]
      .filter(({ version }) => version > since && version <= this.version)
      .sort((a, b) => a.version - b.version)
      .map(({ key, version, content }) => ({ key, version, content }));
    const { node, generation, version } = this;
    return { node, generation, since, version, full, entries };
  }

  /** Forgets deletions from before `beforeMs`. */
  forgetDeletions(beforeMs: number): void {
    for (const { key, version, content, changedMs } of this.#entries.values()) {
      // Above `version` there are gaps, in which a deletion may still be needed.
      if (content !== undefined || changedMs >= beforeMs || version > this.version) continue;
      this.#remove(key);
      this.#floor = Math.max(this.#floor, version);
    }
  }

  #put(entry: Entry): void {
    this.#remove(entry.key);
    this.#entries.set(entry.key, entry);
    this.#bytes += entryBytes(entry);
  }

  #remove(key: string): void {
    const known = this.#entries.get(key);
    if (known === undefined) return;
    this.#bytes -= entryBytes(known);
    this.#entries.delete(key);
  }

  #dropUnlisted(delta: Delta, touched: Map<string, EntryContent>): void {
    const listed = new Set(delta.entries.map(({ key }) => key));
    for (const { key, version, content } of this.#entries.values()) {
      if (version <= delta.since || version > delta.version || listed.has(key)) continue;
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

function entryBytes({ key, content }: DeltaEntry): number {
  return key.length + (content?.text.length ?? 0) + ENTRY_OVERHEAD_BYTES;
}
