import type { Store, StoreEntry, StoreEvent } from '../core/store.ts';
import { type Key, type TableName, type Tables, tableOfKey } from './keys.ts';
import type { TaskRecord } from './records.ts';

/** Read access to the cluster's objects: the cache itself, or a transaction in the making. */
export interface StateView {
  /** The value under `key`. */
  get<T>(key: Key<T>): T | undefined;
  /** The object `id` of `table`. */
  find<N extends TableName>(table: N, id: string): Tables[N] | undefined;
  /** Every object of `table`, in no particular order. */
  all<N extends TableName>(table: N): Iterable<Tables[N]>;
  /** The tasks of a service, in no particular order; also those of a service that is gone. */
  tasksOfService(serviceId: string): Iterable<TaskRecord>;
  /** The tasks assigned to a node, in no particular order. */
  tasksOfNode(nodeId: string): Iterable<TaskRecord>;
}

/** Tasks by one of their fields. BOUNDED by the tasks in the store. */
type TaskIndex = Map<string, Map<string, TaskRecord>>;

/**
 * Everything in the store, in memory: reads are synchronous and cost nothing, writes go to the store
 * and come back through its watch. Records are never changed in place, so that callers may compare
 * them by identity. BOUNDED by what the store holds.
 */
export class ClusterState implements StateView {
  readonly #store: Store;
  readonly #entries = new Map<string, StoreEntry>();
  readonly #tables: { readonly [N in TableName]: Map<string, Tables[N]> } = {
    nodes: new Map(),
    networks: new Map(),
    services: new Map(),
    tasks: new Map(),
  };
  readonly #tasksByService: TaskIndex = new Map();
  readonly #tasksByNode: TaskIndex = new Map();
  readonly #subscribers = new Set<() => void>();
  /** BOUNDED by the writers in flight: each waits for its own revision. */
  #waiting: { readonly revision: number; readonly resolve: () => void }[] = [];
  #revision = 0;
  #endWatch: (() => void) | undefined;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Reads the store and follows it from there. Call once, before anything else. */
  async start(): Promise<void> {
    // The watch comes first, so that no transaction falls between the listing and the watch.
    const early: (readonly StoreEvent[])[] = [];
    let listed = false;
    this.#endWatch = this.#store.watch('', (events) => {
      if (listed) this.#applyTransaction(events);
      else early.push(events);
    });
    const { entries, revision } = await this.#store.list('');
    for (const entry of entries) this.#put(entry);
    this.#revision = revision;
    listed = true;
    for (const events of early) this.#applyTransaction(events);
  }

  /** Ends the watch; waiting writers are let go, since nothing will come any more. */
  stop(): void {
    this.#endWatch?.();
    this.#revision = Number.POSITIVE_INFINITY;
    this.#release();
  }

  /** The revision of the last transaction that this cache has seen. */
  get revision(): number {
    return this.#revision;
  }

  /** Resolves when this cache has seen the transaction of `revision`. */
  reached(revision: number): Promise<void> {
    if (this.#revision >= revision) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ revision, resolve }));
  }

  /**
   * Calls `onChange` after each transaction has been applied.
   *
   * @returns a function that ends the subscription
   */
  subscribe(onChange: () => void): () => void {
    this.#subscribers.add(onChange);
    return () => this.#subscribers.delete(onChange);
  }

  /** The revision at which `key` was last written; 0 if it does not exist. */
  revisionOf(key: string): number {
    return this.#entries.get(key)?.revision ?? 0;
  }

  get<T>(key: Key<T>): T | undefined {
    return this.#entries.get(key)?.value as T | undefined;
  }

  find<N extends TableName>(table: N, id: string): Tables[N] | undefined {
    return this.#tables[table].get(id);
  }

  all<N extends TableName>(table: N): Iterable<Tables[N]> {
    return this.#tables[table].values();
  }

  tasksOfService(serviceId: string): Iterable<TaskRecord> {
    return this.#tasksByService.get(serviceId)?.values() ?? [];
  }

  tasksOfNode(nodeId: string): Iterable<TaskRecord> {
    return this.#tasksByNode.get(nodeId)?.values() ?? [];
  }

  #applyTransaction(events: readonly StoreEvent[]): void {
    const [first] = events;
    if (first === undefined) return;
    const revision = first.kind === 'put' ? first.entry.revision : first.revision;
    if (revision <= this.#revision) return; // The listing held it already.
    for (const event of events) {
      if (event.kind === 'put') this.#put(event.entry);
      else this.#remove(event.key);
    }
    this.#revision = revision;
    for (const onChange of this.#subscribers) onChange();
    this.#release();
  }

  #release(): void {
    const reached = this.#waiting.filter((waiter) => waiter.revision <= this.#revision);
    if (reached.length === 0) return;
    this.#waiting = this.#waiting.filter((waiter) => waiter.revision > this.#revision);
    for (const waiter of reached) waiter.resolve();
  }

  #put(entry: StoreEntry): void {
    this.#remove(entry.key);
    this.#entries.set(entry.key, entry);
    const table = tableOfKey(entry.key);
    if (table === undefined) return;
    // Only StateWriter writes these keys, and it writes nothing else under them.
    const record = entry.value as unknown as Tables[TableName];
    (this.#tables[table] as Map<string, Tables[TableName]>).set(record.id, record);
    if (table === 'tasks') this.#index(record as TaskRecord);
  }

  #remove(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    const table = tableOfKey(key);
    if (table === undefined) return;
    const record = entry.value as unknown as Tables[TableName];
    this.#tables[table].delete(record.id);
    if (table === 'tasks') this.#unindex(record as TaskRecord);
  }

  #index(task: TaskRecord): void {
    addTo(this.#tasksByService, task.serviceId, task);
    if (task.nodeId !== undefined) addTo(this.#tasksByNode, task.nodeId, task);
  }

  #unindex(task: TaskRecord): void {
    removeFrom(this.#tasksByService, task.serviceId, task);
    if (task.nodeId !== undefined) removeFrom(this.#tasksByNode, task.nodeId, task);
  }
}

function addTo(index: TaskIndex, key: string, task: TaskRecord): void {
  const tasks = index.get(key);
  if (tasks === undefined) index.set(key, new Map([[task.id, task]]));
  else tasks.set(task.id, task);
}

function removeFrom(index: TaskIndex, key: string, task: TaskRecord): void {
  const tasks = index.get(key);
  tasks?.delete(task.id);
  if (tasks?.size === 0) index.delete(key);
}
