import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { type Test, test } from 'tap';
import { SILENT_LOG } from '../../src/core/capabilities.ts';
import type { GossipTuning } from '../../src/gossip/config.ts';
import type { GossipEvent } from '../../src/gossip/effects.ts';
import { Gossip } from '../../src/gossip/gossip.ts';
import type { GossipConfig } from '../../src/gossip/gossip-config.ts';
import { encodeMessage } from '../../src/gossip/messages.ts';
import { StreamReader } from '../../src/gossip/push-pull.ts';
import { NodeGossipCipher } from '../../src/io/gossip-cipher.ts';
import { GossipTransport } from '../../src/io/gossip-transport.ts';
import { seededRandom } from '../support/gossip-sim.ts';

const HOST = '127.0.0.1';
const clock = { nowMs: () => performance.now(), epochMs: () => Date.now() };
const FAST: Partial<GossipTuning> = {
  probeIntervalMs: 100,
  probeTimeoutMs: 50,
  gossipIntervalMs: 20,
  summaryIntervalMs: 50,
  suspicionMult: 2,
  reconnectIntervalMs: 100,
  joinRetryMs: 50,
};

/** A port that was free a moment ago, for UDP and TCP. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, HOST);
  await once(server, 'listening');
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('No port');
  return address.port;
}

/** A node on loopback, and a way to wait for what it reports. */
async function startNode(t: Test, name: string, change: Partial<GossipConfig> = {}) {
  const port = await freePort();
  const config = { name, address: HOST, port, generation: 1, tuning: FAST, ...change };
  const deps = { random: seededRandom(port), cipher: new NodeGossipCipher() };
  const gossip = new Gossip(deps, config, clock.nowMs());
  const events: GossipEvent[] = [];
  let wake = (): void => {};
  const onEvent = (event: GossipEvent): void => {
    events.push(event);
    wake();
  };
  const transport = new GossipTransport({ gossip, clock, log: SILENT_LOG }, { onEvent });
  await transport.start();
  t.teardown(() => transport.close());
  const heard = async (wanted: (event: GossipEvent) => boolean): Promise<void> => {
    while (!events.some(wanted)) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  /** Waits until each counter has at least this value; they are looked at as packets come. */
  const counted = async (wanted: Readonly<Record<string, number>>): Promise<void> => {
    const lacks = (): boolean => {
      const counters = transport.counters();
      return Object.entries(wanted).some(([key, value]) => (counters[key] ?? 0) < value);
    };
    while (lacks()) await new Promise((resolve) => setImmediate(resolve));
  };
  return { name, port, gossip, transport, heard, counted, peer: { address: HOST, port } };
}

const isChange = (change: string, name: string) => (event: GossipEvent) =>
  event.kind === 'member' && event.change === change && event.member.name === name;
const hasEndpoint = (node: string) => (event: GossipEvent) =>
  event.kind === 'endpoints' && event.node === node && event.added.length > 0;
const lostEndpoint = (node: string) => (event: GossipEvent) =>
  event.kind === 'endpoints' && event.node === node && event.removed.length > 0;

test('three nodes on real sockets join, share endpoints, and see one die and one leave', async (t) => {
  const [a, b, c] = [await startNode(t, 'a'), await startNode(t, 'b'), await startNode(t, 'c')];
  const all = [a, b, c];
  for (const { name, gossip } of all) gossip.table.setLocal('task', { on: name });
  b.transport.join([a.peer]);
  c.transport.join([a.peer, c.peer]);
  for (const node of all) {
    for (const { name } of all) if (name !== node.name) await node.heard(hasEndpoint(name));
  }
  t.same(
    a.gossip.members().map(({ state }) => state),
    ['alive', 'alive', 'alive'],
  );
  b.gossip.table.setLocal('late', 1);
  await Promise.all(
    [a, c].map((node) =>
      node.heard(
        (event) => event.kind === 'endpoints' && event.added.some(({ key }) => key === 'late'),
      ),
    ),
  );
  await c.transport.close();
  await c.transport.close();
  await Promise.all([a, b].map((node) => node.heard(isChange('failed', 'c'))));
  await Promise.all([a, b].map((node) => node.heard(lostEndpoint('c'))));
  await b.transport.leave();
  await a.heard(isChange('left', 'b'));
  t.notOk(Object.keys(a.transport.counters()).some((name) => name.includes('malformed')));
});

test('garbage by UDP and TCP is counted, and the node goes on', async (t) => {
  const node = await startNode(t, 'a', { tuning: { ...FAST, streamTimeoutMs: 200 } });
  const udp = createSocket('udp4');
  t.teardown(() => udp.close());
  let answers = 0;
  udp.on('message', () => answers++);
  for (const bytes of [[0], [1, 0x80], [6], [7, 9, 9], [9, 0x80], [12, 1, 2, 3, 4, 5], [255]]) {
    await new Promise((resolve) => udp.send(Uint8Array.from(bytes), node.port, HOST, resolve));
  }
  const converse = async (bytes: Uint8Array): Promise<Uint8Array> => {
    const socket = connect({ host: HOST, port: node.port });
    const chunks: Buffer[] = [];
    socket.on('data', (chunk) => chunks.push(Buffer.from(chunk))).on('error', () => {});
    socket.write(bytes);
    await once(socket, 'close');
    return Buffer.concat(chunks);
  };
  for (const bytes of [
    [99],
    [6, 1],
    [8, 0x80], // an empty user message
    [0, 0x81, 0xa4, 0x4e, 0x6f, 0x64, 0x65, 0xa1, 0x7a], // a ping for z
    [244, 1, 0x7a], // a label
    [6, 0x83], // stops in the middle
  ]) {
    t.equal((await converse(Uint8Array.from(bytes))).length, 0, `no answer to ${bytes}`);
  }
  for (const [bytes, text] of [
    [[10, 1], /encryption is not configured/],
    [[9, 0x80], /cannot decompress/],
  ] as const) {
    const answer = new StreamReader().push(await converse(Uint8Array.from(bytes)));
    t.match(answer, { kind: 'message', message: { kind: 'error', text } }, `${bytes}`);
  }
  t.match(node.transport.counters(), {
    stream_unknown_type: 1,
    stream_malformed: 1,
    stream_encryption_not_configured: 1,
    stream_bad_compression: 1,
    stream_wrong_label: 1,
    stream_unexpected: 1,
    stream_timeout: 1,
  });
  t.equal(answers, 0);
  const other = await startNode(t, 'b');
  other.transport.join([node.peer]);
  await node.heard(isChange('joined', 'b'));
  const { counters } = node.transport;
  t.match(counters.call(node.transport), {
    packet_malformed: 2,
    packet_unexpected_type: 1,
    packet_truncated_compound: 1,
    packet_bad_compression: 1,
    packet_bad_checksum: 1,
    packet_unknown_type: 1,
  });
});

test('a TCP ping is answered; a port in use is an error that says so', async (t) => {
  const node = await startNode(t, 'a', { compression: false });
  const socket = connect({ host: HOST, port: node.port });
  socket.write(
    Uint8Array.from([
      0,
      0x82,
      0xa4,
      ...Buffer.from('Node'),
      0xa1,
      0x61,
      0xa5,
      ...Buffer.from('SeqNo'),
      7,
    ]),
  );
  const [answer] = await once(socket, 'data');
  t.same(
    [...answer],
    [2, 0x82, 0xa7, ...Buffer.from('Payload'), 0xc0, 0xa5, ...Buffer.from('SeqNo'), 7],
  );
  await once(socket, 'close');
  const config = { name: 'b', address: HOST, port: node.port, generation: 1 };
  const gossip = new Gossip({ random: seededRandom(1) }, config, clock.nowMs());
  const second = new GossipTransport({ gossip, clock, log: SILENT_LOG }, { onEvent: () => {} });
  await t.rejects(second.start(), {
    message: /Cannot listen for gossip on 127\.0\.0\.1 port \d+: .*EADDRINUSE/,
  });
});

test('Gossip refuses what cannot be a node', (t) => {
  const config = { name: 'a', address: HOST, port: 1, generation: 1 };
  for (const change of [
    { name: '' },
    { name: 'x'.repeat(256) },
    { address: 'host' },
    { port: 0 },
    { port: 65_536 },
    { generation: 1.5 },
    { tags: new Map([['hostname', 'x'.repeat(512)]]) },
    { tags: new Map([['role', 'web']]) },
    { label: 'é'.repeat(128) },
  ]) {
    const make = (): Gossip => new Gossip({ random: seededRandom(1) }, { ...config, ...change }, 0);
    t.throws(make, RangeError, Object.keys(change).join());
  }
  const gossip = new Gossip({ random: seededRandom(1) }, config, 0);
  t.throws(() => gossip.join([{ address: 'seed.example', port: 7946 }], 0), RangeError);
  t.end();
});

const KEY_A = new Uint8Array(16).fill(1);
const KEY_B = new Uint8Array(24).fill(2);
const KEY_C = new Uint8Array(32).fill(3);
const STRICT = { seal: true, strict: true };

test('encryption, compression and a label on real sockets; other keys and labels are refused', async (t) => {
  const label = 'blue';
  const started: Awaited<ReturnType<typeof startNode>>[] = [];
  for (const [name, change, keys] of [
    ['a', { label }, [KEY_C]],
    ['b', { label, compression: false }, [KEY_C]],
    ['c', { label }, [KEY_A, KEY_C]], // seals with a key that the others lack
    ['d', {}, [KEY_C]],
    ['e', { label }, []],
  ] as const) {
    const node = await startNode(t, name, change);
    node.gossip.setKeys(keys, STRICT);
    started.push(node);
  }
  const [a, b, c, d, e] = started;
  if (!a || !b || !c || !d || !e) throw new Error('five nodes were started');
  for (const { name, gossip } of started) gossip.table.setLocal('task', { on: name });
  b.transport.join([a.peer]);
  await Promise.all([a.heard(hasEndpoint('b')), b.heard(hasEndpoint('a'))]);
  for (const stranger of [c, d, e]) stranger.transport.join([a.peer]);
  // The stream of each is refused by `a`, which says why unless it is another cluster's.
  await a.counted({ stream_undecryptable: 1, stream_not_encrypted: 1, stream_wrong_label: 1 });
  await c.counted({ stream_refused: 1 }); // it opens what `a` seals
  await e.counted({ stream_encryption_not_configured: 1 }); // and this one does not
  const sendTo = async (from: typeof a, to: typeof a): Promise<void> => {
    const udp = createSocket('udp4');
    const ping = { kind: 'ping', sequence: 1, node: to.name } as const;
    const bytes = from.gossip.wire.sealPacket([encodeMessage(ping)], false);
    await new Promise((resolve) => udp.send(bytes, to.port, HOST, resolve));
    udp.close();
  };
  for (const stranger of [c, d, e]) await sendTo(stranger, a);
  await a.counted({ packet_undecryptable: 2, packet_wrong_label: 1 });
  t.same(
    a.gossip.members().map(({ name }) => name),
    ['a', 'b'],
  );
  t.same(
    [c, d, e].map(({ gossip }) => gossip.members().length),
    [1, 1, 1],
  );
});

test('keys are changed under way: installed, used, the old one removed, and nothing is lost', async (t) => {
  const [a, b, c] = [await startNode(t, 'a'), await startNode(t, 'b'), await startNode(t, 'c')];
  const all = [a, b, c];
  const [old, fresh] = [KEY_B, KEY_C];
  let round = 0;
  /** Something that each says after the step is heard by all others. */
  const talk = async (): Promise<void> => {
    const value = ++round;
    for (const { gossip } of all) gossip.table.setLocal('round', value);
    const says = (node: string) => (event: GossipEvent) =>
      event.kind === 'endpoints' &&
      event.node === node &&
      [...event.added, ...event.changed].some((entry) => entry.value === value);
    for (const node of all) {
      for (const { name } of all) if (name !== node.name) await node.heard(says(name));
    }
  };
  for (const node of [b, c]) node.transport.join([a.peer]);
  await talk();
  const lenient = { seal: false, strict: false };
  for (const [keys, use] of [
    // Turned on: first all can read, then all write, then nothing else is taken.
    [[old], lenient],
    [[old], { ...lenient, seal: true }],
    [[old], STRICT],
    // Changed.
    [[old, fresh], STRICT],
    [[fresh, old], STRICT],
    [[fresh], STRICT],
  ] as const) {
    for (const node of all) {
      node.gossip.setKeys(keys, use);
      await talk(); // also while the nodes differ
    }
  }
  t.equal(round, 1 + 6 * 3);
  for (const { name, transport, gossip } of all) {
    const lost = Object.keys(transport.counters()).filter((key) => /crypt|malformed/.test(key));
    t.same(lost, [], `${name} dropped nothing`);
    t.same(
      gossip.members().map(({ state }) => state),
      ['alive', 'alive', 'alive'],
    );
  }
});

test('a user message by TCP is taken like one by UDP', async (t) => {
  const [a, b] = [await startNode(t, 'a'), await startNode(t, 'b')];
  a.transport.join([b.peer]);
  await a.heard(isChange('joined', 'b'));
  const socket = connect({ host: HOST, port: a.port });
  const payload = Buffer.from('no message of ours');
  const header = Buffer.from('0881aa557365724d73674c656e', 'hex');
  socket.write(Buffer.concat([header, Buffer.of(payload.length), payload]));
  socket.on('error', () => {});
  socket.resume();
  await once(socket, 'close');
  t.match(a.transport.counters(), { serf_message_unknown: 1 });
});

test('a state exchange with nodes that speak no common version is not merged', (t) => {
  const config = { name: 'a', address: HOST, port: 1, generation: 1 };
  const gossip = new Gossip({ random: seededRandom(1) }, config, 0);
  const stranger = {
    ...{ node: 'z', address: '10.0.0.9', port: 7_946, meta: new Uint8Array(), incarnation: 1 },
    state: 'alive' as const,
  };
  for (const [versions, counter] of [
    [[6, 7, 6, 2, 5, 5], 'incompatible_protocol_version'],
    [[1, 5, 2, 6, 7, 6], 'incompatible_delegate_version'],
    [[], 'incompatible_protocol_version'],
  ] as const) {
    const nodes = [{ ...stranger, versions: Uint8Array.from(versions) }];
    const request = { kind: 'pushPull', join: true, nodes, userState: Uint8Array.of(1) } as const;
    const { effects, reply } = gossip.pushPullRequest(request, 1);
    t.same(effects, []);
    t.match(
      new StreamReader().push(reply),
      { kind: 'message' },
      'it gets an answer, as in memberlist',
    );
    t.ok((gossip.counters()[counter] ?? 0) > 0, counter);
  }
  t.equal(gossip.members().length, 1);
  t.notOk(Object.keys(gossip.counters()).some((name) => name.startsWith('user_state')));
  t.end();
});
