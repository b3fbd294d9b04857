import { closeSync, openSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { GATEWAY_MAC, parseIpv4 } from '../../src/core/address.ts';
import { AddressWords } from '../../src/core/address-words.ts';
import { formatIp } from '../../src/core/ip.ts';
import { PROTO_ICMP, PROTO_UDP } from '../../src/core/packet.ts';
import { CaptureRingReader, makeCaptureRing } from '../../src/dataplane/capture-ring.ts';
import {
  CROSSING_PEER_IN,
  CROSSING_PEER_OUT,
  CROSSING_PORT_OUT,
} from '../../src/dataplane/capture-taps.ts';
import type { DropReason, TrafficCounter } from '../../src/dataplane/counters.ts';
import { Egress } from '../../src/dataplane/egress.ts';
import { Ingress } from '../../src/dataplane/ingress.ts';
import { GSO_TCPV4, GSO_UDP_L4, Offload } from '../../src/dataplane/offload.ts';
import { PathProbes } from '../../src/dataplane/path-probes.ts';
import type { Peer } from '../../src/dataplane/peers.ts';
import { Port } from '../../src/dataplane/port.ts';
import { PortWriter } from '../../src/dataplane/port-writer.ts';
import { VxlanSender } from '../../src/io/linux/vxlan-socket.ts';
import { Endpoint } from '../../src/vxlan/fdb.ts';
import { solicitation } from '../vxlan/solicitation.ts';
import {
  ethernetFrame,
  type FrameSpec,
  LOOPBACK,
  LoopbackUnderlay,
  makePacketMemory,
  makeRandom,
  parsedAt,
  randomBytes,
  slowSegments,
  vxlanDatagram,
} from './frames.ts';
import { secureSessions } from './secure.ts';
import { arpRequest, BLUE, NOW_MS, namesOf, toIpv6, World } from './world.ts';

const BOB = '240.0.1.12:80';
const REMOTE = '240.0.1.13:7000';

/** Where the peer is counted. */
const SLOT = 5;

/**
 * The receiving half of a host whose underlay is the loopback and whose TAP of bob is a file, and
 * senders to it: a peer's egress, and a bare socket. It is its own VTEP.
 */
function makeHost(t: Test) {
  const { arena, checksum, counters, taps } = makePacketMemory();
  const underlay = new LoopbackUnderlay(arena);
  const sender = new VxlanSender(arena, LOOPBACK, 1, () => t.fail('a send failed'));
  const world = new World(arena.view, arena.allocate(2048));
  const { peers } = world;
  const secure = secureSessions(arena, counters, peers);
  const egress = new Egress({ arena, checksum, counters, taps, vtepAddress: LOOPBACK, secure });
  const probes = new PathProbes({ arena, peers, address: LOOPBACK, post: () => {} });
  const ingress = new Ingress({
    arena,
    checksum,
    counters,
    receiver: underlay.receiver,
    decide: world.decide,
    ports: new PortWriter(arena, counters, taps),
    egress,
    taps,
    peers,
    probes,
    secure,
  });
  const peer = world.peers.add(LOOPBACK, underlay.port, SLOT);
  const path = join(t.testdir({ tap: '' }), 'tap');
  const fd = openSync(path, 'a');
  t.teardown(() => {
    closeSync(fd);
    sender.close();
    probes.close();
    egress.close();
    underlay.close();
  });
  const at = arena.allocate(70_000) + 34;

  /** Lets bob's frames go to `descriptor`. */
  function serveBob(descriptor: number): void {
    const port = new Port({ id: 9, fd: descriptor, scope: BLUE, ...namesOf('bob') });
    world.decide.networks.get(BLUE)?.set(new Endpoint(port, { port }));
  }
  serveBob(fd);
  world.decide.networks.get(BLUE)?.set(new Endpoint<Port, Peer>(namesOf('remote'), { peer }));

  /** Sends a frame as a peer does. */
  function sendFrame(bytes: Uint8Array, offload: Offload): void {
    arena.bytes.set(bytes, at);
    const packet = parsedAt(arena.view, at, bytes.length);
    egress.send(packet, offload, BLUE, peer);
    egress.flush();
  }

  /** Sends any bytes; with `segmentBytes`, as several datagrams. */
  function sendBytes(bytes: Uint8Array, segmentBytes = 0): void {
    arena.bytes.set(bytes, at);
    const queue = sender.queue(0);
    const stride = segmentBytes || bytes.length || 1;
    let start = 0;
    do {
      queue.add(peer, at + start, Math.min(stride, bytes.length - start));
      start += stride;
    } while (start < bytes.length);
    queue.flush();
  }

  /** Handles what has been sent, and gives what bob's TAP got for it. */
  function receive(): string {
    if (!ingress.receive(NOW_MS)) {
      underlay.wait();
      ingress.receive(NOW_MS);
    }
    const written = readFileSync(path);
    truncateSync(path);
    return written.toString('hex');
  }
  const actions = { sendFrame, sendBytes, receive, serveBob };
  return { ...actions, counters, ingress, underlay, arena, world, taps };
}

function offloadOf(gsoType: number, gsoBytes: number): Offload {
  const checksumOffset = gsoType === GSO_UDP_L4 ? 6 : 16;
  return Object.assign(new Offload(), {
    gsoType,
    gsoBytes,
    needsChecksum: true,
    checksumStart: 34,
    checksumOffset,
  });
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Counters that are not zero. */
function counted(host: ReturnType<typeof makeHost>): Partial<Record<DropReason, number>> {
  const drops = Object.entries(host.counters.drops());
  return Object.fromEntries(drops.filter(([, count]) => count > 0));
}

const PLAIN_HEADER = '00'.repeat(10);
const CASES: readonly (readonly [string, FrameSpec, string])[] = [
  ['a TCP segment', { from: REMOTE, to: BOB, payload: randomBytes(900, 1) }, PLAIN_HEADER],
  [
    'a UDP datagram',
    { from: REMOTE, to: BOB, protocol: PROTO_UDP, payload: randomBytes(9, 2) },
    PLAIN_HEADER,
  ],
  ['a ping', { from: '240.0.1.13', to: '240.0.1.12', protocol: PROTO_ICMP }, PLAIN_HEADER],
  ['a fragment', { from: REMOTE, to: BOB, protocol: PROTO_UDP, fragmentOffset: 8 }, PLAIN_HEADER],
  [
    'a TCP segment that its sender’s device was to finish',
    { from: REMOTE, to: BOB, payload: randomBytes(900, 1), partial: true },
    '0100 0000 0000 2200 1000',
  ],
  [
    'such a UDP datagram',
    { from: REMOTE, to: BOB, protocol: PROTO_UDP, payload: randomBytes(9, 2), partial: true },
    '0100 0000 0000 2200 0600',
  ],
];

test('a frame reaches its port as it was sent', (t) => {
  const host = makeHost(t);
  for (const [name, spec, header] of CASES) {
    const bytes = ethernetFrame(spec);
    host.sendBytes(vxlanDatagram(BLUE, bytes));
    t.equal(host.receive(), header.replaceAll(' ', '') + hex(bytes), name);
  }
  t.same(counted(host), {});
  t.end();
});

test('a superframe crosses the underlay in segments and reaches its port whole', (t) => {
  const host = makeHost(t);
  const tcpOptions = Uint8Array.of(1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8);
  const payload = randomBytes(40_000, 4);
  const tcp = ethernetFrame({
    from: REMOTE,
    to: BOB,
    payload,
    tcpOptions,
    partial: true,
    tcpFlags: 0x18,
  });
  host.sendFrame(tcp, offloadOf(GSO_TCPV4, 1398));
  t.equal(host.receive(), `01014200760522001000${hex(tcp)}`);
  const traffic: Partial<Record<TrafficCounter, number>> = {
    'underlay-sends': 1,
    'underlay-datagrams-out': 29,
    'underlay-receives': 1,
    'underlay-datagrams-in': 29,
    'port-frames-out': 1,
    'port-bytes-out': tcp.length,
  };
  t.match(host.counters.traffic(), traffic);
  const { 'underlay-bytes-out': out, 'underlay-bytes-in': back } = host.counters.traffic();
  t.same([out, back], [40_000 + 29 * 74, 40_000 + 29 * 74]);

  const udpSpec = { from: REMOTE, to: BOB, payload, protocol: PROTO_UDP, partial: true };
  const fragile = ethernetFrame(udpSpec);
  host.sendFrame(fragile, offloadOf(GSO_UDP_L4, 1400));
  const datagrams = slowSegments(fragile, 1400).map((one) => PLAIN_HEADER + hex(one));
  t.equal(host.receive(), datagrams.join(''), 'UDP without DF keeps its identifications');
  const udp = ethernetFrame({ ...udpSpec, dontFragment: true });
  host.sendFrame(udp, offloadOf(GSO_UDP_L4, 1400));
  t.equal(host.receive(), `01052a00780522000600${hex(udp)}`, 'UDP too');
  t.same(counted(host), {});
  t.end();
});

test('every datagram of a batch is handled for itself', (t) => {
  const host = makeHost(t);
  const frames = [1, 2, 3, 4].map((seed) =>
    ethernetFrame({ from: REMOTE, to: BOB, protocol: PROTO_UDP, payload: randomBytes(50, seed) }),
  );
  const datagrams = frames.map((one) => vxlanDatagram(BLUE, one));
  const [first, second, third, fourth] = datagrams;
  third?.set([0], 0); // no I flag
  fourth?.set([0xff], 4); // another VNI
  host.sendBytes(Buffer.concat(datagrams), first?.length);
  const expected = frames.slice(0, 2).map((one) => PLAIN_HEADER + hex(one));
  t.equal(host.receive(), expected.join(''));
  t.same(counted(host), { 'not-vxlan': 1, 'unknown-vni': 1 });
  t.match(host.counters.traffic(), { 'underlay-receives': 1, 'underlay-datagrams-in': 4 });
  host.sendBytes(
    Buffer.concat([first ?? [], second ?? []].map((one) => Uint8Array.from(one))).subarray(0, -20),
    first?.length,
  );
  t.equal(host.receive(), expected[0], 'the last one was cut short');
  t.same(counted(host), { 'not-vxlan': 1, 'unknown-vni': 1, 'bad-ipv4': 1 });
  t.end();
});

for (const [name, bytes, reason] of [
  ['an empty datagram', new Uint8Array(0), 'not-vxlan'],
  ['half a header', Uint8Array.of(8, 0, 0, 0), 'not-vxlan'],
  ['a header without frame', vxlanDatagram(BLUE, new Uint8Array(0)), 'runt'],
  ['another protocol', new Uint8Array(100), 'not-vxlan'],
  ['VNI 0', vxlanDatagram(0, ethernetFrame({ from: REMOTE, to: BOB })), 'unknown-vni'],
  [
    'a VNI that nobody set',
    vxlanDatagram(99, ethernetFrame({ from: REMOTE, to: BOB })),
    'unknown-vni',
  ],
  [
    'a frame to another node',
    vxlanDatagram(BLUE, ethernetFrame({ from: '240.0.1.77:9', to: REMOTE })),
    'not-local',
  ],
  [
    "a frame by the MAC of this node's task",
    vxlanDatagram(BLUE, ethernetFrame({ from: '240.0.1.11:9', to: BOB })),
    'spoofed-vtep',
  ],
  [
    'a frame to the gateway',
    vxlanDatagram(BLUE, ethernetFrame({ from: REMOTE, to: BOB, toMac: GATEWAY_MAC })),
    'no-flow',
  ],
] as const) {
  test(`${name} is dropped as ${reason}`, (t) => {
    const host = makeHost(t);
    host.sendBytes(bytes);
    t.equal(host.receive(), '');
    t.same(counted(host), { [reason]: 1 });
    t.match(host.counters.traffic(), { 'underlay-datagrams-in': 1, 'port-frames-out': 0 });
    t.end();
  });
}

test('strangers are not listened to', (t) => {
  const host = makeHost(t);
  host.world.peers.remove(LOOPBACK);
  host.sendBytes(vxlanDatagram(BLUE, ethernetFrame({ from: REMOTE, to: BOB })));
  t.equal(host.receive(), '');
  t.same(counted(host), { 'unknown-vtep': 1 });
  t.equal(host.ingress.receive(NOW_MS), false, 'and then there is nothing to receive');
  t.end();
});

test('an ARP request of another node is answered to it', (t) => {
  const host = makeHost(t);
  host.sendBytes(vxlanDatagram(BLUE, arpRequest('240.0.1.13', '240.0.1.12')));
  t.equal(host.receive(), '', 'bob does not see it');
  t.equal(host.counters.traffic()['arp-replies'], 1);
  const replies: string[] = [];
  host.underlay.drain(1, (at, _stride, end) => replies.push(hex(host.arena.bytes.slice(at, end))));
  const reply =
    '0800000000100000 0242f000010d 0242f000010c 0806 0001 0800 0604 0002 ' +
    '0242f000010c f000010c 0242f000010d f000010d';
  t.same(replies, [reply.replaceAll(' ', '')]);
  t.end();
});

test('two solicitations that come together get an answer each', (t) => {
  const host = makeHost(t);
  const from = toIpv6(parseIpv4('240.0.1.13'));
  const targets = ['240.0.1.12', '240.0.1.11'].map((text) => toIpv6(parseIpv4(text)));
  const asked = targets.map((target) => vxlanDatagram(BLUE, solicitation({ from, target })));
  host.sendBytes(Uint8Array.from(Buffer.concat(asked)), asked[0]?.length);
  t.equal(host.receive(), '', 'bob does not see them');
  t.equal(host.counters.traffic()['nd-replies'], 2);
  const answered: string[] = [];
  host.underlay.drain(2, (start, stride, end) => {
    for (let at = start; at < end; at += stride) {
      const target = new AddressWords();
      target.read(host.arena.view, at + 8 + 14 + 40 + 8, 6);
      answered.push(formatIp(target.toIp()));
    }
  });
  t.same(answered, targets);
  t.end();
});

test('a frame that its port does not take is a drop', (t) => {
  const host = makeHost(t);
  const datagram = vxlanDatagram(BLUE, ethernetFrame({ from: REMOTE, to: BOB }));
  host.serveBob(-1);
  host.sendBytes(datagram);
  host.receive();
  t.same(counted(host), { 'port-write-failed': 1 });
  // The first page of a process is never mapped: a write there fails with EIO, as on a TAP that is down.
  const down = openSync('/proc/self/mem', 'r+');
  t.teardown(() => closeSync(down));
  host.serveBob(down);
  host.sendBytes(datagram);
  host.receive();
  t.same(counted(host), { 'port-write-failed': 1, 'port-down': 1 });
  t.equal(host.counters.traffic()['port-frames-out'], 0);
  t.end();
});

test('20,000 mutated datagrams do no harm', (t) => {
  const host = makeHost(t);
  const nowhere = openSync('/dev/null', 'w');
  t.teardown(() => closeSync(nowhere));
  host.serveBob(nowhere);
  const random = makeRandom(0x1496);
  const superframe = ethernetFrame({ from: REMOTE, to: BOB, payload: randomBytes(120, 6) });
  const inputs = [
    ...CASES.map(([, spec]) => vxlanDatagram(BLUE, ethernetFrame(spec))),
    vxlanDatagram(BLUE, arpRequest('240.0.1.13', '240.0.1.12')),
    Buffer.concat(slowSegments(superframe, 40).map((one) => vxlanDatagram(BLUE, one))),
  ];
  const segmentBytes = 8 + 54 + 40;
  let sent = 0;
  for (let number = 0; number < 20_000; number++) {
    const bytes = Uint8Array.from(inputs[random(inputs.length)]!);
    for (let edits = random(4); edits > 0; edits--) bytes[random(bytes.length)] = random(256);
    const length = random(5) === 0 ? random(bytes.length + 1) : bytes.length;
    const isBatch = random(2) === 0 && length > segmentBytes;
    host.sendBytes(bytes.subarray(0, length), isBatch ? segmentBytes : 0);
    sent += isBatch ? Math.ceil(length / segmentBytes) : 1;
    while (host.ingress.receive(NOW_MS + number));
  }
  const isBehind = (): boolean => {
    const { 'underlay-datagrams-in': received, 'arp-replies': answers } = host.counters.traffic();
    return received < sent + answers;
  };
  while (isBehind()) {
    host.underlay.wait();
    host.ingress.receive(NOW_MS);
  }
  const { 'arp-replies': answers, ...traffic } = host.counters.traffic();
  t.equal(traffic['underlay-datagrams-in'], sent + answers, 'all came, and the answers to some');
  t.ok(traffic['port-frames-out'] > 5_000, `${traffic['port-frames-out']} frames taken`);
  const reasons = ['bad-ipv4', 'bad-l4', 'not-local', 'not-vxlan', 'runt', 'unknown-vni'] as const;
  for (const reason of reasons) t.ok(counted(host)[reason], reason);
  t.end();
});

test('what a peer sends is counted by peer', (t) => {
  const host = makeHost(t);
  const good = vxlanDatagram(
    BLUE,
    ethernetFrame({ from: REMOTE, to: BOB, payload: randomBytes(900, 1) }),
  );
  host.sendBytes(good);
  host.receive();
  for (const bad of [
    vxlanDatagram(BLUE + 9, new Uint8Array(60)),
    vxlanDatagram(BLUE, new Uint8Array(9)),
  ]) {
    host.sendBytes(bad);
    host.receive();
  }
  t.same(host.world.peerCounters.read(SLOT), {
    'datagrams-in': 3,
    'bytes-in': good.length + 68 + 17,
    'datagrams-out': 0,
    'bytes-out': 0,
    'drops-in': 2,
    'drops-out': 0,
  });
  const superframe = ethernetFrame({
    from: REMOTE,
    to: BOB,
    payload: randomBytes(2_800, 2),
    partial: true,
  });
  host.sendFrame(superframe, offloadOf(GSO_TCPV4, 1400));
  host.receive();
  const {
    'datagrams-in': received,
    'datagrams-out': sent,
    'bytes-out': bytes,
  } = host.world.peerCounters.read(SLOT);
  t.same([received, sent, bytes], [5, 2, 2_800 + 2 * (8 + 54)]);
  t.end();
});

test('a capture shows a superframe whole at each crossing, and nothing of it is changed', (t) => {
  const host = makeHost(t);
  const ring = makeCaptureRing();
  const reader = new CaptureRingReader(ring);
  const superframe = ethernetFrame({
    from: REMOTE,
    to: BOB,
    payload: randomBytes(20_000, 4),
    partial: true,
  });
  host.sendFrame(superframe, offloadOf(GSO_TCPV4, 1398));
  const uncaptured = host.receive();
  host.taps.set(1, { scopes: [BLUE], snaplen: 262_144 }, ring);
  host.sendFrame(superframe, offloadOf(GSO_TCPV4, 1398));
  t.equal(host.receive(), uncaptured);
  const seen: string[] = [];
  while (reader.next()) {
    const { crossing, point, originalBytes, frame } = reader;
    t.equal(originalBytes, superframe.length);
    t.equal(hex(frame), hex(superframe), `crossing ${crossing} at ${point}`);
    seen.push(`${crossing} at ${point}`);
  }
  const [out, from, to] = [CROSSING_PEER_OUT, CROSSING_PEER_IN, CROSSING_PORT_OUT];
  t.same(seen, [`${out} at ${SLOT}`, `${from} at ${SLOT}`, `${to} at 9`]);
  t.end();
});
