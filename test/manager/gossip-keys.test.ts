import { test } from 'tap';
import { MemoryStore } from '../../src/io/store/memory.ts';
import { type InitGossipOptions, initCluster } from '../../src/manager/init-cluster.ts';
import { FakeAgent, joinRequest } from '../support/manager-agent.ts';
import { FakeTime, ManagerLab, seededRandom, sha256 } from '../support/manager-lab.ts';

const MINUTE_MS = 60_000;
const KEY_16 = Buffer.alloc(16, 1).toString('base64');
const KEY_32 = Buffer.alloc(32, 2).toString('base64');

/** The first 10 hexadecimal digits of a key's SHA-256. */
function idOf(key: string): string {
  return Buffer.from(sha256(Buffer.from(key, 'base64')))
    .toString('hex')
    .slice(0, 10);
}

/** A manager and agents that confirm the keys that they are told. */
async function start(count: number, gossip?: InitGossipOptions) {
  const lab = await ManagerLab.start(gossip === undefined ? {} : { cluster: { gossip } });
  const agents: FakeAgent[] = [];
  for (let number = 1; number <= count; number += 1) {
    const agent = await FakeAgent.join(lab, `host${number}`);
    agent.confirmsKeys = true;
    await agent.react();
    agents.push(agent);
  }
  await lab.time.advance(200);
  return { lab, agents };
}

async function keysOf(lab: ManagerLab) {
  return (await lab.get('/weft/gossip/keys')).body;
}

/** Keys by id and state, oldest first. */
async function states(lab: ManagerLab): Promise<readonly (readonly [string, string])[]> {
  const { keys } = await keysOf(lab);
  return keys.map((key: { id: string; state: string }) => [key.id, key.state]);
}

test('a new cluster has one key, which nodes are told when they join and when they connect', async (t) => {
  const { lab, agents } = await start(2);
  t.teardown(() => lab.stop());
  const [first, second] = agents as [FakeAgent, FakeAgent];
  const { gossip, gossipKeys } = first.identity;
  t.same(gossip, { encryption: true, profile: 'lan', compression: true });
  t.equal(gossipKeys?.mode, 'strict');
  const [key] = gossipKeys?.keys ?? [];
  t.equal(Buffer.from(key?.key ?? '', 'base64').length, 32);
  t.equal(key?.id, idOf(key?.key ?? ''));
  t.same(first.assignments?.gossipKeys, gossipKeys);
  t.same(first.assignments?.gossip, gossip);
  t.same(second.identity.gossipKeys, gossipKeys);
  t.match(await keysOf(lab), {
    mode: 'strict',
    changing: false,
    nodes: 2,
    waiting: [],
    down: [],
    keys: [{ id: key?.id, state: 'primary', nodes: 2, confirmed: 2, key: undefined }],
  });
  t.equal((await lab.get('/weft/gossip/keys?secret=1')).body.keys[0].key, key?.key);
});

test('a cluster is made with the settings that are asked for', async (t) => {
  const { lab, agents } = await start(1, {
    encryption: true,
    profile: 'wan',
    compression: false,
    label: 'blau',
    key: KEY_16,
    keyRotationMs: 0,
  });
  t.teardown(() => lab.stop());
  t.same(agents[0]?.identity.gossip, {
    encryption: true,
    profile: 'wan',
    compression: false,
    label: 'blau',
  });
  t.same(agents[0]?.identity.gossipKeys?.keys, [{ id: idOf(KEY_16), key: KEY_16 }]);
  t.match((await lab.store.get('cluster'))?.value, { gossip: { keyRotationMs: 0 } });
});

for (const [gossip, message] of [
  [
    { key: 'nonsense' },
    /^Invalid Gossip.Key: expected 16, 24 or 32 bytes in base64; a key of 6 byt/,
  ],
  [{ key: 'non sense' }, /^Invalid Gossip.Key: .*; a text that is not base64 was given/],
  [
    { key: KEY_16, encryption: false },
    /^Invalid Gossip.Key: a key was given, and encryption is off/,
  ],
  [{ label: '' }, /^Invalid Gossip.Label: expected 1 to 255 bytes; 0 were given/],
  [{ label: 'ü'.repeat(128) }, /^Invalid Gossip.Label: expected 1 to 255 bytes; 256 were given/],
  [{ keyRotationMs: 59_999 }, /^Invalid Gossip.KeyRotation: expected 0 or at least one minute/],
] as const) {
  test(`no cluster is made with ${JSON.stringify(gossip)}`, async (t) => {
    const store = new MemoryStore();
    const options = { clock: new FakeTime(), random: seededRandom(1), sha256, gossip };
    await t.rejects(initCluster(store, options), { detail: { code: 'INVALID' }, message });
    t.same((await store.list('')).entries, []);
  });
}

test('a rotation goes on when all nodes hold the key, and no sooner', async (t) => {
  const { lab, agents } = await start(3);
  t.teardown(() => lab.stop());
  const [first, , slow] = agents as [FakeAgent, FakeAgent, FakeAgent];
  const [[old] = ['']] = await states(lab);
  slow.confirmsKeys = false;
  const { status, body } = await lab.post('/weft/gossip/keys/rotate', undefined);
  t.equal(status, 200);
  await lab.time.advance(5_000);
  const told = first.assignments?.gossipKeys?.keys.map(({ id }) => id);
  t.same(told, [old, body.id], 'held, and not used');
  t.match(await keysOf(lab), { changing: true, waiting: [{ id: slow.id, name: 'host3' }] });
  t.same(await states(lab), [
    [old, 'primary'],
    [body.id, 'installing'],
  ]);
  slow.confirmsKeys = true;
  await slow.react();
  await lab.time.advance(1_000);
  t.same(await states(lab), [
    [old, 'installed'],
    [body.id, 'primary'],
  ]);
  for (const agent of agents) t.same(agent.gossipKeys, { mode: 'strict', ids: [body.id, old] });
  t.match(await keysOf(lab), { changing: false, waiting: [] });
});

test('a node that does not confirm holds a rotation up for a minute per step, and is named', async (t) => {
  const warnings: Readonly<Record<string, unknown>>[] = [];
  const lines: string[] = [];
  const log = {
    debug: () => {},
    info: (fields: object, message: string) => void lines.push(JSON.stringify([fields, message])),
    warn: (fields: Readonly<Record<string, unknown>>, message: string) => {
      if (message.includes('gossip')) warnings.push(fields);
    },
    error: () => {},
    child: () => log,
  };
  const lab = await ManagerLab.start({ deps: { log } });
  t.teardown(() => lab.stop());
  const good = await FakeAgent.join(lab, 'good');
  good.confirmsKeys = true;
  await good.react();
  const bad = await FakeAgent.join(lab, 'bad');
  const { body } = await lab.post('/weft/gossip/keys/rotate', undefined);
  await lab.time.advance(59_000);
  t.same((await states(lab)).at(-1), [body.id, 'installing']);
  await lab.time.advance(2_000);
  t.same((await states(lab)).at(-1), [body.id, 'primary']);
  await lab.time.advance(61_000);
  t.match(await keysOf(lab), { changing: false, waiting: [{ name: 'bad' }] });
  t.match(warnings, [{ nodeIds: [bad.id] }, { nodeIds: [bad.id] }]);
  t.equal(bad.assignments?.gossipKeys?.keys[0]?.id, body.id, 'it has been told all the same');
  const { keys } = (await lab.get('/weft/gossip/keys?secret=1')).body;
  for (const { key } of keys) t.notOk(lines.join().includes(key), 'no key is in the log');
});

test('a node that is down is not waited for, and gets all keys when it comes back', async (t) => {
  const { lab, agents } = await start(2);
  t.teardown(() => lab.stop());
  const away = agents[1] as FakeAgent;
  away.kill();
  await lab.time.advance(20_000);
  const ids: string[] = [];
  for (const _ of [1, 2, 3]) {
    ids.push((await lab.post('/weft/gossip/keys/rotate', undefined)).body.id);
    await lab.time.advance(2_000);
  }
  t.match(await keysOf(lab), { changing: false, nodes: 1, down: [{ name: 'host2' }] });
  t.same(
    (await states(lab)).map(([id]) => id),
    ids,
    'three are kept',
  );
  await away.connect();
  await lab.time.advance(1_000);
  t.same(away.gossipKeys?.ids, [ids[2], ids[0], ids[1]]);
  t.match(await keysOf(lab), { changing: false, nodes: 2, waiting: [], down: [] });
});

test('keys rotate by the clock, also when the manager was away', async (t) => {
  const { lab } = await start(2, { keyRotationMs: 10 * MINUTE_MS });
  t.teardown(() => lab.stop());
  const primary = async () => (await states(lab)).find(([, state]) => state === 'primary')?.[0];
  const seen = [await primary()];
  for (const _ of [1, 2, 3, 4]) {
    await lab.time.advance(9 * MINUTE_MS);
    t.equal(await primary(), seen.at(-1), 'not before its time');
    await lab.time.advance(62_000);
    seen.push(await primary());
  }
  t.equal(new Set(seen).size, 5);
  t.equal((await states(lab)).length, 3);
  t.equal(lab.manager.snapshot().gossipKeyAgeMs !== undefined, true);
  t.ok((lab.manager.snapshot().gossipKeyAgeMs ?? 0) < 62_000);
});

test('a manager that restarts in the middle of a rotation goes on with it', async (t) => {
  const { lab, agents } = await start(2);
  t.teardown(() => lab.stop());
  for (const agent of agents) agent.confirmsKeys = false;
  const { body } = await lab.post('/weft/gossip/keys/rotate', undefined);
  await lab.time.advance(1_000);
  await lab.restartManager();
  await lab.time.advance(3_000);
  t.same(
    (await states(lab)).at(-1),
    [body.id, 'installing'],
    'nodes that it has not heard of count',
  );
  for (const agent of agents) {
    agent.confirmsKeys = true;
    await agent.connect();
  }
  await lab.time.advance(2_000);
  t.same((await states(lab)).at(-1), [body.id, 'primary']);
});

test('a cluster in plaintext is encrypted in steps', async (t) => {
  const { lab, agents } = await start(2, { encryption: false, keyRotationMs: MINUTE_MS });
  t.teardown(() => lab.stop());
  const [first, second] = agents as [FakeAgent, FakeAgent];
  t.equal(first.identity.gossipKeys, undefined);
  t.equal(first.identity.gossip?.encryption, false);
  t.match(await keysOf(lab), { mode: 'off', keys: [] });
  t.equal(lab.manager.snapshot().gossipKeyAgeMs, undefined);
  await lab.time.advance(5 * MINUTE_MS);
  t.match(await keysOf(lab), { mode: 'off', keys: [] }, 'nothing rotates');
  const modes: string[] = [];
  const follow = (): void => {
    const mode = first.assignments?.gossipKeys?.mode;
    if (mode !== undefined && mode !== modes.at(-1)) modes.push(mode);
  };
  await lab.post('/weft/gossip/keys', { Key: KEY_32 });
  for (let turn = 0; turn < 20; turn += 1) {
    await lab.time.advance(50);
    follow();
  }
  t.match(await keysOf(lab), { mode: 'accept', changing: false, keys: [{ state: 'installed' }] });
  await lab.post(`/weft/gossip/keys/${idOf(KEY_32)}/use`, undefined);
  for (let turn = 0; turn < 40; turn += 1) {
    await lab.time.advance(50);
    follow();
  }
  t.same(modes, ['accept', 'seal', 'strict']);
  t.same(second.gossipKeys, { mode: 'strict', ids: [idOf(KEY_32)] });
  t.equal(second.assignments?.gossip?.encryption, true);
  const late = await FakeAgent.join(lab, 'late');
  t.equal(late.identity.gossipKeys?.mode, 'strict');
});

test('gossip is not encrypted over the head of an agent that knows no keys', async (t) => {
  const { lab } = await start(1, { encryption: false });
  t.teardown(() => lab.stop());
  const old = await FakeAgent.join(lab, 'old');
  for (const [path, body] of [
    ['rotate', undefined],
    ['', { Key: KEY_16 }],
  ] as const) {
    const answer = await lab.post(`/weft/gossip/keys${path && '/'}${path}`, body);
    t.equal(answer.status, 400);
    t.match(answer.body.message, /^Cannot encrypt gossip: the agent of node old has not said/);
  }
  old.kill();
  await lab.time.advance(20_000);
  t.equal((await lab.post('/weft/gossip/keys/rotate', undefined)).status, 200);
});

test('keys are installed, used and removed by hand', async (t) => {
  const { lab } = await start(2);
  t.teardown(() => lab.stop());
  const [[first] = ['']] = await states(lab);
  const installed = await lab.post('/weft/gossip/keys', { Key: KEY_16 });
  t.equal(installed.status, 201);
  t.same(installed.body, { id: idOf(KEY_16) });
  await lab.time.advance(1_000);
  t.same((await states(lab)).at(-1), [idOf(KEY_16), 'installed']);
  const used = await lab.post(`/weft/gossip/keys/${idOf(KEY_16).slice(0, 4)}/use`, undefined);
  t.same(used.body, { id: idOf(KEY_16) }, 'the start of an id will do');
  await lab.time.advance(1_000);
  t.same(await states(lab), [
    [first, 'installed'],
    [idOf(KEY_16), 'primary'],
  ]);
  t.equal((await lab.delete(`/weft/gossip/keys/${first}`)).status, 200);
  await lab.time.advance(1_000);
  t.same(await states(lab), [[idOf(KEY_16), 'primary']]);
});

test('what cannot be done to keys is refused, with the reason', async (t) => {
  const { lab, agents } = await start(1);
  t.teardown(() => lab.stop());
  const [[primary] = ['']] = await states(lab);
  const secret = (await lab.get('/weft/gossip/keys?secret=1')).body.keys[0].key;
  const refuse = async (
    method: string,
    path: string,
    body: unknown,
    status: number,
    message: RegExp,
  ) => {
    const answer = await lab.call(method, `/weft/gossip/keys${path}`, body);
    t.equal(answer.status, status, `${method} ${path}`);
    t.match(answer.body.message, message);
  };
  await refuse('POST', '', {}, 400, /^Invalid Key: expected .*; nothing was given/);
  await refuse('POST', '', { Key: 5 }, 400, /^Invalid Key: /);
  await refuse('POST', '', { Key: KEY_16, Id: 'x' }, 400, /^Id is not supported/);
  await refuse('POST', '', { Key: '!' }, 400, /a text that is not base64 was given/);
  await refuse(
    'POST',
    '',
    { Key: 'AAAA' },
    400,
    /^Invalid Key: expected 16, 24 or 32 bytes in base64; a key of 3 bytes was given$/,
  );
  await refuse(
    'POST',
    '',
    { Key: secret },
    400,
    /^Cannot install gossip key \w+: it is installed already/,
  );
  await refuse('POST', '/0000000000/use', undefined, 404, /^gossip key 0000000000 not found/);
  await refuse('DELETE', '/0000000000', undefined, 404, /^gossip key 0000000000 not found/);
  await refuse(
    'DELETE',
    `/${primary}`,
    undefined,
    400,
    /^Cannot remove gossip key \w+: it is the primary/,
  );
  for (const Key of [KEY_16, KEY_32]) await lab.post('/weft/gossip/keys', { Key });
  await lab.time.advance(1_000);
  const fourth = Buffer.alloc(24, 3).toString('base64');
  await refuse(
    'POST',
    '',
    { Key: fourth },
    400,
    /^Cannot install gossip key \w+: there are 3 keys, expected at most 3/,
  );
  (agents[0] as FakeAgent).confirmsKeys = false;
  const { body } = await lab.post('/weft/gossip/keys/rotate', undefined);
  await refuse('POST', '/rotate', undefined, 400, /^Cannot rotate the gossip key: another change/);
  await refuse(
    'DELETE',
    `/${idOf(KEY_16)}`,
    undefined,
    400,
    /^Cannot remove gossip key \w+: another change/,
  );
  await refuse(
    'POST',
    `/${idOf(KEY_16)}/use`,
    undefined,
    400,
    new RegExp(`key ${body.id} is about to be`),
  );
});

test('reports of keys that are none are refused', async (t) => {
  const { lab, agents } = await start(1);
  t.teardown(() => lab.stop());
  const agent = agents[0] as FakeAgent;
  for (const gossipKeys of [
    { mode: 'open', ids: [] },
    { mode: 'strict', ids: ['x'] },
    { mode: 'strict', ids: ['0123456789abcdef'] },
    { mode: 'strict', ids: Array.from({ length: 17 }, () => '0123456789') },
    { mode: 'strict' },
  ]) {
    const response = await agent.report([], { gossipKeys } as object);
    t.equal(response.status, 400);
  }
});

test('a cluster of before these settings is plaintext, and rotates nothing', async (t) => {
  const lab = await ManagerLab.start({ cluster: { gossip: { encryption: false } } });
  t.teardown(() => lab.stop());
  const { value, revision } = (await lab.store.get('cluster')) ?? { value: {}, revision: 0 };
  const { gossip: _, ...before } = value as Readonly<Record<string, string>>;
  await lab.store.transact(
    [{ key: 'cluster', revision }],
    [{ kind: 'put', key: 'cluster', value: before }],
  );
  await lab.restartManager();
  const token = lab.manager.joinTokens().worker;
  const { body } = await joinRequest(lab, { token });
  t.same(body.gossip, { encryption: false, profile: 'lan', compression: true });
  t.equal(body.gossipKeys, undefined);
});
