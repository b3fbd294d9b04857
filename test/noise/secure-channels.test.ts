import { randomBytes } from 'node:crypto';
import { test } from 'tap';
import { NODE_NOISE_CRYPTO as crypto } from '../../src/io/noise-crypto.ts';
import { CookieJar } from '../../src/noise/cookie.ts';
import type { SecureEffect } from '../../src/noise/effects.ts';
import {
  COOKIE_REPLY_BYTES,
  encodeInitiation,
  INITIATION_BYTES,
  MESSAGE_COOKIE_REPLY,
  MESSAGE_INITIATION,
  MESSAGE_RESPONSE,
  RESPONSE_BYTES,
} from '../../src/noise/messages.ts';
import { SecureChannels } from '../../src/noise/secure-channels.ts';
import { NoiseSim, type SimNode } from '../support/noise-sim.ts';

function pair(seed = 1): readonly [NoiseSim, SimNode, SimNode] {
  const sim = new NoiseSim(2, seed);
  const [a, b] = sim.nodes as [SimNode, SimNode];
  return [sim, a, b];
}

/** A pair of nodes with a session that `a` began. */
function connected(): readonly [NoiseSim, SimNode, SimNode] {
  const [sim, a, b] = pair();
  sim.send(a, b);
  sim.deliver();
  return [sim, a, b];
}

const sentTo = (node: SimNode, type: number): Uint8Array[] =>
  node.log.flatMap((effect) =>
    effect.kind === 'send' && effect.bytes[0] === type ? [effect.bytes] : [],
  );
const kinds = (node: SimNode): string => node.log.map((effect) => effect.kind).join(' ');

test('one round trip makes a session, which both ends use', (t) => {
  const [sim, a, b] = pair();
  t.notOk(sim.send(a, b), 'nothing is sent without a session');
  sim.deliver();
  t.equal(kinds(a), 'send install keepalive');
  t.equal(kinds(b), 'install send');
  t.ok(sim.send(a, b));
  t.ok(sim.send(b, a));
  t.same(
    [a, b].map(({ channels }) => channels.status()[0]?.state),
    ['established', 'established'],
  );
  t.same(
    [sentTo(a, MESSAGE_INITIATION)[0]?.length, sentTo(b, MESSAGE_RESPONSE)[0]?.length],
    [INITIATION_BYTES, RESPONSE_BYTES],
  );
  t.end();
});

test('a responder sends nothing until the initiator has shown that it has the keys', (t) => {
  const [sim, a, b] = pair();
  sim.loses = (_, __, bytes) => bytes[0] === 4;
  sim.send(a, b);
  sim.deliver();
  t.equal(b.sending.size, 0);
  t.notOk(sim.send(b, a));
  sim.loses = () => false;
  t.ok(sim.send(a, b));
  t.ok(sim.send(b, a));
  t.end();
});

test('a lost message costs one retry after five seconds', (t) => {
  for (const lost of [MESSAGE_INITIATION, MESSAGE_RESPONSE]) {
    const [sim, a, b] = pair();
    sim.loses = (_, __, bytes) => bytes[0] === lost;
    sim.send(a, b);
    sim.deliver();
    sim.loses = () => false;
    sim.run(4);
    t.equal(a.sending.size, 0);
    sim.run(2);
    t.ok(sim.send(a, b), `message ${lost} was lost`);
    t.equal(sentTo(a, MESSAGE_INITIATION).length, 2);
  }
  t.end();
});

test('a handshake is given up after 90 s, and begun anew when data wants it', (t) => {
  const [sim, a, b] = pair();
  sim.loses = () => true;
  sim.send(a, b);
  sim.run(89);
  t.notMatch(kinds(a), /giveUp/);
  const tried = sentTo(a, MESSAGE_INITIATION).length;
  t.ok(tried >= 15 && tried <= 18, `${tried} initiations`);
  sim.run(8);
  t.match(kinds(a), /giveUp$/);
  sim.run(60);
  t.match(kinds(a), /giveUp$/, 'silence afterwards');
  t.equal(a.channels.status()[0]?.state, 'idle');
  sim.loses = () => false;
  sim.send(a, b);
  sim.deliver();
  t.ok(sim.send(a, b));
  t.end();
});

test('no more than one initiation is sent in five seconds, however much data waits', (t) => {
  const [sim, a, b] = pair();
  sim.loses = () => true;
  for (let step = 0; step < 400; step += 1) {
    sim.send(a, b);
    sim.advance(10);
  }
  t.equal(sentTo(a, MESSAGE_INITIATION).length, 1);
  t.end();
});

test('two that begin at once end with one session and without delay', (t) => {
  for (const seed of [1, 2, 3, 4]) {
    const [sim, a, b] = pair(seed);
    sim.send(a, b);
    sim.send(b, a);
    sim.deliver();
    t.ok(sim.send(a, b));
    t.ok(sim.send(b, a));
    t.same([a.sessions.size, b.sessions.size], [1, 1]);
    t.same([...a.drops, ...b.drops], ['crossed']);
  }
  t.end();
});

test('a session is renewed after 120 s by its initiator, and no message is lost by that', (t) => {
  const [sim, a, b] = connected();
  const first = [...a.sessions.keys()];
  let lost = 0;
  sim.run(130, () => {
    if (!sim.send(a, b) || !sim.send(b, a)) lost += 1;
  });
  t.equal(lost, 0);
  t.equal(sentTo(a, MESSAGE_INITIATION).length, 2);
  t.equal(sentTo(b, MESSAGE_INITIATION).length, 0, 'the responder leaves it to the initiator');
  t.notSame([a.sending.get('n1')?.keypair.localIndex], first);
  sim.run(600, () => {
    if (!sim.send(a, b) || !sim.send(b, a)) lost += 1;
  });
  t.equal(lost, 0);
  t.ok(a.sessions.size <= 3 && b.sessions.size <= 3, 'old sessions end');
  t.end();
});

test('where only the responder sends, the initiator renews on what it receives', (t) => {
  const [sim, a, b] = connected();
  let lost = 0;
  sim.run(400, () => {
    if (!sim.send(b, a)) lost += 1;
  });
  t.equal(lost, 0);
  t.ok(sentTo(a, MESSAGE_INITIATION).length >= 2);
  t.end();
});

test('a session is renewed when it has carried 2^60 messages, whoever began it', (t) => {
  const [sim, , b] = connected();
  sim.run(10);
  const session = b.sending.get('n0')!;
  session.sent = 2 ** 59;
  sim.advance(1_000);
  t.equal(sentTo(b, MESSAGE_INITIATION).length, 0);
  session.sent = 2 ** 59;
  sim.advance(1_000);
  t.equal(sentTo(b, MESSAGE_INITIATION).length, 1);
  t.end();
});

test('nothing is sent or received under a session of 180 s', (t) => {
  const [sim, a, b] = connected();
  sim.loses = (_, __, bytes) => bytes[0] !== 4; // data passes, handshakes do not
  sim.run(178, () => sim.send(a, b));
  t.ok(sim.send(a, b));
  sim.run(3);
  t.same([a.sessions.size, b.sessions.size], [0, 0]);
  t.notOk(sim.send(a, b));
  t.same(a.channels.status()[0]?.sessionAgeMs, undefined);
  t.end();
});

test('an idle session sends one keepalive for data that came, and nothing more', (t) => {
  const [sim, a, b] = connected();
  sim.run(20); // what the handshake itself left to say is said
  const before = b.log.length;
  sim.send(a, b);
  sim.run(9);
  t.equal(b.log.length, before);
  sim.run(3);
  t.equal(kinds(b).split(' ').slice(before).join(' '), 'keepalive');
  sim.run(60);
  t.equal(b.log.length, before + 1, 'a keepalive is not answered by one');
  t.equal(sentTo(a, MESSAGE_INITIATION).length, 1, 'and keeps its receiver from a new handshake');
  t.end();
});

test('a peer that has gone deaf is asked for a new session after 15 s', (t) => {
  const [sim, a, b] = connected();
  for (const localIndex of [...b.sessions.keys()]) b.sessions.delete(localIndex);
  b.sending.clear(); // b has lost its memory
  sim.run(20, () => sim.send(a, b));
  t.equal(sentTo(a, MESSAGE_INITIATION).length, 2);
  t.ok(sim.send(a, b));
  t.end();
});

test('initiations that were seen before are refused, from wherever they come', (t) => {
  const [sim, a, b] = connected();
  const [initiation] = sentTo(a, MESSAGE_INITIATION);
  const before = b.sessions.size;
  sim.advance(1_000);
  sim.perform(b, b.channels.receive({ address: 99, port: 1 }, initiation!));
  t.same(b.drops, ['replayed']);
  t.equal(b.sessions.size, before);
  t.same(b.channels.status()[0]?.endpoint, a.endpoint);
  t.end();
});

test('a clock that stands still or was set back makes no initiation look old', (t) => {
  const sim = new NoiseSim(2);
  const [, b] = sim.nodes as [SimNode, SimNode];
  let nowMs = 0;
  const staticKeys = crypto.generateKeyPair();
  const life = (epochMs: number, timestampFloorMs: number): SecureChannels =>
    new SecureChannels({
      identity: { crypto, staticKeys, prologue: new Uint8Array() },
      clock: { nowMs: () => nowMs, epochMs: () => epochMs },
      random: { next: () => 0.5, bytes: (length) => new Uint8Array(randomBytes(length)) },
      timestampFloorMs,
    });
  const endpoint = { address: 7, port: 4789 };
  b.channels.setPeers([{ id: 'x', publicKey: staticKeys.publicKey, endpoint }]);
  const first = life(1_000_000, 0);
  const second = life(5, 1_000_001); // after a restart, with its clock set back
  const deliver = (effects: readonly SecureEffect[]): void => {
    for (const effect of effects) {
      if (effect.kind === 'send') sim.perform(b, b.channels.receive(endpoint, effect.bytes));
    }
    sim.advance(100);
  };
  for (const channels of [first, second]) {
    channels.setPeers([b.spec]);
    deliver(channels.wantSession(b.id));
    nowMs += 6_000;
    deliver(channels.tick());
  }
  t.same(b.drops, []);
  t.equal(sentTo(b, MESSAGE_RESPONSE).length, 4);
  t.end();
});

test('a peer that was removed is refused, and its sessions die at once', (t) => {
  const [sim, a, b] = connected();
  sim.introduce(b, []);
  t.same([b.sessions.size, b.sending.size], [0, 0]);
  t.notOk(sim.send(a, b));
  sim.run(30, () => sim.send(a, b));
  t.ok(b.drops.length > 0);
  t.same([...new Set(b.drops)], ['unknown-peer']);
  t.same(sentTo(b, MESSAGE_RESPONSE).length, 1, 'the one from before');
  t.end();
});

test('a peer whose key has changed must prove the new one', (t) => {
  const [sim, a, b] = connected();
  const publicKey = crypto.generateKeyPair().publicKey;
  sim.perform(b, b.channels.setPeers([{ ...a.spec, publicKey }]));
  t.equal(b.sessions.size, 0);
  sim.run(20, () => sim.send(a, b));
  t.equal(b.sessions.size, 0);
  sim.introduce(b, [a]);
  sim.run(20, () => sim.send(a, b));
  t.ok(sim.send(a, b));
  t.end();
});

test('a peer that moves is followed by what it sends, and by nothing forged', (t) => {
  const [sim, a, b] = connected();
  a.endpoint = { address: 0x0a00_0063, port: 4789 };
  t.ok(sim.send(a, b), 'data from the new address');
  t.same(b.channels.status()[0]?.endpoint, a.endpoint);
  a.endpoint = { address: 0x0a00_0064, port: 5000 };
  sim.run(125, () => sim.send(a, b));
  t.same(b.channels.status()[0]?.endpoint, a.endpoint, 'handshakes tell the port too');

  const forged = encodeInitiation(1, new Uint8Array(randomBytes(108)));
  sim.perform(b, b.channels.receive({ address: 66, port: 6 }, forged));
  t.same(b.channels.status()[0]?.endpoint, a.endpoint);
  t.end();
});

test('an initiation moves its sender only when the session is confirmed', (t) => {
  const [sim, a, b] = connected();
  sim.advance(6_000);
  const before = b.channels.status()[0]?.endpoint;
  a.endpoint = { address: 0x0a00_0063, port: 4789 };
  sim.loses = (_, __, bytes) => bytes[0] === 4 || bytes[0] === MESSAGE_RESPONSE;
  a.sending.clear();
  sim.perform(a, a.channels.setPeers([]));
  sim.introduce(a, [b]);
  sim.send(a, b);
  sim.deliver();
  t.ok(b.sessions.size > 1, 'b has answered');
  t.same(b.channels.status()[0]?.endpoint, before);
  sim.loses = () => false;
  sim.run(8);
  t.same(b.channels.status()[0]?.endpoint, a.endpoint);
  t.end();
});

test('a peer that the manager says to be elsewhere begins anew there', (t) => {
  const [sim, a, b] = connected();
  a.endpoint = { address: 0x0a00_0063, port: 4789 };
  const before = b.log.length;
  sim.introduce(b, [a]);
  t.equal(kinds(b).split(' ').slice(before).join(' '), 'remove');
  sim.introduce(b, [a]);
  t.equal(b.log.length, before + 1);
  sim.send(b, a);
  sim.deliver();
  t.ok(sim.send(b, a));
  t.end();
});

test('a key of the wrong size is refused', (t) => {
  const [, a, b] = pair();
  t.throws(
    () => a.channels.setPeers([{ ...b.spec, publicKey: new Uint8Array(31) }]),
    new RangeError('Cannot use the public key of node n1: expected 32 bytes, got 31'),
  );
  t.end();
});

/** Sends `b` so many well-formed initiations of nobody that it is under load. */
function overload(sim: NoiseSim, b: SimNode): void {
  const [, , stranger] = sim.nodes as [SimNode, SimNode, SimNode];
  sim.introduce(b, [sim.nodes[0]!]);
  for (let message = 0; message < 101; message += 1) {
    sim.perform(stranger, stranger.channels.setPeers([]));
    sim.introduce(stranger, [b]);
    sim.perform(stranger, stranger.channels.wantSession(b.id));
  }
  sim.deliver();
}

test('under load a sender must prove its address by a cookie, and then gets its session', (t) => {
  const sim = new NoiseSim(3);
  const [a, b, stranger] = sim.nodes as [SimNode, SimNode, SimNode];
  overload(sim, b);
  t.equal(b.drops.filter((reason) => reason === 'unknown-peer').length, 100);
  t.same(b.drops.slice(100), ['cookie-sent']);
  t.equal(sentTo(b, MESSAGE_COOKIE_REPLY)[0]?.length, COOKIE_REPLY_BYTES);
  t.ok(COOKIE_REPLY_BYTES < INITIATION_BYTES, 'nothing is amplified');

  sim.send(a, b);
  sim.deliver();
  t.equal(b.drops.at(-1), 'cookie-sent');
  t.equal(a.sending.size, 0);
  sim.advance(5_400); // a's retry carries the cookie; b is made busy again just before it
  t.ok(sim.send(a, b));

  b.drops.length = 0;
  overload(sim, b);
  const [withCookie] = sentTo(a, MESSAGE_INITIATION).slice(-1);
  sim.perform(b, b.channels.receive(stranger.endpoint, withCookie!));
  t.equal(b.drops.at(-1), 'cookie-sent', "another's cookie proves nothing");
  sim.perform(b, b.channels.receive(a.endpoint, withCookie!));
  t.equal(b.drops.at(-1), 'replayed', 'its own passes, to the next check');
  t.end();
});

test('under load one address gets its share and no more', (t) => {
  const sim = new NoiseSim(3);
  const [a, b] = sim.nodes as [SimNode, SimNode];
  overload(sim, b);
  sim.send(a, b);
  sim.deliver();
  sim.advance(5_400);
  overload(sim, b);
  const [withCookie] = sentTo(a, MESSAGE_INITIATION).slice(-1);
  b.drops.length = 0;
  for (let copy = 0; copy < 50; copy += 1) {
    sim.perform(b, b.channels.receive(a.endpoint, withCookie!));
  }
  const limited = b.drops.filter((reason) => reason === 'rate-limited').length;
  t.ok(limited >= 44 && limited < 50, `${limited} of 50`);
  t.end();
});

test('messages of somebody who does not know the key are dropped by their first MAC', (t) => {
  const [sim, , b] = pair();
  sim.perform(b, b.channels.receive({ address: 1, port: 2 }, new Uint8Array(INITIATION_BYTES)));
  const zeros = encodeInitiation(1, new Uint8Array(108));
  sim.perform(b, b.channels.receive({ address: 1, port: 2 }, zeros));
  t.same(b.drops, ['malformed', 'bad-mac1']);
  t.end();
});

test('a hundred thousand damaged messages neither throw nor change a session', (t) => {
  const [sim, a, b] = connected();
  sim.run(121, () => sim.send(a, b));
  const originals = [a, b].flatMap((node) =>
    [MESSAGE_INITIATION, MESSAGE_RESPONSE].flatMap((type) => sentTo(node, type)),
  );
  const macs = new CookieJar(
    { crypto, clock: sim.clock, random: { next: Math.random, bytes: randomBytes } },
    b.keys.publicKey,
  );
  const before = [...b.sessions.keys()];
  const chance = randomBytes(400_000);
  const seen = new Set<string>();
  for (let run = 0; run < 100_000; run += 1) {
    const message = originals[run % originals.length]!.slice();
    const place = chance.readUInt16LE(run * 4) % message.length;
    message[place]! ^= chance[run * 4 + 2]! | 1;
    // Some get past the first MAC, and some are cut.
    if (run % 50 === 1) macs.addMacs(message);
    const length = run % 5 === 0 ? chance[run * 4 + 3]! : message.length;
    for (const effect of b.channels.receive(a.endpoint, message.subarray(0, length))) {
      const isCookie = effect.kind === 'send' && effect.bytes[0] === MESSAGE_COOKIE_REPLY;
      if (effect.kind === 'drop') seen.add(effect.reason);
      else if (!isCookie) t.fail(`run ${run} had the effect ${effect.kind}`);
    }
    if (run % 50 === 0) sim.advance(1_000); // or the node would stay under load and read nothing
    if (run % 5_000 === 0) sim.send(a, b);
  }
  t.ok(before.length > 0);
  t.same([...seen].sort(), [
    'bad-mac1',
    'malformed',
    'not-authentic',
    'replayed', // only the sender's index or the second MAC was changed
    'unknown-index',
  ]);
  t.end();
});
