import { type Test, test } from 'tap';
import { GATEWAY_MAC } from '../../src/core/address.ts';
import { AddressWords } from '../../src/core/address-words.ts';
import { parseIp } from '../../src/core/ip.ts';
import { PROTO_ICMP, PROTO_UDP, TCP_SYN, writeMac } from '../../src/core/packet.ts';
import { endpoint, parsed, wrongChecksums } from '../routing-mesh/packets.ts';
import { type SolicitationSpec, solicitation } from '../vxlan/solicitation.ts';
import { ethernetFrame, type FrameSpec, macOf } from './frames.ts';
import {
  arpRequest,
  BLUE,
  FAMILIES,
  type Family,
  GATEWAY,
  inFamily,
  NOW_MS,
  RED,
  toIpv6,
  VIPS,
  World,
} from './world.ts';

const ALICE = '240.0.1.11:5000';
const BOB = '240.0.1.12:80';
const CAROL = '240.0.2.11:80';
const REMOTE = '240.0.1.13:80';
const HOST = '240.255.0.2:6000';
const CLIENT = '192.0.2.7:7000';
const toGateway = { toMac: GATEWAY_MAC } as const;
const routed = { fromMac: GATEWAY_MAC } as const;
const ping = { protocol: PROTO_ICMP, icmpType: 8 } as const;

const ALICE_MAC = macOf(ALICE);
/** Asked by alice's frame, to be answered to bob. */
function forAnotherMac(): Uint8Array {
  const request = arpRequest('240.0.1.11', GATEWAY);
  writeMac(new DataView(request.buffer), 22, macOf(BOB));
  return request;
}

type From = keyof World['ports'] | number;
const DECISIONS: readonly (readonly [string, From, FrameSpec, string])[] = [
  // Switching: by MAC, on one network.
  [
    'to a task here',
    'alice',
    { from: ALICE, to: BOB },
    'port bob: alice>bob 240.0.1.11:5000>240.0.1.12:80',
  ],
  [
    'to itself',
    'alice',
    { from: ALICE, to: ALICE },
    'port alice: alice>alice 240.0.1.11:5000>240.0.1.11:5000',
  ],
  [
    'to a task elsewhere',
    'alice',
    { from: ALICE, to: REMOTE },
    'vtep 198.51.100.2:4789/4096: alice>remote 240.0.1.11:5000>240.0.1.13:80',
  ],
  [
    'to a MAC that nobody has',
    'alice',
    { from: ALICE, to: '240.0.1.99:80' },
    'drop unknown-destination',
  ],
  ['to a MAC of another network', 'alice', { from: ALICE, to: CAROL }, 'drop unknown-destination'],
  [
    'to all',
    'alice',
    { from: ALICE, to: '255.255.255.255:67', toMac: 0xffff_ffff_ffff, protocol: PROTO_UDP },
    'drop multicast',
  ],
  [
    'to a group',
    'alice',
    { from: ALICE, to: '224.0.0.251:53', toMac: 0x0100_5e00_00fb, protocol: PROTO_UDP },
    'drop multicast',
  ],
  // Routing: to the gateway's MAC.
  [
    'by the gateway to a task here',
    'alice',
    { from: ALICE, to: BOB, ...toGateway },
    'port bob: gateway>bob 240.0.1.11:5000>240.0.1.12:80',
  ],
  [
    'by the gateway to a task elsewhere',
    'alice',
    { from: ALICE, to: REMOTE, ...toGateway },
    'vtep 198.51.100.2:4789/4096: gateway>remote 240.0.1.11:5000>240.0.1.13:80',
  ],
  [
    'by the gateway to another network',
    'alice',
    { from: ALICE, to: CAROL, ...toGateway },
    'drop no-route',
  ],
  [
    'by the gateway to the world',
    'alice',
    { from: ALICE, to: '192.0.2.1:53', ...toGateway },
    'drop no-route',
  ],
  [
    'a ping of the gateway',
    'alice',
    { from: ALICE, to: GATEWAY, ...toGateway, ...ping },
    'echo: gateway>alice 240.0.1.1>240.0.1.11',
  ],
  [
    'a fragment of such a ping',
    'alice',
    { from: ALICE, to: GATEWAY, ...toGateway, ...ping, moreFragments: true },
    'drop no-route',
  ],
  [
    'an echo reply to the gateway',
    'alice',
    { from: ALICE, to: GATEWAY, ...toGateway, ...ping, icmpType: 0 },
    'drop no-route',
  ],
  [
    'TCP to the gateway',
    'alice',
    { from: ALICE, to: `${GATEWAY}:80`, ...toGateway },
    'drop no-route',
  ],
  // Balancing.
  [
    'to a VIP with a task here',
    'alice',
    { from: ALICE, to: `${VIPS.bob}:80`, ...toGateway },
    'port bob: alice>bob 240.0.1.11:5000>240.0.1.12:80',
  ],
  [
    'to a VIP with a task elsewhere',
    'alice',
    { from: ALICE, to: `${VIPS.remote}:80`, ...toGateway },
    'vtep 198.51.100.2:4789/4096: alice>remote 240.0.1.11:5000>240.0.1.13:80',
  ],
  [
    'a ping of a VIP',
    'alice',
    { from: ALICE, to: VIPS.remote, ...toGateway, ...ping },
    'echo: gateway>alice 240.0.1.101>240.0.1.11',
  ],
  [
    'to a VIP without backends',
    'alice',
    { from: ALICE, to: `${VIPS.nobody}:80`, ...toGateway, tcpFlags: TCP_SYN },
    'reset: gateway>alice 240.0.1.102:80>240.0.1.11:5000',
  ],
  [
    'a reset to such a VIP',
    'alice',
    { from: ALICE, to: `${VIPS.nobody}:80`, ...toGateway, tcpFlags: 0x04 },
    'drop no-backend',
  ],
  [
    'UDP to such a VIP',
    'alice',
    { from: ALICE, to: `${VIPS.nobody}:80`, ...toGateway, protocol: PROTO_UDP },
    'drop no-backend',
  ],
  [
    'to a VIP whose backend no node has announced',
    'alice',
    { from: ALICE, to: `${VIPS.stranger}:80`, ...toGateway },
    'drop no-backend',
  ],
  [
    'to a VIP by a protocol without ports',
    'alice',
    { from: ALICE, to: VIPS.bob, ...toGateway, protocol: 132 },
    'drop unsupported-protocol',
  ],
  [
    'a later fragment to a VIP, without the first',
    'alice',
    { from: ALICE, to: VIPS.bob, ...toGateway, protocol: PROTO_UDP, fragmentOffset: 8 },
    'drop fragment-without-first',
  ],
  [
    'a VIP of another network',
    'carol',
    { from: CAROL, to: `${VIPS.bob}:80`, ...toGateway },
    'drop no-route',
  ],
  // Published ports.
  [
    'the host to a task here',
    'host',
    { from: CLIENT, to: `${VIPS.publishedBob}:80`, ...toGateway },
    'port bob: gateway>bob 192.0.2.7:7000>240.0.1.12:80',
  ],
  [
    'the host to a task elsewhere',
    'host',
    { from: CLIENT, to: `${VIPS.publishedRemote}:80`, ...toGateway },
    'vtep 198.51.100.2:4789/4096: gateway>remote 192.0.2.7:7000>240.0.1.13:80',
  ],
  [
    'the host to an address that is no VIP',
    'host',
    { from: HOST, to: BOB, ...toGateway },
    'drop no-route',
  ],
  // From the underlay: only to tasks here, never back.
  [
    'from the underlay to a task here',
    BLUE,
    { from: REMOTE, to: BOB },
    'port bob: remote>bob 240.0.1.13:80>240.0.1.12:80',
  ],
  [
    'from the underlay, routed',
    BLUE,
    { from: CLIENT, to: BOB, ...routed },
    'port bob: gateway>bob 192.0.2.7:7000>240.0.1.12:80',
  ],
  ['from the underlay to a task elsewhere', BLUE, { from: REMOTE, to: REMOTE }, 'drop not-local'],
  ['from the underlay to nobody', BLUE, { from: REMOTE, to: '240.0.1.99:80' }, 'drop not-local'],
  [
    'from the underlay to a task of another network',
    RED,
    { from: REMOTE, to: BOB },
    'drop not-local',
  ],
  [
    'from the underlay to the gateway',
    BLUE,
    { from: REMOTE, to: CLIENT, ...toGateway },
    'drop no-flow',
  ],
  [
    'from the underlay to a VIP',
    BLUE,
    { from: REMOTE, to: `${VIPS.bob}:80`, ...toGateway },
    'drop no-flow',
  ],
  [
    'from the underlay to all',
    BLUE,
    { from: REMOTE, to: BOB, toMac: 0xffff_ffff_ffff },
    'drop multicast',
  ],
];

for (const [name, from, spec, expected] of DECISIONS) {
  test(`switch: ${name}`, (t) => {
    for (const family of FAMILIES) {
      const world = new World();
      t.equal(world.send(from, spec, family), expected, `IPv${family}`);
      if (!expected.startsWith('drop')) {
        const { action, answerStart } = world.decide.decision;
        const start = action === 'back' ? answerStart : world.start;
        t.same(wrongChecksums(world.view, start), [], 'every checksum is right');
      }
    }
    t.end();
  });
}

const bobMac = macOf(BOB);
for (const [name, from, spec, expected] of [
  ["another task's MAC", 'alice', { from: ALICE, to: BOB, fromMac: bobMac }, 'drop spoofed'],
  [
    "another task's address",
    'alice',
    { from: BOB, to: REMOTE, fromMac: ALICE_MAC },
    'drop spoofed',
  ],
  [
    'an address of the world',
    'alice',
    { from: CLIENT, to: BOB, fromMac: ALICE_MAC },
    'drop spoofed',
  ],
  ["the gateway's MAC", 'alice', { from: ALICE, to: BOB, ...routed }, 'drop spoofed'],
  [
    "the gateway's address",
    'alice',
    { from: GATEWAY, to: BOB, fromMac: ALICE_MAC },
    'drop spoofed',
  ],
  ['a VIP', 'alice', { from: `${VIPS.bob}:80`, to: BOB, fromMac: ALICE_MAC }, 'drop spoofed'],
  ['no address', 'alice', { from: '0.0.0.0:68', to: BOB, fromMac: ALICE_MAC }, 'drop spoofed'],
  [
    "the gateway's MAC, to all",
    'alice',
    { from: ALICE, to: BOB, toMac: 0xffff_ffff_ffff, ...routed },
    'drop spoofed',
  ],
  [
    "the gateway's MAC, from the host",
    'host',
    { from: CLIENT, to: `${VIPS.publishedBob}:80`, ...toGateway, ...routed },
    'drop spoofed',
  ],
  [
    "a task's MAC, from the host",
    'host',
    { from: CLIENT, to: `${VIPS.publishedBob}:80`, ...toGateway, fromMac: ALICE_MAC },
    'drop spoofed',
  ],
  [
    'the MAC of a task here, from the underlay',
    BLUE,
    { from: ALICE, to: BOB },
    'drop spoofed-vtep',
  ],
  [
    'a MAC that nobody has announced, from the underlay',
    BLUE,
    { from: '240.0.1.77:9', to: BOB },
    'port bob: 0242f000014d>bob 240.0.1.77:9>240.0.1.12:80',
  ],
  [
    'the MAC of a task of another network, from the underlay',
    BLUE,
    { from: CAROL, to: BOB },
    'port bob: carol>bob 240.0.2.11:80>240.0.1.12:80',
  ],
] as const satisfies readonly (readonly [string, From, FrameSpec, string])[]) {
  test(`switch: a frame that comes by ${name}`, (t) => {
    for (const family of FAMILIES) {
      t.equal(new World().send(from, spec, family), expected, `IPv${family}`);
    }
    t.end();
  });
}

test("switch: a task's frames come from its own node's VTEP only", (t) => {
  for (const vtep of [parseIp('198.51.100.3'), parseIp('2001:db8::3')]) {
    const world = new World();
    t.match(world.send(BLUE, { from: REMOTE, to: BOB }), /^port bob/);
    world.decide.origin.vtep.copy(AddressWords.of(vtep));
    t.equal(world.send(BLUE, { from: REMOTE, to: BOB }), 'drop spoofed-vtep');
    t.equal(world.sendBytes(BLUE, arpRequest('240.0.1.13', '240.0.1.12')), 'drop spoofed-vtep');
    t.match(world.send(BLUE, { from: CLIENT, to: BOB, ...routed }), /^port bob/, 'routed');
  }
  t.end();
});

test('switch: tasks speak by their link-local addresses as well', (t) => {
  const world = new World();
  const [alice, bob] = ['fe80::42:f0ff:fe00:10b', 'fe80::42:f0ff:fe00:10c'];
  const macs = { fromMac: ALICE_MAC, toMac: bobMac };
  const packet = { from: `[${alice}]:1`, to: `[${bob}]:2`, ...macs };
  t.equal(world.send('alice', packet, 6), `port bob: alice>bob [${alice}]:1>[${bob}]:2`);
  t.equal(world.send('bob', { ...packet, fromMac: bobMac }, 6), 'drop spoofed');
  t.end();
});

for (const [name, from, request, expected] of [
  [
    'a task here',
    'alice',
    arpRequest('240.0.1.11', '240.0.1.12'),
    'arp: bob>alice 240.0.1.12 is bob',
  ],
  [
    'a task elsewhere',
    'alice',
    arpRequest('240.0.1.11', '240.0.1.13'),
    'arp: remote>alice 240.0.1.13 is remote',
  ],
  [
    'the gateway',
    'alice',
    arpRequest('240.0.1.11', GATEWAY),
    'arp: gateway>alice 240.0.1.1 is gateway',
  ],
  [
    'a VIP',
    'alice',
    arpRequest('240.0.1.11', VIPS.nobody),
    'arp: gateway>alice 240.0.1.102 is gateway',
  ],
  ['nobody', 'alice', arpRequest('240.0.1.11', '240.0.1.99'), 'drop arp-unknown'],
  [
    'a task of another network',
    'alice',
    arpRequest('240.0.1.11', '240.0.2.11'),
    'drop arp-unknown',
  ],
  [
    'its own address, a probe (RFC 5227)',
    'alice',
    arpRequest('0.0.0.0', '240.0.1.11', ALICE_MAC),
    'drop arp-unknown',
  ],
  [
    "another one's address, a probe",
    'alice',
    arpRequest('0.0.0.0', '240.0.1.12', ALICE_MAC),
    'arp: bob>alice 240.0.1.12 is bob',
  ],
  [
    'its own address, an announcement',
    'alice',
    arpRequest('240.0.1.11', '240.0.1.11'),
    'drop arp-unknown',
  ],
  [
    'an address that it claims',
    'alice',
    arpRequest('240.0.1.12', '240.0.1.12', ALICE_MAC),
    'drop spoofed',
  ],
  [
    "the gateway, by another one's address",
    'alice',
    arpRequest('240.0.1.12', GATEWAY, ALICE_MAC),
    'drop spoofed',
  ],
  ["the gateway, by another one's MAC", 'alice', arpRequest('240.0.1.12', GATEWAY), 'drop spoofed'],
  ['the gateway, for another MAC', 'alice', forAnotherMac(), 'drop spoofed'],
  [
    'anything, from the host',
    'host',
    arpRequest('240.255.0.2', '240.255.0.77'),
    'arp: gateway>host 240.255.0.77 is gateway',
  ],
  [
    'a task here, from the underlay',
    BLUE,
    arpRequest('240.0.1.13', '240.0.1.12'),
    'arp: bob>remote 240.0.1.12 is bob',
  ],
  [
    'a task elsewhere, from the underlay',
    BLUE,
    arpRequest('240.0.1.77', '240.0.1.13'),
    'drop arp-unknown',
  ],
  ['the gateway, from the underlay', BLUE, arpRequest('240.0.1.13', GATEWAY), 'drop arp-unknown'],
] as const) {
  test(`switch: an ARP request for ${name}`, (t) => {
    t.equal(new World().sendBytes(from, request), expected);
    t.end();
  });
}

const probe = { from: '::', fromMac: ALICE_MAC };
const link = 'fe80::42:f0ff:fe00:10';
for (const [name, from, spec, expected] of [
  [
    'a task here',
    'alice',
    { from: v6(ALICE), target: v6(BOB) },
    'nd: bob>alice 240.0.1.12>240.0.1.11',
  ],
  [
    'a task elsewhere',
    'alice',
    { from: v6(ALICE), target: v6(REMOTE) },
    'nd: remote>alice 240.0.1.13>240.0.1.11',
  ],
  [
    'the gateway',
    'alice',
    { from: v6(ALICE), target: v6(GATEWAY) },
    'nd: gateway>alice 240.0.1.1>240.0.1.11',
  ],
  [
    'a VIP',
    'alice',
    { from: v6(ALICE), target: v6(VIPS.nobody) },
    'nd: gateway>alice 240.0.1.102>240.0.1.11',
  ],
  [
    'the gateway, by the link-local address',
    'alice',
    { from: `${link}b`, fromMac: ALICE_MAC, target: v6(GATEWAY) },
    `nd: gateway>alice 240.0.1.1>${link}b`,
  ],
  [
    'a link-local address',
    'alice',
    { from: `${link}b`, fromMac: ALICE_MAC, target: `${link}c` },
    `nd: bob>alice ${link}c>${link}b`,
  ],
  [
    'a task here, by unicast',
    'alice',
    { from: v6(ALICE), target: v6(BOB), to: v6(BOB) },
    'nd: bob>alice 240.0.1.12>240.0.1.11',
  ],
  ['nobody', 'alice', { from: v6(ALICE), target: v6('240.0.1.99') }, 'drop nd-unknown'],
  ['a task of another network', 'alice', { from: v6(ALICE), target: v6(CAROL) }, 'drop nd-unknown'],
  ['its own address, a probe', 'alice', { ...probe, target: v6(ALICE) }, 'drop nd-unknown'],
  [
    'its own link-local address, a probe',
    'alice',
    { ...probe, target: `${link}b` },
    'drop nd-unknown',
  ],
  [
    "another one's address, a probe",
    'alice',
    { ...probe, target: v6(BOB) },
    'nd: bob>333300000001 240.0.1.12>ff02::1',
  ],
  [
    'the gateway, a probe',
    'alice',
    { ...probe, target: v6(GATEWAY) },
    'nd: gateway>333300000001 240.0.1.1>ff02::1',
  ],
  [
    "the gateway, by another one's address",
    'alice',
    { from: v6(BOB), fromMac: ALICE_MAC, target: v6(GATEWAY) },
    'drop spoofed',
  ],
  [
    "the gateway, by another one's MAC",
    'alice',
    { from: v6(ALICE), fromMac: macOf(BOB), target: v6(GATEWAY) },
    'drop spoofed',
  ],
  [
    'anything, from the host',
    'host',
    { from: v6('240.255.0.2'), target: v6('240.255.0.77') },
    'nd: gateway>host 240.255.0.77>240.255.0.2',
  ],
  [
    'anything, from the host, a probe',
    'host',
    { from: '::', fromMac: macOf('240.255.0.2'), target: v6('240.255.0.77') },
    'drop nd-unknown',
  ],
  [
    'a task here, from the underlay',
    BLUE,
    { from: v6(REMOTE), target: v6(BOB) },
    'nd: bob>remote 240.0.1.12>240.0.1.13',
  ],
  [
    'a task elsewhere, from the underlay',
    BLUE,
    { from: v6('240.0.1.77'), target: v6(REMOTE) },
    'drop nd-unknown',
  ],
  [
    'the gateway, from the underlay',
    BLUE,
    { from: v6(REMOTE), target: v6(GATEWAY) },
    'drop nd-unknown',
  ],
  [
    'a task here, by the MAC of another one',
    BLUE,
    { from: v6(REMOTE), fromMac: ALICE_MAC, target: v6(BOB) },
    'drop spoofed-vtep',
  ],
  [
    'something by half',
    'alice',
    { from: v6(ALICE), target: v6(BOB), hopLimit: 64 },
    'drop nd-malformed',
  ],
  [
    'something by half, from the underlay',
    BLUE,
    { from: v6(REMOTE), target: v6(BOB), hopLimit: 64 },
    'drop nd-malformed',
  ],
] as const satisfies readonly (readonly [string, From, SolicitationSpec, string])[]) {
  test(`switch: a Neighbor Solicitation for ${name}`, (t) => {
    const world = new World();
    t.equal(world.sendBytes(from, solicitation(spec)), expected);
    if (!expected.startsWith('drop')) t.same(wrongChecksums(world.view, world.scratch), []);
    t.end();
  });
}

/** The IPv6 address of the same name, without a port. */
function v6(text: string): string {
  return toIpv6(endpoint(text).address);
}

test('switch: a task cannot speak for a router or for another one', (t) => {
  const ends = { from: v6(ALICE), target: v6(BOB) };
  for (const type of [134, 136, 137]) {
    for (const to of [v6(BOB), 'ff02::1']) {
      const message = solicitation({ ...ends, to, type });
      t.equal(new World().sendBytes('alice', message), 'drop nd-malformed', `${type} to ${to}`);
    }
  }
  for (const type of [130, 131, 132, 133, 143]) {
    const report = solicitation({ ...ends, to: 'ff02::16', type });
    t.equal(new World().sendBytes('alice', report), 'drop multicast', `message ${type}`);
  }
  t.end();
});

test('switch: a port is told of neighbours a hundred times a second, and two hundred at once', (t) => {
  const world = new World();
  const requests = [
    arpRequest('240.0.1.11', GATEWAY),
    solicitation({ from: v6(ALICE), target: v6(GATEWAY) }),
  ];
  const answers = (from: 'alice' | 'bob', count: number, nowMs: number): number => {
    let answered = 0;
    for (let index = 0; index < count; index++) {
      const request = from === 'alice' ? requests[index % 2]! : arpRequest('240.0.1.12', GATEWAY);
      const outcome = world.sendBytes(from, request, nowMs);
      if (!outcome.startsWith('drop')) answered += 1;
      else if (outcome !== 'drop neighbor-limited') t.fail(outcome);
    }
    return answered;
  };
  t.equal(answers('alice', 500, NOW_MS), 200);
  t.equal(answers('bob', 10, NOW_MS), 10, 'others have their own share');
  t.equal(answers('alice', 500, NOW_MS + 1_000), 100);
  t.equal(answers('alice', 5, NOW_MS - 60_000), 0, 'a clock that was set back brings nothing');
  t.equal(answers('alice', 500, NOW_MS + 3_600_000), 200);
  const unknown = world.sendBytes('alice', arpRequest('240.0.1.11', '240.0.1.99'), NOW_MS);
  t.equal(unknown, 'drop arp-unknown', 'what would not be answered anyway');
  t.end();
});

test('switch: frames that are no request are dropped for what they are', (t) => {
  const arpReply = arpRequest('240.0.1.11', '240.0.1.12');
  arpReply[21] = 2;
  const good = ethernetFrame({ from: ALICE, to: BOB });
  const ipv6 = good.slice();
  ipv6.set([0x86, 0xdd], 12);
  const vlan = good.slice();
  vlan.set([0x81, 0x00], 12);
  const version6 = good.slice();
  version6[14] = 0x65;
  for (const [name, bytes, expected] of [
    ['an ARP reply', arpReply, 'arp-malformed'],
    ['half an ARP request', arpReply.subarray(0, 30), 'arp-malformed'],
    ['a VLAN tag', vlan, 'unsupported-ethertype'],
    ['IPv4 under the type of IPv6', ipv6, 'bad-ipv6'],
    ['half an Ethernet header', good.subarray(0, 13), 'runt'],
    ['nothing', good.subarray(0, 0), 'runt'],
    ['an IP header cut short', good.subarray(0, 30), 'bad-ipv4'],
    ['a version that the type denies', version6, 'bad-ipv4'],
    ['a packet longer than its frame', good.subarray(0, good.length - 1), 'bad-ipv4'],
    ['a TCP header cut short', shortTcp(), 'bad-l4'],
  ] as const) {
    t.equal(new World().sendBytes('alice', bytes), `drop ${expected}`, name);
    const fromRemote = bytes.slice();
    if (bytes.length >= 12) writeMac(new DataView(fromRemote.buffer), 6, macOf(REMOTE));
    const outcome = new World().sendBytes(BLUE, fromRemote);
    t.equal(outcome, `drop ${expected}`, `${name}, from the underlay`);
  }
  t.end();
});

function shortTcp(): Uint8Array {
  const bytes = ethernetFrame({ from: ALICE, to: BOB });
  new DataView(bytes.buffer).setUint16(16, 30);
  return bytes.subarray(0, 44);
}

function eachFamily(name: string, body: (t: Test, family: Family) => void): void {
  for (const family of FAMILIES) test(`${name}, IPv${family}`, (t) => body(t, family));
}

eachFamily('switch: a connection to a VIP and its replies', (t, family) => {
  const world = new World();
  const there = { from: ALICE, to: `${VIPS.bob}:80`, ...toGateway };
  const back = { from: BOB, to: ALICE };
  t.equal(
    world.send('alice', { ...there, tcpFlags: TCP_SYN }, family),
    'port bob: alice>bob 240.0.1.11:5000>240.0.1.12:80',
  );
  t.equal(
    world.send('bob', { ...back, tcpFlags: 0x12 }, family),
    'port alice: bob>alice 240.0.1.100:80>240.0.1.11:5000',
    'the reply comes from the VIP',
  );
  t.same(wrongChecksums(world.view, world.start), []);
  world.mesh.removeService(BLUE, parseIp(inFamily(family, VIPS.bob)));
  t.equal(
    world.send('alice', there, family),
    'reset: gateway>alice 240.0.1.100:80>240.0.1.11:5000',
    'the backend has gone',
  );
  t.end();
});

eachFamily(
  'switch: a published connection to a task elsewhere, seen from both ends',
  (t, family) => {
    const ingress = new World();
    const there = { from: CLIENT, to: `${VIPS.publishedRemote}:80`, ...toGateway };
    ingress.send('host', { ...there, tcpFlags: TCP_SYN }, family);
    t.equal(
      ingress.send(BLUE, { from: REMOTE, to: CLIENT, ...toGateway, fromMac: GATEWAY_MAC }, family),
      'port host: gateway>host 240.255.0.101:80>192.0.2.7:7000',
      'the reply leaves by the host’s port',
    );
    ingress.decide.hostPort = undefined;
    t.equal(
      ingress.send(BLUE, { from: REMOTE, to: CLIENT, ...toGateway, fromMac: GATEWAY_MAC }, family),
      'drop no-route',
      'unless there is none',
    );
    // The other node: bob is the backend there, and the client talks to the node behind the VTEP.
    const backend = new World();
    backend.send(BLUE, { from: CLIENT, to: BOB, ...routed, tcpFlags: TCP_SYN }, family);
    t.equal(
      backend.send('bob', { from: BOB, to: CLIENT, ...toGateway }, family),
      'vtep 198.51.100.2:4789/4096: gateway>gateway 240.0.1.12:80>192.0.2.7:7000',
      'the reply goes to the node that routed the request',
    );
    t.end();
  },
);

eachFamily(
  'switch: a flow that leads to another node is not for packets from there',
  (t, family) => {
    const world = new World();
    const packet = { from: ALICE, to: `${VIPS.remote}:80`, ...toGateway };
    world.send('alice', { ...packet, tcpFlags: TCP_SYN }, family);
    const stranger = { fromMac: macOf('240.0.1.77') };
    t.equal(world.send(BLUE, { ...packet, ...stranger }, family), 'drop not-local');
    t.end();
  },
);

eachFamily('switch: fragments follow the first one to a backend', (t, family) => {
  const world = new World();
  const datagram = { from: ALICE, to: `${VIPS.bob}:80`, protocol: PROTO_UDP, ...toGateway };
  const part = { payload: new Uint8Array(16), identification: 77 };
  t.equal(
    world.send('alice', { ...datagram, ...part, moreFragments: true, noChecksum: true }, family),
    'port bob: alice>bob 240.0.1.11:5000>240.0.1.12:80',
  );
  t.equal(
    world.send('alice', { ...datagram, ...part, fragmentOffset: 24 }, family),
    'port bob: alice>bob 240.0.1.11>240.0.1.12',
  );
  t.end();
});

test('switch: the answer lies where the decision says', (t) => {
  const world = new World();
  world.send('alice', { from: ALICE, to: `${VIPS.nobody}:80`, ...toGateway, tcpFlags: TCP_SYN });
  t.match(world.decide.decision, { action: 'back', answerStart: world.scratch, answerBytes: 54 });
  world.send('alice', {
    from: ALICE,
    to: GATEWAY,
    ...toGateway,
    ...ping,
    payload: new Uint8Array(56),
  });
  t.match(world.decide.decision, { action: 'back', answerStart: world.start, answerBytes: 98 });
  world.sendBytes(
    'alice',
    Uint8Array.of(...arpRequest('240.0.1.11', GATEWAY), ...new Uint8Array(18)),
  );
  t.match(world.decide.decision, { answerStart: world.start, answerBytes: 42 }, 'less the padding');
  const frame = new DataView(world.bytes.slice(world.start, world.start + 54).buffer);
  t.equal(parsed(frame).etherType, 0x0806);
  t.end();
});
