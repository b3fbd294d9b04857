/** What a node has of one record. A higher generation, then a higher version, is newer. */
export interface RecordVersion {
  readonly node: string;
  readonly generation: number;
  readonly version: number;
}

/** Whether `a` is newer than `b`, both of one node. */
export function isNewer(a: Omit<RecordVersion, 'node'>, b: Omit<RecordVersion, 'node'>): boolean {
  return a.generation > b.generation || (a.generation === b.generation && a.version > b.version);
}

/** The version that a record, or a copy of it, has now. */
export function versionOf({ node, generation, version }: RecordVersion): RecordVersion {
  return { node, generation, version };
}
