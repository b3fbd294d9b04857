import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { Log } from '../../core/capabilities.ts';
import type {
  Store,
  StoreCondition,
  StoreEntry,
  StoreEvent,
  StoreOp,
  StoreResult,
} from '../../core/store.ts';
import { StoreError } from './errors.ts';
import { prefixEnd } from './keys.ts';
import { openStoreFile, withStoreErrors } from './sqlite-file.ts';
import {
  decodeEntry,
  type PlannedWrite,
  planTransaction,
  type StoredEntry,
  type TransactionPlan,
} from './transaction.ts';
import { Watchers } from './watchers.ts';

/** How long an agent waits for its predecessor to let go of the file. Blocks: only at the start. */
const BUSY_TIMEOUT_MS_DEFAULT = 5_000;

const COLUMNS = 'key, value AS text, revision, create_revision AS createRevision';

export interface SqliteStoreOptions {
  /** Made with its directories if it does not exist; SQLite keeps a `-wal` file beside it. */
  readonly path: string;
  readonly log: Log;
  readonly busyTimeoutMs?: number;
}

/**
 * The state of a cluster with one manager, in one SQLite file that this process has for itself.
 *
 * Every call does its work before it returns the promise, so calls take effect in the order in
 * which they are made. A transaction is one commit with one sync of the disk, and blocks for as
 * long. Where the disk fails during a commit, `transact` rejects with a {@link StoreError}, and
 * whether the transaction survives is known only after the store was opened again.
 */
export class SqliteStore implements Store {
  readonly #path: string;
  readonly #database: DatabaseSync;
  readonly #watchers: Watchers;
  readonly #statements: Statements;

  /**
   * Opens the store at `options.path`.
   *
   * @throws {StoreError} STORE_CORRUPT, STORE_FOREIGN, STORE_VERSION, STORE_BUSY or
   *   STORE_UNAVAILABLE; the message says what to do
   */
  static open(options: SqliteStoreOptions): SqliteStore {
    const { path, busyTimeoutMs = BUSY_TIMEOUT_MS_DEFAULT } = options;
    return new SqliteStore(path, openStoreFile(path, busyTimeoutMs), options.log);
  }

  private constructor(path: string, database: DatabaseSync, log: Log) {
    this.#path = path;
    this.#database = database;
    this.#watchers = new Watchers(log);
    this.#statements = prepareStatements(database);
  }

  async get(key: string): Promise<StoreEntry | undefined> {
    return this.#work(() => {
      const stored = this.#read(key);
      return stored && decodeEntry(stored);
    });
  }

  async list(prefix: string): Promise<{ entries: StoreEntry[]; revision: number }> {
    return this.#work(() => {
      const end = prefixEnd(prefix);
      const rows =
        end === undefined
          ? this.#statements.listFrom.all(prefix)
          : this.#statements.listRange.all(prefix, end);
      // The statements select the fields of StoredEntry, and the table is STRICT.
      const entries = (rows as unknown as StoredEntry[]).map(decodeEntry);
      return { entries, revision: this.#revision() };
    });
  }

  async transact(
    conditions: readonly StoreCondition[],
    ops: readonly StoreOp[],
  ): Promise<StoreResult> {
    const { result, events } = this.#work(() => this.#commit(conditions, ops));
    this.#watchers.publish(result.revision, events);
    return result;
  }

  watch(prefix: string, onEvents: (events: readonly StoreEvent[]) => void): () => void {
    const afterRevision = this.#work(() => this.#revision());
    return this.#watchers.add({ prefix, afterRevision, onEvents });
  }

  async close(): Promise<void> {
    this.#watchers.clear();
    if (this.#database.isOpen) this.#database.close();
  }

  #commit(conditions: readonly StoreCondition[], ops: readonly StoreOp[]): TransactionPlan {
    this.#database.exec('BEGIN IMMEDIATE');
    try {
      const snapshot = {
        revision: this.#revision(),
        read: (key: string): StoredEntry | undefined => this.#read(key),
      };
      const plan = planTransaction(snapshot, conditions, ops);
      for (const write of plan.writes) this.#write(write);
      if (plan.writes.length > 0) this.#statements.setRevision.run(plan.result.revision);
      this.#database.exec('COMMIT');
      return plan;
    } catch (error) {
      // SQLite has rolled back by itself where the disk is full or failing.
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      throw error;
    }
  }

  #write({ key, stored }: PlannedWrite): void {
    if (stored === undefined) {
      this.#statements.delete.run(key);
    } else {
      this.#statements.put.run(key, stored.text, stored.revision, stored.createRevision);
    }
  }

  #read(key: string): StoredEntry | undefined {
    return this.#statements.get.get(key) as StoredEntry | undefined;
  }

  #revision(): number {
    return Number(this.#statements.getRevision.get()?.revision);
  }

  #work<T>(work: () => T): T {
    if (!this.#database.isOpen) throw new StoreError({ code: 'STORE_CLOSED' });
    return withStoreErrors(this.#path, work);
  }
}

interface Statements {
  readonly get: StatementSync;
  readonly listFrom: StatementSync;
  readonly listRange: StatementSync;
  readonly put: StatementSync;
  readonly delete: StatementSync;
  readonly getRevision: StatementSync;
  readonly setRevision: StatementSync;
}

/** SQLite compares and orders TEXT by its UTF-8 bytes (collation BINARY). */
function prepareStatements(database: DatabaseSync): Statements {
  return {
    get: database.prepare(`SELECT ${COLUMNS} FROM entries WHERE key = ?`),
    listFrom: database.prepare(`SELECT ${COLUMNS} FROM entries WHERE key >= ? ORDER BY key`),
    listRange: database.prepare(
      `SELECT ${COLUMNS} FROM entries WHERE key >= ? AND key < ? ORDER BY key`,
    ),
    put: database.prepare(
      `INSERT INTO entries (key, value, revision, create_revision) VALUES (?, ?, ?, ?)
       ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision`,
    ),
    delete: database.prepare('DELETE FROM entries WHERE key = ?'),
    getRevision: database.prepare('SELECT revision FROM state'),
    setRevision: database.prepare('UPDATE state SET revision = ?'),
  };
}
