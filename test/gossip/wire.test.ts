import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { test } from 'tap';
import type { Random } from '../../src/core/capabilities.ts';
import { ByteWriter } from '../../src/gossip/bytes.ts';
import { compress, decompress } from '../../src/gossip/compression.ts';
import type { Effect } from '../../src/gossip/effects.ts';
import { Gossip } from '../../src/gossip/gossip.ts';
import { checkLabel, labelHeader } from '../../src/gossip/label.ts';
import { MEMBER_STATES, type Member, newMember } from '../../src/gossip/member.ts';
import { encodeTags } from '../../src/gossip/member-tags.ts';
import {
  encodeMessage,
  MESSAGE_TYPE,
  META_BYTES_MAX,
  type Message,
} from '../../src/gossip/messages.ts';
import { type MsgpackInput, writeMsgpack } from '../../src/gossip/msgpack.ts';
import { decodePacket, PACKET_DECOMPRESSED_BYTES_MAX } from '../../src/gossip/packet.ts';
import { type Versioned, versionConflict } from '../../src/gossip/protocol-versions.ts';
import {
  encodePushPull,
  type PushPullNode,
  StreamReader,
  type StreamResult,
} from '../../src/gossip/push-pull.ts';
import { open, seal } from '../../src/gossip/sealing.ts';
import { STREAM_BYTES_MAX } from '../../src/gossip/stream-envelope.ts';
import { type KeyUse, type StreamSide, Wire, type WireOptions } from '../../src/gossip/wire.ts';
import { NodeGossipCipher } from '../../src/io/gossip-cipher.ts';
import { seededRandom } from '../support/gossip-sim.ts';

interface Capture {
  readonly name: string;
  readonly label?: string;
  readonly key?: string;
  readonly packets: readonly string[];
  /** Both directions of each stream, its opener's first. */
  readonly streams: readonly string[];
}

const captures = ['serf', 'memberlist'].flatMap((peer): readonly Capture[] => {
  const file = new URL(`./vectors/${peer}-wire.json`, import.meta.url);
  return JSON.parse(readFileSync(file, 'utf8')).captures;
});
const hex = (text: string): Uint8Array =>
  Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);
const cipher = new NodeGossipCipher();
const random = seededRandom(1);
const KEYS = [1, 2, 3].map((value) => new Uint8Array(32).fill(value)) as [
  Uint8Array,
  Uint8Array,
  Uint8Array,
];
const STRICT: KeyUse = { seal: true, strict: true };
const PING: Message = { kind: 'ping', sequence: 7, node: 'a' };

function makeWire(options: WireOptions = {}, keys: readonly Uint8Array[] = [], use = STRICT): Wire {
  const wire = new Wire({ random, cipher }, options);
  wire.setKeys(keys, use);
  return wire;
}

/** A wire with a capture's label and key, whose one nonce is the one that stands at `nonceAt`. */
function replaying(
  capture: Capture,
  bytes: Uint8Array,
  nonceAt: number,
  compression: boolean,
): Wire {
  const nonce = bytes.subarray(nonceAt, nonceAt + 12);
  const replayed: Random = { next: () => 0, bytes: () => nonce };
  const wire = new Wire({ random: replayed, cipher }, { label: capture.label, compression });
  if (capture.key !== undefined) wire.setKeys([Buffer.from(capture.key, 'base64')], STRICT);
  return wire;
}

function memberOf({ state, ...node }: PushPullNode): Member {
  return { ...newMember(node), state };
}

test('packets of serf and memberlist are read, and written again byte for byte', (t) => {
  const seen: string[] = [];
  for (const capture of captures) {
    for (const [index, text] of capture.packets.entries()) {
      const bytes = hex(text);
      const headerBytes = labelHeader(capture.label ?? '').length;
      const wire = replaying(capture, bytes, headerBytes + 1, capture.name !== 'labelled');
      const { messages, drops } = wire.openPacket(bytes);
      t.same(drops, []);
      t.ok(messages.length > 0);
      const kinds = messages.map(({ kind }) => kind);
      seen.push(`${capture.name} ${kinds.join('+')}`);
      // serf puts coordinates into acks, which are read over here.
      if (kinds.includes('ack')) continue;
      const encoded = messages.map(encodeMessage);
      const again = [true, false].map((crc) =>
        Buffer.from(wire.sealPacket(encoded, crc)).toString('hex'),
      );
      t.ok(again.includes(text), `${capture.name} ${index}: ${kinds}`);
    }
  }
  t.equal(seen.length, 48);
  t.match(
    new Set(seen),
    new Set([
      'plain alive+alive',
      'plain ack',
      'encrypted ping+alive+alive',
      'encrypted ack+alive+alive+user',
    ]),
  );
  t.end();
});

test('state exchanges of serf and memberlist are read, and written again byte for byte', (t) => {
  let count = 0;
  for (const capture of captures) {
    for (const [index, text] of capture.streams.entries()) {
      const bytes = hex(text);
      const side: StreamSide = index % 2 === 0 ? 'request' : 'reply';
      const headerBytes = side === 'request' ? labelHeader(capture.label ?? '').length : 0;
      const isPacked = bytes[headerBytes] === MESSAGE_TYPE.compress || capture.key !== undefined;
      const wire = replaying(capture, bytes, headerBytes + 6, isPacked);
      for (const size of [1, 50, bytes.length]) {
        const reader = wire.streamReader(side);
        let result: StreamResult = { kind: 'more' };
        for (let at = 0; at < bytes.length; at += size) {
          t.equal(result.kind, 'more');
          result = reader.push(bytes.subarray(at, at + size));
        }
        if (result.kind !== 'message' || result.message.kind !== 'pushPull')
          throw new Error(JSON.stringify(result));
        const { nodes, userState, join } = result.message;
        t.same(
          nodes.map(({ node }) => node),
          [side === 'request' ? 'b' : 'a'],
        );
        const again = wire.sealStream(encodePushPull(nodes.map(memberOf), userState, join), side);
        t.equal(Buffer.from(again).toString('hex'), text, `${capture.name} ${side}`);
        count++;
      }
    }
  }
  t.equal(count, 30);
  t.end();
});

test('a label stands in front of packets and opened streams, as in memberlist', (t) => {
  // label_test.go
  t.same(labelHeader(''), hex(''));
  t.same(labelHeader('foo'), Uint8Array.of(244, 3, ...ascii('foo')));
  t.equal(labelHeader('a'.repeat(255)).length, 257);
  t.throws(() => labelHeader('a'.repeat(256)), {
    message: 'Cannot use a gossip label of 256 bytes: expected at most 255',
  });
  for (const [label, bytes, result] of [
    ['', [], 'truncated'],
    ['', [MESSAGE_TYPE.ping, ...ascii('blah')], 0],
    ['', [MESSAGE_TYPE.error, ...ascii('blah')], 0],
    ['', [1, ...ascii('blah')], 0],
    ['abc', [244, ...ascii('x')], 'truncated'],
    ['abc', [244], 'truncated'],
    ['abc', [244, 0, ...ascii('x')], 'bad-label'],
    ['abc', [244, 2, ...ascii('x')], 'truncated'],
    ['abc', [244, 3, ...ascii('abc'), MESSAGE_TYPE.ping, ...ascii('blah')], 5],
    ['abc', [244, 3, ...ascii('abc'), MESSAGE_TYPE.error, ...ascii('blah')], 5],
    ['abc', [244, 3, ...ascii('abd'), MESSAGE_TYPE.ping], 'wrong-label'],
    ['abc', [244, 2, ...ascii('ab'), MESSAGE_TYPE.ping], 'wrong-label'],
    ['abc', [MESSAGE_TYPE.ping], 'wrong-label'],
    ['', [244, 3, ...ascii('abc'), MESSAGE_TYPE.ping], 'wrong-label'],
  ] as const) {
    t.equal(checkLabel(Uint8Array.from(bytes), labelHeader(label)), result, `${label}: ${bytes}`);
  }
  t.equal(makeWire({ label: '' }).packetOverheadBytes, 0);
  t.equal(makeWire({ label: 'a' }).packetOverheadBytes, 3);
  t.equal(makeWire({ label: 'abcdefg' }).packetOverheadBytes, 9);
  t.equal(makeWire({ label: 'abcdefg' }, [KEYS[0]]).packetOverheadBytes, 9 + 29);
  t.equal(makeWire({}, [KEYS[0]], { seal: false, strict: false }).packetOverheadBytes, 0);
  t.equal(makeWire({ label: 'a' }).packetOverheadBytesMax, 3 + 29);
  const wire = makeWire({ label: 'foo', compression: false });
  const ping = encodeMessage(PING);
  t.same(wire.sealPacket([ping], false), Uint8Array.of(244, 3, ...ascii('foo'), ...ping));
  t.same(wire.sealStream(ping, 'request'), Uint8Array.of(244, 3, ...ascii('foo'), ...ping));
  t.same(wire.sealStream(ping, 'reply'), ping, 'an answer has no label header');
  // net.go `encryptLocalState`: type, length and label are authenticated, in both directions.
  const keyed = makeWire({ label: 'foo', compression: false }, [KEYS[0]]);
  const keys = { cipher, keys: [KEYS[0]] };
  for (const [side, start] of [
    ['request', 5],
    ['reply', 0],
  ] as const) {
    const stream = keyed.sealStream(ping, side).subarray(start);
    const header = Uint8Array.of(10, 0, 0, 0, ping.length + 29);
    t.same(stream.subarray(0, 5), header);
    const data = Uint8Array.of(...header, ...ascii('foo'));
    t.same(open(stream.subarray(5), data, keys), ping, side);
  }
  const packet = keyed.sealPacket([ping], false);
  t.same(open(packet.subarray(5), ascii('foo'), keys), ping);
  t.end();
});

const payload = fc.oneof(
  fc.uint8Array({ maxLength: 400 }),
  fc.integer({ min: 0, max: 400 }).map((length) => new Uint8Array(length)),
);
const forms = fc.record({
  label: fc.constantFrom('', 'a', 'é'.repeat(127)),
  compression: fc.boolean(),
  theirCompression: fc.boolean(),
  keys: fc.constantFrom([], [KEYS[0]], [KEYS[1], KEYS[0]], [KEYS[0], KEYS[1], KEYS[2]]),
  checksum: fc.boolean(),
});

test('what a wire seals, one with the same label and keys opens, and no other does', (t) => {
  fc.assert(
    fc.property(
      forms,
      fc.array(payload, { minLength: 1, maxLength: 5 }),
      fc.nat({ max: 2_000 }),
      (form, payloads, cut) => {
        const { label, compression, theirCompression, keys, checksum } = form;
        const wire = makeWire({ label, compression }, keys);
        const messages = payloads.map((bytes): Message => ({ kind: 'user', payload: bytes }));
        const encoded = messages.map(encodeMessage);
        const packet = wire.sealPacket(encoded, checksum);
        const innerBytes = encoded.reduce((sum, { length }) => sum + length + 2, 2) + 5;
        t.ok(
          packet.length <= innerBytes + wire.packetOverheadBytes,
          'the overhead is what is said',
        );
        const other = makeWire({ label, compression: theirCompression }, [...keys].reverse());
        t.same(other.openPacket(packet), { messages, drops: [] });
        t.match(makeWire({ label: 'other' }, keys).openPacket(packet), {
          messages: [],
          drops: ['wrong-label'],
        });
        const stranger = makeWire({ label }, [new Uint8Array(16)]).openPacket(packet);
        t.equal(stranger.messages.length, 0);
        const first = encoded[0] ?? ascii('');
        const state = new ByteWriter().uint8(MESSAGE_TYPE.user);
        writeMsgpack(state, { UserMsgLen: first.length });
        const message = state.bytes(first).finish();
        for (const side of ['request', 'reply'] as const) {
          const stream = wire.sealStream(message, side);
          const reader = other.streamReader(side);
          const at = cut % stream.length;
          t.same(reader.push(stream.subarray(0, at)), { kind: 'more' });
          const result = reader.push(stream.subarray(at));
          t.same(result, { kind: 'message', message: { kind: 'user', payload: first } });
          const strict = makeWire({ label }, [new Uint8Array(16)])
            .streamReader(side)
            .push(stream);
          t.equal(strict.kind, 'drop');
        }
      },
    ),
    { numRuns: 150 },
  );
  t.end();
});

test('a packet is read in every form that memberlist reads', (t) => {
  const ack: Message = { kind: 'ack', sequence: 1 };
  const user: Message = { kind: 'user', payload: new Uint8Array(300) };
  const [a, u] = [encodeMessage(ack), encodeMessage(user)];
  const compound = (...parts: Uint8Array[]): Uint8Array => {
    const writer = new ByteWriter().uint8(MESSAGE_TYPE.compound).uint8(parts.length);
    for (const part of parts) writer.uint16(part.length);
    for (const part of parts) writer.bytes(part);
    return writer.finish();
  };
  const packed = compress(u, true);
  if (packed === undefined) throw new Error('zeros gain');
  const wire = makeWire({ label: 'x' }, [KEYS[0]]);
  const labelled = (bytes: Uint8Array): Uint8Array => Uint8Array.of(244, 1, 0x78, ...bytes);
  const sealed = (bytes: Uint8Array, version: 0 | 1): Uint8Array =>
    labelled(seal(bytes, ascii('x'), { cipher, key: KEYS[0], nonce: random.bytes(12), version }));
  for (const [name, inner, messages] of [
    ['compressed', packed, [user]],
    ['compressed in a compound', compound(a, packed), [ack, user]],
    ['a compound, compressed', compress(compound(u, a), false), [user, ack]],
    ['compressed twice', compress(packed, false), [user]],
    ['bare', a, [ack]],
  ] as const) {
    t.same(decodePacket(inner), { messages, drops: [] }, name);
    for (const version of [0, 1] as const) {
      t.same(
        wire.openPacket(sealed(inner, version)),
        { messages, drops: [] },
        `${name} v${version}`,
      );
    }
  }
  t.same(wire.openPacket(labelled(a)).drops, ['not-encrypted']);
  const ping = labelled(encodeMessage(PING)); // begins as version 0 does
  t.same(wire.openPacket(ping).drops, ['undecryptable']);
  t.same(wire.openPacket(hex('')).drops, ['empty']);
  t.same(wire.openPacket(hex('f401')).drops, ['bad-label']);
  t.same(wire.openPacket(hex('f4 01 78')).drops, ['not-encrypted']);
  const lenient = makeWire({ label: 'x' }, [KEYS[0]], { seal: true, strict: false });
  t.same(lenient.openPacket(labelled(compound(a, u))).messages, [ack, user], 'in the clear');
  t.same(lenient.openPacket(sealed(a, 1)).messages, [ack]);
  t.same(makeWire({ label: 'x' }).openPacket(sealed(a, 1)).messages, [], 'no keys');
  t.end();
});

test('nothing is decompressed to more than a bound, however it is packed', (t) => {
  const zeros = (length: number): Uint8Array =>
    encodeMessage({ kind: 'user', payload: new Uint8Array(length - 1) });
  const limit = PACKET_DECOMPRESSED_BYTES_MAX;
  t.equal(decodePacket(compress(zeros(limit), false)).messages.length, 1);
  t.same(decodePacket(compress(zeros(limit + 1), false)).drops, ['too-large']);
  const part = compress(zeros(limit / 4), false);
  const writer = new ByteWriter().uint8(MESSAGE_TYPE.compound).uint8(6);
  for (let index = 0; index < 6; index++) writer.uint16(part.length);
  for (let index = 0; index < 6; index++) writer.bytes(part);
  const { messages, drops } = decodePacket(writer.finish());
  t.equal(messages.length, 4, 'the parts of a packet have one bound together');
  t.same(drops, ['too-large', 'too-large']);
  const big = compress(new Uint8Array(STREAM_BYTES_MAX + 1), false);
  t.ok(big.length < 1_000_000);
  t.same(new StreamReader().push(big), { kind: 'drop', reason: 'too-large' });
  // util_test.go: between the limit of the wire and that of what comes out is taken.
  const fits = compress(new Uint8Array(STREAM_BYTES_MAX / 2 + 1), false);
  const out = decompress(fits, { inMax: fits.length, outMax: STREAM_BYTES_MAX });
  t.equal(out.length, STREAM_BYTES_MAX / 2 + 1);
  const testing = decompress(compress(ascii('testing'), false), { inMax: 100, outMax: 100 });
  t.same(testing, ascii('testing'));
  t.equal(compress(ascii('testing'), true), undefined, 'nothing is gained');
  t.end();
});

test('a stream is given up as soon as it is known to be of no use, with what the peer is told', (t) => {
  const plain = makeWire({ compression: false });
  const keyed = makeWire({ compression: false }, [KEYS[0]]);
  const lenient = makeWire({ compression: false }, [KEYS[0]], { seal: true, strict: false });
  const labelled = makeWire({ compression: false, label: 'x' });
  const ping = encodeMessage(PING);
  const struct = (type: number, fields: MsgpackInput): Uint8Array => {
    const writer = new ByteWriter().uint8(type);
    writeMsgpack(writer, fields);
    return writer.finish();
  };
  const sealedEmpty = seal(hex(''), hex('0a 0000001d'), {
    cipher,
    key: KEYS[0],
    nonce: random.bytes(12),
  });
  const { pushPull, user } = MESSAGE_TYPE;
  for (const [name, wire, bytes, reason, told] of [
    [
      'encrypted',
      plain,
      keyed.sealStream(ping, 'request').subarray(0, 1),
      'encryption-not-configured',
      true,
    ],
    ['not encrypted', keyed, ping.subarray(0, 1), 'not-encrypted', true],
    [
      'another key',
      makeWire({}, [KEYS[1]]),
      keyed.sealStream(ping, 'request'),
      'undecryptable',
      true,
    ],
    ['more than 20 MiB sealed', keyed, hex('0a 01400001'), 'too-large', true],
    [
      'nothing in it',
      keyed,
      Uint8Array.of(...hex('0a 0000001d'), ...sealedEmpty),
      'truncated',
      false,
    ],
    ['too short to be sealed', keyed, hex('0a 00000003 010203'), 'undecryptable', true],
    ['no sealed bytes', keyed, hex('0a 00000001 0c'), 'undecryptable', true],
    [
      'half a message, sealed',
      keyed,
      keyed.sealStream(ping.subarray(0, 5), 'request'),
      'truncated',
      false,
    ],
    ['another label', labelled, hex('f4 01 79'), 'wrong-label', false],
    ['no label', labelled, ping, 'wrong-label', false],
    ['an empty label', labelled, hex('f4 00'), 'bad-label', false],
    ['two labels', labelled, hex('f4 01 78 f4 01 78'), 'unknown-type', false],
    ['compressed twice', plain, compress(compress(ping, false), false), 'unknown-type', false],
    ['half a message, compressed', plain, compress(ping.subarray(0, 5), false), 'truncated', false],
    // net_test.go
    [
      'nodes',
      plain,
      struct(pushPull, { Join: false, Nodes: 10_000_000, UserStateLen: 100 }),
      'malformed',
      false,
    ],
    [
      'state',
      plain,
      struct(pushPull, { Join: false, Nodes: 0, UserStateLen: 30_000_000 }),
      'malformed',
      false,
    ],
    ['message', plain, struct(user, { UserMsgLen: 30_000_000 }), 'malformed', false],
  ] as const) {
    t.same(wire.streamReader('request').push(bytes), { kind: 'drop', reason }, name);
    const refusal = wire.refusal(reason);
    t.equal(refusal !== undefined, told, `${name}: told`);
    if (refusal === undefined) continue;
    const heard = wire.streamReader('reply').push(refusal);
    t.match(heard, { kind: 'message', message: { kind: 'error', text: /^[a-z].*/ } });
  }
  const read = { kind: 'message', message: { kind: 'ping', sequence: 7, node: 'a' } };
  t.same(lenient.streamReader('request').push(ping), read);
  t.same(lenient.streamReader('request').push(keyed.sealStream(ping, 'request')), read);
  t.same(keyed.streamReader('request').push(keyed.sealStream(ping, 'request')), read);
  t.end();
});

test('a member without a port, as protocol 1 has them, gets that of this node', (t) => {
  const wire = makeWire({ defaultPort: 7_946, compression: false });
  const fields = { Addr: hex('0a000001'), Incarnation: 1, Meta: null, Vsn: null };
  const struct = (type: number, value: MsgpackInput): Uint8Array => {
    const writer = new ByteWriter().uint8(type);
    writeMsgpack(writer, value);
    return writer.finish();
  };
  for (const port of [{}, { Port: 0 }]) {
    const alive = struct(MESSAGE_TYPE.alive, { ...fields, ...port, Node: 'n' });
    t.match(wire.openPacket(alive).messages, [{ kind: 'alive', address: '10.0.0.1', port: 7_946 }]);
    t.same(decodePacket(alive).drops, ['malformed']);
    const indirect = struct(MESSAGE_TYPE.indirectPing, {
      ...port,
      SeqNo: 1,
      Target: hex('0a000001'),
      Node: 'n',
    });
    t.match(wire.openPacket(indirect).messages, [
      { kind: 'indirectPing', target: { port: 7_946 } },
    ]);
    const writer = new ByteWriter().bytes(
      struct(MESSAGE_TYPE.pushPull, { Join: true, Nodes: 1, UserStateLen: 0 }),
    );
    writeMsgpack(writer, { ...fields, ...port, Name: 'n', State: 0 });
    const state = writer.finish();
    t.match(wire.streamReader('request').push(state), {
      message: { kind: 'pushPull', nodes: [{ node: 'n', port: 7_946 }] },
    });
    t.match(new StreamReader().push(state), { kind: 'drop', reason: 'malformed' });
  }
  t.end();
});

test('versionConflict() decides as memberlist does', (t) => {
  type Range = readonly [min: number, max: number, current: number];
  const node = (
    versions: readonly number[],
    state = MEMBER_STATES[0] as Versioned['state'],
  ): Versioned => ({
    state,
    versions: Uint8Array.from(versions),
  });
  // state_test.go `TestVerifyProtocol`
  for (const [a, b, expected] of [
    [[[0, 0, 0]], [[0, 0, 0]], true],
    [[[0, 0, 0]], [[0, 1, 0]], true],
    [[[0, 0, 0]], [[1, 1, 1]], false],
    [
      [
        [0, 1, 0],
        [0, 2, 1],
      ],
      [[1, 3, 1]],
      false,
    ],
    [
      [
        [0, 3, 2],
        [0, 2, 0],
      ],
      [
        [0, 2, 1],
        [0, 5, 0],
      ],
      true,
    ],
  ] as readonly (readonly [Range[], Range[], boolean])[]) {
    for (const [kind, widen] of [
      ['protocol', (range: Range): Versioned => node([...range, 0, 0, 0])],
      ['delegate', (range: Range): Versioned => node([0, 0, 0, ...range])],
    ] as const) {
      const result = expected ? undefined : kind;
      t.equal(versionConflict(a.map(widen), b.map(widen)), result, JSON.stringify([a, b]));
      t.equal(versionConflict(b.map(widen), a.map(widen)), result);
    }
  }
  const weft = node([1, 5, 2, 2, 5, 5]);
  t.equal(versionConflict([weft], [weft]), undefined);
  t.equal(versionConflict([node([1, 5, 2, 0, 0, 0])], [weft]), 'delegate', 'no serf in it');
  t.equal(versionConflict([node([])], [weft]), 'protocol', 'a node that says nothing');
  t.equal(versionConflict([weft], [weft, node([])]), undefined, 'a member that said nothing');
  t.equal(
    versionConflict([node([3, 5, 5, 2, 5, 5], 'dead')], [weft]),
    undefined,
    'the dead ask for nothing',
  );
  t.equal(
    versionConflict([node([1, 5, 9, 2, 5, 5], 'dead')], [weft]),
    'protocol',
    'but must speak',
  );
  t.end();
});

test('packets keep to their size with the longest label and keys, and rumours still fit in them', (t) => {
  const tuning = { packetBytesMax: 1_400 };
  const config = { address: '10.0.0.1', port: 7_946, generation: 1, label: 'x'.repeat(255) };
  const make = (name: string): Gossip => {
    const change = { name, compression: false, tuning };
    const gossip = new Gossip({ random, cipher }, { ...config, ...change }, 0);
    gossip.setKeys([KEYS[0]], STRICT);
    return gossip;
  };
  const [a, b] = [make('a'), make('b')];
  const from = { address: '10.0.0.2', port: 7_946 };
  const meta = encodeTags(new Map([['x', 'y'.repeat(495)]]));
  t.equal(meta.length, META_BYTES_MAX);
  const alive = (name: string): Message => ({
    ...{ kind: 'alive', node: name, address: '10.0.0.2', port: 7_946, incarnation: 1 },
    ...{ meta, versions: Uint8Array.of(1, 5, 2, 2, 5, 5) },
  });
  for (let index = 0; index < 30; index++) {
    const name = index === 0 ? 'b' : `${index}-${'n'.repeat(index * 8)}`;
    a.packet(a.wire.sealPacket([encodeMessage(alive(name))], true), from, 0);
  }
  for (let index = 0; index < 60; index++) a.table.setLocal(`key-${index}`, 'v'.repeat(40 + index));
  let largest = 0;
  const joined = new Set<string>();
  /** Hands the packets among `effects` to `to`, and gives what that one does because of them. */
  const deliver = (effects: readonly Effect[], to: Gossip, nowMs: number): Effect[] =>
    effects.flatMap((effect) => {
      if (effect.kind === 'event' && effect.event.kind === 'member') {
        if (to === a && effect.event.change === 'joined') joined.add(effect.event.member.name);
      }
      if (effect.kind !== 'send') return [];
      largest = Math.max(largest, effect.bytes.length);
      return to.packet(effect.bytes, from, nowMs);
    });
  for (let nowMs = 0; nowMs < 60_000; nowMs += 100) {
    // What `a` says goes to `b`, whoever it is for; what `b` asks because of it is answered.
    const answers = deliver(deliver(a.tick(nowMs), b, nowMs), a, nowMs);
    deliver(deliver(answers, b, nowMs), a, nowMs);
  }
  t.ok(largest <= tuning.packetBytesMax, `${largest} bytes at most`);
  t.ok(largest > tuning.packetBytesMax - 100, `${largest} bytes: the room is used`);
  t.equal(joined.size, 30, 'the other node heard of everyone');
  const heard = [...b.table.visible()].filter(({ node }) => node === 'a');
  t.equal(heard.length, 60, 'and of all endpoints, without a stream');
  t.end();
});
