import fc from 'fast-check';
import { test } from 'tap';
import { GATEWAY_MAC, macOfIpv4, parseCidr, parseIpv4, parseMac } from '../../src/core/address.ts';
import { AddressWords } from '../../src/core/address-words.ts';
import { type Ip, parseIpv6 } from '../../src/core/ip.ts';
import { PROTO_TCP } from '../../src/core/packet.ts';
import { makeCaptureRing } from '../../src/dataplane/capture-ring.ts';
import type { ThreadPlace } from '../../src/dataplane/commands.ts';
import {
  Counters,
  DROP_REASONS,
  dropIndex,
  makeCounterMemory,
  TRAFFIC_COUNTERS,
  trafficIndex,
} from '../../src/dataplane/counters.ts';
import { Peers } from '../../src/dataplane/peers.ts';
import { type Port, shareOfPort } from '../../src/dataplane/port.ts';
import { Switch } from '../../src/dataplane/switch.ts';
import { type TableCommand, Tables } from '../../src/dataplane/tables.ts';
import { flowTableBytes } from '../../src/routing-mesh/flow-table.ts';
import { Mesh } from '../../src/routing-mesh/mesh.ts';
import { ethernetFrame, makePacketMemory } from './frames.ts';
import { secureSessions } from './secure.ts';
import { NOW_MS } from './world.ts';

const BLUE = 4096;
const VTEP_B = parseIpv4('198.51.100.2');
const VTEP_C = parseIpv4('198.51.100.3');

function makeTables(thread: ThreadPlace = { index: 0, count: 1 }) {
  const memory = new Uint8Array(flowTableBytes(64));
  const mesh = new Mesh({ memory, capacity: 64, hashKey: new Uint8Array(8) });
  const view = new DataView(new ArrayBuffer(2048));
  const peers = new Peers();
  const decide = new Switch({ view, mesh, peers, scratch: 34 });
  const served: string[] = [];
  const listener = {
    added: ({ id }: Port) => served.push(`+${id}`),
    removed: ({ id }: Port) => served.push(`-${id}`),
  };
  const probed: number[] = [];
  const probes = { send: ({ sequence }: { sequence: number }) => probed.push(sequence) };
  const { arena, counters, taps } = makePacketMemory();
  const secure = secureSessions(arena, counters, peers);
  const tables = new Tables({
    ...{ decide, mesh, peers, secure, listener, probes, taps },
    place: thread,
  });
  const apply = (...commands: TableCommand[]): void => {
    for (const command of commands) tables.apply(command);
  };
  /** Where the address of the blue network is: a port's id, or a VTEP's last octet. */
  const where = (address: string): string => {
    return place(parseIpv4(address));
  };
  const place = (address: Ip): string => {
    const endpoint = decide.networks.get(BLUE)?.find(AddressWords.of(address));
    if (endpoint === undefined) return 'nowhere';
    const { port, peer } = endpoint;
    return port === undefined ? `vtep ${(peer?.words.w3 ?? 0) & 255}` : `port ${port.id}`;
  };
  return { tables, apply, where, place, decide, mesh, view, peers, secure, served, probed, taps };
}

const NETWORK: TableCommand = {
  kind: 'setNetwork',
  vni: BLUE,
  subnet: parseCidr('10.0.1.0/24'),
  gateway: parseIpv4('10.0.1.1'),
};

function addPort(id: number, text: string, vni = BLUE): TableCommand {
  const address = parseIpv4(text);
  return { kind: 'addPort', id, fds: [id + 100], vni, address, mac: macOfIpv4(address) };
}

function setEndpoint(text: string, vtep: number, mac?: string): TableCommand {
  const address = parseIpv4(text);
  return {
    kind: 'setEndpoint',
    vni: BLUE,
    address,
    mac: mac === undefined ? macOfIpv4(address) : parseMac(mac),
    vtep,
  };
}

function removeEndpoint(text: string, vtep: number): TableCommand {
  return { kind: 'removeEndpoint', vni: BLUE, address: parseIpv4(text), vtep };
}

const SIX = parseIpv6('fd00::5');

/** The same command about an endpoint that has `address6` as well. */
function withIpv6<Command extends TableCommand>(command: Command, address6 = SIX): Command {
  return { ...command, address6 };
}

for (const [name, commands, expected] of [
  ['a port', [withIpv6(addPort(1, '10.0.1.5'))], 'port 1'],
  ['an endpoint of another node', [withIpv6(setEndpoint('10.0.1.5', VTEP_B))], 'vtep 2'],
  [
    'one that is gone',
    [withIpv6(setEndpoint('10.0.1.5', VTEP_B)), removeEndpoint('10.0.1.5', VTEP_B)],
    'nowhere',
  ],
  [
    'one that has another address now',
    [
      withIpv6(setEndpoint('10.0.1.5', VTEP_B)),
      withIpv6(setEndpoint('10.0.1.5', VTEP_B), parseIpv6('fd00::6')),
    ],
    'nowhere',
  ],
  [
    'one that another endpoint has taken over',
    [withIpv6(setEndpoint('10.0.1.5', VTEP_B)), withIpv6(setEndpoint('10.0.1.6', VTEP_C))],
    'vtep 3',
  ],
  [
    'our own, claimed by another node',
    [withIpv6(addPort(1, '10.0.1.5')), withIpv6(setEndpoint('10.0.1.6', VTEP_B))],
    'port 1',
  ],
  ['our own, gone', [withIpv6(addPort(1, '10.0.1.5')), { kind: 'removePort', id: 1 }], 'nowhere'],
  [
    'one of a network that changed',
    [withIpv6(setEndpoint('10.0.1.5', VTEP_B)), { ...NETWORK, gateway6: parseIpv6('fd00::1') }],
    'vtep 2',
  ],
] as const satisfies readonly (readonly [string, readonly TableCommand[], string])[]) {
  test(`tables: where an IPv6 address is: ${name}`, (t) => {
    const { apply, place } = makeTables();
    apply(NETWORK, ...commands);
    t.equal(place(SIX), expected);
    t.end();
  });
}

for (const [name, commands, expected] of [
  ['an endpoint of another node', [setEndpoint('10.0.1.5', VTEP_B)], 'vtep 2'],
  ['one that moved', [setEndpoint('10.0.1.5', VTEP_B), setEndpoint('10.0.1.5', VTEP_C)], 'vtep 3'],
  [
    'one that is gone',
    [setEndpoint('10.0.1.5', VTEP_B), removeEndpoint('10.0.1.5', VTEP_B)],
    'nowhere',
  ],
  [
    'one whose old place is gone',
    [setEndpoint('10.0.1.5', VTEP_C), removeEndpoint('10.0.1.5', VTEP_B)],
    'vtep 3',
  ],
  ['one of our own', [addPort(1, '10.0.1.5')], 'port 1'],
  [
    'our own, taken over from another node',
    [setEndpoint('10.0.1.5', VTEP_B), addPort(1, '10.0.1.5')],
    'port 1',
  ],
  [
    'our own, claimed by another node',
    [addPort(1, '10.0.1.5'), setEndpoint('10.0.1.5', VTEP_B)],
    'port 1',
  ],
  [
    'our own, whose MAC another node claims',
    [addPort(1, '10.0.1.5'), setEndpoint('10.0.1.6', VTEP_B, '02:42:0a:00:01:05')],
    'port 1',
  ],
  [
    'our own, half of whose MAC another node claims',
    [addPort(1, '10.0.1.5'), setEndpoint('10.0.1.6', VTEP_B, '06:42:0a:00:01:05')],
    'port 1',
  ],
  [
    'our own, removed as if it were another node’s',
    [addPort(1, '10.0.1.5'), removeEndpoint('10.0.1.5', 0)],
    'port 1',
  ],
  ['our own, gone', [addPort(1, '10.0.1.5'), { kind: 'removePort', id: 1 }], 'nowhere'],
  [
    'our own, gone and come again',
    [addPort(1, '10.0.1.5'), { kind: 'removePort', id: 1 }, addPort(2, '10.0.1.5')],
    'port 2',
  ],
  [
    'our own, replaced before the old one went',
    [addPort(1, '10.0.1.5'), addPort(2, '10.0.1.5'), { kind: 'removePort', id: 1 }],
    'port 2',
  ],
  [
    'one of a network that changed',
    [setEndpoint('10.0.1.5', VTEP_B), { ...NETWORK, gateway: 7 }],
    'vtep 2',
  ],
  [
    'one of a network that came again',
    [setEndpoint('10.0.1.5', VTEP_B), { kind: 'removeNetwork', vni: BLUE }, NETWORK],
    'nowhere',
  ],
  [
    'one whose network is gone',
    [
      setEndpoint('10.0.1.5', VTEP_B),
      { kind: 'removeNetwork', vni: BLUE },
      removeEndpoint('10.0.1.5', VTEP_B),
    ],
    'nowhere',
  ],
] as const satisfies readonly (readonly [string, readonly TableCommand[], string])[]) {
  test(`tables: where an endpoint is: ${name}`, (t) => {
    const { apply, where } = makeTables();
    apply(NETWORK, ...commands);
    t.equal(where('10.0.1.5'), expected);
    t.end();
  });
}

test('tables: a changed network answers at its new gateway', (t) => {
  const { apply, decide, tables, view } = makeTables();
  apply(NETWORK, addPort(1, '10.0.1.5'), { ...NETWORK, gateway: parseIpv4('10.0.1.254') });
  const ping = { protocol: 1, from: '10.0.1.5', toMac: GATEWAY_MAC };
  const port = tables.port(1);
  for (const [to, action] of [
    ['10.0.1.254', 'back'],
    ['10.0.1.1', 'drop'],
  ] as const) {
    const frame = ethernetFrame({ ...ping, to });
    new Uint8Array(view.buffer).set(frame, 98);
    t.ok(port);
    if (port === undefined) continue;
    t.equal(decide.fromPort(port, 98, frame.length, false, NOW_MS).action, action, to);
  }
  t.end();
});

test('tables: ports are served from when they are added until they are removed', (t) => {
  const { apply, tables, decide, served } = makeTables();
  const hostMac = parseMac('02:42:0a:ff:00:02');
  apply(NETWORK, addPort(1, '10.0.1.5'));
  apply({ kind: 'addHostPort', id: 2, fds: [9], address: parseIpv4('10.255.0.2'), mac: hostMac });
  t.match(tables.port(1), { id: 1, fd: 101, scope: BLUE, address: parseIpv4('10.0.1.5') });
  t.match(decide.hostPort, { id: 2, fd: 9, scope: 0, mac: hostMac });
  apply(
    { kind: 'removePort', id: 2 },
    { kind: 'removePort', id: 2 },
    { kind: 'removePort', id: 1 },
  );
  t.same(served, ['+1', '+2', '-2', '-1'], 'a port that is gone may be removed again');
  t.same([tables.port(1), tables.port(2), decide.hostPort], [undefined, undefined, undefined]);
  t.end();
});

test('tables: commands about what does not exist are refused', (t) => {
  const { apply, served } = makeTables();
  t.throws(() => apply(addPort(1, '10.0.1.5')), /VNI 4096 has a network/);
  t.throws(() => apply(setEndpoint('10.0.1.5', VTEP_B)), /VNI 4096 has a network/);
  apply(NETWORK, addPort(1, '10.0.1.5'));
  t.throws(() => apply(addPort(1, '10.0.1.6')), /port id 1 is used once/);
  t.same(served, ['+1']);
  t.end();
});

test('tables: what is known of a path is kept with its VTEP', (t) => {
  const { apply, peers, probed } = makeTables();
  const find = (): number | undefined => peers.find(AddressWords.of(VTEP_B))?.innerMtuBytes;
  apply({ kind: 'setPathMtu', address: VTEP_B, mtuBytes: 1400 });
  t.equal(find(), undefined, 'strangers have no path');
  apply({ kind: 'setVtep', address: VTEP_B, port: 4789 });
  t.equal(find(), 65_535 - 50);
  apply({ kind: 'setPathMtu', address: VTEP_B, mtuBytes: 1400 });
  t.equal(find(), 1350);
  apply({ kind: 'probe', to: VTEP_B, sequence: 7, nonce: 1n, sizeBytes: 24 });
  t.same(probed, [7]);
  t.end();
});

test('tables: VTEPs, services and gauges', (t) => {
  const { apply, tables, mesh, peers, decide, view } = makeTables();
  const vip = parseIpv4('10.0.1.100');
  const gateway = parseIpv4('10.0.1.1');
  const backend = { id: 't1', address: parseIpv4('10.0.1.6'), scope: BLUE, weight: 1 };
  const backends = [{ ...backend, state: 'active' as const }];
  apply(
    NETWORK,
    { ...NETWORK, vni: 4097 },
    addPort(1, '10.0.1.5'),
    setEndpoint('10.0.1.6', VTEP_B),
    { kind: 'setVtep', address: VTEP_B, port: 4789 },
    { kind: 'setVtep', address: VTEP_C, port: 4789, slot: 1 },
    { kind: 'setVtep', address: VTEP_C, port: 4790, slot: 2 },
    { kind: 'setService', service: { scope: BLUE, vip, gateway, backends } },
  );
  t.same(
    [...peers].map(({ address, port, isKnown, slot }) => ({ address, port, isKnown, slot })),
    [
      { address: VTEP_B, port: 4789, isKnown: true, slot: 0 },
      { address: VTEP_C, port: 4790, isKnown: true, slot: 2 },
    ],
  );
  const frame = ethernetFrame({ from: '10.0.1.5:5000', to: '10.0.1.100:80', toMac: GATEWAY_MAC });
  new Uint8Array(view.buffer).set(frame, 98);
  const port = tables.port(1);
  t.ok(port);
  if (port !== undefined) decide.fromPort(port, 98, frame.length, false, NOW_MS);
  t.equal(mesh.activeFlows(PROTO_TCP), 1);
  t.strictSame(tables.status(), {
    ports: 1,
    networks: 2,
    endpoints: 2,
    vteps: 2,
    services: 1,
    flows: { tcp: 1, udp: 0, icmp: 0 },
    aead: "OpenSSL of Node's binary",
  });
  t.strictSame(mesh.backendStatus(BLUE, vip), [{ ...backends[0], newFlows: 1 }]);
  apply(
    { kind: 'removeVtep', address: VTEP_B },
    { kind: 'removeService', scope: BLUE, vip },
    { kind: 'removeNetwork', vni: 4097 },
  );
  t.match(tables.status(), { networks: 1, vteps: 1, services: 0 });
  t.notOk(mesh.isVip(BLUE, AddressWords.of(vip)));
  t.match(peers.find(AddressWords.of(VTEP_B)), { isKnown: false }, 'an endpoint names it');
  apply(removeEndpoint('10.0.1.6', VTEP_B));
  t.equal(peers.find(AddressWords.of(VTEP_B)), undefined);
  t.end();
});

test('tables: a peer is there while it is a member or an endpoint is behind it, and no longer', (t) => {
  const vteps = [VTEP_B, VTEP_C];
  const vni = fc.constantFrom(BLUE, 4097);
  const vtep = fc.constantFrom(...vteps);
  const address = fc.constantFrom('10.0.1.6', '10.0.1.7', '10.0.1.8');
  const mac = fc.constantFrom('02:00:00:00:00:01', '02:00:00:00:00:02', '02:00:00:00:00:03');
  const command: fc.Arbitrary<TableCommand> = fc.oneof(
    vni.map((on): TableCommand => ({ ...NETWORK, vni: on })),
    vni.map((on): TableCommand => ({ kind: 'removeNetwork', vni: on })),
    vtep.map((at): TableCommand => ({ kind: 'setVtep', address: at, port: 4789 })),
    vtep.map((at): TableCommand => ({ kind: 'removeVtep', address: at })),
    fc.tuple(vni, address, vtep, mac).map(([on, text, at, its]): TableCommand => {
      return { ...setEndpoint(text, at, its), vni: on } as TableCommand;
    }),
    fc.tuple(vni, address, vtep).map(([on, text, at]): TableCommand => {
      return { ...removeEndpoint(text, at), vni: on } as TableCommand;
    }),
    fc.constant<TableCommand>({ kind: 'removePort', id: 1 }),
    fc.tuple(vni, address).map(([on, text]): TableCommand => addPort(1, text, on)),
  );
  fc.assert(
    fc.property(fc.array(command, { minLength: 20, maxLength: 200 }), (commands) => {
      const { apply, tables, decide, peers } = makeTables();
      const known = new Set<Ip>();
      for (const one of commands) {
        const { networks } = decide;
        if (one.kind === 'addPort' && tables.port(one.id) !== undefined) continue;
        if ('vni' in one && one.kind !== 'setNetwork' && !networks.has(one.vni)) continue;
        if (one.kind === 'removeNetwork' && tables.port(1)?.scope === one.vni) continue;
        apply(one);
        if (one.kind === 'setVtep') known.add(one.address);
        if (one.kind === 'removeVtep') known.delete(one.address);
        const wanted = new Set(known);
        for (const network of networks.values()) {
          for (const { peer } of network.endpoints()) if (peer) wanted.add(peer.address);
        }
        const found = new Set(Array.from(peers, (peer) => peer.address));
        if (found.size !== wanted.size || [...found].some((one) => !wanted.has(one))) return false;
      }
      return true;
    }),
    { numRuns: 100 }, // each has an arena, for which there is room below 2 GiB
  );
  t.end();
});

test('tables: a port has a queue per packet thread, or one that one of the threads reads', (t) => {
  const places = [0, 1, 2].map((index) => ({ index, count: 3 }));
  const share = (id: number, fds: readonly number[]) =>
    places.map((place) => shareOfPort(id, fds, place));
  t.same(share(7, [30, 31, 32]), [
    { fd: 30, isRead: true },
    { fd: 31, isRead: true },
    { fd: 32, isRead: true },
  ]);
  for (const [id, reader] of [
    [6, 0],
    [7, 1],
    [8, 2],
  ] as const) {
    const expected = places.map(({ index }) => ({ fd: 30, isRead: index === reader }));
    t.same(share(id, [30]), expected, `port ${id} is read by thread ${reader}`);
  }
  for (const fds of [[], [30, 31], [30, 31, 32, 33]]) {
    t.throws(() => share(7, fds), /a queue per packet thread or one/);
  }
  t.same(shareOfPort(7, [30], { index: 0, count: 1 }), { fd: 30, isRead: true });
  t.end();
});

test('tables: one of several packet threads sends probes', (t) => {
  const probe: TableCommand = {
    kind: 'probe',
    to: VTEP_B,
    sequence: 5,
    nonce: 1n,
    sizeBytes: 1200,
  };
  const sentBy = [0, 1].map((index) => {
    const { apply, probed } = makeTables({ index, count: 2 });
    apply({ kind: 'setVtep', address: VTEP_B, port: 4789 }, probe);
    return probed;
  });
  t.same(sentBy, [[5], []]);
  t.end();
});

test('counters: of several threads, apart and together', (t) => {
  const memory = makeCounterMemory(3);
  const threads = [0, 1, 2].map((thread) => new Counters(memory, thread));
  for (const [thread, counters] of threads.entries()) {
    counters.add(trafficIndex('wakeups'), 10 ** thread);
    for (let drops = 0; drops < thread; drops++) counters.drop(dropIndex('runt'));
  }
  const reader = new Counters(memory);
  t.match(reader.traffic(), { wakeups: 111, 'port-frames-in': 0 });
  t.match(reader.drops(), { runt: 3, multicast: 0 });
  t.same(reader.byThread('wakeups'), [1, 10, 100]);
  t.end();
});

test('counters: one place each, seen by both threads', (t) => {
  const memory = makeCounterMemory(1);
  const writer = new Counters(memory);
  const reader = new Counters(memory);
  for (const [index, name] of TRAFFIC_COUNTERS.entries()) writer.add(trafficIndex(name), index + 1);
  for (const [index, name] of DROP_REASONS.entries()) {
    for (let count = 0; count <= index; count++) writer.drop(dropIndex(name));
  }
  t.strictSame(
    reader.traffic(),
    Object.fromEntries(TRAFFIC_COUNTERS.map((name, at) => [name, at + 1])),
  );
  t.strictSame(reader.drops(), Object.fromEntries(DROP_REASONS.map((name, at) => [name, at + 1])));
  writer.set(trafficIndex('flows-evicted'), 2 ** 40);
  writer.add(trafficIndex('flows-evicted'), 3);
  t.equal(reader.traffic()['flows-evicted'], 2 ** 40 + 3, 'beyond 32 bits');
  t.end();
});

test('captures start and end by command', (t) => {
  const { apply, taps } = makeTables();
  const filter = { scopes: [BLUE], snaplen: 100 };
  apply({ kind: 'setCapture', id: 1, filter, rings: [makeCaptureRing(64)] });
  t.ok(taps.active);
  apply({ kind: 'clearCapture', id: 1 });
  t.notOk(taps.active);
  t.end();
});
