import { readFileSync } from 'node:fs';
import { decode as oracleDecode, encode as oracleEncode } from '@msgpack/msgpack';
import fc from 'fast-check';
import { test } from 'tap';
import type { MemberChange } from '../../src/gossip/effects.ts';
import { LAMPORT_TIME_MAX, LamportClock } from '../../src/gossip/lamport-clock.ts';
import type { MemberState } from '../../src/gossip/member.ts';
import { decodeTags, encodeTags, isWeftMeta } from '../../src/gossip/member-tags.ts';
import { META_BYTES_MAX } from '../../src/gossip/messages.ts';
import {
  RECENT_PER_TIME_MAX,
  RECENT_TIMES,
  RecentMessages,
} from '../../src/gossip/recent-messages.ts';
import { SerfDelegate } from '../../src/gossip/serf-delegate.ts';
import {
  decodeSerfMessage,
  decodeUserState,
  encodeIntent,
  encodeUserState,
  type Intent,
  type SerfState,
  type UserState,
} from '../../src/gossip/serf-messages.ts';

interface Vectors {
  readonly metas: Readonly<Record<string, string>>;
  readonly messages: Readonly<Record<string, string>>;
  readonly states: Readonly<Record<string, string>>;
}

const vectors: Vectors = JSON.parse(
  readFileSync(new URL('./vectors/serf-user.json', import.meta.url), 'utf8'),
);

function hex(text: string | undefined): Uint8Array {
  return Uint8Array.from(Buffer.from(text ?? '', 'hex'));
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** A message as the JavaScript msgpack library writes it. */
function foreign(type: number, fields: unknown): Uint8Array {
  return Uint8Array.of(type, ...oracleEncode(fields, { useBigInt64: true }));
}

test('tags are read as serf writes them, and a role alone as old serf did', (t) => {
  const tagsOf = (meta: Uint8Array) => Object.fromEntries(decodeTags(meta));
  t.same(tagsOf(hex(vectors.metas['role=web'])), { role: 'web' });
  t.same(tagsOf(hex(vectors.metas['zone=x'])), { zone: 'x' });
  t.same(tagsOf(hex(vectors.metas.none)), {});
  t.same(tagsOf(text('web')), { role: 'web' });
  t.same(tagsOf(new Uint8Array()), {});
  for (const damaged of ['ff', 'ff81', 'ff81a4726f6c65', 'ff9100', 'ff8101a178', 'fffe', 'fe80']) {
    t.same(tagsOf(hex(damaged)), {}, `nothing is said of ${damaged}`);
  }
  const mixed = Uint8Array.of(0xff, ...oracleEncode({ n: 1, list: ['x'], zone: 'é' }));
  t.same(tagsOf(mixed), { zone: 'é' }, 'what is no text is left out');
  t.end();
});

test('tags of a weft node are what any decoder reads, and mark it as one', (t) => {
  const short = fc.string({ maxLength: 20, unit: 'grapheme' });
  fc.assert(
    fc.property(fc.dictionary(short, short, { maxKeys: 4 }), (record) => {
      // The oracle refuses to read the second one as a key.
      const others = ['role', '__proto__'];
      const tags = new Map(Object.entries(record).filter(([name]) => !others.includes(name)));
      const meta = encodeTags(tags);
      const expected = { role: 'weft', ...Object.fromEntries(tags) };
      t.same(Object.fromEntries(decodeTags(meta)), expected);
      t.same(oracleDecode(meta.subarray(1)), expected);
      t.equal(meta[0], 0xff);
      return isWeftMeta(meta);
    }),
    { numRuns: 50 },
  );
  const roleLast = Uint8Array.of(0xff, ...oracleEncode({ zone: 'x', role: 'weft' }));
  t.ok(isWeftMeta(roleLast), 'wherever the role is');
  t.ok(isWeftMeta(text('weft')), 'and in whatever form');
  for (const meta of [text('web'), text('role=weft'), new Uint8Array(), hex('ff80')]) {
    t.notOk(isWeftMeta(meta));
  }
  for (const role of ['web', 'weft2', 'wef', 'Weft']) {
    t.notOk(isWeftMeta(Uint8Array.of(0xff, ...oracleEncode({ role }))), role);
  }
  const room = META_BYTES_MAX - encodeTags(new Map([['x', 'v'.repeat(100)]])).length + 99;
  t.equal(encodeTags(new Map([['x', 'v'.repeat(room)]])).length, META_BYTES_MAX - 1);
  t.throws(() => encodeTags(new Map([['x', 'v'.repeat(room + 2)]])), {
    message: 'Cannot use node tags of 513 bytes: expected at most 512',
  });
  t.throws(() => encodeTags(new Map([['role', 'web']])), RangeError);
  t.end();
});

test('messages of serf are read, and intents are written as serf does', (t) => {
  const join: Intent = { kind: 'join', time: 1, node: 'c' };
  const leave: Intent = { kind: 'leave', time: 2, node: 'c' };
  const { messages } = vectors;
  t.same(decodeSerfMessage(hex(messages.join)), join);
  t.same(decodeSerfMessage(hex(messages.leave)), leave);
  t.same(encodeIntent(join), hex(messages.join));
  t.same(encodeIntent(leave), hex(messages.leave));
  t.same(decodeSerfMessage(hex(messages.event)), {
    ...{ kind: 'event', time: 1, name: text('deploy'), payload: text('v1') },
  });
  t.same(decodeSerfMessage(hex(messages.query)), {
    ...{ kind: 'query', time: 1, id: 0x3cbaa059, broadcast: true },
  });
  t.equal(decodeSerfMessage(hex(messages.queryResponse)), 'ignored');
  t.equal(decodeSerfMessage(hex(messages.relay)), 'ignored');
  for (const type of [6, 7, 8]) t.equal(decodeSerfMessage(Uint8Array.of(type)), 'ignored');
  for (const type of [2, 10, 0x57, 255]) t.equal(decodeSerfMessage(Uint8Array.of(type)), 'unknown');
  t.equal(decodeSerfMessage(new Uint8Array()), 'unknown');
  t.end();
});

test('what is no message of serf is malformed', (t) => {
  const name = 'n'.repeat(256);
  const cases: [string, number, unknown][] = [
    ['no map', 1, [1, 'a']],
    ['no node', 1, { LTime: 1 }],
    ['an empty node', 0, { LTime: 1, Node: '' }],
    ['a node name that is too long', 0, { LTime: 1, Node: name }],
    ['a time that is no integer', 1, { LTime: 1.5, Node: 'a' }],
    ['a negative time', 1, { LTime: -1, Node: 'a' }],
    ['a time beyond what a number holds', 1, { LTime: 2n ** 53n, Node: 'a' }],
    ['the last time of 64 bits', 3, { LTime: 2n ** 64n - 1n, Name: 'a' }],
    ['a time that is text', 4, { LTime: '1' }],
    ['flags of more than 32 bits', 4, { LTime: 1, ID: 1, Flags: 2 ** 32 }],
    ['a payload that is a map', 3, { LTime: 1, Name: 'a', Payload: {} }],
  ];
  for (const [what, type, fields] of cases) {
    t.equal(decodeSerfMessage(foreign(type, fields)), 'malformed', what);
  }
  t.equal(decodeSerfMessage(foreign(4, { Flags: 2 })) instanceof Object, true, 'zeros may lack');
  const quiet = decodeSerfMessage(foreign(4, { LTime: 9, ID: 7, Flags: 3 }));
  t.same(quiet, { kind: 'query', time: 9, id: 7, broadcast: false });
  for (const message of Object.values(vectors.messages).map(hex)) {
    for (let length = 1; length < message.length; length++) {
      const part = decodeSerfMessage(message.subarray(0, length));
      t.ok(part === 'malformed' || part === 'ignored', 'one that ends early');
    }
  }
  t.end();
});

test('the state of serf is read, and written as serf does', (t) => {
  const read = (name: string) => decodeUserState(hex(vectors.states[name]));
  const fresh: SerfState = {
    ...{ time: 1, eventTime: 1, queryTime: 1, left: [], statusTimes: new Map([['b', 0]]) },
  };
  t.same(read('fresh'), { serf: fresh, weft: undefined });
  const times = [
    ['a', 0],
    ['b', 1],
    ['c', 2],
  ] as const;
  t.same(read('afterLeave'), {
    serf: { time: 3, eventTime: 2, queryTime: 2, left: ['c'], statusTimes: new Map(times) },
    weft: undefined,
  });
  // Serf sends the whole ring of its events, we none.
  const nils = `dc0200${'c0'.repeat(512)}`;
  const bytes = vectors.states.fresh?.replace(nils, '90');
  t.same(encodeUserState({ serf: fresh, weft: undefined }), hex(bytes));
  t.equal(decodeUserState(new Uint8Array()), 'empty');
  t.equal(decodeUserState(Uint8Array.of(0x57, 5, 0x80)), 'foreign');
  for (const [what, fields] of Object.entries({
    'a time of a member that is negative': { StatusLTimes: { a: -1 } },
    'a time of a member that is text': { StatusLTimes: { a: 'x' } },
    'a member without a name': { StatusLTimes: { '': 1 } },
    'a time that no number holds': { LTime: 2n ** 63n },
    'a member that left without a name': { LeftMembers: [''] },
    'a member that left and is a number': { LeftMembers: [1] },
    'times that are a list': { StatusLTimes: [] },
    'a state of weft that is a number': { Weft: 1 },
  })) {
    t.equal(decodeUserState(foreign(2, fields)), 'malformed', what);
  }
  t.equal(decodeUserState(Uint8Array.of(2, 0x90)), 'malformed');
  t.end();
});

// The oracle refuses to read this one as a key.
const nodeName = fc
  .string({ minLength: 1, maxLength: 12, unit: 'grapheme' })
  .filter((name) => name !== '__proto__');
const time = fc.oneof(fc.nat({ max: 3 }), fc.maxSafeNat(), fc.constant(LAMPORT_TIME_MAX));

test('any user state is read as it was written, by another decoder, too', (t) => {
  const states: fc.Arbitrary<UserState> = fc.record({
    serf: fc.record({
      ...{ time, eventTime: time, queryTime: time },
      left: fc.array(nodeName, { maxLength: 4 }),
      statusTimes: fc
        .array(fc.tuple(nodeName, time), { maxLength: 20 })
        .map((entries) => new Map(entries)),
    }),
    weft: fc.option(fc.uint8Array({ minLength: 1, maxLength: 70_000 }), { nil: undefined }),
  });
  fc.assert(
    fc.property(states, (state) => {
      const bytes = encodeUserState(state);
      t.same(decodeUserState(bytes), state);
      const fields = oracleDecode(bytes.subarray(1), { rawStrings: true }) as object;
      t.equal(Object.keys(fields).length, state.weft === undefined ? 6 : 7);
    }),
    { numRuns: 50 },
  );
  t.end();
});

test('a Lamport clock is ahead of all that it was shown, and never beyond its last time', (t) => {
  const steps = fc.array(fc.oneof(fc.constant('step' as const), time), { maxLength: 30 });
  fc.assert(
    fc.property(steps, (taken) => {
      const clock = new LamportClock();
      let oracle = 1n;
      for (const step of taken) {
        if (step === 'step') {
          oracle++;
          clock.increment();
        } else {
          if (BigInt(step) >= oracle) oracle = BigInt(step) + 1n;
          clock.witness(step);
        }
        if (oracle > BigInt(LAMPORT_TIME_MAX)) oracle = BigInt(LAMPORT_TIME_MAX);
        t.equal(clock.time, Number(oracle));
      }
    }),
  );
  t.end();
});

test('a message is new once, whatever is heard in between', (t) => {
  const nearby = fc.nat({ max: 700 });
  const heard = fc.array(fc.tuple(nearby, fc.nat({ max: 3 })), { maxLength: 200 });
  fc.assert(
    fc.property(heard, (messages) => {
      const recent = new RecentMessages();
      // The oracle forgets nothing.
      const seen = new Set<string>();
      let latest = 0;
      for (const [at, id] of messages) {
        const admission = recent.admit(at, `${id}`);
        latest = Math.max(latest, at);
        const known = seen.has(`${at}/${id}`);
        seen.add(`${at}/${id}`);
        const tooOld = at + RECENT_TIMES <= latest;
        if (tooOld) t.not(admission, 'new', `${at} is too old at ${latest}`);
        else t.equal(admission, known ? 'seen' : 'new');
      }
    }),
  );
  const recent = new RecentMessages();
  for (let id = 0; id < RECENT_PER_TIME_MAX; id++) t.equal(recent.admit(5, `${id}`), 'new');
  t.equal(recent.admit(5, 'more'), 'full');
  t.equal(recent.admit(5, '0'), 'seen');
  t.equal(recent.admit(LAMPORT_TIME_MAX, 'last'), 'new');
  t.equal(recent.admit(LAMPORT_TIME_MAX, 'last'), 'seen');
  t.equal(recent.admit(5, 'again'), 'old');
  t.equal(recent.admit(LAMPORT_TIME_MAX - RECENT_TIMES, 'other'), 'old', 'its place is taken');
  t.end();
});

/** A delegate of 'self' among members that the test makes up. */
function setUp(states: Record<string, MemberState>, membersMax = 8) {
  const members = new Map<string, MemberState>(Object.entries({ self: 'alive', ...states }));
  const queue = new Map<string, Uint8Array>();
  const counts: string[] = [];
  const left: string[] = [];
  const delegate = new SerfDelegate({
    tuning: { membersMax, packetBytesMax: 1_400 },
    outbox: { count: (name) => counts.push(name) },
    queue: {
      push: (name, bytes) => queue.set(name, bytes),
      has: (name) => queue.has(name),
    },
    self: 'self',
    members: () => [...members].map(([name, state]) => ({ name, state })),
    stateOf: (name) => members.get(name),
    declareLeft: (name) => {
      members.set(name, 'left');
      left.push(name);
      delegate.memberChanged('left', name);
    },
  });
  const hear = (kind: Intent['kind'], node: string, at: number, nowMs = 0): void =>
    delegate.receive(encodeIntent({ kind, node, time: at }), nowMs);
  const change = (name: string, state: MemberState, what: MemberChange): void => {
    members.set(name, state);
    delegate.memberChanged(what, name);
  };
  /** Payloads that are broadcast since the last call. */
  const queued = (): Uint8Array[] => {
    const messages = [...queue.values()];
    queue.clear();
    if (messages.some(([type]) => type !== 8)) throw new Error('Not a user message');
    return messages.map((bytes) => bytes.subarray(1));
  };
  const said = () => queued().map(decodeSerfMessage);
  const state = (): SerfState => {
    const decoded = decodeUserState(delegate.wrapState(Uint8Array.of(1)));
    if (typeof decoded === 'string') throw new Error(decoded);
    return decoded.serf;
  };
  return { delegate, members, counts, left, hear, change, queued, said, state };
}

test('an intent about a member is passed on if it is newer than what was said', (t) => {
  const { hear, said, state } = setUp({ a: 'alive' });
  hear('join', 'a', 3);
  t.same(said(), [{ kind: 'join', node: 'a', time: 3 }]);
  for (const at of [3, 2, 0]) hear('leave', 'a', at);
  hear('join', 'a', 3);
  t.same(said(), [], 'what is not newer is not');
  hear('leave', 'a', 9);
  t.same(said(), [{ kind: 'leave', node: 'a', time: 9 }]);
  t.equal(state().time, 10, 'the clock is ahead');
  t.same(
    [...state().statusTimes],
    [
      ['self', 0],
      ['a', 9],
    ],
  );
  t.end();
});

test('a leave intent about this node is refuted, until it leaves', (t) => {
  const { delegate, hear, said, state } = setUp({ a: 'alive' });
  hear('leave', 'self', 40);
  const [refutation] = said();
  t.match(refutation, { kind: 'join', node: 'self' });
  t.ok((refutation as Intent).time > 40);
  hear('leave', 'self', 40);
  hear('leave', 'self', (refutation as Intent).time);
  t.same(said(), [], 'an older one needs no answer');
  delegate.announceLeave();
  t.notOk(delegate.announced, 'it is not said yet');
  const [leave] = said();
  t.ok(delegate.announced);
  t.match(leave, { kind: 'leave', node: 'self' });
  t.ok((leave as Intent).time > (refutation as Intent).time);
  hear('leave', 'self', 1_000);
  t.same(said(), [{ kind: 'leave', node: 'self', time: 1_000 }], 'another says so, too');
  hear('leave', 'self', LAMPORT_TIME_MAX);
  t.equal(state().time, LAMPORT_TIME_MAX, 'the clock stays where it ends');
  t.end();
});

test('the last Lamport time cannot be outbid, and is answered once', (t) => {
  const { hear, said, state } = setUp({});
  hear('leave', 'self', LAMPORT_TIME_MAX);
  t.same(said(), [{ kind: 'join', node: 'self', time: LAMPORT_TIME_MAX }]);
  hear('leave', 'self', LAMPORT_TIME_MAX);
  t.same(said(), []);
  t.equal(state().time, LAMPORT_TIME_MAX);
  t.end();
});

for (const { before, change, after } of [
  { before: 'leave', change: 'failed', after: ['a'] },
  { before: 'join', change: 'failed', after: [] },
  { before: 'leave', change: 'left', after: [] },
] as const) {
  test(`a member that was to ${before}, and then ${change}`, (t) => {
    const { hear, left, change: happen } = setUp({ a: 'alive' });
    hear('leave', 'a', 5);
    if (before === 'join') hear('join', 'a', 6);
    happen('a', change === 'failed' ? 'dead' : 'left', change);
    t.same(left, after, after.length > 0 ? 'has left' : 'is what it is');
    t.end();
  });
}

test('a failed member that is made to leave has left; one that returned stays', (t) => {
  const { delegate, hear, left, change, state } = setUp({ a: 'dead', b: 'dead' });
  hear('leave', 'a', 5);
  t.same(left, ['a']);
  t.same(state().left, ['a'], 'and others are told with the state');
  hear('leave', 'a', 6);
  t.same(left, ['a']);
  change('a', 'alive', 'joined');
  change('a', 'dead', 'failed');
  t.same(left, ['a'], 'what was said of the life before does not count');
  const others = { time: 9, eventTime: 0, queryTime: 0 };
  delegate.merge({ ...others, left: ['b'], statusTimes: new Map([['b', 7]]) }, 0);
  t.same(left, ['a', 'b'], 'a state tells of it as well');
  t.equal(state().statusTimes.get('b'), 8);
  t.end();
});

test('the clocks of a state are those of what is said next', (t) => {
  const { delegate, state } = setUp({});
  const told = { time: 30, eventTime: 40, queryTime: 50, left: [], statusTimes: new Map() };
  delegate.merge(told, 0);
  const { time: members, eventTime, queryTime } = state();
  t.same([members, eventTime, queryTime], [30, 40, 50]);
  delegate.merge({ ...told, time: 0, eventTime: 0, queryTime: 0 }, 0);
  t.same(state().eventTime, 40);
  t.end();
});

test('intents about strangers are kept for when they come, bounded, and forgotten', (t) => {
  const { delegate, members, hear, left, change, said, counts, state } = setUp({}, 2);
  hear('leave', 'a', 5);
  hear('join', 'b', 6);
  t.equal(said().length, 2, 'they are passed on');
  hear('leave', 'a', 5);
  hear('leave', 'a', 4);
  t.equal(said().length, 0, 'once');
  hear('join', 'c', 9);
  t.equal(said().length, 0, 'and no more than can be kept');
  t.same(counts, ['serf_intents_full']);
  change('a', 'alive', 'joined');
  t.equal(state().statusTimes.get('a'), 5);
  change('a', 'dead', 'failed');
  t.same(left, ['a'], 'it said that it would go');
  members.delete('a');
  delegate.collect(299_999);
  hear('join', 'b', 6, 299_999);
  t.equal(said().length, 0);
  delegate.collect(300_000);
  hear('join', 'b', 6, 300_000);
  t.equal(said().length, 1, 'after five minutes it is new again');
  change('a', 'alive', 'joined');
  t.equal(state().statusTimes.get('a'), 0, 'a member that was forgotten is new as well');
  t.end();
});

test('events and queries are passed on once as they came, and nothing is answered', (t) => {
  const { delegate, said, counts, state } = setUp({ a: 'alive' });
  const event = hex(vectors.messages.event);
  const query = hex(vectors.messages.query);
  for (let times = 0; times < 3; times++) {
    delegate.receive(event, 0);
    delegate.receive(query, 0);
  }
  t.same(said(), [decodeSerfMessage(event), decodeSerfMessage(query)]);
  const clocks = state();
  t.same([clocks.eventTime, clocks.queryTime, clocks.time], [2, 2, 1], 'clocks of their own');
  delegate.receive(foreign(3, { LTime: 1, Name: 'deploy', Payload: 'v2', CC: true }), 0);
  delegate.receive(foreign(3, { LTime: 2, Name: 'deploy', Payload: 'v1', CC: true }), 0);
  t.equal(said().length, 2, 'another payload and another time are other events');
  delegate.receive(foreign(4, { LTime: 3, ID: 1, Flags: 2 }), 0);
  t.equal(said().length, 0, 'a query for this node alone is not');
  t.same(counts, []);
  delegate.receive(hex(vectors.messages.relay), 0);
  delegate.receive(hex(vectors.messages.queryResponse), 0);
  delegate.receive(Uint8Array.of(77), 0);
  delegate.receive(Uint8Array.of(1, 0xc1), 0);
  delegate.receive(foreign(3, { LTime: 9, Name: 'large', Payload: 'x'.repeat(1_400) }), 0);
  delegate.receive(foreign(3, { LTime: 5_000, Name: 'late' }), 0);
  delegate.receive(foreign(3, { LTime: 9, Name: 'old' }), 0);
  t.equal(said().length, 1);
  t.same(counts, [
    ...['serf_message_ignored', 'serf_message_ignored', 'serf_message_unknown'],
    ...['serf_message_malformed', 'serf_message_too_large', 'serf_event_old'],
  ]);
  t.end();
});

test('in any cluster, whatever is said is passed on by each node once, and then all is quiet', (t) => {
  const message = fc.oneof(
    fc
      .record({ kind: fc.constantFrom('join', 'leave'), node: nodeName, time })
      .map((intent) => encodeIntent(intent as Intent)),
    fc.record({ LTime: fc.nat({ max: 600 }), Name: nodeName }).map((fields) => foreign(3, fields)),
    fc.record({ LTime: fc.nat({ max: 600 }), ID: fc.nat({ max: 3 }) }).map((f) => foreign(4, f)),
  );
  const heard = fc.array(fc.tuple(message, fc.nat({ max: 3 })), { maxLength: 20 });
  fc.assert(
    fc.property(heard, fc.nat(), (messages, seed) => {
      const nodes = [0, 1, 2, 3].map(() => setUp({ a: 'alive', b: 'dead' }, 4));
      const passedOn = new Set<string>();
      const pending = messages.map(([bytes, to]) => ({ bytes, to }));
      for (let order = seed; pending.length > 0; order = (order * 69_069 + 1) % 0x1_0000_0000) {
        const [next] = pending.splice(order % pending.length, 1);
        const from = next?.to ?? 0;
        const node = nodes[from];
        if (next === undefined || node === undefined) throw new Error('Nothing is pending');
        node.delegate.receive(next.bytes, 0);
        for (const bytes of node.queued()) {
          const key = `${from} ${Buffer.from(bytes).toString('hex')}`;
          t.notOk(passedOn.has(key), 'no node passes the same on twice');
          passedOn.add(key);
          for (const to of nodes.keys()) if (to !== from) pending.push({ bytes, to });
        }
      }
    }),
    { numRuns: 50 },
  );
  t.end();
});
