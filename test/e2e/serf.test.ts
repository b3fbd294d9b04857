// Nodes of ours and agents of Debian's serf in one cluster.
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { type Test, test } from 'tap';
import { eventually } from '../support/cluster.ts';
import {
  MixedCluster,
  type MixedMember,
  type SerfAgent,
  type WeftNode,
} from '../support/mixed-cluster.ts';

const TIMEOUT_MS = 240_000;
const WAIT_MS = 60_000;
/** Serf takes queries of at most 1,024 bytes, encoded (`QuerySizeLimit`). */
const QUERY_PAYLOAD_BYTES = 850;
/** Serf takes events of at most 512 bytes, encoded (`UserEventSizeLimit`). */
const EVENT_PAYLOAD_BYTES = 450;
/** What serf says of members that were killed, and of itself when it has been. */
const EXPECTED_TROUBLE =
  /connection refused|UDP probes failed|Refuting a|Serf shutdown detected|i\/o timeout|Failed to send|Failed ping|reset by peer|broken pipe|EOF/;

interface Mixed {
  readonly cluster: MixedCluster;
  readonly serf: readonly [SerfAgent, SerfAgent, SerfAgent];
  readonly weft: readonly [WeftNode, WeftNode];
}

/** Waits until all `observers` say of all `names` that they are in `state`. */
async function allSee(
  observers: readonly MixedMember[],
  names: readonly string[],
  state: string,
): Promise<void> {
  await Promise.all(
    observers.map(async (observer) => {
      let seen = '';
      const holds = async (): Promise<true | undefined> => {
        const known = await observer.known();
        seen = JSON.stringify([...known].map(([name, member]) => [name, member.state]));
        return names.every((name) => known.get(name)?.state === state) || undefined;
      };
      const what = `${observer.name} sees ${names.join()} ${state}`;
      await eventually(what, holds, WAIT_MS).catch((error: Error) => {
        throw new Error(`${error.message}; it sees ${seen}`, { cause: error });
      });
    }),
  );
}

async function tablesAreEqual(t: Test, { weft }: Pick<Mixed, 'weft'>): Promise<void> {
  const endpoints = weft.map(({ name }) => `${name}/task`).sort();
  await eventually('the endpoint tables are equal', async () => {
    const [a, b] = await Promise.all(weft.map((node) => node.state()));
    const whole =
      a?.endpoints.join() === endpoints.join() && b?.endpoints.join() === a.endpoints.join();
    return (whole && a?.summary === b?.summary) || undefined;
  });
  t.pass('the endpoint tables of our nodes are equal');
}

const namesOf = (members: readonly MixedMember[]): string[] => members.map(({ name }) => name);

/** What serf can say to all members. None of it is for us, and none may be new to us. */
async function chatter(t: Test, { serf, weft }: Mixed): Promise<void> {
  const [first, second, third] = serf;
  await first.command('event', 'deploy', 'e'.repeat(EVENT_PAYLOAD_BYTES));
  const reply = await second.command(
    ...['query', '-format=json', '-timeout=2s', '-relay-factor=2', 'load'],
    'q'.repeat(QUERY_PAYLOAD_BYTES),
  );
  const { Acks: acks } = JSON.parse(reply) as { readonly Acks: readonly string[] };
  t.same([...new Set(acks)].sort(), namesOf(serf), 'a query has acks from all agents of serf');
  const reachability = await third.command('reachability', '-verbose');
  for (const { name } of serf) t.match(reachability, `Ack from '${name}'`, `${name} is reached`);
  await second.command('tags', '-set', 'zone=b', '-set', 'role=web');
  await Promise.all(
    weft.map((node) =>
      eventually(`${node.name} sees tags that were set later`, async () => {
        const tags = (await node.known()).get(second.name)?.tags;
        return (tags?.zone === 'b' && tags.role === 'web') || undefined;
      }),
    ),
  );
}

async function isSeenGone(mixed: Mixed, gone: MixedMember, state: string): Promise<void> {
  const others = [...mixed.serf, ...mixed.weft].filter((member) => member !== gone);
  await allSee(others, [gone.name], state);
  await allSee(others, namesOf(others), 'alive');
}

async function isQuiet(t: Test, { cluster, weft }: Mixed): Promise<void> {
  for (const node of weft) {
    const { counters } = await node.state();
    const odd = Object.entries(counters).filter(([name]) =>
      /malformed|unknown|foreign|unsupported|unexpected|too_large|full/.test(name),
    );
    t.same(odd, [], `${node.name} understood all that it was told`);
  }
  const complaints = cluster.serfLog.filter(
    (line) => /\[(ERR|WARN)\]/.test(line) && !EXPECTED_TROUBLE.test(line),
  );
  t.same(complaints, [], 'serf has nothing to complain of');
}

async function life(t: Test, cluster: MixedCluster): Promise<void> {
  const s1 = await cluster.serf('s1', 1, []);
  const [s2, s3] = await Promise.all([cluster.serf('s2', 2, [s1]), cluster.serf('s3', 3, [s1])]);
  const [w1, w2] = await Promise.all([cluster.weft('w1', 11, [s1]), cluster.weft('w2', 12, [s2])]);
  let mixed: Mixed = { cluster, serf: [s1, s2, s3], weft: [w1, w2] };
  const all = (): readonly MixedMember[] => [...mixed.serf, ...mixed.weft];
  const names = namesOf(all());
  await allSee(all(), names, 'alive');
  t.pass('all members are alive to all');
  const tags = (await s3.known()).get('w1')?.tags;
  t.same(tags, { role: 'weft', hostname: 'host-w1', version: '1.2.3' }, 'serf shows our tags');
  await tablesAreEqual(t, mixed);
  await chatter(t, mixed);

  await s3.kill();
  await isSeenGone(mixed, s3, 'failed');
  t.pass('a killed agent of serf is failed to all others');
  mixed = { ...mixed, serf: [s1, s2, await cluster.serf('s3', 3, [w1])] };
  await allSee(all(), names, 'alive');
  await w2.kill();
  await isSeenGone(mixed, w2, 'failed');
  t.same((await w1.state()).endpoints, ['w1/task'], 'endpoints of the failed are hidden');
  t.pass('a killed node of ours is failed to all others');
  mixed = { ...mixed, weft: [w1, await cluster.weft('w2', 12, [s1])] };
  await allSee(all(), names, 'alive');
  await tablesAreEqual(t, mixed);

  const [, , leaver] = mixed.serf;
  await leaver.leave();
  await isSeenGone(mixed, leaver, 'left');
  t.pass('an agent of serf that leaves is left to all others');
  mixed = { ...mixed, serf: [s1, s2, await cluster.serf('s3', 3, [w1])] };
  const [, weftLeaver] = mixed.weft;
  await weftLeaver.leave();
  await isSeenGone(mixed, weftLeaver, 'left');
  t.pass('a node of ours that leaves is left to all others');
  mixed = { ...mixed, weft: [w1, await cluster.weft('w2', 12, [s1])] };
  await allSee(all(), names, 'alive');
  await tablesAreEqual(t, mixed);
  t.pass('and both are alive again to all');
  await chatter(t, mixed);
  await isQuiet(t, mixed);
  await conflict(t, mixed);
}

/** A second "s2" at another address: known to all as the one that was there first. */
async function conflict(t: Test, { cluster, serf, weft }: Mixed): Promise<void> {
  const [, existing] = serf;
  const impostor = await cluster.serf(existing.name, 4, weft);
  const claimed = { address: impostor.address, port: 7946 };
  await eventually('our nodes report the conflict', async () => {
    const reported = weft.every(({ events }) =>
      events.some(
        (event) =>
          event.kind === 'conflict' &&
          event.member.name === existing.name &&
          event.claimed.address === claimed.address,
      ),
    );
    return reported || undefined;
  });
  for (const node of weft) {
    const member = (await node.known()).get(existing.name);
    t.match(member, { state: 'alive', address: `${existing.address}:7946` }, 'the member stays');
  }
}

const KINDS = [
  { name: 'plain', encrypted: false, compressed: false },
  { name: 'compressed', encrypted: false, compressed: true },
  { name: 'encrypted', encrypted: true, compressed: false },
  { name: 'compressed and encrypted', encrypted: true, compressed: true },
];
const skip = spawnSync('serf', ['version']).error !== undefined && 'needs serf';
/** Test files of several checkouts may run at once: they use addresses of their own. */
const FIRST_OCTET = 4 + (process.pid % 60) * KINDS.length;

test('our nodes and agents of serf are members of one cluster', { skip }, async (t) => {
  t.jobs = KINDS.length;
  t.setTimeout(TIMEOUT_MS);
  await Promise.all(
    KINDS.map(async ({ name, encrypted, compressed }, index) => {
      const key = encrypted ? randomBytes(32).toString('base64') : undefined;
      await t.test(name, { timeout: TIMEOUT_MS, buffered: true }, async (sub) => {
        const cluster = new MixedCluster({ prefix: `127.${FIRST_OCTET + index}`, compressed, key });
        sub.teardown(() => cluster.close());
        await life(sub, cluster);
      });
    }),
  );
});
