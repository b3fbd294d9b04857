// A node of ours among members that are not: what it sends to whom, and when.
import { encode as oracleEncode } from '@msgpack/msgpack';
import { test } from 'tap';
import type { Effect, GossipEvent, PushPullEffect } from '../../src/gossip/effects.ts';
import { ENDPOINT_MAGIC } from '../../src/gossip/endpoint-messages.ts';
import { Gossip } from '../../src/gossip/gossip.ts';
import { encodeTags } from '../../src/gossip/member-tags.ts';
import { encodeMessage, type Message } from '../../src/gossip/messages.ts';
import { decodePacket } from '../../src/gossip/packet.ts';
import type { PeerAddress } from '../../src/gossip/peer-address.ts';
import type { PushPullNode } from '../../src/gossip/push-pull.ts';
import {
  decodeSerfMessage,
  decodeUserState,
  encodeIntent,
  encodeUserState,
  type SerfState,
} from '../../src/gossip/serf-messages.ts';
import { GossipSim, seededRandom } from '../support/gossip-sim.ts';

const SEED = Number(process.env.GOSSIP_SEED ?? 1);
const WEFT: PeerAddress = { address: '10.0.0.2', port: 7946 };
const SERF: PeerAddress = { address: '10.0.0.3', port: 7946 };
const SERF_META = Uint8Array.of(0xff, ...oracleEncode({ role: 'web' }));
const QUIET: SerfState = {
  ...{ time: 1, eventTime: 1, queryTime: 1, left: [], statusTimes: new Map() },
};

function pushed(node: string, peer: PeerAddress, meta: Uint8Array): PushPullNode {
  const versions = Uint8Array.of(1, 5, 2, 2, 5, 5);
  return { node, ...peer, meta, versions, incarnation: 1, state: 'alive' };
}

/** A node that knows one of weft, one of serf, or both. */
function startNode({ weft = false, serf = false }) {
  const config = { name: 'self', address: '10.0.0.1', port: 7946, generation: 1 };
  const gossip = new Gossip(
    { random: seededRandom(SEED) },
    { ...config, compression: false, tuning: { streamPings: false } },
    0,
  );
  const nodes = [
    ...(weft ? [pushed('weft', WEFT, encodeTags(new Map()))] : []),
    ...(serf ? [pushed('serf', SERF, SERF_META)] : []),
  ];
  const merge = (state: Partial<SerfState>, nowMs = 0): Effect[] => {
    const userState = encodeUserState({ serf: { ...QUIET, ...state }, weft: undefined });
    return gossip.pushPullRequest({ kind: 'pushPull', join: false, nodes, userState }, nowMs)
      .effects;
  };
  merge({});
  return { gossip, merge };
}

/** Messages in the packets among `effects`, and where they go. */
function sent(effects: readonly Effect[]): { readonly to: string; readonly message: Message }[] {
  return effects.flatMap((effect) => {
    if (effect.kind !== 'send') return [];
    const { messages } = decodePacket(effect.bytes);
    return messages.map((message) => ({ to: effect.to.address, message }));
  });
}

function serfMessages(effects: readonly Effect[]) {
  return sent(effects).flatMap(({ message }) =>
    message.kind === 'user' && message.payload[0] !== ENDPOINT_MAGIC
      ? [decodeSerfMessage(message.payload)]
      : [],
  );
}

/** Ticks until `untilMs`; acks all pings, so that nobody is suspected. */
function run(gossip: Gossip, fromMs: number, untilMs: number): Effect[] {
  const all: Effect[] = [];
  for (let nowMs = fromMs; nowMs < untilMs; nowMs += 50) {
    const effects = gossip.tick(nowMs);
    all.push(...effects);
    for (const { to, message } of sent(effects)) {
      if (message.kind !== 'ping') continue;
      const ack = encodeMessage({ kind: 'ack', sequence: message.sequence });
      all.push(...gossip.packet(ack, { address: to, port: 7946 }, nowMs + 1));
    }
  }
  return all;
}

function eventsOf(effects: readonly Effect[]): GossipEvent[] {
  return effects.flatMap((effect) => (effect.kind === 'event' ? [effect.event] : []));
}

test('messages about endpoints go to weft nodes alone, rumours and intents to all', (t) => {
  const { gossip } = startNode({ weft: true, serf: true });
  const effects: Effect[] = [];
  for (let second = 0; second < 30; second++) {
    gossip.table.setLocal(`task-${second}`, { second });
    effects.push(...run(gossip, second * 1_000, second * 1_000 + 1_000));
  }
  const join = encodeIntent({ kind: 'join', node: 'weft', time: 7 });
  effects.push(...gossip.packet(Uint8Array.of(8, ...join), WEFT, 30_000));
  effects.push(...run(gossip, 30_000, 35_000));
  const users = sent(effects).filter(({ message }) => message.kind === 'user');
  const kindsTo = (peer: PeerAddress) => {
    const to = users.filter(({ to: address }) => address === peer.address);
    const types = to.map(({ message }) => (message.kind === 'user' ? message.payload[0] : -1));
    return [...new Set(types)].sort();
  };
  t.same(kindsTo(WEFT), [1, ENDPOINT_MAGIC]);
  t.same(kindsTo(SERF), [1]);
  t.ok(users.filter(({ to }) => to === WEFT.address).length > 30);
  t.same(gossip.counters(), {});
  t.end();
});

test('a node that leaves says its intent first while a member of serf lives', (t) => {
  const { gossip } = startNode({ weft: true, serf: true });
  run(gossip, 0, 5_000);
  const atOnce = gossip.leave(5_000);
  t.same(eventsOf(atOnce), []);
  t.same(gossip.leave(5_000), [], 'once');
  const effects = [...atOnce, ...run(gossip, 5_000, 12_000)];
  const said = sent(effects).flatMap(({ message }) => {
    if (message.kind === 'dead' && message.node === 'self') return ['dead'];
    if (message.kind !== 'user' || message.payload[0] !== 0) return [];
    return ['intent'];
  });
  t.same([...new Set(said)], ['intent', 'dead']);
  t.ok(said.lastIndexOf('intent') < said.indexOf('dead'), 'the goodbye comes after the intent');
  t.ok(eventsOf(effects).some(({ kind }) => kind === 'leaveFinished'));
  t.end();
});

test('a node among its own kind leaves at once', (t) => {
  const { gossip } = startNode({ weft: true });
  run(gossip, 0, 5_000);
  const effects = [...gossip.leave(5_000), ...run(gossip, 5_000, 5_250)];
  const said = sent(effects).map(({ message }) => message.kind);
  t.ok(said.includes('dead'));
  t.end();
});

test('a node that joined says so when its first seed has answered, once', (t) => {
  const { gossip } = startNode({});
  const isJoin = (effect: Effect): effect is PushPullEffect => effect.kind === 'pushPull';
  const [first, second] = gossip.join([WEFT, SERF], 0).filter(isJoin);
  if (first === undefined || second === undefined) throw new Error('No seed is asked');
  const userState = encodeUserState({ serf: { ...QUIET, time: 30 }, weft: undefined });
  const reply = { kind: 'pushPull' as const, join: true, userState };
  const nodes = [pushed('serf', SERF, SERF_META)];
  gossip.pushPullReply(second, { ...reply, nodes }, 10);
  const effects = run(gossip, 10, 3_000);
  gossip.pushPullReply(first, { ...reply, nodes: [] }, 3_000);
  effects.push(...run(gossip, 3_000, 6_000));
  const intents = serfMessages(effects);
  t.ok(intents.length > 0);
  t.same(
    [...new Set(intents.map((intent) => JSON.stringify(intent)))],
    [JSON.stringify({ kind: 'join', time: 31, node: 'self' })],
    'at a time beyond that of the seed',
  );
  t.end();
});

test('a state that lists this node as left is refuted', (t) => {
  const { gossip, merge } = startNode({ serf: true });
  const effects = merge({ time: 50, left: ['self'], statusTimes: new Map([['self', 20]]) }, 100);
  effects.push(...run(gossip, 100, 3_000));
  t.ok(
    serfMessages(effects).some(
      (message) => typeof message === 'object' && message.kind === 'join' && message.time > 21,
    ),
  );
  t.end();
});

test('a member that was killed after it said that it leaves has left', (t) => {
  const { gossip } = startNode({ serf: true });
  const leave = encodeIntent({ kind: 'leave', node: 'serf', time: 9 });
  gossip.streamUser(leave, SERF, 10);
  const dead = encodeMessage({ kind: 'dead', node: 'serf', incarnation: 1, from: 'weft' });
  const effects = gossip.packet(dead, WEFT, 20);
  const changes = eventsOf(effects).map((event) => (event.kind === 'member' ? event.change : ''));
  t.same(changes, ['failed', 'left']);
  t.equal(gossip.members().find(({ name }) => name === 'serf')?.state, 'left');
  t.end();
});

test('another node that claims a member’s name is reported, and the member stays', (t) => {
  const { gossip } = startNode({ serf: true });
  const claimed = { address: '10.0.0.9', port: 7946 };
  const { node, ...rest } = pushed('serf', claimed, SERF_META);
  const rumour = encodeMessage({ kind: 'alive', ...rest, node, incarnation: 99 });
  const events = eventsOf(gossip.packet(rumour, claimed, 10));
  t.match(events, [{ kind: 'conflict', member: { name: 'serf', ...SERF }, claimed }]);
  t.match(
    gossip.members().find(({ name }) => name === 'serf'),
    { ...SERF, state: 'alive', incarnation: 1 },
  );
  t.end();
});

test('a user state that is damaged or of nobody known is counted, its members are merged', (t) => {
  const { gossip } = startNode({});
  const nodes = [pushed('serf', SERF, SERF_META)];
  for (const userState of [Uint8Array.of(2, 0xc1), Uint8Array.of(0x57, 5), new Uint8Array()]) {
    gossip.pushPullRequest({ kind: 'pushPull', join: false, nodes, userState }, 0);
  }
  t.same(gossip.counters(), { user_state_malformed: 1, user_state_foreign: 1 });
  t.equal(gossip.members().length, 2);
  t.end();
});

test('an intent about a stranger is news again after five minutes', (t) => {
  const { gossip } = startNode({ serf: true });
  const intent = Uint8Array.of(8, ...encodeIntent({ kind: 'join', node: 'stranger', time: 7 }));
  const saysAt = (nowMs: number): boolean => {
    const effects = [...gossip.packet(intent, SERF, nowMs), ...run(gossip, nowMs, nowMs + 5_000)];
    return serfMessages(effects).some((said) => typeof said === 'object' && said.kind === 'join');
  };
  t.ok(saysAt(0));
  t.notOk(saysAt(5_000));
  run(gossip, 10_000, 310_000);
  t.ok(saysAt(310_000));
  t.end();
});

/** What `gossip` has seen of serf's clocks. */
function clocksOf(gossip: Gossip, nowMs: number): SerfState {
  const request = {
    kind: 'pushPull' as const,
    join: false,
    nodes: [],
    userState: new Uint8Array(),
  };
  const { reply } = gossip.pushPullRequest(request, nowMs);
  const answer = gossip.wire.streamReader('reply').push(reply);
  const message = answer.kind === 'message' ? answer.message : undefined;
  const state = message?.kind === 'pushPull' ? decodeUserState(message.userState) : 'malformed';
  if (typeof state === 'string') throw new Error(state);
  return state.serf;
}

for (const { count, loss } of [
  { count: 10, loss: 0 },
  { count: 40, loss: 0.2 },
]) {
  test(`an event of serf reaches all of ${count} nodes with ${loss * 100} % loss`, (t) => {
    const sim = new GossipSim({ seed: SEED, loss });
    sim.addMany(count);
    t.not(
      sim.runUntil(() => sim.converged(), 60_000),
      undefined,
    );
    const fields = oracleEncode({ CC: false, LTime: 900, Name: 'deploy', Payload: null });
    const event = Uint8Array.of(8, 3, ...fields);
    sim.inject('n3', event, 'n5');
    const allHeard = (): boolean =>
      sim.running().every(({ gossip }) => clocksOf(gossip, sim.nowMs).eventTime === 901);
    t.not(sim.runUntil(allHeard, 60_000), undefined);
    t.notOk(
      sim
        .running()
        .some(({ gossip }) => Object.keys(gossip.counters()).some((n) => /serf/.test(n))),
      'and none complains',
    );
    t.end();
  });
}

test('a rumour that comes when all is told goes out within a quarter of the interval', (t) => {
  for (let atMs = 5_000; atMs < 5_200; atMs += 50) {
    const { gossip } = startNode({ weft: true, serf: true });
    run(gossip, 0, atMs);
    const rumour = { kind: 'suspect', node: 'serf', incarnation: 1, from: 'weft' } as const;
    const effects = [...gossip.packet(encodeMessage(rumour), WEFT, atMs)];
    effects.push(...run(gossip, atMs, atMs + 51));
    const told = sent(effects).filter(({ message }) => message.kind === 'suspect');
    t.ok(told.length > 0, `a suspicion that came at ${atMs} ms`);
  }
  t.end();
});
