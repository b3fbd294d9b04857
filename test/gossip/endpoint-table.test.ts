import fc from 'fast-check';
import { test } from 'tap';
import { LAN_TUNING } from '../../src/gossip/config.ts';
import { ENDPOINT_VALUE_BYTES_MAX, RECORD_BYTES_MAX } from '../../src/gossip/endpoint-limits.ts';
import { EndpointRecord, RECORD_ENTRIES_MAX } from '../../src/gossip/endpoint-record.ts';
import {
  differingSums,
  EndpointTree,
  leafOf,
  TREE_FANOUT,
} from '../../src/gossip/endpoint-tree.ts';
import { isJsonTooDeep, JSON_DEPTH_MAX, jsonDepth } from '../../src/gossip/json-depth.ts';
import { isNewer } from '../../src/gossip/record-version.ts';
import { copy, dumpTable, newTable } from '../support/endpoint-tables.ts';

test('records are visible while their owner lives', (t) => {
  const a = newTable('a');
  const b = newTable('b');
  a.setLocal('x', 1);
  a.setLocal('y', 2);
  t.equal(a.setLocal('x', 1), false, 'nothing new');
  t.equal(copy(a, b, 'a')?.change, undefined, 'no member yet: hidden');
  t.equal(dumpTable(b), '');
  const added = [
    { key: 'x', value: 1 },
    { key: 'y', value: 2 },
  ];
  t.same(b.setOwner('a', 'live', 0), { node: 'a', added, changed: [], removed: [] });
  t.equal(dumpTable(b), 'a/x=1 a/y=2');
  a.setLocal('x', 3);
  t.ok(a.deleteLocal('y'));
  t.notOk(a.deleteLocal('y'));
  a.setLocal('z', 4);
  t.same(copy(a, b, 'a')?.change, {
    node: 'a',
    added: [{ key: 'z', value: 4 }],
    changed: [{ key: 'x', value: 3 }],
    removed: ['y'],
  });
  t.equal(a.summary() === b.summary(), false, 'b has a record of its own');
  t.same(b.setOwner('a', 'failed', 1), { node: 'a', added: [], changed: [], removed: ['x', 'z'] });
  t.equal(b.deltaFor('a', undefined), undefined, 'the dead are not passed on');
  a.setLocal('x', 5);
  t.equal(copy(a, b, 'a')?.change, undefined, 'still hidden');
  b.setOwner('a', 'live', 2);
  t.equal(dumpTable(b), 'a/x=5 a/z=4');
  t.end();
});

test('a higher generation replaces the record, a lower one is stale', (t) => {
  const observer = newTable('o');
  observer.setOwner('a', 'live', 0);
  const first = newTable('a', 1);
  first.setLocal('old', 1);
  first.setLocal('both', 1);
  copy(first, observer, 'a');
  const second = newTable('a', 2);
  second.setLocal('both', 1);
  second.setLocal('new', 2);
  t.equal(
    observer.apply(second.deltaFor('a', { node: 'a', generation: 2, version: 2 })!, 0).result,
    'gap',
  );
  t.same(copy(second, observer, 'a')?.change, {
    node: 'a',
    added: [{ key: 'new', value: 2 }],
    changed: [],
    removed: ['old'],
  });
  t.equal(observer.apply(first.deltaFor('a', undefined)!, 0).result, 'stale');
  const empty = newTable('a', 3);
  t.match(copy(empty, observer, 'a')?.change?.removed, ['both', 'new'], 'an empty life too');
  t.end();
});

test('a node whose generation was used before outbids its own past', (t) => {
  const now = newTable('a', 5);
  now.setLocal('x', 1);
  const version = now.ownVersion;
  t.notOk(now.outbid({ node: 'b', generation: 9, version: 9 }));
  t.notOk(now.outbid({ node: 'a', generation: 4, version: 99 }));
  t.notOk(now.outbid(version));
  t.ok(now.outbid({ node: 'a', generation: 5, version: 99 }));
  t.equal(now.ownVersion.generation, 6);
  t.ok(isNewer(now.ownVersion, { generation: 5, version: 99 }));
  t.end();
});

test('collect() forgets the departed after their time', (t) => {
  const table = newTable('o');
  for (const [node, state] of [
    ['l', 'left'],
    ['f', 'failed'],
    ['u', undefined],
  ] as const) {
    const other = newTable(node);
    copy(other, table, node);
    if (state !== undefined) table.setOwner(node, state, 0);
  }
  const nodes = (): string =>
    table
      .digest()
      .map(({ node }) => node)
      .join('');
  table.collect(LAN_TUNING.departedRecordMs);
  t.equal(nodes(), 'flou');
  table.collect(LAN_TUNING.departedRecordMs + 1);
  t.equal(nodes(), 'fo');
  table.collect(LAN_TUNING.reconnectTimeoutMs + 1);
  t.equal(nodes(), 'o');
  t.end();
});

test('what is too large is refused with a code', (t) => {
  const table = newTable('a');
  let deep: unknown[] = [];
  for (let index = 0; index < 40; index++) deep = [deep];
  for (const [key, value, code] of [
    ['k'.repeat(256), 1, 'KEY_TOO_LONG'],
    ['k', 'v'.repeat(ENDPOINT_VALUE_BYTES_MAX), 'VALUE_TOO_LARGE'],
    ['k', deep, 'VALUE_TOO_DEEP'],
  ] as const) {
    t.throws(() => table.setLocal(key, value as never), {
      name: 'EndpointError',
      detail: { code },
    });
  }
  t.equal(dumpTable(table), '', 'nothing half-done');
  t.equal(jsonDepth('{"a[[[":"\\"[[[",  "b":[[1],{}]}'), 3);
  for (const [text, isDeep] of [
    ['[{'.repeat(16), false],
    [`${'[{'.repeat(16)}[`, true],
    ['{'.repeat(33), true],
    ['{}[]'.repeat(99), false],
    [JSON.stringify('[{'.repeat(99)), false],
  ] as const) {
    t.equal(isJsonTooDeep(text), isDeep, text);
    t.equal(jsonDepth(text) > JSON_DEPTH_MAX, isDeep);
  }
  t.end();
});

test('a node says no more than others have room for', (t) => {
  const table = newTable('a');
  const most = 'x'.repeat(ENDPOINT_VALUE_BYTES_MAX - 2);
  const detail = { code: 'RECORD_TOO_LARGE', bytesMax: RECORD_BYTES_MAX };
  const tooLarge = { name: 'EndpointError', detail };
  let count = 0;
  const fill = (): void => {
    for (; count < RECORD_ENTRIES_MAX; count++) table.setLocal(`k${count}`, most);
  };
  t.throws(fill, tooLarge);
  t.ok(table.bytes <= RECORD_BYTES_MAX && table.bytes > RECORD_BYTES_MAX - 2 * most.length);
  t.ok(table.setLocal('k0', most.replace('x', 'y')), 'what does not grow is never refused');
  t.ok(table.setLocal('k0', 1));
  t.ok(table.setLocal('small', 1));
  t.throws(fill, tooLarge);
  t.end();
});

test('the tree tells in which leaves two tables differ, whatever the order of changes', (t) => {
  const nodes = fc.uniqueArray(fc.integer({ min: 0, max: 400 }), { maxLength: 60 });
  fc.assert(
    fc.property(nodes, nodes, (mine, theirs) => {
      const [a, b] = [mine, theirs].map((some) => {
        const tree = new EndpointTree();
        for (const index of some) tree.add(new EndpointRecord(`node-${index}`, 1).fingerprint);
        return tree;
      });
      const odd = [...mine, ...theirs].filter((n) => !mine.includes(n) || !theirs.includes(n));
      const expected = new Set(odd.map((index) => leafOf(`node-${index}`)));
      const found = differingSums(a!.branches(), b!.branches()).flatMap((branch) =>
        differingSums(a!.leaves(branch), b!.leaves(branch)).map(
          (index) => branch * TREE_FANOUT + index,
        ),
      );
      t.same(
        found,
        [...expected].sort((x, y) => x - y),
      );
      t.equal(a!.root === b!.root, expected.size === 0);
      for (const index of mine) a!.remove(new EndpointRecord(`node-${index}`, 1).fingerprint);
      t.equal(a!.root, '0'.repeat(16));
    }),
    { numRuns: 100 },
  );
  t.end();
});
