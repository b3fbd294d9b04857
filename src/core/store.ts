/** A value that survives `JSON.stringify` unchanged. */
export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [key: string]: Json | undefined };

/** One stored value. */
export interface StoreEntry {
  readonly key: string;
  readonly value: Json;
  /** The store's revision at this key's last write (etcd's `mod_revision`). Starts at 1. */
  readonly revision: number;
  /** The store's revision at this key's creation (etcd's `create_revision`). */
  readonly createRevision: number;
}

/** What must be true for a transaction to happen: `revision` 0 means "the key does not exist". */
export interface StoreCondition {
  readonly key: string;
  readonly revision: number;
}

/** One write of a transaction. A key may appear once only in a transaction. */
export type StoreOp =
  | { readonly kind: 'put'; readonly key: string; readonly value: Json }
  | { readonly kind: 'delete'; readonly key: string };

/** All writes of a successful transaction carry the same new `revision`. */
export type StoreResult =
  | { readonly ok: true; readonly revision: number }
  | { readonly ok: false; readonly conflict: string; readonly revision: number };

/** A change as a watcher sees it. `previous` is absent for a creation. */
export type StoreEvent =
  | { readonly kind: 'put'; readonly entry: StoreEntry; readonly previous?: StoreEntry }
  | {
      readonly kind: 'delete';
      readonly key: string;
      readonly revision: number;
      readonly previous: StoreEntry;
    };

/**
 * Durable, linearizable key-value state with compare-and-swap (etcd's model, so that etcd itself can
 * be one). Every implementation passes `test/compliance/store.ts`.
 */
export interface Store {
  get(key: string): Promise<StoreEntry | undefined>;
  /** Entries whose key starts with `prefix`, in key order, read at one `revision`. */
  list(prefix: string): Promise<{ readonly entries: StoreEntry[]; readonly revision: number }>;
  /**
   * Applies all `ops` if every condition holds, else none. Durable on disk when it resolves.
   *
   * @returns `ok: false` with the first `conflict`ing key if a condition did not hold
   */
  transact(conditions: readonly StoreCondition[], ops: readonly StoreOp[]): Promise<StoreResult>;
  /**
   * Calls `onEvents` with the changes of each later transaction under `prefix`, in order, one call
   * per transaction, after it is durable.
   *
   * @returns a function that ends the watch
   */
  watch(prefix: string, onEvents: (events: readonly StoreEvent[]) => void): () => void;
  close(): Promise<void>;
}
