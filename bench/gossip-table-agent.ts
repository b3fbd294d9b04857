import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { LabAgent } from '../test/support/cluster.ts';
import { Lab } from '../test/support/lab.ts';
import { Lines } from '../test/support/lines.ts';
import { runningTasks, statusOf, vipOf } from '../test/support/services.ts';
import { OWNERS } from './gossip-table-load.ts';
import { Ground } from './ground.ts';
import { pingTimesMs, untilReachable } from './ping.ts';
import { type Row, row } from './rows.ts';
import { agents } from './weft.ts';

const PER_NODE = 1_000;
const SUBNET = '10.64.0.0/14';
/** Addresses below it are the tasks' of the agents. */
const FIRST_ADDRESS = '10.65.0.0';
const POLL_MS = 100;
const REST_MS = 15_000;
const APPLIED_MS_MAX = 120_000;
const PING_COUNT = 3_000;
const PING_EVERY_SECONDS = 0.01;

/** Names of the rows, and of what they are beside. */
export const AGENT_PEERS: readonly string[] = ['before', 'last'];
export const AGENT_ROWS: readonly string[] = [
  'agent-100000-rss',
  'agent-100000-applied',
  'agent-100000-ping-max',
  'agent-100000-suspected',
];

/**
 * Two agents with a task each, when 100 nodes come that announce 100,000 endpoints on the tasks' network:
 * memory of an agent, how long until the data planes of both have all, round trips between the tasks
 * meanwhile, and how often one agent was seen to suspect the other.
 */
export async function agentRows(): Promise<Row[]> {
  const lab = new Lab();
  try {
    return await measure(new Ground(lab));
  } finally {
    await lab.close();
  }
}

async function measure(ground: Ground): Promise<Row[]> {
  const { lab } = ground;
  const cluster = await ground.once(agents);
  const { manager } = cluster;
  const [first, second] = cluster.agents;
  if (first === undefined || second === undefined) throw new RangeError('there are two agents');
  await manager.weft('network', 'create', '--subnet', SUBNET, 'large');
  const netns: string[] = [];
  for (const agent of [first, second]) {
    const service = `on-${agent.host.name}`;
    await manager.weft(
      ...['service', 'create', '--name', service, '--runtime', 'process', '--network', 'large'],
      ...['--constraint', `node.hostname==${agent.host.name}`, 'sleep', 'infinity'],
    );
    const [task] = await runningTasks(cluster, service, 1);
    netns.push(task?.netns ?? '');
  }
  const { vip } = await vipOf(cluster, `on-${second.host.name}`, 'large');
  const path = { from: netns[0] ?? '', to: netns[1] ?? '', address: vip };
  await untilReachable(lab, path, 15);
  const feeder = await startFeeder(ground, manager);
  await delay(REST_MS);
  const before = residentMegabytes(first);
  const quiet = await pingTimesMs(lab, path, PING_COUNT / 3, PING_EVERY_SECONDS);
  const pings = pingTimesMs(lab, path, PING_COUNT, PING_EVERY_SECONDS);
  const startMs = performance.now();
  feeder();
  const applied = await untilApplied([first, second], startMs);
  const times = await pings;
  const suspected = await suspectedFor([first, second], REST_MS);
  return [
    row('agent-100000-rss', 'MB', [residentMegabytes(first)], 'before', [before]),
    row('agent-100000-applied', 's', [applied.firstMs / 1e3], 'last', [applied.lastMs / 1e3]),
    row('agent-100000-ping-max', 'ms', [times.at(-1) ?? 0], 'before', [quiet.at(-1) ?? 0]),
    row('agent-100000-suspected', 'looks', [applied.suspected + suspected], 'before', [0]),
  ];
}

/** @returns what lets it join */
async function startFeeder(ground: Ground, manager: LabAgent): Promise<() => void> {
  const { lab } = ground;
  const host = lab.addHost('feed');
  const keys = await manager.list('gossip', 'key', 'list', '--show-keys');
  const key = keys.find(({ State }) => State === 'primary')?.Key ?? '';
  const networks = await manager.list('network', 'ls', '--no-trunc');
  const id = networks.find(({ Name }) => Name === 'large')?.ID ?? '';
  const script = new URL('gossip-table-feed.ts', import.meta.url).pathname;
  const args = [host.address, manager.host.address, key, id, FIRST_ADDRESS, String(PER_NODE)];
  const child = lab.spawn(host, [process.execPath, script, ...args]);
  child.stderr?.pipe(process.stderr);
  await new Lines(child).next();
  return () => child.stdin?.write('join\n');
}

/** Milliseconds until the first data plane, and the last one, has all; and looks at a suspected agent. */
async function untilApplied(agents: readonly LabAgent[], startMs: number) {
  const have = new Map<LabAgent, number>();
  let suspected = 0;
  while (have.size < agents.length) {
    if (performance.now() - startMs > APPLIED_MS_MAX) throw new Error('The endpoints did not come');
    for (const agent of agents) {
      const status = await statusOf(agent);
      suspected += suspects(status, agents);
      const count = status.dataPlane?.endpoints ?? 0;
      if (count >= OWNERS * PER_NODE && !have.has(agent)) have.set(agent, performance.now());
    }
    await delay(POLL_MS);
  }
  const times = [...have.values()].map((atMs) => atMs - startMs);
  return { firstMs: Math.min(...times), lastMs: Math.max(...times), suspected };
}

async function suspectedFor(agents: readonly LabAgent[], durationMs: number): Promise<number> {
  const endMs = performance.now() + durationMs;
  let suspected = 0;
  while (performance.now() < endMs) {
    for (const agent of agents) suspected += suspects(await statusOf(agent), agents);
    await delay(5 * POLL_MS);
  }
  return suspected;
}

/** Agents that are not alive to another one. */
function suspects(
  { gossip }: Awaited<ReturnType<typeof statusOf>>,
  agents: readonly LabAgent[],
): number {
  const addresses = new Set(agents.map(({ host }) => host.address));
  const members = gossip?.members.filter(({ address }) => addresses.has(address)) ?? [];
  return members.filter(({ state }) => state !== 'alive').length;
}

/** proc_pid_status(5). */
function residentMegabytes({ pid }: LabAgent): number {
  const [, kibibytes] =
    /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return (Number(kibibytes) * 1_024) / 1e6;
}
