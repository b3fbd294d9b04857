import { appendFile, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { mock } from 'node:test';
import { type Test, test } from 'tap';
import { EndpointView, type VisibleEntry } from '../../src/node/endpoint-view.ts';
import { RememberedEndpoints } from '../../src/node/remembered-endpoints.ts';
import { TASK } from '../support/endpoint-value.ts';

const KEY = 'endpoint/blue/10.0.1.5';

/** A VTEP, unless something else is told. */
function entry(
  node: string,
  key = 'vtep',
  value: VisibleEntry['value'] = { address: '192.0.2.2', port: 4789 },
): VisibleEntry {
  return { node, key, value };
}

/** A memory over a file, as the agent of node `self` has it. */
function makeMemory(t: Test, path: string) {
  let expired = 0;
  const view = new EndpointView('self');
  const memory = new RememberedEndpoints(view, 'self', path, () => {
    expired += 1;
  });
  t.teardown(() => memory.close());
  const tell = (...entries: readonly VisibleEntry[]): void => {
    for (const { node, key, value } of entries) {
      memory.change({ node, added: [{ key, value }], changed: [], removed: [] });
    }
  };
  const forget = (node: string, ...removed: readonly string[]): void =>
    memory.change({ node, added: [], changed: [], removed });
  return { memory, view, tell, forget, shown: () => [...view.others()], expired: () => expired };
}

/** Timers stand still until the test moves them. */
function stopClock(t: Test): void {
  mock.timers.enable({ apis: ['setTimeout'] });
  t.teardown(() => mock.timers.reset());
}

async function fileWith(t: Test, lines: readonly unknown[]): Promise<string> {
  const path = join(t.testdir(), 'endpoints.jsonl');
  const texts = lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line)));
  await writeFile(path, texts.map((text) => `${text}\n`).join(''));
  return path;
}

/** What the next agent would start from. */
async function nextShows(t: Test, path: string): Promise<VisibleEntry[]> {
  const next = makeMemory(t, path);
  await next.memory.load();
  return next.shown();
}

for (const [name, told, gone, expected] of [
  ['all', [], undefined, [entry('b'), entry('b', KEY, TASK), entry('c')]],
  [
    'this node speaks for itself',
    [entry('self')],
    undefined,
    [entry('b'), entry('b', KEY, TASK), entry('c')],
  ],
  [
    'a node that tells anything is believed alone',
    [entry('b')],
    undefined,
    [entry('c'), entry('b')],
  ],
  ['a node that has failed is forgotten', [], ['b', 'dead'], [entry('c')]],
  ['a node that has left is forgotten', [], ['b', 'left'], [entry('c')]],
  [
    'a node that does not answer is believed',
    [],
    ['b', 'suspect'],
    [entry('b'), entry('b', KEY, TASK), entry('c')],
  ],
  ['nothing more', [entry('b'), entry('c')], undefined, [entry('b'), entry('c')]],
] as const) {
  test(`what gossip does not tell yet is completed from memory: ${name}`, async (t) => {
    stopClock(t);
    const path = await fileWith(t, [entry('self'), entry('b'), entry('b', KEY, TASK), entry('c')]);
    const { memory, tell, shown } = makeMemory(t, path);
    t.same(shown(), [], 'nothing is remembered before load()');
    await memory.load();
    tell(...told);
    if (gone !== undefined) memory.setMember(gone[0], gone[1]);
    t.same(shown(), expected);
    const nodes = new Set(expected.map(({ node }) => node));
    const isTold = (node: string): boolean => told.some((one) => one.node === node);
    for (const node of ['b', 'c', 'self']) {
      t.equal(memory.isBelieved(node), nodes.has(node) && !isTold(node), node);
    }
  });
}

test('what a node no longer tells is not remembered again', async (t) => {
  stopClock(t);
  const { memory, tell, forget, shown } = makeMemory(t, await fileWith(t, [entry('b')]));
  await memory.load();
  tell(entry('b'));
  forget('b', 'vtep');
  t.same(shown(), []);
});

test('a memory that was told twice tells the tables what changed, once', async (t) => {
  stopClock(t);
  const { memory, view, tell } = makeMemory(
    t,
    await fileWith(t, [entry('b'), entry('b', KEY, TASK)]),
  );
  await memory.load();
  t.same([...view.takeTouched().services], ['web']);
  tell(entry('b'), entry('b', KEY, TASK));
  t.same([...view.takeTouched().services], ['web']);
  t.same([...view.takeTouched().services], []);
});

test('memory is believed for 15 seconds', async (t) => {
  stopClock(t);
  const { memory, shown, expired } = makeMemory(t, await fileWith(t, [entry('b')]));
  await memory.load();
  mock.timers.tick(14_999);
  t.same([shown(), expired()], [[entry('b')], 0]);
  mock.timers.tick(1);
  t.same([shown(), expired()], [[], 1]);
});

test('what was told in time outlives the memory', async (t) => {
  stopClock(t);
  const { memory, tell, shown } = makeMemory(t, await fileWith(t, [entry('b'), entry('c')]));
  await memory.load();
  tell(entry('c'));
  mock.timers.tick(15_000);
  t.same(shown(), [entry('c')]);
});

test('a closed memory never expires', async (t) => {
  stopClock(t);
  const { memory, expired } = makeMemory(t, await fileWith(t, [entry('b')]));
  await memory.load();
  await memory.close();
  mock.timers.tick(60_000);
  t.equal(expired(), 0);
});

for (const [name, lines] of [
  ['no JSON', ['{"node":']],
  ['no entries', [{ node: 'b' }]],
  ['nothing', []],
  ['an entry without value', [entry('a'), { node: 'b', key: 'vtep' }]],
  ['an entry without node', [{ key: 'vtep', value: 1 }]],
  ['an entry of more than there is', [entry('a'), { ...entry('b'), isGone: true }]],
  ['an empty line', [entry('a'), '']],
] as const) {
  test(`a file with ${name} is as good as none`, async (t) => {
    stopClock(t);
    const { memory, shown, expired } = makeMemory(t, await fileWith(t, lines));
    await memory.load();
    t.same(shown(), []);
    mock.timers.tick(60_000);
    t.equal(expired(), 0, 'and nothing expires');
  });
}

test('no file is no memory', async (t) => {
  const { memory, shown } = makeMemory(t, join(t.testdir(), 'endpoints.jsonl'));
  await memory.load();
  t.same(shown(), []);
});

test('a file whose writer was killed holds all but the line that was cut', async (t) => {
  stopClock(t);
  const lines = [entry('b'), entry('b', KEY, TASK), { node: 'c', key: 'vtep', isGone: true }];
  const path = await fileWith(t, lines);
  const whole = await readFile(path, 'utf8');
  const shown = [[], [entry('b')], [entry('b'), entry('b', KEY, TASK)]];
  for (let length = 0; length <= whole.length; length += 1) {
    await writeFile(path, whole.slice(0, length));
    const ended = whole.slice(0, length).split('\n').length - 1;
    t.same(await nextShows(t, path), shown[Math.min(ended, 2)], `${length} characters`);
  }
});

test('changes are gathered, and the last one is what the next agent reads', async (t) => {
  stopClock(t);
  const path = join(t.testdir(), 'run', 'endpoints.jsonl');
  const { memory, tell, forget } = makeMemory(t, path);
  tell(entry('b'));
  tell(entry('b'), entry('c'));
  mock.timers.tick(249);
  await t.rejects(readFile(path), { code: 'ENOENT' }, 'not written at once');
  mock.timers.tick(1);
  forget('b', 'vtep');
  const moved = entry('c', 'vtep', { address: '192.0.2.3', port: 4790 });
  tell(moved, entry('self'));
  await memory.close();
  t.same(await nextShows(t, path), [moved]);
});

test('each change adds to the file what it changes, and no more', async (t) => {
  stopClock(t);
  const path = join(t.testdir(), 'endpoints.jsonl');
  const { memory, tell, forget } = makeMemory(t, path);
  const lines = async (): Promise<unknown[]> => {
    mock.timers.tick(250);
    await memory.close();
    return (await readFile(path, 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
  };
  tell(entry('b'), entry('b', KEY, TASK));
  const begun = [entry('b'), entry('b', KEY, TASK)];
  t.same(await lines(), begun);
  tell(entry('b', KEY, { ...TASK, state: 'draining' }));
  const drained = [...begun, entry('b', KEY, { ...TASK, state: 'draining' })];
  t.same(await lines(), drained);
  forget('b', KEY);
  t.same(await lines(), [...drained, { node: 'b', key: KEY, isGone: true }]);
  t.same(await nextShows(t, path), [entry('b')]);
  t.same(await readdir(dirname(path)), ['endpoints.jsonl']);
});

test('a file that has grown is begun anew', async (t) => {
  stopClock(t);
  const path = join(t.testdir(), 'endpoints.jsonl');
  const { memory, tell } = makeMemory(t, path);
  const long = (taskId: string): VisibleEntry =>
    entry('b', KEY, { ...TASK, taskId: taskId.repeat(300_000) });
  tell(entry('b'));
  await memory.close();
  let largest = 0;
  for (const letter of ['p', 'q', 'r', 's', 't', 'u', 'v', 'w']) {
    tell(long(letter));
    await memory.close();
    largest = Math.max(largest, (await readFile(path)).length);
  }
  t.ok(largest > 1_000_000 && largest < 2_000_000, `${largest} bytes`);
  t.same(await nextShows(t, path), [entry('b'), long('w')]);
});

test('what the last agent left is replaced, cut lines included', async (t) => {
  stopClock(t);
  const path = await fileWith(t, [entry('b'), entry('c')]);
  await appendFile(path, '{"node":"d');
  const { memory, tell } = makeMemory(t, path);
  await memory.load();
  tell(entry('c'), entry('e'));
  await memory.close();
  t.same(await nextShows(t, path), [entry('b'), entry('c'), entry('e')]);
});

test('a memory that cannot be written does no harm, and is written when it can be', async (t) => {
  const directory = t.testdir({ file: '' });
  const blocked = join(directory, 'file', 'endpoints.jsonl');
  const { memory, tell } = makeMemory(t, blocked);
  tell(entry('b'));
  await memory.close();
  await t.rejects(readFile(blocked), { code: 'ENOTDIR' });
  const path = join(directory, 'endpoints.jsonl');
  const other = makeMemory(t, path);
  other.tell(entry('b'));
  await other.memory.close();
  await rm(path);
  other.tell(entry('c'));
  await other.memory.close();
  await t.rejects(readFile(path), { code: 'ENOENT' }, 'a change has nothing to be added to');
  other.tell(entry('d'));
  await other.memory.close();
  t.same(await nextShows(t, path), [entry('b'), entry('c'), entry('d')]);
});
