import { test } from 'tap';
import { formatIp, parseIp } from '../../src/core/ip.ts';
import { PROTO_ICMP, PROTO_TCP, PROTO_UDP } from '../../src/core/packet.ts';
import {
  FLOWS_PER_PAGE,
  type FlowNames,
  type FlowRequest,
  type FlowSource,
  flowPage,
} from '../../src/node/flow-report.ts';
import type { FlowRecord } from '../../src/routing-mesh/flow-listing.ts';

const NOW_MS = 1_790_000_000_000;
const WEB = 4097;
const DB = 4098;
const NAMES: FlowNames = {
  networks: [
    { id: 'net-i', name: 'ingress', vni: 4096, ingress: true },
    { id: 'net-web', name: 'web', vni: WEB, ingress: false },
    { id: 'net-db', name: 'db', vni: DB, ingress: false },
  ],
  services: [
    {
      id: 'svc-web',
      name: 'web',
      vips: [{ networkId: 'net-web', address: '10.0.1.2', address6: 'fd00:1::2' }],
      ingressVip: '10.255.0.9',
      ingressVip6: 'fd00:f::9',
    },
    { id: 'svc-db', name: 'db', vips: [{ networkId: 'net-db', address: '10.0.1.2' }] },
  ],
  tasks: [{ id: 'task-a', name: 'web.1', aliases: ['web.1.task-a'] }],
  endpoints: [
    { networkId: 'net-web', address: parseIp('10.0.1.5'), taskId: 'task-a', serviceId: 'svc-web' },
    {
      networkId: 'net-web',
      address: parseIp('10.0.1.6'),
      address6: parseIp('fd00:1::6'),
      taskId: 'task-b',
      serviceId: 'svc-web',
    },
    { networkId: 'net-db', address: parseIp('10.0.1.5'), taskId: 'task-d', serviceId: 'svc-db' },
    { networkId: 'gone', address: parseIp('10.0.1.7'), taskId: 'task-e', serviceId: 'svc-web' },
  ],
};

function flow(fields: Partial<FlowRecord>): FlowRecord {
  return {
    kind: 'forward',
    state: 'established',
    gone: false,
    scope: WEB,
    protocol: PROTO_TCP,
    source: 0,
    destination: 0,
    sourcePort: 0,
    destinationPort: 0,
    outScope: 0,
    newSource: 0,
    newDestination: 0,
    newSourcePort: 0,
    newDestinationPort: 0,
    vtep: 0,
    vtepPort: 0,
    attempt: 0,
    ageMs: 5_000,
    idleMs: 1_000,
    ...fields,
  };
}

const VIP_FLOW = flow({
  source: 0x0a00_0105,
  sourcePort: 40_000,
  destination: 0x0a00_0102,
  destinationPort: 80,
  outScope: WEB,
  newDestination: 0x0a00_0106,
  newDestinationPort: 8080,
});
const PUBLISHED_FLOW = flow({
  protocol: PROTO_UDP,
  scope: 0,
  source: 0xc633_6401,
  sourcePort: 5_000,
  destination: 0x0aff_0009,
  destinationPort: 53,
  outScope: WEB,
  newDestination: 0x0a00_0105,
  newDestinationPort: 53,
  gone: true,
  state: 'datagram',
});
const RETURN_FLOW = flow({
  kind: 'return',
  protocol: PROTO_ICMP,
  scope: WEB,
  source: 0x0a00_0105,
  sourcePort: 7,
  destination: 0xc633_6402,
  destinationPort: 7,
  vtep: 0xc000_0202,
  vtepPort: 4789,
  state: 'icmp',
});
const DB_FLOW = flow({
  scope: DB,
  source: 0x0a00_0109,
  destination: 0x0a00_0102,
  outScope: DB,
  newDestination: 0x0a00_0105,
});

/** A table with `flows` in its first slots. */
function tableOf(flows: readonly (FlowRecord | undefined)[], capacity = 262_144): FlowSource {
  return { capacity, read: (slot) => flows[slot] };
}

const TABLE = tableOf([
  VIP_FLOW,
  undefined,
  { ...VIP_FLOW, kind: 'reverse' },
  PUBLISHED_FLOW,
  RETURN_FLOW,
  DB_FLOW,
]);

function pageOf(request: Partial<FlowRequest>, table = TABLE) {
  return flowPage(table, NAMES, { limit: FLOWS_PER_PAGE, cursor: 0, ...request }, NOW_MS);
}

test('flows are shown once each, under the names that people use', (t) => {
  t.same(pageOf({}).flows.slice(0, 3), [
    {
      way: 'vip',
      protocol: 'tcp',
      client: '10.0.1.5:40000',
      vip: '10.0.1.2:80',
      service: 'web',
      backend: '10.0.1.6:8080',
      taskId: 'task-b',
      network: 'web',
      state: 'established',
      gone: false,
      ageMs: 5_000,
      idleMs: 1_000,
    },
    {
      way: 'published',
      protocol: 'udp',
      client: '198.51.100.1:5000',
      vip: '10.255.0.9:53',
      service: 'web',
      backend: '10.0.1.5:53',
      taskId: 'task-a',
      task: 'web.1',
      network: 'web',
      state: 'datagram',
      gone: true,
      ageMs: 5_000,
      idleMs: 1_000,
    },
    {
      way: 'return',
      protocol: 'icmp',
      client: '198.51.100.2:7',
      backend: '10.0.1.5:7',
      via: '192.0.2.2:4789',
      taskId: 'task-a',
      task: 'web.1',
      network: 'web',
      state: 'icmp',
      gone: false,
      ageMs: 5_000,
      idleMs: 1_000,
    },
  ]);
  t.end();
});

test('flows of IPv6 have the same names', (t) => {
  const backend = { outScope: WEB, newDestination: parseIp('fd00:1::6'), newDestinationPort: 80 };
  const source = parseIp('2001:db8::1');
  const inside = flow({ source, destination: parseIp('fd00:1::2'), ...backend });
  const published = flow({ scope: 0, source, destination: parseIp('fd00:f::9'), ...backend });
  for (const one of [inside, published]) {
    t.match(pageOf({ service: 'web', task: 'task-b' }, tableOf([one])).flows[0], {
      client: '[2001:db8::1]:0',
      service: 'web',
      backend: '[fd00:1::6]:80',
      taskId: 'task-b',
    });
  }
  t.end();
});

test('what has no name is shown by its number', (t) => {
  const strange = flow({ protocol: 132, scope: 9, outScope: 9, newDestination: 1 });
  const { flows } = pageOf({}, tableOf([strange]));
  t.match(flows[0], { protocol: '132', network: '9', service: undefined, taskId: undefined });
  t.end();
});

for (const [name, request, clients] of [
  ['all', {}, ['10.0.1.5', '198.51.100.1', '198.51.100.2', '10.0.1.9']],
  ['of a network', { network: 'web' }, ['10.0.1.5', '198.51.100.1', '198.51.100.2']],
  ['of the network with the same addresses', { network: 'net-db' }, ['10.0.1.9']],
  ['of the ingress network', { network: 'ingress' }, ['198.51.100.1']],
  ['of a task', { task: 'web.1' }, ['10.0.1.5', '198.51.100.1', '198.51.100.2']],
  ['of a task elsewhere', { task: 'task-b' }, ['10.0.1.5']],
  ['of a task of an unknown network', { task: 'task-e' }, []],
  ['of a service', { service: 'web' }, ['10.0.1.5', '198.51.100.1', '198.51.100.2']],
  ['of another service', { service: 'svc-d' }, ['10.0.1.9']],
  ['of a service on a network', { service: 'web', network: 'db' }, []],
] as const) {
  test(`flows ${name}`, (t) => {
    const shown = pageOf(request).flows.map(({ client }) => client.replace(/:\d+$/, ''));
    t.same(shown, clients);
    t.end();
  });
}

test('an unknown name is refused with those that there are', (t) => {
  for (const [request, message] of [
    [{ network: 'x' }, 'Cannot find "x" among the networks: expected ingress, web or db'],
    [{ service: 'x' }, 'Cannot find "x" among the services: expected web or db'],
    [{ task: 'x' }, 'Cannot find "x" among the tasks: expected web.1, task-b, task-d or task-e'],
  ] as const) {
    t.throws(() => pageOf(request), { name: 'LocalApiError', status: 404, message });
  }
  t.end();
});

test('pages together show every flow once, whatever their size', (t) => {
  const flows = Array.from({ length: 3_000 }, (_, slot) =>
    slot % 3 === 0 ? undefined : flow({ source: slot }),
  );
  const table = tableOf(flows);
  for (const limit of [7, 1_000, 5_000]) {
    const seen: string[] = [];
    let pages = 0;
    for (let cursor: number | undefined = 0; cursor !== undefined; pages++) {
      const page = pageOf({ limit, cursor }, table);
      t.ok(page.flows.length <= Math.min(limit, FLOWS_PER_PAGE));
      seen.push(...page.flows.map(({ client }) => client));
      cursor = page.next;
    }
    const expected = flows.flatMap((one) =>
      one === undefined ? [] : [`${formatIp(one.source)}:0`],
    );
    t.strictSame(seen, expected);
    t.ok(pages >= 4, 'one page looks at a part of the table only');
  }
  t.same(pageOf({ cursor: 1e9 }), { flows: [] }, 'behind the end');
  t.end();
});
