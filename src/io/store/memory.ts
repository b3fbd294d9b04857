import { type Log, SILENT_LOG } from '../../core/capabilities.ts';
import type {
  Store,
  StoreCondition,
  StoreEntry,
  StoreEvent,
  StoreOp,
  StoreResult,
} from '../../core/store.ts';
import { StoreError } from './errors.ts';
import { compareKeys } from './keys.ts';
import { decodeEntry, planTransaction, type StoredEntry } from './transaction.ts';
import { Watchers } from './watchers.ts';

/** A store that is gone when the process ends: for tests and simulations. */
export class MemoryStore implements Store {
  /** Unordered. BOUNDED by what the caller puts. */
  readonly #entries = new Map<string, StoredEntry>();
  readonly #watchers: Watchers;
  #revision = 0;
  #isOpen = true;

  constructor(log: Log = SILENT_LOG) {
    this.#watchers = new Watchers(log);
  }

  async get(key: string): Promise<StoreEntry | undefined> {
    this.#checkOpen();
    const stored = this.#entries.get(key);
    return stored && decodeEntry(stored);
  }

  async list(prefix: string): Promise<{ entries: StoreEntry[]; revision: number }> {
    this.#checkOpen();
    const entries = [...this.#entries.values()]
      .filter(({ key }) => key.startsWith(prefix))
      .sort((a, b) => compareKeys(a.key, b.key))
      .map(decodeEntry);
    return { entries, revision: this.#revision };
  }

  async transact(
    conditions: readonly StoreCondition[],
    ops: readonly StoreOp[],
  ): Promise<StoreResult> {
    this.#checkOpen();
    const read = (key: string): StoredEntry | undefined => this.#entries.get(key);
    const plan = planTransaction({ revision: this.#revision, read }, conditions, ops);
    for (const { key, stored } of plan.writes) {
      if (stored === undefined) this.#entries.delete(key);
      else this.#entries.set(key, stored);
    }
    this.#revision = plan.result.revision;
    this.#watchers.publish(this.#revision, plan.events);
    return plan.result;
  }

  watch(prefix: string, onEvents: (events: readonly StoreEvent[]) => void): () => void {
    this.#checkOpen();
    return this.#watchers.add({ prefix, afterRevision: this.#revision, onEvents });
  }

  async close(): Promise<void> {
    this.#watchers.clear();
    this.#isOpen = false;
  }

  #checkOpen(): void {
    if (!this.#isOpen) throw new StoreError({ code: 'STORE_CLOSED' });
  }
}
