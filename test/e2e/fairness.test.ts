// A task that sends as fast as it can costs the others time, but not their packets.
import { type Test, test } from 'tap';
import { startScript } from '../support/cluster.ts';
import type { HostTables } from '../support/data-plane-host.ts';
import { canMakeLab, Lab, type LabHost } from '../support/lab.ts';
import { Lines } from '../support/lines.ts';
import type { Storm } from '../support/packet-storm.ts';
import { HTTP_PORT, SERVER_COMMAND, TestClient, UDP_PORT } from '../support/services.ts';

const FLOODER = '10.9.0.11';
const ASKER = '10.9.0.12';
const LOCAL_SERVER = '10.9.0.13';
const REMOTE_SINK = '10.9.0.21';
const REMOTE_SERVER = '10.9.0.22';
const NOBODY = '10.9.0.99';
const REQUESTS = 60;
/**
 * What the other node keeps up with. Of what it does not, the kernel drops from the one queue that all of
 * its tasks' datagrams wait in.
 */
const REMOTE_PER_MS = 40;

interface Side {
  readonly host: LabHost;
  readonly tasks: readonly string[];
}

function netnsOf(lab: Lab, address: string): string {
  return `${lab.prefix}t${address.split('.').at(-1)}`;
}

async function serve(lab: Lab, here: Side, there: Side): Promise<void> {
  for (const address of here.tasks) {
    lab.ip([`netns add ${netnsOf(lab, address)}`]);
    lab.ip(['link set lo up'], netnsOf(lab, address));
  }
  const tables: HostTables = {
    ...{ vtep: here.host.address, vni: 4097, subnet: '10.9.0.0/24', gateway: '10.9.0.1' },
    ports: here.tasks.map((address) => ({ netns: netnsOf(lab, address), address })),
    peers: [there.host.address],
    endpoints: there.tasks.map((address) => ({ address, vtep: there.host.address })),
    flowFile: `${lab.folder}/flows-${here.host.name}`,
  };
  const host = await startScript(lab, here.host, './data-plane-host.ts', [JSON.stringify(tables)]);
  await host.until(/^ready$/);
}

async function setUp(lab: Lab): Promise<TestClient> {
  const here = { host: lab.addHost('a'), tasks: [FLOODER, ASKER, LOCAL_SERVER] };
  const there = { host: lab.addHost('b'), tasks: [REMOTE_SINK, REMOTE_SERVER] };
  await serve(lab, here, there);
  await serve(lab, there, here);
  for (const address of [LOCAL_SERVER, REMOTE_SERVER]) {
    const server = new Lines(lab.spawn(netnsOf(lab, address), SERVER_COMMAND));
    await server.until(/^serving/);
  }
  return await TestClient.start(lab, netnsOf(lab, ASKER));
}

interface Flood {
  readonly target: string;
  /** Datagrams in a millisecond; absent: as many as go. */
  readonly perMs?: number;
  /** Who is asked meanwhile; absent: both. */
  readonly servers?: readonly string[];
}

/** What a well-behaved task gets done while another one floods `target`. */
async function underFlood(
  t: Test,
  lab: Lab,
  asker: TestClient,
  { target, perMs, servers = [LOCAL_SERVER, REMOTE_SERVER] }: Flood,
): Promise<void> {
  const storm: Storm = {
    ...{ kind: 'flood', seed: 1, count: Number.MAX_SAFE_INTEGER },
    ...{ device: 'eth0', from: FLOODER, to: target, ...(perMs && { perMs }) },
  };
  const script = new URL('../support/packet-storm.ts', import.meta.url).pathname;
  const command = [process.execPath, script, JSON.stringify(storm)];
  const flooder = lab.spawn(netnsOf(lab, FLOODER), command);
  await new Lines(flooder).until(/^flooding$/);
  for (const server of servers) await asker.beat(server, server, UDP_PORT);
  const before = performance.now();
  const urls = servers.map((server) => `http://${server}:${HTTP_PORT}`);
  const replies = await asker.get(urls, REQUESTS);
  const tookMs = performance.now() - before;
  t.same(
    replies.filter(({ ok }) => !ok),
    [],
    `all of ${REQUESTS} requests are answered`,
  );
  for (const server of servers) {
    const { longestMs, sent, answers } = await asker.endBeat(server);
    t.equal(answers, sent, `every datagram to ${server} is answered`);
    t.comment(`${server}: no answer for ${Math.round(longestMs)} ms at most`);
  }
  t.comment(`${REQUESTS} requests took ${Math.round(tookMs)} ms`);
  t.ok(flooder.exitCode === null, 'all the time');
  flooder.kill('SIGKILL');
}

test('a flood by one task', {
  skip: !canMakeLab() && 'needs root',
  timeout: 120_000,
}, async (t) => {
  const lab = new Lab();
  t.teardown(() => lab.close());
  const asker = await setUp(lab);
  for (const [name, flood] of [
    ['to another node', { target: REMOTE_SINK, perMs: REMOTE_PER_MS }],
    ['to another node, all that goes', { target: REMOTE_SINK, servers: [LOCAL_SERVER] }],
    ['to a task beside it', { target: LOCAL_SERVER }],
    ['to the server that others ask', { target: REMOTE_SERVER, perMs: REMOTE_PER_MS }],
    ['to nobody', { target: NOBODY }],
  ] as const) {
    await t.test(name, (t) => underFlood(t, lab, asker, flood));
  }
});
