import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { SILENT_LOG } from '../../src/core/capabilities.ts';
import { netnsExists, processesInNetns } from '../../src/io/linux/netns.ts';
import { killProcess, runCommand } from '../../src/io/process.ts';
import { ProcessRuntime } from '../../src/runtime/process-runtime.ts';
import {
  logRecords,
  type Scratch,
  SYSTEM_CLOCK,
  scratch,
  shellTask,
  untilLogged,
} from './fixtures.ts';

if (process.getuid?.() !== 0) {
  test('ProcessRuntime', { skip: 'needs root for network namespaces' }, (t) => t.end());
  process.exit();
}

function newRuntime({ directory, netnsPrefix }: Scratch): ProcessRuntime {
  const deps = { clock: SYSTEM_CLOCK, log: SILENT_LOG };
  return new ProcessRuntime(deps, { stateDirectory: join(directory, 'tasks'), netnsPrefix });
}

async function openRuntime(t: Test): Promise<{ runtime: ProcessRuntime; place: Scratch }> {
  const place = await scratch(t);
  const runtime = newRuntime(place);
  t.teardown(() => runtime.close());
  await runtime.adopt();
  return { runtime, place };
}

async function run(runtime: ProcessRuntime, task: ReturnType<typeof shellTask>): Promise<number> {
  await runtime.prepare(task);
  return await runtime.start(task);
}

test('a task runs in its own namespace with a clean environment, and its exit code is kept', async (t) => {
  const { runtime, place } = await openRuntime(t);
  const script = 'env; pwd; cat /sys/class/net/lo/address; readlink /proc/self/ns/net; exit 7';
  const task = shellTask(script, {
    env: ['GREETING=hello = world', 'task=1', 'state=2'],
    directory: '/usr',
    hostname: 'host-a',
  });
  const netns = await runtime.prepare(task);
  t.equal(netns, `/run/netns/${place.netnsPrefix}${task.id}`);
  await runtime.start(task);
  t.match(await runtime.wait(task.id), { exitCode: 7, endedAtMs: Number });
  await runtime.release(task.id);
  const lines = (await logRecords(runtime, task.id)).map((record) => record.line);
  for (const line of [
    'GREETING=hello = world',
    'task=1', // names that the supervisor uses itself
    'state=2',
    'HOME=/root',
    'HOSTNAME=host-a',
    `WEFT_TASK_ID=${task.id}`,
    `WEFT_TASK_NAME=web.1.${task.id}`,
    'WEFT_SERVICE_NAME=web',
    'WEFT_TASK_SLOT=1',
    '/usr',
  ]) {
    t.ok(lines.includes(line), `the task saw ${line}`);
  }
  t.notOk(
    lines.some((line) => line.startsWith('npm_') || line.startsWith('TAP')),
    'nothing of the agent is inherited',
  );
  t.not(
    lines.find((line) => line.startsWith('net:[')),
    (await runCommand(['readlink', '/proc/self/ns/net'])).trim(),
  );
  t.notOk(await netnsExists(`${place.netnsPrefix}${task.id}`), 'release() frees the namespace');
  await runtime.remove(task.id);
  t.same(await logRecords(runtime, task.id), []);

  const bare = shellTask('', { argv: ['env'], env: ['spring.datasource.url=jdbc:x', 'A-B=c d'] });
  await run(runtime, bare);
  await runtime.wait(bare.id);
  const variables = (await logRecords(runtime, bare.id)).map((record) => record.line);
  for (const line of ['spring.datasource.url=jdbc:x', 'A-B=c d']) {
    t.ok(variables.includes(line), `${line} gets past the supervisor's shell`);
  }
});

test('the task gets its own user, groups and descriptors', async (t) => {
  const { runtime } = await openRuntime(t);
  for (const [user, expected] of [
    ['nobody', '65534 65534'],
    ['4242:17', '4242 17'],
    ['4242', '4242 0'],
    ['daemon:nogroup', '1 65534'],
  ] as const) {
    const task = shellTask('echo "$(id -u) $(id -g)" >/dev/stdout; trap', { user });
    await run(runtime, task);
    t.match(await runtime.wait(task.id), { exitCode: 0 });
    const lines = (await logRecords(runtime, task.id)).map((record) => record.line);
    t.same(lines, [expected], `${user} is uid and gid ${expected}`);
  }
});

test('stop() sends the stop signal to the first process, and waits for it', async (t) => {
  const { runtime } = await openRuntime(t);
  for (const stopSignal of ['SIGTERM', 'SIGINT', 'SIGQUIT']) {
    const name = stopSignal.slice(3);
    const script = `trap 'echo bye; exit 3' ${name}; echo ready; while :; do sleep 0.05; done`;
    const task = shellTask(script, { stopSignal });
    await run(runtime, task);
    await untilLogged(runtime, task.id, 'ready');
    await runtime.stop(task);
    t.match(await runtime.wait(task.id), { exitCode: 3 }, `${stopSignal} reaches a trap`);
    const lines = (await logRecords(runtime, task.id)).map((record) => record.line);
    t.equal(lines.at(-1), 'bye');
  }
});

test('stop() kills what ignores the signal or has left the session, after the grace period', async (t) => {
  const { runtime, place } = await openRuntime(t);
  const script = `trap '' TERM; setsid sh -c 'trap "" TERM; echo child; while :; do sleep 1; done' &
    wait; while :; do sleep 1; done`;
  const task = shellTask(script, { stopGraceMs: 50 });
  await run(runtime, task);
  await untilLogged(runtime, task.id, 'child');
  await runtime.stop(task);
  t.match(await runtime.wait(task.id), { exitCode: 137 });
  t.same(await processesInNetns(`${place.netnsPrefix}${task.id}`), []);
  await runtime.stop(task);
  t.pass('stop() of a task that ended does nothing');
});

test('release() kills children that outlive the first process', async (t) => {
  const { runtime, place } = await openRuntime(t);
  const task = shellTask('setsid sleep 1000 & echo started');
  await run(runtime, task);
  t.match(await runtime.wait(task.id), { exitCode: 0 });
  await runtime.release(task.id);
  t.same(await processesInNetns(`${place.netnsPrefix}${task.id}`), []);
});

test('prepare() and start() name what is wrong', async (t) => {
  const { runtime, place } = await openRuntime(t);
  for (const [overrides, detail] of [
    [{ argv: ['no-such-command'] }, { code: 'COMMAND_NOT_FOUND', command: 'no-such-command' }],
    [{ argv: ['./x'] }, { code: 'COMMAND_NOT_FOUND', command: './x' }],
    [{ argv: ['/etc/passwd'] }, { code: 'COMMAND_NOT_EXECUTABLE', command: '/etc/passwd' }],
    [{ argv: ['/etc'] }, { code: 'COMMAND_NOT_EXECUTABLE', command: '/etc' }],
    [{ env: ['PATH=/nowhere'] }, { code: 'COMMAND_NOT_FOUND', command: 'sh' }],
    [{ directory: '/no/such' }, { code: 'DIRECTORY_NOT_FOUND', directory: '/no/such' }],
    [{ user: 'nobody-here' }, { code: 'USER_NOT_FOUND', user: 'nobody-here' }],
    [{ user: 'root:nobody-here' }, { code: 'USER_NOT_FOUND', user: 'root:nobody-here' }],
    [{ stopSignal: 'TERM' }, { code: 'BAD_SIGNAL', signal: 'TERM' }],
  ] as const) {
    await t.rejects(runtime.prepare(shellTask('true', overrides)), {
      name: 'RuntimeError',
      detail,
    });
  }
  const broken = join(place.directory, 'broken');
  await writeFile(broken, '#!/no/such/interpreter\n', { mode: 0o755 });
  const task = shellTask('', { argv: [broken] });
  await run(runtime, task);
  t.match(await runtime.wait(task.id), { exitCode: 127 });
  const [record] = await logRecords(runtime, task.id);
  t.match(record, { stream: 'stderr', line: /failed to execute .*No such file/ });
});

/** An agent in a process of its own that starts `tasks`, tells, and waits to be killed. */
async function startAndKillAgent(place: Scratch, tasks: unknown): Promise<void> {
  const source = `
    import { ProcessRuntime } from '${import.meta.resolve('../../src/runtime/process-runtime.ts')}';
    import { SILENT_LOG } from '${import.meta.resolve('../../src/core/capabilities.ts')}';
    const clock = { nowMs: () => performance.now(), epochMs: () => Date.now() };
    const [options, tasks] = JSON.parse(process.argv[1]);
    const runtime = new ProcessRuntime({ clock, log: SILENT_LOG }, options);
    await runtime.adopt();
    for (const task of tasks) {
      await runtime.prepare(task);
      await runtime.start(task);
      for await (const { line } of runtime.logs(task.id, { follow: true })) if (line === 'ready') break;
    }
    console.log('started');
    setInterval(() => {}, 1000);`;
  const options = {
    stateDirectory: join(place.directory, 'tasks'),
    netnsPrefix: place.netnsPrefix,
  };
  const args = ['--input-type=module', '-e', source, JSON.stringify([options, tasks])];
  const agent = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise<void>((resolve, reject) => {
    agent.stdout.once('data', () => resolve());
    agent.once('exit', () => reject(new Error('The agent ended before it started its tasks')));
  });
  agent.removeAllListeners('exit');
  agent.kill('SIGKILL');
  await new Promise((resolve) => agent.once('exit', resolve));
}

test('tasks survive SIGKILL of the agent, and the next agent adopts them', async (t) => {
  const place = await scratch(t);
  const loop = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
  const go = join(place.directory, 'go');
  const ending = `echo ready; while [ ! -e ${go} ]; do sleep 0.02; done; echo late; exit 9`;
  const [stays, ends, orphan] = [shellTask(loop), shellTask(ending), shellTask(loop)];
  await startAndKillAgent(place, [stays, ends, orphan]);
  const state = join(place.directory, 'tasks');
  const pidOf = async (id: string) =>
    Number((await readFile(join(state, id, 'process'), 'utf8')).split(' ')[0]);
  const orphanPid = await pidOf(orphan.id);

  const runtime = newRuntime(place);
  t.teardown(() => runtime.close());
  const adopted = await runtime.adopt();
  t.match(
    adopted,
    [stays, ends, orphan].map(({ id }) => ({ taskId: id, state: 'running' })),
  );
  t.match(adopted[0], { pid: await pidOf(stays.id) });
  await writeFile(go, '');
  t.match(await runtime.wait(ends.id), { exitCode: 9 }, 'the end of an adopted task is noticed');
  const lines = (await logRecords(runtime, ends.id)).map((record) => record.line);
  t.same(lines, ['ready', 'late'], 'no line is lost or repeated');
  await runtime.stop(stays);
  t.match(await runtime.wait(stays.id), { exitCode: 5 }, 'an adopted task stops with its signal');

  const stat = await readFile(`/proc/${orphanPid}/stat`, 'utf8');
  killProcess(Number(stat.slice(stat.lastIndexOf(')')).split(' ')[2])); // its supervisor
  killProcess(orphanPid);
  t.match(
    await runtime.wait(orphan.id),
    { exitCode: undefined },
    'a task without a supervisor is not waited for for ever',
  );
});

test('adopt() takes no other process for the task, and tells what ended meanwhile', async (t) => {
  const { runtime, place } = await openRuntime(t);
  const done = shellTask('exit 4');
  const reused = shellTask('sleep 1000');
  const rebooted = shellTask('sleep 1000');
  const prepared = shellTask('true');
  await runtime.prepare(prepared);
  for (const task of [done, reused, rebooted]) await run(runtime, task);
  await runtime.wait(done.id);
  for (const [task, field, value] of [
    [reused, 1, '1'], // the start time
    [rebooted, 2, 'another-boot'],
  ] as const) {
    const file = join(place.directory, 'tasks', task.id, 'process');
    const fields = (await readFile(file, 'utf8')).trim().split(' ');
    await writeFile(file, `${fields.with(field, value).join(' ')}\n`);
  }
  await runtime.close();
  const next = newRuntime(place);
  t.teardown(() => next.close());
  const adopted = await next.adopt();
  t.match(
    adopted.find(({ taskId }) => taskId === done.id),
    { state: 'ended', exit: { exitCode: 4 } },
  );
  t.match(
    adopted.find(({ taskId }) => taskId === prepared.id),
    { state: 'prepared' },
  );
  for (const task of [reused, rebooted]) {
    const found = adopted.find(({ taskId }) => taskId === task.id);
    t.match(found, { state: 'ended', exit: { exitCode: undefined } });
    await next.release(task.id);
    t.same(await processesInNetns(`${place.netnsPrefix}${task.id}`), []);
  }
});

test('the supervisor passes signals on, and then keeps the exit code', async (t) => {
  const { runtime } = await openRuntime(t);
  const script =
    "trap 'echo got; exit 6' TERM; echo $PPID; echo ready; while :; do sleep 0.05; done";
  const task = shellTask(script);
  await run(runtime, task);
  await untilLogged(runtime, task.id, 'ready');
  const [first] = await logRecords(runtime, task.id);
  process.kill(Number(first?.line), 'SIGTERM');
  t.match(await runtime.wait(task.id), { exitCode: 6 });
});
