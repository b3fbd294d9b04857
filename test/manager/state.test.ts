import { test } from 'tap';
import { SILENT_LOG } from '../../src/core/capabilities.ts';
import type { Store, StoreResult } from '../../src/core/store.ts';
import { MemoryStore } from '../../src/io/store/memory.ts';
import { ClusterState } from '../../src/manager/cluster-state.ts';
import { meetsConstraints, parseConstraint } from '../../src/manager/constraints.ts';
import { ManagerError } from '../../src/manager/errors.ts';
import { initCluster } from '../../src/manager/init-cluster.ts';
import type { Key } from '../../src/manager/keys.ts';
import { Manager } from '../../src/manager/manager.ts';
import { NodeLiveness } from '../../src/manager/node-liveness.ts';
import type { NodeRecord, TaskRecord } from '../../src/manager/records.ts';
import { parseSignal } from '../../src/manager/signals.ts';
import { Draft, StateWriter } from '../../src/manager/state-writer.ts';
import { WriteBatcher } from '../../src/manager/write-batcher.ts';
import { FakeTime, seededRandom, sha256 } from '../support/manager-lab.ts';

const COUNTER: Key<number> = 'counter';

async function writerOn(store: Store): Promise<{ state: ClusterState; writer: StateWriter }> {
  const state = new ClusterState(store);
  await state.start();
  return { state, writer: new StateWriter(store, state) };
}

function task(id: string, serviceId: string, nodeId?: string): TaskRecord {
  const node = nodeId === undefined ? {} : { nodeId };
  return { id, serviceId, ...node } as TaskRecord; // The indexes look at nothing else.
}

test('writers on one store lose none of each other’s updates', async (t) => {
  const store = new MemoryStore();
  const writers = [await writerOn(store), await writerOn(store), await writerOn(store)];
  const writes = Array.from({ length: 60 }, (_, index) =>
    writers[index % 3]!.writer.write((draft) => draft.put(COUNTER, (draft.get(COUNTER) ?? 0) + 1)),
  );
  await Promise.all(writes);
  for (const { state } of writers) t.equal(state.get(COUNTER), 60);
});

test('a draft that read what others have changed since does not commit', async (t) => {
  const store = new MemoryStore();
  const { state } = await writerOn(store);
  const draft = new Draft(state);
  draft.get('read');
  draft.put('written' as Key<number>, 1);
  await store.transact([], [{ kind: 'put', key: 'read', value: 1 }]);
  const { conditions, ops } = draft.transaction();
  t.match(await store.transact(conditions, ops), { ok: false, conflict: 'read' });
});

test('a writer gives up on a store that never stands still', async (t) => {
  const store = new MemoryStore();
  const { writer } = await writerOn(store);
  let attempts = 0;
  store.transact = async (): Promise<StoreResult> => {
    attempts += 1;
    return { ok: false, conflict: 'counter', revision: 0 };
  };
  const outcome = writer.write((draft) => draft.put(COUNTER, 1));
  await t.rejects(outcome, { name: 'ManagerError', detail: { code: 'UNAVAILABLE' } });
  t.equal(attempts, 10);
});

test('a failing build or store fails its own caller only', async (t) => {
  const store = new MemoryStore();
  const { state, writer } = await writerOn(store);
  const refused = writer.write(() => {
    throw new ManagerError({ code: 'FORBIDDEN' }, 'no');
  });
  const accepted = writer.write((draft) => draft.put(COUNTER, 1));
  await t.rejects(refused, { message: 'no' });
  await accepted;
  t.equal(state.get(COUNTER), 1);
  t.equal(await writer.write(() => 'nothing written'), 'nothing written');
  t.equal(state.revision, 1);
});

test('a cache that starts late, while others write, misses nothing', async (t) => {
  const store = new MemoryStore();
  await store.transact([], [{ kind: 'put', key: 'counter', value: 0 }]);
  const state = new ClusterState(store);
  const started = state.start();
  for (let value = 1; value <= 5; value += 1) {
    await store.transact([], [{ kind: 'put', key: 'counter', value }]);
  }
  await started;
  await state.reached(6);
  t.equal(state.get(COUNTER), 5);
  t.equal(state.revisionOf(COUNTER), 6);
});

test('the indexes of tasks follow every change, in the cache and in drafts', async (t) => {
  const { state, writer } = await writerOn(new MemoryStore());
  const ids = (tasks: Iterable<TaskRecord>): string =>
    Array.from(tasks, ({ id }) => id)
      .sort()
      .join();
  await writer.write((draft) => {
    draft.save('tasks', task('a', 's1', 'n1'));
    draft.save('tasks', task('b', 's1'));
    draft.save('tasks', task('c', 's2', 'n1'));
    t.equal(ids(draft.tasksOfService('s1')), 'a,b');
    t.equal(ids(draft.tasksOfNode('n1')), 'a,c');
    draft.drop('tasks', 'c');
    t.equal(ids(draft.all('tasks')), 'a,b');
  });
  t.equal(ids(state.tasksOfService('s2')), '');
  await writer.write((draft) => {
    draft.save('tasks', task('b', 's1', 'n2'));
    draft.drop('tasks', 'a');
    t.equal(ids(draft.all('tasks')), 'b');
    t.equal(ids(draft.tasksOfNode('n1')), '');
    t.equal(ids(draft.tasksOfNode('n2')), 'b');
    t.equal(draft.find('tasks', 'a'), undefined);
  });
  t.equal(ids(state.tasksOfNode('n1')), '');
  t.equal(ids(state.tasksOfNode('n2')), 'b');
  t.equal(ids(state.tasksOfService('s1')), 'b');
});

test('WriteBatcher shares writes, and a failed one fails those who are in it', async (t) => {
  const batches: (readonly number[])[] = [];
  const batcher = new WriteBatcher<number>(async (items) => {
    batches.push(items);
    if (items.includes(2)) throw new Error('full');
  });
  const outcomes = await Promise.allSettled([1, 2, 3].map((item) => batcher.add(item)));
  t.same(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected', 'rejected'],
  );
  t.same(batches, [[1], [2, 3]]);
  await batcher.add(4);
  t.equal(batches.length, 3);
});

test('initCluster() refuses a second cluster and pools that cannot be used', async (t) => {
  const store = new MemoryStore();
  const options = { clock: new FakeTime(), random: seededRandom(1), sha256 };
  for (const [fields, message] of [
    [{ addressPools: ['10.0.0.0'] }, /10\.0\.0\.0/],
    [{ addressPools: ['10.0.0.0/8'], subnetPrefix: 31 }, /cannot be cut into \/31/],
  ] as const) {
    await t.rejects(initCluster(store, { ...options, ...fields }), {
      detail: { code: 'INVALID' },
      message,
    });
  }
  t.same((await store.list('')).entries, []);
  await initCluster(store, options);
  await t.rejects(initCluster(store, options), { message: /already part of a cluster/ });
});

test('a manager does not start without a cluster', async (t) => {
  const time = new FakeTime();
  const manager = new Manager(
    {
      store: new MemoryStore(),
      clock: time,
      random: seededRandom(1),
      log: SILENT_LOG,
      sha256,
      schedule: time.schedule,
    },
    { version: '0', nodeId: () => undefined, managers: () => [], managerPort: 2377 },
  );
  await t.rejects(manager.start(), { message: /not a cluster manager/ });
  manager.stop();
});

test('parseConstraint() reads what Swarm reads', async (t) => {
  for (const [text, expected] of [
    ['node.role == manager', { attribute: 'node.role', equal: true, value: 'manager' }],
    ['node.hostname!=web-1', { attribute: 'node.hostname', equal: false, value: 'web-1' }],
    ['node.labels.a.b==x y', { attribute: 'node.labels.a.b', equal: true, value: 'x y' }],
    ['engine.labels.rack== r1 ', { attribute: 'engine.labels.rack', equal: true, value: 'r1' }],
    ['node.labels.==x', undefined],
    ['node.role=manager', undefined],
    ['node.role==', undefined],
    ['role==manager', undefined],
    ['', undefined],
    [`node.id==${' '.repeat(600)}`, undefined],
  ] as const) {
    t.same(parseConstraint(text), expected, text);
  }
});

test('meetsConstraints() compares without regard to case', async (t) => {
  const node = {
    id: 'abc',
    role: 'worker',
    labels: { disk: 'SSD' },
    description: { hostname: 'Alpha', platform: { os: 'linux', architecture: 'x86_64' } },
  } as unknown as NodeRecord;
  for (const [text, expected] of [
    ['node.id==abc', true],
    ['node.hostname==alpha', true],
    ['node.role!=worker', false],
    ['node.platform.os==linux', true],
    ['node.platform.arch==arm', false],
    ['node.labels.disk==ssd', true],
    ['node.labels.none!=x', true],
    ['node.labels.toString==x', false],
    ['engine.labels.rack==r1', false],
  ] as const) {
    const constraint = parseConstraint(text);
    t.equal(meetsConstraints(node, constraint === undefined ? [] : [constraint]), expected, text);
  }
});

test('parseSignal() takes names and numbers', async (t) => {
  for (const [text, expected] of [
    ['SIGTERM', 'SIGTERM'],
    ['int', 'SIGINT'],
    ['9', 'SIGKILL'],
    ['31', 'SIGSYS'],
    ['0', undefined],
    ['64', undefined],
    ['SIG', undefined],
    ['SIGSIGTERM', undefined],
  ] as const) {
    t.equal(parseSignal(text), expected, text);
  }
});

// Heartbeats (h), suspicion (s) and the moment of each node's end, in seconds:
//   a: h0 ......................15 down
//   b: expected at 0 ........................30 down
//   c: h0, s1 ...5.5 down
//   d: h0, s1, h3 ........18 down
test('NodeLiveness expires nodes by what was heard and said of them', async (t) => {
  const liveness = new NodeLiveness();
  for (const node of ['a', 'c', 'd']) liveness.heard(node, 0);
  liveness.expect('b', 0);
  liveness.expect('a', 9_000); // Heard of before: it stays as it is.
  liveness.suspect('c');
  liveness.suspect('d');
  liveness.suspect('nobody');
  liveness.heard('d', 3_000);
  for (const [atMs, expired] of [
    [5_499, []],
    [5_500, ['c']],
    [14_999, []],
    [15_000, ['a']],
    [18_000, ['d']],
    [29_999, []],
    [30_000, ['b']],
  ] as const) {
    t.same(liveness.takeExpired(atMs), expired, `${atMs} ms`);
  }
  t.equal(liveness.nextDeadlineMs, undefined);
});
