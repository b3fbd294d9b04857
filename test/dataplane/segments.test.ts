import fc from 'fast-check';
import { type Test, test } from 'tap';
import { fold16, sum16BigEndian } from '../../src/core/checksum.ts';
import { PROTO_ICMP, PROTO_TCP, PROTO_UDP } from '../../src/core/packet.ts';
import { Coalescer } from '../../src/dataplane/coalesce.ts';
import { Egress } from '../../src/dataplane/egress.ts';
import {
  GSO_NONE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
  Offload,
  readOffload,
  writeNeedsChecksum,
  writePlain,
  writeSuperframe,
} from '../../src/dataplane/offload.ts';
import { partialChecksumStart } from '../../src/dataplane/partial-checksum.ts';
import { Peers } from '../../src/dataplane/peers.ts';
import type { Arena } from '../../src/io/linux/arena.ts';
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
  seal,
  slowSegments,
  vxlanDatagram,
} from './frames.ts';
import { secureSessions } from './secure.ts';

const VNI = 0x12_3456;
const ACK = 0x10;
const PSH = 0x08;
const FIN = 0x01;
const TIMESTAMPS = Uint8Array.of(1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8);
const CLIENT = '240.0.0.11:5000';
const SERVER = '240.0.0.12:80';
const CLIENT6 = '[fd00::11]:5000';
const SERVER6 = '[fd00::12]:80';

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
}

// ---- virtio-net headers ----

test('virtio-net headers are those of virtio 1.2 section 5.1.6', (t) => {
  const bytes = new Uint8Array(14);
  const view = new DataView(bytes.buffer);
  for (const [name, write, expected] of [
    ['plain', () => writePlain(view, 2), '00 00 0000 0000 0000 0000'],
    ['partial checksum', () => writeNeedsChecksum(view, 2, 34, 16), '01 00 0000 0000 2200 1000'],
    [
      'TCP superframe',
      () =>
        writeSuperframe(view, 2, {
          gsoType: GSO_TCPV4,
          headerBytes: 66,
          gsoBytes: 1448,
          checksumStart: 34,
          checksumOffset: 16,
        }),
      '01 01 4200 a805 2200 1000',
    ],
  ] as const) {
    bytes.fill(0xee);
    write();
    t.equal(hex(bytes), `eeee${expected.replaceAll(' ', '')}eeee`, name);
  }
  t.end();
});

for (const [name, header, expected] of [
  ['nothing', '0000 0000 0000 0000 0000', { needsChecksum: false, gsoType: GSO_NONE }],
  [
    'a partial checksum',
    '0100 0000 0000 2200 1000',
    { needsChecksum: true, checksumStart: 34, checksumOffset: 16 },
  ],
  ['a TCP superframe', '0101 4200 a805 2200 1000', { gsoType: GSO_TCPV4, gsoBytes: 1448 }],
  ['one with ECN', '0181 4200 a805 2200 1000', { gsoType: GSO_TCPV4, gsoBytes: 1448 }],
  ['a UDP superframe', '0105 2a00 7805 2200 0600', { gsoType: GSO_UDP_L4, gsoBytes: 1400 }],
  ['other flags', '0600 0000 0000 0000 0000', { needsChecksum: false }],
] as const) {
  test(`readOffload() of ${name}`, (t) => {
    const bytes = Uint8Array.from(Buffer.from(`ee${header.replaceAll(' ', '')}`, 'hex'));
    const offload = new Offload();
    readOffload(new DataView(bytes.buffer), 1, offload);
    t.match(offload, expected);
    offload.clear();
    t.match(offload, { needsChecksum: false, gsoType: GSO_NONE, gsoBytes: 0 });
    t.end();
  });
}

// ---- partial checksums ----

const PLAIN: FrameSpec = { from: CLIENT, to: SERVER, payload: randomBytes(101, 7) };

/** A frame whose complete checksum happens to be what a partial one would hold. */
function deceptive(protocol: number): Uint8Array {
  const base: FrameSpec = { ...PLAIN, protocol, payload: new Uint8Array(2) };
  const partial = ethernetFrame({ ...base, partial: true });
  const at = protocol === PROTO_TCP ? 50 : 40;
  const wanted = new DataView(partial.buffer).getUint16(at);
  for (let word = 0; word <= 0xffff; word++) {
    const bytes = ethernetFrame({ ...base, payload: Uint8Array.of(word >>> 8, word & 0xff) });
    if (new DataView(bytes.buffer).getUint16(at) === wanted) return bytes;
  }
  throw new Error('No payload gives that checksum');
}

/** The folded sum that a partial checksum of `l4Bytes` holds. */
function pseudoHeaderSum(bytes: Uint8Array, l4Bytes: number): number {
  const view = new DataView(bytes.buffer);
  return fold16(sum16BigEndian(view, 26, 8) + view.getUint8(23) + l4Bytes);
}

const udp = { ...PLAIN, protocol: PROTO_UDP };
const PLAIN6: FrameSpec = { ...PLAIN, from: CLIENT6, to: SERVER6 };
const udp6 = { ...PLAIN6, protocol: PROTO_UDP };
const partial = { partial: true } as const;
const PARTIAL_CASES: readonly [string, Uint8Array, number][] = [
  ['complete TCP', ethernetFrame(PLAIN), 0],
  ['complete UDP', ethernetFrame(udp), 0],
  ['UDP without checksum', ethernetFrame({ ...udp, noChecksum: true }), 0],
  ['partial TCP', ethernetFrame({ ...PLAIN, ...partial }), 34],
  ['partial TCP with options', ethernetFrame({ ...PLAIN, ...partial, tcpOptions: TIMESTAMPS }), 34],
  ['partial UDP', ethernetFrame({ ...udp, ...partial }), 34],
  ['partial UDP behind IP options', ethernetFrame({ ...udp, ...partial, ipOptions: 2 }), 42],
  ['a first fragment', ethernetFrame({ ...udp, ...partial, moreFragments: true }), 0],
  ['a later fragment', ethernetFrame({ ...udp, fragmentOffset: 8 }), 0],
  ['ICMP', ethernetFrame({ ...PLAIN, protocol: PROTO_ICMP }), 0],
  ['complete TCP over IPv6', ethernetFrame(PLAIN6), 0],
  ['partial TCP over IPv6', ethernetFrame({ ...PLAIN6, ...partial }), 54],
  ['partial UDP over IPv6', ethernetFrame({ ...udp6, ...partial }), 54],
  ['partial UDP behind IPv6 options', ethernetFrame({ ...udp6, ...partial, ipOptions: 2 }), 70],
  ['a first fragment of IPv6', ethernetFrame({ ...udp6, ...partial, moreFragments: true }), 0],
  ['a later fragment of IPv6', ethernetFrame({ ...udp6, fragmentOffset: 8 }), 0],
  ['complete TCP that looks partial', deceptive(PROTO_TCP), 0],
  ['complete UDP that looks partial', deceptive(PROTO_UDP), 0],
];

test('partialChecksumStart() tells frames whose checksum the sender left to the device', (t) => {
  const { arena, checksum } = makePacketMemory();
  const at = arena.allocate(512) + 7;
  for (const [name, bytes, start] of PARTIAL_CASES) {
    arena.bytes.fill(0xee, at - 7, at + 500);
    arena.bytes.set(bytes, at);
    t.equal(partialChecksumStart(arena.view, checksum, at, bytes.length), start, name);
    for (let length = 0; length < bytes.length; length++) {
      const found = partialChecksumStart(arena.view, checksum, at, length);
      if (found !== 0) t.fail(`${name}, cut to ${length} bytes: ${found}`);
    }
  }
  const short = ethernetFrame({ ...PLAIN, ...partial });
  new DataView(short.buffer).setUint16(16, 30);
  new DataView(short.buffer).setUint16(50, pseudoHeaderSum(short, 10));
  arena.bytes.set(short, at);
  const inHeader = partialChecksumStart(arena.view, checksum, at, short.length);
  t.equal(inHeader, 0, 'half a TCP header, and the sum behind it');
  const bytes = ethernetFrame({ ...PLAIN, ...partial });
  arena.bytes.set(bytes, at);
  const padded = bytes.length + 9;
  t.equal(partialChecksumStart(arena.view, checksum, at, padded), 34, 'padding does not matter');
  for (const [etherType, what] of [
    [0x86dd, 'IPv4 under the type of IPv6'],
    [0x8100, 'neither'],
  ] as const) {
    arena.view.setUint16(at + 12, etherType);
    t.equal(partialChecksumStart(arena.view, checksum, at, bytes.length), 0, what);
  }
  t.end();
});

// ---- coalescing ----

/** Puts datagrams one behind the other, as UDP_GRO delivers them, and joins what the first one leads. */
function joinAll(frames: readonly Uint8Array[], vnis: readonly number[] = []) {
  const { arena, checksum } = makePacketMemory();
  const coalescer = new Coalescer(arena, checksum);
  const datagrams = frames.map((bytes, index) => vxlanDatagram(vnis[index] ?? VNI, bytes));
  const stride = datagrams[0]?.length ?? 0;
  const at = arena.allocate(stride * datagrams.length + 64) + 2;
  for (const [index, bytes] of datagrams.entries()) arena.bytes.set(bytes, at + index * stride);
  const last = datagrams.at(-1)?.length ?? 0;
  const end = at + (datagrams.length - 1) * stride + last;
  coalescer.join(at, stride, end);
  return { arena, coalescer, at, stride, end };
}

/** What the last `join()` of the datagram at `at` made: headers, and the payload that iovecs describe. */
function joinedFrame(arena: Arena, coalescer: Coalescer, at: number): Uint8Array {
  const { headerBytes, payloadBytes, gsoBytes, segments, iovecs } = coalescer;
  const bytes = new Uint8Array(headerBytes + payloadBytes);
  const head = headerBytes + gsoBytes;
  bytes.set(arena.bytes.subarray(at + 8, at + 8 + head));
  let end = head;
  for (let index = 1; index < segments; index++) {
    const vector = iovecs + index * 16;
    const address = arena.view.getBigUint64(vector, true);
    const length = Number(arena.view.getBigUint64(vector + 8, true));
    const source = Number(address - BigInt(arena.base));
    bytes.set(arena.bytes.subarray(source, source + length), end);
    end += length;
  }
  if (end !== bytes.length) throw new Error(`${end} bytes joined, not ${bytes.length}`);
  return bytes;
}

/** Three segments of 100, 100 and 60 bytes, of one superframe. */
function threeSegments(spec: Partial<FrameSpec> = {}): Uint8Array[] {
  return slowSegments(
    ethernetFrame({
      from: CLIENT,
      to: SERVER,
      payload: randomBytes(260, 3),
      tcpOptions: TIMESTAMPS,
      ...spec,
    }),
    100,
  );
}

/** Changes one byte of one frame; its checksums are right again unless the change is to them. */
function edit(frames: Uint8Array[], index: number, at: number, value: number, reseal = true): void {
  const bytes = frames[index];
  if (bytes === undefined) throw new Error(`There is no segment ${index}`);
  bytes[at] = (bytes[at] ?? 0) ^ value;
  if (reseal) seal(bytes);
}

// [what differs, in which segment, at which byte of the frame, by which bits, segments joined]
const RULES: readonly (readonly [string, number, number, number, number])[] = [
  ['nothing', 1, 0, 0, 3],
  ['the destination MAC', 1, 5, 1, 1],
  ['the source MAC', 1, 6, 2, 1],
  ['the type of service', 1, 15, 4, 1],
  ['congestion experienced (ECN)', 1, 15, 3, 1],
  ['the identification, which says nothing', 1, 18, 0x55, 3],
  ['don’t fragment', 1, 20, 0x40, 1],
  ['more fragments', 1, 20, 0x20, 1],
  ['time to live', 1, 22, 1, 1],
  ['the protocol', 1, 23, 23, 1],
  ['the source address', 1, 29, 1, 1],
  ['the destination address', 1, 30, 0x80, 1],
  ['the source port', 1, 35, 1, 1],
  ['the destination port', 1, 36, 1, 1],
  ['the sequence number', 1, 41, 1, 1],
  ['the acknowledgment', 1, 42, 0x80, 1],
  ['the header length', 1, 46, 0x10, 1],
  ['the window', 1, 49, 1, 1],
  ['a timestamp', 1, 61, 1, 1],
  ['FIN', 1, 47, FIN, 1],
  ['SYN', 1, 47, 0x02, 1],
  ['RST', 1, 47, 0x04, 1],
  ['URG', 1, 47, 0x20, 1],
  ['ECE', 1, 47, 0x40, 1],
  ['CWR', 1, 47, 0x80, 1],
  ['no ACK', 1, 47, ACK, 1],
  ['PSH, which ends a run', 1, 47, PSH, 2],
  ['PSH on the last one', 2, 47, PSH, 3],
  ['FIN on the last one', 2, 47, FIN, 2],
  ['PSH on the first one', 0, 47, PSH, 1],
  ['SYN on the first one', 0, 47, 0x02, 1],
  ['the first one is a fragment', 0, 20, 0x20, 1],
  ['the first one has IP options', 0, 14, 0x03, 1],
  ['the first one is no TCP', 0, 23, 23, 1],
  ['the first one is no IPv4', 0, 12, 0x80, 1],
];

for (const [name, index, at, bits, segments] of RULES) {
  test(`join() of three segments where one differs: ${name}`, (t) => {
    const frames = threeSegments();
    // A changed header length moves the transport header: then nothing is left to seal.
    edit(frames, index, at, bits, at !== 14 && at !== 12);
    t.equal(joinAll(frames).coalescer.segments, segments);
    t.end();
  });
}

const UDP_RULES: typeof RULES = [
  ['nothing', 1, 0, 0, 3],
  ['the identification, which says nothing', 1, 18, 0x55, 3],
  ['may be fragmented', 1, 20, 0x40, 1],
  ['the first one may be fragmented', 0, 20, 0x40, 1],
  ['the last one may be fragmented', 2, 20, 0x40, 2],
  ['time to live', 1, 22, 1, 1],
  ['the source address', 1, 29, 1, 1],
  ['the source port', 1, 35, 1, 1],
  ['the destination port', 2, 36, 1, 2],
  ['the length', 1, 39, 1, 1],
  ['the length of the first one', 0, 39, 1, 1],
];
const IPV6_RULES: typeof RULES = [
  ['nothing', 1, 0, 0, 3],
  ['the traffic class', 1, 15, 0x10, 1],
  ['the flow label', 1, 17, 1, 1],
  ['the next header', 1, 20, 23, 1],
  ['the hop limit', 1, 21, 1, 1],
  ['the first word of the source', 1, 22, 1, 1],
  ['the last word of the source', 1, 37, 1, 1],
  ['the first word of the destination', 2, 38, 1, 2],
  ['the last word of the destination', 1, 53, 1, 1],
  ['the source port', 1, 55, 1, 1],
  ['the sequence number', 1, 61, 1, 1],
  ['the first one is no IPv6', 0, 14, 0x10, 1],
];

for (const [family, rules, spec] of [
  ['UDP', UDP_RULES, { protocol: PROTO_UDP, tcpOptions: undefined, dontFragment: true }],
  ['IPv6', IPV6_RULES, { from: CLIENT6, to: SERVER6 }],
] as const) {
  for (const [name, index, at, bits, segments] of rules) {
    test(`join() of three segments of ${family} where one differs: ${name}`, (t) => {
      const frames = threeSegments(spec as Partial<FrameSpec>);
      edit(frames, index, at, bits);
      t.equal(joinAll(frames).coalescer.segments, segments);
      t.end();
    });
  }
}

test('join() keeps UDP without checksum as it is', (t) => {
  const spec = { from: CLIENT, to: SERVER, protocol: PROTO_UDP, dontFragment: true } as const;
  const bare = ethernetFrame({ ...spec, noChecksum: true, payload: randomBytes(50, 2) });
  new DataView(bare.buffer).setUint16(40, 0);
  t.equal(joinAll([bare, bare, bare]).coalescer.segments, 1);
  t.end();
});

test('join() verifies checksums and lengths of every segment', (t) => {
  for (const [name, index, at, segments] of [
    ['a payload byte of the first', 0, 80, 1],
    ['a payload byte of the second', 1, 80, 1],
    ['a payload byte of the last', 2, 80, 2],
    ['the IP checksum of the second', 1, 24, 1],
    ['the TCP checksum of the second', 1, 50, 1],
  ] as const) {
    const frames = threeSegments();
    edit(frames, index, at, 0x10, false);
    t.equal(joinAll(frames).coalescer.segments, segments, name);
  }
  for (const index of [0, 1]) {
    const frames = threeSegments();
    edit(frames, index, 17, 0x08); // total length: the packet ends 8 bytes before its frame
    t.equal(joinAll(frames).coalescer.segments, 1, `padding in segment ${index}`);
  }
  t.end();
});

test('join() keeps networks apart', (t) => {
  t.equal(joinAll(threeSegments(), [VNI, VNI + 1, VNI]).coalescer.segments, 1);
  t.equal(joinAll(threeSegments(), [VNI, VNI, VNI + 1]).coalescer.segments, 2);
  t.end();
});

test('join() accepts partial checksums, each segment for itself', (t) => {
  const frames = threeSegments();
  seal(frames[1] ?? new Uint8Array(), true);
  const { arena, coalescer, at } = joinAll(frames);
  t.equal(coalescer.segments, 3);
  const expected = ethernetFrame({
    from: CLIENT,
    to: SERVER,
    payload: randomBytes(260, 3),
    tcpOptions: TIMESTAMPS,
    partial: true,
  });
  t.equal(hex(joinedFrame(arena, coalescer, at)), hex(expected));
  t.end();
});

test('join() leaves a single datagram, a pure ACK and a short end alone', (t) => {
  t.equal(joinAll(threeSegments().slice(0, 1)).coalescer.segments, 1);
  const [first, second] = threeSegments();
  const ack = ethernetFrame({
    from: CLIENT,
    to: SERVER,
    sequence: 1100,
    tcpOptions: TIMESTAMPS,
  });
  t.equal(joinAll([first ?? ack, ack]).coalescer.segments, 1, 'no payload');
  t.equal(joinAll([ack, ack]).coalescer.segments, 1, 'nothing but ACKs');
  const cut = (second ?? ack).subarray(0, 20);
  t.equal(joinAll([first ?? ack, cut]).coalescer.segments, 1, 'cut in its IP header');
  t.end();
});

test('join() cuts at a full IP packet and at 128 segments', (t) => {
  const many = (gsoBytes: number, count: number): Uint8Array[] => {
    let sequence = 0xffff_ff00; // wraps on the way
    return Array.from({ length: count }, (_, index) => {
      const bytes = ethernetFrame({
        ...PLAIN,
        payload: randomBytes(gsoBytes, index + 1),
        sequence,
      });
      sequence = (sequence + gsoBytes) >>> 0;
      return bytes;
    });
  };
  const full = joinAll(many(1448, 50));
  t.equal(full.coalescer.segments, 45, '45 * 1448 + 40 <= 65,535 < 46 * 1448 + 40');
  t.same(
    wrongChecksums(new DataView(joinedFrame(full.arena, full.coalescer, full.at).buffer), 0, true),
    [],
  );
  t.equal(joinAll(many(10, 200)).coalescer.segments, 128);
  t.end();
});

// ---- segmenting, and back ----

/** A sender, the wire and a receiver in one arena. */
function makeWire(t: Test) {
  const memory = makePacketMemory();
  const { arena, checksum, counters, taps } = memory;
  const underlay = new LoopbackUnderlay(arena);
  const secure = secureSessions(arena, counters, new Peers());
  const egress = new Egress({ arena, checksum, counters, taps, vtepAddress: LOOPBACK, secure });
  const coalescer = new Coalescer(arena, checksum);
  const at = arena.allocate(70_000) + 34;
  const peer = loopbackPeer(underlay.port);
  t.teardown(() => {
    egress.close();
    underlay.close();
  });
  /** Sends `bytes` and gives what arrives: the datagrams, and the frames that they were joined to. */
  function carry(bytes: Uint8Array, offload: Offload) {
    arena.bytes.set(bytes, at);
    const before = counters.traffic()['underlay-datagrams-out'];
    const packet = parsedAt(arena.view, at, bytes.length);
    egress.send(packet, offload, VNI, peer);
    egress.flush();
    const sent = counters.traffic()['underlay-datagrams-out'] - before;
    const datagrams: Uint8Array[] = [];
    const joined: { bytes: Uint8Array; gsoBytes: number; segments: number }[] = [];
    underlay.drain(sent, (start, stride, end) => {
      for (let next = start; next < end; next += stride) {
        datagrams.push(arena.bytes.slice(next, Math.min(next + stride, end)));
      }
      for (let next = start; next < end; next += stride * coalescer.segments) {
        coalescer.join(next, stride, end);
        const { segments, gsoBytes } = coalescer;
        const alone = arena.bytes.slice(next + 8, Math.min(next + stride, end));
        const frame = segments > 1 ? joinedFrame(arena, coalescer, next) : alone;
        joined.push({ bytes: frame, gsoBytes, segments });
      }
    });
    return { datagrams, joined };
  }
  return { carry, counters, peer, egress, arena, at };
}

function offloadOf(gsoType: number, gsoBytes: number, needsChecksum = true): Offload {
  return Object.assign(new Offload(), {
    gsoType,
    gsoBytes,
    needsChecksum,
    checksumStart: 34,
    checksumOffset: gsoType === GSO_UDP_L4 ? 6 : 16,
  });
}

/** For properties: frames are too long to show whole. */
function mustEqual(found: readonly Uint8Array[], expected: readonly Uint8Array[], what: string) {
  if (found.length !== expected.length) {
    throw new Error(`${what}: ${found.length} instead of ${expected.length}`);
  }
  for (const [index, bytes] of expected.entries()) {
    const other = found[index] ?? new Uint8Array();
    if (Buffer.compare(other, bytes) === 0) continue;
    const at = bytes.findIndex((byte, place) => byte !== other[place]);
    throw new Error(`${what}: number ${index} (${other.length} bytes) differs from byte ${at} on`);
  }
}

test('segmenting a superframe and coalescing it back gives the same bytes', (t) => {
  const { carry, counters } = makeWire(t);
  let whole = 0;
  const superframe = fc
    .record({
      payloadBytes: fc.integer({ min: 1, max: 65_400 }),
      gsoBytes: fc.integer({ min: 400, max: 9_000 }),
      seed: fc.nat(),
      isTcp: fc.boolean(),
      isV6: fc.boolean(),
      tcpFlags: fc.constantFrom(ACK, ACK | PSH, ACK | FIN, ACK | PSH | FIN, 0x50),
      sequence: fc.nat({ max: 0xffff_ffff }),
      identification: fc.nat({ max: 0xffff }),
      tcpOptions: fc.constantFrom(new Uint8Array(0), TIMESTAMPS),
      ipOptions: fc.constantFrom(0, 0, 3),
      dontFragment: fc.boolean(),
    })
    .map(({ payloadBytes, seed, isTcp, isV6, gsoBytes, tcpOptions, ...rest }) => ({
      gsoBytes,
      isTcp,
      tcpFlags: rest.tcpFlags,
      isV6,
      plain: rest.ipOptions === 0,
      dontFragment: isV6 || rest.dontFragment,
      bytes: ethernetFrame({
        ...rest,
        ...(isTcp ? { tcpOptions } : {}),
        dontFragment: !isV6 && rest.dontFragment,
        from: isV6 ? CLIENT6 : CLIENT,
        to: isV6 ? SERVER6 : SERVER,
        protocol: isTcp ? PROTO_TCP : PROTO_UDP,
        payload: randomBytes(payloadBytes, seed),
        partial: true,
      }),
    }));
  fc.assert(
    fc.property(superframe, ({ bytes, gsoBytes, isTcp, isV6, tcpFlags, plain, dontFragment }) => {
      const tcpType = isV6 ? GSO_TCPV6 : GSO_TCPV4;
      const offload = offloadOf(isTcp ? tcpType : GSO_UDP_L4, gsoBytes);
      const { datagrams, joined } = carry(bytes, offload);
      const segments = slowSegments(bytes, gsoBytes);
      const expected = segments.map((segment) => vxlanDatagram(VNI, segment));
      mustEqual(datagrams, expected, 'the datagrams');
      const again = joined.flatMap((run) =>
        run.segments > 1 ? slowSegments(run.bytes, run.gsoBytes) : [run.bytes],
      );
      mustEqual(again, segments, 'the frames joined and cut again');
      const inOneSend = Math.min(64, Math.floor(65_507 / (datagrams[0]?.length ?? 1)));
      const isRun = plain && (isTcp ? (tcpFlags | PSH) === (ACK | PSH) : dontFragment);
      if (isRun && segments.length > 1 && segments.length <= inOneSend) {
        whole += 1;
        mustEqual(
          joined.map((run) => run.bytes),
          [bytes],
          'the superframe itself',
        );
      }
    }),
    { numRuns: 300 },
  );
  // About one in eight is a plain run of TCP segments that fits one send.
  t.ok(whole > 0, `${whole} superframes came back whole`);
  t.same(Object.values(counters.drops()).filter(Boolean), [], 'nothing was dropped');
  t.end();
});

test('a superframe of more segments than one send takes leaves in several', (t) => {
  const { carry, counters } = makeWire(t);
  const bytes = ethernetFrame({ ...PLAIN, payload: randomBytes(13_000, 5), partial: true });
  const { datagrams, joined } = carry(bytes, offloadOf(GSO_TCPV4, 100));
  t.same(
    datagrams.map(hex),
    slowSegments(bytes, 100).map((one) => hex(vxlanDatagram(VNI, one))),
  );
  t.same([datagrams.length, joined.length], [130, 3], '64 + 64 + 2');
  t.match(counters.traffic(), {
    'underlay-sends': 1,
    'underlay-datagrams-out': 130,
    'underlay-bytes-out': 130 * (8 + 54) + 13_000,
  });
  const largest = ethernetFrame({ ...PLAIN, payload: randomBytes(65_400, 5), partial: true });
  const batches = carry(largest, offloadOf(GSO_TCPV4, 1400)).joined;
  t.same(
    batches.map((run) => run.segments),
    [44, 3],
    '44 * (1400 + 62) <= 65,507, what one datagram holds',
  );
  t.end();
});

test('a whole frame leaves as it is, or with its checksum completed', (t) => {
  const { carry } = makeWire(t);
  const whole = new Offload();
  const tcp = offloadOf(GSO_NONE, 0);
  const udpChecksum = Object.assign(offloadOf(GSO_NONE, 0), { checksumOffset: 6 });
  const zeroSum = { ...udp, payload: new Uint8Array(2) };
  const complement = new DataView(ethernetFrame(zeroSum).buffer).getUint16(40);
  zeroSum.payload = Uint8Array.of(complement >>> 8, complement & 0xff);
  for (const [name, given, offload, expected] of [
    ['a complete one', PLAIN, whole, PLAIN],
    ['one without checksum', { ...udp, noChecksum: true }, whole, { ...udp, noChecksum: true }],
    ['a fragment', { ...udp, fragmentOffset: 8 }, whole, { ...udp, fragmentOffset: 8 }],
    ['partial TCP', { ...PLAIN, ...partial }, tcp, PLAIN],
    ['partial UDP', { ...udp, ...partial }, udpChecksum, udp],
    ['UDP whose sum is zero (RFC 768)', { ...zeroSum, ...partial }, udpChecksum, zeroSum],
  ] as const) {
    const { datagrams } = carry(ethernetFrame(given), offload);
    t.same(datagrams.map(hex), [hex(vxlanDatagram(VNI, ethernetFrame(expected)))], name);
  }
  t.equal(new DataView(ethernetFrame(zeroSum).buffer).getUint16(40), 0xffff);
  t.end();
});

test('an offload that fits no frame is a drop', (t) => {
  const { egress, counters, peer, arena, at } = makeWire(t);
  const checksumAt = (checksumStart: number): Offload =>
    Object.assign(offloadOf(GSO_NONE, 0), { checksumStart });
  const tcp = ethernetFrame({ ...PLAIN, partial: true });
  for (const [name, bytes, offload] of [
    ['datagrams to be fragmented (UFO)', ethernetFrame(udp), offloadOf(3, 50)],
    ['IPv6 segments', tcp, offloadOf(4, 50)],
    ['TCP segments of a UDP frame', ethernetFrame(udp), offloadOf(GSO_TCPV4, 50)],
    ['UDP segments of a TCP frame', tcp, offloadOf(GSO_UDP_L4, 50)],
    ['segments without payload', tcp, offloadOf(GSO_TCPV4, 0)],
    [
      'segments of a fragment',
      ethernetFrame({ ...udp, moreFragments: true }),
      offloadOf(GSO_UDP_L4, 50),
    ],
    ['a checksum half behind the end', tcp, checksumAt(tcp.length - 17)],
    ['a checksum far outside', tcp, checksumAt(65_535)],
  ] as const) {
    arena.bytes.set(bytes, at);
    arena.bytes.fill(0xee, at + bytes.length, at + bytes.length + 64);
    const before = counters.drops()['bad-offload'];
    egress.send(parsedAt(arena.view, at, bytes.length), offload, VNI, peer);
    egress.flush();
    t.equal(counters.drops()['bad-offload'], before + 1, name);
    const behind = arena.bytes.subarray(at + bytes.length, at + bytes.length + 64);
    t.ok(
      behind.every((byte) => byte === 0xee),
      `${name}: nothing is written behind the frame`,
    );
  }
  t.match(counters.traffic(), { 'underlay-sends': 0, 'underlay-datagrams-out': 0 });
  t.end();
});

test('a send that the kernel refuses is a drop', (t) => {
  const { egress, counters, arena, at } = makeWire(t);
  const bytes = ethernetFrame(PLAIN);
  arena.bytes.set(bytes, at);
  egress.send(parsedAt(arena.view, at, bytes.length), new Offload(), VNI, loopbackPeer(0));
  egress.flush();
  t.equal(counters.drops()['send-failed'], 1);
  t.match(counters.traffic(), { 'underlay-sends': 1, 'underlay-datagrams-out': 0 });
  t.end();
});
