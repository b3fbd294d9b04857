import type { Json, Store, StoreCondition, StoreOp } from '../core/store.ts';
import type { ClusterState, StateView } from './cluster-state.ts';
import { ManagerError } from './errors.ts';
import { type Key, recordKey, type TableName, type Tables, tableOfKey } from './keys.ts';
import type { TaskRecord } from './records.ts';

/** Attempts before a writer gives up on a store that others keep changing. */
const ATTEMPTS_MAX = 10;

/**
 * A transaction in the making: reads see the cache with the transaction's own writes on top. Every
 * key that is read one by one, or written, must still be at the revision seen when it commits. Scans
 * (`all`, `tasksOf…`) are not conditions: they are safe because a manager makes its writes one after
 * the other, each on a cache that has seen the one before.
 */
export class Draft implements StateView {
  readonly #base: ClusterState;
  /** `undefined` for a deleted key. */
  readonly #writes = new Map<string, Json | undefined>();
  readonly #conditions = new Map<string, number>();
  /** Tasks that this draft has put, whether or not they existed: what the indexes do not know. */
  readonly #putTasks = new Map<string, TaskRecord>();

  constructor(base: ClusterState) {
    this.#base = base;
  }

  get<T>(key: Key<T>): T | undefined {
    if (this.#writes.has(key)) return this.#writes.get(key) as T | undefined;
    this.#conditions.set(key, this.#base.revisionOf(key));
    return this.#base.get(key);
  }

  find<N extends TableName>(table: N, id: string): Tables[N] | undefined {
    return this.get(recordKey(table, id) as Key<Tables[N]>);
  }

  *all<N extends TableName>(table: N): Iterable<Tables[N]> {
    const prefix = recordKey(table, '');
    for (const record of this.#base.all(table)) {
      if (!this.#writes.has(prefix + record.id)) yield record;
    }
    for (const [key, value] of this.#writes) {
      if (value !== undefined && key.startsWith(prefix)) yield value as unknown as Tables[N];
    }
  }

  *tasksOfService(serviceId: string): Iterable<TaskRecord> {
    for (const task of this.#base.tasksOfService(serviceId)) {
      if (!this.#writes.has(recordKey('tasks', task.id))) yield task;
    }
    for (const task of this.#putTasks.values()) {
      if (task.serviceId === serviceId) yield task;
    }
  }

  *tasksOfNode(nodeId: string): Iterable<TaskRecord> {
    for (const task of this.#base.tasksOfNode(nodeId)) {
      if (!this.#writes.has(recordKey('tasks', task.id))) yield task;
    }
    for (const task of this.#putTasks.values()) {
      if (task.nodeId === nodeId) yield task;
    }
  }

  /** Sets `key`, whether or not it exists. */
  put<T>(key: Key<T>, value: T): void {
    this.#expectUnchanged(key);
    // Records are plain data; an interface just cannot say so to the type system.
    this.#writes.set(key, value as unknown as Json);
    if (tableOfKey(key) === 'tasks') {
      const task = value as unknown as TaskRecord;
      this.#putTasks.set(task.id, task);
    }
  }

  /** Creates or replaces an object of `table`. */
  save<N extends TableName>(table: N, record: Tables[N]): void {
    this.put(recordKey(table, record.id) as Key<Tables[N]>, record);
  }

  /** Deletes `key`; nothing happens if it does not exist. */
  delete(key: string): void {
    this.#expectUnchanged(key);
    this.#putTasks.delete(key.slice(key.indexOf('/') + 1));
    if (this.#base.revisionOf(key) === 0) this.#writes.delete(key);
    else this.#writes.set(key, undefined);
  }

  /** Deletes the object `id` of `table`. */
  drop(table: TableName, id: string): void {
    this.delete(recordKey(table, id));
  }

  /** The number of keys that this draft changes. */
  get size(): number {
    return this.#writes.size;
  }

  /** What the store must do, and under which conditions. */
  transaction(): { readonly conditions: StoreCondition[]; readonly ops: StoreOp[] } {
    const conditions = Array.from(this.#conditions, ([key, revision]) => ({ key, revision }));
    const ops = Array.from(
      this.#writes,
      ([key, value]): StoreOp =>
        value === undefined ? { kind: 'delete', key } : { kind: 'put', key, value },
    );
    return { conditions, ops };
  }

  #expectUnchanged(key: string): void {
    if (!this.#conditions.has(key)) this.#conditions.set(key, this.#base.revisionOf(key));
  }
}

/**
 * Makes all of a manager's writes: one at a time, each a compare-and-swap transaction built on a
 * cache that has seen the one before. When it resolves, the cache shows what was written. The queue
 * is BOUNDED by the callers that wait: open requests, one reconciler and one status batch.
 */
export class StateWriter {
  readonly #store: Store;
  readonly #state: ClusterState;
  #last: Promise<unknown> = Promise.resolve();

  constructor(store: Store, state: ClusterState) {
    this.#store = store;
    this.#state = state;
  }

  /**
   * Runs `build` and commits what it wrote, all or nothing. When another manager changed something
   * that `build` had read, it runs again on the new state: it must have no effects but its draft.
   *
   * @returns what `build` returned, in the attempt that was committed
   * @throws {ManagerError} UNAVAILABLE if others kept changing the same keys
   * @throws whatever `build` throws; nothing is written then
   */
  write<T>(build: (draft: Draft) => T): Promise<T> {
    const result = this.#last.then(() => this.#attempt(build));
    this.#last = result.catch(() => {}); // Its caller gets the failure; the queue goes on.
    return result;
  }

  async #attempt<T>(build: (draft: Draft) => T): Promise<T> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      const draft = new Draft(this.#state);
      const result = build(draft);
      if (draft.size === 0) return result;
      const { conditions, ops } = draft.transaction();
      const outcome = await this.#store.transact(conditions, ops);
      await this.#state.reached(outcome.revision);
      if (outcome.ok) return result;
    }
    throw new ManagerError(
      { code: 'UNAVAILABLE' },
      `the cluster state changed during each of ${ATTEMPTS_MAX} attempts to write: try again`,
    );
  }
}
