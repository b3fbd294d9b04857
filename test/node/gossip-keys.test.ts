import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'tap';
import { type Log, SILENT_LOG } from '../../src/core/capabilities.ts';
import type { GossipKeysAssignment } from '../../src/manager/gossip-protocol.ts';
import { GossipKeyFile } from '../../src/node/gossip-key-file.ts';
import { GossipKeys } from '../../src/node/gossip-keys.ts';

const KEY_A = { id: 'aaaaaaaaaa', key: Buffer.alloc(16, 1).toString('base64') };
const KEY_B = { id: 'bbbbbbbbbb', key: Buffer.alloc(32, 2).toString('base64') };
const TOLD: GossipKeysAssignment = { mode: 'strict', keys: [KEY_B, KEY_A] };

/** Keys in a file, and what gossip was made to use. */
function make(path: string, log: Log = SILENT_LOG) {
  const applied: (readonly [string, boolean, boolean])[] = [];
  const file = new GossipKeyFile(path);
  const keys = new GossipKeys({
    file,
    log,
    apply: (given, { seal, strict }) => {
      const texts = given.map((key) => Buffer.from(key).toString('base64'));
      applied.push([texts.join(), seal, strict]);
    },
  });
  return { keys, file, applied };
}

test('keys are used, kept for the next agent, and only their owner may read them', async (t) => {
  const path = join(t.testdir(), 'state', 'gossip-keys.json');
  const { keys, applied } = make(path);
  await keys.recall();
  t.same([keys.count, keys.isStrict, keys.report], [0, false, { mode: 'accept', ids: [] }]);
  t.equal(await keys.take(TOLD), true);
  t.equal(await keys.take(structuredClone(TOLD)), false, 'nothing new');
  t.same(applied, [[`${KEY_B.key},${KEY_A.key}`, true, true]]);
  t.same(keys.report, { mode: 'strict', ids: [KEY_B.id, KEY_A.id] });
  t.equal((await stat(path)).mode & 0o777, 0o600);
  const next = make(path);
  await next.keys.recall();
  t.same(next.applied, applied);
  t.same([next.keys.count, next.keys.isStrict], [2, true]);
  t.same(next.keys.report, keys.report);
  await next.file.remove();
  t.same(await readdir(join(path, '..')), []);
});

test('each mode seals and refuses what it should', async (t) => {
  const { keys, applied } = make(join(t.testdir(), 'keys.json'));
  for (const mode of ['accept', 'seal', 'strict'] as const) {
    await keys.take({ mode, keys: [KEY_A] });
  }
  t.same(applied, [
    [KEY_A.key, false, false],
    [KEY_A.key, true, false],
    [KEY_A.key, true, true],
  ]);
});

test('a disk that takes nothing keeps no key from being used, and no log from being without it', async (t) => {
  const lines: string[] = [];
  const note = (fields: object, message: string): void => {
    lines.push(JSON.stringify([fields, message]));
  };
  const log: Log = { debug: note, info: note, warn: note, error: note, child: () => log };
  const path = join(t.testdir(), 'keys.json');
  await mkdir(`${path}.new`);
  const { keys, applied } = make(path, log);
  t.equal(await keys.take(TOLD), true);
  t.equal(applied.length, 1);
  t.same(keys.report.ids, [KEY_B.id, KEY_A.id]);
  t.match(lines[0], /gossip keys cannot be kept on disk/);
  for (const { key } of TOLD.keys) t.notOk(lines.join().includes(key));
});

test('a damaged file is refused with what is wrong and what to do, and without its keys', async (t) => {
  const path = join(t.testdir(), 'gossip-keys.json');
  const { keys } = make(path);
  for (const [value, field] of [
    [{ ...TOLD, mode: 'open' }, 'mode'],
    [{ mode: 'strict' }, 'keys'],
    [{ mode: 'strict', keys: [{ ...KEY_A, key: '?' }] }, 'keys.0.key'],
    [{ mode: 'strict', keys: [KEY_B, { ...KEY_A, key: 'AAAA' }] }, 'keys.1.key'],
    [{ mode: 'strict', keys: [{ key: KEY_A.key }] }, 'keys.0.id'],
  ] as const) {
    await writeFile(path, JSON.stringify(value));
    const refusal = String(await keys.recall().catch((error: unknown) => error));
    t.match(refusal, `Cannot use ${path}: ${field}: `);
    t.match(refusal, /; remove it, and the manager tells the keys again$/);
    t.notOk(refusal.includes(KEY_A.key));
  }
  t.ok(await readFile(path, 'utf8'), 'it is left as it is');
});
