import type { Log } from '../../core/capabilities.ts';
import type { StoreEvent } from '../../core/store.ts';

interface Watcher {
  readonly prefix: string;
  /** Only later transactions are its business. */
  readonly afterRevision: number;
  readonly onEvents: (events: readonly StoreEvent[]) => void;
}

interface Transaction {
  readonly revision: number;
  readonly events: readonly StoreEvent[];
}

/** The watchers of one store, called one transaction after the other. */
export class Watchers {
  readonly #log: Log;
  /** BOUNDED by the callers, each of which ends its own watch. */
  readonly #watchers = new Set<Watcher>();
  /** Not yet delivered. BOUNDED by what watchers write while they are called: else it is empty. */
  readonly #queue: Transaction[] = [];
  #isDelivering = false;

  constructor(log: Log) {
    this.#log = log;
  }

  /**
   * Starts a watch.
   *
   * @param watcher - `afterRevision` is the store's revision at this moment.
   * @returns a function that ends the watch
   */
  add(watcher: Watcher): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /**
   * Tells every watcher of a transaction that is durable. A watcher may write to the store: what it
   * writes is told to all after this. A watcher that throws is logged, and does no harm to others.
   */
  publish(revision: number, events: readonly StoreEvent[]): void {
    if (events.length === 0) return;
    this.#queue.push({ revision, events });
    if (this.#isDelivering) return;
    this.#isDelivering = true;
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      this.#deliver(next);
    }
    this.#isDelivering = false;
  }

  /** Ends all watches. */
  clear(): void {
    this.#watchers.clear();
  }

  #deliver(transaction: Transaction): void {
    // A copy: one that starts now has nothing to do with this transaction.
    for (const watcher of [...this.#watchers]) {
      if (!this.#watchers.has(watcher) || transaction.revision <= watcher.afterRevision) continue;
      const events = transaction.events.filter((event) => keyOf(event).startsWith(watcher.prefix));
      if (events.length === 0) continue;
      try {
        watcher.onEvents(events);
      } catch (error) {
        this.#log.error({ error, prefix: watcher.prefix }, 'a watcher of the store failed');
      }
    }
  }
}

function keyOf(event: StoreEvent): string {
  return event.kind === 'put' ? event.entry.key : event.key;
}
