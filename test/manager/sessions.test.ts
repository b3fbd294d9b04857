import fc from 'fast-check';
import { type Test, test } from 'tap';
import type { SessionMessage, TaskState } from '../../src/manager/session-protocol.ts';
import { FakeAgent, joinRequest } from '../support/manager-agent.ts';
import { type LabOptions, ManagerLab, serviceSpec, settle } from '../support/manager-lab.ts';

async function startLab(t: Test, options?: LabOptions): Promise<ManagerLab> {
  const lab = await ManagerLab.start(options);
  t.teardown(() => lab.stop());
  return lab;
}

test('a token gives its role, and any other is refused', async (t) => {
  const lab = await startLab(t);
  const { worker, manager } = lab.manager.joinTokens();
  t.match(await joinRequest(lab, { token: worker }), {
    status: 200,
    body: { role: 'worker', dataPathPort: 4789 },
  });
  t.match(await joinRequest(lab, { token: manager }), { status: 200, body: { role: 'manager' } });
  const other = await ManagerLab.start({ seed: 2 });
  t.teardown(() => other.stop());
  for (const [token, message] of [
    ['', /malformed/],
    ['SWMTKN-1-abc', /malformed/],
    [worker.toUpperCase(), /malformed/],
    [other.manager.joinTokens().worker, /of another cluster/],
    [worker.replace(/.$/, (digit) => (digit === '0' ? '1' : '0')), /not valid any more/],
  ] as const) {
    const answer = await joinRequest(lab, { token });
    t.equal(answer.status, 401);
    t.match(answer.body.message, message);
  }
  t.equal((await lab.get('/nodes')).body.length, 2);
});

test('a second manager is refused, and nothing of it stays', async (t) => {
  const lab = await startLab(t, { cluster: { dataPathPort: 4790 } });
  await FakeAgent.join(lab, 'alpha', 'manager');
  const before = (await lab.store.list('')).revision;
  const { manager, worker } = lab.manager.joinTokens();
  t.match(await joinRequest(lab, { token: manager }), {
    status: 400,
    body: { message: /has one already, alpha,.*Join as a worker: "weft join-token worker"/ },
  });
  t.equal((await lab.store.list('')).revision, before);
  t.equal((await lab.get('/nodes')).body.length, 1);
  t.match(await joinRequest(lab, { token: worker }), { status: 200, body: { dataPathPort: 4790 } });
});

test('a node with an address of the other family is refused, naming both', async (t) => {
  const lab = await startLab(t);
  const token = lab.manager.joinTokens().worker;
  const join = (advertiseAddress: string) => joinRequest(lab, { token, advertiseAddress });
  t.equal((await join('fd00::1')).status, 200);
  t.equal((await join('FD00:0::2')).status, 200, 'in any form');
  t.match(await join('192.0.2.7'), {
    status: 400,
    body: {
      message:
        /^Cannot join: this node advertises the IPv4 address 192.0.2.7, and node .* the IPv6 address fd00::1/,
    },
  });
  t.equal((await lab.get('/nodes')).body.length, 2);
  const agent = await FakeAgent.join(lab, 'gamma', 'worker', {
    advertiseAddress: 'fd00::3',
  });
  t.same(agent.assignments?.gossipSeeds.toSorted(), ['[fd00::1]:7946', '[fd00::2]:7946']);
});

test('join requests are checked field by field', async (t) => {
  const lab = await startLab(t);
  const token = lab.manager.joinTokens().worker;
  for (const [fields, message] of [
    [{ advertiseAddress: 'example' }, /advertiseAddress.*"example"/],
    [{ advertiseAddress: 7 }, /advertiseAddress: expected a string; 7 was given/],
    [{ gossipPort: 70_000 }, /gossipPort/],
    [{ availability: 'no' }, /availability/],
    [{ description: {} }, /description\.hostname/],
  ] as const) {
    const answer = await joinRequest(lab, { token, ...fields });
    t.equal(answer.status, 400);
    t.match(answer.body.message, message);
  }
  t.equal((await lab.get('/nodes')).body.length, 0);
});

test('a node is ready with its first session, and has an address on the ingress network', async (t) => {
  const lab = await startLab(t);
  const { body } = await joinRequest(lab, { token: lab.manager.joinTokens().worker });
  t.equal((await lab.get(`/nodes/${body.nodeId}`)).body.Status.State, 'unknown');
  const agent = await FakeAgent.join(lab, 'alpha');
  t.equal((await lab.get(`/nodes/${agent.id}`)).body.Status.State, 'ready');
  t.match(agent.assignments, {
    nodeId: agent.id,
    clusterId: agent.identity.clusterId,
    ingressAddress: '10.0.0.3',
    managers: ['192.0.2.1:2377'],
    gossipSeeds: [/^192\.0\.2\.\d+:7946$/],
    tasks: [],
  });
  await lab.time.advance(31_000);
  t.match((await lab.get(`/nodes/${body.nodeId}`)).body.Status, { State: 'down' }, 'never came');
});

test('every node learns the keys of all members, and forgets those of removed ones', async (t) => {
  const lab = await startLab(t);
  const alpha = await FakeAgent.join(lab, 'alpha');
  const beta = await FakeAgent.join(lab, 'beta');
  const gamma = await FakeAgent.join(lab, 'gamma');
  t.same(alpha.assignments?.nodes, [], 'who has no key is not vouched for');
  const key = (fill: number): string => Buffer.alloc(32, fill).toString('base64');
  const tell = (agent: FakeAgent, publicKey: string): Promise<Response> => {
    const { hostname } = agent;
    const platform = { architecture: 'x86_64', os: 'linux' };
    const resources = { nanoCpus: 1e9, memoryBytes: 1e9 };
    const description = { hostname, platform, resources, agentVersion: '0.1.0', publicKey };
    return agent.report([], { description });
  };
  const keys = (agent: FakeAgent): string[] =>
    (agent.assignments?.nodes ?? []).map(({ id, publicKey }) => `${id} ${publicKey}`).sort();
  for (const [index, agent] of [alpha, beta, gamma].entries()) await tell(agent, key(index));
  await lab.time.advance(100);
  const all = [alpha, beta, gamma].map(({ id }, index) => `${id} ${key(index)}`).sort();
  for (const agent of [alpha, beta, gamma]) t.same(keys(agent), all);
  t.match(alpha.assignments?.nodes[0], { address: /^192\.0\.2\./, dataPathPort: 4789 });

  await tell(beta, key(9));
  await lab.time.advance(100);
  t.ok(keys(alpha).includes(`${beta.id} ${key(9)}`), 'a new key takes the place of the old one');

  await gamma.request('POST', '/weft/v1/leave');
  await lab.delete(`/nodes/${beta.id}?force=true`);
  await lab.time.advance(100);
  t.same(keys(alpha), [`${alpha.id} ${key(0)}`], 'nobody vouches for who has left or was removed');

  const refused = await tell(alpha, 'AAAA');
  t.equal(refused.status, 400);
  t.match(await refused.json(), { message: /publicKey.*expected 32 bytes in base64/ });
});

test('only a node’s own secret opens its session', async (t) => {
  const lab = await startLab(t);
  const agent = await FakeAgent.join(lab, 'alpha');
  const other = await FakeAgent.join(lab, 'beta');
  for (const authorization of [
    undefined,
    '',
    'Bearer ',
    `Bearer ${agent.id}`,
    `Bearer ${agent.id}.`,
    `Bearer ${agent.id}.${other.identity.nodeSecret}`,
    `Basic ${agent.id}.${agent.identity.nodeSecret}`,
    `Bearer nobody.${agent.identity.nodeSecret}`,
    `Bearer __proto__.x`,
  ]) {
    for (const [method, path] of [
      ['GET', 'session'],
      ['POST', 'status'],
      ['POST', 'leave'],
    ] as const) {
      const headers = authorization === undefined ? {} : { authorization };
      const response = await lab.manager.sessionApi.request(`/weft/v1/${path}`, {
        method,
        headers,
      });
      t.equal(response.status, 401, `${method} ${path} ${authorization}`);
      t.match(await response.json(), { message: /not a member of this cluster/ });
    }
  }
  const stored = JSON.stringify((await lab.store.list('nodes/')).entries);
  t.notMatch(stored, agent.identity.nodeSecret, 'secrets are not stored');
});

test('a second session supersedes the first, which then ends', async (t) => {
  const lab = await startLab(t);
  const agent = await FakeAgent.join(lab, 'alpha');
  const twin = await agent.request('GET', '/weft/v1/session');
  await settle();
  t.equal(agent.messages.at(-1)?.kind, 'superseded');
  t.notOk(agent.isConnected);
  const reader = twin.body!.getReader();
  t.match(JSON.parse(new TextDecoder().decode((await reader.read()).value)), {
    kind: 'complete',
    sequence: 0,
  });
  await reader.cancel();
  const answer = await agent.report([]);
  t.equal(answer.status, 409);
  t.match(await answer.json(), { message: /has no session: open one/ });
});

test('changes are sent in batches, numbered, and with pings between', async (t) => {
  const lab = await startLab(t);
  const agent = await FakeAgent.join(lab, 'alpha');
  for (const Name of ['a', 'b', 'c']) await lab.post('/networks/create', { Name });
  await lab.time.advance(200);
  t.same(
    agent.messages.map(({ kind }) => kind),
    ['complete', 'change'],
  );
  t.match(agent.messages[1], {
    change: { networks: [{ name: 'a' }, { name: 'b' }, { name: 'c' }], services: [] },
  });
  await lab.time.advance(12_000);
  t.same(
    agent.messages.map(({ kind }) => kind),
    ['complete', 'change', 'ping', 'ping'],
  );
  t.same(
    agent.messages.map(({ sequence }) => sequence),
    [0, 1, 2, 3],
  );
  const before = agent.messages.length;
  await lab.post('/services/create', serviceSpec('web', 1));
  await lab.time.advance(1_000);
  const tasks = agent.messages
    .slice(before)
    .flatMap((message) => (message.kind === 'change' ? message.change.tasks : []));
  t.equal(tasks.length, 1, 'status updates are not echoed');
});

test('a slow reader gets one change in place of many, and none is lost', async (t) => {
  const lab = await startLab(t);
  const agent = await FakeAgent.join(lab, 'alpha');
  const reader = (await agent.request('GET', '/weft/v1/session')).body!.getReader();
  const decoder = new TextDecoder();
  for (let network = 0; network < 40; network += 1) {
    await lab.post('/networks/create', { Name: `net-${network}` });
    await lab.time.advance(100);
  }
  let lines: SessionMessage[] = [];
  const drain = async (): Promise<void> => {
    const text = decoder.decode((await reader.read()).value);
    lines = [
      ...lines,
      ...text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ];
    await settle();
  };
  for (let chunk = 0; chunk < 5; chunk += 1) await drain();
  const names = lines.flatMap((line) =>
    line.kind === 'complete'
      ? line.assignments.networks
      : line.kind === 'change'
        ? line.change.networks
        : [],
  );
  t.equal(new Set(names.map(({ name }) => name)).size, 41);
  t.ok(lines.length <= 6, `${lines.length} messages`);
  await reader.cancel();
});

test('task states only move forward, and only by the node that has the task', async (t) => {
  const lab = await startLab(t);
  const agent = await FakeAgent.join(lab, 'alpha');
  const other = await FakeAgent.join(lab, 'beta');
  await lab.post(
    '/services/create',
    serviceSpec('web', 1, { task: { Placement: { Constraints: [`node.id==${agent.id}`] } } }),
  );
  agent.behaviour = () => [];
  await lab.time.advance(1_000);
  const [task] = await lab.liveTasks('web');
  const stateAfter = async (by: FakeAgent, state: TaskState, rest = {}): Promise<string> => {
    const report = {
      taskId: task.ID,
      state,
      message: 'm',
      timestampMs: lab.time.epochMs(),
      ...rest,
    };
    t.equal((await by.report([report])).status, 200);
    return (await lab.get(`/tasks/${task.ID}`)).body.Status.State;
  };
  t.equal(await stateAfter(other, 'running'), 'assigned');
  t.equal(await stateAfter(agent, 'preparing'), 'preparing');
  t.equal(await stateAfter(agent, 'accepted'), 'preparing');
  t.equal(await stateAfter(agent, 'running', { pid: 77 }), 'running');
  t.match((await lab.get(`/tasks/${task.ID}`)).body.Status.ContainerStatus, { PID: 77 });
  t.equal(await stateAfter(agent, 'failed', { exitCode: 3, error: 'boom' }), 'failed');
  t.equal(await stateAfter(agent, 'running'), 'failed');
  t.equal(await stateAfter(agent, 'remove'), 'failed', 'the first end stands');
  t.match((await lab.get(`/tasks/${task.ID}`)).body.Status, {
    Err: 'boom',
    ContainerStatus: { ExitCode: 3 },
  });
  const unknown = { taskId: 'nothing', state: 'running', message: '', timestampMs: 0 } as const;
  t.equal((await agent.report([unknown])).status, 200);
});

test('a node’s description and port conflicts are shown', async (t) => {
  const lab = await startLab(t);
  const agent = await FakeAgent.join(lab, 'alpha');
  const portConflicts = [{ protocol: 'tcp', port: 8080, holder: 'nginx (pid 5)' }] as const;
  const response = await agent.report([], {
    portConflicts,
    description: {
      hostname: 'renamed',
      platform: { architecture: 'aarch64', os: 'linux' },
      resources: { nanoCpus: 1e9, memoryBytes: 1 },
      agentVersion: '0.2.0',
      labels: { rack: 'r1' },
    },
  });
  t.match(await response.json(), { heartbeatMs: Number });
  const { body } = await lab.get('/nodes/renamed');
  t.equal(body.Status.Message, 'cannot serve published port 8080/tcp: nginx (pid 5) holds it');
  t.match(body.Description.Engine, { EngineVersion: '0.2.0', Labels: { rack: 'r1' } });
  await lab.post(
    '/services/create',
    serviceSpec('web', 1, { task: { Placement: { Constraints: ['engine.labels.rack != r1'] } } }),
  );
  await lab.time.advance(1_000);
  t.match((await lab.liveTasks('web'))[0].Status.Err, /constraints not satisfied on 1 node\)/);
});

test('heartbeats without news write nothing', async (t) => {
  const lab = await startLab(t);
  const agent = await FakeAgent.join(lab, 'alpha');
  await lab.time.advance(1_000);
  const { revision } = await lab.store.list('');
  await lab.time.advance(60_000);
  t.equal((await lab.store.list('')).revision, revision);
  t.equal((await lab.get(`/nodes/${agent.id}`)).body.Status.State, 'ready');
});

test('a node that leaves is down at once, its tasks move, and its credential ends', async (t) => {
  const lab = await startLab(t);
  const leaver = await FakeAgent.join(lab, 'alpha');
  const other = await FakeAgent.join(lab, 'beta');
  await lab.post('/services/create', serviceSpec('web', 2));
  await lab.time.advance(1_000);
  t.equal((await leaver.request('POST', '/weft/v1/leave')).status, 204);
  leaver.kill();
  await lab.time.advance(1_000);
  t.match((await lab.get('/nodes/alpha')).body.Status, {
    State: 'down',
    Message: 'node left the cluster',
  });
  t.same(
    (await lab.liveTasks('web')).map((task) => task.NodeID),
    [other.id, other.id],
  );
  t.equal(await leaver.connect(), 401);
  t.equal((await lab.delete('/nodes/alpha')).status, 200);
  await lab.time.advance(1_000);
  t.equal((await lab.get('/tasks')).body.length, 2);
  t.equal(lab.manager.snapshot().pools[0]?.used, 3, 'one node and two tasks');
});

test('a silent session is ended, so that its node opens another', async (t) => {
  const lab = await startLab(t);
  const agent = await FakeAgent.join(lab, 'alpha');
  agent.freeze();
  await lab.time.advance(16_000);
  t.equal((await agent.report([])).status, 409);
  t.equal(await agent.connect(), 200);
  t.equal((await lab.get('/nodes/alpha')).body.Status.State, 'ready');
});

test('reports of any shape are answered, never with 5xx', async (t) => {
  const lab = await startLab(t);
  const agent = await FakeAgent.join(lab, 'alpha');
  await lab.post('/services/create', serviceSpec('web', 1));
  await lab.time.advance(1_000);
  const [task] = await lab.liveTasks('web');
  const report = fc.record(
    {
      tasks: fc.oneof(
        fc.array(
          fc.record(
            {
              taskId: fc.constantFrom(task.ID, 'x', '', null),
              state: fc.constantFrom('running', 'failed', 'new', 'orphaned', 'remove', 7),
              message: fc.oneof(fc.string(), fc.constant(null)),
              timestampMs: fc.oneof(fc.double(), fc.constant(8.64e15), fc.constant(1e300)),
              exitCode: fc.oneof(fc.integer(), fc.double()),
            },
            { requiredKeys: [] },
          ),
          { maxLength: 3 },
        ),
        fc.jsonValue(),
      ),
      portConflicts: fc.oneof(fc.constant([]), fc.jsonValue()),
      description: fc.jsonValue(),
    },
    { requiredKeys: ['tasks'] },
  );
  await fc.assert(
    fc.asyncProperty(
      report,
      async (body) => (await agent.request('POST', '/weft/v1/status', body)).status < 500,
    ),
    { numRuns: 300 },
  );
  t.equal((await lab.get('/tasks')).status, 200, 'and what was taken can be shown');
});
