import { test } from 'tap';
import { BroadcastQueue } from '../../src/gossip/broadcast-queue.ts';
import { LAN_TUNING } from '../../src/gossip/config.ts';
import { Outbox } from '../../src/gossip/effects.ts';
import { decodeEndpointMessage } from '../../src/gossip/endpoint-decoder.ts';
import type { Delta } from '../../src/gossip/endpoint-delta.ts';
import { encodeEndpointPayload } from '../../src/gossip/endpoint-encoder.ts';
import { encodeDeltas } from '../../src/gossip/endpoint-packing.ts';
import { EndpointRecord } from '../../src/gossip/endpoint-record.ts';
import { EndpointSync } from '../../src/gossip/endpoint-sync.ts';
import { content, dumpTable, newTable } from '../support/endpoint-tables.ts';
import { seededRandom } from '../support/gossip-sim.ts';

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
