import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { SILENT_LOG } from '../../src/core/capabilities.ts';
import type { TaskAssignment, TaskState } from '../../src/manager/session-protocol.ts';
import { ProcessRuntime } from '../../src/runtime/process-runtime.ts';
import { TaskExecutor } from '../../src/runtime/task-executor.ts';
import { hasEnded, nextStep } from '../../src/runtime/task-lifecycle.ts';
import type {
  AdoptedTask,
  LogRecord,
  TaskExit,
  TaskRuntime,
} from '../../src/runtime/task-runtime.ts';
import { TaskStore } from '../../src/runtime/task-store.ts';
import { logRecords, SYSTEM_CLOCK, scratch, shellTask, untilLogged } from './fixtures.ts';

test('nextStep() maps state and desired state', (t) => {
  for (const [state, running, shutdown] of [
    ['assigned', 'accept', 'stop'],
    ['accepted', 'prepare', 'stop'],
    ['preparing', 'prepare', 'stop'],
    ['ready', 'start', 'stop'],
    ['running', 'watch', 'stop'],
    ['complete', 'rest', 'rest'],
    ['failed', 'rest', 'rest'],
    ['shutdown', 'rest', 'rest'],
    ['rejected', 'rest', 'rest'],
  ] as const) {
    t.equal(nextStep(state, 'running'), running, `${state} to running`);
    t.equal(nextStep(state, 'shutdown'), shutdown, `${state} to shutdown`);
    t.equal(nextStep(state, 'remove'), shutdown, `${state} to remove`);
  }
  t.end();
});

/** A runtime and a network that write down what is asked of them. */
class FakeNode implements TaskRuntime {
  readonly calls: string[] = [];
  readonly failures = new Map<string, Error>();
  found: AdoptedTask[] = [];
  readonly #exits = new Map<string, PromiseWithResolvers<TaskExit>>();

  exit(taskId: string, exitCode: number | undefined): void {
    this.#exit(taskId).resolve({ exitCode, endedAtMs: 0 });
  }

  #exit(taskId: string): PromiseWithResolvers<TaskExit> {
    const exit = this.#exits.get(taskId) ?? Promise.withResolvers<TaskExit>();
    this.#exits.set(taskId, exit);
    return exit;
  }

  async #call(name: string): Promise<void> {
    this.calls.push(name);
    const failure = this.failures.get(name);
    if (failure !== undefined) throw failure;
  }

  async adopt(): Promise<readonly AdoptedTask[]> {
    return this.found;
  }
  async prepare(task: TaskAssignment): Promise<string> {
    await this.#call('prepare');
    return `/run/netns/weft-${task.id}`;
  }
  async attach(_task: TaskAssignment, netnsPath: string): Promise<void> {
    await this.#call(`attach ${netnsPath.split('-')[1]?.slice(0, 4)}`);
  }
  async start(): Promise<number> {
    await this.#call('start');
    return 42;
  }
  wait(taskId: string): Promise<TaskExit> {
    return this.#exit(taskId).promise;
  }
  drain(): Promise<void> {
    return this.#call('drain');
  }
  async stop(task: TaskAssignment): Promise<void> {
    await this.#call('stop');
    this.exit(task.id, 143);
  }
  detach(): Promise<void> {
    return this.#call('detach');
  }
  release(): Promise<void> {
    return this.#call('release');
  }
  remove(): Promise<void> {
    return this.#call('remove');
  }
  async *logs(): AsyncGenerator<LogRecord> {
    yield { timestampMs: 0, stream: 'stderr', line: 'exec: no', partial: false };
  }
  async close(): Promise<void> {}
}

interface Bench {
  readonly node: FakeNode;
  readonly executor: TaskExecutor;
  readonly directory: string;
  /** Statuses as `state: message [error]`. */
  readonly reported: string[];
  until(state: TaskState): Promise<void>;
}

function newBench(t: Test, directory: string): Bench {
  const node = new FakeNode();
  const reported: string[] = [];
  let check: () => void = () => {};
  const executor = new TaskExecutor({
    clock: SYSTEM_CLOCK,
    log: SILENT_LOG,
    store: new TaskStore({ log: SILENT_LOG }, directory),
    runtimes: { process: node },
    network: node,
    report: ({ state, message, error, pid, exitCode }) => {
      const details = [error, pid && `pid ${pid}`, exitCode !== undefined && `exit ${exitCode}`];
      reported.push([`${state}: ${message}`, ...details.filter(Boolean)].join(', '));
      check();
    },
  });
  t.teardown(() => executor.close());
  const until = (state: TaskState): Promise<void> =>
    new Promise((resolve) => {
      check = () => {
        if (reported.at(-1)?.startsWith(`${state}:`)) resolve();
      };
      check();
    });
  return { node, executor, directory, reported, until };
}

async function openBench(t: Test): Promise<Bench> {
  const directory = await mkdtemp(join(tmpdir(), 'weft-test-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const bench = newBench(t, directory);
  await bench.executor.restore();
  return bench;
}

const STARTED = [
  'accepted: accepted',
  'preparing: preparing',
  'ready: prepared',
  'starting: starting',
  'running: started, pid 42',
];

test('a task runs, is drained, stopped and removed, in this order', async (t) => {
  const { node, executor, reported, until, directory } = await openBench(t);
  const task = shellTask('');
  executor.assign([task]);
  executor.assign([task]);
  await until('running');
  executor.assign([{ ...task, desiredState: 'shutdown' }]);
  await until('shutdown');
  t.same(reported, [...STARTED, 'shutdown: shutdown, pid 42, exit 143']);
  executor.assign([task]);
  t.match(executor.statuses(), [{ taskId: task.id, state: 'shutdown' }], 'a task never goes back');
  t.same(await readdir(directory), [`${task.id}.json`]);
  await executor.removeAll();
  t.same(node.calls, [
    ...['prepare', 'attach task', 'start'],
    ...['drain', 'stop', 'detach', 'release', 'remove'],
  ]);
  t.same(executor.statuses(), []);
  t.same(await readdir(directory), []);
});

test('an end is reported with its reason, after the interfaces are gone', async (t) => {
  for (const [exitCode, expected] of [
    [0, 'complete: finished, pid 42, exit 0'],
    [3, 'failed: started, task: non-zero exit (3), pid 42, exit 3'],
    [127, 'failed: started, task: non-zero exit (127): exec: no, pid 42, exit 127'],
    [undefined, 'failed: started, task: ended while nobody watched, its exit code is lost, pid 42'],
  ] as const) {
    const { node, executor, reported, until } = await openBench(t);
    const task = shellTask('');
    executor.assign([task]);
    await until('running');
    node.exit(task.id, exitCode);
    await until(exitCode === 0 ? 'complete' : 'failed');
    t.same(reported, [...STARTED, expected]);
    t.same(node.calls.slice(-2), ['detach', 'release']);
  }
});

test('a task that cannot run is rejected or failed with the reason, and cleaned up', async (t) => {
  for (const [call, reports] of [
    ['prepare', [...STARTED.slice(0, 2), 'rejected: preparing, no such thing']],
    ['attach task', [...STARTED.slice(0, 2), 'rejected: preparing, no such thing']],
    ['start', [...STARTED.slice(0, 4), 'failed: starting, no such thing']],
  ] as const) {
    const { node, executor, reported, until } = await openBench(t);
    node.failures.set(call, new Error('no such thing'));
    executor.assign([shellTask('')]);
    await until(call === 'start' ? 'failed' : 'rejected');
    t.same(reported, reports);
    t.same(node.calls.slice(-2), ['detach', 'release']);
  }
  const { executor, reported, until } = await openBench(t);
  executor.assign([shellTask('', { runtime: 'docker' })]);
  await until('rejected');
  t.match(reported.at(-1), /this node has no docker runtime/);
});

test('failing steps of an end do not hold it up', async (t) => {
  const { node, executor, until } = await openBench(t);
  for (const call of ['drain', 'detach', 'release']) node.failures.set(call, new Error('no'));
  const task = shellTask('');
  executor.assign([task]);
  await until('running');
  executor.assign([{ ...task, desiredState: 'shutdown' }]);
  await until('shutdown');
  t.same(node.calls.slice(-4), ['drain', 'stop', 'detach', 'release']);
});

test('a task that is to stop before it started never starts', async (t) => {
  const { node, executor, reported, until } = await openBench(t);
  const task = shellTask('', { desiredState: 'remove' });
  executor.assign([task]);
  await until('shutdown');
  t.same(reported, ['shutdown: shutdown']);
  t.notOk(node.calls.includes('start'));
  t.match(executor.statuses(), [{ state: 'shutdown' }], 'known for as long as it is assigned');
});

/** Runs one task to `running`, and leaves as a killed agent does. */
async function leaveRunning(t: Test): Promise<{ task: TaskAssignment; directory: string }> {
  const { executor, until, directory } = await openBench(t);
  const task = shellTask('');
  executor.assign([task]);
  await until('running');
  executor.close();
  return { task, directory };
}

test('restore() goes on with what an earlier agent left', async (t) => {
  for (const [found, expected, calls] of [
    [{ state: 'running', pid: 43 }, 'running: started, pid 43', ['attach task']],
    [
      { state: 'ended', exit: { exitCode: 0, endedAtMs: 0 } },
      'complete: finished, pid 42, exit 0',
      ['detach', 'release'],
    ],
    [
      { state: 'prepared' },
      'failed: started, task: ended while nobody watched, its exit code is lost, pid 42',
      ['detach', 'release'],
    ],
  ] as const) {
    const { task, directory } = await leaveRunning(t);
    const next = newBench(t, directory);
    next.node.found = [{ ...found, taskId: task.id, netnsPath: `/run/netns/weft-${task.id}` }];
    await next.executor.restore();
    const [state = 'running'] = expected.split(':');
    await next.until(state as TaskState);
    t.same(next.reported, [expected], `the process was ${found.state}`);
    t.same(next.node.calls, calls, 'it is not started again');
  }
});

test('restore() removes tasks that nobody remembers, and survives unreadable records', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'weft-test-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  await writeFile(join(directory, 'broken.json'), '{"assignment":');
  await writeFile(join(directory, 'other.json'), '{}');
  const { node, executor } = newBench(t, directory);
  node.found = [
    { taskId: 'broken', netnsPath: '/run/netns/weft-broken', state: 'running', pid: 9 },
  ];
  await executor.restore();
  t.same(node.calls, ['remove']);
  t.same(executor.statuses(), []);
});

test('TaskExecutor over ProcessRuntime', {
  skip: process.getuid?.() !== 0 && 'needs root',
}, async (t) => {
  const { directory, netnsPrefix } = await scratch(t);
  const runtime = new ProcessRuntime(
    { clock: SYSTEM_CLOCK, log: SILENT_LOG },
    { stateDirectory: join(directory, 'processes'), netnsPrefix },
  );
  t.teardown(() => runtime.close());
  const ended = new Map<string, (line: string) => void>();
  const executor = new TaskExecutor({
    clock: SYSTEM_CLOCK,
    log: SILENT_LOG,
    store: new TaskStore({ log: SILENT_LOG }, join(directory, 'tasks')),
    runtimes: { process: runtime },
    network: { attach: async () => {}, drain: async () => {}, detach: async () => {} },
    report: ({ taskId, state, error }) => {
      if (hasEnded(state)) ended.get(taskId)?.(`${state} ${error ?? ''}`);
    },
  });
  t.teardown(() => executor.close());
  await executor.restore();
  const end = ({ id }: TaskAssignment): Promise<string> =>
    new Promise((resolve) => ended.set(id, resolve));
  const missing = shellTask('', { argv: ['no-such-command'] });
  const failing = shellTask('exit 2');
  const unexecutable = join(directory, 'unexecutable');
  await writeFile(unexecutable, '#!/no/such/interpreter\n', { mode: 0o755 });
  const malformed = shellTask('', { argv: [unexecutable] });
  const server = shellTask('echo up; exec sleep 1000');
  const tasks = [missing, failing, malformed, server];
  const ends = tasks.map(end);
  executor.assign(tasks);
  t.equal(
    await ends[0],
    'rejected Cannot start "no-such-command": no such file on this node or in PATH',
  );
  t.equal(await ends[1], 'failed task: non-zero exit (2)');
  t.match(await ends[2], /^failed task: non-zero exit \(127\): .*failed to execute .*No such file/);
  await untilLogged(runtime, server.id, 'up');
  t.match(await logRecords(runtime, server.id), [{ line: 'up' }]);
  executor.assign(tasks.map((task) => ({ ...task, desiredState: 'shutdown' })));
  t.equal(await ends[3], 'shutdown ');
  await executor.removeAll();
  t.same(await readdir(join(directory, 'processes')), []);
  t.same(await readdir(join(directory, 'tasks')), []);
});
