import { readFileSync } from 'node:fs';
import { decode as oracleDecode, encode as oracleEncode } from '@msgpack/msgpack';
import fc from 'fast-check';
import { test } from 'tap';
import { utf8Bytes, utf8Text } from '../../src/gossip/bytes.ts';
import { crc32 } from '../../src/gossip/crc32.ts';
import type { Member } from '../../src/gossip/member.ts';
import { newMember } from '../../src/gossip/member.ts';
import {
  decodeMessage,
  encodeMessage,
  MESSAGE_TYPE,
  type Message,
} from '../../src/gossip/messages.ts';
import {
  decodeMsgpack,
  encodeMsgpack,
  MSGPACK_DEPTH_MAX,
  type MsgpackInput,
  type MsgpackValue,
} from '../../src/gossip/msgpack.ts';
import { decodePacket, encodePacket } from '../../src/gossip/packet.ts';
import { addressBytes, addressText } from '../../src/gossip/peer-address.ts';
import { encodePushPull, StreamReader, type StreamResult } from '../../src/gossip/push-pull.ts';

const hex = (text: string): Uint8Array =>
  Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** Raw as text and maps as objects, as the oracle gives them. */
function plain(value: MsgpackValue): unknown {
  if (value instanceof Uint8Array) return utf8Text(value);
  if (value instanceof Map) {
    return Object.fromEntries([...value].map(([key, item]) => [key, plain(item)]));
  }
  if (Array.isArray(value)) return value.map(plain);
  return value;
}

// str8, which the old specification lacks, is what the oracle picks for 32 to 255 bytes.
const shortText = fc.string({ maxLength: 10 });
const key = shortText.filter((value) => value !== '__proto__'); // which the oracle refuses to read
const scalar = fc.oneof(
  fc.constant(null),
  fc.boolean(),
  fc.maxSafeInteger(),
  fc.integer({ min: -70_000, max: 70_000 }),
  fc.double({ noNaN: true }),
  shortText,
);
const { tree } = fc.letrec<{ tree: MsgpackInput }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 3 },
    scalar,
    fc.array(tie('tree'), { maxLength: 20 }),
    fc.dictionary(key, tie('tree'), { maxKeys: 20, noNullPrototype: true }),
  ),
}));

test('encodeMsgpack() is what @msgpack/msgpack reads, and decodeMsgpack() reads what it writes', (t) => {
  fc.assert(
    fc.property(tree, (value) => {
      const own = encodeMsgpack(value);
      const back = decodeMsgpack(own);
      if (!back.ok) throw new Error(back.fault);
      const theirs = decodeMsgpack(oracleEncode(value));
      if (!theirs.ok) throw new Error(theirs.fault);
      const expected = JSON.stringify(value);
      return (
        back.end === own.length &&
        JSON.stringify(oracleDecode(own)) === expected &&
        JSON.stringify(plain(back.value)) === expected &&
        JSON.stringify(plain(theirs.value)) === expected
      );
    }),
  );
  for (const length of [0, 31, 32, 255, 256, 65_535, 65_536]) {
    const text = 'x'.repeat(length);
    t.equal(oracleDecode(encodeMsgpack(text)), text, `text of ${length} bytes`);
    t.same(oracleDecode(encodeMsgpack(Array(length).fill(1))), Array(length).fill(1));
  }
  t.same(encodeMsgpack('x'.repeat(32)).subarray(0, 3), hex('da0020'), 'raw16, never str8');
  t.end();
});

test('decodeMsgpack() gives a reason for what is no value', (t) => {
  for (const [text, fault] of [
    ['', 'truncated'],
    ['a161', undefined],
    ['a2 61', 'truncated'],
    ['db ffffffff', 'truncated'], // a raw of 4 GiB
    ['dd ffffffff 00', 'truncated'],
    ['df ffffffff a0 00', 'truncated'],
    ['ce 0102', 'truncated'],
    ['c1', 'unsupported-type'],
    ['d9 01 61', 'unsupported-type'], // str8
    ['c4 01 61', 'unsupported-type'], // bin8
    ['d4 01 61', 'unsupported-type'], // fixext1
    ['cf 0020000000000000', 'unsafe-integer'], // 2^53
    ['d3 ffdfffffffffffff', 'unsafe-integer'],
    ['81 01 02', 'bad-map-key'],
    ['81 a1ff 02', 'bad-map-key'], // not UTF-8
    [`${'91'.repeat(MSGPACK_DEPTH_MAX)}00`, undefined],
    [`${'91'.repeat(MSGPACK_DEPTH_MAX + 1)}00`, 'too-deep'],
    ['91'.repeat(100_000), 'too-deep'],
  ] as const) {
    const result = decodeMsgpack(hex(text));
    t.equal(result.ok ? undefined : result.fault, fault, text.slice(0, 40));
  }
  t.end();
});

test('crc32() has the check value of CRC-32/ISO-HDLC', (t) => {
  t.equal(crc32(utf8Bytes('123456789')), 0xcbf4_3926);
  t.equal(crc32(new Uint8Array()), 0);
  t.end();
});

test('addresses are 4 or 16 bytes, IPv4-mapped ones are IPv4', (t) => {
  for (const [text, bytes] of [
    ['127.0.0.1', '7f000001'],
    ['255.255.255.255', 'ffffffff'],
    ['2001:db8::1', '20010db8000000000000000000000001'],
    ['::', '00000000000000000000000000000000'],
  ] as const) {
    t.same(addressBytes(text), hex(bytes), text);
    t.equal(addressText(hex(bytes)), text, bytes);
  }
  t.equal(addressText(hex('00000000000000000000ffff0a000001')), '10.0.0.1');
  t.equal(addressText(hex('0a0000')), undefined);
  for (const wrong of ['', 'host', '1.2.3', '1.2.3.4.5', '::1%eth0', '::1/64', ':'.repeat(99)]) {
    t.throws(() => addressBytes(wrong), RangeError, wrong);
  }
  t.end();
});

const serf: { packets: Record<string, string> } = JSON.parse(
  readFileSync(new URL('./vectors/serf-plain.json', import.meta.url), 'utf8'),
);

test('decodePacket() reads what serf sends, and encodePacket() gives the same bytes back', (t) => {
  const aliveB: Message = {
    kind: 'alive',
    ...{ incarnation: 1, node: 'b', address: '127.0.0.1', port: 17957 },
    ...{ meta: hex('ff81a4726f6c65a3776562'), versions: hex('010502020505') },
  };
  const aliveA: Message = { ...aliveB, node: 'a', port: 17956, meta: hex('ff80') };
  const join: Message = { kind: 'user', payload: hex('0182a54c54696d6501a44e6f6465a162') };
  const source = { address: '127.0.0.1', port: 17957, node: 'b' };
  for (const [name, messages, checksum] of [
    ['compound-alive', [aliveB, aliveA], true],
    ['compound-alive-join', [aliveB, aliveA, join], true],
    ['crc-user', [join], true],
    ['ping', [{ kind: 'ping', sequence: 1, node: 'a', source }], false],
  ] as const) {
    const bytes = hex(serf.packets[name] ?? '');
    t.same(decodePacket(bytes), { messages, drops: [] }, name);
    t.same(encodePacket(messages.map(encodeMessage), checksum), bytes, `${name}, encoded`);
  }
  const user = decodePacket(hex(serf.packets['compound-user'] ?? ''));
  t.same(
    user.messages.map(({ kind }) => kind),
    ['user', 'user'],
  );
  t.same(user.drops, []);
  const compressed = decodePacket(hex(serf.packets.compressed ?? ''));
  t.same(
    compressed.messages.map(({ kind }) => kind),
    ['ack'],
  );
  t.same(compressed.drops, []);
  t.end();
});

test('decodePacket() gives a reason for each part that it drops', (t) => {
  const ack = encodeMessage({ kind: 'ack', sequence: 7 });
  const good: Message = { kind: 'ack', sequence: 7 };
  const nested = (depth: number): Uint8Array => (depth === 0 ? ack : encodePart(nested(depth - 1)));
  const encodePart = (part: Uint8Array): Uint8Array =>
    hex(`0701${part.length.toString(16).padStart(4, '0')}${toHex(part)}`);
  for (const [bytes, messages, drops] of [
    [hex(''), [], ['empty']],
    [hex('07'), [], ['truncated-compound']],
    [hex('0700'), [], ['truncated-compound']],
    [hex('0702 0001'), [], ['truncated-compound']],
    [
      hex(`0702 00${ack.length.toString(16).padStart(2, '0')} 00ff ${toHex(ack)}`),
      [good],
      ['truncated-compound'],
    ],
    [
      hex(`0702 00${ack.length.toString(16).padStart(2, '0')} 0001 ${toHex(ack)} 63`),
      [good],
      ['unknown-type'],
    ],
    [nested(4), [good], []],
    [nested(5), [], ['too-deep']],
    [hex('0c'), [], ['bad-checksum']],
    [hex('0c 00000000 00'), [], ['bad-checksum']],
    [encodePacket([ack], true), [good], []],
    [hex('0a 0102'), [], ['unexpected-type']],
    [hex('f4 0102'), [], ['unexpected-type']],
    [hex('09'), [], ['bad-compression']],
    [hex('09 80'), [], ['bad-compression']],
    [hex('09 82 a4416c676f 01 a3427566 a3 000302'), [], ['unsupported-compression']],
    [hex('09 82 a4416c676f 00 a3427566 a3 000302'), [], ['bad-compression']], // nothing in it
    [hex('09 82 a4416c676f 00 a3427566 da ffff 00'), [], ['bad-compression']],
    [hex('06 80'), [], ['unexpected-type']],
    [hex('0d 80'), [], ['unexpected-type']],
    [hex('00'), [], ['malformed']],
    [hex('00 93 01 02 03'), [], ['malformed']],
    [hex('04 80'), [], ['malformed']], // no name, no address
    [hex('03 80'), [], ['malformed']],
    [hex('02 81 a55365714e6f a0'), [], ['malformed']], // SeqNo is text
    [hex('02 81 a55365714e6f ff'), [], ['malformed']], // SeqNo is negative
    [hex('02 81 a55365714e6f cf0000000100000000'), [], ['malformed']], // SeqNo is 2^32
  ] as const) {
    t.same(decodePacket(bytes), { messages, drops }, toHex(bytes));
  }
  t.end();
});

const text = fc.string({ maxLength: 60 });
const uint32 = fc.nat({ max: 0xffff_ffff });
const bytesOf = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength });
const peer = {
  address: fc.oneof(fc.ipV4(), fc.constantFrom('2001:db8::7', 'fe80::1')),
  port: fc.integer({ min: 1, max: 0xffff }),
};
const source = fc.option(fc.record({ ...peer, node: text }), { nil: undefined });
const name = text.filter((value) => value.length > 0);
const message: fc.Arbitrary<Message> = fc
  .oneof(
    fc.record({ kind: fc.constant('ping' as const), sequence: uint32, node: text, source }),
    fc.record({
      kind: fc.constant('indirectPing' as const),
      ...{
        sequence: uint32,
        target: fc.record(peer),
        node: text,
        nackWanted: fc.boolean(),
        source,
      },
    }),
    fc.record({ kind: fc.constantFrom('ack' as const, 'nack' as const), sequence: uint32 }),
    fc.record({
      kind: fc.constantFrom('suspect' as const, 'dead' as const),
      ...{ incarnation: uint32, node: name, from: text },
    }),
    fc.record({
      kind: fc.constant('alive' as const),
      ...{ incarnation: uint32, node: name, ...peer, meta: bytesOf(512), versions: bytesOf(6) },
    }),
    fc.record({ kind: fc.constant('user' as const), payload: bytesOf(300) }),
  )
  .map((value) => {
    if ('source' in value && value.source === undefined)
      delete (value as { source?: unknown }).source;
    return value as Message;
  });

test('decodeMessage() undoes encodeMessage()', (t) => {
  fc.assert(
    fc.property(message, (value) => {
      t.same(decodeMessage(encodeMessage(value)), value);
    }),
    { numRuns: 300 },
  );
  t.end();
});

function member(node: string, state: Member['state']): Member {
  const peerOf = { address: '10.0.0.1', port: 7946 };
  const alive = { node, incarnation: 3, meta: hex('0102'), versions: hex('010502020505') };
  return { ...newMember({ ...alive, ...peerOf }), state };
}

test('StreamReader reads a push/pull in chunks of any size', (t) => {
  const members = (['alive', 'suspect', 'dead', 'left'] as const).map((state, index) =>
    member(`node-${index}`, state),
  );
  const userState = Uint8Array.from({ length: 5_000 }, (_, index) => index & 255);
  const bytes = encodePushPull(members, userState, true);
  for (const size of [1, 7, 100, 4_096, bytes.length]) {
    const reader = new StreamReader();
    let result: StreamResult = { kind: 'more' };
    for (let at = 0; at < bytes.length; at += size) {
      t.equal(result.kind, 'more');
      result = reader.push(bytes.subarray(at, at + size));
    }
    if (result.kind !== 'message' || result.message.kind !== 'pushPull')
      throw new Error(result.kind);
    t.equal(result.message.join, true);
    t.same(result.message.userState, userState);
    t.same(
      result.message.nodes.map(({ node, state, incarnation }) => [node, state, incarnation]),
      members.map(({ name: node, state, incarnation }) => [node, state, incarnation]),
    );
  }
  t.end();
});

test('StreamReader drops what is no message as soon as that is sure', (t) => {
  const endless = new Uint8Array(8_000).fill(0x61);
  endless.set(hex('06 83 a54e6f646573 db 00ffffff'));
  for (const [bytes, reason] of [
    [hex('63'), 'unknown-type'],
    [hex('09 80'), 'bad-compression'],
    [hex('09 82 a4416c676f 01 a3427566 a3 000302'), 'unsupported-compression'],
    [hex('09 82 a4416c676f 00 a3427566 a4 00100406'), 'bad-compression'],
    [hex('09 82 a4416c676f 00 a3427566 db 01400001'), 'too-large'], // 20 MiB and a byte
    [hex('0a 00'), 'encryption-not-configured'],
    [hex('f4 00'), 'unknown-type'],
    [hex('06 01'), 'malformed'], // the header is no map
    [hex('06 81 a54e6f646573 ce 7fffffff'), 'malformed'], // 2^31 nodes
    [hex('06 81 ac557365725374617465 4c656e ce 7fffffff'), 'malformed'], // 2 GiB of user state
    [hex('06 81 a54e6f646573 01 80'), 'malformed'], // a node without a name
    [endless, 'malformed'], // a header that goes on for 16 MiB
    [hex('08 81 aa557365724d73674c656e ff'), 'malformed'],
  ] as const) {
    t.same(new StreamReader().push(bytes), { kind: 'drop', reason }, toHex(bytes.subarray(0, 40)));
  }
  t.same(new StreamReader().push(hex('06 83')), { kind: 'more' });
  t.same(new StreamReader().push(hex('0d 81 a54572726f72 a3 626164')), {
    kind: 'message',
    message: { kind: 'error', text: 'bad' },
  });
  const user = hex(`08 81 aa557365724d73674c656e 02 6869`);
  t.same(new StreamReader().push(user), {
    kind: 'message',
    message: { kind: 'user', payload: utf8Bytes('hi') },
  });
  const ping = encodeMessage({ kind: 'ping', sequence: 9, node: 'a' });
  t.equal(ping[0], MESSAGE_TYPE.ping);
  t.same(new StreamReader().push(ping), {
    kind: 'message',
    message: { kind: 'ping', sequence: 9, node: 'a' },
  });
  t.end();
});
