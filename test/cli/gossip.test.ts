import { test } from 'tap';
import { lines, Refusal, secondsAgo, startFakeAgent, weft } from './fake-agent.ts';

const KEY = Buffer.alloc(32, 1).toString('base64');
const KEYS = {
  mode: 'strict',
  changing: false,
  nodes: 3,
  waiting: [],
  down: [],
  keys: [
    { id: 'aaaaaaaaaa', state: 'installed', createdAt: secondsAgo(7_200), nodes: 3, confirmed: 3 },
    { id: 'bbbbbbbbbb', state: 'primary', createdAt: secondsAgo(60), nodes: 3, confirmed: 3 },
    { id: 'cccccccccc', state: 'installing', createdAt: secondsAgo(5), nodes: 3, confirmed: 2 },
  ],
};
const WAITING = [{ id: 'n3', name: 'host3' }];

test('`gossip key list` shows keys as Docker shows lists, and no secret', async (t) => {
  const agent = await startFakeAgent(t, { 'GET /weft/gossip/keys': KEYS });
  const { stdout, stderr, code } = await weft(agent, ['gossip', 'key', 'list']);
  t.equal(code, 0);
  t.equal(stderr, '');
  t.equal(
    stdout,
    lines(
      'ID           STATE        CREATED              NODES',
      'aaaaaaaaaa   installed    2 hours ago          3/3',
      'bbbbbbbbbb   primary      about a minute ago   3/3',
      'cccccccccc   installing   5 seconds ago        2/3',
    ),
  );
  t.same(agent.requests, [{ request: 'GET /weft/gossip/keys' }]);
  t.equal((await weft(agent, ['gossip', 'key', 'ls', '-q'])).stdout.split('\n')[0], 'aaaaaaaaaa');
  const json = await weft(agent, ['gossip', 'key', 'list', '--format', 'json']);
  t.same(JSON.parse(json.stdout.split('\n')[1] ?? ''), {
    CreatedAt: secondsAgo(60),
    CreatedSince: 'about a minute ago',
    ID: 'bbbbbbbbbb',
    Nodes: '3/3',
    State: 'primary',
  });
});

test('`gossip key list --show-keys` asks for the keys', async (t) => {
  const [first] = KEYS.keys;
  const answer = { ...KEYS, keys: [{ ...first, key: KEY }] };
  const agent = await startFakeAgent(t, { 'GET /weft/gossip/keys': answer });
  const { stdout } = await weft(agent, ['gossip', 'key', 'list', '--show-keys']);
  t.match(stdout, /NODES +KEY\n/);
  t.ok(stdout.includes(KEY));
  t.same(agent.requests[0]?.query, { secret: '1' });
});

test('`gossip key list` says that gossip is plaintext, and what a change waits for', async (t) => {
  const off = await startFakeAgent(t, { 'GET /weft/gossip/keys': { mode: 'off', keys: [] } });
  const plain = await weft(off, ['gossip', 'key', 'list']);
  t.equal(plain.stdout, lines('ID        STATE     CREATED   NODES'));
  t.match(plain.stderr, /^Gossip is not encrypted: "weft gossip key rotate" makes it so\n$/);
  const answer = { ...KEYS, changing: true, waiting: WAITING };
  const agent = await startFakeAgent(t, { 'GET /weft/gossip/keys': answer });
  const { stderr } = await weft(agent, ['gossip', 'key', 'list']);
  t.equal(stderr, 'A change is under way: waiting for host3\n');
});

/** Answers of `GET /weft/gossip/keys`, the last one again and again. */
function keysInTurn(...answers: readonly object[]) {
  return (times: number) => ({ ...KEYS, ...answers[Math.min(times, answers.length) - 1] });
}

for (const [argv, request, body] of [
  [['rotate'], 'POST /weft/gossip/keys/rotate', undefined],
  [['install', KEY], 'POST /weft/gossip/keys', { Key: KEY }],
  [['use', 'bbbb'], 'POST /weft/gossip/keys/bbbb/use', undefined],
  [['remove', 'bbbb'], 'DELETE /weft/gossip/keys/bbbb', undefined],
  [['rm', 'bbbb'], 'DELETE /weft/gossip/keys/bbbb', undefined],
] as const) {
  test(`\`gossip key ${argv[0]}\` waits until all nodes have confirmed`, async (t) => {
    const agent = await startFakeAgent(t, {
      [request]: { id: 'bbbbbbbbbb' },
      'GET /weft/gossip/keys': keysInTurn(
        { changing: true, waiting: [...WAITING, { id: 'n2', name: 'host2' }] },
        { changing: true, waiting: WAITING },
        { changing: true, waiting: WAITING },
        {},
      ),
    });
    const result = await weft(agent, ['gossip', 'key', ...argv]);
    t.equal(result.code, 0);
    t.equal(
      result.stdout,
      lines(
        'bbbbbbbbbb',
        'overall progress: 1 out of 3 nodes',
        'overall progress: 2 out of 3 nodes',
        'overall progress: 3 out of 3 nodes',
        'verify: all nodes have the keys',
      ),
    );
    t.equal(result.sleeps, 3);
    t.same(agent.requests[0], { request, ...(body === undefined ? {} : { body }) });
  });

  test(`\`gossip key ${argv[0]} --detach\` does not wait`, async (t) => {
    const agent = await startFakeAgent(t, { [request]: { id: 'bbbbbbbbbb' } });
    const result = await weft(agent, ['gossip', 'key', argv[0], '--detach', ...argv.slice(1)]);
    t.same([result.code, result.stdout], [0, 'bbbbbbbbbb\n']);
    t.equal(agent.requests.length, 1);
  });
}

test('a change that goes on without a node names it, and fails', async (t) => {
  const agent = await startFakeAgent(t, {
    'POST /weft/gossip/keys/rotate': { id: 'bbbbbbbbbb' },
    'GET /weft/gossip/keys': keysInTurn({ waiting: WAITING }),
  });
  const { code, stderr } = await weft(agent, ['gossip', 'key', 'rotate']);
  t.equal(code, 1);
  t.match(
    stderr,
    /^weft: The change was made without nodes .*: waiting for host3; they are cut off/,
  );
});

test('nodes that are down are told of, and are no failure', async (t) => {
  const agent = await startFakeAgent(t, {
    'POST /weft/gossip/keys/rotate': { id: 'bbbbbbbbbb' },
    'GET /weft/gossip/keys': keysInTurn({ down: WAITING }),
  });
  const { code, stdout } = await weft(agent, ['gossip', 'key', 'rotate']);
  t.equal(code, 0);
  t.match(stdout, /Nodes that are down get the keys when they come back: host3\n/);
});

test('Ctrl-C ends the wait, and not the change', async (t) => {
  const agent = await startFakeAgent(t, {
    'POST /weft/gossip/keys/rotate': { id: 'bbbbbbbbbb' },
    'GET /weft/gossip/keys': keysInTurn({ changing: true, waiting: WAITING }),
  });
  const { code, stdout } = await weft(agent, ['gossip', 'key', 'rotate'], { interruptAt: 2 });
  t.equal(code, 0);
  t.match(stdout, /Operation continuing in background\.\nUse `weft gossip key list`/);
});

for (const [argv, message] of [
  [
    ['install', 'nonsense='],
    /^weft: Cannot use the key: it is not base64, expected 16, 24 or 32 bytes/,
  ],
  [
    ['install', 'AAAA'],
    /^weft: Cannot use the key: it has 3 bytes, expected 16, 24 or 32 bytes in base64/,
  ],
  [['install'], /missing required argument 'key'/i],
  [['use', ''], /expected a value that is not empty/],
  [['remove'], /missing required argument 'id'/i],
] as const) {
  test(`\`gossip key ${argv.join(' ')}\` is refused before the agent is asked`, async (t) => {
    const agent = await startFakeAgent(t, {});
    const { code, stderr } = await weft(agent, ['gossip', 'key', ...argv]);
    t.equal(code, 1);
    t.match(stderr, message);
    t.same(agent.requests, []);
    if (argv[1] !== undefined && argv[1] !== '') t.notOk(stderr.includes(argv[1]));
  });
}

test('what the manager refuses is shown', async (t) => {
  const message = 'Cannot remove gossip key bbbbbbbbbb: it is the primary one';
  const agent = await startFakeAgent(t, {
    'DELETE /weft/gossip/keys/bbbbbbbbbb': new Refusal(400, message),
  });
  const { code, stderr } = await weft(agent, ['gossip', 'key', 'remove', 'bbbbbbbbbb']);
  t.equal(code, 1);
  t.ok(stderr.includes(message));
});

test('`gossip members` lists members with their hosts', async (t) => {
  const member = { state: 'alive', incarnation: 4, protocol: 2 };
  const agent = await startFakeAgent(t, {
    'GET /weft/gossip/members': {
      members: [
        {
          ...member,
          name: 'host1',
          id: 'n1',
          address: '192.0.2.1:7946',
          tags: { role: 'weft', version: '1' },
        },
        { ...member, name: 'serf', id: 'serf', address: '192.0.2.9:7946', state: 'suspect' },
      ],
    },
  });
  const { stdout } = await weft(agent, ['gossip', 'members']);
  t.equal(
    stdout,
    lines(
      'NAME      ID        ADDRESS          STATE     INCARNATION   PROTOCOL   TAGS',
      'host1     n1        192.0.2.1:7946   alive     4             2          role=weft,version=1',
      'serf      serf      192.0.2.9:7946   suspect   4             2',
    ),
  );
  const json = await weft(agent, ['gossip', 'members', '--format', 'json']);
  t.match(JSON.parse(json.stdout.split('\n')[0] ?? ''), {
    Name: 'host1',
    ID: 'n1',
    Tags: 'role=weft,version=1',
  });
});

test('`endpoints` lists what gossip shows, and asks for what was named', async (t) => {
  const agent = await startFakeAgent(t, {
    'GET /weft/endpoints': {
      endpoints: [
        {
          network: 'web',
          address: '10.0.1.9',
          address6: 'fd00::9',
          node: 'host1',
          service: 'server',
          task: 'server.1',
          taskId: 't1',
          state: 'active',
        },
        {
          network: 'web',
          address: '10.0.1.10',
          node: 'host2',
          service: 'server',
          task: 'abcdefghijklmnopqrstuvwxy',
          taskId: 'abcdefghijklmnopqrstuvwxy',
          state: 'warm',
        },
      ],
    },
  });
  const { stdout } = await weft(agent, ['endpoints']);
  t.equal(
    stdout,
    lines(
      'NETWORK   ADDRESS             NODE      SERVICE   TASK           STATE',
      'web       10.0.1.9, fd00::9   host1     server    server.1       active',
      'web       10.0.1.10           host2     server    abcdefghijkl   warm',
    ),
  );
  await weft(agent, ['endpoints', '--network', 'web', '--service', 's', '--node', 'host1']);
  t.same(agent.requests[1]?.query, { network: 'web', service: 's', node: 'host1' });
  const json = await weft(agent, ['endpoints', '--format', 'json']);
  t.match(JSON.parse(json.stdout.split('\n')[1] ?? ''), { address: '10.0.1.10', node: 'host2' });
});

test('`endpoints --digest` has a line for each network and one for all', async (t) => {
  const agent = await startFakeAgent(t, {
    'GET /weft/endpoints/digest': {
      digests: [
        { network: 'web', networkId: 'n', endpoints: 12, digest: '00112233445566aa' },
        { endpoints: 12, digest: 'ffeeddccbbaa9988' },
      ],
    },
  });
  const { stdout } = await weft(agent, ['endpoints', '--digest']);
  t.equal(
    stdout,
    lines(
      'NETWORK   ENDPOINTS   DIGEST',
      'web       12          00112233445566aa',
      '(all)     12          ffeeddccbbaa9988',
    ),
  );
  const { stdout: json } = await weft(agent, ['endpoints', '--digest', '--format', 'json']);
  t.equal(json.split('\n')[1], '{"endpoints":12,"digest":"ffeeddccbbaa9988"}');
  const refused = await weft(agent, ['endpoints', '--digest', '--node', 'x']);
  t.equal(refused.code, 1);
  t.match(refused.stderr, /^weft: Cannot use --digest with --network, --service or --node/);
});

test('`init` sends what is said about gossip', async (t) => {
  const agent = await startFakeAgent(t, {
    'POST /swarm/init': 'id',
    'GET /swarm': { JoinTokens: { Worker: 'w' } },
    'GET /info': {},
  });
  await weft(agent, [
    ...['init', '--gossip-encryption', 'on', '--gossip-profile', 'wan', '--gossip-compression'],
    ...['off', '--gossip-label', 'blau', '--gossip-key', KEY, '--gossip-key-rotation', '1h30m'],
  ]);
  t.same(agent.requests[0]?.body, {
    Gossip: {
      Encryption: true,
      Profile: 'wan',
      Compression: false,
      Label: 'blau',
      Key: KEY,
      KeyRotation: 5_400_000_000_000,
    },
  });
  agent.requests.length = 0;
  await weft(agent, ['init', '--gossip-encryption', 'off', '--gossip-key-rotation', '0']);
  t.same(agent.requests[0]?.body, { Gossip: { Encryption: false, KeyRotation: 0 } });
});

for (const [argv, message] of [
  [['--gossip-encryption', 'yes'], /expected one of on, off/],
  [['--gossip-profile', 'mars'], /expected one of lan, wan, local/],
  [['--gossip-label', ''], /expected 1 to 255 bytes/],
  [['--gossip-label', 'x'.repeat(256)], /expected 1 to 255 bytes/],
  [['--gossip-key', 'AAAA'], /Cannot use --gossip-key: it has 3 bytes, expected 16, 24 or 32/],
  [['--gossip-key-rotation', '59s'], /expected 0, or a duration of at least one minute/],
  [['--gossip-key-rotation', 'soon'], /expected a duration/],
  [
    ['--gossip-encryption', 'off', '--gossip-key', KEY],
    /Cannot use --gossip-key with --gossip-encr/,
  ],
] as const) {
  test(`\`init ${argv.join(' ').slice(0, 40)}\` is refused before the agent is asked`, async (t) => {
    const agent = await startFakeAgent(t, {});
    const { code, stderr } = await weft(agent, ['init', ...argv]);
    t.equal(code, 1);
    t.match(stderr, message);
    t.same(agent.requests, []);
  });
}
