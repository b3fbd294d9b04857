// What leaves for a peer whose path carries less than the frames of tasks.
import fc from 'fast-check';
import { type Test, test } from 'tap';
import { GATEWAY_MAC, parseIpv4 } from '../../src/core/address.ts';
import { AddressWords } from '../../src/core/address-words.ts';
import { formatIp } from '../../src/core/ip.ts';
import { PROTO_ICMP, PROTO_UDP, TCP_SYN } from '../../src/core/packet.ts';
import { Egress } from '../../src/dataplane/egress.ts';
import {
  GSO_NONE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
  Offload,
} from '../../src/dataplane/offload.ts';
import { Peers } from '../../src/dataplane/peers.ts';
import { QuotedPacket, readQuotedPacket } from '../../src/routing-mesh/icmp-error.ts';
import { wrongChecksums } from '../routing-mesh/packets.ts';
import {
  ethernetFrame,
  type FrameSpec,
  LOOPBACK,
  LoopbackUnderlay,
  loopbackPeer,
  makePacketMemory,
  parsedAt,
  randomBytes,
  slowSegments,
} from './frames.ts';
import { secureSessions } from './secure.ts';
import { BLUE, inFamily, NOW_MS, VIPS, World } from './world.ts';

const VNI = 0x12_3456;
const ETHERNET = 14;
/** A path of 1280 bytes leaves 1230 to the inner packet. */
const PATH_MTU = 1280;
const INNER_MTU = 1230;
const CLIENT = '240.0.0.11:5000';
const SERVER = '240.0.0.12:80';
const FLOW = { from: CLIENT, to: SERVER };

/** A sender whose only peer, on the loopback, has a narrow path. */
function makeWire(t: Test) {
  const { arena, checksum, counters, taps } = makePacketMemory();
  const underlay = new LoopbackUnderlay(arena);
  const refused: number[] = [];
  const secure = secureSessions(arena, counters, new Peers());
  const egress = new Egress({
    arena,
    checksum,
    counters,
    taps,
    vtepAddress: LOOPBACK,
    secure,
    onTooBig: ({ port }) => refused.push(port),
  });
  const at = arena.allocate(70_000) + 34;
  const peer = loopbackPeer(underlay.port);
  peer.setPathMtu(PATH_MTU);
  t.teardown(() => {
    egress.close();
    underlay.close();
  });
  /** Sends a frame; gives the frames that arrive, and the MTU that the sender is to be told. */
  function carry(bytes: Uint8Array, offload: Partial<Offload> = {}) {
    arena.bytes.set(bytes, at);
    const before = counters.traffic()['underlay-datagrams-out'];
    const packet = parsedAt(arena.view, at, bytes.length);
    const told = egress.send(packet, Object.assign(new Offload(), offload), VNI, peer);
    egress.flush();
    const sent = counters.traffic()['underlay-datagrams-out'] - before;
    const frames: Uint8Array[] = [];
    underlay.drain(sent, (start, stride, end) => {
      for (let next = start; next < end; next += stride) {
        frames.push(arena.bytes.slice(next + 8, Math.min(next + stride, end)));
      }
    });
    return { told, frames };
  }
  return { carry, counters, peer, egress, arena, at, refused };
}

function partial(gsoType: number, gsoBytes: number): Partial<Offload> {
  return {
    gsoType,
    gsoBytes,
    needsChecksum: true,
    checksumStart: 34,
    checksumOffset: gsoType === GSO_UDP_L4 ? 6 : 16,
  };
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** The payload of a datagram from its fragments, by their offsets. */
function reassembled(fragments: readonly Uint8Array[]): Uint8Array {
  const sorted = fragments.toSorted((a, b) => offsetOf(a) - offsetOf(b));
  requireContiguous(sorted);
  return Uint8Array.from(sorted.flatMap((bytes) => [...bytes.subarray(34)]));
}

function offsetOf(fragment: Uint8Array): number {
  return (view(fragment).getUint16(20) & 0x1fff) * 8;
}

function requireContiguous(sorted: readonly Uint8Array[]): void {
  let expected = 0;
  for (const [index, bytes] of sorted.entries()) {
    const hasMore = (view(bytes).getUint16(20) & 0x2000) !== 0;
    if (offsetOf(bytes) !== expected) throw new Error(`A hole at ${expected}`);
    if (hasMore === (index === sorted.length - 1)) throw new Error('Wrong more-fragments flag');
    expected += bytes.length - 34;
  }
}

function withDf(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const at = view(bytes);
  const sum = (~at.getUint16(24) & 0xffff) + 0x4000;
  at.setUint16(20, at.getUint16(20) | 0x4000);
  at.setUint16(24, ~((sum & 0xffff) + (sum >>> 16)) & 0xffff);
  return bytes;
}

test('a TCP superframe is cut to what the path carries, whatever size it asks for', (t) => {
  const { carry } = makeWire(t);
  fc.assert(
    fc.property(
      fc.integer({ min: 100, max: 1400 }),
      fc.integer({ min: 1, max: 20_000 }),
      (gsoBytes, length) => {
        const superframe = ethernetFrame({
          ...FLOW,
          tcpFlags: 0x18,
          payload: randomBytes(length, length),
          partial: true,
        });
        const { told, frames } = carry(superframe, partial(GSO_TCPV4, gsoBytes));
        t.equal(told, 0);
        const fitting = Math.min(gsoBytes, INNER_MTU - 40);
        t.same(frames, slowSegments(superframe, fitting));
        t.ok(frames.every((bytes) => bytes.length - ETHERNET <= INNER_MTU));
      },
    ),
    { numRuns: 40 },
  );
  t.end();
});

test('a TCP segment that is too large becomes several, DF or not', (t) => {
  const { carry } = makeWire(t);
  for (const length of [1190, 1191, 1400]) {
    const bytes = withDf(
      ethernetFrame({ ...FLOW, tcpFlags: 0x19, payload: randomBytes(length, 5), partial: true }),
    );
    const { told, frames } = carry(bytes, partial(GSO_NONE, 0));
    t.equal(told, 0);
    t.equal(frames.length, length > 1190 ? 2 : 1);
    for (const frame of frames) t.same(wrongChecksums(view(frame.slice())), []);
    t.same(
      frames.flatMap((frame) => [...frame.subarray(54)]),
      [...randomBytes(length, 5)],
    );
    const flags = frames.map((frame) => frame[47]);
    t.same(flags, length > 1190 ? [0x10, 0x19] : [0x19], 'FIN and PSH go with the last');
  }
  t.end();
});

for (const [name, tcpFlags] of [
  ['SYN', 0x02],
  ['RST', 0x14],
  ['URG', 0x30],
] as const) {
  test(`a TCP segment with ${name} is never cut`, (t) => {
    const { carry } = makeWire(t);
    const bytes = withDf(ethernetFrame({ ...FLOW, tcpFlags, payload: new Uint8Array(1300) }));
    const { told, frames } = carry(bytes);
    t.equal(told, INNER_MTU);
    t.same(frames, []);
    t.end();
  });
}

for (const [name, spec] of [
  ['UDP', { protocol: PROTO_UDP }],
  ['a ping', { protocol: PROTO_ICMP, icmpType: 8 }],
  ['another protocol', { protocol: 132 }],
] as const) {
  test(`${name} without DF leaves in fragments, with DF its sender is told`, (t) => {
    const { carry } = makeWire(t);
    for (const [ipBytes, count] of [
      [INNER_MTU - 1, 1],
      [INNER_MTU, 1],
      [INNER_MTU + 1, 2],
      [1500, 2],
      [3000, 3],
    ] as const) {
      const headers = 28;
      const bytes = ethernetFrame({ ...FLOW, ...spec, payload: randomBytes(ipBytes - headers, 3) });
      const { told, frames } = carry(bytes.slice());
      t.equal(told, 0);
      t.equal(frames.length, count, `${ipBytes} bytes`);
      t.ok(frames.every((frame) => frame.length - ETHERNET <= INNER_MTU));
      for (const frame of frames) t.same(wrongChecksums(view(frame.slice())), []);
      t.same(reassembled(frames), bytes.slice(34));
      t.match(carry(withDf(bytes)), count === 1 ? { told: 0 } : { told: INNER_MTU, frames: [] });
    }
    t.end();
  });
}

test('a fragment that is too large is cut again', (t) => {
  const { carry } = makeWire(t);
  const bytes = ethernetFrame({
    ...FLOW,
    protocol: PROTO_UDP,
    payload: randomBytes(1400, 9),
    moreFragments: true,
    fragmentOffset: 1480,
  });
  const { told, frames } = carry(bytes);
  t.equal(told, 0);
  t.same(
    frames.map((frame) => view(frame).getUint16(20)),
    [0x2000 | (1480 / 8), 0x2000 | ((1480 + 1208) / 8)],
  );
  t.end();
});

test('the checksum of a datagram is completed before it is cut', (t) => {
  const { carry } = makeWire(t);
  const spec: FrameSpec = { ...FLOW, protocol: PROTO_UDP, payload: randomBytes(2000, 1) };
  const { frames } = carry(ethernetFrame({ ...spec, partial: true }), {
    ...partial(GSO_UDP_L4, 0),
    gsoType: GSO_NONE,
  });
  t.same(reassembled(frames), ethernetFrame(spec).slice(34));
  t.end();
});

test('datagrams of a UDP superframe that fit leave whole', (t) => {
  const { carry } = makeWire(t);
  const superframe = ethernetFrame({
    ...FLOW,
    protocol: PROTO_UDP,
    payload: randomBytes(5000, 2),
    partial: true,
  });
  const { told, frames } = carry(superframe, partial(GSO_UDP_L4, INNER_MTU - 28));
  t.equal(told, 0);
  t.same(frames, slowSegments(superframe, INNER_MTU - 28));
  t.end();
});

test('datagrams of a UDP superframe that do not fit leave in fragments, or their sender is told', (t) => {
  const { carry } = makeWire(t);
  const superframe = ethernetFrame({
    ...FLOW,
    protocol: PROTO_UDP,
    payload: randomBytes(5000, 2),
    partial: true,
  });
  const { told, frames } = carry(superframe.slice(), partial(GSO_UDP_L4, 1400));
  t.equal(told, 0);
  t.ok(frames.every((frame) => frame.length - ETHERNET <= INNER_MTU));
  const groups = Map.groupBy(frames, (frame) => view(frame).getUint16(18));
  t.same(
    [...groups.values()].map((fragments) => reassembled(fragments)),
    slowSegments(superframe, 1400).map((datagram) => datagram.slice(34)),
  );
  t.match(carry(withDf(superframe), partial(GSO_UDP_L4, 1400)), { told: INNER_MTU, frames: [] });
  t.end();
});

const FLOW6 = { from: '[fd00::11]:5000', to: '[fd00::12]:80' };

test('a TCP superframe over IPv6 is cut to what the path carries', (t) => {
  const { carry } = makeWire(t);
  const payload = randomBytes(9000, 4);
  const superframe = ethernetFrame({ ...FLOW6, tcpFlags: 0x18, payload, partial: true });
  const offload = { ...partial(GSO_TCPV6, 1400), checksumStart: 54 };
  const { told, frames } = carry(superframe, offload);
  t.equal(told, 0);
  t.equal(frames.length, Math.ceil(9000 / (INNER_MTU - 60)));
  for (const frame of frames) {
    t.ok(frame.length - ETHERNET <= INNER_MTU);
    t.same(wrongChecksums(view(frame.slice())), []);
  }
  t.same(
    frames.flatMap((frame) => [...frame.subarray(74)]),
    [...payload],
  );
  t.end();
});

test('IPv6 up to 1280 bytes leaves whole, of more the sender is told', (t) => {
  const { carry } = makeWire(t);
  for (const [ipBytes, told] of [
    [INNER_MTU, 0],
    [INNER_MTU + 1, 0],
    [1280, 0],
    [1281, 1280],
    [1450, 1280],
  ] as const) {
    const payload = randomBytes(ipBytes - 48, 6);
    const bytes = ethernetFrame({ ...FLOW6, protocol: PROTO_UDP, payload });
    const carried = carry(bytes.slice());
    t.equal(carried.told, told, `${ipBytes} bytes`);
    t.same(carried.frames, told === 0 ? [bytes] : []);
  }
  t.end();
});

test('datagrams of a UDP superframe over IPv6 leave whole up to 1280 bytes', (t) => {
  const { carry } = makeWire(t);
  const payload = randomBytes(5000, 8);
  const superframe = ethernetFrame({ ...FLOW6, protocol: PROTO_UDP, payload, partial: true });
  const offload = { ...partial(GSO_UDP_L4, 1232), checksumStart: 54 };
  const { told, frames } = carry(superframe.slice(), offload);
  t.equal(told, 0);
  t.same(
    frames.map((frame) => frame.length - ETHERNET - 48),
    [1232, 1232, 1232, 1232, 72],
  );
  for (const frame of frames) t.same(wrongChecksums(view(frame.slice())), []);
  t.same(
    frames.flatMap((frame) => [...frame.subarray(62)]),
    [...payload],
  );
  t.match(carry(superframe, { ...offload, gsoBytes: 1233 }), { told: 1280, frames: [] });
  t.end();
});

test('a SYN to the peer announces what the path carries', (t) => {
  const { carry } = makeWire(t);
  const options = Uint8Array.of(2, 4, 0x05, 0xb4);
  const syn = ethernetFrame({ ...FLOW, tcpFlags: TCP_SYN, tcpOptions: options });
  const { frames } = carry(syn);
  t.equal(frames.length, 1);
  t.equal(view(frames[0] ?? syn).getUint16(56), INNER_MTU - 40);
  t.same(wrongChecksums(view((frames[0] ?? syn).slice())), []);
  t.end();
});

test('the kernel’s refusal of a size is told', (t) => {
  const { egress, arena, at, peer, counters, refused } = makeWire(t);
  peer.setPathMtu(70_000); // more than any path carries
  const bytes = ethernetFrame({ ...FLOW, protocol: PROTO_UDP, payload: new Uint8Array(65_470) });
  arena.bytes.set(bytes, at);
  egress.send(parsedAt(arena.view, at, bytes.length), new Offload(), VNI, peer);
  egress.flush();
  t.same(refused, [peer.port], 'no datagram is that large');
  t.equal(counters.drops()['send-failed'], 1);
  t.end();
});

// ---- what the sender is told ----

/** Decides about a packet that is too big for its way, and answers it. */
function tooBig(world: World, from: 'alice' | 'host', spec: FrameSpec) {
  const port = world.ports[from];
  world.bytes.fill(0xee);
  const payload = new Uint8Array(1300);
  const bytes = ethernetFrame({ fromMac: port.mac, protocol: PROTO_UDP, payload, ...spec });
  world.bytes.set(bytes, world.start);
  const { action } = world.decide.fromPort(port, world.start, bytes.length, false, NOW_MS);
  if (action !== 'vtep') throw new Error(`Expected it to leave for a VTEP: ${action}`);
  const decision = world.decide.tooBig(port, INNER_MTU, NOW_MS);
  const { answerStart, answerBytes } = decision;
  return { decision, answer: world.bytes.slice(answerStart, answerStart + answerBytes) };
}

function bigWorld(): World {
  const memory = new DataView(new ArrayBuffer(8192));
  return new World(memory, 0, 2048);
}

test('a sender is told by the gateway how much passes', (t) => {
  const world = bigWorld();
  const spec = { from: '240.0.1.11:4000', to: '240.0.1.13:7000' };
  const { decision, answer } = tooBig(world, 'alice', spec);
  t.match(decision, { action: 'back', answer: 'too-big' });
  const packet = parsedAt(view(answer), 0, answer.length);
  t.match(packet, {
    destinationMac: world.ports.alice.mac,
    sourceMac: GATEWAY_MAC,
    source: parseIpv4('240.0.1.1'),
    destination: parseIpv4('240.0.1.11'),
    icmpType: 3,
  });
  t.same(wrongChecksums(view(answer)), []);
  const quoted = new QuotedPacket();
  t.ok(readQuotedPacket(view(answer), packet, quoted));
  t.match(quoted, { sourcePort: 4000, destinationPort: 7000 });
  t.end();
});

test('a client of a VIP is told about the packet that it sent, not about what the mesh made of it', (t) => {
  const world = bigWorld();
  for (const [from, spec] of [
    ['alice', { from: '240.0.1.11:4000', to: `${VIPS.remote}:80`, toMac: GATEWAY_MAC }],
    ['host', { from: '192.0.2.7:4000', to: `${VIPS.publishedRemote}:80`, toMac: GATEWAY_MAC }],
  ] as const) {
    const { decision, answer } = tooBig(world, from, spec);
    t.match(decision, { action: 'back', answer: 'too-big' });
    const packet = parsedAt(view(answer), 0, answer.length);
    const [client = '', vip = ''] = [spec.from, spec.to].map((text) => text.split(':')[0]);
    t.match(packet, {
      destinationMac: world.ports[from].mac,
      source: parseIpv4(vip),
      destination: parseIpv4(client),
    });
    const quoted = new QuotedPacket();
    t.ok(readQuotedPacket(view(answer), packet, quoted));
    t.match(quoted, {
      source: AddressWords.of(parseIpv4(client)),
      destination: AddressWords.of(parseIpv4(vip)),
      sourcePort: 4000,
      destinationPort: 80,
    });
    t.same(wrongChecksums(view(answer)), []);
  }
  t.end();
});

test('so it is by IPv6', (t) => {
  const world = bigWorld();
  for (const [from, spec, speaker] of [
    ['alice', { from: '240.0.1.11:4000', to: '240.0.1.13:7000' }, '240.0.1.1'],
    [
      'alice',
      { from: '240.0.1.11:4000', to: `${VIPS.remote}:80`, toMac: GATEWAY_MAC },
      VIPS.remote,
    ],
    [
      'host',
      { from: '192.0.2.7:4000', to: `${VIPS.publishedRemote}:80`, toMac: GATEWAY_MAC },
      VIPS.publishedRemote,
    ],
  ] as const) {
    const { from: client, to } = spec;
    const inV6 = { ...spec, from: inFamily(6, client), to: inFamily(6, to) };
    const { decision, answer } = tooBig(world, from, inV6);
    t.match(decision, { action: 'back', answer: 'too-big' });
    const packet = parsedAt(view(answer), 0, answer.length);
    t.match(packet, { destinationMac: world.ports[from].mac, family: 6, icmpType: 2 });
    t.equal(addressAt(answer, packet.sourceStart), inFamily(6, speaker), 'who speaks');
    t.equal(addressAt(answer, packet.destinationStart), inFamily(6, client.split(':')[0] ?? ''));
    t.equal(view(answer).getUint32(packet.l4Start + 4), 1280, 'IPv6 has no smaller link');
    const quoted = new QuotedPacket();
    t.ok(readQuotedPacket(view(answer), packet, quoted));
    t.match(quoted, { sourcePort: 4000, destinationPort: Number(to.split(':')[1]) });
    t.same(wrongChecksums(view(answer)), []);
  }
  t.end();
});

function addressAt(bytes: Uint8Array, offset: number): string {
  const words = new AddressWords();
  words.read(view(bytes), offset, 6);
  return formatIp(words.toIp());
}

test('a task is told about its reply to a client outside', (t) => {
  const world = bigWorld();
  const request = { from: '192.0.2.7:4000', to: '240.0.1.11:80', fromMac: GATEWAY_MAC };
  world.send(BLUE, { ...request, protocol: PROTO_UDP });
  const { answer } = tooBig(world, 'alice', {
    from: '240.0.1.11:80',
    to: '192.0.2.7:4000',
    toMac: GATEWAY_MAC,
  });
  const packet = parsedAt(view(answer), 0, answer.length);
  t.match(packet, { destination: parseIpv4('240.0.1.11'), icmpType: 3 });
  t.equal(packet.destinationMac, world.ports.alice.mac);
  t.end();
});

test('answers are held back: so many to one port', (t) => {
  const world = bigWorld();
  const spec = { from: '240.0.1.11:4000', to: '240.0.1.13:7000' };
  const actions = Array.from({ length: 60 }, () => tooBig(world, 'alice', spec).decision.action);
  t.equal(actions.filter((action) => action === 'back').length, 50);
  const host = { from: '192.0.2.7:4000', to: `${VIPS.publishedRemote}:80`, toMac: GATEWAY_MAC };
  t.equal(tooBig(world, 'host', host).decision.action, 'back', 'another port has its own');
  t.end();
});

test('what must not be answered is dropped', (t) => {
  const world = bigWorld();
  const spec = { from: '240.0.1.11', to: '240.0.1.13', protocol: PROTO_ICMP, icmpType: 3 };
  t.equal(tooBig(world, 'alice', spec).decision.action, 'drop');
  t.end();
});
