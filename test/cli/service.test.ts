import { test } from 'tap';
import type { Service, Task } from '../../src/cli/api-types.ts';
import { lines, Refusal, startFakeAgent, weft } from './fake-agent.ts';

const ID = 'svcsvcsvcsvcsvcsvcsvcsvcs';
const NETWORKS = {
  'GET /networks/front': { Id: 'front-id', Name: 'front' },
  'GET /networks/back': { Id: 'back-id', Name: 'back' },
};

/** A process service of `replicas`; its tasks carry the same template. */
function service(replicas: number, version = 1): Service {
  return {
    ID,
    Version: { Index: 20 + version },
    Spec: {
      Name: 'web',
      TaskTemplate: { ContainerSpec: { Command: ['serve', String(version)] } },
      Mode: { Replicated: { Replicas: replicas } },
    },
  };
}

interface TaskSketch {
  readonly slot?: number;
  readonly node?: string;
  readonly state: string;
  readonly desired?: string;
  readonly err?: string;
  readonly version?: number;
  /** Larger is later. */
  readonly at?: number;
}

function task(sketch: TaskSketch): Task {
  return {
    ID: `task${sketch.slot ?? sketch.node}-${sketch.at ?? 0}`,
    ServiceID: ID,
    CreatedAt: new Date(1_000 * (sketch.at ?? 0)).toISOString(),
    Slot: sketch.slot ?? 0,
    ...(sketch.node === undefined ? {} : { NodeID: sketch.node }),
    DesiredState: sketch.desired ?? 'running',
    Spec: { ContainerSpec: { Command: ['serve', String(sketch.version ?? 1)] } },
    Status: { State: sketch.state, ...(sketch.err === undefined ? {} : { Err: sketch.err }) },
  };
}

/** Every poll of the tasks gets the next of `polls`, later ones the last. */
function polled(service_: Service, polls: readonly (readonly TaskSketch[])[]) {
  return {
    'POST /services/create': { ID },
    [`GET /services/${ID}`]: service_,
    'GET /tasks': (times: number) => polls[Math.min(times, polls.length) - 1]?.map(task),
  };
}

const CREATE = ['service', 'create', '--runtime', 'process', 'serve'];

test('`service create` sends only what was given', async (t) => {
  const agent = await startFakeAgent(t, { ...NETWORKS, 'POST /services/create': { ID } });
  const sent = async (...argv: readonly string[]) => {
    const result = await weft(agent, ['service', 'create', '-d', ...argv], {
      env: { FROM_HERE: 'x y' },
    });
    t.same(result, { code: 0, stdout: `${ID}\n`, stderr: '', sleeps: 0 });
    return agent.requests.at(-1);
  };
  t.same(await sent('nginx'), {
    request: 'POST /services/create',
    body: {
      Labels: {},
      TaskTemplate: { ContainerSpec: { Image: 'nginx' }, ForceUpdate: 0 },
      Mode: { Replicated: { Replicas: 1 } },
      EndpointSpec: { Mode: 'vip', Ports: [] },
    },
  });
  t.same(
    (
      await sent(
        ...['--name', 'web', '--replicas', '3', '--runtime', 'process', '--network', 'front'],
        ...['--network', 'name=back,alias=db,alias=sql', '-p', '8080:80', '-p', '53:5353/udp'],
        ...['--publish', 'published=443,target=8443,mode=host', '-e', 'A=1', '-e', 'FROM_HERE'],
        ...['-e', 'UNSET', '-e', 'A=2=3', '-l', 'tier=front', '-l', 'bare', '-u', 'nobody'],
        ...['--constraint', 'node.role==worker', '--constraint', 'node.labels.disk != hdd'],
        ...['-w', '/srv', '--hostname', 'h', '--stop-signal', 'SIGINT'],
        ...['--stop-grace-period', '1m30s', '--restart-condition', 'on-failure'],
        ...['--restart-delay', '500ms', '--restart-max-attempts', '4', '--restart-window', '2h'],
        ...['--replicas-max-per-node', '2', 'serve', '--port', '80', '-d', '--', '-x'],
      )
    )?.body,
    {
      Name: 'web',
      Labels: { tier: 'front', bare: '', 'weft.runtime': 'process' },
      TaskTemplate: {
        ContainerSpec: {
          Command: ['serve', '--port', '80', '-d', '--', '-x'],
          Env: ['A=2=3', 'FROM_HERE=x y'],
          Dir: '/srv',
          User: 'nobody',
          Hostname: 'h',
          StopSignal: 'SIGINT',
          StopGracePeriod: 90_000_000_000,
        },
        RestartPolicy: {
          Condition: 'on-failure',
          Delay: 500_000_000,
          MaxAttempts: 4,
          Window: 7_200_000_000_000,
        },
        Placement: {
          Constraints: ['node.role==worker', 'node.labels.disk != hdd'],
          MaxReplicas: 2,
        },
        Networks: [{ Target: 'front-id' }, { Target: 'back-id', Aliases: ['db', 'sql'] }],
        ForceUpdate: 0,
      },
      Mode: { Replicated: { Replicas: 3 } },
      EndpointSpec: {
        Mode: 'vip',
        Ports: [
          { Protocol: 'tcp', TargetPort: 80, PublishedPort: 8080, PublishMode: 'ingress' },
          { Protocol: 'udp', TargetPort: 5353, PublishedPort: 53, PublishMode: 'ingress' },
          { Protocol: 'tcp', TargetPort: 8443, PublishedPort: 443, PublishMode: 'host' },
        ],
      },
    },
  );
  t.match(await sent('--mode', 'global', '-l', 'weft.runtime=process', '--', '-odd', 'a'), {
    body: {
      TaskTemplate: { ContainerSpec: { Command: ['-odd', 'a'] } },
      Mode: { Global: {} },
    },
  });
  t.match(await sent('--endpoint-mode', 'dnsrr', 'nginx', '-g', 'daemon off;'), {
    body: {
      TaskTemplate: { ContainerSpec: { Image: 'nginx', Args: ['-g', 'daemon off;'] } },
      EndpointSpec: { Mode: 'dnsrr' },
    },
  });
});

test('a wrong `service create` makes nothing', async (t) => {
  const agent = await startFakeAgent(t, {
    'GET /networks/gone': new Refusal(404, 'network gone not found'),
  });
  for (const [flags, message] of [
    [[], 'Cannot create a service of no image: expected IMAGE'],
    [['--runtime', 'process'], 'Cannot create a service of no command: expected COMMAND'],
    [['--runtime', 'vm', 'a'], 'expected one of process, docker'],
    [['--replicas', '-1', 'a'], "'-1' is invalid: expected a whole number of at least 0"],
    [['--mode', 'global', '--replicas', '2', 'a'], 'Cannot use --replicas 2 with --mode global'],
    [
      ['--mode', 'global', '--replicas-max-per-node', '2', 'a'],
      'Cannot use --replicas-max-per-node 2 with --mode global',
    ],
    [['--endpoint-mode', 'dnsrr', '-p', '80:80', 'a'], 'with --endpoint-mode dnsrr'],
    [['-p', '80:x', 'a'], 'expected [published:]target[/tcp|udp]'],
    [['-p', '0:80', 'a'], '0 is not a port: expected a number from 1 to 65535'],
    [['-p', '80:80/sctp', 'a'], '"sctp" is not a protocol: expected tcp or udp'],
    [['-p', '127.0.0.1:80:80', 'a'], 'a host address is not supported here'],
    [['-p', '80-82:90-91', 'a'], 'expected as many published ports as target ports'],
    [['-p', '82-80:1-3', 'a'], 'the range 82-80 is empty'],
    [['-p', 'published=80', 'a'], 'expected [published:]target'],
    [['-p', 'published=80,mode=host', 'a'], 'target is missing'],
    [['-p', 'target=80,target=81', 'a'], '"target=81" is not a field of a port'],
    [['-p', 'target=80,mode=none', 'a'], '"none" is not a mode: expected ingress or host'],
    [['-e', '=x', 'a'], 'expected NAME=value, or NAME'],
    [['-l', '=x', 'a'], 'expected name=value'],
    [['--constraint', 'node.role=worker', 'a'], 'expected key==value or key!=value'],
    [['--stop-grace-period', '10', 'a'], 'expected a duration such as 10s'],
    [['--network', 'alias=x', 'a'], 'expected a value that is not empty'],
    [['--network', 'name=x,ip=1', 'a'], 'expected a network, or name=network,alias=name'],
    [['--network', 'gone', 'a'], 'weft: network gone not found\n'],
  ] as const) {
    const result = await weft(agent, ['service', 'create', ...flags]);
    t.equal(result.code, 1, flags.join(' '));
    t.match(result.stderr, message);
  }
  t.same(agent.requests, [{ request: 'GET /networks/gone' }]);
});

test('`service create` waits until the tasks run, and stay so', async (t) => {
  const agent = await startFakeAgent(
    t,
    polled(service(2), [
      [],
      [{ slot: 1, state: 'pending', err: 'no suitable node' }],
      [
        { slot: 1, state: 'running' },
        { slot: 2, state: 'preparing' },
      ],
      [
        { slot: 1, state: 'running' },
        { slot: 2, state: 'running' },
      ],
      [
        { slot: 1, state: 'running' },
        { slot: 2, state: 'failed', desired: 'shutdown', err: 'exit 1' },
        { slot: 2, state: 'ready', desired: 'ready', at: 1 },
      ],
      [
        { slot: 1, state: 'running' },
        { slot: 2, state: 'failed', desired: 'shutdown', err: 'exit 1' },
        { slot: 2, state: 'running', at: 1 },
      ],
    ]),
  );
  const plain = await weft(agent, CREATE);
  t.equal(
    plain.stdout,
    lines(
      ID,
      'overall progress: 0 out of 2 tasks',
      '1: no suitable node',
      'overall progress: 1 out of 2 tasks',
      'overall progress: 2 out of 2 tasks',
      'overall progress: 1 out of 2 tasks',
      '2: exit 1',
      'overall progress: 2 out of 2 tasks',
      'verify: Service converged',
    ),
  );
  t.equal(plain.sleeps, 8);
  t.same(agent.requests.at(-1)?.query, { filters: `{"service":["${ID}"]}` });
});

test('progress is redrawn on a terminal, and hidden with --quiet', async (t) => {
  const routes = polled(service(2), [
    [
      { slot: 1, state: 'running' },
      { slot: 2, state: 'pending', err: 'no suitable node' },
    ],
    [
      { slot: 1, state: 'running' },
      { slot: 2, state: 'running' },
    ],
  ]);
  const drawn = await weft(await startFakeAgent(t, routes), CREATE, { isInteractive: true });
  t.equal(
    drawn.stdout,
    `${ID}\noverall progress: 1 out of 2 tasks\n1: running\n2: no suitable node\n` +
      '\x1b[3A\x1b[Joverall progress: 2 out of 2 tasks\n1: running\n2: running\n' +
      'verify: Service converged\n',
  );
  const quiet = await weft(await startFakeAgent(t, routes), [
    ...['service', 'create', '-q', '--runtime', 'process', 'serve'],
  ]);
  t.equal(quiet.stdout, `${ID}\n`);
});

test('Ctrl-C ends the wait, not the service', async (t) => {
  const agent = await startFakeAgent(t, polled(service(1), [[]]));
  const result = await weft(agent, CREATE, { interruptAt: 3 });
  t.same(result, {
    code: 0,
    stderr: '',
    sleeps: 3,
    stdout: lines(
      ID,
      'overall progress: 0 out of 1 tasks',
      'Operation continuing in background.',
      `Use \`weft service ps ${ID}\` to check progress.`,
    ),
  });
});

for (const [what, polls, outcome] of [
  [
    'a task that failed for good',
    [[{ slot: 1, state: 'failed', desired: 'shutdown', err: 'exit 7' }]],
    'task web.1 failed: exit 7',
  ],
  [
    'a task that was rejected and keeps its slot',
    [[{ slot: 1, state: 'rejected', err: 'no such command' }]],
    'task web.1 rejected: no such command',
  ],
  [
    'a failed task that is replaced in time',
    [
      ...Array.from({ length: 7 }, () => [{ slot: 1, state: 'failed', err: 'exit 7' }]),
      [
        { slot: 1, state: 'failed', desired: 'shutdown', err: 'exit 7' },
        { slot: 1, state: 'running', at: 1 },
      ],
    ],
    'converged',
  ],
  [
    'a task that has completed',
    [[{ slot: 1, state: 'complete', desired: 'shutdown' }]],
    'converged',
  ],
] as const) {
  test(`\`service create\` with ${what}`, async (t) => {
    const agent = await startFakeAgent(t, polled(service(1), polls));
    const result = await weft(agent, CREATE);
    if (outcome === 'converged') {
      t.match(result, { code: 0, stdout: 'verify: Service converged' });
      return;
    }
    t.equal(result.code, 1);
    t.equal(
      result.stderr,
      lines(
        `weft: Service did not converge: ${outcome}`,
        `weft: See 'weft service ps --no-trunc ${ID}' and 'weft service logs ${ID}'`,
      ),
    );
  });
}

test('a global service converges when every node that has a task runs it', async (t) => {
  const global = { ...service(0), Spec: { ...service(0).Spec, Mode: { Global: {} } } };
  const agent = await startFakeAgent(
    t,
    polled(global, [
      [],
      [
        { node: 'a', state: 'running' },
        { node: 'b', state: 'starting' },
        { node: 'drained', state: 'shutdown', desired: 'shutdown' },
      ],
      [
        { node: 'a', state: 'running' },
        { node: 'b', state: 'running' },
      ],
    ]),
  );
  const { stdout } = await weft(agent, [
    ...CREATE.slice(0, 2),
    '--mode',
    'global',
    ...CREATE.slice(2),
  ]);
  t.equal(
    stdout,
    lines(
      ID,
      'overall progress: 0 out of 0 tasks',
      'overall progress: 1 out of 2 tasks',
      'overall progress: 2 out of 2 tasks',
      'verify: Service converged',
    ),
  );
});

test('`service scale` changes each, then waits for each', async (t) => {
  const agent = await startFakeAgent(t, {
    ...polled(service(3), [[1, 2, 5].map((slot) => ({ slot, state: 'running' }))]),
    'GET /services/web': service(1),
    [`POST /services/${ID}/update`]: { Warnings: ['slow down'] },
  });
  const result = await weft(agent, ['service', 'scale', 'web=3', 'gone=2']);
  t.equal(result.code, 1);
  t.equal(result.stdout, 'web scaled to 3\n');
  t.equal(result.stderr, 'Warning: slow down\nweft: GET /services/gone not found\n');
  t.same(agent.requests[1], {
    request: `POST /services/${ID}/update`,
    query: { version: '21' },
    body: { ...service(1).Spec, Mode: { Replicated: { Replicas: 3 } } },
  });
  const waited = await weft(agent, ['service', 'scale', 'web=3']);
  t.equal(
    waited.stdout,
    lines('web scaled to 3', 'overall progress: 3 out of 3 tasks', 'verify: Service converged'),
  );
  const global = { ...service(0), Spec: { Name: 'web', Mode: { Global: {} } } };
  const other = await startFakeAgent(t, { 'GET /services/web': global });
  t.match(await weft(other, ['service', 'scale', 'web=3']), {
    code: 1,
    stderr: 'Cannot set the replicas of service web: it is global',
  });
});

test('`service update` changes what is named, and waits for tasks of the new spec', async (t) => {
  const before: Service = {
    ID,
    Version: { Index: 40 },
    Spec: {
      Name: 'web',
      Labels: { keep: '1', drop: '2' },
      TaskTemplate: {
        ContainerSpec: { Command: ['serve', '--old'], Env: ['A=1', 'B=2'] },
        Placement: { Constraints: ['node.role == worker', 'node.id!=x'], MaxReplicas: 1 },
        ForceUpdate: 4,
      },
      Mode: { Replicated: { Replicas: 1 } },
    },
  };
  const agent = await startFakeAgent(t, {
    ...polled(service(1, 2), [
      [{ slot: 1, state: 'running', version: 1 }],
      [
        { slot: 1, state: 'running', desired: 'shutdown', version: 1 },
        { slot: 1, state: 'starting', version: 2, at: 1 },
      ],
      [{ slot: 1, state: 'running', version: 2, at: 1 }],
    ]),
    'GET /services/web': before,
    [`POST /services/${ID}/update`]: {},
  });
  const result = await weft(agent, [
    ...['service', 'update', '--replicas', '2', '--args', '--new "a b" \'c d\' e\\ f'],
    ...['--env-add', 'B=3', '--env-add', 'C=4', '--env-rm', 'A', '--label-rm', 'drop'],
    ...['--label-add', 'new=', '--constraint-rm', 'node.role==worker', '--force'],
    ...['--constraint-add', 'node.id==y', 'web'],
  ]);
  t.same(agent.requests[1], {
    request: `POST /services/${ID}/update`,
    query: { version: '40' },
    body: {
      Name: 'web',
      Labels: { keep: '1', new: '' },
      TaskTemplate: {
        ContainerSpec: { Command: ['serve', '--new', 'a b', 'c d', 'e f'], Env: ['B=3', 'C=4'] },
        Placement: { Constraints: ['node.id!=x', 'node.id==y'], MaxReplicas: 1 },
        ForceUpdate: 5,
      },
      Mode: { Replicated: { Replicas: 2 } },
    },
  });
  t.equal(
    result.stdout,
    lines(
      'web',
      'overall progress: 0 out of 1 tasks',
      'overall progress: 1 out of 1 tasks',
      'verify: Service converged',
    ),
  );
  await weft(agent, ['service', 'update', '-d', '--image', 'nginx:2', '--args', '-g x', 'web']);
  t.match(agent.requests.at(-1)?.body, {
    TaskTemplate: { ContainerSpec: { Image: 'nginx:2', Command: ['serve', '-g', 'x'] } },
  });
});
