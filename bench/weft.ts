import { type Cluster, LabAgent } from '../test/support/cluster.ts';
import type { Lab } from '../test/support/lab.ts';
import { type PlacedTask, runningTasks } from '../test/support/services.ts';
import type { DualStackHost, Ground, Path, Side } from './ground.ts';
import { buildPackage } from './package.ts';

/** Two agents of one cluster on an IPv4 underlay: all of weft's sides but those over IPv6 share it. */
export const agents = (ground: Ground): Promise<Cluster> =>
  startPair(ground, 'weft', ({ address }) => address);

const agentsV6 = (ground: Ground): Promise<Cluster> =>
  startPair(ground, 'weft6', ({ address6 }) => address6);

/** Two tasks on a network as it is by default, on a node each. */
export const plainTasks = async (ground: Ground): Promise<readonly [PlacedTask, PlacedTask]> =>
  placePair(await ground.once(agents), 'plain', []);

/** Task to task, through two agents. */
export const weft: Side = { name: 'weft', build: plainPath };

/** The same as a peer of the encrypted one. */
export const weftPlain: Side = { name: 'weft-plain', build: plainPath };

/** Task to task on one node, through one agent. */
export const weftLocal: Side = {
  name: 'weft',
  build: async (ground) => {
    const [from] = await ground.once(plainTasks);
    const to = await placeTask(await ground.once(agents), 'plain', 'local', from.agent);
    return await pathBetween(ground.lab, from, to, 'inet');
  },
};

/** On an encrypted network. */
export const weftEncrypted: Side = {
  name: 'weft',
  build: async (ground) => {
    const cluster = await ground.once(agents);
    const [from, to] = await placePair(cluster, 'encrypted', ['--opt', 'encrypted']);
    return await pathBetween(ground.lab, from, to, 'inet');
  },
};

/** By IPv6, over an IPv4 underlay. */
export const weftV6: Side = {
  name: 'weft',
  build: async (ground) => {
    const [from, to] = await placePair(await ground.once(agents), 'v6', ['--ipv6']);
    return await pathBetween(ground.lab, from, to, 'inet6');
  },
};

/** By IPv4, over an IPv6 underlay. */
export const weftV6Underlay: Side = {
  name: 'weft',
  build: async (ground) => {
    const [from, to] = await placePair(await ground.once(agentsV6), 'plain', []);
    return await pathBetween(ground.lab, from, to, 'inet');
  },
};

async function plainPath(ground: Ground): Promise<Path> {
  const [from, to] = await ground.once(plainTasks);
  return await pathBetween(ground.lab, from, to, 'inet');
}

/** Starts two agents whose nodes reach each other by what `advertised` gives. */
async function startPair(
  ground: Ground,
  name: string,
  advertised: (host: DualStackHost) => string,
): Promise<Cluster> {
  const { lab } = ground;
  const hosts = [ground.addHost(`${name}-a`), ground.addHost(`${name}-b`)] as const;
  const program = await ground.once(buildPackage);
  const manager = new LabAgent(lab, hosts[0], program);
  const worker = new LabAgent(lab, hosts[1], program);
  await Promise.all([manager.start(ground.agentFlags), worker.start(ground.agentFlags)]);
  await manager.weft('init', '--advertise-addr', advertised(hosts[0]));
  const { stdout } = await manager.weft('join-token', '-q', 'worker');
  const address = advertised(hosts[0]);
  const endpoint = address.includes(':') ? `[${address}]:2377` : `${address}:2377`;
  const flags = ['--advertise-addr', advertised(hosts[1])];
  await worker.weft('join', '--token', stdout.trim(), ...flags, endpoint);
  return { lab, agents: [manager, worker], manager };
}

/** Makes a network and a task on it on both nodes. @throws {Error} if weft refuses a flag */
async function placePair(
  cluster: Cluster,
  network: string,
  flags: readonly string[],
): Promise<readonly [PlacedTask, PlacedTask]> {
  await cluster.manager.weft('network', 'create', ...flags, network);
  const [first, second] = cluster.agents;
  return [
    await placeTask(cluster, network, `${network}-a`, first!),
    await placeTask(cluster, network, `${network}-b`, second!),
  ];
}

/** Makes a service of one task on `agent`'s node. */
async function placeTask(
  cluster: Cluster,
  network: string,
  service: string,
  agent: LabAgent,
): Promise<PlacedTask> {
  await cluster.manager.weft(
    ...['service', 'create', '--name', service, '--runtime', 'process', '--network', network],
    ...['--constraint', `node.hostname==${agent.host.name}`, 'sleep', 'infinity'],
  );
  const [task] = await runningTasks(cluster, service, 1);
  return task!;
}

async function pathBetween(
  lab: Lab,
  from: PlacedTask,
  to: PlacedTask,
  family: 'inet' | 'inet6',
): Promise<Path> {
  const { stdout } = await lab.exec(to.netns, ['ip', '-j', 'addr', 'show', 'dev', 'eth0']);
  const [link] = JSON.parse(stdout) as readonly {
    readonly addr_info: readonly { family: string; scope: string; local: string }[];
  }[];
  const found = link?.addr_info.find((info) => info.family === family && info.scope === 'global');
  if (found === undefined) throw new Error(`task ${to.id} has no address of family ${family}`);
  return { from: from.netns, to: to.netns, address: found.local };
}
