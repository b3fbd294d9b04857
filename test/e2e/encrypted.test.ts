// An encrypted network between two hosts, watched on the wire by the hosts' own packet filters.
import { test } from 'tap';
import { eventually, type LabAgent, startCluster } from '../support/cluster.ts';
import { canMakeLab, Lab, type LabHost } from '../support/lab.ts';
import {
  HTTP_PORT,
  type PlacedTask,
  runningTasks,
  SERVER_COMMAND,
  statusOf,
  TestClient,
  UDP_PORT,
  vipOf,
} from '../support/services.ts';

const PUBLISHED = 8080;
const MEGABYTES_20 = 20 * 1024 * 1024;
const OVERLAY_MTU = 1500 - 50 - 32;
const DATAGRAM_BYTES = [1, OVERLAY_MTU - 28, OVERLAY_MTU - 27, 9_000, 60_000];

/** Counts what leaves for VXLAN ports by its first byte, and lets a test stop handshakes on their way in. */
const WATCH = `table inet watch {
  counter plain {}
  counter sealed {}
  counter handshakes {}
  chain stop {}
  chain out {
    type filter hook output priority 0;
    udp dport 4789 @th,64,8 8 counter name plain
    udp dport 4789 @th,64,8 4 counter name sealed
    udp dport 4789 @th,64,8 1-3 counter name handshakes
  }
  chain in {
    type filter hook input priority 0;
    udp dport 4789 @th,64,8 1-3 jump stop
  }
}`;

/** Bytes that left a host, by what they were. */
async function seen(lab: Lab, host: LabHost): Promise<Record<string, number>> {
  const { stdout } = await lab.exec(host, [
    'nft',
    '-j',
    'list',
    'counters',
    'table',
    'inet',
    'watch',
  ]);
  const { nftables } = JSON.parse(stdout) as {
    nftables: { counter?: { name: string; bytes: number } }[];
  };
  return Object.fromEntries(
    nftables.flatMap(({ counter }) => (counter ? [[counter.name, counter.bytes]] : [])),
  );
}

async function ping(lab: Lab, from: PlacedTask, address: string, count = 3): Promise<number> {
  const command = `ping -q -c ${count} -i 0.2 -W 1 ${address} || true`;
  const { stdout } = await lab.exec(from.netns, ['sh', '-c', command]);
  return Number(/(\d+) received/.exec(stdout)?.[1]);
}

async function sessionStates(agent: LabAgent): Promise<readonly string[]> {
  return ((await statusOf(agent)).sessions ?? []).map(({ state }) => state);
}

test('an encrypted network', {
  skip: !canMakeLab() && 'needs root',
  timeout: 240_000,
}, async (t) => {
  const lab = new Lab();
  t.teardown(() => lab.close());
  const outside = lab.addHost('client');
  const cluster = await startCluster(lab, 2);
  const { manager, agents } = cluster;
  const [first, second] = agents as [LabAgent, LabAgent];
  const hosts = [first.host, second.host];
  for (const host of hosts) await lab.exec(host, ['nft', WATCH]);

  await manager.weft('network', 'create', '--opt', 'encrypted', '--subnet', '10.77.0.0/24', 'app');
  await manager.weft(
    ...['service', 'create', '--name', 'web', '--runtime', 'process', '--network', 'app'],
    ...['--replicas', '2', '-p', `${PUBLISHED}:${HTTP_PORT}`, ...SERVER_COMMAND],
  );
  const tasks = await runningTasks(cluster, 'web', 2);
  const here = tasks.find(({ agent }) => agent === first) as PlacedTask;
  const there = tasks.find(({ agent }) => agent === second) as PlacedTask;
  const { vip } = await vipOf(cluster, 'web', 'app');
  const [task, client] = await Promise.all([
    TestClient.start(lab, here.netns),
    TestClient.start(lab, outside),
  ]);
  const urls = hosts.map((host) => `http://${host.address}:${PUBLISHED}`);
  await eventually('every host serves the published port', async () => {
    const replies = await client.get(urls, 4);
    return replies.every(({ ok }) => ok) || undefined;
  });

  t.test('is shown as Docker shows it, and leaves tasks 32 bytes less', async (t) => {
    const { stdout } = await manager.weft('network', 'inspect', 'app');
    t.match(JSON.parse(stdout)[0].Options, { encrypted: '' });
    const { stdout: link } = await lab.exec(here.netns, ['ip', '-j', 'link', 'show', 'eth0']);
    t.equal(JSON.parse(link)[0].mtu, OVERLAY_MTU);
  });

  t.test('carries TCP, UDP, VIPs and published ports', async (t) => {
    t.equal(await ping(lab, here, there.address), 3);
    for (const [name, base, from] of [
      ['between tasks', `http://${there.address}`, task],
      ['to the VIP', `http://${vip}`, task],
      ['from outside', urls[0] as string, client],
      ['from outside, by the other host', urls[1] as string, client],
    ] as const) {
      const up = await from.upload(base, MEGABYTES_20);
      t.equal(up.received, up.sent, `20 MB ${name}`);
      const down = await from.download(base, MEGABYTES_20);
      t.equal(down.received, down.sent, `20 MB back ${name}`);
    }
    t.same(await task.echo(there.address, UDP_PORT, DATAGRAM_BYTES), DATAGRAM_BYTES);
    const replies = await client.get(urls, 40);
    t.same(new Set(replies.map((reply) => reply.client)), new Set([outside.address]));
  });

  t.test('shows nothing of it on the wire', async (t) => {
    for (const host of hosts) {
      const { plain, sealed = 0, handshakes = 0 } = await seen(lab, host);
      t.equal(plain, 0);
      t.ok(sealed > MEGABYTES_20, `${sealed} sealed bytes`);
      t.ok(handshakes > 0);
    }
  });

  t.test('shows its sessions and how they are sealed', async (t) => {
    for (const agent of agents) {
      const { sessions = [], dataPlane } = await statusOf(agent);
      t.match(sessions, [{ state: 'established', ageSeconds: Number }]);
      t.match(dataPlane?.aead, /OpenSSL/);
      for (const reason of ['bad-auth', 'replay', 'unknown-session', 'not-encrypted']) {
        t.equal(dataPlane?.drops[reason], undefined, reason);
      }
    }
    const { stdout } = await first.weft('status');
    t.match(stdout, /Encrypted channels\n.*SESSION AGE\n.*established +\d+ s/);
  });

  t.test('goes on when an agent was killed and started again', async (t) => {
    await second.kill();
    await second.start();
    await eventually('pings are answered', async () => {
      return (await ping(lab, here, there.address, 1)) === 1 || undefined;
    });
    t.same(await sessionStates(second), ['established']);
    t.equal((await seen(lab, second.host)).plain, 0);
  });

  t.test('says nothing in plain while handshakes fail', async (t) => {
    for (const host of hosts) await lab.exec(host, ['nft', 'add rule inet watch stop drop']);
    await second.kill();
    await second.start();
    await eventually('the task of before is on its network', async () => {
      const { dataPlane } = await statusOf(second);
      return dataPlane?.ports === 2 || undefined;
    });
    const before = await seen(lab, second.host);
    t.equal(await ping(lab, there, here.address, 10), 0);
    const { dataPlane } = await statusOf(second);
    t.ok((dataPlane?.drops['no-session'] ?? 0) > 0, 'frames waited, and were dropped');
    const { plain, sealed, handshakes = 0 } = await seen(lab, second.host);
    t.same([plain, sealed], [0, before.sealed]);
    t.ok(handshakes > 0, 'it keeps asking');
    for (const host of hosts) await lab.exec(host, ['nft', 'flush chain inet watch stop']);
    await eventually('pings are answered again', async () => {
      return (await ping(lab, there, here.address, 1)) === 1 || undefined;
    });
  });

  t.test('ends for a node that was removed', async (t) => {
    const { node } = await statusOf(second);
    await manager.weft('node', 'rm', '--force', node.id ?? '');
    await eventually('its channel is gone', async () => {
      return (await sessionStates(first)).length === 0 || undefined;
    });
    for (const host of hosts) t.equal((await seen(lab, host)).plain, 0);
  });
});
