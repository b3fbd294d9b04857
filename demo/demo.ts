// `npm run demo [-- --keep] [-- --json]`: three hosts, one agent each, and everything that weft is for.

import { parseArgs } from 'node:util';
import {
  type Cluster,
  eventually,
  type LabAgent,
  startCluster,
  taskNetns,
} from '../test/support/cluster.ts';
import { canMakeLab, Lab, type LabHost } from '../test/support/lab.ts';
import { Lines } from '../test/support/lines.ts';

const REPLICAS = 3;
const REQUESTS = 300;
const PUBLISHED_PORT = 8080;
const GIGABYTE = 1_000_000_000;
/** How long requests go on after the host was cut: longer than any failover may take. */
const AFTER_CUT_MS = 12_000;
const NODE = process.execPath;
const SERVER = new URL('./server.ts', import.meta.url).pathname;
const CLIENT = new URL('./client.ts', import.meta.url).pathname;

interface Result {
  readonly atMs: number;
  readonly tookMs: number;
  readonly ok: boolean;
  readonly task?: string;
  readonly client?: string;
}

/** What the demo found; the one line of `--json`. */
interface Report {
  readonly nodes: number;
  readonly replicas: number;
  readonly publishedRequests: number;
  readonly publishedFailed: number;
  readonly vipRequests: number;
  readonly vipFailed: number;
  readonly perReplica: Readonly<Record<string, number>>;
  readonly clientAddressesSeen: readonly string[];
  readonly gbitPerSecond: number;
  readonly failoverMs: number;
  readonly seconds: number;
}

const { values: flags } = parseArgs({
  options: { keep: { type: 'boolean', default: false }, json: { type: 'boolean', default: false } },
});
/** With --json standard output is for the report alone. */
const say = flags.json ? console.error : console.log;

async function requests(
  lab: Lab,
  from: string | LabHost,
  urls: readonly string[],
): Promise<readonly Result[]> {
  const command = [NODE, CLIENT, '--total', String(REQUESTS), ...urls];
  return JSON.parse((await lab.exec(from, command, 120_000)).stdout) as Result[];
}

/** The task of `service` that runs on `agent`'s node, and its network namespace. */
async function taskOn(
  cluster: Cluster,
  agent: LabAgent,
  service: string,
): Promise<{ readonly netns: string; readonly address: string }> {
  const tasks = (await cluster.manager.api.json('GET', '/tasks', {
    query: { filters: JSON.stringify({ service: [service], 'desired-state': ['running'] }) },
  })) as readonly {
    readonly ID: string;
    readonly NodeID: string;
    readonly NetworksAttachments: readonly { readonly Addresses: readonly string[] }[];
  }[];
  const nodes = await cluster.manager.list('node', 'ls');
  const nodeId = nodes.find((node) => node.Hostname === agent.host.name)?.ID ?? '';
  const task = tasks.find(({ NodeID }) => NodeID.startsWith(nodeId));
  if (task === undefined) throw new Error(`No task of ${service} runs on ${agent.host.name}`);
  const [address = ''] = task.NetworksAttachments[0]?.Addresses ?? [];
  return {
    netns: taskNetns(cluster.lab, agent, task.ID),
    address: address.replace(/\/.*$/, ''),
  };
}

async function vipOf({ manager }: Cluster, service: string): Promise<string> {
  const { Endpoint } = (await manager.api.json('GET', `/services/${service}`)) as {
    readonly Endpoint: { readonly VirtualIPs: readonly { readonly Addr: string }[] };
  };
  return Endpoint.VirtualIPs[0]?.Addr.replace(/\/.*$/, '') ?? '';
}

/** Moves a gigabyte by TCP between tasks on two hosts. */
async function moveGigabyte(lab: Lab, cluster: Cluster): Promise<number> {
  const [, second, third] = cluster.agents;
  if (second === undefined || third === undefined) throw new Error('Three hosts are needed');
  const from = await taskOn(cluster, second, 'web');
  const to = await taskOn(cluster, third, 'web');
  const server = new Lines(lab.spawn(to.netns, ['iperf3', '-s', '-1', '--forceflush']));
  await server.until(/Server listening/);
  const command = ['iperf3', '-c', to.address, '-n', String(GIGABYTE), '-J'];
  const { end } = JSON.parse((await lab.exec(from.netns, command)).stdout) as {
    readonly end: { readonly sum_received: { readonly bits_per_second: number } };
  };
  return end.sum_received.bits_per_second / 1e9;
}

/**
 * Cuts a host off and kills its agent while requests go on at the others.
 *
 * @returns milliseconds from the cut until every later request was answered
 */
async function failover(
  lab: Lab,
  client: LabHost,
  victim: LabAgent,
  urls: readonly string[],
): Promise<{ readonly failoverMs: number; readonly failed: number; readonly total: number }> {
  const child = lab.spawn(client, [NODE, CLIENT, '--until-stdin-ends', ...urls]);
  const lines = new Lines(child);
  await new Promise((resolve) => setTimeout(resolve, 500));
  const cutAtMs = Date.now();
  lab.setLink(victim.host, false);
  await victim.kill();
  await new Promise((resolve) => setTimeout(resolve, AFTER_CUT_MS));
  child.stdin?.end();
  const results = JSON.parse(await lines.next()) as Result[];
  // A request that had to wait for its second SYN is over as late as its answer came.
  const slow = results.filter(({ ok, tookMs }) => !ok || tookMs > 500);
  const lastMs = Math.max(cutAtMs, ...slow.map(({ atMs, tookMs }) => atMs + tookMs));
  return {
    failoverMs: lastMs - cutAtMs,
    failed: results.filter(({ ok }) => !ok).length,
    total: results.length,
  };
}

async function createServices(cluster: Cluster): Promise<void> {
  const { manager } = cluster;
  await manager.weft('network', 'create', '-d', 'overlay', '--subnet', '10.5.0.0/24', 'app');
  const process = ['--runtime', 'process', '--network', 'app'];
  const web = ['--name', 'web', '--replicas', String(REPLICAS), '-p', `${PUBLISHED_PORT}:80`];
  await manager.weft('service', 'create', '-q', ...web, ...process, '--', NODE, SERVER, '80');
  const caller = ['--name', 'caller', '--constraint', 'node.role==manager'];
  await manager.weft('service', 'create', '-q', ...caller, ...process, '--', 'sleep', 'infinity');
}

/** Waits until a service answers on the port of every host. */
async function untilServed(lab: Lab, client: LabHost, urls: readonly string[]): Promise<void> {
  for (const url of urls) {
    await eventually(`${url} answers`, async () =>
      lab.exec(client, ['curl', '-sf', '-m', '2', url]).catch(() => undefined),
    );
  }
}

async function demo(lab: Lab): Promise<Report> {
  const startedAt = performance.now();
  say('Making three hosts with an agent each, and a client outside …');
  const client = lab.addHost('client');
  const cluster = await startCluster(lab, 3);
  say('Creating network "app" and service "web" of three replicas, published on port 8080 …');
  await createServices(cluster);
  const urls = cluster.agents.map(({ host }) => `http://${host.address}:${PUBLISHED_PORT}/`);
  await untilServed(lab, client, urls);

  say(`Sending ${REQUESTS} requests from the client (${client.address}) to the three hosts …`);
  const published = await requests(lab, client, urls);
  const vip = await vipOf(cluster, 'web');
  say(`Sending ${REQUESTS} requests from a fourth task to the VIP ${vip} …`);
  const caller = await taskOn(cluster, cluster.manager, 'caller');
  const internal = await requests(lab, caller.netns, [`http://${vip}/`]);
  say('Moving 1 GB by TCP between tasks on two hosts …');
  const gbitPerSecond = await moveGigabyte(lab, cluster);

  const [first, second, victim] = cluster.agents;
  if (victim === undefined) throw new Error('Three hosts are needed');
  say(`Killing ${victim.host.name}, with its agent and its replica, under requests …`);
  const cut = await failover(lab, client, victim, urls.slice(0, 2));
  say(
    `  ${cut.total} requests to ${first?.host.name} and ${second?.host.name} meanwhile: ${cut.failed} failed, normal again after ${cut.failoverMs} ms`,
  );
  if (flags.keep) {
    lab.setLink(victim.host, true);
    await victim.start();
  }
  const perReplica = Object.groupBy([...published, ...internal], ({ task }) => task ?? 'none');
  return {
    nodes: cluster.agents.length,
    replicas: REPLICAS,
    publishedRequests: published.length,
    publishedFailed: published.filter(({ ok }) => !ok).length,
    vipRequests: internal.length,
    vipFailed: internal.filter(({ ok }) => !ok).length,
    perReplica: Object.fromEntries(
      Object.entries(perReplica).map(([task, answered]) => [task, answered?.length ?? 0]),
    ),
    clientAddressesSeen: [...new Set(published.map((result) => result.client ?? 'none'))],
    gbitPerSecond: Number(gbitPerSecond.toFixed(2)),
    failoverMs: cut.failoverMs,
    seconds: Number(((performance.now() - startedAt) / 1_000).toFixed(1)),
  };
}

function printTable(report: Report): void {
  const replicas = Object.entries(report.perReplica).map(([task, count]) => `${task} ${count}`);
  const lines: readonly (readonly [string, string])[] = [
    ['hosts', String(report.nodes)],
    ['requests to published port', `${report.publishedRequests}, ${report.publishedFailed} failed`],
    ['requests to VIP', `${report.vipRequests}, ${report.vipFailed} failed`],
    ...replicas.map((text, index): [string, string] => [index === 0 ? 'answered by' : '', text]),
    ['client address that the servers saw', report.clientAddressesSeen.join(', ')],
    ['1 GB between hosts', `${report.gbitPerSecond} Gbit/s`],
    ['host killed, normal again after', `${report.failoverMs} ms`],
    ['whole demo', `${report.seconds} s`],
  ];
  say('');
  for (const [name, text] of lines) say(`${name.padEnd(36)}  ${text}`);
}

/** Leaves the lab running and says how to look around. */
async function keep(lab: Lab): Promise<void> {
  const [, ...hosts] = lab.hosts;
  const weft = new URL('../bin/weft.mjs', import.meta.url).pathname;
  const socket = `${lab.folder}/${hosts[0]?.name}-run/weft.sock`;
  say('\nThe lab runs on until Ctrl-C. Look around:');
  say(`  export WEFT_HOST=unix://${socket}`);
  for (const command of ['status', 'node ls', 'service ps web', 'service logs web']) {
    say(`  ${weft} ${command}`);
  }
  say(`  ip netns exec ${lab.hosts[0]?.netns} curl http://${hosts[0]?.address}:${PUBLISHED_PORT}/`);
  for (const host of hosts) say(`  ip netns exec ${host.netns} nft list table inet weft`);
  // The lab cleans up when a signal ends the process.
  setInterval(() => {}, 60_000);
  await new Promise(() => {});
}

if (!canMakeLab()) {
  console.error('Cannot run the demo: its hosts are network namespaces, which need root');
  process.exit(1);
}
const lab = new Lab();
try {
  const report = await demo(lab);
  printTable(report);
  if (flags.json) console.log(JSON.stringify(report));
  if (flags.keep) await keep(lab);
} finally {
  say('Cleaning up …');
  await lab.close();
}
