import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { mock } from 'node:test';
import { type Test, test } from 'tap';
import type { VisibleEntry } from '../../src/node/gossip-view.ts';
import { RememberedEndpoints } from '../../src/node/remembered-endpoints.ts';

const NOBODY: ReadonlySet<string> = new Set();

function entry(node: string, key = 'vtep', value: VisibleEntry['value'] = { port: 4789 }) {
  return { node, key, value };
}

/** A memory over the file of `t`'s directory. Its timers stand still until the test moves them. */
function makeMemory(t: Test, path: string) {
  let expired = 0;
  const memory = new RememberedEndpoints(path, () => {
    expired += 1;
  });
  t.teardown(() => memory.close());
  return { memory, expired: () => expired };
}

function stopClock(t: Test): void {
  mock.timers.enable({ apis: ['setTimeout'] });
  t.teardown(() => mock.timers.reset());
}

async function fileWith(t: Test, content: unknown): Promise<string> {
  const path = join(t.testdir(), 'endpoints.json');
  await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

test('what gossip does not tell yet is completed from memory', async (t) => {
  stopClock(t);
  const path = await fileWith(t, [entry('b'), entry('b', 'endpoint/1'), entry('c')]);
  const { memory } = makeMemory(t, path);
  const told = [entry('self')];
  t.same(memory.complete(told, NOBODY), told, 'nothing is remembered before load()');
  await memory.load();
  for (const [name, visible, gone, expected] of [
    ['all', [], NOBODY, [entry('b'), entry('b', 'endpoint/1'), entry('c')]],
    [
      'what is told comes first',
      told,
      NOBODY,
      [...told, entry('b'), entry('b', 'endpoint/1'), entry('c')],
    ],
    [
      'a node that tells anything is believed alone',
      [entry('b')],
      NOBODY,
      [entry('b'), entry('c')],
    ],
    ['a node that is gone is forgotten', [], new Set(['b']), [entry('c')]],
    ['nothing more', [entry('b'), entry('c')], NOBODY, [entry('b'), entry('c')]],
  ] as const) {
    t.same(memory.complete(visible, gone), expected, name);
  }
});

test('memory is believed for 15 seconds', async (t) => {
  stopClock(t);
  const { memory, expired } = makeMemory(t, await fileWith(t, [entry('b')]));
  await memory.load();
  mock.timers.tick(14_999);
  t.same([memory.complete([], NOBODY), expired()], [[entry('b')], 0]);
  mock.timers.tick(1);
  t.same([memory.complete([], NOBODY), expired()], [[], 1]);
});

test('a closed memory never expires', async (t) => {
  stopClock(t);
  const { memory, expired } = makeMemory(t, await fileWith(t, [entry('b')]));
  await memory.load();
  await memory.close();
  mock.timers.tick(60_000);
  t.equal(expired(), 0);
});

for (const [name, content] of [
  ['no JSON', '{"node":'],
  ['no list', { node: 'b' }],
  ['an empty list', []],
  ['an entry without value', [entry('a'), { node: 'b', key: 'vtep' }]],
  ['an entry without node', [{ key: 'vtep', value: 1 }]],
] as const) {
  test(`a file with ${name} is as good as none`, async (t) => {
    stopClock(t);
    const { memory, expired } = makeMemory(t, await fileWith(t, content));
    await memory.load();
    t.same(memory.complete([], NOBODY), []);
    mock.timers.tick(60_000);
    t.equal(expired(), 0, 'and nothing expires');
  });
}

test('no file is no memory', async (t) => {
  const { memory } = makeMemory(t, join(t.testdir(), 'endpoints.json'));
  await memory.load();
  t.same(memory.complete([], NOBODY), []);
});

test('changes are gathered, and the last one is what the next agent reads', async (t) => {
  stopClock(t);
  const path = join(t.testdir(), 'run', 'endpoints.json');
  const first = makeMemory(t, path).memory;
  first.remember([entry('b')]);
  first.remember([entry('b'), entry('c')]);
  mock.timers.tick(249);
  await t.rejects(readFile(path), { code: 'ENOENT' }, 'not written at once');
  mock.timers.tick(1);
  first.remember([entry('c', 'vtep', { port: 4790 })]);
  await first.close();
  const second = makeMemory(t, path).memory;
  await second.load();
  t.same(second.complete([], NOBODY), [entry('c', 'vtep', { port: 4790 })]);
});

test('a memory that cannot be written does no harm', async (t) => {
  const path = join(t.testdir({ file: '' }), 'file', 'endpoints.json');
  const { memory } = makeMemory(t, path);
  memory.remember([entry('b')]);
  await memory.close();
  await t.rejects(readFile(path), { code: 'ENOTDIR' });
});
