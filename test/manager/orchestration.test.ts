import { type Test, test } from 'tap';
import { FakeAgent } from '../support/manager-agent.ts';
import { type Answer, ManagerLab, serviceSpec } from '../support/manager-lab.ts';

type Body = Answer['body'];

interface Cluster {
  readonly lab: ManagerLab;
  readonly agents: readonly FakeAgent[];
}

async function cluster(t: Test, hosts: number): Promise<Cluster> {
  const lab = await ManagerLab.start();
  t.teardown(() => lab.stop());
  const agents: FakeAgent[] = [];
  for (let host = 1; host <= hosts; host += 1) {
    agents.push(await FakeAgent.join(lab, `host-${host}`));
  }
  return { lab, agents };
}

/** Tasks per host name, as `1 1 1`. */
async function spread({ lab, agents }: Cluster, service: string): Promise<string> {
  const tasks = await lab.liveTasks(service);
  return agents.map(({ id }) => tasks.filter((task) => task.NodeID === id).length).join(' ');
}

function addressesOf(tasks: readonly Body[]): string[] {
  return tasks.flatMap((task) =>
    task.NetworksAttachments.flatMap((attachment: Body) =>
      attachment.Addresses.map((address: string) => `${attachment.Network.ID} ${address}`),
    ),
  );
}

async function change(lab: ManagerLab, service: string, fields: object): Promise<Answer> {
  const { body } = await lab.get(`/services/${service}`);
  return await lab.post(`/services/${service}/update?version=${body.Version.Index}`, {
    ...body.Spec,
    ...fields,
  });
}

const replicas = (count: number): object => ({ Mode: { Replicated: { Replicas: count } } });

test('replicas spread over the nodes, and scaling keeps them even', async (t) => {
  const world = await cluster(t, 3);
  const { lab } = world;
  await lab.post('/networks/create', { Name: 'app', Driver: 'overlay' });
  await lab.post('/services/create', serviceSpec('web', 3, { networks: ['app'] }));
  await lab.time.advance(1_000);
  t.equal(await spread(world, 'web'), '1 1 1');
  const first = await lab.liveTasks('web');
  t.same(
    first.map((task) => task.Slot),
    [1, 2, 3],
  );
  t.ok(first.every((task) => task.Status.State === 'running'));

  await change(lab, 'web', replicas(8));
  await lab.time.advance(1_000);
  t.match(await spread(world, 'web'), /^(3 3 2|3 2 3|2 3 3)$/);
  const grown = await lab.liveTasks('web');
  t.same(
    grown.map((task) => task.Slot),
    [1, 2, 3, 4, 5, 6, 7, 8],
  );
  t.equal(new Set(addressesOf(grown)).size, 8, 'no address is given twice');
  t.ok(
    first.every((task) => grown.some((later) => later.ID === task.ID)),
    'the old ones stay',
  );

  await change(lab, 'web', replicas(4));
  await lab.time.advance(1_000);
  const shrunk = await lab.liveTasks('web');
  t.equal(shrunk.length, 4);
  t.match((await spread(world, 'web')).split(' ').sort().join(' '), '1 1 2');
  t.equal((await lab.get('/tasks')).body.length, 4, 'tasks that were scaled away leave nothing');

  await change(lab, 'web', replicas(0));
  await lab.time.advance(1_000);
  t.equal((await lab.get('/tasks')).body.length, 0);
});

test('scaling down prefers tasks that do not run', async (t) => {
  const { lab, agents } = await cluster(t, 1);
  agents[0]!.behaviour = (task) => (task.slot === 1 ? ['accepted', 'preparing'] : ['running']);
  await lab.post('/services/create', serviceSpec('web', 3));
  await lab.time.advance(1_000);
  await change(lab, 'web', replicas(2));
  await lab.time.advance(1_000);
  t.same(
    (await lab.liveTasks('web')).map((task) => task.Slot),
    [2, 3],
  );
});

test('a node that falls silent is down after 15 s, and its tasks run elsewhere', async (t) => {
  const world = await cluster(t, 3);
  const { lab, agents } = world;
  await lab.post('/services/create', serviceSpec('web', 6));
  await lab.time.advance(1_000);
  agents[0]!.kill();
  await lab.time.advance(14_000);
  t.equal(await spread(world, 'web'), '2 2 2', 'not earlier');
  await lab.time.advance(6_000);
  const { Status } = (await lab.get(`/nodes/${agents[0]!.id}`)).body;
  t.match(Status, { State: 'down', Message: 'heartbeat failure' });
  t.equal(await spread(world, 'web'), '0 3 3');
  t.ok((await lab.liveTasks('web')).every((task) => task.Status.State === 'running'));
  const lost = (await lab.get('/tasks')).body.filter((task: Body) => task.NodeID === agents[0]!.id);
  t.same(
    lost.map((task: Body) => [task.DesiredState, task.Status.State]),
    [
      ['shutdown', 'running'],
      ['shutdown', 'running'],
    ],
  );
  const all = (await lab.get('/tasks')).body;
  t.equal(
    new Set(addressesOf(all)).size,
    2 * all.length,
    'tasks that may still run keep their addresses, one of each family',
  );

  await agents[0]!.connect();
  await lab.time.advance(1_000);
  t.equal((await lab.get(`/nodes/${agents[0]!.id}`)).body.Status.State, 'ready');
  t.same(
    agents[0]!.assignments?.tasks.map((task) => task.desiredState),
    ['shutdown', 'shutdown'],
  );
  t.equal(await spread(world, 'web'), '0 3 3', 'nothing moves back');
});

test('gossip shortens the wait for a silent node, and a heartbeat clears it', async (t) => {
  const { lab, agents } = await cluster(t, 2);
  await lab.time.advance(1_000);
  lab.manager.nodeSuspected(agents[1]!.id);
  agents[0]!.freeze();
  lab.manager.nodeSuspected(agents[0]!.id);
  await lab.time.advance(6_000);
  t.equal((await lab.get(`/nodes/${agents[0]!.id}`)).body.Status.State, 'down');
  t.equal((await lab.get(`/nodes/${agents[1]!.id}`)).body.Status.State, 'ready');
});

test('a node that is down for a day loses its tasks, and they their addresses', async (t) => {
  const { lab, agents } = await cluster(t, 2);
  await lab.post('/services/create', serviceSpec('web', 2));
  await lab.time.advance(1_000);
  agents[0]!.kill();
  await lab.time.advance(60_000);
  await lab.delete('/services/web');
  await lab.time.advance(60_000);
  t.equal((await lab.get('/tasks')).body.length, 1, 'the one that may still run');
  await lab.time.advance(24 * 3_600_000);
  t.equal((await lab.get('/tasks')).body.length, 0);
  t.equal(lab.manager.snapshot().pools[0]?.used, 2, 'the two nodes');
});

for (const { policy, ends, expected } of [
  { policy: undefined, ends: 'failed', expected: 'again after 5000' },
  { policy: undefined, ends: 'complete', expected: 'again after 5000' },
  { policy: { Condition: 'any', Delay: 2e9 }, ends: 'complete', expected: 'again after 2000' },
  { policy: { Condition: 'on-failure', Delay: 0 }, ends: 'failed', expected: 'again after 0' },
  { policy: { Condition: 'on-failure' }, ends: 'complete', expected: 'never' },
  { policy: { Condition: 'on-failure' }, ends: 'rejected', expected: 'again after 5000' },
  { policy: { Condition: 'none' }, ends: 'failed', expected: 'never' },
] as const) {
  test(`a task that is ${ends} under ${JSON.stringify(policy ?? {})} runs ${expected}`, async (t) => {
    const { lab, agents } = await cluster(t, 1);
    const task = policy === undefined ? {} : { RestartPolicy: policy };
    await lab.post('/services/create', serviceSpec('web', 1, { task }));
    await lab.time.advance(1_000);
    const [first] = await lab.liveTasks('web');
    await agents[0]!.reportState(first.ID, ends, 'task: non-zero exit (1)');
    const endedAtMs = lab.time.nowMs();
    let restartedAfterMs: number | undefined;
    for (let step = 0; step < 100 && restartedAfterMs === undefined; step += 1) {
      await lab.time.advance(100);
      if (agents[0]!.running.some(({ id }) => id !== first.ID)) {
        restartedAfterMs = lab.time.nowMs() - endedAtMs;
      }
    }
    if (expected === 'never') {
      t.equal(restartedAfterMs, undefined);
      t.equal((await lab.get(`/tasks/${first.ID}`)).body.DesiredState, 'shutdown');
      await change(lab, 'web', { TaskTemplate: { ...first.Spec, ForceUpdate: 1 } });
      await lab.time.advance(1_000);
      t.equal((await lab.liveTasks('web')).length, 1, 'an update starts it anew');
    } else {
      const delayMs = Number(expected.split(' ').at(-1));
      t.ok(restartedAfterMs !== undefined && restartedAfterMs >= delayMs, 'not too early');
      t.ok(restartedAfterMs !== undefined && restartedAfterMs <= delayMs + 200, 'not late');
    }
    t.match((await lab.get(`/tasks/${first.ID}`)).body.Status, {
      State: ends,
      Err: 'task: non-zero exit (1)',
    });
  });
}

test('a crash loop keeps five tasks of history, and MaxAttempts ends it', async (t) => {
  const { lab, agents } = await cluster(t, 1);
  agents[0]!.behaviour = () => ['starting', 'failed'];
  const RestartPolicy = { Condition: 'any', Delay: 1e9, MaxAttempts: 9 };
  await lab.post('/services/create', serviceSpec('web', 1, { task: { RestartPolicy } }));
  await lab.time.advance(8_500);
  const tasks = (await lab.get('/tasks')).body;
  t.equal(tasks.filter((task: Body) => task.DesiredState === 'shutdown').length, 5);
  await lab.time.advance(120_000);
  t.equal(agents[0]!.states.size, 10, 'one run and nine more');
  t.same(await lab.liveTasks('web'), []);
  t.equal(lab.manager.snapshot().pools[0]?.used, 1, 'dead tasks hold no addresses');
});

test('MaxAttempts counts within the window only', async (t) => {
  const { lab, agents } = await cluster(t, 1);
  const RestartPolicy = { Condition: 'any', Delay: 0, MaxAttempts: 2, Window: 10e9 };
  await lab.post('/services/create', serviceSpec('web', 1, { task: { RestartPolicy } }));
  for (let round = 0; round < 6; round += 1) {
    await lab.time.advance(6_000);
    const [task] = await lab.liveTasks('web');
    t.ok(task, `round ${round} has a task`);
    await agents[0]!.reportState(task.ID, 'failed');
  }
});

test('drain moves tasks without delay, pause only keeps new ones away', async (t) => {
  const world = await cluster(t, 2);
  const { lab, agents } = world;
  await lab.post('/services/create', serviceSpec('web', 2));
  await lab.time.advance(1_000);
  const availability = async (agent: FakeAgent, Availability: string): Promise<void> => {
    const { body } = await lab.get(`/nodes/${agent.id}`);
    const path = `/nodes/${agent.id}/update?version=${body.Version.Index}`;
    t.equal((await lab.post(path, { ...body.Spec, Availability })).status, 200);
    await lab.time.advance(1_000);
  };
  await availability(agents[0]!, 'pause');
  t.equal(await spread(world, 'web'), '1 1');
  await change(lab, 'web', replicas(4));
  await lab.time.advance(1_000);
  t.equal(await spread(world, 'web'), '1 3');
  await availability(agents[0]!, 'drain');
  t.equal(await spread(world, 'web'), '0 4');
  await availability(agents[0]!, 'active');
  await availability(agents[1]!, 'drain');
  t.equal(await spread(world, 'web'), '4 0');
  t.ok((await lab.liveTasks('web')).every((task) => task.Status.State === 'running'));
});

test('a task that takes the place of a running one waits for its end, a minute at most', async (t) => {
  const { lab, agents } = await cluster(t, 1);
  agents[0]!.stopsTasks = false;
  await lab.post('/services/create', serviceSpec('web', 1));
  await lab.time.advance(1_000);
  const [first] = await lab.liveTasks('web');
  await change(lab, 'web', { TaskTemplate: { ContainerSpec: { Command: ['/bin/other'] } } });
  await lab.time.advance(30_000);
  const [second] = await lab.liveTasks('web');
  t.equal(second.DesiredState, 'ready');
  t.notOk(
    agents[0]!.assignments?.tasks.some(({ id }) => id === second.ID),
    'not handed out yet',
  );
  await lab.time.advance(31_000);
  t.equal((await lab.get(`/tasks/${second.ID}`)).body.Status.State, 'running');
  t.equal((await lab.get(`/tasks/${first.ID}`)).body.DesiredState, 'shutdown');
});

test('an update replaces so many slots at a time as it says, and a broken one stops', async (t) => {
  const { lab, agents } = await cluster(t, 2);
  await lab.post('/services/create', serviceSpec('web', 4));
  await lab.time.advance(1_000);
  const update = (command: string, Parallelism: number): Promise<Answer> =>
    change(lab, 'web', {
      TaskTemplate: { ContainerSpec: { Command: [command] } },
      UpdateConfig: { Parallelism },
    });
  const commands = async (): Promise<string> =>
    (await lab.liveTasks('web')).map((task) => task.Spec.ContainerSpec.Command[0]).join(' ');

  for (const agent of agents)
    agent.behaviour = (task) => (task.argv[0] === 'bad' ? ['starting', 'failed'] : ['running']);
  await update('bad', 1);
  await lab.time.advance(30_000);
  t.equal((await commands()).split(' ').filter((command) => command === 'bad').length, 1);

  await update('good', 2);
  await lab.time.advance(10_000);
  t.equal(await commands(), 'good good good good');
  t.ok((await lab.liveTasks('web')).every((task) => task.Status.State === 'running'));
});

test('changes of placement, restart policy or scale do not replace tasks', async (t) => {
  const { lab } = await cluster(t, 2);
  await lab.post('/services/create', serviceSpec('web', 2));
  await lab.time.advance(1_000);
  const before = (await lab.liveTasks('web')).map((task) => task.ID);
  const { body } = await lab.get('/services/web');
  await change(lab, 'web', {
    TaskTemplate: {
      ...body.Spec.TaskTemplate,
      Placement: { MaxReplicas: 2 },
      RestartPolicy: { Condition: 'none' },
    },
  });
  await lab.time.advance(5_000);
  const after = await lab.liveTasks('web');
  t.same(
    after.map((task) => task.ID),
    before,
  );
  t.same(after[0].Spec.RestartPolicy, { Condition: 'none' });
});

test('a task without a suitable node is pending and says why', async (t) => {
  const { lab, agents } = await cluster(t, 3);
  const place = async (name: string, Placement: object, ports: object[] = []): Promise<Body> => {
    await lab.post('/services/create', serviceSpec(name, 4, { task: { Placement }, ports }));
    await lab.time.advance(1_000);
    return await lab.liveTasks(name);
  };
  const errors = (tasks: Body): string[] =>
    tasks
      .filter((task: Body) => task.Status.State === 'pending')
      .map((task: Body) => task.Status.Err);

  t.same(
    new Set(errors(await place('labelled', { Constraints: ['node.labels.disk == ssd'] }))),
    new Set(['no suitable node (scheduling constraints not satisfied on 3 nodes)']),
  );
  t.same(errors(await place('few', { MaxReplicas: 1 })), [
    'no suitable node (max replicas per node limit exceed)',
  ]);
  const host = { TargetPort: 80, PublishedPort: 80, PublishMode: 'host' };
  t.same(errors(await place('host', {}, [host])), [
    'no suitable node (host-mode port already in use on 3 nodes)',
  ]);
  t.same((await lab.liveTasks('host'))[0].Status.PortStatus.Ports?.length, 1);
  agents[2]!.kill();
  await lab.time.advance(30_000);
  t.ok(
    errors(await lab.liveTasks('few')).every((text) =>
      text.includes('1 node not available for new tasks'),
    ),
  );

  const { body } = await lab.get(`/nodes/${agents[0]!.id}`);
  const Labels = { disk: 'ssd' };
  await lab.post(`/nodes/${agents[0]!.id}/update?version=${body.Version.Index}`, {
    ...body.Spec,
    Labels,
  });
  await lab.time.advance(1_000);
  const placed = await lab.liveTasks('labelled');
  t.ok(placed.every((task) => task.NodeID === agents[0]!.id && task.Status.State === 'running'));

  const { body: labelled } = await lab.get(`/nodes/${agents[0]!.id}`);
  await lab.post(`/nodes/${agents[0]!.id}/update?version=${labelled.Version.Index}`, body.Spec);
  await lab.time.advance(1_000);
  t.ok(
    (await lab.liveTasks('labelled')).every((task) => task.NodeID === undefined),
    'evicted',
  );
});

test('a global service has one task on every fitting node, as nodes come and go', async (t) => {
  const world = await cluster(t, 2);
  const { lab, agents } = world;
  await lab.post('/services/create', {
    ...serviceSpec('probe', 0, { task: { RestartPolicy: { Delay: 1e9 } } }),
    Mode: { Global: {} },
  });
  await lab.time.advance(1_000);
  t.equal(await spread(world, 'probe'), '1 1');
  const third = await FakeAgent.join(lab, 'host-3');
  await lab.time.advance(1_000);
  const all = { lab, agents: [...agents, third] };
  t.equal(await spread(all, 'probe'), '1 1 1');
  const [task] = (await lab.liveTasks('probe')).filter(({ NodeID }) => NodeID === third.id);
  t.equal(task.Name, `probe.${third.id}.${task.ID}`);
  t.equal(task.Slot, undefined);
  await third.reportState(task.ID, 'failed');
  await lab.time.advance(2_000);
  t.equal(await spread(all, 'probe'), '1 1 1', 'restarted on its own node');
  third.kill();
  await lab.time.advance(20_000);
  t.equal(await spread(all, 'probe'), '1 1 0');
  await third.connect();
  await lab.time.advance(2_000);
  t.equal(await spread(all, 'probe'), '1 1 1');
  await lab.delete('/services/probe');
  await lab.time.advance(1_000);
  t.equal((await lab.get('/tasks')).body.length, 0);
});

test('removing a service frees its addresses, its port and its name', async (t) => {
  const { lab, agents } = await cluster(t, 2);
  await lab.post('/networks/create', {
    Name: 'app',
    IPAM: { Config: [{ Subnet: '10.9.0.0/29' }] },
  });
  const spec = serviceSpec('web', 2, {
    networks: ['app'],
    ports: [{ TargetPort: 80, PublishedPort: 8080 }],
  });
  const used = (): string =>
    lab.manager
      .snapshot()
      .pools.map((pool) => `${pool.networkName} ${pool.used}`)
      .sort()
      .join(', ');
  for (let round = 0; round < 4; round += 1) {
    t.equal((await lab.post('/services/create', spec)).status, 201);
    await lab.time.advance(1_000);
    t.equal(used(), 'app 3, ingress 3');
    t.equal((await lab.delete('/networks/app')).status, 400);
    t.equal((await lab.delete('/services/web')).status, 200);
    await lab.time.advance(1_000);
    t.equal(used(), 'app 0, ingress 2');
  }
  t.same(agents[0]!.assignments?.services, []);
  t.same(agents[0]!.assignments?.tasks, []);
  t.equal((await lab.delete('/networks/app')).status, 204);
  await lab.time.advance(1_000);
  t.same(
    agents[0]!.assignments?.networks.map(({ name }) => name),
    ['ingress'],
  );
});

test('a full network is visible on the task, and is tried again when something is released', async (t) => {
  const { lab } = await cluster(t, 1);
  await lab.post('/networks/create', {
    Name: 'tiny',
    IPAM: { Config: [{ Subnet: '10.9.0.0/29' }] },
  });
  await lab.post('/services/create', serviceSpec('web', 6, { networks: ['tiny'] }));
  await lab.time.advance(1_000);
  const tasks = await lab.liveTasks('web');
  t.same(tasks.map((task) => task.Status.State).sort(), [
    'new',
    'new',
    'running',
    'running',
    'running',
    'running',
  ]);
  t.match(tasks.find((task) => task.Status.State === 'new').Status, {
    Message: 'pending task allocation',
    Err: 'Cannot allocate an address in 10.9.0.0/29: all 5 are in use',
  });
  t.equal(
    (await lab.post('/services/create', serviceSpec('other', 1, { networks: ['tiny'] }))).status,
    400,
  );
  t.equal((await lab.get('/services')).body.length, 1, 'nothing half-created');
  await change(lab, 'web', replicas(4));
  await lab.time.advance(1_000);
  t.ok((await lab.liveTasks('web')).every((task) => task.Status.State === 'running'));
});

test('a manager that starts anew goes on where the last one ended', async (t) => {
  const world = await cluster(t, 2);
  const { lab, agents } = world;
  await lab.post('/services/create', serviceSpec('web', 4));
  await lab.time.advance(1_000);
  const before = (await lab.liveTasks('web')).map((task) => task.ID);
  await lab.restartManager();
  for (const agent of agents) await agent.connect();
  await lab.time.advance(40_000);
  t.same(
    (await lab.liveTasks('web')).map((task) => task.ID),
    before,
  );
  await lab.restartManager();
  agents[0]!.kill();
  await agents[1]!.connect();
  await lab.time.advance(29_000);
  t.equal(await spread(world, 'web'), '2 2', 'nodes get twice the time to find the new manager');
  await lab.time.advance(3_000);
  t.equal(await spread(world, 'web'), '0 4');
});

test('whatever happens, no two tasks that may run share an address or a slot', async (t) => {
  const world = await cluster(t, 4);
  const { lab, agents } = world;
  await lab.post('/networks/create', {
    Name: 'app',
    IPAM: { Config: [{ Subnet: '10.9.0.0/26' }] },
  });
  const { random } = lab;
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random.next() * items.length)]!;
  for (let step = 0; step < 120; step += 1) {
    const agent = pick(agents);
    const name = pick(['red', 'green', 'blue']);
    const action = Math.floor(random.next() * 7);
    if (action === 0) agent.kill();
    else if (action === 1 && !agent.isConnected) await agent.connect();
    else if (action === 2)
      await lab.post('/services/create', serviceSpec(name, 5, { networks: ['app'] }));
    else if (action === 3) await lab.delete(`/services/${name}`);
    else if (action === 4 && (await lab.get(`/services/${name}`)).status === 200) {
      await change(lab, name, replicas(Math.floor(random.next() * 9)));
    } else if (action === 5 && agent.isConnected && agent.running.length > 0) {
      await agent.reportState(pick(agent.running).id, 'failed');
    }
    await lab.time.advance(Math.floor(random.next() * 9_000));
    const tasks = (await lab.get('/tasks')).body;
    const alive = tasks.filter(
      (task: Body) => !['complete', 'shutdown', 'failed', 'orphaned'].includes(task.Status.State),
    );
    const addresses = addressesOf(alive);
    t.equal(new Set(addresses).size, addresses.length, `step ${step}: addresses`);
    const slots = (await lab.liveTasks()).map((task) => `${task.ServiceID} ${task.Slot}`);
    t.equal(new Set(slots).size, slots.length, `step ${step}: slots`);
  }
  for (const agent of agents) if (!agent.isConnected) await agent.connect();
  await lab.time.advance(120_000);
  for (const service of (await lab.get('/services?status=1')).body) {
    t.equal(
      service.ServiceStatus.RunningTasks,
      service.ServiceStatus.DesiredTasks,
      service.Spec.Name,
    );
  }
});
