// Several packet threads in one agent: they carry the same traffic as one does, and an agent with another
// number of them takes over what the last one left.
import { type Test, test } from 'tap';
import { type Cluster, eventually, type LabAgent, startCluster } from '../support/cluster.ts';
import type { HostTables } from '../support/data-plane-host.ts';
import { canMakeLab, Lab, type LabHost } from '../support/lab.ts';
import { Lines } from '../support/lines.ts';
import {
  ECHO_PORT,
  runningTasks,
  SERVER_COMMAND,
  statusOf,
  TestClient,
  vipOf,
} from '../support/services.ts';

const SKIP = !canMakeLab() && 'needs root';
const NODE = process.execPath;
/** Streams each way: that all of them meet in one of two threads is less likely than one in a hundred. */
const STREAMS = 8;
const STREAM_BYTES = 8 * 1024 * 1024;
const FIRST_PORT = 5000;
/** What IPv6 of an interface says of itself, and probes from a host that is not known yet. */
const EXPECTED_DROPS = ['multicast', 'nd-unknown', 'unknown-vtep'];

interface Counted {
  readonly drops: Readonly<Record<string, number>>;
  readonly framesByThread: readonly number[];
}

/** A data plane with one task, that knows the other host's. */
interface Side {
  readonly netns: string;
  readonly address: string;
  readonly counted: () => Promise<Counted>;
}

async function startSide(
  lab: Lab,
  host: LabHost,
  other: LabHost,
  addresses: readonly [own: string, other: string],
  threads: number,
): Promise<Side> {
  const netns = `${lab.prefix}task-${host.name}`;
  lab.ip([`netns add ${netns}`]);
  lab.ip(['link set lo up'], netns);
  const tables: HostTables = {
    vtep: host.address,
    vni: 4097,
    subnet: '10.9.0.0/24',
    gateway: '10.9.0.1',
    ports: [{ netns, address: addresses[0] }],
    peers: [other.address],
    endpoints: [{ address: addresses[1], vtep: other.address }],
    flowFile: `${lab.folder}/${host.name}-flows`,
    threads,
  };
  const script = new URL('../support/data-plane-host.ts', import.meta.url).pathname;
  const child = lab.spawn(host, [NODE, script, JSON.stringify(tables)]);
  const lines = new Lines(child);
  await lines.until(/^ready$/);
  const counted = async (): Promise<Counted> => {
    child.stdin?.write('\n');
    return JSON.parse(await lines.next());
  };
  return { netns, address: addresses[0], counted };
}

/** Moves bytes over a connection of its own; says what was sent and what arrived. */
async function stream(lab: Lab, from: Side, to: Side, port: number): Promise<[string, string]> {
  const script = new URL('../support/stream.ts', import.meta.url).pathname;
  const received = new Lines(lab.spawn(to.netns, [NODE, script, 'serve', `${port}`]));
  await received.until(/^listening$/);
  const send = [NODE, script, 'send', to.address, `${port}`, `${STREAM_BYTES}`];
  const { stdout } = await lab.exec(from.netns, send, 120_000);
  return [stdout.trim(), await received.next()];
}

for (const [here, there] of [
  [2, 2],
  [1, 3],
] as const) {
  test(`${here} threads talk to ${there}`, { skip: SKIP, timeout: 240_000 }, async (t) => {
    const lab = new Lab();
    t.teardown(() => lab.close());
    const [a, b] = [lab.addHost('a'), lab.addHost('b')];
    const left = await startSide(lab, a, b, ['10.9.0.11', '10.9.0.12'], here);
    const right = await startSide(lab, b, a, ['10.9.0.12', '10.9.0.11'], there);

    const ways = [...Array(STREAMS).keys()].flatMap((index) => [
      stream(lab, left, right, FIRST_PORT + index),
      stream(lab, right, left, FIRST_PORT + index),
    ]);
    for (const [sent, received] of await Promise.all(ways)) t.equal(received, sent);
    const large = ['ping', '-c', '20', '-i', '0.01', '-W', '5', '-s', '60000', right.address];
    const { stdout } = await lab.exec(left.netns, large);
    t.match(stdout, / 0% packet loss/, 'fragments come together');

    for (const side of [left, right]) {
      const { drops, framesByThread } = await side.counted();
      t.ok(
        framesByThread.every((frames) => frames > 0),
        `every thread had something to do: ${framesByThread.join()}`,
      );
      const unexpected = Object.entries(drops).filter(
        ([reason, count]) => count > 0 && !EXPECTED_DROPS.includes(reason),
      );
      t.same(unexpected, [], 'nothing else was dropped');
    }
  });
}

interface Service {
  readonly cluster: Cluster;
  readonly client: TestClient;
  readonly task: TestClient;
  /** By the id of a connection: the client that has it, and what it was told first. */
  readonly connections: ReadonlyMap<string, readonly [TestClient, string]>;
}

const PUBLISHED_ECHO = 7007;
/** By the VIP and by each node. */
const CONNECTIONS = 12;

/** Two agents that run a service on an encrypted network, and connections to it that must live on. */
async function startService(lab: Lab): Promise<Service> {
  const outside = lab.addHost('client');
  const cluster = await startCluster(lab, 2);
  const { manager, agents } = cluster;
  const create = ['service', 'create', '--runtime', 'process', '--network', 'app', '--name'];
  await manager.weft('network', 'create', '--opt', 'encrypted', 'app');
  const published = ['--replicas', '2', '-p', `${PUBLISHED_ECHO}:${ECHO_PORT}`];
  await manager.weft(...create, 'web', ...published, ...SERVER_COMMAND);
  const onManager = ['--constraint', 'node.role==manager', 'sleep', 'infinity'];
  await manager.weft(...create, 'caller', ...onManager);
  await runningTasks(cluster, 'web', 2);
  const [caller] = await runningTasks(cluster, 'caller', 1);
  const client = await TestClient.start(lab, outside);
  const task = await TestClient.start(lab, caller!.netns);
  const { vip } = await vipOf(cluster, 'web', 'app');

  const connections = new Map<string, readonly [TestClient, string]>();
  const open = async (by: TestClient, id: string, address: string, port: number) => {
    const reply = await eventually(`${id} is answered`, async () => {
      const isOpen = await by.open(id, address, port).catch(() => false);
      return isOpen ? ((await by.say(id, 'first')) ?? undefined) : undefined;
    });
    connections.set(id, [by, reply]);
  };
  for (let index = 0; index < CONNECTIONS; index += 1) {
    await open(task, `VIP ${index}`, vip, ECHO_PORT);
    for (const { host } of agents) {
      await open(client, `${host.name} ${index}`, host.address, PUBLISHED_ECHO);
    }
  }
  return { cluster, client, task, connections };
}

async function restartWith(t: Test, service: Service, agent: LabAgent, threads: number) {
  await agent.kill();
  await agent.start({ 'packet-threads': `${threads}` });
  t.match(await statusOf(agent), { dataPlane: { threads } });
  const word = `${agent.host.name} has ${threads}`;
  const lost: string[] = [];
  for (const [id, [by, first]] of service.connections) {
    const reply = await by.say(id, word);
    if (reply !== first.replace('first', word)) lost.push(`${id}: ${reply}`);
  }
  t.same(lost, [], `all connections go on with ${threads}`);
}

test('an agent is restarted with another number of packet threads', {
  skip: SKIP,
  timeout: 240_000,
}, async (t) => {
  const lab = new Lab();
  t.teardown(() => lab.close());
  const service = await startService(lab);
  for (const agent of service.cluster.agents) {
    for (const threads of [2, 1, 4, 1]) await restartWith(t, service, agent, threads);
  }
});
