import type {
  Json,
  StoreCondition,
  StoreEntry,
  StoreEvent,
  StoreOp,
  StoreResult,
} from '../../core/store.ts';
import { checkKey } from './keys.ts';

/** An entry as it is kept: text, so that nobody's later change to a value reaches the store. */
export interface StoredEntry {
  readonly key: string;
  /** JSON. */
  readonly text: string;
  readonly revision: number;
  readonly createRevision: number;
}

/** What a transaction is decided on. It must not change before the plan is carried out. */
export interface Snapshot {
  /** The revision of the last transaction; 0 before the first one. */
  readonly revision: number;
  readonly read: (key: string) => StoredEntry | undefined;
}

/** What to do to one key: keep `stored`, or delete the key when there is none. */
export interface PlannedWrite {
  readonly key: string;
  readonly stored: StoredEntry | undefined;
}

/** A transaction that was decided on. `writes` and `events` are empty if it changes nothing. */
export interface TransactionPlan {
  readonly result: StoreResult;
  readonly writes: readonly PlannedWrite[];
  readonly events: readonly StoreEvent[];
}

/** The entry that callers see, with a value of its own. */
export function decodeEntry(stored: StoredEntry): StoreEntry {
  const { key, text, revision, createRevision } = stored;
  return { key, value: JSON.parse(text) as Json, revision, createRevision };
}

/**
 * Decides what a transaction does: the rules of `Store.transact`, for stores that hold text. As in
 * etcd, a transaction that changes nothing (deletes of absent keys) does not raise the revision.
 *
 * @throws {RangeError} if a key is not usable or is written twice
 * @throws {TypeError} if a value cannot be JSON
 */
export function planTransaction(
  snapshot: Snapshot,
  conditions: readonly StoreCondition[],
  ops: readonly StoreOp[],
): TransactionPlan {
  for (const { key } of conditions) checkKey(key);
  checkOps(ops);
  const broken = conditions.find(
    ({ key, revision }) => (snapshot.read(key)?.revision ?? 0) !== revision,
  );
  if (broken !== undefined) {
    const result = { ok: false, conflict: broken.key, revision: snapshot.revision } as const;
    return { result, writes: [], events: [] };
  }
  const writes: PlannedWrite[] = [];
  const events: StoreEvent[] = [];
  const revision = snapshot.revision + 1;
  for (const op of ops) {
    const before = snapshot.read(op.key);
    const previous = before === undefined ? {} : { previous: decodeEntry(before) };
    if (op.kind === 'put') {
      const createRevision = before?.createRevision ?? revision;
      const stored = { key: op.key, text: encode(op.key, op.value), revision, createRevision };
      writes.push({ key: op.key, stored });
      events.push({ kind: 'put', entry: decodeEntry(stored), ...previous });
    } else if (previous.previous !== undefined) {
      writes.push({ key: op.key, stored: undefined });
      events.push({ kind: 'delete', key: op.key, revision, previous: previous.previous });
    }
  }
  const reached = writes.length === 0 ? snapshot.revision : revision;
  return { result: { ok: true, revision: reached }, writes, events };
}

function checkOps(ops: readonly StoreOp[]): void {
  const keys = new Set<string>();
  for (const { key } of ops) {
    checkKey(key);
    if (keys.has(key)) {
      throw new RangeError(
        `Cannot write ${JSON.stringify(key)} twice in a transaction: expected each key once`,
      );
    }
    keys.add(key);
  }
}

function encode(key: string, value: Json): string {
  const text: string | undefined = JSON.stringify(value);
  if (text === undefined) {
    throw new TypeError(
      `Cannot store ${typeof value} under ${JSON.stringify(key)}: expected a JSON value`,
    );
  }
  return text;
}
