// What serf adds to gossip: messages, states and tags of members that others run.
import { readFileSync } from 'node:fs';
import { decodeTags, isWeftMeta } from '../../../src/gossip/member-tags.ts';
import { META_BYTES_MAX } from '../../../src/gossip/messages.ts';
import { encodeMsgpack } from '../../../src/gossip/msgpack.ts';
import { SerfDelegate } from '../../../src/gossip/serf-delegate.ts';
import {
  decodeSerfMessage,
  decodeUserState,
  encodeIntent,
  encodeUserState,
} from '../../../src/gossip/serf-messages.ts';
import { type FuzzTarget, require } from '../target.ts';

const PACKET_BYTES_MAX = 1_400;
const MEMBERS_MAX = 4;

const vectors: {
  readonly metas: Readonly<Record<string, string>>;
  readonly messages: Readonly<Record<string, string>>;
  readonly states: Readonly<Record<string, string>>;
} = JSON.parse(
  readFileSync(new URL('../../gossip/vectors/serf-user.json', import.meta.url), 'utf8'),
);

function captured(name: keyof typeof vectors): Uint8Array[] {
  return Object.values(vectors[name]).map((hex) => Uint8Array.from(Buffer.from(hex, 'hex')));
}

function json(value: unknown): string {
  return JSON.stringify(value, (_, field: unknown) => {
    if (field instanceof Uint8Array) return Buffer.from(field).toString('hex');
    return field instanceof Map ? [...field] : field;
  });
}

const DICTIONARY: readonly Uint8Array[] = [
  ...['LTime', 'Node', 'Prune', 'Name', 'Payload', 'ID', 'Flags', 'self', 'a', 'b'].map((name) =>
    encodeMsgpack(name),
  ),
  ...['StatusLTimes', 'LeftMembers', 'EventLTime', 'QueryLTime', 'Weft'].map((name) =>
    encodeMsgpack(name),
  ),
  encodeMsgpack(Number.MAX_SAFE_INTEGER),
  Uint8Array.of(0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
  Uint8Array.of(0xdf, 0xff, 0xff, 0xff, 0xff),
];

/** A delegate with a member of each kind, and what it broadcasts. */
function makeDelegate() {
  const members = new Map([
    ['self', 'alive'],
    ['a', 'alive'],
    ['b', 'dead'],
  ] as const);
  const said: Uint8Array[] = [];
  const counts: string[] = [];
  const left: string[] = [];
  const delegate = new SerfDelegate({
    tuning: { membersMax: MEMBERS_MAX, packetBytesMax: PACKET_BYTES_MAX },
    outbox: { count: (name) => counts.push(name) },
    queue: { push: (_name, bytes) => said.push(bytes), has: () => said.length > 0 },
    self: 'self',
    members: () => [...members].map(([name, state]) => ({ name, state })),
    stateOf: (name) => new Map<string, 'alive' | 'dead'>(members).get(name),
    declareLeft: (name) => left.push(name),
  });
  return { delegate, said, counts, left };
}

export const message: FuzzTarget = {
  name: 'serf-message',
  bytesMax: 1_500,
  dictionary: DICTIONARY,
  seeds: () => [
    ...captured('messages'),
    ...(['self', 'a', 'b'] as const).flatMap((node) => [
      encodeIntent({ kind: 'leave', time: 3, node }),
      encodeIntent({ kind: 'join', time: 300, node }),
    ]),
    Uint8Array.of(3, ...encodeMsgpack({ LTime: 7, Name: 'n', Payload: 'x'.repeat(1_400) })),
    Uint8Array.of(4, ...encodeMsgpack({ LTime: 7, ID: 9, Flags: 3 })),
  ],
  run(input) {
    const { delegate, said, counts, left } = makeDelegate();
    const decoded = decodeSerfMessage(input);
    if (typeof decoded === 'object' && (decoded.kind === 'join' || decoded.kind === 'leave')) {
      const again = decodeSerfMessage(encodeIntent(decoded));
      require(json(again) === json(decoded), 'what was read is written so that it reads the same');
    }
    delegate.receive(input, 0);
    const once = said.length;
    require(once <= 1, 'one message leads to one at most');
    for (const bytes of said) {
      require(bytes.length <= PACKET_BYTES_MAX, 'what is passed on fits in a packet');
      require(typeof decodeSerfMessage(bytes.subarray(1)) ===
        'object', 'what is passed on can be read');
    }
    delegate.receive(input, 1);
    require(said.length === once, 'what was heard before leads to nothing');
    const state = decodeUserState(delegate.wrapState(new Uint8Array(1)));
    require(typeof state === 'object', 'the state that follows can be read');
    const kind = typeof decoded === 'string' ? decoded : decoded.kind;
    const detail = json({ decoded, said, counts, left, state });
    return { kind: `${kind} ${once} ${counts[0] ?? ''} ${left.length}`, detail };
  },
};

export const state: FuzzTarget = {
  name: 'serf-state',
  bytesMax: 1_024,
  dictionary: DICTIONARY,
  seeds() {
    const serf = { time: 9, eventTime: 3, queryTime: 2, left: ['b', 'c'] };
    const statusTimes = new Map([
      ['a', 4],
      ['b', 5],
      ['self', 6],
    ]);
    return [
      ...captured('states'),
      encodeUserState({ serf: { ...serf, statusTimes }, weft: Uint8Array.of(0x57, 5, 0x80) }),
      encodeUserState({ serf: { ...serf, left: ['self'], statusTimes }, weft: undefined }),
    ];
  },
  run(input) {
    const decoded = decodeUserState(input);
    if (typeof decoded === 'string') return { kind: decoded, detail: decoded };
    const again = decodeUserState(encodeUserState(decoded));
    require(json(again) === json(decoded), 'what was read is written so that it reads the same');
    const { delegate, said, counts, left } = makeDelegate();
    delegate.merge(decoded.serf, 0);
    require(said.length <= 1, 'nothing but a refutation is said');
    const merged = decodeUserState(delegate.wrapState(new Uint8Array(1)));
    require(typeof merged === 'object', 'the state that follows can be read');
    require(merged.serf.statusTimes.size === 3, 'it is about members alone');
    require(merged.serf.time >= decoded.serf.time, 'the clock does not go back');
    const kind = `${said.length} ${counts.length > 0} ${left.length} ${decoded.weft !== undefined}`;
    return { kind, detail: json({ decoded, said, counts, left, merged }) };
  },
};

const WEFT_ROLE = Uint8Array.of(...encodeMsgpack('role'), ...encodeMsgpack('weft'));

export const tags: FuzzTarget = {
  name: 'member-tags',
  bytesMax: META_BYTES_MAX,
  dictionary: ['role', 'weft', 'hostname'].map((name) => encodeMsgpack(name)),
  seeds: () => [
    ...captured('metas'),
    Uint8Array.of(0xff, ...encodeMsgpack({ role: 'weft', hostname: 'h1', version: '1' })),
    Uint8Array.of(0xff, ...encodeMsgpack({ hostname: 'h1', role: 'weft' })),
    new TextEncoder().encode('web'),
  ],
  run(input) {
    const decoded = decodeTags(input);
    const isWeft = isWeftMeta(input);
    // What begins as weft nodes write it is taken for one of them, however it goes on.
    const begins = input[0] === 0xff && json(input.subarray(2, 12)) === json(WEFT_ROLE);
    const says = decoded.get('role') === 'weft';
    require(isWeft === (begins || says), 'a weft node is one that says so');
    return { kind: `${decoded.size} ${isWeft}`, detail: json([decoded, isWeft]) };
  },
};
