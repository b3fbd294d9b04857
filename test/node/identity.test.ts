import { readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'tap';
import { type Identity, IdentityFile } from '../../src/node/identity.ts';

const WORKER: Identity = {
  clusterId: 'cluster',
  nodeId: 'node',
  nodeSecret: 'secret',
  role: 'worker',
  advertiseAddress: '192.0.2.2',
  dataPathPort: 4789,
  gossipPort: 7946,
  managers: ['192.0.2.1:2377'],
  generation: 1_790_000_000,
};

test('an identity survives, and only its owner may read it', async (t) => {
  const directory = t.testdir();
  const path = join(directory, 'state', 'identity.json');
  const file = new IdentityFile(path);
  t.equal(await file.read(), undefined, 'a host in no cluster');
  await file.write(WORKER);
  t.strictSame(await file.read(), WORKER);
  t.equal((await stat(path)).mode & 0o777, 0o600);
  t.equal((await stat(join(directory, 'state'))).mode & 0o077, 0);
  const manager: Identity = { ...WORKER, role: 'manager', listenAddress: '192.0.2.2:2377' };
  await file.write(manager);
  t.strictSame(await file.read(), manager, 'the newer one');
  const gossip = { encryption: true, profile: 'wan', compression: false, label: 'x' } as const;
  await file.write({ ...WORKER, gossip });
  t.strictSame(await file.read(), { ...WORKER, gossip }, 'with the settings of gossip');
  t.same(await readdir(join(directory, 'state')), ['identity.json'], 'and no leftovers');
  await file.remove();
  t.equal(await file.read(), undefined);
  await file.remove();
});

test('a damaged identity is refused with what is wrong and what to do', async (t) => {
  const path = join(t.testdir(), 'identity.json');
  const file = new IdentityFile(path);
  const { nodeSecret, ...withoutSecret } = WORKER;
  t.equal(nodeSecret, 'secret');
  for (const [value, field] of [
    [withoutSecret, 'nodeSecret'],
    [{ ...WORKER, nodeId: '' }, 'nodeId'],
    [{ ...WORKER, role: 'king' }, 'role'],
    [{ ...WORKER, gossipPort: '7946' }, 'gossipPort'],
    [{ ...WORKER, generation: 1.5 }, 'generation'],
    [{ ...WORKER, managers: ['192.0.2.1:2377', 5] }, 'managers.1'],
    [{ ...WORKER, gossip: { encryption: true, profile: 'x' } }, 'gossip.profile'],
  ] as const) {
    await writeFile(path, JSON.stringify(value));
    const refusal = await file.read().catch((error: unknown) => error);
    t.match(refusal, { message: /; remove it and join again$/ }, field);
    t.match(String(refusal), `Cannot use ${path}: ${field}: `);
    t.notMatch(String(refusal), 'secret', 'the secret is told nobody');
  }
  await writeFile(path, '{"clusterId":');
  await t.rejects(file.read(), { message: `Cannot read ${path}: it holds no valid JSON` });
});
