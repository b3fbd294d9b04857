import { closeSync, openSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type Test, test } from 'tap';
import { GATEWAY_MAC } from '../../src/core/address.ts';
import { Packet, PROTO_ICMP, PROTO_UDP, parseFrame, TCP_SYN } from '../../src/core/packet.ts';
import { Coalescer } from '../../src/dataplane/coalesce.ts';
import { DROP_REASONS, dropIndex, trafficIndex } from '../../src/dataplane/counters.ts';
import type { Decision } from '../../src/dataplane/decision.ts';
import { Egress } from '../../src/dataplane/egress.ts';
import { Ingress } from '../../src/dataplane/ingress.ts';
import { GSO_TCPV4, GSO_UDP_L4, Offload, readOffload } from '../../src/dataplane/offload.ts';
import { partialChecksumStart } from '../../src/dataplane/partial-checksum.ts';
import { PathProbes } from '../../src/dataplane/path-probes.ts';
import { type Peer, Peers } from '../../src/dataplane/peers.ts';
import { Port } from '../../src/dataplane/port.ts';
import { PortWriter } from '../../src/dataplane/port-writer.ts';
import { SESSION_LANES_MAX } from '../../src/noise/keypairs.ts';
import { REPLAY_WINDOW_WORDS } from '../../src/noise/replay-window.ts';
import { Endpoint } from '../../src/vxlan/fdb.ts';
import { NEIGHBOR_ADVERTISEMENT_FRAME_BYTES } from '../../src/vxlan/nd.ts';
import { endpoint } from '../routing-mesh/packets.ts';
import { solicitation } from '../vxlan/solicitation.ts';
import {
  ethernetFrame,
  type FrameSpec,
  LOOPBACK,
  LoopbackUnderlay,
  loopbackPeer,
  macOf,
  makePacketMemory,
  makeRandom,
  randomBytes,
  slowSegments,
  vxlanDatagram,
} from './frames.ts';
import { secureSessions } from './secure.ts';
import {
  arpRequest,
  BLUE,
  type Family,
  frameIn,
  GATEWAY,
  NOW_MS,
  namesOf,
  toIpv6,
  VIPS,
  VTEP,
  World,
} from './world.ts';

setFlagsFromString('--expose-gc');
const gc: () => void = runInNewContext('gc');

const ALICE = '240.0.1.11:5000';
const BOB = '240.0.1.12:80';
const REMOTE = '240.0.1.13:80';
const CLIENT = '192.0.2.7:7000';
const toGateway = { toMac: GATEWAY_MAC } as const;
const ping = { protocol: PROTO_ICMP, icmpType: 8 } as const;

/** A frame, where it comes in, and what becomes of it. */
interface Case {
  readonly from: 'alice' | 'bob' | 'host' | 'underlay';
  readonly bytes: Uint8Array;
  readonly outcome: string;
  /** Sent once before, so that there is a flow. */
  readonly before?: Case;
}

/** Frames of every kind, in a family. */
function casesOf(family: Family): Record<string, Case> {
  const frameCase = (from: Case['from'], spec: FrameSpec, outcome: string, before?: Case): Case => {
    const host = from === 'host' ? { fromMac: namesOf('host').mac } : {};
    const bytes = ethernetFrame(frameIn(family, { ...host, ...spec }));
    return { from, bytes, outcome, ...(before === undefined ? {} : { before }) };
  };
  const request = frameCase('alice', { from: ALICE, to: `${VIPS.bob}:80`, ...toGateway }, 'port');
  const there = { from: CLIENT, to: `${VIPS.publishedRemote}:80`, ...toGateway };
  const published = frameCase('host', there, 'vtep');
  const itsReply = { from: REMOTE, to: CLIENT, ...toGateway, fromMac: GATEWAY_MAC };
  const routedIn = frameCase('underlay', { from: CLIENT, to: BOB, fromMac: GATEWAY_MAC }, 'port');
  const routedReply = { from: BOB, to: CLIENT, ...toGateway };
  const pingGateway = { from: ALICE, to: GATEWAY, ...toGateway, ...ping };
  const syn = { from: ALICE, to: `${VIPS.nobody}:80`, ...toGateway, tcpFlags: TCP_SYN };
  const spoofed = { from: BOB, to: REMOTE, fromMac: macOf(ALICE) };
  const toAll = { from: ALICE, to: BOB, toMac: 0xffff_ffff_ffff };
  const cases: Record<string, Case> = {
    'to a task here': frameCase('alice', { from: ALICE, to: BOB }, 'port'),
    'to a task elsewhere': frameCase('alice', { from: ALICE, to: REMOTE }, 'vtep'),
    'by the gateway': frameCase('alice', { from: ALICE, to: REMOTE, ...toGateway }, 'vtep'),
    'to a VIP': request,
    'from a VIP': frameCase('bob', { from: BOB, to: ALICE }, 'port', request),
    'a published port': published,
    'its reply from the underlay': frameCase('underlay', itsReply, 'port', published),
    'a routed request': routedIn,
    'its reply to the VTEP': frameCase('bob', routedReply, 'vtep', routedIn),
    'from the underlay': frameCase('underlay', { from: REMOTE, to: BOB }, 'port'),
    'a ping of the gateway': frameCase('alice', pingGateway, 'back'),
    'a refused connection': frameCase('alice', syn, 'back'),
    'to nobody': frameCase('alice', { from: ALICE, to: '240.0.1.99:80' }, 'drop'),
    "another one's address": frameCase('alice', spoofed, 'drop'),
    "another one's VTEP": frameCase('underlay', { from: ALICE, to: BOB }, 'drop'),
    'to all': frameCase('alice', toAll, 'drop'),
  };
  return Object.fromEntries(
    Object.entries(cases).map(([name, one]) => [`${name}, IPv${family}`, one]),
  );
}

/** The IPv6 address of the same name, without a port. */
function v6(text: string): string {
  return toIpv6(endpoint(text).address);
}

function back(from: Case['from'], bytes: Uint8Array): Case {
  return { from, bytes, outcome: 'back' };
}

const CASES: Readonly<Record<string, Case>> = {
  ...casesOf(4),
  ...casesOf(6),
  'an ARP request': back('alice', arpRequest('240.0.1.11', '240.0.1.13')),
  'an ARP request for the gateway': back('alice', arpRequest('240.0.1.11', GATEWAY)),
  'an ARP request from the underlay': back('underlay', arpRequest('240.0.1.13', '240.0.1.12')),
  'a solicitation': back('alice', solicitation({ from: v6(ALICE), target: v6(REMOTE) })),
  'a solicitation for a VIP': back(
    'alice',
    solicitation({ from: v6(ALICE), target: v6(VIPS.bob) }),
  ),
  'a solicitation from the underlay': back(
    'underlay',
    solicitation({ from: v6(REMOTE), target: v6(BOB) }),
  ),
  'a runt': { from: 'alice', bytes: new Uint8Array(9), outcome: 'drop' },
};

const CALLS = 10_000;
const LATER_MS: number = NOW_MS + 10_000;
/** Heap bytes per call that are noise: the smallest object, a boxed number, takes 16. */
const NOISE_BYTES = 1;

/**
 * Heap bytes that each call of a round leaves behind, once the optimising compiler has seen enough.
 *
 * @param allowed - Ends the search for a quieter round.
 */
function bytesPerCall(calls: number, allowed: number, round: (calls: number) => void): number {
  for (let warm = 0; warm < 3; warm++) round(calls);
  let quietest = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 12 && quietest >= allowed; attempt++) {
    gc();
    const before = process.memoryUsage().heapUsed;
    round(calls);
    quietest = Math.min(quietest, (process.memoryUsage().heapUsed - before) / calls);
  }
  return quietest;
}

function decideOnce(world: World, from: Case['from'], length: number, nowMs: number): Decision {
  const { decide, start } = world;
  if (from !== 'underlay') {
    return decide.fromPort(world.ports[from], start, length, false, nowMs);
  }
  const network = decide.networks.get(BLUE);
  if (network === undefined) throw new Error('The world has a blue network');
  return decide.fromVtep(network, start, length, false, nowMs);
}

test('deciding where a frame goes allocates nothing', (t) => {
  // One world for all: its call sites have seen every kind of frame, as those of a real one have.
  const world = new World();
  const run = ({ from, bytes }: Case, calls: number): void => {
    for (let call = 0; call < calls; call++) {
      world.bytes.set(bytes, world.start);
      // To and fro, so that the port may ask for neighbours again.
      decideOnce(world, from, bytes.length, call % 2 === 0 ? NOW_MS : LATER_MS);
    }
  };
  for (const one of Object.values(CASES)) run(one, 1_000);
  for (const [name, one] of Object.entries(CASES)) {
    if (one.before !== undefined) run(one.before, 1);
    const bytes = bytesPerCall(CALLS, NOISE_BYTES, (calls) => run(one, calls));
    t.ok(bytes < NOISE_BYTES, `${name}: ${bytes.toFixed(2)} bytes per call`);
    t.equal(world.decide.decision.action, one.outcome, name);
  }
  t.end();
});

test('joining segments allocates nothing', (t) => {
  const { arena, checksum } = makePacketMemory();
  const coalescer = new Coalescer(arena, checksum);
  const superframe = ethernetFrame({
    from: CLIENT,
    to: BOB,
    payload: randomBytes(14_000, 1),
    sequence: 0xffff_f000,
  });
  const datagrams = slowSegments(superframe, 1400).map((one) => vxlanDatagram(BLUE, one));
  const stride = datagrams[0]?.length ?? 0;
  const at = arena.allocate(stride * datagrams.length);
  const bytes = Buffer.concat(datagrams);
  const round = (calls: number): void => {
    for (let call = 0; call < calls; call++) {
      arena.bytes.set(bytes, at);
      coalescer.join(at, stride, at + bytes.length);
    }
  };
  const perCall = bytesPerCall(2_000, NOISE_BYTES, round);
  t.ok(perCall < NOISE_BYTES, `${perCall.toFixed(2)} bytes per run of ten`);
  t.equal(coalescer.segments, 10);
  t.end();
});

/** A sender, and a receiver whose ports lead nowhere. */
function makeHost(t: Test) {
  const { arena, checksum, counters, taps } = makePacketMemory();
  const underlay = new LoopbackUnderlay(arena);
  const world = new World(arena.view, arena.allocate(2048));
  const { receiver } = underlay;
  const { peers } = world;
  const secure = secureSessions(arena, counters, peers);
  const egress = new Egress({ arena, checksum, counters, taps, vtepAddress: LOOPBACK, secure });
  const probes = new PathProbes({ arena, peers, address: LOOPBACK, post: () => {} });
  const ports = new PortWriter(arena, counters, taps);
  const ingress = new Ingress({
    arena,
    checksum,
    counters,
    receiver,
    decide: world.decide,
    ports,
    egress,
    taps,
    peers,
    probes,
    secure,
  });
  const peer = world.peers.add(LOOPBACK, underlay.port);
  const farPeer = world.peers.at(VTEP);
  const fd = openSync('/dev/null', 'w');
  const port = new Port({ id: 9, fd, scope: BLUE, ...namesOf('bob') });
  world.decide.networks.get(BLUE)?.set(new Endpoint(port, { port }));
  world.decide.networks.get(BLUE)?.set(new Endpoint<Port, Peer>(namesOf('remote'), { peer }));
  t.teardown(() => {
    closeSync(fd);
    egress.close();
    probes.close();
    underlay.close();
  });
  return { arena, counters, underlay, egress, ingress, peer, farPeer };
}

test('sending and receiving allocate nothing', (t) => {
  const { arena, counters, underlay, egress, ingress, peer, farPeer } = makeHost(t);
  const packet = new Packet();
  const at = arena.allocate(20_000) + 34;
  const whole = new Offload();
  const superframe = Object.assign(new Offload(), { gsoType: GSO_TCPV4, gsoBytes: 1_400 });
  const spec = { from: REMOTE, to: BOB, sequence: 0xffff_f000, partial: true };
  const small = ethernetFrame({ ...spec, payload: randomBytes(900, 1), partial: false });
  const large = ethernetFrame({ ...spec, payload: randomBytes(14_000, 1) });
  const send = (bytes: Uint8Array, offload: Offload, to: Peer): void => {
    arena.bytes.set(bytes, at);
    parseFrame(arena.view, at, bytes.length, packet);
    egress.send(packet, offload, BLUE, to);
    egress.flush();
  };
  const datagram = { ...spec, protocol: PROTO_UDP, payload: randomBytes(1_300, 1), partial: false };
  const long = ethernetFrame(datagram);
  const narrow = loopbackPeer(peer.port);
  narrow.setPathMtu(1_280);
  for (const [name, bytes, offload, to] of [
    ['a frame', small, whole, peer],
    ['a superframe', large, superframe, peer],
    ['a datagram in fragments', long, whole, narrow],
    ['a superframe for a narrow path', large, superframe, narrow],
    // Not to be reached from the loopback: the kernel refuses it, and nothing leaves the host.
    ['a frame to a high address', small, whole, farPeer],
    ['a superframe to a high address', large, superframe, farPeer],
  ] as const) {
    const perCall = bytesPerCall(2_000, NOISE_BYTES, (count) => {
      for (let call = 0; call < count; call++) {
        send(bytes, offload, to);
        if (to === peer) ingress.receive(NOW_MS);
        else while (underlay.receiver.receive() >= 0);
      }
    });
    t.ok(perCall < NOISE_BYTES, `${name}: ${perCall.toFixed(2)} bytes per call`);
  }
  const { 'port-frames-out': frames, 'port-bytes-out': bytes } = counters.traffic();
  t.ok(bytes / frames > 900, 'frames and superframes arrived');
  t.end();
});

test('sealing and opening allocate nothing', (t) => {
  const { arena, counters } = makePacketMemory();
  const peers = new Peers();
  const sessions = secureSessions(arena, counters, peers);
  const key = randomBytes(32, 1);
  sessions.install({
    kind: 'installSession',
    vtep: LOOPBACK,
    address: LOOPBACK,
    port: 1,
    keypair: {
      ...{ localIndex: 7, remoteIndex: 7, isInitiator: true, createdAtMs: 0 },
      ...{ sendKey: key, receiveKey: key },
    },
    replayWords: new Int32Array(SESSION_LANES_MAX * REPLAY_WINDOW_WORDS),
    isConfirmed: true,
  });
  const session = peers.at(LOOPBACK).session!;
  const at = arena.allocate(1_500);
  let opened = 0;
  const perCall = bytesPerCall(CALLS, NOISE_BYTES, (calls) => {
    for (let call = 0; call < calls; call++) {
      session.seal(at, 1_400);
      opened = session.open(at, 1_432);
    }
  });
  t.ok(perCall < NOISE_BYTES, `${perCall.toFixed(2)} bytes per message`);
  t.equal(opened, 1_400);
  t.end();
});

test('looking at a frame’s offload and checksum, and counting, allocates nothing', (t) => {
  const { arena, checksum, counters } = makePacketMemory();
  const bytes = ethernetFrame({
    from: CLIENT,
    to: BOB,
    payload: randomBytes(500, 1),
    partial: true,
  });
  const at = arena.allocate(600);
  arena.bytes.set(bytes, at);
  const offload = new Offload();
  const added = trafficIndex('port-bytes-in');
  const dropped = dropIndex('runt');
  let found = 0;
  const perCall = bytesPerCall(CALLS, NOISE_BYTES, (calls) => {
    for (let call = 0; call < calls; call++) {
      readOffload(arena.view, at, offload);
      found = partialChecksumStart(arena.view, checksum, at, bytes.length);
      counters.add(added, 3_000_000_000);
      counters.drop(dropped);
    }
  });
  t.ok(perCall < NOISE_BYTES, `${perCall.toFixed(2)} bytes per call`);
  t.equal(found, 34);
  t.end();
});

/** The largest frame that is made there. */
const SCRATCH_BYTES = NEIGHBOR_ADVERTISEMENT_FRAME_BYTES;

test('100,000 mutated frames do no harm to the switch', (t) => {
  const random = makeRandom(0x5eed);
  const world = new World();
  const { decide, bytes, start, scratch } = world;
  const inputs = Object.values(CASES);
  const servedPorts = new Set(Object.values(world.ports));
  const seen = new Set<string>();
  const guard = 64;
  for (let number = 0; number < 100_000; number++) {
    const input = inputs[random(inputs.length)]!;
    const { length: whole } = input.bytes;
    bytes.fill(0xee, 0, start + whole + guard);
    bytes.set(input.bytes, start);
    for (let edits = random(4); edits > 0; edits--) bytes[start + random(whole)] = random(256);
    const length = random(5) === 0 ? random(whole + 1) : whole;
    const behind = bytes.slice(start + length, start + whole + guard);
    const decision = decideOnce(world, input.from, length, NOW_MS + number);
    seen.add(decision.action === 'back' ? decision.answer : decision.action);
    const untouched =
      behind.every((byte, at) => byte === bytes[start + length + at]) &&
      bytes.subarray(0, scratch).every((byte) => byte === 0xee) &&
      bytes.subarray(scratch + SCRATCH_BYTES, start).every((byte) => byte === 0xee);
    if (!untouched) t.fail(`Frame ${number}: written outside of frame and scratch`);
    if (!isSane(decision)) t.fail(`Frame ${number}: ${JSON.stringify(decision)}`);
  }
  function isSane(decision: Decision): boolean {
    const { action, port, drop, answer, answerStart, answerBytes } = decision;
    if (action === 'port') return port !== undefined && servedPorts.has(port);
    if (action === 'drop') return DROP_REASONS[drop] !== undefined;
    if (action === 'vtep') return decision.peer?.address === VTEP && decision.vni === BLUE;
    if (answer === 'reset') return answerStart === scratch && [54, 74].includes(answerBytes);
    if (answer === 'nd') return answerStart === scratch && answerBytes === SCRATCH_BYTES;
    return answerStart === start && answerBytes <= decide.packet.length;
  }
  t.same([...seen].sort(), ['arp', 'drop', 'echo', 'nd', 'port', 'reset', 'vtep'], 'every way out');
  t.end();
});

test('100,000 mutated runs do no harm to the coalescer', (t) => {
  const random = makeRandom(0xc0a1);
  const { arena, checksum } = makePacketMemory();
  const coalescer = new Coalescer(arena, checksum);
  const guard = 64;
  const superframe = ethernetFrame({
    from: CLIENT,
    to: BOB,
    payload: randomBytes(70, 9),
    tcpOptions: Uint8Array.of(1, 1, 1, 1),
  });
  const run = Buffer.concat(slowSegments(superframe, 20).map((one) => vxlanDatagram(BLUE, one)));
  const stride = 8 + 58 + 20;
  const at = arena.allocate(2 * guard + run.length) + guard;
  const seen = new Map<number, number>();
  for (let number = 0; number < 100_000; number++) {
    arena.bytes.fill(0xee, at - guard, at + run.length + guard);
    arena.bytes.set(run, at);
    for (let edits = random(3); edits > 0; edits--) {
      arena.bytes[at + random(run.length)] = random(256);
    }
    const end = at + (random(3) === 0 ? 1 + random(run.length) : run.length);
    const step = random(8) === 0 ? 1 + random(stride * 2) : stride;
    const before = arena.bytes.slice(at - guard, at + run.length + guard);
    coalescer.join(at, step, end);
    const { segments, headerBytes, gsoBytes, payloadBytes, iovecs } = coalescer;
    seen.set(segments, (seen.get(segments) ?? 0) + 1);
    // Only a superframe's headers may have changed, and only those of a datagram that was there.
    const after = arena.bytes.subarray(at - guard, at + run.length + guard);
    const changed = before.findIndex((byte, place) => byte !== after[place]);
    const last = before.findLastIndex((byte, place) => byte !== after[place]);
    const inHeaders = changed >= guard + 8 && last < guard + 8 + headerBytes;
    if (changed !== -1 && !(segments > 1 && inHeaders)) t.fail(`Run ${number}: bytes changed`);
    let joined = gsoBytes;
    for (let index = 1; index < segments; index++) {
      const vector = iovecs + index * 16;
      const source = Number(arena.view.getBigUint64(vector, true) - BigInt(arena.base));
      const length = arena.view.getUint32(vector + 8, true);
      if (source < at || source + length > end) t.fail(`Run ${number}: an iovec leads outside`);
      joined += length;
    }
    if (segments > 1 && joined !== payloadBytes) t.fail(`Run ${number}: payload is missing`);
  }
  t.same([...seen.keys()].sort(), [1, 2, 3, 4], 'runs of every length');
  t.end();
});

test('20,000 mutated superframes do no harm to the sender', (t) => {
  const random = makeRandom(0xe6e5);
  const { arena, counters, underlay, egress, peer } = makeHost(t);
  const inputs = [
    { from: CLIENT, to: BOB, payload: randomBytes(900, 3), partial: true },
    {
      from: CLIENT,
      to: BOB,
      payload: randomBytes(900, 4),
      partial: true,
      ipOptions: 10,
      tcpOptions: new Uint8Array(40).fill(1),
    },
    { from: CLIENT, to: BOB, payload: randomBytes(900, 5), partial: true, protocol: PROTO_UDP },
  ].map(ethernetFrame);
  const guard = 64;
  const at = arena.allocate(2048) + 2 * guard;
  const packet = new Packet();
  const offload = new Offload();
  let told = 0;
  for (let number = 0; number < 20_000; number++) {
    const input = inputs[random(inputs.length)]!;
    arena.bytes.fill(0xee, at - guard, at + input.length + guard);
    arena.bytes.set(input, at);
    for (let edits = random(3); edits > 0; edits--) arena.bytes[at + random(80)] = random(256);
    if (parseFrame(arena.view, at, input.length, packet) !== 'none') continue;
    offload.gsoType = [0, GSO_TCPV4, GSO_UDP_L4, random(256)][random(4)] ?? 0;
    offload.gsoBytes = random(20) === 0 ? random(0x1_0000) : 100 + random(900);
    offload.needsChecksum = random(2) === 0;
    offload.checksumStart = random(20) === 0 ? random(0x1_0000) : 34;
    offload.checksumOffset = random(20) === 0 ? random(0x1_0000) : 16;
    peer.setPathMtu(random(2) === 0 ? 700 : 65_535);
    told += egress.send(packet, offload, BLUE, peer) === 0 ? 0 : 1;
    egress.flush();
    while (underlay.receiver.receive() >= 0);
    const front = arena.bytes.subarray(at - guard, at - 8);
    const behind = arena.bytes.subarray(at + input.length, at + input.length + guard);
    if (![...front, ...behind].every((byte) => byte === 0xee)) {
      t.fail(`Frame ${number}: written outside of frame and VXLAN header`);
    }
  }
  const { 'bad-offload': refused, 'send-failed': failed } = counters.drops();
  t.ok(refused > 1_000, `${refused} offloads refused`);
  t.ok(counters.traffic()['underlay-datagrams-out'] > 10_000);
  t.ok(failed < 1_000, `${failed} sends failed`);
  t.ok(told > 10, `${told} senders are to be told of the path's MTU`);
  t.end();
});
