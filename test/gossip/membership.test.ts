import fc from 'fast-check';
import { test } from 'tap';
import { Awareness } from '../../src/gossip/awareness.ts';
import { BroadcastQueue } from '../../src/gossip/broadcast-queue.ts';
import {
  checkTuning,
  LAN_TUNING,
  retransmitLimit,
  scaledPushPullMs,
} from '../../src/gossip/config.ts';
import { type Effect, Outbox } from '../../src/gossip/effects.ts';
import { MachineTime } from '../../src/gossip/machine-time.ts';
import { type Member, newMember } from '../../src/gossip/member.ts';
import { MemberTable } from '../../src/gossip/member-table.ts';
import { Membership } from '../../src/gossip/membership.ts';
import { type Alive, decodeMessage, type Rumour } from '../../src/gossip/messages.ts';
import type { PeerAddress } from '../../src/gossip/peer-address.ts';
import { Prober, RELAYS_MAX } from '../../src/gossip/prober.ts';
import { Suspicion, suspicionMinMs, suspicionTimeoutMs } from '../../src/gossip/suspicion.ts';
import { seededRandom } from '../support/gossip-sim.ts';

const VERSIONS = Uint8Array.of(1, 5, 2, 2, 5, 5);

function alive(node: string, incarnation: number, change: Partial<Alive> = {}): Alive {
  const address = `10.0.0.${node.charCodeAt(0)}`;
  const fixed = { meta: new Uint8Array(), versions: VERSIONS };
  return { kind: 'alive', node, incarnation, address, port: 7946, ...fixed, ...change };
}

/** A membership of 'self' and its surroundings. */
function setUp(tuning = LAN_TUNING) {
  const table = new MemberTable(seededRandom(1));
  const queue = new BroadcastQueue(tuning.queueMax);
  const awareness = new Awareness(tuning.awarenessMaxMultiplier);
  const outbox = new Outbox();
  const told: [PeerAddress, Rumour][] = [];
  const self = newMember(alive('self', 1, { address: '10.0.0.1' }));
  const tell = (to: PeerAddress, rumour: Rumour): number => told.push([to, rumour]);
  const membership = new Membership({ tuning, table, queue, awareness, outbox, tell }, self);
  queue.take(2_000, 2, 1, 255); // its own birth
  return { membership, table, queue, awareness, outbox, told };
}

/** "suspect 3" as a rumour about `node`. */
function rumour(text: string, node: string): Rumour {
  const [kind = '', incarnation] = text.split(' ');
  if (kind === 'alive') return alive(node, Number(incarnation));
  const from = kind === 'left' ? node : 'accuser';
  const accusation = kind === 'suspect' ? 'suspect' : 'dead';
  return { kind: accusation, incarnation: Number(incarnation), node, from };
}

function changes(effects: readonly Effect[]): string {
  return effects
    .map((effect) => {
      if (effect.kind !== 'event') return effect.kind;
      return effect.event.kind === 'member' ? effect.event.change : effect.event.kind;
    })
    .join(' ');
}

// SWIM section 4.2, with memberlist's "left" beside "dead". `+` marks what is gossiped on.
for (const [known, heard, state, event] of [
  ['alive 3', 'alive 2', 'alive 3', ''],
  ['alive 3', 'alive 3', 'alive 3', ''],
  ['alive 3', 'alive 4', 'alive 4', '+'],
  ['alive 3', 'suspect 2', 'alive 3', ''],
  ['alive 3', 'suspect 3', 'suspect 3', 'suspected +'],
  ['alive 3', 'suspect 4', 'suspect 4', 'suspected +'],
  ['alive 3', 'dead 2', 'alive 3', ''],
  ['alive 3', 'dead 3', 'dead 3', 'failed +'],
  ['alive 3', 'left 3', 'left 3', 'left +'],
  ['suspect 3', 'alive 3', 'suspect 3', ''], // only a higher incarnation refutes
  ['suspect 3', 'alive 4', 'alive 4', 'refuted +'],
  ['suspect 3', 'suspect 2', 'suspect 3', ''],
  ['suspect 3', 'suspect 3', 'suspect 3', ''], // the same accuser again
  ['suspect 3', 'dead 2', 'suspect 3', ''],
  ['suspect 3', 'dead 3', 'dead 3', 'failed +'],
  ['suspect 3', 'left 3', 'left 3', 'left +'],
  ['dead 3', 'alive 3', 'dead 3', ''],
  ['dead 3', 'alive 4', 'alive 4', 'returned +'],
  ['dead 3', 'suspect 9', 'dead 3', ''],
  ['dead 3', 'dead 9', 'dead 3', ''],
  ['dead 3', 'left 3', 'dead 3', ''],
  ['left 3', 'alive 3', 'left 3', ''],
  ['left 3', 'alive 4', 'alive 4', 'joined +'],
  ['left 3', 'dead 3', 'left 3', ''],
] as const) {
  test(`a member that is ${known} and is heard to be ${heard} is ${state}`, (t) => {
    const { membership, table, queue, outbox } = setUp();
    membership.apply(alive('m', 3), 0);
    if (!known.startsWith('alive')) membership.apply(rumour(known, 'm'), 0);
    queue.take(2_000, 2, 1, 255);
    outbox.drain();
    membership.apply(rumour(heard, 'm'), 10);
    const member = table.get('m');
    t.equal(`${member?.state} ${member?.incarnation}`, state);
    t.equal([changes(outbox.drain()), queue.has('m') ? '+' : ''].join(' ').trim(), event);
    t.equal(member?.suspicion !== undefined, member?.state === 'suspect');
    t.end();
  });
}

test('rumours about unknown members: only alive makes one', (t) => {
  const { membership, table, queue } = setUp();
  for (const text of ['suspect 3', 'dead 3', 'left 3', 'alive 0']) {
    membership.apply(rumour(text, 'm'), 0);
    t.equal(table.get('m'), undefined, text);
    t.notOk(queue.has('m'), text);
  }
  membership.apply(alive('m', 1, { versions: Uint8Array.of(3, 2, 2) }), 0);
  t.equal(table.get('m'), undefined, 'protocol versions that cannot be');
  membership.apply(alive('m', 1), 0);
  t.equal(table.get('m')?.state, 'alive');
  t.end();
});

test('this node refutes what is said against it, above the accusation', (t) => {
  for (const [heard, incarnation] of [
    ['suspect 1', 2],
    ['suspect 7', 8],
    ['dead 1', 2],
    ['left 4', 5],
    ['alive 6', 7], // an older life of this node, still remembered
    ['suspect 0', 1],
    ['alive 1', 1], // its own words
    ['suspect 4294967295', 0xffff_ffff],
  ] as const) {
    const { membership, queue, awareness } = setUp();
    const same = { address: '10.0.0.1' };
    const isAlive = heard.startsWith('alive');
    membership.apply(
      isAlive ? { ...alive('self', Number(heard.slice(6))), ...same } : rumour(heard, 'self'),
      5,
    );
    t.equal(membership.self.incarnation, incarnation, heard);
    t.equal(membership.self.state, 'alive');
    t.equal(queue.has('self'), incarnation > 1, 'says so to all');
    t.equal(awareness.score, incarnation > 1 ? 1 : 0, 'being accused is a bad sign');
  }
  t.end();
});

test('a leaving node is left, and refutes nothing', (t) => {
  const { membership, queue } = setUp();
  membership.leave(5);
  const [bytes] = queue.take(2_000, 2, 9, 1);
  t.match(decodeMessage(bytes ?? new Uint8Array()), { kind: 'dead', node: 'self', from: 'self' });
  membership.apply(rumour('suspect 9', 'self'), 6);
  membership.apply({ ...alive('self', 9), address: '10.0.0.1' }, 6);
  t.equal(`${membership.self.state} ${membership.self.incarnation}`, 'left 1');
  t.end();
});

test('another address for a known name is a conflict, unless the member has left', (t) => {
  const { membership, table, outbox } = setUp();
  membership.apply(alive('m', 1), 0);
  outbox.drain();
  membership.apply(alive('m', 5, { port: 1 }), 10);
  membership.apply(alive('m', 5, { port: 2 }), 20);
  membership.apply(alive('self', 5), 20);
  t.equal(changes(outbox.drain()), 'conflict conflict', 'one per member and second');
  t.equal(outbox.counters().name_conflict, 3);
  t.equal(table.get('m')?.port, 7946);
  membership.apply(rumour('left 1', 'm'), 30);
  membership.apply(alive('m', 1, { port: 1 }), 40);
  t.equal(changes(outbox.drain()), 'left joined');
  t.equal(table.get('m')?.port, 1);
  t.end();
});

test('a dead member may get another address after deadNodeReclaimMs', (t) => {
  const { membership, outbox } = setUp({ ...LAN_TUNING, deadNodeReclaimMs: 1_000 });
  membership.apply(alive('m', 1), 0);
  membership.apply(rumour('dead 1', 'm'), 100);
  outbox.drain();
  membership.apply(alive('m', 1, { port: 1 }), 1_100);
  t.equal(changes(outbox.drain()), 'conflict');
  membership.apply(alive('m', 1, { port: 1 }), 1_101);
  t.equal(changes(outbox.drain()), 'returned');
  t.end();
});

test('meta and a refutation are reported; a suspect that says nothing dies at its deadline', (t) => {
  const { membership, outbox, table } = setUp();
  membership.apply(alive('m', 1), 0);
  membership.apply(alive('m', 2, { meta: Uint8Array.of(1) }), 0);
  membership.apply(rumour('suspect 2', 'm'), 0);
  t.equal(changes(outbox.drain()), 'joined updated suspected');
  // Two members: no one can confirm, so the time is the shortest, 4 * log10 * 1 s.
  t.equal(membership.nextDeadlineMs(), 2_000, 'first it is told, twice as seldom as it is probed');
  membership.expire(3_999);
  t.equal(table.get('m')?.state, 'suspect');
  t.equal(membership.nextDeadlineMs(), 4_000);
  membership.expire(4_000);
  t.equal(changes(outbox.drain()), 'failed');
  membership.expire(4_000 + LAN_TUNING.gossipToTheDeadMs);
  t.equal(table.get('m')?.state, 'dead', 'gets gossip for a while');
  membership.expire(4_001 + LAN_TUNING.gossipToTheDeadMs);
  t.equal(table.get('m'), undefined);
  t.same(
    [...membership.failed()].map(({ name }) => name),
    ['m'],
    'remembered for reconnects',
  );
  membership.apply(alive('m', 1), 50_000);
  t.equal(changes(outbox.drain()), 'returned');
  t.same([...membership.failed()], []);
  t.end();
});

test('confirmations shorten a suspicion, and each new one is gossiped on', (t) => {
  const { membership, queue, table } = setUp();
  for (const node of 'abcdef') membership.apply(alive(node, 1), 0);
  const suspect = (from: string): void =>
    membership.apply({ kind: 'suspect', node: 'a', incarnation: 1, from }, 0);
  const isNews = (from: string): boolean => {
    queue.take(100_000, 2, 1, 255);
    suspect(from);
    return queue.has('a');
  };
  const deadline = (): number | undefined => table.get('a')?.suspicion?.deadlineMs;
  suspect('b');
  t.equal(deadline(), 24_000);
  t.notOk(isNews('b'), 'the first accuser confirms nothing');
  t.ok(isNews('c'));
  t.equal(deadline(), Math.floor(24_000 - (Math.log(2) / Math.log(3)) * 20_000));
  t.ok(isNews('d'));
  t.equal(deadline(), 4_000);
  t.notOk(isNews('e'), 'enough');
  t.end();
});

test('a suspect is told of it directly: every two seconds, and once when all suspect it', (t) => {
  const { membership, told } = setUp();
  for (const node of 'abcdef') membership.apply(alive(node, 1), 0);
  const suspect = (from: string): void =>
    membership.apply({ kind: 'suspect', node: 'a', incarnation: 1, from }, 0);
  suspect('b');
  for (let nowMs = 0; nowMs <= 6_000; nowMs += 100) membership.expire(nowMs);
  t.equal(told.length, 3);
  t.match(told[0], [{ address: '10.0.0.97' }, { kind: 'suspect', node: 'a', from: 'self' }]);
  const all = setUp();
  for (const node of 'abcdef') all.membership.apply(alive(node, 1), 0);
  for (const from of 'bcd') {
    all.membership.apply({ kind: 'suspect', node: 'a', incarnation: 1, from }, 0);
  }
  for (let nowMs = 0; nowMs < 4_000; nowMs += 100) all.membership.expire(nowMs);
  t.equal(all.told.length, 1);
  t.end();
});

test('who accuses this node of what it has refuted hears of that, once a second', (t) => {
  const { membership, told, queue } = setUp();
  membership.apply(rumour('suspect 1', 'self'), 0); // refuted by incarnation 2
  queue.take(2_000, 2, 99, 255);
  const from = { address: '10.0.0.9', port: 7 };
  for (const [heard, nowMs] of [
    ['suspect 1', 10],
    ['dead 1', 20],
    ['suspect 0', 1_010],
  ] as const) {
    membership.apply(rumour(heard, 'self'), nowMs, from);
  }
  membership.apply(rumour('suspect 1', 'other'), 3_000, from);
  t.match(told, [
    [from, { kind: 'alive', node: 'self', incarnation: 2 }],
    [from, { kind: 'alive', node: 'self', incarnation: 2 }],
  ]);
  t.equal(told.length, 2);
  t.equal(membership.self.incarnation, 2, 'nothing new to refute');
  t.end();
});

test('a push/pull suspects the dead and believes the left', (t) => {
  const { membership, table } = setUp();
  for (const node of 'abc') membership.apply(alive(node, 1), 0);
  const node = (name: string, state: Member['state']) => ({ ...alive(name, 1), state });
  membership.merge(
    [node('a', 'dead'), node('b', 'left'), node('c', 'suspect'), node('d', 'alive')],
    0,
  );
  const states = [...'abcd'].map((name) => table.get(name)?.state);
  t.same(states, ['suspect', 'left', 'suspect', 'alive']);
  t.end();
});

test('a member that lives for someone but is dead here is told so, to refute', (t) => {
  const { membership, told } = setUp();
  membership.apply(alive('m', 3), 0);
  membership.apply(rumour('dead 3', 'm'), 0);
  membership.apply(alive('m', 3), 10);
  membership.apply(alive('m', 3), 20);
  t.match(told, [[{ port: 7946 }, { kind: 'suspect', node: 'm', incarnation: 3 }]]);
  t.equal(told.length, 1, 'once a second');
  t.end();
});

test('the member table is bounded: the longest dead make room, the living do not', (t) => {
  const { membership, table, outbox } = setUp({ ...LAN_TUNING, membersMax: 3 });
  for (const node of 'abc') membership.apply(alive(node, 1), 0);
  t.equal(table.size, 3);
  t.equal(table.get('c'), undefined);
  t.equal(outbox.counters().members_full, 1);
  membership.apply(rumour('dead 1', 'a'), 10);
  membership.apply(alive('c', 1), 20);
  t.equal(table.get('c')?.state, 'alive');
  t.equal(table.get('a'), undefined);
  t.end();
});

test('memberlist has the same figures', (t) => {
  for (const [confirmations, timeoutMs] of [
    [0, 30_000], // suspicion_test.go, with the elapsed time added
    [1, 16_000],
    [2, 7_810],
    [3, 2_000],
    [5, 2_000],
  ] as const) {
    const window = { confirmations, confirmationsWanted: 3, minMs: 2_000, maxMs: 30_000 };
    t.equal(suspicionTimeoutMs(window), timeoutMs, `${confirmations} confirmations`);
  }
  for (const [members, factorMs] of [
    [5, 1_000],
    [10, 1_000],
    [50, 1_698],
    [100, 2_000],
    [500, 2_698],
    [1_000, 3_000],
  ] as const) {
    t.equal(suspicionMinMs(3, members, 1_000), factorMs * 3, `${members} members`);
  }
  t.same(
    [0, 1, 99].map((members) => retransmitLimit(3, members)),
    [0, 3, 6],
  );
  t.same(
    [1, 32, 33, 64, 65, 128].map((n) => scaledPushPullMs(1, n)),
    [1, 1, 2, 2, 3, 3],
  );
  const alone = new Suspicion('b', 100, { confirmationsWanted: 0, minMs: 5, maxMs: 30, tellMs: 2 });
  t.equal(alone.deadlineMs, 105);
  const awareness = new Awareness(8);
  for (const delta of [-3, 1, 20, -1]) awareness.apply(delta);
  t.equal(awareness.score, 6);
  t.equal(awareness.scale(100), 700);
  t.throws(() => checkTuning({ ...LAN_TUNING, probeTimeoutMs: 1_000 }), /direct ping/);
  t.throws(() => checkTuning({ ...LAN_TUNING, gossipIntervalMs: Number.NaN }), /gossipIntervalMs/);
  t.end();
});

test('BroadcastQueue sends the least sent first, a limited number of times', (t) => {
  const queue = new BroadcastQueue(3);
  const take = (free: number, transmitsMax = 2, countMax = 255): string =>
    queue
      .take(free, 2, transmitsMax, countMax)
      .map((bytes) => String(bytes[0]))
      .join(' ');
  queue.push('a', new Uint8Array(10).fill(1));
  queue.push('b', new Uint8Array(20).fill(2));
  queue.push('c', new Uint8Array(10).fill(3));
  t.equal(take(24), '2', 'the largest that fits');
  t.equal(take(24), '3 1', 'then those not sent yet, the newest first');
  t.equal(take(24, 2, 1), '2');
  t.notOk(queue.has('b'), 'sent twice is enough');
  queue.push('a', new Uint8Array(10).fill(4));
  t.equal(take(12), '4', 'newer words about the same replace the older');
  queue.push('d', new Uint8Array(1));
  queue.push('e', new Uint8Array(1));
  t.equal(queue.size, 3, 'bounded');
  t.ok(queue.has('d') && queue.has('e'), 'the most sent one went');
  t.end();
});

test('BroadcastQueue picks what a sort of all would pick', (t) => {
  const step = fc.oneof(
    fc.record({ name: fc.integer({ min: 0, max: 30 }), size: fc.integer({ min: 1, max: 40 }) }),
    fc.record({ free: fc.integer({ min: 0, max: 200 }), count: fc.integer({ min: 1, max: 9 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const queue = new BroadcastQueue(20);
      let oracle: { name: string; bytes: Uint8Array; id: number; sent: number }[] = [];
      const sort = (): void => {
        oracle.sort((a, b) => a.sent - b.sent || b.bytes.length - a.bytes.length || b.id - a.id);
      };
      for (const [id, todo] of steps.entries()) {
        const expected: Uint8Array[] = [];
        if ('name' in todo) {
          const name = String(todo.name);
          const bytes = new Uint8Array(todo.size);
          queue.push(name, bytes);
          oracle = [...oracle.filter((other) => other.name !== name), { name, bytes, id, sent: 0 }];
          sort();
          oracle = oracle.slice(0, 20);
        } else {
          let { free, count } = todo;
          for (const one of oracle) {
            if (count === 0 || one.bytes.length + 2 > free) continue;
            free -= one.bytes.length + 2;
            count--;
            one.sent++;
            expected.push(one.bytes);
          }
          t.same(queue.take(todo.free, 2, 3, todo.count), expected);
          oracle = oracle.filter(({ sent }) => sent < 3);
          sort();
        }
        t.equal(queue.size, oracle.length);
      }
    }),
    { numRuns: 200 },
  );
  t.end();
});

function setUpProber(names: string) {
  const table = new MemberTable(seededRandom(1));
  const awareness = new Awareness(8);
  const self = newMember(alive('self', 1, { address: '10.0.0.1' }));
  for (const node of names) table.put(newMember(alive(node, 1)));
  table.put(self);
  return {
    prober: new Prober({ tuning: LAN_TUNING, table, awareness, self, firstSequence: 0xffff_ffff }),
    table,
    awareness,
  };
}

test('a probe pings, then asks three others and TCP, then accuses', (t) => {
  const { prober, awareness } = setUpProber('abcde');
  const [ping] = prober.begin(1_000);
  if (ping?.kind !== 'send') throw new Error('No ping');
  t.match(ping.messages, [{ kind: 'ping', sequence: 0, node: ping.node }]);
  t.equal(prober.nextDeadlineMs(), 1_500);
  t.same(prober.expire(1_499), []);
  const indirect = prober.expire(1_500);
  t.same(
    indirect.map(({ kind }) => kind),
    ['send', 'send', 'send', 'streamPing'],
  );
  t.match(indirect[0], { messages: [{ kind: 'indirectPing', node: ping.node, nackWanted: true }] });
  t.equal(prober.nextDeadlineMs(), 2_000);
  prober.nack({ kind: 'nack', sequence: 0 });
  t.match(prober.expire(2_000), [{ kind: 'suspect', node: ping.node, incarnation: 1 }]);
  t.equal(awareness.score, 2, 'two of three helpers did not even say that they failed');
  t.notOk(prober.busy);
  const [next] = prober.begin(2_000);
  t.equal(prober.nextDeadlineMs(), 2_500);
  t.same(prober.ack({ kind: 'ack', sequence: 1 }), []);
  t.equal(awareness.score, 1, 'an answer heals');
  t.not(next?.kind === 'send' && next.node, ping.node, 'round robin');
  t.end();
});

test('a suspect is told so by who probes it; the dead are not probed', (t) => {
  const { prober, table } = setUpProber('ab');
  table.put({ ...table.get('a')!, state: 'suspect' });
  table.put({ ...table.get('b')!, state: 'dead' });
  t.match(prober.begin(0), [{ node: 'a', messages: [{ kind: 'ping' }, { kind: 'suspect' }] }]);
  prober.ack({ kind: 'ack', sequence: 0 });
  table.put({ ...table.get('a')!, state: 'left' });
  t.same(prober.begin(0), []);
  t.end();
});

test('a ping for another is answered with its number: ack, or nack when the time is over', (t) => {
  const { prober } = setUpProber('a');
  const from = { address: '10.0.0.9', port: 9 };
  const target = { address: '10.0.0.97', port: 7946 };
  const request = { kind: 'indirectPing', node: 'a', target } as const;
  const first = prober.relay({ ...request, sequence: 70, nackWanted: true }, from, 0);
  t.match(first, [{ to: target, messages: [{ kind: 'ping', sequence: 0, node: 'a' }] }]);
  t.match(prober.ack({ kind: 'ack', sequence: 0 }), [
    { to: from, messages: [{ kind: 'ack', sequence: 70 }] },
  ]);
  t.same(prober.ack({ kind: 'ack', sequence: 0 }), [], 'once');
  const source = { address: '10.0.0.8', port: 8, node: 'x' };
  prober.relay({ ...request, sequence: 71, nackWanted: true, source }, from, 100);
  prober.relay({ ...request, sequence: 72, nackWanted: false }, from, 100);
  t.equal(prober.nextDeadlineMs(), 600);
  t.match(prober.expire(600), [
    { to: { port: 8 }, node: 'x', messages: [{ kind: 'nack', sequence: 71 }] },
  ]);
  t.equal(prober.nextDeadlineMs(), Number.POSITIVE_INFINITY);
  for (let index = 0; index < RELAYS_MAX; index++) {
    prober.relay({ ...request, sequence: index, nackWanted: false }, from, 0);
  }
  t.equal(prober.relay({ ...request, sequence: 1, nackWanted: false }, from, 0), undefined);
  t.end();
});

test('MemberTable probes each member once per round', (t) => {
  const table = new MemberTable(seededRandom(3));
  for (let index = 0; index < 20; index++) table.put(newMember(alive(String(index), 1)));
  for (let skipped = 0; skipped < 20; skipped++) table.nextOnRing(() => true); // joins came mid-round
  for (let round = 0; round < 5; round++) {
    const seen = new Set<string>();
    for (let turn = 0; turn < table.size; turn++) seen.add(table.nextOnRing(() => true)!.name);
    t.equal(seen.size, table.size);
    if (round === 2) table.delete('7');
  }
  t.equal(table.size, 19);
  t.equal(
    table.nextOnRing(() => false),
    undefined,
  );
  t.equal(new Set(table.pick(30, ({ name }) => name !== '3')).size, 18);
  t.end();
});

test('MachineTime neither goes back nor jumps', (t) => {
  const time = new MachineTime(1_000, 250);
  t.equal(time.advance(1_100), 1_100);
  t.equal(time.advance(500), 1_100, 'the clock was set back');
  t.equal(time.advance(600), 1_200);
  t.equal(time.advance(3_600_600), 1_450, 'the host slept for an hour');
  t.equal(time.toClockMs(1_500), 3_600_650);
  t.equal(time.toClockMs(0), 3_600_600);
  t.end();
});
