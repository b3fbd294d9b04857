// Logs of tasks on other nodes: real sessions, and real sockets between them and the manager.
import { setImmediate } from 'node:timers/promises';
import { type Test, test } from 'tap';
import { SILENT_LOG } from '../../src/core/capabilities.ts';
import { type HttpServer, serveHttp } from '../../src/io/http-server.ts';
import { ManagerClient } from '../../src/io/manager-client.ts';
import type {
  AssignmentSet,
  JoinResponse,
  LogRecord,
  LogSessionMessage,
  NodeDescription,
} from '../../src/manager/session-protocol.ts';
import type { ReadTaskLog } from '../../src/node/log-answers.ts';
import { Session } from '../../src/node/session.ts';
import { type LabOptions, ManagerLab, serviceSpec } from '../support/manager-lab.ts';

function record(line: string, stream: LogRecord['stream'] = 'stdout'): LogRecord {
  return { timestampMs: 1_000, stream, line };
}

/** A log that is written while it is read. */
class LiveLog {
  readonly #lines: string[] = [];
  #wake = (): void => {};
  #isOver = false;
  readonly aborted = Promise.withResolvers<void>();
  /** How much of it was wanted. */
  options: Parameters<ReadTaskLog>[1] | undefined;

  write(line: string): void {
    this.#lines.push(line);
    this.#wake();
  }

  end(): void {
    this.#isOver = true;
    this.#wake();
  }

  async *read(options: Parameters<ReadTaskLog>[1]): AsyncGenerator<LogRecord> {
    this.options = options;
    options.signal.addEventListener('abort', () => {
      this.aborted.resolve();
      this.end();
    });
    for (let at = 0; ; ) {
      const line = this.#lines[at];
      if (line !== undefined) {
        at += 1;
        yield record(line);
      } else if (this.#isOver) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }
}

/** A node's session with its logs, but nothing that runs. */
interface TestNode {
  readonly identity: JoinResponse;
  readonly session: Session;
  readonly removed: Promise<void>;
  /** What it has by way of logs. */
  readonly logs: Map<string, (options: Parameters<ReadTaskLog>[1]) => AsyncIterable<LogRecord>>;
}

class Cluster {
  readonly lab: ManagerLab;
  readonly #server: HttpServer;

  private constructor(lab: ManagerLab, server: HttpServer) {
    this.lab = lab;
    this.#server = server;
  }

  static async start(t: Test, options?: LabOptions): Promise<Cluster> {
    const lab = await ManagerLab.start(options);
    const server = await serveHttp(lab.manager.sessionApi.fetch, {
      kind: 'tcp',
      host: '127.0.0.1',
      port: 0,
    });
    t.teardown(async () => {
      lab.stop();
      await server.close();
    });
    return new Cluster(lab, server);
  }

  client(): ManagerClient {
    return new ManagerClient('127.0.0.1', this.#server.port);
  }

  async join(hostname: string): Promise<JoinResponse> {
    return await this.client().join({
      token: this.lab.manager.joinTokens().worker,
      description: description(hostname),
      advertiseAddress: '192.0.2.7',
      gossipPort: 7946,
      availability: 'active',
    });
  }

  async startNode(t: Test, hostname: string): Promise<TestNode> {
    const identity = await this.join(hostname);
    const logs: TestNode['logs'] = new Map();
    const assigned = Promise.withResolvers<AssignmentSet>();
    const removed = Promise.withResolvers<void>();
    const session = new Session(
      {
        credentials: identity,
        description: description(hostname),
        log: SILENT_LOG,
        events: { assigned: assigned.resolve, connected: () => {}, removed: removed.resolve },
        allStatuses: () => [],
        portConflicts: () => [],
        gossipKeys: () => ({ mode: 'accept', ids: [] }),
        taskLog: (taskId, options) => logs.get(taskId)?.(options),
      },
      [`127.0.0.1:${this.#server.port}`],
    );
    t.teardown(() => session.close());
    session.start();
    await assigned.promise;
    return { identity, session, removed: removed.promise, logs };
  }

  /** Joins a node whose session the test reads itself. */
  async startSilentNode(
    t: Test,
    hostname: string,
  ): Promise<{ identity: JoinResponse; nextAboutLogs: () => Promise<LogSessionMessage> }> {
    const identity = await this.join(hostname);
    const stop = new AbortController();
    const messages = this.client().session(identity, stop.signal);
    t.teardown(() => stop.abort());
    await messages.next();
    const nextAboutLogs = async (): Promise<LogSessionMessage> => {
      for (;;) {
        const { value } = await messages.next();
        if (value?.kind === 'logs' || value?.kind === 'endLogs') return value;
      }
    };
    return { identity, nextAboutLogs };
  }

  /** Runs a service with one task on each node. @returns its tasks' ids by node */
  async runTasks(): Promise<Map<string, string>> {
    const spec = serviceSpec('web', 1);
    await this.lab.post('/services/create', { ...spec, Mode: { Global: {} } });
    await this.lab.time.advance(1_000);
    return new Map((await this.lab.liveTasks('web')).map(({ ID, NodeID }) => [NodeID, ID]));
  }

  /** Asks for logs. */
  async logs(path: string): Promise<Response> {
    return await this.lab.manager.api.request(`${path}/logs?stdout=1&stderr=1&follow=1&tail=9`);
  }
}

function description(hostname: string): NodeDescription {
  return {
    hostname,
    platform: { architecture: 'x86_64', os: 'linux' },
    resources: { nanoCpus: 1e9, memoryBytes: 1e9 },
    agentVersion: '0.1.0',
  };
}

async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of source) items.push(item);
  return items;
}

/** The frames of an answer as they come: `1 text` for stdout, `2 text` for stderr. */
async function* framesOf(response: Response): AsyncGenerator<string> {
  for await (const frame of response.body!) {
    const payload = new TextDecoder().decode(frame.subarray(8));
    yield `${frame[0]} ${payload.trimEnd()}`;
  }
}

test('logs of all nodes come in one answer, whole and in order', async (t) => {
  const local: string[] = [];
  const deps: LabOptions['deps'] = {
    taskLogs: (taskId) => {
      if (!local.includes(taskId)) return undefined;
      return (async function* () {
        yield record('local');
      })();
    },
  };
  const cluster = await Cluster.start(t, { deps });
  const [alpha, beta] = [await cluster.startNode(t, 'alpha'), await cluster.startNode(t, 'beta')];
  const tasks = await cluster.runTasks();
  local.push(tasks.get(alpha.identity.nodeId)!);
  const lines = Array.from(
    { length: 5_000 },
    (_, at) => `line ${at} ünïcode ${'x'.repeat(at % 97)}`,
  );
  const wanted: unknown[] = [];
  const task = tasks.get(beta.identity.nodeId)!;
  beta.logs.set(task, async function* (options) {
    wanted.push([options.follow, options.tail]);
    for (const line of lines) yield record(line, line.endsWith('x') ? 'stderr' : 'stdout');
  });
  const answer = await all(framesOf(await cluster.logs('/services/web')));
  t.equal(answer.filter((frame) => frame === '1 local').length, 1);
  t.same(
    answer.filter((frame) => frame !== '1 local'),
    lines.map((line) => `${line.endsWith('x') ? 2 : 1} ${line.trimEnd()}`),
  );
  t.same(wanted, [[true, 9]]);
  const one = await cluster.lab.manager.api.request(`/tasks/${task}/logs?stdout=1`);
  t.equal((await all(framesOf(one))).length, lines.filter((l) => !l.endsWith('x')).length);
  t.same(wanted.at(-1), [false, undefined]);
});

test('a followed log comes line by line, until its reader goes away', async (t) => {
  const cluster = await Cluster.start(t);
  const node = await cluster.startNode(t, 'alpha');
  const [task] = [...(await cluster.runTasks()).values()];
  const log = new LiveLog();
  node.logs.set(task!, (options) => log.read(options));
  const response = await cluster.logs('/services/web');
  const frames = framesOf(response);
  for (const line of ['one', 'two', 'three']) {
    log.write(line);
    t.equal((await frames.next()).value, `1 ${line}`);
  }
  await frames.return(undefined);
  await log.aborted.promise;
  t.pass('the node reads the log no longer');

  const second = new LiveLog();
  node.logs.set(task!, (options) => second.read(options));
  const ending = framesOf(await cluster.logs('/services/web'));
  second.write('last');
  second.end();
  t.same(await all(ending), ['1 last'], 'and it ends with the task');
});

test('a reader that does not read makes the node wait', async (t) => {
  const cluster = await Cluster.start(t);
  const node = await cluster.startNode(t, 'alpha');
  const [task] = [...(await cluster.runTasks()).values()];
  const RECORDS = 8_000;
  let sent = 0;
  const aborted = Promise.withResolvers<void>();
  node.logs.set(task!, async function* ({ signal }) {
    signal.addEventListener('abort', () => aborted.resolve());
    for (; sent < RECORDS; sent += 1) yield record('x'.repeat(16_000));
  });
  const reader = (await cluster.logs('/services/web')).body!.getReader();
  await reader.read();
  // Until nothing moves any more: what was sent fills the sockets' buffers, and no memory of ours.
  for (let before = -1, still = 0; still < 500; still = before === sent ? still + 1 : 0) {
    before = sent;
    await setImmediate();
  }
  t.ok(sent < RECORDS / 2, `${sent} of ${RECORDS} records were sent`);
  await reader.cancel();
  await aborted.promise;
});

test('an answer is taken once, and of the node that was asked only', async (t) => {
  const cluster = await Cluster.start(t);
  const asked = await cluster.startSilentNode(t, 'alpha');
  const other = await cluster.join('beta');
  const tasks = await cluster.runTasks();
  const task = tasks.get(asked.identity.nodeId)!;
  const answer = cluster.logs(`/tasks/${task}`);
  const request = await asked.nextAboutLogs();
  t.match(request, { kind: 'logs', taskId: task, follow: true, tail: 9 });
  const { requestId } = request;
  t.match(requestId, /^[0-9a-z]{25}$/);
  const { signal } = new AbortController();
  const client = cluster.client();
  async function* forged(): AsyncGenerator<LogRecord> {
    yield record('forged');
  }
  const refused = { detail: { code: 'STATUS', status: 404 }, message: /log request .* not found/ };
  await t.rejects(client.sendLog(other, requestId, forged(), signal), refused);
  await t.rejects(client.refuseLog(other, requestId, { message: 'no' }), refused);
  await t.rejects(client.sendLog(asked.identity, 'unknown', forged(), signal), refused);
  const stranger = { nodeId: asked.identity.nodeId, nodeSecret: other.nodeSecret };
  await t.rejects(client.sendLog(stranger, requestId, forged(), signal), {
    message: /its credential is wrong/,
    detail: { code: 'STATUS', status: 401 },
  });
  const log = new LiveLog();
  const sending = client.sendLog(
    asked.identity,
    requestId,
    log.read({ follow: true, signal }),
    signal,
  );
  const frames = framesOf(await answer);
  await t.rejects(client.sendLog(asked.identity, requestId, forged(), signal), refused);
  log.write('genuine');
  log.end();
  t.same(await all(frames), ['1 genuine']);
  await sending;

  const second = cluster.logs(`/tasks/${task}`);
  const next = await asked.nextAboutLogs();
  const sent = Promise.withResolvers<void>();
  async function* failing(): AsyncGenerator<LogRecord> {
    yield record('half');
    await sent.promise;
    throw new Error('out of paper');
  }
  const failed = client.sendLog(asked.identity, next.requestId, failing(), signal);
  const rest = framesOf(await second);
  t.equal((await rest.next()).value, '1 half');
  sent.resolve();
  await t.rejects(failed, { message: 'out of paper' });
  t.match(await all(rest), [/^2 Cannot read .* node alpha broke off its answer: /]);
});

test('the manager’s own answer ends a log, too', async (t) => {
  const cluster = await Cluster.start(t);
  const asked = await cluster.startSilentNode(t, 'alpha');
  const [task] = [...(await cluster.runTasks()).values()];
  const answer = cluster.logs(`/tasks/${task}`);
  const { requestId } = await asked.nextAboutLogs();
  const { signal } = new AbortController();
  const log = new LiveLog();
  const records = log.read({ follow: true, signal });
  const sending = cluster.client().sendLog(asked.identity, requestId, records, signal);
  await (await answer).body!.cancel();
  await sending;
  t.match(await asked.nextAboutLogs(), { kind: 'endLogs', requestId });
  log.end();
});

test('what cannot be read is said, and the rest is shown', async (t) => {
  const cluster = await Cluster.start(t);
  const silent = await cluster.startSilentNode(t, 'silent');
  const empty = await cluster.startNode(t, 'empty');
  const broken = await cluster.startNode(t, 'broken');
  const good = await cluster.startNode(t, 'good');
  const away = await cluster.startNode(t, 'away');
  const tasks = await cluster.runTasks();
  const taskOf = ({ identity }: { identity: JoinResponse }): string => tasks.get(identity.nodeId)!;
  await away.session.close();
  broken.logs.set(taskOf(broken), async function* () {
    yield record('half');
    throw new Error('disk on fire');
  });
  const log = new LiveLog();
  good.logs.set(taskOf(good), (options) => log.read(options));

  for (const [node, reason] of [
    [empty, 'node empty says: it does not have the log of this task'],
    [away, 'node away is not connected'],
  ] as const) {
    const response = await cluster.logs(`/tasks/${taskOf(node)}`);
    t.equal(response.status, 503);
    const name = `web.${node.identity.nodeId}.${taskOf(node)}`;
    t.same(await response.json(), { message: `Cannot read the log of task ${name}: ${reason}` });
  }

  const said: string[] = [];
  const frames = framesOf(await cluster.logs('/services/web'));
  const first = await silent.nextAboutLogs();
  await cluster.lab.time.advance(9_999);
  for (let count = 0; count < 4; count += 1) said.push((await frames.next()).value);
  t.same(said.map((line) => line.replace(/web\.\w+\.\w+/, 'TASK')).sort(), [
    '1 half',
    '2 Cannot read the log of task TASK: node away is not connected',
    '2 Cannot read the log of task TASK: node broken says: it cannot read the rest of the log of this task',
    '2 Cannot read the log of task TASK: node empty says: it does not have the log of this task',
  ]);
  await cluster.lab.time.advance(1);
  t.match((await frames.next()).value, /node silent did not answer within 10 seconds$/);
  t.match(await silent.nextAboutLogs(), { kind: 'endLogs', requestId: first.requestId });
  log.write('still here');
  t.equal((await frames.next()).value, '1 still here');
  await good.session.close();
  t.match(
    (await frames.next()).value,
    /^2 Cannot read .*: node good (broke off|has lost its conn)/,
  );
  t.ok((await frames.next()).done);

  await cluster.client().report(silent.identity, { tasks: [], portConflicts: [] });
  const alone = cluster.logs(`/tasks/${taskOf(silent)}`);
  await silent.nextAboutLogs();
  await cluster.lab.time.advance(10_000);
  t.match(await (await alone).json(), { message: /node silent did not answer within 10 seconds/ });
});

test('a node that is down or removed is named as such', async (t) => {
  const cluster = await Cluster.start(t);
  const node = await cluster.startNode(t, 'alpha');
  const left = await cluster.startNode(t, 'beta');
  const tasks = await cluster.runTasks();
  const log = new LiveLog();
  node.logs.set(tasks.get(node.identity.nodeId)!, (options) => log.read(options));
  const frames = framesOf(await cluster.logs(`/tasks/${tasks.get(node.identity.nodeId)}`));
  log.write('one');
  t.equal((await frames.next()).value, '1 one');
  t.match(await cluster.lab.delete('/nodes/alpha'), {
    status: 400,
    body: { message: /^node \w+ is not down and can't be removed/ },
  });
  t.equal((await cluster.lab.delete('/nodes/alpha?force=1')).status, 200);
  t.match(await (await cluster.logs(`/tasks/${tasks.get(node.identity.nodeId)}`)).json(), {
    message: /: node \w+ has been removed from the cluster$/,
  });
  const rest = all(frames);
  await cluster.lab.time.advance(100);
  await node.removed;
  await log.aborted.promise;
  t.match(await rest, [/^2 Cannot read .*: node alpha (broke off|has lost its connection)/]);

  await left.session.close();
  await cluster.client().leave(left.identity);
  const { body } = await cluster.lab.get('/tasks');
  const [task] = body.filter(({ NodeID }: { NodeID: string }) => NodeID === left.identity.nodeId);
  t.match(await (await cluster.logs(`/tasks/${task.ID}`)).json(), {
    message: /: node beta is down$/,
  });
});
