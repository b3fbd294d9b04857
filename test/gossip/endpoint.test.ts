import fc from 'fast-check';
import { test } from 'tap';
import { BroadcastQueue } from '../../src/gossip/broadcast-queue.ts';
import { LAN_TUNING } from '../../src/gossip/config.ts';
import { Outbox } from '../../src/gossip/effects.ts';
import {
  decodeEndpointMessage,
  decodeState,
  encodeDeltas,
  encodeDigest,
  encodeState,
  encodeSummary,
} from '../../src/gossip/endpoint-codec.ts';
import { ENDPOINT_VALUE_BYTES_MAX } from '../../src/gossip/endpoint-limits.ts';
import { type Delta, EndpointRecord } from '../../src/gossip/endpoint-record.ts';
import { EndpointSync } from '../../src/gossip/endpoint-sync.ts';
import { EndpointTable, isNewer } from '../../src/gossip/endpoint-table.ts';
import { jsonDepth } from '../../src/gossip/json-depth.ts';
import type { PeerAddress } from '../../src/gossip/peer-address.ts';
import { seededRandom } from '../support/gossip-sim.ts';

const content = (value: number | string) => ({ text: JSON.stringify(value), value });

/** Everything that `record` holds, to compare. */
function dump(record: EndpointRecord): string {
  const entries = [...record.live()].map(({ key, content: { text } }) => `${key}=${text}`);
  return `${record.version}: ${entries.sort().join(' ')}`;
}

function newTable(node: string, generation = 1): EndpointTable {
  return new EndpointTable(node, generation, LAN_TUNING, 0);
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
        const record = new EndpointRecord('n', 1, 0);
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
        const mirror = new EndpointRecord('n', 1, 0);
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
      const record = new EndpointRecord('n', 1, 0);
      const write = ({ key, value }: { key: string; value: number | null }): void =>
        record.write(key, value === null ? undefined : content(value), 0);
      before.forEach(write);
      const mirror = new EndpointRecord('n', 1, 0);
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

test('apply() says what a delta did', (t) => {
  const record = new EndpointRecord('n', 1, 0);
  for (let index = 1; index <= 6; index++) record.write(`k${index}`, content(index), 0);
  const part = (since: number, version: number): Delta => {
    const delta = record.deltaSince(since);
    const entries = delta.entries.filter((entry) => entry.version <= version);
    return { ...delta, version, entries };
  };
  const mirror = new EndpointRecord('n', 1, 0);
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
  t.end();
});

test('digest windows cover all names in turn, and each fits in its packet', (t) => {
  const versions = Array.from({ length: 200 }, (_, index) => {
    return { node: `node-${String(index).padStart(3, '0')}`, generation: 1, version: 7 };
  });
  const covered = new Set<string>();
  for (let start = 0; start < versions.length; start++) {
    const bytes = encodeDigest(versions, start, { bytesMax: 1_384, answer: false });
    t.ok(bytes.length <= 1_384);
    const decoded = decodeEndpointMessage(bytes.subarray(1));
    if (typeof decoded === 'string' || decoded.kind !== 'digest') throw new Error('Not a digest');
    const { from, until } = decoded.window;
    const inRange = versions.filter(({ node }) => node >= from && (until === '' || node < until));
    t.same(decoded.window.versions, inRange);
    for (const { node } of inRange) covered.add(node);
  }
  t.equal(covered.size, versions.length);
  const few = decodeEndpointMessage(
    encodeDigest(versions.slice(0, 5), 3, { bytesMax: 1_384, answer: true }).subarray(1),
  );
  t.match(few, { window: { from: '', until: '', answer: true } });
  t.end();
});

test('user state and messages that are not ours, or broken, are told apart', (t) => {
  t.equal(decodeState(Uint8Array.of(2, 0x80)), 'foreign');
  t.equal(decodeEndpointMessage(Uint8Array.of(0)), 'foreign');
  t.equal(decodeEndpointMessage(new Uint8Array()), 'foreign');
  t.equal(decodeState(Uint8Array.of(0x57, 5)), 'malformed');
  t.equal(decodeState(Uint8Array.of(0x57, 4, 0x80)), 'malformed');
  t.equal(decodeEndpointMessage(Uint8Array.of(0x57, 9, 0x80)), 'malformed');
  const delta = { node: 'a', generation: 1, since: 0, version: 2, full: false };
  const entry = { key: 'k', version: 1, content: content(1) };
  const state = {
    versions: [{ node: 'a', generation: 1, version: 2 }],
    deltas: [{ ...delta, entries: [entry] }],
  };
  t.same(decodeState(encodeState(state)), state);
  for (const wrong of [
    { ...delta, entries: [{ ...entry, version: 3 }] }, // outside of the delta
    { ...delta, since: 2, entries: [] },
    { ...delta, node: '', entries: [] },
    { ...delta, entries: [{ ...entry, content: { text: '{', value: 0 } }] },
    {
      ...delta,
      entries: [{ ...entry, content: { text: '['.repeat(50) + ']'.repeat(50), value: 0 } }],
    },
  ]) {
    t.equal(decodeState(encodeState({ versions: [], deltas: [wrong] })), 'malformed');
  }
  t.end();
});

/** An EndpointSync of node `name`, and what it does. */
function newSync(name: string) {
  const table = newTable(name);
  const queue = new BroadcastQueue(100);
  const sent: Uint8Array[] = [];
  const states: Uint8Array[] = [];
  let exchanges = 0;
  const sync = new EndpointSync({
    ...{ tuning: LAN_TUNING, random: seededRandom(1), table, outbox: new Outbox(), queue },
    send: (_to: PeerAddress, messages) => sent.push(...messages),
    exchange: () => exchanges++,
    repair: (_to, userState) => states.push(userState),
  });
  sync.flush();
  queue.take(10_000, 0, 1, 255);
  const peer = { address: '10.0.0.9', port: 7946 };
  /** Takes encoded messages, and gives what is sent in answer. */
  const receive = (messages: readonly Uint8Array[]): Uint8Array[] => {
    for (const bytes of messages) sync.receive(bytes.subarray(1), peer, 0);
    return sent.splice(0);
  };
  const summary = (): Uint8Array[] => {
    sync.sendSummaries([peer]);
    return sent.splice(0);
  };
  return { table, queue, sync, states, receive, summary, exchanges: () => exchanges };
}

test('a delta that brings news is passed on once; one that does not never is', (t) => {
  const { table, queue, receive } = newSync('o');
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
  t.end();
});

test('summaries that differ lead to digests, repairs, or a push/pull', (t) => {
  const [a, b] = [newSync('a'), newSync('b')];
  a.table.setOwner('b', 'live', 0);
  b.table.setOwner('a', 'live', 0);
  a.table.setLocal('x', 1);
  // a's summary, b's digest, a's repair and its own digest, b's repair.
  const repairs = a.receive(b.receive(a.summary()));
  a.receive(b.receive(repairs));
  t.equal(a.table.summary(), b.table.summary());
  t.same(b.receive(a.summary()), [], 'equal: nothing to say');
  for (let entry = 0; entry < 200; entry++) a.table.setLocal(`k${entry}`, 'x'.repeat(100));
  t.same(a.receive(b.receive(a.summary())), [], 'too much for packets');
  t.equal(a.states.length, 1);
  t.ok(b.sync.merge(a.states[0]!, 0));
  t.equal(a.table.summary(), b.table.summary());
  b.table.setOwner('a', 'failed', 0);
  t.same(a.receive(b.receive(a.summary())), [], 'the same records');
  a.receive(b.receive([encodeSummary('0')]));
  t.equal(a.exchanges(), 1, 'but not the same members: once per summary');
  t.end();
});
