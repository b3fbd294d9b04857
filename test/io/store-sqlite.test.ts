import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  mkdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { type Test, test } from 'tap';
import { SILENT_LOG } from '../../src/core/capabilities.ts';
import { StoreError } from '../../src/io/store/errors.ts';
import { SqliteStore } from '../../src/io/store/sqlite.ts';
import { testStoreCompliance } from '../compliance/store.ts';

/** Opens a store that the end of the test closes. */
function open(t: Test, path: string): SqliteStore {
  const store = SqliteStore.open({ path, log: SILENT_LOG, busyTimeoutMs: 10 });
  t.teardown(() => store.close());
  return store;
}

/** The StoreError that opening `path` gives; fails on any other outcome. */
function refusal(path: string): StoreError {
  try {
    SqliteStore.open({ path, log: SILENT_LOG, busyTimeoutMs: 10 });
  } catch (error) {
    if (error instanceof StoreError) return error;
    throw error;
  }
  throw new Error('Nothing was refused');
}

const mode = (path: string): string => (statSync(path).mode & 0o777).toString(8);

testStoreCompliance('SqliteStore', (t, log) =>
  SqliteStore.open({ path: join(t.testdir(), 'store.db'), log }),
);

test('SqliteStore: directories and file are for their owner alone', async (t) => {
  const directory = t.testdir();
  const path = join(directory, 'var', 'weft', 'store.db');
  const store = open(t, path);
  await store.transact([], [{ kind: 'put', key: 'a', value: 1 }]);
  t.equal(mode(join(directory, 'var')), '700');
  t.equal(mode(join(directory, 'var', 'weft')), '700');
  t.equal(mode(path), '600');
  t.equal(mode(`${path}-wal`), '600');
});

test('SqliteStore: a store that is opened again has all, revisions included', async (t) => {
  const path = join(t.testdir(), 'store.db');
  const first = open(t, path);
  await first.transact([], [{ kind: 'put', key: 'a', value: { list: [1, 'zwei'] } }]);
  await first.transact([], [{ kind: 'put', key: 'b', value: 1 }]);
  await first.transact([], [{ kind: 'delete', key: 'b' }]);
  const before = await first.list('');
  await first.close();
  const second = open(t, path);
  t.same(await second.list(''), before);
  t.equal(before.revision, 3);
  const condition = { key: 'a', revision: 1 };
  t.same(await second.transact([condition], [{ kind: 'put', key: 'a', value: 2 }]), {
    ok: true,
    revision: 4,
  });
  t.same(await second.get('a'), { key: 'a', value: 2, revision: 4, createRevision: 1 });
});

test('SqliteStore: a second process is told that the file is in use', async (t) => {
  const path = join(t.testdir(), 'store.db');
  const store = open(t, path);
  t.same(refusal(path).detail, { code: 'STORE_BUSY', path });
  await store.transact([], [{ kind: 'put', key: 'a', value: 1 }]);
  t.match(refusal(path).message, /another process has it open, stop it first/);
  await store.close();
  t.equal((await open(t, path).list('')).revision, 1);
});

test('SqliteStore: what is not a store is refused and left as it is', async (t) => {
  const directory = t.testdir();
  const path = (name: string): string => join(directory, name);
  writeFileSync(path('text'), 'managers = ["alpha", "beta"]\n'.repeat(200), { mode: 0o644 });
  const other = new DatabaseSync(path('other.db'));
  other.exec('CREATE TABLE people (name TEXT)');
  other.close();
  const newer = SqliteStore.open({ path: path('newer.db'), log: SILENT_LOG });
  await newer.close();
  const changed = new DatabaseSync(path('newer.db'));
  changed.exec('PRAGMA user_version = 7');
  changed.close();
  for (const [name, detail, message] of [
    ['text', { code: 'STORE_FOREIGN' }, /not a database, expected a store of weft/],
    ['other.db', { code: 'STORE_FOREIGN' }, /database of another program/],
    ['newer.db', { code: 'STORE_VERSION', found: 7, expected: 1 }, /run the version of weft/],
  ] as const) {
    const before = readFileSync(path(name));
    const error = refusal(path(name));
    t.match(error.detail, { ...detail, path: path(name) });
    t.match(error.message, message);
    t.same(readFileSync(path(name)), before, `${name} is unchanged`);
  }
  t.equal(mode(path('text')), '644');
  writeFileSync(path('empty'), '');
  t.equal((await open(t, path('empty')).list('')).revision, 0, 'an empty file is a new store');
});

test('SqliteStore: a damaged file is refused with what to do', async (t) => {
  const directory = t.testdir();
  const sound = join(directory, 'sound.db');
  const store = open(t, sound);
  for (let i = 0; i < 50; i += 1) {
    await store.transact([], [{ kind: 'put', key: `k/${i}`, value: 'x'.repeat(2_000) }]);
  }
  await store.close();
  const { size } = statSync(sound);
  for (const [name, damage] of [
    ['truncated', (path: string) => truncateSync(path, size - 8_192)],
    [
      'overwritten',
      (path: string) => writeFileSync(path, readFileSync(path).fill(0xa5, 4_096, 5 * 4_096)),
    ],
  ] as const) {
    const path = join(directory, `${name}.db`);
    copyFileSync(sound, path);
    damage(path);
    const error = refusal(path);
    t.match(error.detail, { code: 'STORE_CORRUPT', path }, name);
    t.match(error.message, /restore a backup, or move it away/);
  }
  const garbled = join(directory, 'garbled.db');
  copyFileSync(sound, garbled);
  const database = new DatabaseSync(garbled);
  database.exec(`UPDATE entries SET value = '{"half":' WHERE key = 'k/7'`);
  database.close();
  const reading = open(t, garbled);
  const error = await reading.get('k/7').catch((caught: unknown) => caught);
  t.match(error, { detail: { code: 'STORE_CORRUPT', path: garbled } });
  t.equal((await reading.get('k/8'))?.createRevision, 9);
});

test('SqliteStore: what the system refuses is said with its reason', async (t) => {
  const directory = t.testdir({ file: '' });
  mkdirSync(join(directory, 'store.db'));
  t.match(refusal(join(directory, 'store.db')).detail, {
    code: 'STORE_UNAVAILABLE',
    reason: /EISDIR/,
  });
  t.match(refusal(join(directory, 'file', 'store.db')).detail, {
    code: 'STORE_UNAVAILABLE',
    reason: /ENOTDIR|EEXIST/,
  });
});

/** Writes without an end, two keys at a time, and prints each revision that was acknowledged. */
const ENDLESS_WRITER = `
  import { writeSync } from 'node:fs';
  import { SILENT_LOG } from '${import.meta.resolve('../../src/core/capabilities.ts')}';
  import { SqliteStore } from '${import.meta.resolve('../../src/io/store/sqlite.ts')}';
  const store = SqliteStore.open({ path: process.argv[1], log: SILENT_LOG });
  let { revision } = await store.list('');
  while (true) {
    const next = revision + 1;
    const ops = ['log/' + next, 'last'].map((key) => ({ kind: 'put', key, value: next }));
    const result = await store.transact([{ key: 'last', revision }], ops);
    if (!result.ok) throw new Error('Conflict on ' + result.conflict);
    revision = result.revision;
    writeSync(1, revision + '\\n');
  }
`;

/** Kills `writer` when it has acknowledged `count` writes; returns the last one. */
async function killAfter(writer: ChildProcess, count: number): Promise<number> {
  const ended = once(writer, 'close');
  let seen = 0;
  let last = 0;
  if (writer.stdout === null) throw new Error('The writer has no output');
  for await (const acknowledged of createInterface(writer.stdout)) {
    last = Number(acknowledged);
    seen += 1;
    if (seen === count) writer.kill('SIGKILL');
  }
  const [code, signal] = await ended;
  if (signal !== 'SIGKILL') throw new Error(`The writer ended by itself: ${code ?? signal}`);
  return last;
}

test('SqliteStore: SIGKILL loses no write that was acknowledged, and no half of one', async (t) => {
  const path = join(t.testdir(), 'store.db');
  for (const count of [1, 40, 7, 300]) {
    const argv = ['--input-type=module', '--eval', ENDLESS_WRITER, path];
    const writer = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
    const acknowledged = await killAfter(writer, count);
    const store = SqliteStore.open({ path, log: SILENT_LOG });
    const { revision } = await store.list('');
    t.ok(acknowledged >= count, `${acknowledged} writes acknowledged`);
    // The kill may fall between a commit and its acknowledgement.
    t.ok(revision === acknowledged || revision === acknowledged + 1, `revision ${revision}`);
    const { entries } = await store.list('log/');
    const kept = entries.map((entry) => entry.value).sort((a, b) => Number(a) - Number(b));
    t.same(
      kept,
      Array.from({ length: revision }, (_, i) => i + 1),
    );
    t.match(await store.get('last'), { value: revision, revision });
    await store.close();
  }
});
