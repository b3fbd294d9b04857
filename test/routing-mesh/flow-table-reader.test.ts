import { once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { type Test, test } from 'tap';
import { AddressWords } from '../../src/core/address-words.ts';
import { type Ip, ipFromWords, parseIp } from '../../src/core/ip.ts';
import { ACTION_FORWARD, ACTION_REVERSE, NO_SLOT } from '../../src/routing-mesh/flow-entry.ts';
import { FlowKey } from '../../src/routing-mesh/flow-key.ts';
import { type FlowRecord, listFlows } from '../../src/routing-mesh/flow-listing.ts';
import { FlowTable, flowTableBytes } from '../../src/routing-mesh/flow-table.ts';
import { FlowTableReader } from '../../src/routing-mesh/flow-table-reader.ts';
import { FLOW_DATAGRAM } from '../../src/routing-mesh/tcp-tracking.ts';
import { toTicks } from '../../src/routing-mesh/ticks.ts';

const CAPACITY = 64;
/** Full after a moment: from then on each new flow evicts another one. */
const SHARED_CAPACITY = 512;
const HASH_KEY = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
const NOW_MS = 1_790_000_000_000;

test('a reader sees what the table holds', (t) => {
  const memory = new Uint8Array(flowTableBytes(CAPACITY));
  t.throws(() => new FlowTableReader(memory, CAPACITY), { message: /^Cannot join a flow table/ });
  const table = new FlowTable({ memory, capacity: CAPACITY, hashKey: HASH_KEY });
  const reader = new FlowTableReader(memory, CAPACITY);
  const key = new FlowKey();
  const client = AddressWords.of(parseIp('2001:db8::7'));
  const server = AddressWords.of(parseIp('2001:db8::8'));
  for (let number = 0; number < 20; number++) {
    table.now = toTicks(NOW_MS - number * 1_000);
    key.set(number, server, client, 3);
    const reverse = table.insert(key, ACTION_REVERSE, NO_SLOT);
    key.set(number, client, server, 3);
    const forward = table.insert(key, ACTION_FORWARD, reverse);
    table.entries.link(forward, reverse);
    table.entries.setStatus(forward, FLOW_DATAGRAM);
  }
  table.now = toTicks(NOW_MS);
  const before = Uint8Array.from(memory);
  const read = Array.from({ length: CAPACITY }, (_, slot) => reader.read(slot, NOW_MS));
  const seen = read.filter((flow) => flow !== undefined);
  t.same(seen, [...listFlows(table)]);
  t.same(memory, before, 'nothing is changed');
  t.ok(seen.length > 20);
  t.ok(
    seen.every(({ ageMs, idleMs }) => ageMs === idleMs),
    'flows that no packet has touched are idle for as long as they are old',
  );
  t.ok(seen.some(({ ageMs }) => ageMs > 10_000));
  t.throws(() => new FlowTableReader(memory, CAPACITY / 2), { message: /^Cannot join/ });
  t.end();
});

/** Whether what names a flow follows from one number, as its maker wrote it. */
function isOneFlow(flow: FlowRecord): boolean {
  const number = flow.scope;
  return (
    flow.source === addressOf(number) &&
    flow.destination === addressOf(number) &&
    flow.sourcePort === number &&
    flow.destinationPort === number
  );
}

/** Whether that and the rest do. */
function isWholeFlow(flow: FlowRecord): boolean {
  const { outScope, newSource, vtep } = flow;
  const ip = addressOf(outScope);
  return isOneFlow(flow) && outScope === flow.scope && newSource === ip && vtep === ip;
}

function addressOf(number: number): Ip {
  return number % 2 === 0 ? number : ipFromWords(number, number, number, number);
}

/** Reads flows of many moments while another thread changes them. */
async function readWhileChanged(
  t: Test,
  sharing: 'alone' | 'first',
  isRight: (flow: FlowRecord) => boolean,
): Promise<void> {
  const memory = new SharedArrayBuffer(flowTableBytes(SHARED_CAPACITY));
  // The changer is to find a table: then the reader need not wait for one.
  new FlowTable({ memory: new Uint8Array(memory), capacity: SHARED_CAPACITY, hashKey: HASH_KEY });
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const changer = new Worker(new URL('./flow-changer.ts', import.meta.url), {
    workerData: { memory, capacity: SHARED_CAPACITY, sharing, stop },
  });
  const ended = once(changer, 'exit');
  t.teardown(() => changer.terminate());
  const reader = new FlowTableReader(new Uint8Array(memory), SHARED_CAPACITY);
  const seen = new Set<number>();
  for (let round = 0; seen.size < 2_000; round++) {
    if (round % 1_000 === 0) await turn();
    const flow = reader.read(round % SHARED_CAPACITY, NOW_MS);
    if (flow === undefined) continue;
    if (!isRight(flow)) t.fail(`A torn flow: ${JSON.stringify(flow)}`);
    seen.add(flow.scope);
  }
  Atomics.store(stop, 0, 1);
  await ended;
  t.ok(seen.size >= 2_000, 'flows of many moments were seen');
}

test('a thread that shares its table is seen to change it at once', (t) =>
  readWhileChanged(t, 'first', isWholeFlow));

test('one that does not may be seen before it is done, but never as two flows', (t) =>
  readWhileChanged(t, 'alone', isOneFlow));
