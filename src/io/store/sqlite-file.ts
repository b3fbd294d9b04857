import { chmodSync, closeSync, fsyncSync, mkdirSync, openSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { StoreError } from './errors.ts';

/** `weft` in ASCII: SQLite's header field for whose file it is. */
const APPLICATION_ID = 0x77_65_66_74;
/** Counted up with every change of the schema below. */
const SCHEMA_VERSION = 1;

/** The store has the only data of a cluster, join tokens among it: root's alone. */
const DIRECTORY_MODE = 0o700;
const FILE_MODE = 0o600;

// A table with row ids, unlike most key-value tables in SQLite: values of many kilobytes (the pool
// of a large network) make a WITHOUT ROWID tree slow.
const SCHEMA = `
  CREATE TABLE entries (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL,
    revision INTEGER NOT NULL,
    create_revision INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE state (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
  ) STRICT;
  INSERT INTO state (id, revision) VALUES (1, 0);
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${SCHEMA_VERSION};
`;

/** Primary result codes of SQLite (sqlite3.h) that are not bugs of ours. */
const SQLITE_BUSY = 5;
const SQLITE_CORRUPT = 11;
const SQLITE_NOTADB = 26;
/** PERM, NOMEM, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL, NOLFS, AUTH. */
const SQLITE_UNAVAILABLE: ReadonlySet<number> = new Set([3, 7, 8, 10, 13, 14, 15, 22, 23]);

/**
 * Opens the database of a store for this process alone, and makes it if there is none. A file that
 * is not a sound store of this version is left as it is.
 *
 * @param path - Missing directories are made.
 * @param busyTimeoutMs - How long to wait, blocking, for another process to let go of the file.
 * @throws {StoreError} with any code but STORE_CLOSED
 */
export function openStoreFile(path: string, busyTimeoutMs: number): DatabaseSync {
  makeFile(path);
  return withStoreErrors(path, () => {
    const database = new DatabaseSync(path, { timeout: busyTimeoutMs });
    try {
      // One writer only: watchers would not hear of what another process writes.
      database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL');
      prepareSchema(path, database);
      database.exec('PRAGMA journal_mode = WAL');
      checkIntegrity(path, database);
      chmodSync(path, FILE_MODE);
      return database;
    } catch (error) {
      database.close();
      throw error;
    }
  });
}

/**
 * Runs `work` on the database at `path`.
 *
 * @throws {StoreError} for each failure that is no bug
 */
export function withStoreErrors<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw toStoreError(path, error);
  }
}

/** Makes the file by hand, since SQLite would make it readable for all. */
function makeFile(path: string): void {
  withStoreErrors(path, () => {
    const directory = dirname(resolve(path));
    const firstMade = mkdirSync(directory, { recursive: true, mode: DIRECTORY_MODE });
    closeSync(openSync(path, 'a', FILE_MODE));
    // SQLite syncs the file's directory, not those that were made above it.
    const top = firstMade === undefined ? directory : dirname(firstMade);
    for (let made = directory; made !== top; made = dirname(made)) syncDirectory(dirname(made));
  });
}

function syncDirectory(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Decides under a lock whether the file is ours, empty or foreign. */
function prepareSchema(path: string, database: DatabaseSync): void {
  database.exec('BEGIN EXCLUSIVE');
  try {
    const tables = readNumber(database, 'SELECT count(*) AS value FROM sqlite_schema');
    const applicationId = readNumber(
      database,
      'SELECT application_id AS value FROM pragma_application_id',
    );
    const version = readNumber(database, 'SELECT user_version AS value FROM pragma_user_version');
    if (tables === 0 && applicationId === 0 && version === 0) {
      database.exec(SCHEMA);
    } else if (applicationId !== APPLICATION_ID) {
      const reason = 'it is an SQLite database of another program';
      throw new StoreError({ code: 'STORE_FOREIGN', path, reason });
    } else if (version !== SCHEMA_VERSION) {
      const expected = SCHEMA_VERSION;
      throw new StoreError({ code: 'STORE_VERSION', path, found: version, expected });
    }
    database.exec('COMMIT');
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK');
    throw error;
  }
}

/** Reads every page: a damaged file must be found now and not in the middle of a failover. */
function checkIntegrity(path: string, database: DatabaseSync): void {
  const row = database.prepare('PRAGMA quick_check(1)').get();
  const outcome = String(row?.quick_check);
  if (outcome !== 'ok') throw new StoreError({ code: 'STORE_CORRUPT', path, reason: outcome });
}

function readNumber(database: DatabaseSync, query: string): number {
  return Number(database.prepare(query).get()?.value);
}

function toStoreError(path: string, error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof StoreError) return error;
  const reason = error.message;
  const options = { cause: error };
  if ('syscall' in error) {
    return new StoreError({ code: 'STORE_UNAVAILABLE', path, reason }, options);
  }
  // Only values of the store are parsed here, all of which were written by JSON.stringify.
  if (error instanceof SyntaxError) {
    return new StoreError({ code: 'STORE_CORRUPT', path, reason }, options);
  }
  // Extended result codes carry the primary one in their low byte.
  const code = 'errcode' in error ? Number(error.errcode) & 0xff : 0;
  if (code === SQLITE_BUSY) return new StoreError({ code: 'STORE_BUSY', path }, options);
  if (code === SQLITE_CORRUPT) {
    return new StoreError({ code: 'STORE_CORRUPT', path, reason }, options);
  }
  if (code === SQLITE_NOTADB) {
    return new StoreError({ code: 'STORE_FOREIGN', path, reason }, options);
  }
  return SQLITE_UNAVAILABLE.has(code)
    ? new StoreError({ code: 'STORE_UNAVAILABLE', path, reason }, options)
    : error;
}
