import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { type Test, test } from 'tap';
import { PROTO_TCP, PROTO_UDP } from '../../src/core/packet.ts';
import { Flow } from '../../src/routing-mesh/flow-entry.ts';
import { FlowKey } from '../../src/routing-mesh/flow-key.ts';
import { listFlows } from '../../src/routing-mesh/flow-listing.ts';
import { FlowLock } from '../../src/routing-mesh/flow-lock.ts';
import { FlowTable, flowTableBytes } from '../../src/routing-mesh/flow-table.ts';
import type { HammerResult, HammerTask } from './shared-table.ts';

const HASH_KEY = new Uint8Array(8);

async function runThread(task: HammerTask): Promise<HammerResult> {
  const url = new URL('./shared-table-worker.ts', import.meta.url);
  const worker = new Worker(url, { workerData: task });
  const [result] = await once(worker, 'message');
  return result;
}

/** Lets three threads work on one table; checks it, and gives what they saw. */
async function fight(
  t: Test,
  how: Omit<HammerTask, 'memory' | 'sharing' | 'seed'>,
): Promise<readonly HammerResult[]> {
  const { capacity } = how;
  const memory = new SharedArrayBuffer(flowTableBytes(capacity));
  const options = { memory: new Uint8Array(memory), capacity, hashKey: HASH_KEY };
  const first = new FlowTable({ ...options, sharing: 'first' });
  const task = { ...how, memory, sharing: 'further' } as const;
  const results = await Promise.all([1, 2, 3].map((seed) => runThread({ ...task, seed })));
  const counts = [PROTO_TCP, PROTO_UDP].map((protocol) => first.activeFlows(protocol));
  const keys = [...listFlows(first)].map(({ idleMs, ageMs, ...flow }) => JSON.stringify(flow));
  t.equal(new Set(keys).size, keys.length, 'no flow is there twice');
  t.equal(keys.length, 2 * counts.reduce((sum, count) => sum + count, 0), 'in pairs');
  // Taking the table over checks every entry: nothing is damaged.
  const next = new FlowTable({ ...options, sharing: 'first' });
  t.same([...listFlows(next)].length, keys.length);
  t.same(
    [PROTO_TCP, PROTO_UDP].map((protocol) => next.activeFlows(protocol)),
    counts,
  );
  return results;
}

test('threads that share a small table see whole flows, and count each once', async (t) => {
  const how = { capacity: 64, rounds: 30_000, flows: 400, ownFlows: 0 };
  for (const ticksPerRound of [0, 100]) {
    for (const { found, made, removed, torn } of await fight(t, { ...how, ticksPerRound })) {
      t.equal(torn, 0);
      t.ok(found > 500 && made > 1_000 && removed > 50, `${found} ${made} ${removed}`);
    }
  }
});

test('threads that share a table find what is theirs, while others come and go', async (t) => {
  const how = { capacity: 32_768, rounds: 60_000, flows: 40, ownFlows: 200, ticksPerRound: 0 };
  for (const { found, torn, wrong } of await fight(t, how)) {
    t.same({ torn, wrong }, { torn: 0, wrong: 0 });
    t.ok(found > 10_000, `${found}`);
  }
});

test('a table is joined only where there is one', (t) => {
  const options = { memory: new Uint8Array(flowTableBytes(64)), capacity: 64, hashKey: HASH_KEY };
  t.throws(() => new FlowTable({ ...options, sharing: 'further' }), /Cannot join a flow table/);
  new FlowTable({ ...options, sharing: 'first' });
  t.equal(new FlowTable({ ...options, sharing: 'further' }).attached, true);
  t.end();
});

test('what a killed process held is free for the next one', (t) => {
  const options = { memory: new Uint8Array(flowTableBytes(64)), capacity: 64, hashKey: HASH_KEY };
  const killed = new FlowTable({ ...options, sharing: 'first' });
  killed.lock();
  for (let slot = 0; slot < 64; slot++) killed.change(slot);
  const next = new FlowTable({ ...options, sharing: 'first' });
  next.lock();
  next.unlock();
  t.equal(next.readSlot(0, new FlowKey(), new Flow()), false, 'which did not wait forever');
  t.end();
});

test('FlowLock: a set that changed is not at its version, others are', (t) => {
  const words = new Int32Array(16);
  const place = { words, lock: 0, versions: 4, stride: 2 };
  const writer = new FlowLock({ ...place, isShared: true });
  const reader = new FlowLock({ ...place, isShared: true });
  const before = [0, 1].map((set) => reader.version(set));
  writer.acquire();
  writer.open(1);
  writer.open(1);
  t.same([reader.isAt(0, before[0]!), reader.isAt(1, before[1]!)], [true, false], 'under way');
  writer.release();
  t.same([reader.isAt(0, before[0]!), reader.isAt(1, before[1]!)], [true, false], 'done');
  t.equal(reader.version(1) % 2, 0);
  t.equal(words[0], 0);

  const alone = new FlowLock({ ...place, isShared: false });
  const untouched = words.slice();
  alone.acquire();
  alone.open(0);
  alone.release();
  t.ok(alone.isAt(0, alone.version(0) + 99));
  t.same(words, untouched, 'a thread that is alone writes nothing');
  t.end();
});
