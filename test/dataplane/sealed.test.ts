// Encrypted networks on the packet thread: a sender and a receiver in one arena, with the loopback between them.
import { closeSync, openSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { parseIpv4 } from '../../src/core/address.ts';
import { Packet, PROTO_UDP, parseFrame } from '../../src/core/packet.ts';
import type { SecureEvent, ThreadPlace } from '../../src/dataplane/commands.ts';
import { Egress } from '../../src/dataplane/egress.ts';
import { Ingress } from '../../src/dataplane/ingress.ts';
import { GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, Offload } from '../../src/dataplane/offload.ts';
import { PathProbes } from '../../src/dataplane/path-probes.ts';
import { type Peer, Peers } from '../../src/dataplane/peers.ts';
import { Port } from '../../src/dataplane/port.ts';
import { PortWriter } from '../../src/dataplane/port-writer.ts';
import { SecureControl } from '../../src/dataplane/secure-control.ts';
import type { SecureSessions } from '../../src/dataplane/secure-sessions.ts';
import { WAITING_FRAMES_MAX } from '../../src/dataplane/waiting-frames.ts';
import { DatagramQueue } from '../../src/io/linux/datagram-queue.ts';
import { VxlanSender } from '../../src/io/linux/vxlan-socket.ts';
import { SESSION_LANES_MAX } from '../../src/noise/keypairs.ts';
import { encodeInitiation } from '../../src/noise/messages.ts';
import { REPLAY_WINDOW_WORDS } from '../../src/noise/replay-window.ts';
import { Endpoint } from '../../src/vxlan/fdb.ts';
import {
  ethernetFrame,
  type FrameSpec,
  LOOPBACK,
  LoopbackUnderlay,
  makePacketMemory,
  makeRandom,
  randomBytes,
  vxlanDatagram,
} from './frames.ts';
import { secureSessions } from './secure.ts';
import { BLUE, inFamily, NOW_MS, namesOf, World } from './world.ts';

const BOB = '240.0.1.12:80';
const REMOTE = '240.0.1.13:7000';
const SPEC: FrameSpec = { from: REMOTE, to: BOB, sequence: 0xffff_f000, dontFragment: true };
const SPEC6 = { ...SPEC, from: inFamily(6, REMOTE), to: inFamily(6, BOB), dontFragment: false };
const ELSEWHERE = parseIpv4('127.9.9.9');

/** Keys of session number `index`: what one side sends by is what the other receives by. */
function keysOf(index: number): readonly [Uint8Array, Uint8Array] {
  return [randomBytes(32, 2 * index + 1), randomBytes(32, 2 * index + 2)];
}

function makePair(t: Test, place: ThreadPlace = { index: 0, count: 1 }) {
  const { arena, checksum, counters, taps } = makePacketMemory();
  const underlay = new LoopbackUnderlay(arena);
  const world = new World(arena.view, arena.allocate(2048));
  const time = { nowMs: 1_000 };
  const events: SecureEvent[] = [];
  const more = { post: (event: SecureEvent) => events.push(event), nowMs: () => time.nowMs };

  // The sender: `there` is the receiver to it.
  const peers = new Peers();
  const there = peers.add(LOOPBACK, underlay.port);
  const sending = secureSessions(arena, counters, peers, more);
  const address = { arena, checksum, counters, taps, vtepAddress: LOOPBACK };
  const egress = new Egress({ ...address, secure: sending });
  const control = new SecureControl({
    arena,
    peers,
    sessions: sending,
    egress,
    place,
    queue: new DatagramQueue(arena, underlay.receiver.fd, false, () => t.fail('a send failed')),
  });

  // The receiver, and what it sends back.
  const receiving = secureSessions(arena, counters, world.peers, more);
  const back = new Egress({ ...address, secure: receiving });
  const probes = new PathProbes({ arena, peers, address: LOOPBACK, post: () => {} });
  const ingress = new Ingress({
    arena,
    checksum,
    counters,
    receiver: underlay.receiver,
    decide: world.decide,
    ports: new PortWriter(arena, counters, taps),
    egress: back,
    taps,
    peers: world.peers,
    probes,
    secure: receiving,
  });
  const here = world.peers.add(LOOPBACK, underlay.port);
  for (const sessions of [sending, receiving]) sessions.encryptedVnis.add(BLUE);
  const path = join(t.testdir({ tap: '' }), 'tap');
  const fd = openSync(path, 'a');
  const port = new Port({ id: 9, fd, scope: BLUE, ...namesOf('bob') });
  const blue = world.decide.networks.get(BLUE);
  blue?.set(new Endpoint(port, { port }));
  blue?.set(new Endpoint<Port, Peer>(namesOf('remote'), { peer: here }));
  const raw = new VxlanSender(arena, LOOPBACK, 1, () => t.fail('a send failed'));
  t.teardown(() => {
    closeSync(fd);
    raw.close();
    for (const one of [egress, back]) one.close();
    probes.close();
    underlay.close();
  });
  const at = arena.allocate(70_000) + 34;
  const packet = new Packet();
  const replayWords = new Int32Array(SESSION_LANES_MAX * REPLAY_WINDOW_WORDS);

  function install(sessions: SecureSessions, index: number, isConfirmed: boolean): void {
    const isInitiator = sessions === sending;
    const [a, b] = keysOf(index);
    const indexes = isInitiator ? [index, 1_000 + index] : [1_000 + index, index];
    const [sendKey, receiveKey] = isInitiator ? [a, b] : [b, a];
    const [localIndex = 0, remoteIndex = 0] = indexes;
    sessions.install({
      kind: 'installSession',
      vtep: LOOPBACK,
      address: LOOPBACK,
      port: underlay.port,
      keypair: { localIndex, remoteIndex, sendKey, receiveKey, isInitiator, createdAtMs: 0 },
      replayWords: isInitiator ? new Int32Array(replayWords.length) : replayWords,
      isConfirmed,
    });
  }
  /** Gives both sides session number `index`, ready to be sent by. */
  function connect(index = 1): void {
    install(receiving, index, true);
    install(sending, index, true);
    egress.sendWaiting(there);
  }
  function send(bytes: Uint8Array, offload: Partial<Offload> = {}): number {
    arena.bytes.set(bytes, at);
    parseFrame(arena.view, at, bytes.length, packet);
    const told = egress.send(packet, Object.assign(new Offload(), offload), BLUE, there);
    egress.flush();
    return told;
  }
  /** What lies in the receiver's socket, as it came over the wire. */
  function wire(): Uint8Array[] {
    const datagrams: Uint8Array[] = [];
    const { receiver } = underlay;
    for (let length = receiver.receive(); length >= 0; length = receiver.receive()) {
      const end = receiver.buffer + length;
      for (let one = receiver.buffer; one < end; one += receiver.segmentBytes) {
        datagrams.push(arena.bytes.slice(one, Math.min(end, one + receiver.segmentBytes)));
      }
    }
    return datagrams;
  }
  /** Puts datagrams on the wire as they are; those of one size travel together. */
  function inject(...datagrams: readonly Uint8Array[]): void {
    let offset = at;
    for (const datagram of datagrams) {
      arena.bytes.set(datagram, offset);
      raw.queue(0).add(there, offset, datagram.length);
      offset += datagram.length;
    }
    raw.flush();
  }
  /** Handles all that has arrived, and gives what bob's TAP got for it. */
  function receive(): Buffer {
    while (ingress.receive(NOW_MS));
    const written = readFileSync(path);
    truncateSync(path);
    return written;
  }
  const drops = () =>
    Object.fromEntries(Object.entries(counters.drops()).filter(([, count]) => count > 0));
  return {
    ...{ arena, underlay, counters, time, events, sending, receiving, control, egress, back },
    ...{ there, here, install, connect, send, wire, inject, receive, drops, peers, world },
  };
}

/** What bob gets of a frame over a network that is not encrypted. */
function plainly(t: Test, bytes: Uint8Array, offload: Partial<Offload>): Buffer {
  const pair = makePair(t);
  for (const sessions of [pair.sending, pair.receiving]) sessions.encryptedVnis.clear();
  pair.send(bytes, offload);
  return pair.receive();
}

function superframe(gsoType: number, gsoBytes: number): Partial<Offload> {
  const l4 = gsoType === GSO_TCPV6 ? 54 : 34;
  const checksumOffset = gsoType === GSO_UDP_L4 ? 6 : 16;
  return { gsoType, gsoBytes, needsChecksum: true, checksumStart: l4, checksumOffset };
}

for (const [name, spec, offload] of [
  ['a TCP segment', { ...SPEC, payload: randomBytes(900, 3) }, {}],
  ['a UDP datagram', { ...SPEC, protocol: PROTO_UDP, payload: randomBytes(9, 3) }, {}],
  [
    'a segment whose checksum is not made yet',
    { ...SPEC, payload: randomBytes(900, 3), partial: true },
    { needsChecksum: true, checksumStart: 34, checksumOffset: 16 },
  ],
  [
    'a TCP superframe',
    { ...SPEC, payload: randomBytes(20_001, 3), partial: true },
    superframe(GSO_TCPV4, 1_352),
  ],
  [
    'a TCP superframe of IPv6',
    { ...SPEC6, payload: randomBytes(20_001, 3), partial: true },
    superframe(GSO_TCPV6, 1_332),
  ],
  [
    'a UDP superframe',
    { ...SPEC, protocol: PROTO_UDP, payload: randomBytes(6_500, 3), partial: true },
    superframe(GSO_UDP_L4, 1_300),
  ],
] as const) {
  test(`${name} arrives sealed as it would plainly, and cannot be read on the way`, (t) => {
    const bytes = ethernetFrame(spec);
    const pair = makePair(t);
    pair.connect();
    t.equal(pair.send(bytes, offload), 0);
    const datagrams = pair.wire();
    const marker = Buffer.from(spec.payload.subarray(0, 9));
    t.ok(datagrams.length > 0);
    for (const datagram of datagrams) {
      t.equal(datagram[0], 4, 'a data message');
      t.notOk(Buffer.from(datagram).includes(marker));
    }
    pair.inject(...datagrams);
    t.equal(pair.receive().toString('hex'), plainly(t, bytes, offload).toString('hex'));
    t.same(pair.drops(), {});
    t.end();
  });
}

test('a sealed superframe leaves in one send of equal datagrams', (t) => {
  const pair = makePair(t);
  pair.connect();
  pair.send(
    ethernetFrame({ ...SPEC, payload: randomBytes(20_000, 3), partial: true }),
    superframe(GSO_TCPV4, 1_352),
  );
  t.equal(pair.counters.traffic()['underlay-sends'], 1);
  const sizes = pair.wire().map(({ length }) => length);
  t.equal(sizes.length, Math.ceil(20_000 / 1_352));
  t.same([...new Set(sizes.slice(0, -1))], [1_352 + 54 + 8 + 32]);
  t.end();
});

test('a path carries 32 bytes less of an encrypted network', (t) => {
  const pair = makePair(t);
  pair.connect();
  pair.there.setPathMtu(1_280);
  const fits = 1_280 - 50 - 32;
  const udp = { ...SPEC, protocol: PROTO_UDP };
  t.equal(pair.send(ethernetFrame({ ...udp, payload: randomBytes(fits - 28, 3) })), 0);
  t.equal(pair.send(ethernetFrame({ ...udp, payload: randomBytes(fits - 27, 3) })), fits);
  pair.send(
    ethernetFrame({ ...SPEC, payload: randomBytes(9_000, 3), partial: true }),
    superframe(GSO_TCPV4, 1_352),
  );
  const mayBeCut = { ...udp, dontFragment: false };
  pair.send(ethernetFrame({ ...mayBeCut, payload: randomBytes(3_000, 3) }));
  const sizes = pair.wire().map(({ length }) => length);
  t.equal(Math.max(...sizes), 1_280 - 28, 'segments and fragments fit the path when sealed');
  t.equal(sizes.length, 1 + 8 + 3);
  t.end();
});

test('without a session nothing leaves, and one is asked for', (t) => {
  const pair = makePair(t);
  for (let frame = 0; frame < 3; frame += 1) {
    pair.send(ethernetFrame({ ...SPEC, payload: randomBytes(100, 9 + frame) }));
  }
  t.same(pair.wire(), []);
  t.same(pair.events, [{ kind: 'needSession', vtep: LOOPBACK }], 'once');
  pair.time.nowMs += 500;
  pair.send(ethernetFrame({ ...SPEC, payload: randomBytes(100, 8) }));
  t.equal(pair.events.length, 2);
  pair.connect();
  t.equal(pair.receive().length, 4 * (100 + 54 + 10), 'what has waited is sent, in order');
  t.same(pair.drops(), {});
  t.equal(pair.there.waiting?.size, 0);
  t.end();
});

test('frames wait in a bounded queue for a second', (t) => {
  const pair = makePair(t);
  const small = ethernetFrame({ ...SPEC, payload: randomBytes(10, 3) });
  for (let frame = 0; frame < WAITING_FRAMES_MAX + 5; frame += 1) pair.send(small);
  t.same(pair.drops(), { 'queue-full': 5 });
  pair.time.nowMs += 999;
  pair.sending.sweep();
  t.same(pair.drops(), { 'queue-full': 5 });
  pair.time.nowMs += 1;
  pair.sending.sweep();
  t.same(pair.drops(), { 'queue-full': 5, 'no-session': WAITING_FRAMES_MAX });
  const large = ethernetFrame({ ...SPEC, payload: randomBytes(60_000, 3), partial: true });
  for (let frame = 0; frame < 6; frame += 1) pair.send(large, superframe(GSO_TCPV4, 1_352));
  t.same(pair.drops(), { 'queue-full': 7, 'no-session': WAITING_FRAMES_MAX }, 'four have room');
  pair.connect();
  t.ok(pair.wire().length >= 4 * 44, 'superframes are cut when their turn comes');
  t.end();
});

test('an ended session is sent by no more', (t) => {
  const pair = makePair(t);
  pair.connect();
  pair.control.apply({ kind: 'removeSession', localIndex: 1 });
  pair.send(ethernetFrame({ ...SPEC, payload: randomBytes(100, 3) }));
  t.same(pair.wire(), []);
  pair.connect(2);
  t.equal(pair.wire().length, 1);
  pair.time.nowMs += 180_000;
  pair.sending.sweep();
  pair.send(ethernetFrame({ ...SPEC, payload: randomBytes(100, 3) }));
  t.same(pair.wire(), [], 'nor by one of 180 s');
  t.end();
});

test('plaintext of an encrypted network is dropped, whoever sends it', (t) => {
  const pair = makePair(t);
  pair.connect();
  pair.inject(vxlanDatagram(BLUE, ethernetFrame({ ...SPEC, payload: randomBytes(100, 3) })));
  t.equal(pair.receive().length, 0);
  t.same(pair.drops(), { 'not-encrypted': 1 });
  t.end();
});

/** Eight data messages of one flow, as they leave. */
function sealedRun(pair: ReturnType<typeof makePair>): Uint8Array[] {
  const payload = randomBytes(8 * 1_000, 3);
  pair.send(ethernetFrame({ ...SPEC, payload, partial: true }), superframe(GSO_TCPV4, 1_000));
  return pair.wire();
}

test('forged, repeated and foreign messages are dropped, and the others of their run are not', (t) => {
  for (const [name, change, drops, lost] of [
    ['nothing', () => {}, {}, 0],
    ['a bit of the text', (run) => flip(run, 3, 40), { 'bad-auth': 1 }, 1],
    ['a bit of the tag', (run) => flip(run, 3, -1), { 'bad-auth': 1 }, 1],
    ['the counter', (run) => flip(run, 3, 15), { 'bad-auth': 1 }, 1],
    ['a lane that nobody has', (run) => flip(run, 3, 8), { 'bad-auth': 1 }, 1],
    ['a reserved byte', (run) => flip(run, 3, 2), { 'bad-auth': 1 }, 1],
    ['the index', (run) => flip(run, 3, 4), { 'unknown-session': 1 }, 1],
    ['the first message', (run) => flip(run, 0, 40), { 'bad-auth': 1 }, 1],
    ['the last message', (run) => flip(run, 7, 40), { 'bad-auth': 1 }, 1],
    ['a repetition', (run) => run.splice(4, 1, run[2]!.slice()), { replay: 1 }, 1],
    ['two in a row', (run) => [2, 3].map((index) => flip(run, index, 40)), { 'bad-auth': 2 }, 2],
  ] as const satisfies readonly (readonly [
    string,
    (run: Uint8Array[]) => unknown,
    Record<string, number>,
    number,
  ])[]) {
    const pair = makePair(t);
    pair.connect();
    const run = sealedRun(pair);
    t.equal(run.length, 8);
    change(run);
    pair.inject(...run);
    const frames = pair.receive();
    t.same(pair.drops(), drops, name);
    // Each piece of the run that was left becomes a frame of its own, with its headers.
    const pieces = (frames.length - (8 - lost) * 1_000) / (54 + 10);
    t.ok(Number.isInteger(pieces) && pieces >= 1 && pieces <= 2 + lost, `${pieces} pieces`);
    pair.inject(...run);
    t.equal(pair.receive().length, 0, 'all of it is old the second time');
  }
  t.end();
});

function flip(run: readonly Uint8Array[], index: number, place: number): void {
  const message = run[index]!;
  const at = place < 0 ? message.length + place : place;
  message[at]! ^= 0x20;
}

test('a message that is too short for one is dropped', (t) => {
  const pair = makePair(t);
  pair.connect();
  const [message] = sealedRun(pair);
  for (const length of [1, 8, 16, 31]) pair.inject(message!.subarray(0, length));
  t.equal(pair.receive().length, 0);
  t.same(pair.drops(), { 'bad-auth': 4 });
  t.end();
});

test('who does not know a session asks its owner for a new one', (t) => {
  const pair = makePair(t);
  pair.install(pair.sending, 1, true);
  pair.send(ethernetFrame({ ...SPEC, payload: randomBytes(100, 3) }));
  pair.receive();
  t.same(pair.drops(), { 'unknown-session': 1 });
  t.same(pair.events, [{ kind: 'needSession', vtep: LOOPBACK }]);
  t.end();
});

test('the responder sends when the initiator has been heard, and what has waited first', (t) => {
  const pair = makePair(t);
  pair.install(pair.receiving, 1, false);
  const packet = new Packet();
  const bytes = ethernetFrame({ from: BOB, to: REMOTE, payload: randomBytes(77, 3) });
  pair.arena.bytes.set(bytes, pair.arena.bytes.length - 2_000);
  parseFrame(pair.arena.view, pair.arena.bytes.length - 2_000, bytes.length, packet);
  pair.back.send(packet, new Offload(), BLUE, pair.here);
  pair.back.flush();
  t.same(pair.wire(), []);
  pair.events.length = 0;
  pair.install(pair.sending, 1, true);
  pair.control.apply({ kind: 'sendKeepalive', vtep: LOOPBACK });
  const [keepalive, ...none] = pair.wire();
  t.same([keepalive?.length, none.length], [32, 0]);
  pair.inject(keepalive!);
  t.equal(pair.receive().length, 0, 'an empty message is for nobody');
  t.same(pair.events, [{ kind: 'sessionConfirmed', localIndex: 1_001 }]);
  t.equal(pair.here.session?.localIndex, 1_001);
  // What has waited left, for the initiator's index: on the loopback it came to the responder itself.
  t.same(pair.drops(), { 'unknown-session': 1 });
  t.end();
});

test('a session that another packet thread has confirmed is sent by, and what has waited first', (t) => {
  const pair = makePair(t, { index: 1, count: 2 });
  pair.install(pair.sending, 1, false);
  pair.send(ethernetFrame({ ...SPEC, payload: randomBytes(100, 3) }));
  t.same(pair.wire(), []);
  pair.events.length = 0;
  for (const localIndex of [7, 1, 1]) pair.control.apply({ kind: 'confirmSession', localIndex });
  t.equal(pair.wire().length, 1, 'what has waited leaves once');
  pair.send(ethernetFrame({ ...SPEC, payload: randomBytes(100, 3) }));
  t.equal(pair.wire().length, 1);
  t.same(pair.events, [], 'the control thread knows');
  t.end();
});

test('the first packet thread sends what one of them must send', (t) => {
  for (const [index, sent] of [
    [0, 2],
    [1, 0],
  ] as const) {
    const pair = makePair(t, { index, count: 2 });
    pair.install(pair.sending, 1, true);
    pair.control.apply({ kind: 'sendKeepalive', vtep: LOOPBACK });
    const to = { to: LOOPBACK, port: pair.underlay.port };
    pair.control.apply({ kind: 'sendDatagram', ...to, bytes: randomBytes(20, 3) });
    t.equal(pair.wire().length, sent, `thread ${index}`);
  }
  t.end();
});

test('handshake messages go to the control thread, up to a limit per second', (t) => {
  const pair = makePair(t);
  const bytes = encodeInitiation(7, randomBytes(108, 3));
  pair.inject(bytes);
  pair.receive();
  const [event] = pair.events;
  t.match(event, { kind: 'handshake', address: LOOPBACK });
  t.same(event?.kind === 'handshake' && event.bytes, bytes);
  for (let batch = 0; batch < 30; batch += 1) {
    pair.inject(...Array.from({ length: 20 }, () => bytes));
    pair.receive();
  }
  t.equal(pair.events.length, 500);
  t.same(pair.drops(), { 'handshake-flood': 101 });
  pair.receiving.sweep();
  pair.inject(bytes);
  pair.receive();
  t.equal(pair.events.length, 501, 'a second later there is room again');
  t.end();
});

test('a peer that is heard from another address is reported, and followed when told', (t) => {
  const pair = makePair(t);
  pair.connect();
  pair.receiving.move(LOOPBACK, ELSEWHERE, 4_789);
  pair.inject(...sealedRun(pair));
  t.ok(pair.receive().length > 8_000);
  t.same(pair.events, [{ kind: 'peerMoved', localIndex: 1_001, address: LOOPBACK }], 'once');
  pair.events.length = 0;
  pair.receiving.move(LOOPBACK, LOOPBACK, pair.underlay.port);
  pair.inject(...sealedRun(pair));
  pair.receive();
  t.same(pair.events, []);
  pair.control.apply({ kind: 'movePeer', vtep: LOOPBACK, address: LOOPBACK, port: 9 });
  pair.send(ethernetFrame({ ...SPEC, payload: randomBytes(100, 3) }));
  t.same(pair.wire(), [], 'it went to another port');
  t.end();
});

test('what sessions carried is reported once a second', (t) => {
  const pair = makePair(t);
  pair.connect();
  pair.inject(...sealedRun(pair));
  pair.receive();
  pair.control.apply({ kind: 'sendKeepalive', vtep: LOOPBACK });
  for (const sessions of [pair.sending, pair.receiving, pair.sending]) sessions.sweep();
  const none = { sent: 0, received: 0, keepalivesSent: 0, keepalivesReceived: 0 };
  t.same(pair.events, [
    {
      kind: 'sessionActivity',
      sessions: [{ ...none, localIndex: 1, sent: 8, keepalivesSent: 1 }],
    },
    { kind: 'sessionActivity', sessions: [{ ...none, localIndex: 1_001, received: 8 }] },
  ]);
  t.end();
});

test('threads that send by one session do not take each other’s counters', (t) => {
  const pair = makePair(t);
  pair.connect();
  const { arena, counters, peers } = pair;
  const second = secureSessions(arena, counters, peers, { lane: 1 });
  second.encryptedVnis.add(BLUE);
  pair.inject(...sealedRun(pair));
  const first = pair.receive().length;
  const [sendKey, receiveKey] = keysOf(1);
  const keypair = { localIndex: 1, remoteIndex: 1_001, isInitiator: true, createdAtMs: 0 };
  second.install({
    kind: 'installSession',
    vtep: LOOPBACK,
    address: LOOPBACK,
    port: pair.underlay.port,
    keypair: { ...keypair, sendKey, receiveKey },
    replayWords: new Int32Array(SESSION_LANES_MAX * REPLAY_WINDOW_WORDS),
    isConfirmed: true,
  });
  pair.inject(...sealedRun(pair));
  t.equal(pair.receive().length, first);
  t.same(pair.drops(), {});
  t.end();
});

test('a datagram of the control thread leaves from the VXLAN port', (t) => {
  const pair = makePair(t);
  const bytes = randomBytes(148, 3);
  pair.control.apply({ kind: 'sendDatagram', to: LOOPBACK, port: pair.underlay.port, bytes });
  t.same(pair.wire(), [bytes]);
  t.equal(pair.underlay.receiver.sourcePort, pair.underlay.port);
  t.throws(
    () =>
      pair.control.apply({
        kind: 'sendDatagram',
        to: LOOPBACK,
        port: 1,
        bytes: new Uint8Array(1_501),
      }),
    new RangeError('Cannot send a datagram of 1501 bytes: expected 1500 at most'),
  );
  t.end();
});

test('100,000 damaged messages do no harm, and none gets through', (t) => {
  const pair = makePair(t);
  pair.connect();
  const inputs = [
    ...sealedRun(pair),
    encodeInitiation(7, randomBytes(108, 3)),
    vxlanDatagram(BLUE, ethernetFrame({ ...SPEC, payload: randomBytes(200, 3) })),
  ];
  const random = makeRandom(0x5eed);
  for (let sent = 0; sent < 100_000; ) {
    const batch: Uint8Array[] = [];
    for (let size = 1 + random(8); size > 0; size -= 1) {
      const input = inputs[random(inputs.length)]!;
      const message = input.slice();
      for (let edits = 1 + random(3); edits > 0; edits -= 1) {
        const place = random(random(2) === 0 ? Math.min(40, message.length) : message.length);
        message[place] = (message[place]! + 1 + random(255)) & 255;
      }
      if (Buffer.compare(message, input) === 0) continue; // one edit took the other back
      batch.push(random(8) === 0 ? message.subarray(0, random(message.length)) : message);
    }
    sent += batch.length;
    pair.inject(...batch);
    if (pair.receive().length > 0) t.fail(`message ${sent} or one before it got through`);
    if (sent % 400 < 8) pair.receiving.sweep();
  }
  const { 'bad-auth': forged = 0, 'not-encrypted': plain = 0 } = pair.drops();
  t.ok(forged > 10_000 && plain > 1_000, JSON.stringify(pair.drops()));
  pair.inject(inputs[0]!);
  t.ok(pair.receive().length > 0, 'the true one is still taken');
  t.end();
});
