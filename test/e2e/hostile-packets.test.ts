// 100,000 packets that nobody should send, against running agents: each is dropped and counted, and
// nothing else happens.
import { readFileSync } from 'node:fs';
import { test } from 'tap';
import { eventually, startCluster } from '../support/cluster.ts';
import type { HostileAddresses } from '../support/hostile.ts';
import { canMakeLab, Lab, type LabHost } from '../support/lab.ts';
import type { Storm } from '../support/packet-storm.ts';
import {
  aliveMembers,
  HTTP_PORT,
  runningTasks,
  SERVER_COMMAND,
  statusOf,
  TestClient,
  vipOf,
} from '../support/services.ts';

const SEED = Number(process.env.WEFT_SEED ?? 1);
const PUBLISHED = 8080;
const MEGABYTES_4 = 4 * 1024 * 1024;
/**
 * What an agent may grow by under the storm. It is buffers and what the collector has not yet
 * looked at; a leak of each packet would be twice as much.
 */
const GROWTH_BYTES_MAX = 96 * 1024 * 1024;
const STORM = new URL('../support/packet-storm.ts', import.meta.url).pathname;

/** Drops that mutated frames from a known VTEP and from a task must have caused. */
const EXPECTED_DROPS = [
  'runt',
  'bad-ipv4',
  'bad-l4',
  'multicast',
  'unsupported-ethertype',
  'arp-malformed',
  'arp-unknown',
  'unknown-destination',
  'no-route',
  'unsupported-protocol',
  'fragment-without-first',
  'unknown-vtep',
  'not-vxlan',
  'unknown-vni',
  'not-local',
  'no-flow',
];

function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) * 1024;
}

test(`hostile packets, seed ${SEED}`, {
  skip: !canMakeLab() && 'needs root',
  timeout: 240_000,
}, async (t) => {
  const lab = new Lab();
  t.teardown(() => lab.close());
  const outside = lab.addHost('client');
  // In plaintext, so that gossip's decoders get the storm.
  const cluster = await startCluster(lab, 3, ['--gossip-encryption', 'off']);
  const { manager, agents } = cluster;
  const [, neighbour] = agents;
  await manager.weft('network', 'create', 'app');
  await manager.weft(
    ...['service', 'create', '--name', 'web', '--runtime', 'process', '--network', 'app'],
    ...['--replicas', '3', '-p', `${PUBLISHED}:${HTTP_PORT}`, ...SERVER_COMMAND],
  );
  const tasks = await runningTasks(cluster, 'web', 3);
  const target = tasks.find(({ agent }) => agent === manager)!;
  const remote = tasks.find(({ agent }) => agent === neighbour)!;
  const { vip, gateway } = await vipOf(cluster, 'web', 'app');
  const network = (await manager.api.json('GET', '/networks/app')) as {
    readonly Options: Readonly<Record<string, string>>;
  };
  const vni = Number(network.Options['com.docker.network.driver.overlay.vxlanid_list']);
  const client = await TestClient.start(lab, outside);
  const inTask = await TestClient.start(lab, remote.netns);
  const urls = agents.map(({ host }) => `http://${host.address}:${PUBLISHED}`);
  await eventually('every host serves', async () => {
    const replies = await client.get(urls, 9);
    return replies.every(({ ok }) => ok) || undefined;
  });

  const metrics = async (): Promise<ReadonlyMap<string, number>> => {
    const { stdout } = await lab.exec(manager.host, [
      process.execPath,
      '-e',
      `process.stdout.write(await (await fetch('http://127.0.0.1:9477/metrics')).text())`,
    ]);
    const samples = [...stdout.matchAll(/^(weft_\S+) (\S+)$/gm)];
    return new Map(samples.map(([, name = '', value]) => [name, Number(value)]));
  };
  let seed = SEED;
  const storm = async (from: string | LabHost, what: Omit<Storm, 'seed'>): Promise<number> => {
    const argument = JSON.stringify({ ...what, seed: seed++ });
    const command = [process.execPath, STORM, argument];
    return Number((await lab.exec(from, command, 120_000)).stdout);
  };
  const drops = async () => (await statusOf(manager)).dataPlane?.drops ?? {};
  const to = manager.host.address;
  const fromRemote: HostileAddresses = {
    sender: remote.address,
    vip,
    gateway,
    task: target.address,
  };
  const fromTask: HostileAddresses = { sender: target.address, vip, gateway, task: remote.address };
  const pid = manager.pid;
  const before = { drops: await drops(), metrics: await metrics(), bytes: residentBytes(pid) };

  const vxlan = { kind: 'vxlan', to, vni, addresses: fromRemote } as const;
  const known = await storm(neighbour!.host, { ...vxlan, count: 45_000 } as Storm);
  const strange = await storm(outside, { ...vxlan, count: 10_000 } as Storm);
  const frames = { kind: 'frames', device: 'eth0', addresses: fromTask, count: 40_000 } as const;
  const raw = await storm(target.netns, frames as unknown as Storm);
  const gossip = await storm(neighbour!.host, { kind: 'gossip', to, count: 15_000 } as Storm);
  const foreign = await storm(outside, { kind: 'gossip', to, count: 5_000 } as Storm);
  const ports = [7946, 2377];
  const streams = await storm(outside, { kind: 'tcp', to, ports, count: 400 } as unknown as Storm);
  const sent = known + strange + raw + gossip + foreign + streams;
  t.ok(sent >= 100_000, `${sent} packets were sent`);
  t.comment(JSON.stringify({ known, strange, raw, gossip, foreign, streams }));

  t.ok(manager.isRunning, 'the agent is alive');
  t.equal(manager.pid, pid, 'as the same process');
  const after = { drops: await drops(), metrics: await metrics() };
  const grew = (reason: string): number => (after.drops[reason] ?? 0) - (before.drops[reason] ?? 0);
  t.comment(JSON.stringify(after.drops));
  t.same(
    EXPECTED_DROPS.filter((reason) => grew(reason) === 0),
    [],
    'drops are counted by reason',
  );
  t.ok(grew('unknown-vtep') >= strange * 0.9, 'no packet of a stranger came further');
  const faults = (from: ReadonlyMap<string, number>): number =>
    [...from].reduce(
      (sum, [name, value]) => sum + (name.startsWith('weft_gossip_faults') ? value : 0),
      0,
    );
  t.ok(faults(after.metrics) - faults(before.metrics) > 5_000, 'gossip faults are counted');

  const everybody = agents.length;
  for (const agent of agents) {
    const members = await eventually('no member is lost or added', async () => {
      const alive = await aliveMembers(agent);
      return alive.length === everybody ? alive : undefined;
    });
    t.same(members, await aliveMembers(manager));
  }
  const nodes = await manager.list('node', 'ls');
  t.same(
    nodes.map(({ Status }) => Status),
    ['Ready', 'Ready', 'Ready'],
  );
  t.same(
    (await runningTasks(cluster, 'web', 3)).map(({ id }) => id),
    tasks.map(({ id }) => id),
  );
  const published = await client.get(urls, 60);
  t.same(
    published.filter(({ ok }) => !ok),
    [],
    'published ports answer',
  );
  const internal = await inTask.get([`http://${vip}`], 60);
  t.same(
    internal.filter(({ ok }) => !ok),
    [],
    'the VIP answers',
  );
  const up = await inTask.upload(`http://${target.address}`, MEGABYTES_4);
  t.equal(up.received, up.sent, 'bytes arrive as they were sent');
  const growth = residentBytes(pid) - before.bytes;
  t.ok(growth < GROWTH_BYTES_MAX, `the agent grew by ${(growth / 2 ** 20).toFixed(1)} MiB`);
});
