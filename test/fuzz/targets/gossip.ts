// What other nodes, or whoever sends to the gossip port, may say.

import type { Json } from '../../../src/core/store.ts';
import { compress } from '../../../src/gossip/compression.ts';
import type { AskEffect, Effect } from '../../../src/gossip/effects.ts';
import { decodeEndpointMessage } from '../../../src/gossip/endpoint-decoder.ts';
import {
  encodeEndpointMessage,
  encodeEndpointPayload,
} from '../../../src/gossip/endpoint-encoder.ts';
import { ENDPOINT_MAGIC, type EndpointMessage } from '../../../src/gossip/endpoint-messages.ts';
import { SUM_BYTES, TREE_FANOUT, TREE_LEAVES } from '../../../src/gossip/endpoint-tree.ts';
import { Gossip } from '../../../src/gossip/gossip.ts';
import { type Member, newMember } from '../../../src/gossip/member.ts';
import { decodeMessage, encodeMessage, type Message } from '../../../src/gossip/messages.ts';
import {
  decodeMsgpack,
  encodeMsgpack,
  type MsgpackInput,
  type MsgpackValue,
} from '../../../src/gossip/msgpack.ts';
import {
  type DecodedPacket,
  decodePacket,
  encodePacket,
  PACKET_DECOMPRESSED_BYTES_MAX,
} from '../../../src/gossip/packet.ts';
import {
  encodePushPull,
  encodeUserStream,
  type StreamMessage,
  StreamReader,
} from '../../../src/gossip/push-pull.ts';
import { readEndpointRecord, readVtepRecord } from '../../../src/node/endpoint-record.ts';
import { bytesOf, type FuzzTarget, require, textOf } from '../target.ts';

/** Who sends. */
export const PEER = { address: '10.0.0.2', port: 7946 };
/** One of each kind. */
export const MESSAGES: readonly Message[] = [
  { kind: 'ping', sequence: 1, node: 'self', source: { ...PEER, node: 'n2' } },
  { kind: 'indirectPing', sequence: 2, target: PEER, node: 'n3', nackWanted: true },
  { kind: 'ack', sequence: 3 },
  { kind: 'nack', sequence: 4 },
  { kind: 'suspect', incarnation: 2, node: 'self', from: 'n2' },
  { kind: 'dead', incarnation: 3, node: 'n3', from: 'n2' },
  {
    kind: 'alive',
    ...{ incarnation: 2, node: 'n3', ...PEER, meta: Uint8Array.of(1, 2, 3) },
    versions: Uint8Array.of(1, 5, 2, 2, 5, 5),
  },
  { kind: 'user', payload: encodeEndpointPayload({ kind: 'summary', summary: 'a summary' }) },
];

/** A value as text, bytes and maps included. */
export function json(value: unknown): string {
  return JSON.stringify(value, (_, field: unknown) => {
    if (field instanceof Uint8Array) return Buffer.from(field).toString('hex');
    return field instanceof Map ? [...field] : field;
  });
}

/** What stands in many messages. */
export const DICTIONARY: readonly Uint8Array[] = [
  ...['SeqNo', 'Node', 'Addr', 'Port', 'Incarnation', 'Meta', 'Vsn', 'From', 'Join', 'Nodes'].map(
    (name) => encodeMsgpack(name),
  ),
  encodeMsgpack(2 ** 32),
  encodeMsgpack(new Uint8Array(4)),
  Uint8Array.of(ENDPOINT_MAGIC),
  Uint8Array.of(0xdf, 0xff, 0xff, 0xff, 0xff), // a map that promises much
  Uint8Array.of(0xdd, 0xff, 0xff, 0xff, 0xff),
  Uint8Array.of(0xdb, 0xff, 0xff, 0xff, 0xff),
];

/** A part has a byte at least, of what came or of what that was decompressed to. */
export function requireBounded(input: Uint8Array, { messages, drops }: DecodedPacket): void {
  const packed = messages.length + drops.length > input.length + 1;
  const limit = input.length + 1 + (packed ? PACKET_DECOMPRESSED_BYTES_MAX : 0);
  require(messages.length + drops.length <= limit, 'no more parts come out than there are bytes');
  const users = messages.map((message) => (message.kind === 'user' ? message.payload.length : 0));
  const userBytes = users.reduce((sum, bytes) => sum + bytes, 0);
  require(userBytes <= input.length + PACKET_DECOMPRESSED_BYTES_MAX, 'nor more bytes than allowed');
}

export const packet: FuzzTarget = {
  name: 'gossip-packet',
  bytesMax: 1_400,
  dictionary: DICTIONARY,
  seeds() {
    const encoded = MESSAGES.map(encodeMessage);
    const compound = encodePacket(encoded, false);
    const packed = compress(compound, false);
    return [
      ...encoded,
      encodePacket(encoded, true),
      encodePacket(encoded.slice(0, 3), false),
      packed,
      encodePacket([packed], true),
      encodePacket([packed, compress(packed, false), compound], false),
    ];
  },
  run(input) {
    const decoded = decodePacket(input);
    const { messages, drops } = decoded;
    requireBounded(input, decoded);
    for (const message of messages) {
      const again = decodeMessage(encodeMessage(message));
      require(json(again) === json(message), 'what was read is written so that it reads the same');
    }
    const kinds = [...messages.map(({ kind }) => kind), ...drops];
    return { kind: kinds.slice(0, 2).join(), detail: json({ messages, drops }) };
  },
};

function toInput(value: MsgpackValue): MsgpackInput {
  if (value instanceof Map) {
    return Object.fromEntries([...value].map(([key, item]) => [key, toInput(item)]));
  }
  if (Array.isArray(value)) return value.map(toInput);
  return value as MsgpackInput;
}

export const msgpack: FuzzTarget = {
  name: 'msgpack',
  bytesMax: 512,
  dictionary: DICTIONARY,
  seeds: () => [
    encodeMsgpack({ a: [1, -1, 300, -300, 70_000, -70_000, 2 ** 40, -(2 ** 40)], b: null }),
    encodeMsgpack({ text: 'x'.repeat(40), yes: true, no: false, nested: { list: [[], {}] } }),
    encodeMsgpack(1.5),
  ],
  run(input) {
    const result = decodeMsgpack(input);
    if (!result.ok) return { kind: result.fault, detail: result.fault };
    require(result.end > 0 && result.end <= input.length, 'a value ends within its bytes');
    const again = decodeMsgpack(encodeMsgpack(toInput(result.value)));
    require(again.ok &&
      json(toInput(again.value)) ===
        json(toInput(result.value)), 'what was read is written so that it reads the same');
    return { kind: typeof result.value, detail: json([result.value, result.end]) };
  },
};

const VTEP = '{"address":"10.0.0.2","port":4789}';
const DELTA = {
  ...{ node: 'n2', generation: 7, since: 0, version: 2, atMs: 1e12, full: false },
  entries: [
    { key: 'vtep', version: 1, content: VTEP },
    { key: 'gone', version: 2, content: undefined },
  ],
};
const WINDOW = {
  ...{ first: 0, last: TREE_LEAVES },
  versions: [{ node: 'n2', generation: 7, version: 9, isLive: true }],
};
const SUMS = new Uint8Array(TREE_FANOUT * SUM_BYTES);
const ENDPOINT_MESSAGES: readonly EndpointMessage[] = [
  { kind: 'delta', delta: DELTA },
  { kind: 'repair', delta: { ...DELTA, full: true } },
  { kind: 'summary', summary: '0123456789abcdef' },
  { kind: 'digest', windows: [WINDOW], answer: false },
  { kind: 'branches', sums: SUMS },
  { kind: 'leaves', branch: 3, sums: SUMS },
  { kind: 'behind', first: 1, last: 2 },
  { kind: 'pull', ...WINDOW, resume: { node: 'n2', until: 3 } },
  { kind: 'pulled', deltas: [DELTA], next: 5 },
];

/** A member of the other node, as a push/pull has it. */
const N2: Member = newMember({
  ...{ node: 'n2', incarnation: 2, ...PEER, meta: new Uint8Array() },
  versions: Uint8Array.of(1, 5, 2, 2, 5, 5),
});

export const member: FuzzTarget = {
  name: 'gossip-member',
  bytesMax: 1_400,
  dictionary: DICTIONARY,
  seeds: () => [
    ...packet.seeds(),
    ...ENDPOINT_MESSAGES.map(encodeEndpointPayload),
    ...ENDPOINT_MESSAGES.map(encodeEndpointMessage),
    encodeUserStream(encodeEndpointPayload({ kind: 'pull', ...WINDOW })),
    encodePushPull([N2], encodeEndpointPayload({ kind: 'summary', summary: 'other' }), true),
  ],
  run(input) {
    const random = { next: () => 0.5, bytes: (length: number) => new Uint8Array(length) };
    const config = { name: 'self', address: '10.0.0.1', port: 7946, generation: 1 };
    const gossip = new Gossip({ random }, config, 0);
    gossip.restore({ members: [N2], records: [] }, 0);
    gossip.table.setLocal('k', 'v');
    // Whatever it is, it comes in each way in which bytes can come, and time goes on.
    const asked: AskEffect = { kind: 'ask', to: PEER, bytes: new Uint8Array() };
    const streamed = gossip.streamUser(input, PEER, 20);
    const read = new StreamReader().push(input);
    const effects = [
      ...gossip.packet(input, PEER, 10),
      ...gossip.tick(1_000),
      ...streamed.effects,
      ...gossip.answered(asked, input, 1_010),
      ...(read.kind === 'message' ? exchanged(gossip, read.message) : []),
      ...gossip.tick(2_000),
    ];
    const members = gossip.members();
    require(members[0]?.name === 'self' && members[0]?.state === 'alive', 'this node lives');
    require(members.length <= 2 + input.length / 8, 'a member takes some bytes to announce');
    const sent = effects.reduce((sum, one) => sum + (one.kind === 'send' ? 1 : 0), 0);
    require(sent <= 40 + input.length / 8, 'what is sent in answer is bounded');
    const kinds = [...new Set(effects.map(({ kind }) => kind))].sort();
    return { kind: `${members.length} ${kinds.join()}`, detail: json({ effects, members }) };
  },
};

/** Takes what came by stream as the request and as the answer that it may be. */
function exchanged(gossip: Gossip, message: StreamMessage): readonly Effect[] {
  if (message.kind === 'user') return gossip.streamUser(message.payload, PEER, 1_020).effects;
  if (message.kind !== 'pushPull') return [];
  const started = { kind: 'pushPull', to: PEER, bytes: new Uint8Array() } as const;
  const { effects, reply } = gossip.pushPullRequest(message, 1_020);
  const again = new StreamReader().push(reply);
  require(again.kind === 'message', 'an answer can be read');
  return [...effects, ...gossip.pushPullReply({ ...started, purpose: 'join' }, message, 1_030)];
}

export const endpoints: FuzzTarget = {
  name: 'endpoint-messages',
  bytesMax: 1_024,
  dictionary: [...DICTIONARY, bytesOf('{"a":'), bytesOf('[[[['), bytesOf('endpoint/')],
  seeds: () => ENDPOINT_MESSAGES.map(encodeEndpointPayload),
  run(input) {
    const said = decodeEndpointMessage(input);
    if (typeof said === 'string') return { kind: said, detail: said };
    const again = decodeEndpointMessage(encodeEndpointPayload(said));
    require(json(again) === json(said), 'what was read is written so that it reads the same');
    return { kind: said.kind, detail: json(said) };
  },
};

export const records: FuzzTarget = {
  name: 'endpoint-records',
  isCopied: true,
  bytesMax: 512,
  dictionary: ['"warm"', '"active"', 'null', '-1', '1e400', '"240.0.1.1"'].map(bytesOf),
  seeds: () => [
    bytesOf('{"address":"10.0.0.2","port":4789}'),
    bytesOf(
      '{"networkId":"n","address":"10.1.0.2","mac":"02:00:0a:01:00:02","serviceId":"s","taskId":"t","state":"active","primary":true}',
    ),
  ],
  run(input) {
    let value: Json;
    try {
      value = JSON.parse(textOf(input)) as Json;
    } catch {
      return { kind: 'no JSON', detail: '' };
    }
    const [vtep, endpoint] = [readVtepRecord(value), readEndpointRecord(value)];
    const kind = vtep !== undefined ? 'vtep' : endpoint !== undefined ? 'endpoint' : 'neither';
    return { kind, detail: json([vtep, endpoint]) };
  },
};
