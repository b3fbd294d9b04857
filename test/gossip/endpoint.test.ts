import fc from 'fast-check';
import { test } from 'tap';
import { BroadcastQueue } from '../../src/gossip/broadcast-queue.ts';
import { LAN_TUNING } from '../../src/gossip/config.ts';
import { Outbox } from '../../src/gossip/effects.ts';
import { decodeEndpointMessage } from '../../src/gossip/endpoint-decoder.ts';
import type { Delta } from '../../src/gossip/endpoint-delta.ts';
import { encodeEndpointMessage, encodeEndpointPayload } from '../../src/gossip/endpoint-encoder.ts';
import { ENDPOINT_VALUE_BYTES_MAX, RECORD_BYTES_MAX } from '../../src/gossip/endpoint-limits.ts';
import type { EndpointMessage } from '../../src/gossip/endpoint-messages.ts';
import { encodeDeltas, packDigests, packWindows } from '../../src/gossip/endpoint-packing.ts';
import { EndpointRecord, RECORD_ENTRIES_MAX } from '../../src/gossip/endpoint-record.ts';
import { EndpointSync } from '../../src/gossip/endpoint-sync.ts';
import { EndpointTable } from '../../src/gossip/endpoint-table.ts';
import {
  differingSums,
  EndpointTree,
  leafOf,
  SUM_BYTES,
  TREE_FANOUT,
  TREE_LEAVES,
} from '../../src/gossip/endpoint-tree.ts';
import { isJsonTooDeep, JSON_DEPTH_MAX, jsonDepth } from '../../src/gossip/json-depth.ts';
import { isNewer } from '../../src/gossip/record-version.ts';
import { seededRandom } from '../support/gossip-sim.ts';

const content = (value: number | string): string => JSON.stringify(value);

/** Everything that `record` holds, to compare. */
function dump(record: EndpointRecord): string {
  const entries = [...record.live()].map((entry) => `${entry.key}=${entry.content}`);
  return `${record.version}: ${entries.sort().join(' ')}`;
}

function newTable(node: string, generation = 1): EndpointTable {
  return new EndpointTable(node, generation, { tuning: LAN_TUNING }, 0);
}

/** Brings `to` all that `from` has of `node`. */
function copy(from: EndpointTable, to: EndpointTable, node: string) {
  const delta = from.deltaFor(node, to.versionOf(node));
  return delta && to.apply(delta, 0);
}

function dumpTable(table: EndpointTable): string {
  return [...table.visible()]
    .map(({ node, key, value }) => `${node}/${key}=${value}`)
    .sort()
    .join(' ');
}

const writes = fc.array(
  fc.record({ key: fc.constantFrom('a', 'b', 'c', 'd'), value: fc.option(fc.nat(99)) }),
  { minLength: 1, maxLength: 40 },
);

test('a copy that gets all deltas, in any order and more than once, equals the record', (t) => {
  fc.assert(
    fc.property(
      writes,
      fc.integer({ min: 1, max: 7 }),
      fc.infiniteStream(fc.nat()),
      (all, step, chance) => {
        const record = new EndpointRecord('n', 1);
        const deltas: Delta[] = [];
        let since = 0;
        for (const [index, { key, value }] of all.entries()) {
          record.write(key, value === null ? undefined : content(value), 0);
          if (index % step === 0) {
            deltas.push(record.deltaSince(since));
            since = record.version;
          }
        }
        deltas.push(record.deltaSince(since));
        const order = deltas
          .filter(({ version }) => version > 0)
          .flatMap((delta) => [delta, delta]);
        order.sort(() => ((chance.next().value ?? 0) % 3) - 1);
        const mirror = new EndpointRecord('n', 1);
        for (const delta of order)
          if (delta.version > delta.since) mirror.apply(delta, 0, new Map());
        // Many gaps at once may be forgotten: the last word comes from a repair.
        if (mirror.version < record.version)
          mirror.apply(record.deltaSince(mirror.version), 0, new Map());
        t.equal(dump(mirror), dump(record));
      },
    ),
    { numRuns: 200 },
  );
  t.end();
});

test('a copy from before forgotten deletions gets them by a full delta, in parts too', (t) => {
  fc.assert(
    fc.property(writes, writes, fc.integer({ min: 150, max: 400 }), (before, after, bytesMax) => {
      const record = new EndpointRecord('n', 1);
      const write = ({ key, value }: { key: string; value: number | null }): void =>
        record.write(key, value === null ? undefined : content(value), 0);
      before.forEach(write);
      const mirror = new EndpointRecord('n', 1);
      mirror.apply(record.deltaSince(0), 0, new Map());
      after.forEach(write);
      record.forgetDeletions(1);
      const { messages, whole } = encodeDeltas(
        record.deltaSince(mirror.version),
        'repair',
        bytesMax,
        99,
      );
      t.ok(whole);
      for (const bytes of messages) {
        t.ok(bytes.length <= bytesMax);
        const decoded = decodeEndpointMessage(bytes.subarray(1));
        if (typeof decoded === 'string' || decoded.kind !== 'repair')
          throw new Error('Not a repair');
        mirror.apply(decoded.delta, 0, new Map());
      }
      t.equal(dump(mirror), dump(record));
    }),
    { numRuns: 200 },
  );
  t.end();
});

test('deltaSince() gives what changed, however long ago and however often', (t) => {
  const keys = fc.integer({ min: 0, max: 40 });
  const changes = fc.array(fc.tuple(keys, fc.option(fc.nat(9))), { minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(changes, fc.constantFrom(1, 20), fc.nat(999), (all, rounds, permille) => {
      const record = new EndpointRecord('n', 1);
      const latest = new Map<string, { version: number; content: string | undefined }>();
      for (let round = 0; round < rounds; round++) {
        for (const [index, value] of all) {
          const text = value === null ? undefined : content(value + round);
          record.write(`k${index}`, text, 0);
          latest.set(`k${index}`, { version: record.version, content: text });
        }
      }
      const since = Math.floor((record.version * permille) / 1_000);
      const expected = Array.from(latest, ([key, entry]) => ({ key, ...entry }))
        .filter(({ version }) => version > since)
        .sort((a, b) => a.version - b.version);
      for (const one of [record, record.clone()]) t.same(one.deltaSince(since).entries, expected);
    }),
    { numRuns: 100 },
  );
  t.end();
});

test('a record that has as many entries as may be can be changed, and all of it replaced', (t) => {
  const record = new EndpointRecord('n', 1);
  const count = RECORD_ENTRIES_MAX;
  for (let index = 0; index < count; index++) record.write(`old${index}`, content(index), 0);
  const mirror = new EndpointRecord('n', 1);
  const update = (): string => mirror.apply(record.deltaSince(mirror.version), 0, new Map());
  t.equal(update(), 'applied');
  record.write('old7', content('new'), 0);
  t.equal(update(), 'applied');
  t.equal(mirror.get('old7'), content('new'));
  const tooMany = { ...record.deltaSince(count), since: count + 1, version: count + 2 };
  const more = [{ key: 'more', version: count + 2, content: content(1) }];
  t.equal(mirror.apply({ ...tooMany, entries: more }, 0, new Map()), 'full');
  for (let index = 0; index < count; index++) record.write(`old${index}`, undefined, 0);
  record.forgetDeletions(1);
  for (let index = 0; index < count; index++) record.write(`new${index}`, content(index), 0);
  t.equal(update(), 'applied');
  t.equal(dump(mirror), dump(record));
  t.end();
});

test('apply() says what a delta did', (t) => {
  const record = new EndpointRecord('n', 1);
  for (let index = 1; index <= 6; index++) record.write(`k${index}`, content(index), 0);
  const part = (since: number, version: number): Delta => {
    const delta = record.deltaSince(since);
    const entries = delta.entries.filter((entry) => entry.version <= version);
    return { ...delta, version, entries };
  };
  const mirror = new EndpointRecord('n', 1);
  for (const [since, version, result, reached] of [
    [0, 1, 'applied', 1],
    [0, 1, 'stale', 1],
    [2, 3, 'gap', 1],
    [4, 5, 'gap', 1],
    [1, 2, 'applied', 3], // closes the first gap
    [0, 6, 'applied', 6],
    [2, 3, 'stale', 6],
  ] as const) {
    t.equal(mirror.apply(part(since, version), 0, new Map()), result, `${since}..${version}`);
    t.equal(mirror.version, reached);
  }
  t.equal(dump(mirror), dump(record));
  t.end();
});

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

/** Versions as a table with these nodes lists them. */
function versionsOf(nodes: readonly string[]) {
  const table = newTable('self');
  for (const node of nodes) {
    copy(newTable(node), table, node);
    table.setOwner(node, 'live', 0);
  }
  const versions = table.versionsIn(0, TREE_LEAVES);
  return versions.map((version) => ({ ...version, isLive: true }));
}

test('windows cover their range without a hole, and each digest fits in its packet', (t) => {
  const nodes = Array.from({ length: 400 }, (_, index) => `node-${index}`);
  const versions = versionsOf(nodes);
  const range = { first: 0, last: TREE_LEAVES };
  for (const bytesMax of [300, 1_384]) {
    const { windows, rest } = packWindows(range, versions, bytesMax, 1_000);
    t.equal(rest, undefined);
    let next = 0;
    for (const { first, last, versions: inside } of windows) {
      t.equal(first, next);
      next = last;
      const expected = versions.filter(({ leaf }) => leaf >= first && leaf < last);
      t.same(
        inside,
        expected.map(({ leaf: _, ...version }) => version),
      );
    }
    t.equal(next, TREE_LEAVES);
    const digests = packDigests(windows, bytesMax);
    t.same(digests.flat(), windows);
    for (const some of digests) {
      const message = { kind: 'digest', windows: some, answer: false } as const;
      t.ok(encodeEndpointMessage(message).length <= bytesMax);
    }
    const cut = packWindows(range, versions, bytesMax, 2);
    t.same([...cut.windows, cut.rest?.first], [...windows.slice(0, 2), windows[2]?.first]);
  }
  t.same(packWindows({ first: 7, last: 9 }, [], 300, 1), {
    windows: [{ first: 7, last: 9, versions: [] }],
    rest: undefined,
  });
  t.end();
});

test('a leaf that does not fit in a packet is left to a stream', (t) => {
  const [some] = versionsOf(['a']);
  const crowd = Array.from({ length: 40 }, (_, index) => ({
    ...some!,
    leaf: 5,
    node: `n${index}`,
  }));
  const range = { first: 3, last: 8 };
  const packed = packWindows(range, [{ ...some!, leaf: 4 }, ...crowd], 300, 9);
  t.match(packed.windows, [{ first: 3, last: 5, versions: [{ node: some!.node }] }]);
  t.same(packed.rest, { first: 5, last: 8 });
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

const DELTA = {
  ...{ node: 'a', generation: 1, since: 0, version: 2, atMs: 7, full: false },
  entries: [
    { key: 'k', version: 1, content: content(1) },
    { key: 'gone', version: 2, content: undefined },
  ],
};
const VERSION = { node: 'a', generation: 1, version: 2, isLive: true };
const WINDOW = { first: 0, last: TREE_LEAVES, versions: [VERSION] };

test('what is said of endpoints is read as it was written', (t) => {
  const messages: readonly EndpointMessage[] = [
    { kind: 'delta', delta: DELTA },
    { kind: 'repair', delta: { ...DELTA, full: true } },
    { kind: 'summary', summary: '0123456789abcdef' },
    {
      kind: 'digest',
      windows: [
        { ...WINDOW, last: 3 },
        { first: 3, last: 4, versions: [] },
      ],
      answer: true,
    },
    { kind: 'branches', sums: new Uint8Array(TREE_FANOUT * SUM_BYTES).fill(3) },
    { kind: 'leaves', branch: 63, sums: new Uint8Array(TREE_FANOUT * SUM_BYTES) },
    { kind: 'behind', first: 1, last: 2 },
    { kind: 'pull', ...WINDOW },
    { kind: 'pull', ...WINDOW, resume: { node: 'a', until: 9 } },
    { kind: 'pulled', deltas: [DELTA], next: TREE_LEAVES },
    { kind: 'pulled', deltas: [], next: 0, resume: { node: 'a', until: 9 } },
  ];
  for (const message of messages) {
    const payload = encodeEndpointPayload(message);
    t.same(decodeEndpointMessage(payload), message, message.kind);
    t.same(encodeEndpointMessage(message), [8, ...payload]);
    const cut = payload.subarray(0, payload.length - 1);
    t.equal(decodeEndpointMessage(cut), 'malformed', `${message.kind}, cut short`);
  }
  t.end();
});

test('messages that are not ours, or broken, are told apart', (t) => {
  t.equal(decodeEndpointMessage(Uint8Array.of(2, 0x80)), 'foreign');
  t.equal(decodeEndpointMessage(Uint8Array.of(0)), 'foreign');
  t.equal(decodeEndpointMessage(new Uint8Array()), 'foreign');
  t.equal(decodeEndpointMessage(Uint8Array.of(0x57, 5)), 'malformed');
  t.match(decodeEndpointMessage(Uint8Array.of(0x57, 4, 0x80)), { windows: [] }, 'an empty one');
  t.equal(decodeEndpointMessage(Uint8Array.of(0x57, 10, 0x80)), 'malformed');
  const [entry] = DELTA.entries;
  for (const wrong of [
    { ...DELTA, entries: [{ ...entry!, version: 3 }] }, // outside of the delta
    { ...DELTA, since: 2, entries: [] },
    { ...DELTA, node: '', entries: [] },
    { ...DELTA, entries: [{ ...entry!, content: '{' }] },
    { ...DELTA, entries: [{ ...entry!, content: '['.repeat(50) + ']'.repeat(50) }] },
  ]) {
    for (const message of [
      { kind: 'delta', delta: wrong },
      { kind: 'pulled', deltas: [wrong], next: 0 },
    ] as const) {
      t.equal(decodeEndpointMessage(encodeEndpointPayload(message)), 'malformed');
    }
  }
  for (const message of [
    { kind: 'branches', sums: new Uint8Array(8) },
    { kind: 'leaves', branch: 64, sums: new Uint8Array(TREE_FANOUT * SUM_BYTES) },
    { kind: 'behind', first: 2, last: 2 },
    { kind: 'behind', first: 0, last: TREE_LEAVES + 1 },
    { kind: 'pull', ...WINDOW, versions: [{ ...VERSION, node: '' }] },
    { kind: 'pulled', deltas: [], next: TREE_LEAVES + 1 },
  ] as const) {
    t.equal(decodeEndpointMessage(encodeEndpointPayload(message)), 'malformed');
  }
  t.end();
});

const PEER = { address: '10.0.0.9', port: 7946 };

/** An EndpointSync of node `name`, and what it does. */
function newSync(name: string) {
  const table = newTable(name);
  const queue = new BroadcastQueue(100);
  const sent: Uint8Array[] = [];
  const asked: Uint8Array[] = [];
  const askedOf: string[] = [];
  const told: string[] = [];
  let largest = 0;
  const sync = new EndpointSync({
    ...{ tuning: LAN_TUNING, random: seededRandom(1), table, outbox: new Outbox(), queue },
    epochMs: () => 1_000,
    hasten: () => {},
    send: (_to, messages) => {
      sent.push(...messages);
      largest = Math.max(largest, ...messages.map(({ length }) => length));
    },
    tellOf: (_to, node) => told.push(node),
    isPeer: () => true,
    ask: (to, payload) => {
      asked.push(payload);
      askedOf.push(to.address);
    },
  });
  sync.flush(0);
  queue.take(10_000, 0, 1, 255);
  /** Takes encoded messages, and gives what is sent in answer. */
  const receive = (messages: readonly Uint8Array[]): Uint8Array[] => {
    for (const bytes of messages) sync.receive(bytes.subarray(1), PEER, 0);
    return sent.splice(0);
  };
  const summary = (): Uint8Array[] => {
    sync.sendSummaries([PEER]);
    return sent.splice(0);
  };
  const largestSent = (): number => largest;
  return { table, queue, sync, asked, askedOf, told, receive, summary, largest: largestSent };
}

/** Lets `a` and `b` talk about the summary of `a` until neither has anything to say by packet. */
function compare(a: ReturnType<typeof newSync>, b: ReturnType<typeof newSync>): string[] {
  const kinds: string[] = [];
  let messages = a.summary();
  for (let [from, to] = [a, b]; messages.length > 0; [from, to] = [to, from]) {
    const decoded = messages.map((bytes) => decodeEndpointMessage(bytes.subarray(1)));
    kinds.push(...decoded.map((message) => (typeof message === 'string' ? message : message.kind)));
    messages = to.receive(messages);
  }
  return kinds;
}

/** Answers what `a` asks of `b` by stream until it asks no more. @returns the sizes of the answers */
function pull(a: ReturnType<typeof newSync>, b: ReturnType<typeof newSync>): number[] {
  const sizes: number[] = [];
  for (let payload = a.asked.shift(); payload !== undefined; payload = a.asked.shift()) {
    const answer = b.sync.serve(payload)!;
    sizes.push(answer.length);
    a.sync.answered(PEER, answer, 0);
  }
  return sizes;
}

test('a delta that brings news is passed on once; one that does not never is', (t) => {
  const { table, queue, sync, receive } = newSync('o');
  table.setOwner('a', 'live', 0);
  const owner = newTable('a');
  for (let index = 0; index < 3; index++) owner.setLocal(`k${index}`, index);
  const whole = owner.deltaFor('a', undefined)!;
  const tail = owner.deltaFor('a', { node: 'a', generation: 1, version: 2 })!;
  const encode = (delta: Delta): Uint8Array[] => encodeDeltas(delta, 'delta', 1_384, 8).messages;
  const passedOn = (delta: Delta): number => {
    receive(encode(delta));
    return queue.take(10_000, 0, 1, 255).length;
  };
  t.equal(passedOn(tail), 0, 'useless without what came before');
  t.equal(passedOn({ ...whole, version: 2, entries: whole.entries.slice(0, 1) }), 1);
  owner.setLocal('k9', 9);
  const ahead = owner.deltaFor('a', { node: 'a', generation: 1, version: 4 })!;
  t.equal(passedOn(ahead), 1, 'ahead of a gap, but news');
  t.equal(passedOn(ahead), 0);
  t.equal(passedOn(tail), 1);
  t.equal(passedOn(whole), 0);
  t.equal(dumpTable(table), 'a/k0=0 a/k1=1 a/k2=2 a/k9=9');
  t.equal(sync.stats.repairs, 0);
  t.same([...sync.stats.lagMs], [], 'who says not when has no lag');
  const late = owner.deltaFor('a', { node: 'a', generation: 1, version: 5 });
  t.equal(late, undefined);
  owner.setLocal('k9', 10);
  const update = owner.deltaFor('a', { node: 'a', generation: 1, version: 5 })!;
  t.equal(passedOn({ ...update, atMs: 750 }), 1);
  t.same([...sync.stats.lagMs], [['a', 250]]);
  t.end();
});

test('summaries that differ lead to digests and repairs, and then they are equal', (t) => {
  const [a, b] = [newSync('a'), newSync('b')];
  a.table.setOwner('b', 'live', 0);
  b.table.setOwner('a', 'live', 0);
  a.table.setLocal('x', 1);
  t.same(compare(a, b), ['summary', 'digest', 'repair', 'digest', 'repair']);
  t.equal(a.table.summary(), b.table.summary());
  t.same(compare(a, b), ['summary'], 'equal: nothing to say');
  t.same([a.sync.stats.repairs, b.sync.stats.repairs, b.sync.stats.mismatches], [1, 1, 1]);
  for (let entry = 0; entry < 200; entry++) a.table.setLocal(`k${entry}`, 'x'.repeat(100));
  t.same(compare(a, b), ['summary', 'digest', 'behind'], 'too much for packets');
  t.equal(pull(b, a).length, 1);
  t.equal(a.table.summary(), b.table.summary());
  t.end();
});

test('nodes with the same records that disagree on a member tell each other of it', (t) => {
  const [a, b] = [newSync('a'), newSync('b')];
  for (const { table } of [a, b]) for (const node of ['a', 'b']) table.setOwner(node, 'live', 0);
  compare(a, b);
  b.table.setOwner('a', 'failed', 0);
  compare(a, b);
  t.same([a.told, b.told], [['a'], []], 'whoever sees that the other is wrong');
  t.same(b.table.setOwner('a', 'live', 0), undefined, 'which has no endpoints');
  t.same(compare(a, b), ['summary']);
  t.end();
});

test('in a large cluster a difference is found by sums, and costs a few packets', (t) => {
  for (const [count, kinds] of [
    [300, ['summary', 'branches', 'digest', 'repair']],
    [8_000, ['summary', 'branches', 'leaves', 'digest', 'digest', 'repair']],
  ] as const) {
    const [a, b] = [newSync('a'), newSync('b')];
    for (const node of ['a', 'b']) for (const { table } of [a, b]) table.setOwner(node, 'live', 0);
    compare(a, b);
    const records = Array.from({ length: count }, (_, index) => new EndpointRecord(`n${index}`, 1));
    for (const record of records) record.write('k', content(1), 0);
    for (const { table } of [a, b])
      table.restore(
        records.map((record) => record.clone()),
        0,
      );
    t.same(compare(a, b), ['summary']);
    const changed = records[7]!.clone();
    changed.write('k', content(2), 0);
    a.table.apply(changed.deltaSince(1), 0);
    t.same(compare(b, a), kinds, `${count} records`);
    t.equal(a.table.summary(), b.table.summary());
    t.match(
      [...b.table.visible()].find(({ node }) => node === 'n7'),
      { value: 2 },
    );
  }
  t.end();
});

test('nodes of the longest names come to agree, and no message is larger than a packet', (t) => {
  for (const [count, lacking] of [
    [4_000, 1],
    [4_000, 300],
    [4_000, 4_000],
    [60, 3],
  ] as const) {
    const [a, b] = [newSync('a'), newSync('b')];
    for (const node of ['a', 'b']) for (const { table } of [a, b]) table.setOwner(node, 'live', 0);
    const records = Array.from({ length: count }, (_, index) => {
      const record = new EndpointRecord(`${'x'.repeat(250)}${index}`, 1);
      record.write('k', content(1), 0);
      return record;
    });
    a.table.restore(records, 0);
    b.table.restore(records.slice(lacking), 0);
    for (const { node } of records) b.table.setOwner(node, 'live', 0);
    b.table.setLocal('own', 1); // which a lacks
    for (let round = 0; round < 40 && a.table.summary() !== b.table.summary(); round++) {
      const [from, to] = round % 2 === 0 ? [a, b] : [b, a];
      compare(from, to);
      pull(a, b);
      pull(b, a);
    }
    t.equal(a.table.summary(), b.table.summary(), `${lacking} of ${count}`);
    t.ok(a.largest() <= LAN_TUNING.packetBytesMax, `${a.largest()} bytes`);
    t.ok(b.largest() <= LAN_TUNING.packetBytesMax, `${b.largest()} bytes`);
  }
  t.end();
});

test('a node that is new pulls all tables in bounded parts, a large record among them', (t) => {
  const [a, b] = [newSync('a'), newSync('b')];
  for (const { table } of [a, b]) for (const node of ['a', 'b']) table.setOwner(node, 'live', 0);
  const large = new EndpointRecord('large', 1);
  for (let entry = 0; entry < 5_000; entry++) large.write(`k${entry}`, content('x'.repeat(200)), 0);
  const small = Array.from({ length: 3_000 }, (_, index) => new EndpointRecord(`n${index}`, 1));
  for (const record of small) record.write('k', content('x'.repeat(100)), 0);
  a.table.restore([large, ...small], 0);
  for (const { node } of [large, ...small]) b.table.setOwner(node, 'live', 0);
  b.sync.pullFrom(PEER, 0);
  const sizes = pull(b, a);
  t.ok(sizes.length > 5, `${sizes.length} answers`);
  t.ok(Math.max(...sizes) < 400_000, `of ${Math.max(...sizes)} bytes at most`);
  compare(a, b); // b's own record, which a lacks, goes the other way
  t.equal(a.table.summary(), b.table.summary());
  t.equal(dumpTable(a.table), dumpTable(b.table));
  t.equal(a.table.bytes, b.table.bytes);
  t.end();
});

test('a large copy from before forgotten deletions is brought up to date in parts', (t) => {
  const [a, b] = [newSync('a'), newSync('b')];
  for (const { table } of [a, b]) {
    for (const node of ['a', 'b', 'large']) table.setOwner(node, 'live', 0);
  }
  const large = new EndpointRecord('large', 1);
  for (let entry = 0; entry < 4_000; entry++) large.write(`k${entry}`, content('x'.repeat(200)), 0);
  b.table.restore([large.clone()], 0);
  for (let entry = 0; entry < 4_000; entry += 2) large.write(`k${entry}`, undefined, 1);
  large.forgetDeletions(2);
  for (let entry = 1; entry < 4_000; entry += 2)
    large.write(`k${entry}`, content('y'.repeat(200)), 3);
  a.table.restore([large], 0);
  b.sync.pullFrom(PEER, 0);
  t.ok(pull(b, a).length > 1);
  compare(a, b);
  t.equal(dumpTable(a.table), dumpTable(b.table));
  t.end();
});

test('a pull that nobody answers, or that brings nothing, ends', (t) => {
  const [a, b] = [newSync('a'), newSync('b')];
  b.sync.pullFrom(PEER, 0);
  b.sync.pullFrom(PEER, 1);
  t.equal(b.asked.length, 1, 'one at a time');
  b.sync.pullFrom(PEER, LAN_TUNING.streamTimeoutMs);
  t.equal(b.asked.length, 2, 'after its time is over');
  b.asked.splice(0);
  const nothing = encodeEndpointPayload({ kind: 'pulled', deltas: [], next: 0 });
  b.sync.answered(PEER, nothing, 0);
  t.equal(b.asked.length, 0);
  a.sync.answered(PEER, encodeEndpointPayload({ kind: 'summary', summary: '' }), 0);
  t.equal(a.sync.serve(nothing), undefined);
  t.end();
});

test('what two others have is fetched once, a part from each, and what one owes from a third', (t) => {
  const [a, b] = [newSync('a'), newSync('b')];
  const records = Array.from({ length: 900 }, (_, index) => new EndpointRecord(`n${index}`, 1));
  for (const record of records) {
    record.write('k', content('x'.repeat(2_000)), 0);
    b.table.setOwner(record.node, 'live', 0);
  }
  a.table.restore(records, 0);
  const peers = ['10.0.0.1', '10.0.0.2', '10.0.0.3'].map((address) => ({ address, port: 7946 }));
  const [first, second, third] = peers as [typeof PEER, typeof PEER, typeof PEER];
  let came = 0;
  /** All that is asked is answered, but what is asked of `mute`. */
  const exchange = (mute?: string): void => {
    for (let payload = b.asked.shift(); payload !== undefined; payload = b.asked.shift()) {
      const address = b.askedOf.shift();
      if (address === mute) continue;
      const answer = a.sync.serve(payload)!;
      const decoded = decodeEndpointMessage(answer);
      if (typeof decoded === 'string' || decoded.kind !== 'pulled') throw new Error('No answer');
      came += decoded.deltas.length;
      b.sync.answered({ address: address!, port: 7946 }, answer, 0);
    }
  };
  b.sync.pullFrom(first, 0);
  b.sync.pullFrom(second, 0);
  t.same(b.askedOf, [first.address, second.address]);
  b.sync.receive(encodeEndpointPayload({ kind: 'behind', first: 10, last: 20 }), third, 0);
  t.equal(b.asked.length, 2, 'no more at once');
  exchange(second.address);
  const half = came;
  t.ok(half > 400 && half < 600, `${half} records of the first`);
  b.sync.receive(encodeEndpointPayload({ kind: 'behind', first: 2_100, last: 2_110 }), third, 1);
  t.equal(b.asked.length, 0, 'is left to the second');
  const { streamTimeoutMs } = LAN_TUNING;
  b.sync.pullFrom(third, streamTimeoutMs);
  exchange();
  t.equal(came, records.length + 1, 'each record once, the own one of who has them too');
  for (const { node } of records) t.same(b.table.versionOf(node), a.table.versionOf(node));
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
