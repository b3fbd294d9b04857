import type { Json } from '../core/store.ts';

/** What an entry says: JSON text, or nothing for a deletion ("tombstone"). */
export type EntryContent = string | undefined;

/** One entry as it travels. */
export interface DeltaEntry {
  readonly key: string;
  /** The record's version when this entry last changed. */
  readonly version: number;
  readonly content: EntryContent;
  /** What `content` says, if it has been parsed already. Records do not keep it. */
  readonly value?: Json;
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
  /** When the owner changed it to `version`, by its own clock: milliseconds since the epoch; 0 is unknown. */
  readonly atMs: number;
  /** Deletions in the range may be missing: what is not listed in the range does not exist. */
  readonly full: boolean;
  /** In the order of versions. */
  readonly entries: readonly DeltaEntry[];
}

/** Memory of the entries' text, roughly. */
export function deltaBytes(delta: Delta): number {
  return delta.entries.reduce(
    (sum, { key, content }) => sum + key.length + (content?.length ?? 0),
    0,
  );
}
