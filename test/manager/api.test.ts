import fc from 'fast-check';
import { type Test, test } from 'tap';
import type { Json } from '../../src/core/store.ts';
import { multiplexLogs, type TaskLogs } from '../../src/manager/log-stream.ts';
import type { LogRecord } from '../../src/manager/session-protocol.ts';
import { FakeAgent } from '../support/manager-agent.ts';
import {
  type Answer,
  FakeTime,
  type LabOptions,
  ManagerLab,
  serviceSpec,
} from '../support/manager-lab.ts';

async function startLab(t: Test, options: LabOptions = {}): Promise<ManagerLab> {
  const lab = await ManagerLab.start(options);
  t.teardown(() => lab.stop());
  return lab;
}

async function everything(lab: ManagerLab): Promise<unknown> {
  return (await lab.store.list('')).entries.map(({ key, value }) => [key, value]);
}

test('GET /_ping, /version and /info answer with and without a version in the path', async (t) => {
  let nodeId: string | undefined;
  const lab = await startLab(t, { localNodeId: () => nodeId });
  for (const prefix of ['', '/v1.54', '/v1.40']) {
    for (const method of ['GET', 'HEAD']) {
      const response = await lab.manager.api.request(`${prefix}/_ping`, { method });
      t.equal(response.status, 200);
      t.equal(response.headers.get('api-version'), '1.54');
      t.equal(await response.text(), method === 'GET' ? 'OK' : '');
    }
    t.match((await lab.get(`${prefix}/version`)).body, { Version: '0.1.0', ApiVersion: '1.54' });
    t.match((await lab.get(`${prefix}/info`)).body.Swarm, {
      LocalNodeState: 'active',
      ControlAvailable: true,
      Nodes: 0,
      NodeID: '',
    });
  }
  const manager = await FakeAgent.join(lab, 'alpha', 'manager');
  nodeId = manager.id;
  const { body } = await lab.get('/info');
  t.match(body, {
    ID: manager.id,
    Name: 'alpha',
    OSType: 'linux',
    Architecture: 'x86_64',
    NCPU: 2,
  });
  t.match(body.Swarm, {
    NodeID: manager.id,
    Nodes: 1,
    Managers: 1,
    RemoteManagers: [{ NodeID: manager.id, Addr: /^192\.0\.2\.\d+:2377$/ }],
    Cluster: { DefaultAddrPool: ['10.0.0.0/8'], SubnetSize: 24, DataPathPort: 4789 },
  });
});

test('GET /swarm shows the join tokens', async (t) => {
  const lab = await startLab(t, { cluster: { addressPools: ['10.64.0.0/16'], subnetPrefix: 26 } });
  const { body } = await lab.get('/swarm');
  t.match(body, {
    DefaultAddrPool: ['10.64.0.0/16'],
    SubnetSize: 26,
    JoinTokens: {
      Worker: /^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$/,
      Manager: /^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$/,
    },
  });
  t.same(body.JoinTokens.Worker.split('-')[2], body.JoinTokens.Manager.split('-')[2]);
  t.not(body.JoinTokens.Worker, body.JoinTokens.Manager);
  t.match((await lab.get('/networks/ingress')).body.IPAM.Config, [{ Subnet: '10.64.0.0/26' }]);
});

test('unknown paths and methods are answered with a message', async (t) => {
  const lab = await startLab(t);
  for (const [method, path] of [
    ['GET', '/nothing'],
    ['GET', '/v1/nodes'],
    ['PUT', '/services/create'],
    ['POST', '/swarm/update'],
  ] as const) {
    const { status, body } = await lab.call(method, path);
    t.equal(status, 404, `${method} ${path}`);
    t.equal(body.message, 'page not found');
  }
});

test('POST /networks/create makes networks as Docker shows them', async (t) => {
  const lab = await startLab(t);
  const created = await lab.post('/networks/create', {
    Name: 'app',
    Driver: 'overlay',
    CheckDuplicate: true,
    Attachable: true,
    Internal: false,
    EnableIPv6: false, // what the stock CLI sends beside what it was asked
    Ingress: false,
    ConfigOnly: false,
    ConfigFrom: null,
    IPAM: {
      Driver: 'default',
      Options: {},
      Config: [
        {
          Subnet: '10.20.0.0/16',
          Gateway: '10.20.0.254',
          IPRange: '10.20.5.0/24',
          AuxiliaryAddresses: { printer: '10.20.5.1' },
        },
      ],
    },
    Options: { 'com.docker.network.driver.overlay.vxlanid_list': '5000' },
    Labels: { team: 'blue' },
  });
  t.equal(created.status, 201);
  t.match(created.body.Id, /^[0-9a-z]{25}$/);
  const { body } = await lab.get('/networks/app');
  t.match(body, {
    Name: 'app',
    Id: created.body.Id,
    Driver: 'overlay',
    Scope: 'swarm',
    Attachable: true,
    Ingress: false,
    IPAM: {
      Config: [
        {
          Subnet: '10.20.0.0/16',
          Gateway: '10.20.0.254',
          IPRange: '10.20.5.0/24',
          AuxiliaryAddresses: { printer: '10.20.5.1' },
        },
      ],
    },
    Options: { 'com.docker.network.driver.overlay.vxlanid_list': '5000' },
    Labels: { team: 'blue' },
    Containers: {},
  });
  t.equal((await lab.get(`/networks/${created.body.Id.slice(0, 6)}`)).body.Name, 'app');
  t.equal((await lab.delete('/networks/app')).status, 204);
  t.equal((await lab.delete('/networks/app')).status, 404);
});

test('networks without a subnet get the first free one, clear of the routes of the host', async (t) => {
  const hostRoutes = async () => [{ destination: '10.0.1.0/25', holder: 'eth0' }];
  const lab = await startLab(t, { deps: { hostRoutes } });
  for (const Name of ['a', 'b']) await lab.post('/networks/create', { Name });
  const { body } = await lab.get('/networks');
  t.same(
    body.map((network: { Name: string; IPAM: { Config: { Subnet: string }[] } }) => [
      network.Name,
      network.IPAM.Config[0]?.Subnet,
    ]),
    [
      ['a', '10.0.2.0/24'],
      ['b', '10.0.3.0/24'],
      ['ingress', '10.0.0.0/24'],
    ],
  );
});

test('a dual-stack network gives tasks and services an address of each family', async (t) => {
  const lab = await startLab(t, { cluster: { addressPools: ['fd12:3456::/32'] } });
  t.same((await lab.get('/swarm')).body.DefaultAddrPool, ['10.0.0.0/8', 'fd12:3456::/32']);
  t.equal(
    (
      await lab.post('/networks/create', {
        Name: 'app',
        EnableIPv6: true,
        IPAM: {
          Config: [
            {
              Subnet: 'FD00:1::/64',
              Gateway: 'fd00:1::ff',
              AuxiliaryAddresses: { nas: 'fd00:1::2' },
            },
            { Subnet: '10.20.0.0/24' },
          ],
        },
      })
    ).status,
    201,
  );
  await lab.post('/networks/create', { Name: 'pooled', EnableIPv6: true });
  const agent = await FakeAgent.join(lab, 'alpha');
  const networks = ['app', 'pooled'];
  await lab.post(
    '/services/create',
    serviceSpec('web', 1, { networks, ports: [{ TargetPort: 80 }] }),
  );
  await lab.time.advance(1_000);
  const network = (await lab.get('/networks/app')).body;
  t.match(network, {
    EnableIPv6: true,
    IPAM: {
      Config: [
        { Subnet: '10.20.0.0/24', Gateway: '10.20.0.1' },
        {
          Subnet: 'fd00:1::/64',
          Gateway: 'fd00:1::ff',
          AuxiliaryAddresses: { nas: 'fd00:1::2' },
        },
      ],
    },
  });
  t.same(
    (await lab.get('/networks/pooled')).body.IPAM.Config.map(
      (config: Answer['body']) => config.Subnet,
    ),
    ['10.0.1.0/24', 'fd12:3456:0:1::/64'],
    'after the ingress network',
  );
  const service = (await lab.get('/services/web')).body;
  t.same(
    service.Endpoint.VirtualIPs.filter(
      ({ NetworkID }: { NetworkID: string }) => NetworkID === network.Id,
    ).map(({ Addr }: { Addr: string }) => Addr),
    ['10.20.0.3/24', 'fd00:1::3/64'],
    'the address beside fd00:1::2 is not given',
  );
  const [task] = await lab.liveTasks('web');
  t.same(
    task.NetworksAttachments.map(({ Addresses }: { Addresses: string[] }) => Addresses),
    [
      ['10.20.0.4/24', 'fd00:1::4/64'],
      ['10.0.1.3/24', 'fd12:3456:0:1::3/64'],
    ],
  );
  t.match((await lab.get('/networks/app')).body.Containers[task.ID], {
    IPv4Address: '10.20.0.4/24',
    IPv6Address: 'fd00:1::4/64',
    MacAddress: '02:42:0a:14:00:04',
  });
  t.match(agent.assignments, {
    ingressAddress: '10.0.0.2',
    ingressAddress6: 'fd12:3456::2',
    tasks: [{ attachments: [{ address6: 'fd00:1::4' }, { address6: 'fd12:3456:0:1::3' }] }],
    services: [
      {
        ingressVip: '10.0.0.3',
        ingressVip6: 'fd12:3456::3',
        vips: [{ address6: 'fd00:1::3' }, {}],
      },
    ],
  });
  t.match(
    agent.assignments?.networks.find(({ name }) => name === 'app'),
    { subnet6: 'fd00:1::/64', gateway6: 'fd00:1::ff' },
  );
});

test('a service on a network without IPv6 has no IPv6 ingress address: nobody would answer', async (t) => {
  const lab = await startLab(t);
  const agent = await FakeAgent.join(lab, 'alpha');
  await lab.post('/networks/create', { Name: 'app' });
  const ports = [{ TargetPort: 80 }];
  await lab.post('/services/create', serviceSpec('web', 1, { networks: ['app'], ports }));
  await lab.post('/services/create', serviceSpec('bare', 1, { ports }));
  await lab.time.advance(1_000);
  const services = new Map(agent.assignments?.services.map((service) => [service.name, service]));
  t.equal(services.get('web')?.ingressVip6, undefined);
  t.match(services.get('bare')?.ingressVip6, /^fd[0-9a-f:]+$/, 'the ingress network has IPv6');
  t.notOk('subnet6' in (agent.assignments?.networks.find(({ name }) => name === 'app') ?? {}));
});

test('a cluster of before IPv6 makes dual-stack networks of subnets that it is given', async (t) => {
  const lab = await startLab(t);
  const [cluster] = (await lab.store.list('cluster')).entries;
  const { addressPools6: _, ...old } = cluster!.value as Record<string, Json>;
  await lab.store.transact([], [{ kind: 'put', key: cluster!.key, value: old }]);
  const refused = await lab.post('/networks/create', { Name: 'app', EnableIPv6: true });
  t.match(refused, { status: 400, body: { message: /no IPv6 address pool, expected an IPv6/ } });
  const given = { Name: 'app', ...dualStack({ Subnet: 'fd00:1::/64' }) };
  t.equal((await lab.post('/networks/create', given)).status, 201);
});

test('an encrypted network is made and shown as Docker does it', async (t) => {
  const lab = await startLab(t);
  const agent = await FakeAgent.join(lab, 'alpha');
  for (const [Name, Options, shown] of [
    ['empty', { encrypted: '' }, { encrypted: '' }],
    ['true', { encrypted: 'true', [VNI]: '5000' }, { encrypted: 'true', [VNI]: '5000' }],
    ['open', {}, {}],
  ] as const) {
    t.equal((await lab.post('/networks/create', { Name, Options })).status, 201);
    const { body } = await lab.get(`/networks/${Name}`);
    t.match(body.Options, { ...shown, [VNI]: /^\d+$/ });
    t.equal('encrypted' in body.Options, 'encrypted' in shown);
    await lab.time.advance(100);
    const assigned = agent.assignments?.networks.find(({ name }) => name === Name);
    t.equal(assigned?.encrypted, 'encrypted' in shown ? true : undefined);
  }
});

const VNI = 'com.docker.network.driver.overlay.vxlanid_list';
const subnet = (Subnet: string, rest = {}) => ({ IPAM: { Config: [{ Subnet, ...rest }] } });
const dualStack = (...Config: object[]) => ({ EnableIPv6: true, IPAM: { Config } });
for (const [title, body, status, message] of [
  ['a name that exists', { Name: 'app' }, 409, /^network with name app already exists$/],
  ['the name of the ingress network', { Name: 'ingress' }, 409, /already exists/],
  ['a name of Docker’s own', { Name: 'bridge' }, 403, /predefined bridge network/],
  ['no name', {}, 400, /Name.*nothing was given/],
  [
    'a name that DNS cannot carry',
    { Name: 'a b' },
    400,
    /Name: name must be valid as a DNS name component; "a b" was given/,
  ],
  ['a long name', { Name: 'x'.repeat(64) }, 400, /63 characters or fewer/],
  [
    'another driver',
    { Name: 'x', Driver: 'bridge' },
    400,
    /Driver: expected "overlay"; "bridge" was given/,
  ],
  ['a host route', { Name: 'x', ...subnet('10.99.0.0/24') }, 400, /overlaps 10.99.0.0\/16 of eth0/],
  [
    'a subnet in use',
    { Name: 'x', ...subnet('10.20.0.128/25') },
    400,
    /overlaps 10.20.0.0\/24 of network app/,
  ],
  ['a bad subnet', { Name: 'x', ...subnet('10.20.0.0/33') }, 400, /10\.20\.0\.0\/33/],
  ['host bits', { Name: 'x', ...subnet('10.21.0.1/24') }, 400, /did you mean 10\.21\.0\.0\/24/],
  ['words for a subnet', { Name: 'x', ...subnet('example') }, 400, /"example"/],
  [
    'a gateway elsewhere',
    { Name: 'x', ...subnet('10.21.0.0/24', { Gateway: '10.22.0.1' }) },
    400,
    /10\.22\.0\.1/,
  ],
  [
    'a gateway without a subnet',
    { Name: 'x', IPAM: { Config: [{ Gateway: '10.22.0.1' }] } },
    400,
    /needs a subnet/,
  ],
  [
    'a range elsewhere',
    { Name: 'x', ...subnet('10.21.0.0/24', { IPRange: '10.22.0.0/25' }) },
    400,
    /10\.22\.0\.0\/25/,
  ],
  [
    'two subnets',
    { Name: 'x', IPAM: { Config: [{ Subnet: '10.21.0.0/24' }, { Subnet: '10.22.0.0/24' }] } },
    400,
    /Config\[1\]: expected one IPv4 subnet at most/,
  ],
  [
    'two IPv6 subnets',
    { Name: 'x', ...dualStack({ Subnet: 'fd00:1::/64' }, { Subnet: 'fd00:2::/64' }) },
    400,
    /Config\[1\]: expected one IPv6 subnet at most/,
  ],
  [
    'three subnets',
    { Name: 'x', ...dualStack({}, { Subnet: 'fd00:1::/64' }, { Subnet: 'fd00:2::/64' }) },
    400,
    /one subnet of each family at most/,
  ],
  [
    'an IPv6 subnet without IPv6',
    { Name: 'x', ...subnet('fd00:1::/64') },
    400,
    /fd00:1::\/64 is an IPv6 subnet, expected EnableIPv6 \(--ipv6\) with it/,
  ],
  [
    'IPv6 host bits',
    { Name: 'x', ...dualStack({ Subnet: 'fd00:1::1/64' }) },
    400,
    /did you mean fd00:1::\/64/,
  ],
  [
    'an IPv6 host route',
    { Name: 'x', ...dualStack({ Subnet: 'fd99:0:0:7::/64' }) },
    400,
    /overlaps fd99::\/48 of eth0/,
  ],
  [
    'an IPv6 gateway elsewhere',
    { Name: 'x', ...dualStack({ Subnet: 'fd00:1::/64', Gateway: 'fd00:2::1' }) },
    400,
    /"fd00:2::1" as a gateway: expected a host address of fd00:1::\/64/,
  ],
  [
    'an IPv6 subnet with fewer addresses than the IPv4 one',
    { Name: 'x', ...dualStack({ Subnet: 'fd00:1::/124' }) },
    400,
    /fewer addresses than 10\.0\.1\.0\/24, expected \/120 or larger/,
  ],
  ['a VNI in use', { Name: 'x', Options: { [VNI]: '4097' } }, 400, /VNI 4097: network app has it/],
  ['a low VNI', { Name: 'x', Options: { [VNI]: '1' } }, 400, /expected an integer in \[4096/],
  [
    'two VNIs',
    { Name: 'x', Options: { [VNI]: '5000,5001' } },
    400,
    /expected one VXLAN network identifier/,
  ],
  [
    'an option of elsewhere',
    { Name: 'x', Options: { 'com.docker.network.bridge.name': 'yes' } },
    400,
    /Options\.com\.docker\.network\.bridge\.name is not supported: "yes" was given/,
  ],
  [
    'an encryption that is none',
    { Name: 'x', Options: { encrypted: 'false' } },
    400,
    /Options\.encrypted: expected "" or "true"; "false" was given/,
  ],
  [
    'a word for a flag',
    { Name: 'x', EnableIPv6: 'yes' },
    400,
    /EnableIPv6: expected true or false/,
  ],
  ['a second ingress network', { Name: 'x', Ingress: true }, 400, /Ingress is not supported/],
  ['a number for a name', { Name: 5 }, 400, /Name: expected a string; 5 was given/],
  ['a list for a body', [], 400, /expected a JSON object/],
] as const) {
  test(`POST /networks/create refuses ${title}`, async (t) => {
    const hostRoutes = async () => [
      { destination: '10.99.0.0/16', holder: 'eth0' },
      { destination: 'fd99::/48', holder: 'eth0' },
    ];
    const lab = await startLab(t, { deps: { hostRoutes } });
    t.equal(
      (await lab.post('/networks/create', { Name: 'app', ...subnet('10.20.0.0/24') })).status,
      201,
    );
    const before = await everything(lab);
    const answer = await lab.post('/networks/create', body);
    t.equal(answer.status, status);
    t.match(answer.body.message, message);
    t.same(await everything(lab), before, 'nothing is half-created');
  });
}

test('the ingress network cannot be removed, nor one in use', async (t) => {
  const lab = await startLab(t);
  t.match(await lab.delete('/networks/ingress'), { status: 403 });
  await lab.post('/networks/create', { Name: 'app' });
  await lab.post('/services/create', serviceSpec('web', 1, { networks: ['app'] }));
  t.match(await lab.delete('/networks/app'), {
    status: 400,
    body: { message: 'network app is in use by service web' },
  });
  await FakeAgent.join(lab, 'host');
  await lab.time.advance(1_000);
  const { body } = await lab.get('/networks/app');
  const [container] = Object.values(body.Containers);
  t.match(container, {
    Name: /^web\.1\./,
    IPv4Address: '10.0.1.3/24',
    MacAddress: '02:42:0a:00:01:03',
  });
  t.match(body.Peers, [{ IP: /^192/ }]);
});

/** What `docker service create` sends for the least of services. */
const STOCK_CLI_SPEC = {
  Name: 'stock',
  Labels: { 'weft.runtime': 'process' },
  TaskTemplate: {
    ContainerSpec: {
      Image: 'busybox',
      Args: ['/bin/top'],
      Init: false,
      DNSConfig: {},
      Isolation: 'default',
      Mounts: null,
    },
    Resources: { Limits: {}, Reservations: {} },
    RestartPolicy: { Condition: 'any', MaxAttempts: 0 },
    Placement: {},
    ForceUpdate: 0,
    Runtime: 'container',
  },
  Mode: { Replicated: { Replicas: 1 } },
  RollbackConfig: null,
  EndpointSpec: { Mode: 'vip' },
};

test('POST /services/create takes what the stock CLI sends, and chooses names and ports', async (t) => {
  const lab = await startLab(t);
  const created = await lab.post('/v1.51/services/create', STOCK_CLI_SPEC);
  t.equal(created.status, 201, created.body?.message);
  t.match(created.body, { ID: /^[0-9a-z]{25}$/, Warnings: [] });
  const {
    Name: _,
    Mode: __,
    ...unnamed
  } = serviceSpec('x', 1, {
    ports: [{ TargetPort: 80 }, { TargetPort: 81 }, { TargetPort: 53, Protocol: 'udp' }],
  });
  const other = await lab.post('/services/create', unnamed);
  const { body } = await lab.get(`/services/${other.body.ID}`);
  t.match(body.Spec.Name, /^[a-z]+_[a-z]+$/);
  t.same(body.Spec.Mode, { Replicated: { Replicas: 1 } });
  t.same(
    body.Endpoint.Ports.map((port: { PublishedPort: number }) => port.PublishedPort),
    [30_000, 30_001, 30_000],
  );
  t.equal(body.Endpoint.Spec.Ports[0].PublishedPort, 0, 'the spec stays as it was given');
  t.match(body.Endpoint.VirtualIPs, [{ Addr: '10.0.0.2/24' }]);
});

const withContainer = (fields: object) => ({
  TaskTemplate: { ContainerSpec: { Command: ['/bin/x'], ...fields } },
});
const withTask = (fields: object) => ({
  TaskTemplate: { ContainerSpec: { Command: ['/bin/x'] }, ...fields },
});
const withPorts = (...Ports: object[]) => ({ EndpointSpec: { Ports } });
for (const [title, fields, status, message] of [
  ['a name that exists', { Name: 'web' }, 409, /service web already exists/],
  ['a bad name', { Name: 'a.b' }, 400, /DNS name component/],
  [
    'no runtime',
    { Labels: {} },
    400,
    /the docker runtime is not in this build, use --runtime process/,
  ],
  ['the docker runtime', { Labels: { 'weft.runtime': 'docker' } }, 400, /"docker" was given/],
  [
    'no command',
    { TaskTemplate: { ContainerSpec: {} } },
    400,
    /ContainerSpec\.Command: the process runtime needs a command/,
  ],
  ['an empty command', withContainer({ Command: [''] }), 400, /needs a command/],
  ['no task template', { TaskTemplate: null }, 400, /TaskTemplate/],
  ['NUL in an argument', withContainer({ Args: ['a\0b'] }), 400, /Args\[0\].*NUL/],
  [
    'an odd variable',
    withContainer({ Env: ['A=1', 'B'] }),
    400,
    /Env\[1\]: expected NAME=value; "B" was given/,
  ],
  [
    'an odd signal',
    withContainer({ StopSignal: 'SIGFOO' }),
    400,
    /StopSignal: expected a signal such as SIGTERM/,
  ],
  [
    'a negative grace',
    withContainer({ StopGracePeriod: -1 }),
    400,
    /StopGracePeriod.*-1 was given/,
  ],
  [
    'mounts',
    withContainer({ Mounts: [{ Source: '/', Target: '/x' }] }),
    400,
    /TaskTemplate\.ContainerSpec\.Mounts is not supported/,
  ],
  ['secrets', withContainer({ Secrets: [{ SecretID: 'x' }] }), 400, /Secrets is not supported/],
  [
    'limits',
    withTask({ Resources: { Limits: { NanoCPUs: 1 } } }),
    400,
    /TaskTemplate\.Resources is not supported/,
  ],
  [
    'an unknown network',
    withTask({ Networks: [{ Target: 'nowhere' }] }),
    404,
    /^network nowhere not found$/,
  ],
  [
    'the ingress network',
    withTask({ Networks: [{ Target: 'ingress' }] }),
    400,
    /explicitly attached to the ingress network/,
  ],
  [
    'a network twice',
    withTask({ Networks: [{ Target: 'app' }, { Target: 'app' }] }),
    400,
    /given twice/,
  ],
  [
    'a bad constraint',
    withTask({ Placement: { Constraints: ['node.size > 3'] } }),
    400,
    /Constraints\[0\]: expected <attribute>==<value>/,
  ],
  [
    'preferences',
    withTask({ Placement: { Preferences: [{ Spread: { SpreadDescriptor: 'x' } }] } }),
    400,
    /Placement\.Preferences is not supported/,
  ],
  [
    'an odd policy',
    withTask({ RestartPolicy: { Condition: 'always' } }),
    400,
    /Condition: expected "none", "on-failure" or "any"; "always"/,
  ],
  [
    'a port in use',
    withPorts({ TargetPort: 1, PublishedPort: 8080 }),
    400,
    /^port '8080' is already in use by service 'web' \([0-9a-z]{25}\) as an ingress port$/,
  ],
  [
    'that port in host mode',
    withPorts({ TargetPort: 1, PublishedPort: 8080, PublishMode: 'host' }),
    400,
    /port '8080' is already in use/,
  ],
  [
    'a port of a process',
    withPorts({ TargetPort: 1, PublishedPort: 22 }),
    400,
    /^port '22' is already in use on this node by sshd \(pid 7\)$/,
  ],
  [
    'a port twice',
    withPorts({ TargetPort: 1, PublishedPort: 90 }, { TargetPort: 2, PublishedPort: 90 }),
    400,
    /duplicate published ports provided/,
  ],
  [
    'a host port without number',
    withPorts({ TargetPort: 1, PublishMode: 'host' }),
    400,
    /needs a PublishedPort/,
  ],
  [
    'a port out of range',
    withPorts({ TargetPort: 70_000 }),
    400,
    /TargetPort: expected a port of 65535 at most; 70000/,
  ],
  ['no target port', withPorts({ PublishedPort: 90 }), 400, /TargetPort/],
  [
    'SCTP',
    withPorts({ TargetPort: 1, Protocol: 'sctp' }),
    400,
    /Protocol: expected "tcp" or "udp"; "sctp"/,
  ],
  [
    'ingress ports without a VIP',
    { EndpointSpec: { Mode: 'dnsrr', Ports: [{ TargetPort: 1 }] } },
    400,
    /can't be used with dnsrr mode/,
  ],
  [
    'jobs',
    { Mode: { ReplicatedJob: { MaxConcurrent: 1 } } },
    400,
    /Mode\.ReplicatedJob is not supported/,
  ],
  [
    'two modes',
    { Mode: { Replicated: { Replicas: 1 }, Global: {} } },
    400,
    /either Replicated or Global/,
  ],
  ['half a replica', { Mode: { Replicated: { Replicas: 1.5 } } }, 400, /Replicas.*1\.5 was given/],
  ['a million replicas', { Mode: { Replicated: { Replicas: 1e6 } } }, 400, /65536 at most/],
  [
    'start-first',
    { UpdateConfig: { Order: 'start-first' } },
    400,
    /UpdateConfig\.Order: expected "stop-first"/,
  ],
  [
    'a delay of updates',
    { UpdateConfig: { Delay: 1 } },
    400,
    /UpdateConfig\.Delay is not supported: 1 was given/,
  ],
  ['an unknown field', { Replicas: 3 }, 400, /^Replicas is not supported: 3 was given$/],
] as const) {
  test(`services are refused, created or updated, with ${title}`, async (t) => {
    const portHolder = async (_: string, port: number) =>
      port === 22 ? 'sshd (pid 7)' : undefined;
    const lab = await startLab(t, { deps: { portHolder } });
    await lab.post('/networks/create', { Name: 'app' });
    await lab.post(
      '/services/create',
      serviceSpec('web', 1, { ports: [{ TargetPort: 80, PublishedPort: 8080 }] }),
    );
    await lab.post('/services/create', serviceSpec('mine', 1));
    await lab.time.advance(1_000);
    const before = await everything(lab);
    const answer = await lab.post('/services/create', { ...serviceSpec('new', 1), ...fields });
    t.equal(answer.status, status);
    t.match(answer.body.message, message);
    const { body: mine } = await lab.get('/services/mine');
    if (!('Name' in fields)) {
      const path = `/services/mine/update?version=${mine.Version.Index}`;
      const updated = await lab.post(path, { ...mine.Spec, ...fields });
      t.equal(updated.status, status);
      t.match(updated.body.message, message);
    }
    t.same(await everything(lab), before, 'nothing is half-created');
  });
}

test('POST /services/{id}/update keeps what a service is, and its version', async (t) => {
  const lab = await startLab(t);
  await lab.post('/networks/create', { Name: 'app' });
  const spec = serviceSpec('web', 1, { ports: [{ TargetPort: 80 }, { TargetPort: 81 }] });
  const { body: created } = await lab.post('/services/create', spec);
  const update = async (fields: object, query = '') => {
    const { body } = await lab.get('/services/web');
    return await lab.post(`/services/${created.ID}/update?version=${body.Version.Index}${query}`, {
      ...body.Spec,
      ...fields,
    });
  };
  t.match(await update({ Name: 'other' }), { status: 501, body: { message: /renaming/ } });
  t.match(await update({ Mode: { Global: {} } }), {
    status: 400,
    body: { message: /mode change/ },
  });
  t.match(await update({}, '&rollback=previous'), { status: 501 });
  t.match(await lab.post('/services/web/update?version=x', spec), { status: 400 });
  t.match(await lab.post('/services/web/update', spec), { status: 400 });
  t.match(await lab.post('/services/web/update?version=1', spec), {
    status: 409,
    body: { message: /^update out of sequence: version 1 was given, the object is at \d+$/ },
  });
  t.match(await lab.post('/services/nothing/update?version=1', spec), { status: 404 });

  const before = (await lab.get('/services/web')).body;
  const Ports = [{ TargetPort: 81 }, { TargetPort: 90, PublishedPort: 9090 }];
  t.equal((await update({ EndpointSpec: { Ports } })).status, 200);
  const moved = (await lab.get('/services/web')).body;
  t.same(
    moved.Endpoint.Ports.map((port: { PublishedPort: number }) => port.PublishedPort),
    [30_001, 9_090],
  );
  t.same(moved.Endpoint.VirtualIPs, before.Endpoint.VirtualIPs, 'the VIP stays');
  t.equal(
    (
      await lab.post(
        '/services/create',
        serviceSpec('next', 1, { ports: [{ TargetPort: 80, PublishedPort: 30_000 }] }),
      )
    ).status,
    201,
    'the port given up is free',
  );

  const Networks = [{ Target: 'app', Aliases: ['db'] }];
  t.equal(
    (await update({ TaskTemplate: { ...before.Spec.TaskTemplate, Networks }, EndpointSpec: {} }))
      .status,
    200,
  );
  const attached = (await lab.get('/services/web')).body;
  t.match(attached.Endpoint.VirtualIPs, [{ Addr: '10.0.1.2/24' }]);
  t.equal(attached.Endpoint.VirtualIPs.length, 1, 'no VIP on the ingress network without ports');
  t.equal((await update({ EndpointSpec: { Mode: 'dnsrr' } })).status, 200);
  t.same((await lab.get('/services/web')).body.Endpoint.VirtualIPs, []);
  t.match((await lab.delete('/services/web')).status, 200);
  t.match(await lab.delete('/services/web'), {
    status: 404,
    body: { message: 'service web not found' },
  });
});

test('two services that ask for one name or port at once: one of them gets it', async (t) => {
  const lab = await startLab(t);
  const answers = await Promise.all(
    Array.from({ length: 8 }, (_, index) =>
      lab.post(
        '/services/create',
        serviceSpec(`web${index % 4}`, 1, {
          ports: [{ TargetPort: 80, PublishedPort: 8_000 + (index >> 1) }],
        }),
      ),
    ),
  );
  t.same(
    answers.map(({ status }) => status),
    [201, 400, 201, 400, 409, 201, 409, 201],
  );
});

test('objects are found by id, name, or the beginning of an id', async (t) => {
  const lab = await startLab(t, { seed: 3 });
  await FakeAgent.join(lab, 'host');
  await FakeAgent.join(lab, 'host');
  await lab.post('/services/create', serviceSpec('web', 2));
  await lab.time.advance(1_000);
  const [task] = (await lab.get('/tasks')).body;
  const [node] = (await lab.get('/nodes')).body;
  for (const [path, id] of [
    ['tasks', task.ID],
    ['nodes', node.ID],
    ['services', task.ServiceID],
  ] as const) {
    t.equal((await lab.get(`/${path}/${id}`)).body.ID, id);
    t.equal((await lab.get(`/${path}/${id.slice(0, 8)}`)).body.ID, id);
    t.match(await lab.get(`/${path}/zzz`), {
      status: 404,
      body: { message: `${path.slice(0, -1)} zzz not found` },
    });
  }
  t.equal((await lab.get(`/tasks/${task.Name}`)).body.ID, task.ID);
  t.match(await lab.get('/nodes/host'), {
    status: 400,
    body: { message: 'node host is ambiguous (2 matches found)' },
  });
});

test('lists can be filtered, in both ways that clients write filters', async (t) => {
  const lab = await startLab(t);
  const alpha = await FakeAgent.join(lab, 'alpha', 'manager');
  await FakeAgent.join(lab, 'beta');
  const { body: node } = await lab.get('/nodes/beta');
  await lab.post(`/nodes/beta/update?version=${node.Version.Index}`, {
    ...node.Spec,
    Labels: { disk: 'ssd' },
  });
  await lab.post('/networks/create', { Name: 'app', Labels: { team: 'blue' } });
  await lab.post(
    '/services/create',
    serviceSpec('web', 1, {
      Labels: { 'weft.runtime': 'process', tier: 'front' },
      task: { Placement: { Constraints: ['node.labels.disk==ssd'] } }, // beta, not alpha
    }),
  );
  await lab.post('/services/create', { ...serviceSpec('probe', 1), Mode: { Global: {} } });
  await lab.time.advance(1_000);
  const webId = (await lab.get('/services/web')).body.ID;
  const names: Record<
    string,
    (object: {
      Name?: string;
      Spec: { Name: string };
      Description: { Hostname: string };
    }) => string | undefined
  > = {
    nodes: (object) => object.Description.Hostname,
    networks: (object) => object.Name,
    services: (object) => object.Spec.Name,
    tasks: (object) => object.Name?.split('.')[0],
  };
  for (const [path, filters, expected] of [
    ['nodes', {}, 'alpha beta'],
    ['nodes', { role: ['worker'] }, 'beta'],
    ['nodes', { role: { manager: true } }, 'alpha'],
    ['nodes', { name: ['al'] }, 'alpha'],
    ['nodes', { id: [alpha.id.slice(0, 9)] }, 'alpha'],
    ['nodes', { 'node.label': ['disk'] }, 'beta'],
    ['nodes', { 'node.label': ['disk=hdd'] }, ''],
    ['nodes', { membership: ['pending'] }, ''],
    ['networks', {}, 'app ingress'],
    ['networks', { name: ['pp'] }, 'app'],
    ['networks', { label: ['team=blue'] }, 'app'],
    ['networks', { driver: ['overlay'], scope: ['swarm'], type: ['custom'] }, 'app ingress'],
    ['networks', { driver: ['bridge'] }, ''],
    ['services', { name: ['we'] }, 'web'],
    ['services', { mode: ['global'] }, 'probe'],
    ['services', { label: { 'tier=front': true } }, 'web'],
    ['services', { label: { tier: true, other: true } }, ''],
    ['tasks', { service: ['web'] }, 'web'],
    ['tasks', { service: [webId] }, 'web'],
    ['tasks', { node: ['alpha'], 'desired-state': ['running'] }, 'probe'],
    ['tasks', { 'desired-state': ['shutdown'] }, ''],
    ['tasks', { name: ['pro'] }, 'probe probe'],
    ['tasks', { label: ['tier=front'] }, 'web'],
  ] as const) {
    const query = encodeURIComponent(JSON.stringify(filters));
    const { status, body } = await lab.get(`/${path}?filters=${query}`);
    t.equal(status, 200);
    t.equal(
      body.map(names[path]!).sort().join(' '),
      expected,
      `${path} ${JSON.stringify(filters)}`,
    );
  }
  for (const [path, filters] of [
    ['nodes', '{"colour":["red"]}'],
    ['nodes', '{"role":["boss"]}'],
    ['tasks', '{"desired-state":["odd"]}'],
    ['services', '{"mode":["odd"]}'],
    ['networks', '{"scope":["odd"]}'],
    ['networks', '{"name":5}'],
    ['networks', '[]'],
    ['networks', 'name=x'],
  ] as const) {
    const { status, body } = await lab.get(`/${path}?filters=${encodeURIComponent(filters)}`);
    t.equal(status, 400, filters);
    t.match(body.message, /^invalid filter/);
  }
});

test('nodes are updated and removed by the rules', async (t) => {
  let local: string | undefined;
  const lab = await startLab(t, { localNodeId: () => local });
  const manager = await FakeAgent.join(lab, 'alpha', 'manager');
  local = manager.id;
  const worker = await FakeAgent.join(lab, 'beta');
  const { body: node } = await lab.get('/nodes/beta');
  const path = `/nodes/beta/update?version=${node.Version.Index}`;
  for (const [body, status, message] of [
    [
      { ...node.Spec, Availability: 'gone' },
      400,
      /expected "active", "pause" or "drain"; "gone" was given/,
    ],
    [{ ...node.Spec, Labels: { a: 1 } }, 400, /Labels\.a: expected a string; 1 was given/],
    [{ ...node.Spec, Role: 'manager' }, 400, /cannot change its role/],
    [{ ...node.Spec, Name: 'other' }, 400, /Name/],
    [{}, 400, /Role/],
  ] as const) {
    const answer = await lab.post(path, body);
    t.equal(answer.status, status);
    t.match(answer.body.message, message);
  }
  t.equal((await lab.post(path, { ...node.Spec, Labels: { a: '1' } })).status, 200);
  t.equal((await lab.post(path, node.Spec)).status, 409, 'the version has moved on');
  t.same((await lab.get('/nodes/beta')).body.Spec.Labels, { a: '1' });
  t.match((await lab.get('/nodes/alpha')).body.ManagerStatus, {
    Leader: true,
    Reachability: 'reachable',
  });

  t.match(await lab.delete('/nodes/alpha?force=1'), {
    status: 400,
    body: { message: /is a cluster manager/ },
  });
  t.match(await lab.delete('/nodes/beta'), { status: 400, body: { message: /is not down/ } });
  t.equal((await lab.delete('/nodes/beta?force=true')).status, 200);
  t.equal((await lab.get('/nodes/beta')).status, 404);
  await lab.time.advance(1_000);
  t.equal(worker.messages.at(-1)?.kind, 'removed');
  t.equal(await worker.connect(), 401);
  t.equal(lab.manager.snapshot().pools[0]?.used, 1);
});

test('logs are multiplexed as Docker does', async (t) => {
  const signals: AbortSignal[] = [];
  const taskLogs: TaskLogs = (taskId, { signal, tail, follow }) => {
    signals.push(signal);
    async function* records(): AsyncGenerator<LogRecord> {
      yield { timestampMs: 1_000, stream: 'stdout', line: `hello ${taskId}` };
      yield { timestampMs: 2_000, stream: 'stderr', line: `tail ${tail} follow ${follow}` };
    }
    return records();
  };
  const reading = await startLab(t, { deps: { taskLogs } });
  const agent = await FakeAgent.join(reading, 'host');
  await reading.post('/services/create', serviceSpec('web', 2));
  await reading.time.advance(1_000);
  const read = async (path: string): Promise<string[]> => {
    const response = await reading.manager.api.request(path);
    t.equal(response.headers.get('content-type'), 'application/vnd.docker.multiplexed-stream');
    const bytes = new DataView(await response.arrayBuffer());
    const lines: string[] = [];
    for (let at = 0; at < bytes.byteLength; ) {
      const length = bytes.getUint32(at + 4);
      const text = new TextDecoder().decode(new Uint8Array(bytes.buffer, at + 8, length));
      lines.push(`${bytes.getUint8(at)} ${text.trimEnd()}`);
      at += 8 + length;
    }
    return lines.sort();
  };
  const ids = (await reading.liveTasks('web')).map((task) => task.ID).sort();
  t.same(
    await read('/services/web/logs?stdout=1'),
    ids.map((id) => `1 hello ${id}`),
  );
  t.same(await read(`/tasks/${ids[0]}/logs?stderr=1&tail=3&follow=1&timestamps=1`), [
    '2 1970-01-01T00:00:02.000Z tail 3 follow true',
  ]);
  t.same(await read(`/tasks/${ids[0]}/logs?stdout=1&stderr=1&since=2`), [
    '2 tail undefined follow false',
  ]);
  const serviceId = (await reading.get('/services/web')).body.ID;
  t.same(await read(`/tasks/${ids[0]}/logs?stdout=1&details=1`), [
    `1 com.docker.swarm.node.id=${agent.id},com.docker.swarm.service.id=${serviceId},com.docker.swarm.task.id=${ids[0]} hello ${ids[0]}`,
  ]);
  t.match(await reading.get('/services/web/logs'), { status: 400 });
  t.match(await reading.get('/services/web/logs?stdout=1&tail=x'), { status: 400 });
  t.match(await reading.get('/services/nothing/logs?stdout=1'), { status: 404 });
  const response = await reading.manager.api.request('/services/web/logs?stdout=1');
  await response.body?.cancel();
  t.ok(signals.at(-1)?.aborted, 'a reader that goes away ends the readers of the logs');
});

test('a failing log ends the stream with that failure', async (t) => {
  async function* broken(): AsyncGenerator<LogRecord> {
    yield { timestampMs: 1, stream: 'stdout', line: 'one' };
    throw new Error('disk on fire');
  }
  const request = {
    follow: false,
    stdout: true,
    stderr: true,
    timestamps: false,
    details: false,
    sinceMs: 0,
  };
  const task = { id: 'x' } as never;
  const abort = new AbortController();
  const stream = multiplexLogs([{ task, records: broken() }], request, abort, new FakeTime());
  await t.rejects(new Response(stream).text(), /disk on fire/);
  t.ok(abort.signal.aborted, 'and with it the other logs');
});

test('bodies that are no JSON, too large or too deep are refused', async (t) => {
  const lab = await startLab(t);
  const post = (body: string) =>
    lab.manager.api.request('/services/create', { method: 'POST', body });
  t.equal((await post('{')).status, 400);
  t.equal((await post(`"${'x'.repeat(2 ** 20)}"`)).status, 413);
  t.equal((await post('['.repeat(10_000) + ']'.repeat(10_000))).status, 400);
  t.equal((await post('{"__proto__": {"Name": "x"}}')).status, 400);
  t.equal((await post('')).status, 400);
});

test('no body, however odd, is answered with 5xx or leaves anything half-created', async (t) => {
  const lab = await startLab(t);
  await lab.post('/networks/create', { Name: 'app' });
  await lab.post('/services/create', serviceSpec('web', 1));
  await lab.time.advance(1_000);
  const web = (await lab.get('/services/web')).body;
  const templates = [
    [
      '/networks/create',
      {
        Name: 'x',
        ...subnet('10.50.0.0/24', { Gateway: '10.50.0.1' }),
        Options: { [VNI]: '5000' },
      },
    ],
    [
      '/services/create',
      serviceSpec('y', 1, {
        networks: ['app'],
        ports: [{ TargetPort: 1, PublishedPort: 0 }],
        task: {
          RestartPolicy: { Delay: 1, MaxAttempts: 1 },
          Placement: { Constraints: ['node.id==x'] },
        },
      }),
    ],
    [`/services/web/update?version=${web.Version.Index}`, web.Spec],
  ] as const;
  const odd = fc.oneof(
    fc.constantFrom(
      null,
      '',
      0,
      -1,
      1e300,
      true,
      [],
      {},
      '\0',
      '10.0.0.0/8',
      'x'.repeat(300),
      ['web'],
      { Global: {} },
    ),
    fc.jsonValue({ maxDepth: 3 }),
  );
  const mutation = fc.record({ template: fc.nat(2), at: fc.nat(1_000), value: odd });
  await fc.assert(
    fc.asyncProperty(mutation, async ({ template, at, value }) => {
      const [path, body] = templates[template]!;
      const before = (await lab.store.list('')).revision;
      const { status } = await lab.post(path, mutate(body, at, value));
      const after = (await lab.store.list('')).revision;
      return status < 500 && (status < 300 || after === before);
    }),
    { numRuns: 600 },
  );
});

/** `body` with one of its values, counted from the outside in, replaced. */
function mutate(body: unknown, at: number, value: unknown): unknown {
  let count = 0;
  const places = JSON.stringify(body).match(/[[{,:]/g)?.length ?? 1;
  const target = at % places;
  return JSON.parse(JSON.stringify(body), (_key, item) => {
    count += 1;
    return count - 1 === target ? value : item;
  });
}
