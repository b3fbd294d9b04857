// What a member, or whoever can send to the gossip port, may try: no crash, no growth, no amplification.
import { test } from 'tap';
import { BroadcastQueue } from '../../src/gossip/broadcast-queue.ts';
import { LAN_TUNING } from '../../src/gossip/config.ts';
import { Outbox } from '../../src/gossip/effects.ts';
import { decodeEndpointMessage } from '../../src/gossip/endpoint-decoder.ts';
import type { Delta } from '../../src/gossip/endpoint-delta.ts';
import { encodeEndpointMessage, encodeEndpointPayload } from '../../src/gossip/endpoint-encoder.ts';
import { EndpointRecord, RECORD_ENTRIES_MAX } from '../../src/gossip/endpoint-record.ts';
import { EndpointSync } from '../../src/gossip/endpoint-sync.ts';
import { EndpointTable } from '../../src/gossip/endpoint-table.ts';
import { TREE_LEAVES } from '../../src/gossip/endpoint-tree.ts';
import { Gossip } from '../../src/gossip/gossip.ts';
import { encodeMessage } from '../../src/gossip/messages.ts';
import { decodeMsgpack, MSGPACK_VALUES_MAX } from '../../src/gossip/msgpack.ts';
import type { PeerAddress } from '../../src/gossip/peer-address.ts';
import { seededRandom } from '../support/gossip-sim.ts';

const PEER: PeerAddress = { address: '10.0.0.9', port: 7946 };

function newTable(node: string): EndpointTable {
  return new EndpointTable(node, 1, { tuning: LAN_TUNING }, 0);
}

/** A node's tables, what it sends, and what it asks. `known` are the addresses of its members. */
function newSync(name: string, known: readonly PeerAddress[] = [PEER]) {
  const table = newTable(name);
  const queue = new BroadcastQueue(100);
  const outbox = new Outbox();
  const sent: Uint8Array[] = [];
  const asked: Uint8Array[] = [];
  const sync = new EndpointSync({
    ...{ tuning: LAN_TUNING, random: seededRandom(1), table, outbox, queue },
    epochMs: () => 0,
    hasten: () => {},
    send: (_to, messages) => sent.push(...messages),
    tellOf: () => {},
    isPeer: ({ address }) => known.some((peer) => peer.address === address),
    ask: (_to, payload) => asked.push(payload),
  });
  sync.flush(0);
  queue.take(10_000, 0, 1, 255);
  return { table, queue, outbox, sync, sent, asked };
}

test('what comes from port 0 is not answered: sockets throw when they send there', (t) => {
  const config = { name: 'self', address: '10.0.0.1', port: 7946, generation: 1 };
  const gossip = new Gossip({ random: seededRandom(1) }, config, 0);
  const ping = encodeMessage({ kind: 'ping', sequence: 1, node: 'self' });
  t.equal(gossip.packet(ping, PEER, 0).length, 1);
  t.same(gossip.packet(ping, { ...PEER, port: 0 }, 0), []);
  t.match(gossip.counters(), { packet_from_port_0: 1 });
  t.end();
});

test('a record that is full can still be changed, and one that is all different replaced', (t) => {
  const [owner, copy] = [new EndpointRecord('n', 1), new EndpointRecord('n', 1)];
  for (let key = 0; key < RECORD_ENTRIES_MAX; key++) owner.write(`k${key}`, '1', 0);
  t.equal(copy.apply(owner.deltaSince(0), 0, new Map()), 'applied');
  owner.write('k7', '2', 0);
  t.equal(copy.apply(owner.deltaSince(copy.version), 0, new Map()), 'applied');
  t.equal(copy.get('k7'), '2');
  for (let key = 0; key < RECORD_ENTRIES_MAX; key++) owner.write(`k${key}`, undefined, 1);
  owner.forgetDeletions(2);
  for (let key = 0; key < RECORD_ENTRIES_MAX; key++) owner.write(`new${key}`, '3', 3);
  t.equal(copy.apply(owner.deltaSince(copy.version), 3, new Map()), 'applied');
  t.equal(copy.entryCount, RECORD_ENTRIES_MAX);
  t.equal(copy.get('k7'), undefined);
  const { version } = owner;
  const entries = [{ key: 'more', version: version + 1, content: '1' }];
  const more: Delta = { ...owner.deltaSince(0), since: version, version: version + 1, entries };
  t.equal(copy.apply({ ...more, full: false }, 3, new Map()), 'full', 'but it does not grow');
  t.end();
});

test('a delta that has a key twice changes what is visible as it reports', (t) => {
  const table = newTable('self');
  table.setOwner('n', 'live', 0);
  const delta: Delta = {
    ...{ node: 'n', generation: 1, since: 0, version: 1, atMs: 0, full: false },
    entries: [{ key: 'k', version: 1, content: '"old"' }],
  };
  table.apply(delta, 0);
  const twice = [2, 3].map((version) => ({ key: 'k', version, content: '"new"' }));
  const { change } = table.apply({ ...delta, since: 1, version: 3, entries: twice }, 0);
  t.same(change?.changed, [{ key: 'k', value: 'new' }]);
  t.end();
});

test('news that fits in no packet is taken, and not queued for ever', (t) => {
  const { sync, queue, table } = newSync('self');
  table.setOwner('n', 'live', 0);
  const delta: Delta = {
    ...{ node: 'n', generation: 1, since: 0, version: 1, atMs: 0, full: false },
    entries: [{ key: 'k', version: 1, content: JSON.stringify('x'.repeat(10_000)) }],
  };
  sync.receive(encodeEndpointPayload({ kind: 'delta', delta }), PEER, 0);
  t.equal([...table.visible()].length, 1);
  t.equal(queue.size, 0);
  t.end();
});

test('a value of more parts than any message has is refused before they are made', (t) => {
  const items = MSGPACK_VALUES_MAX;
  const bytes = new Uint8Array(5 + items).fill(0x80);
  bytes[0] = 0xdd;
  new DataView(bytes.buffer).setUint32(1, items);
  t.same(decodeMsgpack(bytes), { ok: false, fault: 'too-many-values' });
  new DataView(bytes.buffer).setUint32(1, items - 1);
  t.equal(decodeMsgpack(bytes).ok, true);
  t.end();
});

/** What one small message makes of a node with much to say. */
function floodedBy(payload: Uint8Array, times: number, from = PEER) {
  const node = newSync('self');
  for (let owner = 0; owner < 300; owner++) {
    const record = new EndpointRecord(`n${owner}`, 1);
    for (let key = 0; key < 100; key++) record.write(`k${key}`, '"some value"', 0);
    node.table.restore([record], 0);
  }
  let looked = 0;
  const { deltaFor } = node.table;
  node.table.deltaFor = (...given) => {
    looked++;
    return deltaFor.apply(node.table, given);
  };
  for (let time = 0; time < times; time++) node.sync.receive(payload, from, 0);
  const bytes = node.sent.reduce((sum, message) => sum + message.length, 0);
  return { ...node, looked, bytes };
}

const NOTHING = { first: 0, last: TREE_LEAVES, versions: [] };

test('a digest that lists nothing does not make a node look at all that it has', (t) => {
  const payload = encodeEndpointPayload({ kind: 'digest', windows: [NOTHING], answer: true });
  const { looked, sent } = floodedBy(payload, 1);
  t.ok(looked < 50, `${looked} records looked at`);
  t.same(
    sent.map((bytes) => decodeEndpointMessage(bytes.subarray(1))),
    [{ kind: 'behind', first: 0, last: TREE_LEAVES }],
  );
  const windows = Array.from({ length: 50 }, () => NOTHING);
  const many = encodeEndpointPayload({ kind: 'digest', windows, answer: true });
  t.equal(decodeEndpointMessage(many), 'malformed', 'the same leaves again and again');
  t.end();
});

test('repairs go to members alone, and to them so many between two summaries', (t) => {
  const small = { first: 0, last: 32, versions: [] }; // some 2 records
  const payload = encodeEndpointPayload({ kind: 'digest', windows: [small], answer: true });
  const stranger = { address: '192.0.2.1', port: 53 };
  const once = floodedBy(payload, 1);
  t.ok(once.sent.length > 2, `${once.sent.length} repairs to a member`);
  const spoofed = floodedBy(payload, 1, stranger);
  t.ok(spoofed.bytes < 1_500, `${spoofed.bytes} bytes to a stranger`);
  const flooded = floodedBy(payload, 10_000);
  t.ok(flooded.bytes < 2_000_000, `${flooded.bytes} bytes however often it is asked`);
  t.ok((flooded.outbox.counters().endpoint_answers_full ?? 0) > 0);
  const before = flooded.sent.length;
  flooded.sync.sendSummaries([]);
  flooded.sync.receive(payload, PEER, 0);
  t.ok(flooded.sent.length > before, 'then it answers again');
  t.end();
});

test('a node pulls from members alone', (t) => {
  const behind = encodeEndpointPayload({ kind: 'behind', first: 0, last: TREE_LEAVES });
  const { sync, asked } = newSync('self');
  for (let host = 0; host < 10; host++) {
    sync.receive(behind, { address: `192.0.2.${host}`, port: 7946 }, 0);
  }
  t.equal(asked.length, 0, 'nobody is connected to');
  sync.receive(behind, PEER, 0);
  t.equal(asked.length, 1, 'and the places are free for those that are');
  t.end();
});

test('a pull of which the answers promise and never bring anything ends', (t) => {
  const { sync, asked } = newSync('self');
  sync.pullFrom(PEER, 0);
  let rounds = 0;
  for (; asked.splice(0).length > 0 && rounds < 100_000; rounds++) {
    const resume = { node: 'n', until: rounds };
    sync.answered(PEER, encodeEndpointPayload({ kind: 'pulled', deltas: [], next: 0, resume }), 0);
  }
  t.ok(rounds < 5_000, `${rounds} rounds`);
  t.end();
});

test('records of nodes that nobody has heard of leave room for those of members', (t) => {
  const tuning = { ...LAN_TUNING, membersMax: 100 };
  const table = new EndpointTable('self', 1, { tuning }, 0);
  const apply = (node: string) => {
    const record = new EndpointRecord(node, 1);
    record.write('k', '1', 0);
    return table.apply(record.deltaSince(0), 0).result;
  };
  const results = Array.from({ length: 200 }, (_, index) => apply(`stranger${index}`));
  t.equal(results.filter((result) => result === 'applied').length, 25);
  table.setOwner('member', 'live', 0);
  t.equal(apply('member'), 'applied');
  table.setOwner('stranger0', 'live', 0);
  t.equal([...table.visible()].length, 2, 'one that is heard of is shown');
  t.equal(apply('another'), 'applied', 'and its place is free');
  t.end();
});

test('a pull that fails leaves its place to others at once', (t) => {
  const { sync, asked } = newSync('self');
  for (let host = 1; host <= 3; host++) sync.pullFrom({ ...PEER, address: `10.0.0.${host}` }, 0);
  t.equal(asked.length, 2);
  sync.unanswered({ ...PEER, address: '10.0.0.1' });
  sync.pullFrom({ ...PEER, address: '10.0.0.3' }, 0);
  t.equal(asked.length, 3);
  t.end();
});

test('names of departed nodes are not kept', (t) => {
  const table = newTable('self');
  for (let node = 0; node < 10_000; node++) {
    table.setOwner(`n${node}`, 'live', 0);
    table.setOwner(`n${node}`, node % 2 === 0 ? 'failed' : 'left', 0);
  }
  t.equal(table.ownerCount, 1);
  t.equal(encodeEndpointMessage({ kind: 'summary', summary: table.summary() }).length > 0, true);
  t.end();
});
