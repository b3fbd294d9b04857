// What a crash of an agent and a cut of the network cost: tasks and connections outlive the first,
// requests the second.
import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { type Test, test } from 'tap';
import { type Cluster, eventually, type LabAgent, startCluster } from '../support/cluster.ts';
import { canMakeLab, Lab } from '../support/lab.ts';
import {
  aliveMembers,
  ECHO_PORT,
  HTTP_PORT,
  type PlacedTask,
  runningTasks,
  SERVER_COMMAND,
  statusOf,
  TestClient,
  tasksOf,
  UDP_PORT,
  vipOf,
} from '../support/services.ts';

const PUBLISHED = 8080;
const PUBLISHED_ECHO = 7007;
const PUBLISHED_UDP = 5353;
/** Connections by each way: with three replicas, one of them is almost surely on the victim. */
const CONNECTIONS = 8;
/** Three replicas and one caller. */
const ENDPOINTS = 4;

interface Setup {
  readonly cluster: Cluster;
  readonly client: TestClient;
  readonly task: TestClient;
  readonly vip: string;
  readonly urls: readonly string[];
}

async function setUp(lab: Lab): Promise<Setup> {
  const outside = lab.addHost('client');
  const cluster = await startCluster(lab, 3);
  const { manager, agents } = cluster;
  const client = await TestClient.start(lab, outside);
  await manager.weft('network', 'create', 'app');
  await manager.weft(
    ...['service', 'create', '--name', 'web', '--runtime', 'process', '--network', 'app'],
    ...[
      '--replicas',
      '3',
      '-p',
      `${PUBLISHED}:${HTTP_PORT}`,
      '-p',
      `${PUBLISHED_ECHO}:${ECHO_PORT}`,
      '-p',
      `${PUBLISHED_UDP}:${UDP_PORT}/udp`,
    ],
    ...SERVER_COMMAND,
  );
  await manager.weft(
    ...['service', 'create', '--name', 'caller', '--runtime', 'process', '--network', 'app'],
    ...['--constraint', 'node.role==manager', 'sleep', 'infinity'],
  );
  await runningTasks(cluster, 'web', 3);
  const [caller] = await runningTasks(cluster, 'caller', 1);
  const task = await TestClient.start(lab, caller!.netns);
  const urls = agents.map(({ host }) => `http://${host.address}:${PUBLISHED}`);
  await eventually('every host serves', async () => {
    const replies = await client.get(urls, 9);
    return replies.every(({ ok }) => ok) || undefined;
  });
  const { vip } = await vipOf(cluster, 'web', 'app');
  return { cluster, client, task, vip, urls };
}

/** What must be the same after a restart: namespaces, processes, interfaces, addresses, tables. */
async function inventory({ cluster }: Setup, lab: Lab) {
  const tasks = await tasksOf(cluster, 'web');
  const addressing = async ({ netns }: PlacedTask) => {
    const { stdout } = await lab.exec(netns, ['ip', '-j', 'addr']);
    const links = JSON.parse(stdout) as {
      readonly ifname: string;
      readonly ifindex: number;
      readonly address: string;
      readonly addr_info: readonly { readonly local: string }[];
    }[];
    return links.map(({ ifname, ifindex, address, addr_info }) => {
      const local = addr_info.filter((info) => !info.local.includes(':'));
      return [ifname, ifindex, address, local.map((info) => info.local).join()];
    });
  };
  return {
    namespaces: readdirSync('/run/netns')
      .filter((name) => name.startsWith(lab.prefix))
      .sort(),
    tasks: tasks.map(({ id, nodeId, pid, address }) => ({ id, nodeId, pid, address })),
    inNamespace: tasks.map(({ pid }) => readlinkSync(`/proc/${pid}/ns/net`)),
    addressing: await Promise.all(tasks.map(addressing)),
    own: (await Promise.all(cluster.agents.map(statusOf))).map((status) => ({
      ports: status.dataPlane?.ports,
      running: status.tasks?.filter(({ state }) => state === 'running').length,
    })),
    tables: await agreed(cluster.agents),
  };
}

/** What all nodes must agree on: the size of every table, and how many members are alive. */
async function agreed(agents: readonly LabAgent[]) {
  const statuses = await Promise.all(agents.map(statusOf));
  return statuses.map(({ dataPlane, gossip }) => ({
    vteps: dataPlane?.vteps,
    networks: dataPlane?.networks,
    endpoints: dataPlane?.endpoints,
    services: dataPlane?.services,
    alive: gossip?.members.filter(({ state }) => state === 'alive').length,
  }));
}

/** Waits until every agent knows all others, alive, and all endpoints. */
async function settled({ agents }: Cluster): Promise<void> {
  await eventually('every agent knows all', async () => {
    const statuses = await Promise.all(agents.map(statusOf));
    const members = await Promise.all(agents.map(aliveMembers));
    const knowsAll =
      statuses.every(({ dataPlane }) => dataPlane?.endpoints === ENDPOINTS) &&
      members.every((alive) => alive.length === agents.length);
    return knowsAll || undefined;
  });
}

/** Opens connections by every ingress and by the VIP; says who answers on each. */
async function openConnections(
  { cluster, client, task, vip }: Setup,
  name: string,
): Promise<ReadonlyMap<string, string>> {
  const opened = new Map<string, string>();
  for (let index = 0; index < CONNECTIONS; index += 1) {
    for (const { host } of cluster.agents) {
      const id = `${name} by ${host.name}, ${index}`;
      await client.open(id, host.address, PUBLISHED_ECHO);
      opened.set(id, String(await client.say(id, 'first')));
    }
    const id = `${name} by VIP, ${index}`;
    await task.open(id, vip, ECHO_PORT);
    opened.set(id, String(await task.say(id, 'first')));
  }
  return opened;
}

/** @param how - `kill` as a crash, `stop` as an upgrade does. */
async function restart(
  t: Test,
  lab: Lab,
  setup: Setup,
  victim: LabAgent,
  how: 'kill' | 'stop' = 'kill',
): Promise<void> {
  const { cluster, client, task, urls } = setup;
  await settled(cluster);
  // What happened before may still be a suspicion somewhere: that is no state to come back to.
  const before = await eventually('all nodes see each other alive', async () => {
    const found = await inventory(setup, lab);
    return found.tables.every(({ alive }) => alive === found.tables.length) ? found : undefined;
  });
  const connections = await openConnections(setup, victim.host.name);
  const own = (await tasksOf(cluster, 'web')).filter(({ agent }) => agent === victim);
  t.ok(own.length > 0, 'the victim has a replica');
  const onVictim = [...connections.values()].filter((reply) =>
    own.some(({ slot }) => reply.startsWith(`web.${slot}.`)),
  );
  t.ok(onVictim.length > 0, 'which serves some of the connections');

  await client.beat('published', victim.host.address, PUBLISHED_UDP);
  await task.beat('VIP', setup.vip, UDP_PORT);
  await victim[how]();
  const url = urls[cluster.agents.indexOf(victim)]!;
  const [resumedMs] = await Promise.all([client.firstAnswer(url), victim.start()]);
  t.comment(`requests succeed ${Math.round(resumedMs)} ms after the agent was started anew`);
  for (const [name, from] of [['published', client] as const, ['VIP', task] as const]) {
    const { longestMs, sent, answers } = await from.endBeat(name);
    t.equal(answers, sent, `${name}: what arrived meanwhile has waited, not one datagram is lost`);
    t.comment(`${name}: no answer for ${Math.round(longestMs)} ms at most`);
  }

  const lost: string[] = [];
  for (const [id, first] of connections) {
    const from = id.includes('by VIP') ? task : client;
    const reply = await from.say(id, 'second');
    if (reply !== first.replace('first', 'second')) lost.push(`${id}: ${reply}`);
  }
  t.same(lost, [], 'all connections go on with the task they were with');
  const replies = await client.get(urls, 60);
  t.same(
    replies.filter(({ ok }) => !ok),
    [],
    'every host serves',
  );
  const after = await eventually('everything is as it was', async () => {
    const found = await inventory(setup, lab);
    return JSON.stringify(found) === JSON.stringify(before) ? found : undefined;
  }).catch(() => inventory(setup, lab));
  t.same(after, before, 'same namespaces, processes, interfaces, addresses and tables');
}

test('crashes and cuts', { skip: !canMakeLab() && 'needs root', timeout: 240_000 }, async (t) => {
  const lab = new Lab();
  t.teardown(() => lab.close());
  const setup = await setUp(lab);
  const { cluster, client, urls } = setup;
  const [manager, worker, third] = cluster.agents;

  t.test('a worker’s agent is killed', (t) => restart(t, lab, setup, worker!));
  t.test('the manager’s agent is killed', (t) => restart(t, lab, setup, manager!));
  t.test('an agent is stopped for a new one', (t) => restart(t, lab, setup, worker!, 'stop'));

  t.test('a node is cut off and comes back', async (t) => {
    await settled(cluster);
    const before = await agreed(cluster.agents);
    const cut = (await tasksOf(cluster, 'web')).filter(({ agent }) => agent === third);
    t.ok(cut.length > 0, 'it has tasks');
    lab.setLink(third!.host, false);
    const here = urls.slice(0, 2);
    const during = await client.get(here, 40);
    t.same(
      during.filter(({ ok }) => !ok),
      [],
      'requests elsewhere succeed all the time',
    );
    await eventually('it and its endpoints vanish elsewhere', async () => {
      const statuses = await Promise.all([manager!, worker!].map(statusOf));
      const members = await Promise.all([manager!, worker!].map(aliveMembers));
      const isGone =
        statuses.every(({ dataPlane }) => dataPlane?.vteps === 1) &&
        members.every((alive) => alive.length === 2);
      return isGone || undefined;
    });
    const replaced = await eventually(
      'its tasks are replaced',
      async () => {
        const tasks = await tasksOf(cluster, 'web');
        const running = tasks.filter(({ state, agent }) => state === 'running' && agent !== third);
        return running.length === 3 ? running : undefined;
      },
      60_000,
    );
    const addresses = replaced.map(({ address }) => address);
    t.equal(new Set(addresses).size, 3, 'no address is given twice');
    t.same(
      cut.filter(({ address }) => addresses.includes(address)),
      [],
      'not even that of a task that nobody could ask',
    );
    for (const { pid } of cut) t.ok(existsSync(`/proc/${pid}`), 'the cut node goes on meanwhile');
    const replies = await client.get(here, 40);
    t.same(
      replies.filter(({ ok }) => !ok),
      [],
    );

    lab.setLink(third!.host, true);
    await eventually('the old tasks are stopped', async () => {
      return cut.every(({ netns }) => !existsSync(`/run/netns/${netns}`)) || undefined;
    });
    const after = await eventually('all tables are as they were', async () => {
      const found = await agreed(cluster.agents);
      return JSON.stringify(found) === JSON.stringify(before) ? found : undefined;
    }).catch(() => agreed(cluster.agents));
    t.same(after, before, 'all nodes know again what they knew');
    const nodes = await cluster.manager.list('node', 'ls');
    t.same(
      nodes.map(({ Status }) => Status),
      ['Ready', 'Ready', 'Ready'],
    );
    const all = await client.get(urls, 60);
    t.same(
      all.filter(({ ok }) => !ok),
      [],
      'every host serves again',
    );
  });
});
