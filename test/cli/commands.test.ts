import { test } from 'tap';
import { lines, Refusal, type Routes, secondsAgo, startFakeAgent, weft } from './fake-agent.ts';

const NODES = [
  {
    ID: 'n2n2n2n2n2n2n2n2n2n2n2n2n',
    Version: { Index: 7 },
    Spec: { Role: 'worker', Availability: 'drain', Labels: { disk: 'ssd', old: '1' } },
    Description: { Hostname: 'host10', Engine: { EngineVersion: '0.1.0' } },
    Status: { State: 'down' },
  },
  {
    ID: 'n1n1n1n1n1n1n1n1n1n1n1n1n',
    Version: { Index: 3 },
    Spec: { Role: 'manager', Availability: 'active' },
    Description: { Hostname: 'host2', Engine: { EngineVersion: '0.1.0' } },
    Status: { State: 'ready' },
    ManagerStatus: { Leader: true, Reachability: 'reachable' },
  },
];
const NODE_ID = 'n1n1n1n1n1n1n1n1n1n1n1n1n';
const INFO = {
  Swarm: {
    NodeID: NODE_ID,
    NodeAddr: '192.0.2.1',
    RemoteManagers: [{ NodeID: NODE_ID, Addr: '192.0.2.1:2377' }],
  },
};
const SWARM = { ID: 'cluster', JoinTokens: { Worker: 'SWMTKN-1-w', Manager: 'SWMTKN-1-m' } };
const SERVICE = {
  ID: 'svcsvcsvcsvcsvcsvcsvcsvcs',
  Version: { Index: 21 },
  Spec: {
    Name: 'web',
    Labels: { 'weft.runtime': 'process' },
    TaskTemplate: {
      ContainerSpec: { Command: ['serve', '--port', '80'], Env: ['A=1', 'B=2'] },
      Placement: { Constraints: ['node.role == worker'], MaxReplicas: 2 },
      ForceUpdate: 4,
    },
    Mode: { Replicated: { Replicas: 3 } },
  },
  Endpoint: {
    Ports: [
      { Protocol: 'tcp', TargetPort: 80, PublishedPort: 8080, PublishMode: 'ingress' },
      { Protocol: 'udp', TargetPort: 53, PublishedPort: 53, PublishMode: 'host' },
    ],
  },
  ServiceStatus: { RunningTasks: 2, DesiredTasks: 3 },
};
const TASKS = [
  {
    ID: 't1t1t1t1t1t1t1t1t1t1t1t1t',
    CreatedAt: secondsAgo(600),
    ServiceID: SERVICE.ID,
    Slot: 1,
    NodeID: NODE_ID,
    Spec: SERVICE.Spec.TaskTemplate,
    DesiredState: 'shutdown',
    Status: {
      State: 'failed',
      Timestamp: secondsAgo(90),
      Err: 'task: non-zero exit (1), and then some',
    },
  },
  {
    ID: 't2t2t2t2t2t2t2t2t2t2t2t2t',
    CreatedAt: secondsAgo(80),
    ServiceID: SERVICE.ID,
    Slot: 1,
    NodeID: NODE_ID,
    Spec: SERVICE.Spec.TaskTemplate,
    DesiredState: 'running',
    Status: {
      State: 'running',
      Timestamp: secondsAgo(75),
      PortStatus: {
        Ports: [{ Protocol: 'udp', TargetPort: 53, PublishedPort: 53, PublishMode: 'host' }],
      },
    },
  },
];
const NETWORKS = [
  { Id: 'netbnetbnetbnetbnetbnetbn', Name: 'web10', Driver: 'overlay', Scope: 'swarm', Labels: {} },
  {
    Id: 'netanetanetanetanetanetan',
    Name: 'web9',
    Driver: 'overlay',
    Scope: 'swarm',
    Created: '2026-01-01T00:00:00Z',
    Labels: { a: 'b', c: 'd' },
  },
];
const ROUTES: Routes = {
  'GET /info': INFO,
  'GET /swarm': SWARM,
  'POST /swarm/init': NODE_ID,
  'POST /swarm/join': undefined,
  'GET /nodes': NODES,
  [`GET /nodes/${NODE_ID}`]: NODES[1],
  'GET /nodes/host10': NODES[0],
  'GET /networks': NETWORKS,
  'GET /networks/web9': NETWORKS[1],
  'POST /networks/create': { Id: 'netid', Warning: '' },
  'GET /services': [SERVICE],
  'GET /services/web': SERVICE,
  'GET /tasks': TASKS,
  'GET /version': { Version: '0.1.0', ApiVersion: '1.54', Os: 'linux', Arch: 'amd64' },
};
const OK = () => undefined;

test('`init` sends what was given only, and shows how others join', async (t) => {
  const agent = await startFakeAgent(t, ROUTES);
  const plain = await weft(agent, ['init']);
  t.same(agent.requests[0], { request: 'POST /swarm/init', body: {} });
  t.equal(
    plain.stdout,
    lines(
      `Cluster initialised: current node (${NODE_ID}) is now a manager.`,
      '',
      'To add a worker to this cluster, run the following command:',
      '',
      '    weft join --token SWMTKN-1-w 192.0.2.1:2377',
    ),
  );
  agent.requests.length = 0;
  await weft(agent, [
    ...['init', '--advertise-addr', 'eth0', '--listen-addr', '192.0.2.1:2378'],
    ...['--data-path-port', '4790', '--default-addr-pool', '10.8.0.0/16'],
    ...['--default-addr-pool', '10.9.0.0/16', '--default-addr-pool-mask-length', '26'],
  ]);
  t.same(agent.requests[0], {
    request: 'POST /swarm/init',
    body: {
      ListenAddr: '192.0.2.1:2378',
      AdvertiseAddr: 'eth0',
      DataPathPort: 4790,
      DefaultAddrPool: ['10.8.0.0/16', '10.9.0.0/16'],
      SubnetSize: 26,
    },
  });
});

test('`join`, `leave` and `join-token` use Docker’s requests', async (t) => {
  const agent = await startFakeAgent(t, {
    ...ROUTES,
    'POST /swarm/join': OK,
    'POST /swarm/leave': OK,
    'GET /weft/status': { node: { role: 'worker' } },
  });
  for (const [argv, expected, stdout] of [
    [
      ['join', '--token', 'T', '192.0.2.1'],
      { body: { JoinToken: 'T', RemoteAddrs: ['192.0.2.1:2377'] } },
      'This node joined a cluster as a worker.\n',
    ],
    [
      ['join', '--token', 'T', '--availability', 'drain', '--advertise-addr', '192.0.2.2', 'a:99'],
      {
        body: {
          JoinToken: 'T',
          RemoteAddrs: ['a:99'],
          AdvertiseAddr: '192.0.2.2',
          Availability: 'drain',
        },
      },
      'This node joined a cluster as a worker.\n',
    ],
    ...['fd00::1', '[fd00::1]', '[fd00::1]:2377'].map(
      (address) =>
        [
          ['join', '--token', 'T', address],
          { body: { JoinToken: 'T', RemoteAddrs: ['[fd00::1]:2377'] } },
          'This node joined a cluster as a worker.\n',
        ] as const,
    ),
    [['leave'], {}, 'Node left the cluster.\n'],
    [['leave', '--force'], { query: { force: '1' } }, 'Node left the cluster.\n'],
    [['join-token', '-q', 'manager'], {}, 'SWMTKN-1-m\n'],
    [
      ['join-token', 'worker'],
      {},
      'To add a worker to this cluster, run the following command:\n\n    weft join --token SWMTKN-1-w 192.0.2.1:2377\n\n',
    ],
  ] as const) {
    agent.requests.length = 0;
    const result = await weft(agent, argv);
    t.equal(result.stdout, stdout);
    const { request: _, ...sent } = agent.requests[0] ?? { request: '' };
    t.same(sent, expected, argv.join(' '));
  }
});

test('lists have Docker’s columns, order and JSON', async (t) => {
  const agent = await startFakeAgent(t, ROUTES);
  for (const [command, expected] of [
    [
      'node ls',
      lines(
        'ID                            HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION',
        'n1n1n1n1n1n1n1n1n1n1n1n1n *   host2      Ready     Active         Leader           0.1.0',
        'n2n2n2n2n2n2n2n2n2n2n2n2n     host10     Down      Drain                           0.1.0',
      ),
    ],
    ['node ls -q', lines(NODE_ID, 'n2n2n2n2n2n2n2n2n2n2n2n2n')],
    [
      'network ls',
      lines(
        'NETWORK ID     NAME      DRIVER    SCOPE',
        'netanetaneta   web9      overlay   swarm',
        'netbnetbnetb   web10     overlay   swarm',
      ),
    ],
    ['network ls -q --no-trunc', lines('netanetanetanetanetanetan', 'netbnetbnetbnetbnetbnetbn')],
    [
      'service ls',
      lines(
        'ID             NAME      MODE         REPLICAS               IMAGE     PORTS',
        'svcsvcsvcsvc   web       replicated   2/3 (max 2 per node)   serve     *:8080->80/tcp',
      ),
    ],
    [
      'service ps web',
      lines(
        'ID             NAME        IMAGE     NODE      DESIRED STATE   CURRENT STATE                ERROR                              PORTS',
        't2t2t2t2t2t2   web.1       serve     host2     Running         Running about a minute ago                                      *:53->53/udp',
        't1t1t1t1t1t1    \\_ web.1   serve     host2     Shutdown        Failed about a minute ago    "task: non-zero exit (1), and …"',
      ),
    ],
    [
      'service ls --format json',
      lines(
        '{"ID":"svcsvcsvcsvc","Image":"serve","Mode":"replicated","Name":"web","Ports":"*:8080->80/tcp","Replicas":"2/3 (max 2 per node)"}',
      ),
    ],
    [
      'node ls --format json -f role=manager',
      lines(
        `{"Availability":"Active","EngineVersion":"0.1.0","Hostname":"host2","ID":"${NODE_ID}","ManagerStatus":"Leader","Self":true,"Status":"Ready"}`,
        '{"Availability":"Drain","EngineVersion":"0.1.0","Hostname":"host10","ID":"n2n2n2n2n2n2n2n2n2n2n2n2n","ManagerStatus":"","Self":false,"Status":"Down"}',
      ),
    ],
  ] as const) {
    const result = await weft(agent, command.split(' '));
    t.equal(result.stdout, expected, command);
    t.equal(result.stderr, '');
  }
});

test('`ps` resolves names, and shows everything when asked', async (t) => {
  const agent = await startFakeAgent(t, ROUTES);
  const argv = ['node', 'ps', '--no-trunc', '--no-resolve', '-f', 'desired-state=running'];
  const { stdout } = await weft(agent, [...argv, '--format', 'json']);
  t.same(JSON.parse(stdout.split('\n')[1] ?? ''), {
    ID: 't1t1t1t1t1t1t1t1t1t1t1t1t',
    Name: ` \\_ ${SERVICE.ID}.1`,
    Image: 'serve',
    Node: NODE_ID,
    DesiredState: 'Shutdown',
    CurrentState: 'Failed about a minute ago',
    Error: '"task: non-zero exit (1), and then some"',
    Ports: '',
  });
  t.same(agent.requests.at(-1), {
    request: 'GET /tasks',
    query: { filters: JSON.stringify({ 'desired-state': ['running'], node: [NODE_ID] }) },
  });
});

test('`service ls` counts tasks itself for a manager that does not', async (t) => {
  const { ServiceStatus: _, ...uncounted } = SERVICE;
  const global = { ...uncounted, ID: 'g', Spec: { ...SERVICE.Spec, Mode: { Global: {} } } };
  const agent = await startFakeAgent(t, { ...ROUTES, 'GET /services': [uncounted, global] });
  const { stdout } = await weft(agent, ['service', 'ls', '--format', 'json']);
  const rows = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  t.same(
    rows.map((row) => [row.Mode, row.Replicas]),
    [
      ['replicated', '1/3 (max 2 per node)'],
      ['global', '0/0 (max 2 per node)'],
    ],
  );
  t.equal(agent.requests[0]?.query?.status, '1');
});

test('filters are grouped by key', async (t) => {
  const agent = await startFakeAgent(t, ROUTES);
  await weft(agent, ['network', 'ls', '-f', 'name=a', '--filter', 'label=x=y', '-f', 'name=b']);
  t.same(agent.requests[0]?.query, { filters: '{"name":["a","b"],"label":["x=y"]}' });
});

test('`inspect` prints whole objects, and goes on past those that are missing', async (t) => {
  const agent = await startFakeAgent(t, ROUTES);
  const some = await weft(agent, ['network', 'inspect', 'nope', 'web9', 'neither']);
  t.same(JSON.parse(some.stdout), [NETWORKS[1]]);
  t.match(some.stdout, '\n    {\n');
  t.equal(
    some.stderr,
    lines('weft: GET /networks/nope not found', 'weft: GET /networks/neither not found'),
  );
  t.equal(some.code, 1);
  const self = await weft(agent, ['node', 'inspect', 'self', '--format', 'json']);
  t.equal(self.stdout, `${JSON.stringify(NODES[1])}\n`);
  const service = await weft(agent, ['service', 'inspect', 'web']);
  t.same(JSON.parse(service.stdout), [SERVICE]);
});

test('`rm` removes each, and says which it could not', async (t) => {
  const agent = await startFakeAgent(t, {
    'DELETE /services/a': OK,
    'DELETE /services/b': new Refusal(409, 'b is in use'),
    'DELETE /services/c%2Fd': OK,
    'DELETE /nodes/host': OK,
    'DELETE /networks/net': OK,
  });
  const services = await weft(agent, ['service', 'rm', 'a', 'b', 'c/d']);
  t.same(services, { code: 1, stdout: 'a\nc/d\n', stderr: 'weft: b is in use\n', sleeps: 0 });
  t.equal((await weft(agent, ['node', 'rm', '--force', 'host'])).stdout, 'host\n');
  t.same(agent.requests.at(-1), { request: 'DELETE /nodes/host', query: { force: '1' } });
  t.equal((await weft(agent, ['network', 'rm', 'net'])).stdout, 'net\n');
  const empty = await weft(agent, ['network', 'rm', '']);
  t.match(empty.stderr, 'expected a name or an ID');
});

test('`node update` writes the spec back with the version that it read', async (t) => {
  const agent = await startFakeAgent(t, {
    ...ROUTES,
    'POST /nodes/n2n2n2n2n2n2n2n2n2n2n2n2n/update': OK,
  });
  const argv = ['node', 'update', '--availability', 'active', '--label-rm', 'old'];
  const result = await weft(agent, [...argv, '--label-add', 'zone=eu', 'host10']);
  t.equal(result.stdout, 'host10\n');
  t.same(agent.requests.at(-1), {
    request: 'POST /nodes/n2n2n2n2n2n2n2n2n2n2n2n2n/update',
    query: { version: '7' },
    body: { Role: 'worker', Availability: 'active', Labels: { disk: 'ssd', zone: 'eu' } },
  });
  const wrong = await weft(agent, ['node', 'update', '--label-rm', 'gone', 'host10']);
  t.match(wrong, { code: 1, stderr: 'Cannot remove label gone' });
});

test('`network create` puts every address with its subnet', async (t) => {
  const agent = await startFakeAgent(t, ROUTES);
  const plain = await weft(agent, ['network', 'create', 'net']);
  t.equal(plain.stdout, 'netid\n');
  const body = {
    Name: 'net',
    Driver: 'overlay',
    EnableIPv6: false,
    Internal: false,
    Attachable: false,
    Ingress: false,
    IPAM: { Driver: 'default', Config: [] },
    Options: {},
    Labels: {},
  };
  t.same(agent.requests[0], { request: 'POST /networks/create', body });
  await weft(agent, [
    ...['network', 'create', '--attachable', '--internal', '--label', 'a=b', '--label', 'c'],
    ...[
      '-o',
      'flood=true',
      '--opt',
      'encrypted',
      '--subnet',
      '10.1.0.0/16',
      '--subnet=10.2.0.0/16',
    ],
    ...['--gateway', '10.2.0.9', '--ip-range', '10.1.7.0/24'],
    ...['--aux-address', 'dns=10.1.0.5', '--aux-address', 'ntp=10.1.0.6', 'net'],
  ]);
  t.same(agent.requests.at(-1)?.body, {
    ...body,
    Internal: true,
    Attachable: true,
    Options: { flood: 'true', encrypted: '' },
    Labels: { a: 'b', c: '' },
    IPAM: {
      Driver: 'default',
      Config: [
        {
          Subnet: '10.1.0.0/16',
          IPRange: '10.1.7.0/24',
          AuxiliaryAddresses: { dns: '10.1.0.5', ntp: '10.1.0.6' },
        },
        { Subnet: '10.2.0.0/16', Gateway: '10.2.0.9' },
      ],
    },
  });
  await weft(agent, [
    ...['network', 'create', '--ipv6', '--subnet', '10.1.0.0/16', '--subnet', 'FD00:1:0::/64'],
    ...['--gateway', 'fd00:1::9', '--ip-range', 'fd00:1::7:0/112', '--gateway', '10.1.0.9'],
    ...['--aux-address', 'dns=fd00:1::5', 'net'],
  ]);
  t.match(agent.requests.at(-1)?.body, {
    EnableIPv6: true,
    IPAM: {
      Config: [
        { Subnet: '10.1.0.0/16', Gateway: '10.1.0.9' },
        {
          Subnet: 'fd00:1::/64',
          Gateway: 'fd00:1::9',
          IPRange: 'fd00:1::7:0/112',
          AuxiliaryAddresses: { dns: 'fd00:1::5' },
        },
      ],
    },
  });
});

test('`status` has a section for all that the agent tells', async (t) => {
  const status = {
    version: '0.1.0',
    node: { id: NODE_ID, hostname: 'host2', role: 'manager', advertiseAddress: '192.0.2.1' },
    cluster: { id: 'c', managers: ['192.0.2.1:2377'], connected: false },
    dataPlane: {
      threads: 2,
      ports: 2,
      vteps: 1,
      aead: "OpenSSL of Node's binary",
      packets: { rx: 5, tx: 6 },
      drops: {},
    },
    paths: [
      {
        node: 'host3',
        address: '192.0.2.3:4789',
        state: 'complete',
        mtuBytes: 1500,
        rttMs: 0.317,
        rttMinMs: 0.2,
        lossRatio: 0.03125,
      },
      { node: 'old', address: '[fd00::4]:4789', state: 'unanswered', mtuBytes: 1500, lossRatio: 1 },
      { node: 'far', address: '192.0.2.5:4789', state: 'searching', mtuBytes: 1280, rttMs: 123.4 },
    ],
    sessions: [
      { node: 'host3', address: '192.0.2.3:4789', state: 'established', ageSeconds: 7 },
      { node: 'old', address: '[fd00::4]:4789', state: 'connecting' },
      { node: 'far', address: '192.0.2.5:4789', state: 'idle' },
    ],
    gossip: { members: [{ name: 'host2', address: '192.0.2.1:7946', state: 'alive' }] },
    tasks: [{ id: 't1t1t1t1t1t1t1t1t1t1t1t1t', name: 'web.1', state: 'running', pid: 7 }],
    portConflicts: [{ protocol: 'tcp', port: 8080, holder: 'nginx (pid 9)' }],
  };
  const agent = await startFakeAgent(t, {
    'GET /weft/status': (times: number) => (times < 3 ? status : { version: '0.1.0' }),
  });
  t.equal(
    (await weft(agent, ['status'])).stdout,
    lines(
      'Node',
      ' Version:           0.1.0',
      ` ID:                ${NODE_ID}`,
      ' Hostname:          host2',
      ' Role:              manager',
      ' Advertise address: 192.0.2.1',
      '',
      'Cluster',
      ' ID:       c',
      ' Managers: 192.0.2.1:2377',
      ' Session:  disconnected: tasks and networks go on as they are',
      '',
      'Data plane',
      ' Packet threads: 2',
      ' Ports:          2',
      ' VTEPs:          1',
      " Encryption:     OpenSSL of Node's binary",
      ' Packets:        rx 5, tx 6',
      ' Drops:          none',
      '',
      'Paths',
      'NODE      ADDRESS          STATE        MTU       RTT       BEST RTT   LOSS',
      'host3     192.0.2.3:4789   complete     1500      0.32 ms   0.20 ms    3 %',
      'old       [fd00::4]:4789   unanswered   1500                           100 %',
      'far       192.0.2.5:4789   searching    1280      123 ms',
      '',
      'Encrypted channels',
      'NODE      ADDRESS          STATE         SESSION AGE',
      'host3     192.0.2.3:4789   established   7 s',
      'old       [fd00::4]:4789   connecting',
      '',
      'Members',
      'NAME      ADDRESS          STATE',
      'host2     192.0.2.1:7946   alive',
      '',
      'Tasks',
      'ID             NAME      STATE     PID       ERROR',
      't1t1t1t1t1t1   web.1     running   7',
      '',
      'Published ports that this node cannot serve',
      'PORT       HELD BY',
      '8080/tcp   nginx (pid 9)',
    ),
  );
  const json = await weft(agent, ['status', '--format', 'json']);
  t.equal(json.stdout, `${JSON.stringify(status)}\n`);
  t.equal(
    (await weft(agent, ['status'])).stdout,
    lines(
      'Node',
      ' Version: 0.1.0',
      '',
      'Cluster',
      ' none: use "weft init" to start one, or "weft join" to enter one',
    ),
  );
});

test('`version` shows its own even when no agent answers', async (t) => {
  const agent = await startFakeAgent(t, ROUTES);
  const both = await weft(agent, ['version']);
  t.match(both.stdout, /^Client\n Version: \d+\.\d+\.\d+\n\nAgent\n Version: +0\.1\.0\n/);
  t.match(JSON.parse((await weft(agent, ['version', '--format', 'json'])).stdout), {
    Server: { ApiVersion: '1.54' },
  });
  const worker = await startFakeAgent(t, {
    'GET /version': new Refusal(503, 'not a manager'),
    'GET /weft/status': { version: '0.2.0' },
  });
  t.match((await weft(worker, ['version'])).stdout, 'Agent\n Version: 0.2.0\n');
  const alone = await weft(agent, ['-H', `${agent.host}.gone`, 'version']);
  t.match(alone, { code: 1, stdout: /^Client\n Version: [\d.]+\n$/, stderr: 'is it running?' });
});

test('`agent` checks its flags before anything of the agent is loaded', async (t) => {
  const started: unknown[] = [];
  const runAgent = async (options: unknown) => void started.push(options);
  const defaults = {
    stateDirectory: '/var/lib/weft',
    runDirectory: '/run/weft',
    socketPath: '/run/weft/weft.sock',
    listenAddress: { host: '0.0.0.0', port: 2377 },
    gossipPort: 7946,
    dataPathPort: 4789,
    metricsAddress: { host: '127.0.0.1', port: 9477 },
    logLevel: 'info',
    hostname: 'this-host',
    netnsPrefix: 'weft-',
  };
  await weft(undefined, ['agent'], { runAgent });
  t.same(started.pop(), defaults);
  await weft(
    undefined,
    [
      ...['agent', '--state-dir', '/s', '--run-dir', '/r/', '--advertise-addr', 'eth0'],
      ...['--listen-addr', '[2001:db8::1]:1', '--metrics-addr', 'none', '--hostname', 'a.b'],
      ...['--packet-threads', '8'],
    ],
    { runAgent },
  );
  const { metricsAddress: _, ...withoutMetrics } = defaults;
  t.same(started.pop(), {
    ...withoutMetrics,
    stateDirectory: '/s',
    runDirectory: '/r/',
    socketPath: '/r/weft.sock',
    advertiseAddress: 'eth0',
    listenAddress: { host: '2001:db8::1', port: 1 },
    packetThreads: 8,
    hostname: 'a.b',
  });
  for (const [flag, value, expected] of [
    ['--state-dir', 'relative', 'an absolute path'],
    ['--socket', `/${'x'.repeat(107)}`, 'a path of at most 107 bytes'],
    ['--advertise-addr', 'a/b', 'an IP address or the name of an interface'],
    ['--listen-addr', '2377', 'host:port, such as 0.0.0.0:2377'],
    ['--listen-addr', '1.2.3.4:0', 'host:port, such as 0.0.0.0:2377'],
    ['--gossip-port', '65536', 'a port from 1 to 65535'],
    ['--data-path-port', '1e3', 'a port from 1 to 65535'],
    ['--packet-threads', '0', 'a number from 1 to 8'],
    ['--packet-threads', '9', 'a number from 1 to 8'],
    ['--packet-threads', '1.5', 'a number from 1 to 8'],
    ['--metrics-addr', ':1', 'host:port, or none'],
    ['--log-level', 'loud', 'one of trace, debug, info, warn, error, fatal, silent'],
    ['--hostname', '-a', 'a host name of letters, digits, - and .'],
    ['--netns-prefix', '../', '"weft-", then up to 20 letters, digits and -'],
  ] as const) {
    const result = await weft(undefined, ['agent', `${flag}=${value}`], { runAgent });
    t.equal(
      result.stderr,
      lines(
        `weft: Cannot use ${flag} ${JSON.stringify(value)}: expected ${expected}`,
        "See 'weft agent --help'",
      ),
    );
    t.equal(result.code, 1);
  }
  t.same(started, []);
});

test('a refusal of the agent is a sentence, a bug a crash', async (t) => {
  const failWith = (error: Error) => ({ runAgent: () => Promise.reject(error) });
  const refusal = failWith(new Error('Cannot start the agent: this host lacks\n  nft'));
  t.equal(
    (await weft(undefined, ['agent'], refusal)).stderr,
    lines('weft: Cannot start the agent: this host lacks', 'weft:   nft'),
  );
  await t.rejects(weft(undefined, ['agent'], failWith(new TypeError('Cannot read x'))), TypeError);
});

test('a wrong command line is refused before the agent is asked', async (t) => {
  const agent = await startFakeAgent(t, ROUTES);
  for (const [command, message, help] of [
    ['frobnicate', "Unknown command 'frobnicate'", 'weft'],
    ['servise ls', "Unknown command 'servise', did you mean service?", 'weft'],
    ['service lz', "Unknown command 'lz', did you mean ls?", 'weft service'],
    ['service ls --all', "Unknown option '--all'", 'weft service ls'],
    ['service ls web', "Too many arguments for 'ls'", 'weft service ls'],
    ['service rm', "Missing required argument 'service'", 'weft service rm'],
    ['join 1.2.3.4', "Required option '--token <token>' not specified", 'weft join'],
    ['join-token boss', 'expected one of worker, manager', 'weft join-token'],
    ['init --data-path-port 70000', 'from 1 to 65535', 'weft init'],
    ['init --default-addr-pool 10.0.0.1/8', 'did you mean 10.0.0.0/8?', 'weft init'],
    ['network create', "Missing required argument 'name'", 'weft network create'],
    ['network create --subnet 10.0.0.0/33 n', 'n in [0, 32]', 'weft network create'],
    ['network create --ipv6 --subnet fd00::/129 n', 'n in [0, 128]', 'weft network create'],
    [
      'network create --ipv6 --subnet fd00::1/64 n',
      'did you mean fd00::/64?',
      'weft network create',
    ],
    [
      'network create --subnet fd00::/64 n',
      'Cannot use --subnet fd00::/64: expected --ipv6 with an IPv6 subnet',
      'weft network create',
    ],
    [
      'network create --ipv6 --subnet fd00::/64 --gateway 10.0.0.1 n',
      'Cannot use --gateway 10.0.0.1: expected an address of fd00::/64',
      'weft network create',
    ],
    [
      'network create --gateway 10.0.0.1 n',
      'Cannot use --gateway 10.0.0.1: expected a --subnet that holds it',
      'weft network create',
    ],
    [
      'network create --subnet 10.0.0.0/24 --aux-address a=10.1.0.1 n',
      'Cannot use --aux-address a=10.1.0.1: expected an address of 10.0.0.0/24',
      'weft network create',
    ],
    [
      'network create --subnet 10.0.0.0/24 --gateway 10.0.0.1 --gateway 10.0.0.2 n',
      'Cannot use --gateway 10.0.0.2: subnet 10.0.0.0/24 has 10.0.0.1, expected one',
      'weft network create',
    ],
    ['network ls -f size=9', 'key of driver, id, label, name, scope', 'weft network ls'],
    [
      'node update --availability off n',
      'expected one of active, pause, drain',
      'weft node update',
    ],
    ['service ls --format {{.ID}}', 'expected one of table, json', 'weft service ls'],
    ['service scale web', 'whole number of at least 0', 'weft service scale'],
    ['service scale web=-1', 'whole number of at least 0', 'weft service scale'],
    ['service logs --tail x web', 'whole number', 'weft service logs'],
    ['service logs --since yesterday web', 'expected a time', 'weft service logs'],
    ['-H ftp://x node ls', 'Cannot use --host "ftp://x": expected unix:///', 'weft node ls'],
    ['-H unix://relative node ls', 'expected unix:///path', 'weft node ls'],
    ['-H tcp://a:0 node ls', 'tcp://host:port', 'weft node ls'],
  ] as const) {
    const result = await weft(agent, command.split(' '));
    t.equal(result.code, 1, command);
    t.equal(result.stdout, '');
    t.match(result.stderr, message);
    t.ok(result.stderr.endsWith(`\nSee '${help} --help'\n`), result.stderr);
  }
  t.same(agent.requests, []);
  const variable = await weft(agent, ['node', 'ls'], { env: { WEFT_HOST: 'here' } });
  t.match(variable.stderr, 'weft: Cannot use WEFT_HOST "here": expected unix:///');
});

test('help is printed on standard output; a family without a command is an error', async (t) => {
  const help = await weft(undefined, ['help', 'service', 'create']);
  t.match(help, { code: 0, stderr: '', stdout: 'Usage: weft service create [options] IMAGE' });
  t.same(await weft(undefined, ['service', 'create', '-h']), help);
  t.notMatch(help.stdout, 'default: []');
  t.match(await weft(undefined, ['network']), {
    code: 1,
    stdout: '',
    stderr: /^Usage: weft network/,
  });
  t.match(await weft(undefined, ['--version']), { code: 0, stdout: /^\d+\.\d+\.\d+\n$/ });
});
