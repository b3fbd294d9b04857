import fc from 'fast-check';
import { test } from 'tap';
import { formatIpv4, macOfIpv4, parseIpv4 } from '../../src/core/address.ts';
import { formatIp, parseIpv6 } from '../../src/core/ip.ts';
import type { DataPlaneCommand } from '../../src/dataplane/commands.ts';
import type { NetworkAssignment, ServiceAssignment } from '../../src/manager/session-protocol.ts';
import { DesiredTables, type PlaceVteps } from '../../src/node/desired-tables.ts';
import {
  type EndpointState,
  VTEP_KEY,
  type VtepRecord,
  writeEndpointRecord,
  writeVtepRecord,
} from '../../src/node/endpoint-record.ts';
import { EndpointView, type PlacedEndpoint } from '../../src/node/endpoint-view.ts';

const INGRESS: NetworkAssignment = {
  id: 'ingress',
  name: 'ingress',
  vni: 4096,
  subnet: '10.0.0.0/24',
  gateway: '10.0.0.1',
  ingress: true,
};
const BLUE: NetworkAssignment = {
  id: 'blue',
  name: 'blue',
  vni: 4097,
  subnet: '10.0.1.0/24',
  gateway: '10.0.1.1',
  ingress: false,
};
const WEB: ServiceAssignment = {
  id: 'web',
  name: 'web',
  vips: [{ networkId: 'blue', address: '10.0.1.2' }],
  ingressVip: '10.0.0.9',
  ports: [{ protocol: 'tcp', targetPort: 80, publishedPort: 8080 }],
};
const VTEP_B = { address: parseIpv4('192.0.2.2'), port: 4789, slot: 1 };
const VTEP_C = { address: parseIpv4('198.51.100.3'), port: 4790, slot: 2 };

interface EndpointSpec {
  readonly address: string;
  readonly address6?: string;
  readonly taskId: string;
  readonly state?: EndpointState;
  readonly vtep?: VtepRecord;
  readonly suspect?: boolean;
  readonly networkId?: string;
  readonly serviceId?: string;
  readonly primary?: boolean;
}

function placed(spec: EndpointSpec): PlacedEndpoint {
  const address = parseIpv4(spec.address);
  const record = {
    networkId: spec.networkId ?? 'blue',
    address,
    ...(spec.address6 === undefined ? {} : { address6: parseIpv6(spec.address6) }),
    mac: macOfIpv4(address),
    serviceId: spec.serviceId ?? 'web',
    taskId: spec.taskId,
    state: spec.state ?? 'active',
    primary: spec.primary ?? true,
  };
  if (spec.vtep === undefined) return { record };
  return { record, vtep: spec.vtep, suspect: spec.suspect ?? false };
}

/** What tables follow from, all in one. */
interface TableSources {
  readonly networks: readonly NetworkAssignment[];
  readonly services: readonly ServiceAssignment[];
  readonly endpoints: readonly PlacedEndpoint[];
  readonly vteps: readonly (VtepRecord & { readonly slot: number })[];
}

function sources(changes: Partial<TableSources>): TableSources {
  return {
    networks: [INGRESS, BLUE],
    services: [WEB],
    endpoints: [],
    vteps: [VTEP_B, VTEP_C],
    ...changes,
  };
}

/** Tables that are told of one set of sources after the other. */
class Told {
  readonly #view = new EndpointView('self');
  readonly #tables = new DesiredTables(this.#view, (vteps) => this.#place(vteps));
  #slots: ReadonlyMap<unknown, number> = new Map();

  /** The commands that lead from the sources before to these. */
  tell({ networks, services, endpoints, vteps }: TableSources): DataPlaneCommand[] {
    this.#tables.define({ networks, services });
    for (const node of new Set(Array.from(this.#view.announced(), ({ by }) => by.node)))
      this.#view.drop(node);
    for (const { node } of [...this.#view.vteps()]) this.#view.drop(node);
    this.#slots = new Map(vteps.map(({ address, slot }) => [address, slot]));
    for (const vtep of vteps) this.#announce(vtep);
    for (const [index, { record, vtep, suspect = false }] of endpoints.entries()) {
      const node = vtep === undefined ? 'self' : this.#announce(vtep, suspect);
      const added = [{ key: `endpoint/${index}`, value: writeEndpointRecord(record) }];
      this.#view.change({ node, added, changed: [], removed: [] });
    }
    return this.#tables.changes();
  }

  /** Makes a node at `vtep` known. @returns its id */
  #announce(vtep: VtepRecord, isSuspect = false): string {
    const node = `${formatIp(vtep.address)}${isSuspect ? ' suspect' : ''}`;
    const added = [{ key: VTEP_KEY, value: writeVtepRecord(vtep) }];
    this.#view.change({ node, added, changed: [], removed: [] });
    this.#view.suspect(node, isSuspect);
    return node;
  }

  #place(vteps: Parameters<PlaceVteps>[0]): ReturnType<PlaceVteps> {
    return vteps.map((vtep) => ({ ...vtep, slot: this.#slots.get(vtep.address) ?? -1 }));
  }
}

function commands(changes: Partial<TableSources>): DataPlaneCommand[] {
  return new Told().tell(sources(changes));
}

test('an encrypted network is one to the packet thread, and others are not', (t) => {
  const networks = [INGRESS, { ...BLUE, encrypted: true }];
  const set = commands({ networks }).filter((command) => command.kind === 'setNetwork');
  t.same(
    set.map(({ vni, encrypted }) => [vni, encrypted]),
    [
      [4096, undefined],
      [4097, true],
    ],
  );
  t.end();
});

test('networks, VTEPs, remote endpoints and services become entries, in that order', (t) => {
  const endpoints = [
    placed({ address: '10.0.1.5', taskId: 'here' }),
    placed({ address: '10.0.1.6', taskId: 'there', vtep: VTEP_B }),
  ];
  const backend = { scope: 4097, weight: 1, state: 'active' };
  const backends = [
    { id: 'here', address: parseIpv4('10.0.1.5'), ...backend },
    { id: 'there', address: parseIpv4('10.0.1.6'), ...backend },
  ];
  t.same(commands({ endpoints }), [
    {
      kind: 'setNetwork',
      vni: 4096,
      subnet: { address: parseIpv4('10.0.0.0'), prefix: 24 },
      gateway: parseIpv4('10.0.0.1'),
    },
    {
      kind: 'setNetwork',
      vni: 4097,
      subnet: { address: parseIpv4('10.0.1.0'), prefix: 24 },
      gateway: parseIpv4('10.0.1.1'),
    },
    { kind: 'setVtep', ...VTEP_B },
    { kind: 'setVtep', ...VTEP_C },
    {
      kind: 'setEndpoint',
      vni: 4097,
      address: parseIpv4('10.0.1.6'),
      mac: macOfIpv4(parseIpv4('10.0.1.6')),
      vtep: VTEP_B.address,
    },
    {
      kind: 'setService',
      service: {
        scope: 4097,
        vip: parseIpv4('10.0.1.2'),
        gateway: parseIpv4('10.0.1.1'),
        backends,
      },
    },
    {
      kind: 'setService',
      service: {
        scope: 0,
        vip: parseIpv4('10.0.0.9'),
        gateway: parseIpv4('10.0.0.1'),
        backends,
      },
    },
  ]);
  t.end();
});

const DUAL = { ...BLUE, subnet6: 'fd00:1::/64', gateway6: 'fd00:1::1' };
const DUAL_WEB: ServiceAssignment = {
  ...WEB,
  vips: [{ networkId: 'blue', address: '10.0.1.2', address6: 'fd00:1::2' }],
  ingressVip6: 'fd00::9',
};

test('a dual-stack network has entries of both families, and a service one for each VIP', (t) => {
  const ingress = { ...INGRESS, subnet6: 'fd00::/64', gateway6: 'fd00::1' };
  const endpoints = [
    placed({ address: '10.0.1.5', address6: 'fd00:1::5', taskId: 'here' }),
    placed({ address: '10.0.1.6', address6: 'fd00:1::6', taskId: 'there', vtep: VTEP_B }),
    placed({ address: '10.0.1.7', taskId: 'without', vtep: VTEP_C }),
  ];
  const found = commands({ networks: [ingress, DUAL], services: [DUAL_WEB], endpoints });
  t.match(found, [
    { kind: 'setNetwork', subnet6: { address: 'fd00::', prefix: 64 }, gateway6: 'fd00::1' },
    { kind: 'setNetwork', subnet6: { address: 'fd00:1::', prefix: 64 }, gateway6: 'fd00:1::1' },
    { kind: 'setVtep' },
    { kind: 'setVtep' },
    { kind: 'setEndpoint', address: parseIpv4('10.0.1.6'), address6: 'fd00:1::6' },
    { kind: 'setEndpoint', address: parseIpv4('10.0.1.7') },
  ]);
  const services = found.flatMap((command) =>
    command.kind === 'setService' ? [command.service] : [],
  );
  t.same(
    services.map(({ scope, vip, gateway, backends }) => [
      scope,
      formatIp(vip),
      formatIp(gateway),
      backends.map(({ address }) => formatIp(address)),
    ]),
    [
      [4097, '10.0.1.2', '10.0.1.1', ['10.0.1.5', '10.0.1.6', '10.0.1.7']],
      [4097, 'fd00:1::2', 'fd00:1::1', ['fd00:1::5', 'fd00:1::6']],
      [0, '10.0.0.9', '10.0.0.1', ['10.0.1.5', '10.0.1.6', '10.0.1.7']],
      [0, 'fd00::9', 'fd00::1', ['fd00:1::5', 'fd00:1::6']],
    ],
    'an endpoint without an IPv6 address is behind none',
  );
  t.end();
});

test('an endpoint without an IPv6 address does not make those with one suspect', (t) => {
  const endpoints = [
    placed({ address: '10.0.1.5', taskId: 'trusted', vtep: VTEP_C }),
    placed({
      address: '10.0.1.6',
      address6: 'fd00:1::6',
      taskId: 'suspect',
      vtep: VTEP_B,
      suspect: true,
    }),
  ];
  const states = commands({ networks: [INGRESS, DUAL], services: [DUAL_WEB], endpoints }).flatMap(
    (command) =>
      command.kind === 'setService' && command.service.scope === DUAL.vni
        ? [command.service.backends.map(({ state }) => state)]
        : [],
  );
  t.same(states, [['draining', 'active'], ['active']], 'it is all that the IPv6 VIP has');
  t.end();
});

test('an endpoint gets no entry', (t) => {
  for (const [why, endpoints] of [
    ['of its own', [placed({ address: '10.0.1.5', taskId: 'a' })]],
    [
      'from another node that claims an address of ours',
      [
        placed({ address: '10.0.1.5', taskId: 'b', vtep: VTEP_B }),
        placed({ address: '10.0.1.5', taskId: 'a' }),
      ],
    ],
    [
      'on a network that is not assigned',
      [placed({ address: '10.9.9.5', taskId: 'a', networkId: 'gone', vtep: VTEP_B })],
    ],
  ] as const) {
    const found = commands({ endpoints }).filter(({ kind }) => kind === 'setEndpoint');
    t.same(found, [], why);
  }
  t.end();
});

/** The backends of the VIP in `scope`: `id/state`. */
function backendsOf(scope: number, endpoints: readonly EndpointSpec[]): string[] {
  const service = commands({ endpoints: endpoints.map(placed) })
    .flatMap((command) => (command.kind === 'setService' ? [command.service] : []))
    .find((one) => one.scope === scope);
  return (service?.backends ?? []).map(({ id, state }) => `${id}/${state}`);
}

for (const [name, states, expected] of [
  ['an active task takes flows', ['active'], 'active'],
  ['a draining one keeps those that it has', ['draining'], 'draining'],
  ['a warm one is not balanced to', ['warm'], ''],
  ['a suspect node gets no new flows', ['active', 'suspect'], 'active draining'],
  ['when all are suspect, all are as good as ever', ['suspect', 'suspect'], 'active active'],
  [
    'a draining task does not make the suspects good',
    ['draining', 'suspect', 'active'],
    'draining draining active',
  ],
  ['suspects are taken rather than none', ['draining', 'suspect', 'warm'], 'draining active'],
] as const) {
  test(`backends: ${name}`, (t) => {
    const endpoints = states.map((state, index) => ({
      address: `10.0.1.${5 + index}`,
      taskId: `t${index}`,
      vtep: VTEP_B,
      state: state === 'suspect' ? ('active' as const) : state,
      suspect: state === 'suspect',
    }));
    const found = backendsOf(4097, endpoints).map((backend) => backend.replace(/.*\//, ''));
    t.equal(found.join(' '), expected);
    t.end();
  });
}

test('a VIP has the tasks on its network, published ports the primary attachments', (t) => {
  const both = [
    { address: '10.0.0.5', taskId: 'a', networkId: 'ingress', primary: false },
    { address: '10.0.1.5', taskId: 'a' },
    { address: '10.0.1.6', taskId: 'other', serviceId: 'db' },
  ];
  t.same(backendsOf(4097, both), ['a/active']);
  t.same(backendsOf(0, both), ['a/active'], 'the ingress VIP');
  t.end();
});

test('a service without published ports has no ingress VIP, and none on an unknown network', (t) => {
  const { ingressVip, ...internal } = WEB;
  t.equal(ingressVip, '10.0.0.9');
  const vips = [...WEB.vips, { networkId: 'gone', address: '10.9.9.2' }];
  const found = commands({ services: [{ ...internal, vips }] }).filter(
    ({ kind }) => kind === 'setService',
  );
  t.match(found, [{ service: { scope: 4097, backends: [] } }]);
  t.equal(found.length, 1);
  t.end();
});

test('every node orders the backends alike', (t) => {
  const specs = ['10.0.1.7', '10.0.1.5', '10.0.1.6', '10.0.1.8'].map((address, index) => ({
    address,
    taskId: ['b', 'a', 'B', 'a'][index] ?? '',
  }));
  const endpoints = fc.shuffledSubarray(specs, { minLength: specs.length });
  fc.assert(
    fc.property(endpoints, (shuffled) => {
      t.same(backendsOf(4097, shuffled), ['B/active', 'a/active', 'a/active', 'b/active']);
    }),
    { numRuns: 24 },
  );
  t.end();
});

test('a VNI out of range is refused, not truncated', (t) => {
  t.throws(() => commands({ networks: [{ ...BLUE, vni: 2 ** 24 }] }), RangeError);
  t.end();
});

/** One line per command, so that a difference reads as a story. */
function transcript(changes: readonly DataPlaneCommand[]): string[] {
  return changes.map((command) => {
    switch (command.kind) {
      case 'setNetwork':
      case 'removeNetwork':
        return `${command.kind} ${command.vni}`;
      case 'setEndpoint':
      case 'removeEndpoint': {
        const { kind, vni, address, vtep } = command;
        return `${kind} ${formatIpv4(address)} of ${vni} at ${formatIp(vtep)}`;
      }
      case 'setVtep':
      case 'removeVtep':
        return `${command.kind} ${formatIp(command.address)}`;
      case 'setService':
        return `setService ${formatIp(command.service.vip)} of ${command.service.scope}`;
      case 'removeService':
        return `removeService ${formatIp(command.vip)} of ${command.scope}`;
      default:
        return command.kind;
    }
  });
}

const REMOTE = placed({ address: '10.0.1.6', taskId: 'there', vtep: VTEP_B });
const FULL: Partial<TableSources> = { endpoints: [REMOTE], vteps: [VTEP_B] };
const NOTHING: Partial<TableSources> = { networks: [], services: [], vteps: [] };
const CHANGES: readonly [string, Partial<TableSources>, Partial<TableSources>, string[]][] = [
  ['nothing', FULL, FULL, []],
  [
    'a start',
    NOTHING,
    FULL,
    [
      'setNetwork 4096',
      'setNetwork 4097',
      'setVtep 192.0.2.2',
      'setEndpoint 10.0.1.6 of 4097 at 192.0.2.2',
      'setService 10.0.1.2 of 4097',
      'setService 10.0.0.9 of 0',
    ],
  ],
  [
    'an end, in reverse',
    FULL,
    NOTHING,
    [
      'removeService 10.0.0.9 of 0',
      'removeService 10.0.1.2 of 4097',
      'removeEndpoint 10.0.1.6 of 4097 at 192.0.2.2',
      'removeVtep 192.0.2.2',
      'removeNetwork 4097',
      'removeNetwork 4096',
    ],
  ],
  [
    'a task that moved to another node',
    { ...FULL, vteps: [VTEP_B, VTEP_C] },
    { vteps: [VTEP_B, VTEP_C], endpoints: [{ ...REMOTE, vtep: VTEP_C }] },
    ['setEndpoint 10.0.1.6 of 4097 at 198.51.100.3'],
  ],
  [
    'a task that drains',
    FULL,
    { ...FULL, endpoints: [{ ...REMOTE, record: { ...REMOTE.record, state: 'draining' } }] },
    ['setService 10.0.1.2 of 4097', 'setService 10.0.0.9 of 0'],
  ],
  [
    'an IPv6 VIP that comes and goes',
    { ...FULL, networks: [INGRESS, DUAL], services: [DUAL_WEB] },
    {
      ...FULL,
      networks: [INGRESS, DUAL],
      services: [
        { ...WEB, vips: [{ networkId: 'blue', address: '10.0.1.2', address6: 'fd00:1::3' }] },
      ],
    },
    [
      'removeService fd00::9 of 0',
      'removeService fd00:1::2 of 4097',
      'setService fd00:1::3 of 4097',
    ],
  ],
  [
    'an underlay of IPv6',
    NOTHING,
    {
      networks: [],
      services: [],
      vteps: [{ address: parseIpv6('fd00:f::2'), port: 4789, slot: 3 }],
    },
    ['setVtep fd00:f::2'],
  ],
  [
    'a network that got another VNI',
    FULL,
    { ...FULL, networks: [INGRESS, { ...BLUE, vni: 5000 }] },
    [
      'removeService 10.0.1.2 of 4097',
      'removeEndpoint 10.0.1.6 of 4097 at 192.0.2.2',
      'removeNetwork 4097',
      'setNetwork 5000',
      'setEndpoint 10.0.1.6 of 5000 at 192.0.2.2',
      'setService 10.0.1.2 of 5000',
      'setService 10.0.0.9 of 0',
    ],
  ],
];

for (const [name, before, after, expected] of CHANGES) {
  test(`changes() for ${name}`, (t) => {
    const told = new Told();
    told.tell(sources(before));
    t.same(transcript(told.tell(sources(after))), expected);
    t.end();
  });
}
