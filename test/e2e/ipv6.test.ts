// Dual-stack networks, over an underlay of IPv4 and over one that has nothing but IPv6.
import { test } from 'tap';
import { eventually, LabAgent, startCluster } from '../support/cluster.ts';
import { canMakeLab, Lab, type LabHost } from '../support/lab.ts';
import {
  aliveMembers,
  HTTP_PORT,
  type Reply,
  runningTasks,
  SERVER_COMMAND,
  statusOf,
  TestClient,
  tally,
  UDP_PORT,
  vipOf,
} from '../support/services.ts';

const PUBLISHED = 8080;
const PUBLISHED_UDP = 5300;
const MEGABYTES_20 = 20 * 1024 * 1024;
/** Whole, with fragments beyond the overlay's MTU, and close to the largest of UDP. */
const DATAGRAM_BYTES = [1, 1_400, 9_000, 60_000];
const SKIP = !canMakeLab() && 'needs root';

function taskNumbers(replies: readonly Reply[]): string[] {
  return Object.keys(
    tally(replies.map((reply) => reply.task?.split('.').slice(0, 2).join('.'))),
  ).sort();
}

for (const [underlay, ipv4] of [
  ['IPv4', true],
  ['IPv6 alone', false],
] as const) {
  test(`a dual-stack service over ${underlay}`, { skip: SKIP, timeout: 240_000 }, async (t) => {
    const lab = new Lab({ ipv4 });
    t.teardown(() => lab.close());
    const outside = lab.addHost('client');
    const cluster = await startCluster(lab, 2);
    const { manager, agents } = cluster;
    const client = await TestClient.start(lab, outside);
    const pings = (from: string | LabHost, address: string, bytes = 56) =>
      lab.exec(from, ['ping', '-c', '2', '-i', '0.2', '-W', '2', '-s', String(bytes), address]);

    await manager.weft(
      ...[
        'network',
        'create',
        '--ipv6',
        '--subnet',
        '10.77.0.0/24',
        '--subnet',
        'fd77::/64',
        'app',
      ],
    );
    await manager.weft(
      ...['service', 'create', '--name', 'web', '--runtime', 'process', '--network', 'app'],
      ...['--replicas', '2', '-p', `${PUBLISHED}:${HTTP_PORT}`],
      ...['-p', `${PUBLISHED_UDP}:${UDP_PORT}/udp`, ...SERVER_COMMAND],
    );
    await manager.weft(
      ...['service', 'create', '--name', 'probe', '--runtime', 'process', '--network', 'app'],
      ...['sleep', 'infinity'],
    );
    const web = await runningTasks(cluster, 'web', 2);
    const [probe] = await runningTasks(cluster, 'probe', 1);
    const { vip, vip6, gateway6 } = await vipOf(cluster, 'web', 'app');
    const inside = await TestClient.start(lab, probe!.netns);
    const names = ['web.1', 'web.2'];
    const urls = agents.map(({ host }) => `http://[${host.address6}]:${PUBLISHED}`);
    await eventually('every host serves the published port', async () => {
      const replies = await client.get(urls, 2);
      return replies.every(({ ok }) => ok) || undefined;
    });

    t.test('the nodes meet at the addresses of the underlay', async (t) => {
      for (const agent of agents) {
        t.equal((await aliveMembers(agent)).length, 2);
        const { dataPlane, gossip } = await statusOf(agent);
        t.equal(dataPlane?.vteps, 1);
        t.same(
          gossip?.members.map(({ address }) => address).sort(),
          agents.map(({ host }) => host.address).sort(),
        );
      }
    });

    t.test('a task has both addresses, and nothing else of IPv6', async (t) => {
      const { stdout } = await lab.exec(probe!.netns, ['ip', '-j', '-6', 'addr', 'show', 'eth0']);
      const [link] = JSON.parse(stdout);
      t.match(link.addr_info, [{ local: probe!.address6, prefixlen: 64 }]);
      t.equal(link.addr_info.length, 1);
    });

    t.test('tasks reach each other by IPv6', async (t) => {
      await t.resolves(pings(probe!.netns, gateway6), 'ping of the gateway');
      for (const { address, address6 } of web) {
        await t.resolves(pings(probe!.netns, address6), `ping of ${address6}`);
        await t.resolves(pings(probe!.netns, address6, 60_000), 'in fragments');
        for (const host of [`[${address6}]`, address]) {
          const [reply] = await inside.get([`http://${host}`], 1);
          t.match(reply, { ok: true }, host);
        }
        const [reply] = await inside.get([`http://[${address6}]`], 1);
        t.equal(reply?.client, probe!.address6);
        t.same(
          await inside.echoWithOptions(address6, UDP_PORT, DATAGRAM_BYTES),
          DATAGRAM_BYTES,
          'with an extension header',
        );
      }
    });

    t.test('the IPv6 VIP reaches all replicas', async (t) => {
      const replies = await inside.get([`http://[${vip6}]`], 40);
      t.same(
        replies.filter(({ ok }) => !ok),
        [],
      );
      t.same(tally(replies.map((reply) => reply.client)), { [probe!.address6]: 40 });
      t.same(taskNumbers(replies), names);
      t.same(taskNumbers(await inside.who(vip6, UDP_PORT, 30)), names, 'by UDP, too');
      t.same(
        await inside.echo(vip6, UDP_PORT, DATAGRAM_BYTES),
        DATAGRAM_BYTES,
        'in fragments, too',
      );
      t.same(
        await inside.echoWithOptions(vip6, UDP_PORT, DATAGRAM_BYTES),
        DATAGRAM_BYTES,
        'with an extension header',
      );
      await t.resolves(pings(probe!.netns, vip6), 'ping of the VIP');
      const self = await TestClient.start(lab, web[0]!.netns);
      t.same(taskNumbers(await self.get([`http://[${vip6}]`], 40)), names, 'from a replica itself');
      t.same(taskNumbers(await inside.get([`http://${vip}`], 40)), names, 'the IPv4 one as well');
    });

    t.test('the published port is served at IPv6 addresses, with the client’s own', async (t) => {
      for (const [index, url] of urls.entries()) {
        const replies = await client.get([url], 40);
        t.same(
          replies.filter(({ ok }) => !ok),
          [],
        );
        t.same(tally(replies.map((reply) => reply.client)), { [outside.address6]: 40 });
        t.same(taskNumbers(replies), names, `host ${index + 1}`);
      }
      for (const { host } of agents) {
        const replies = await client.who(host.address6, PUBLISHED_UDP, 12);
        t.same(tally(replies.map((reply) => reply.client)), { [outside.address6]: 12 }, 'by UDP');
        t.same(await client.echo(host.address6, PUBLISHED_UDP, DATAGRAM_BYTES), DATAGRAM_BYTES);
      }
    });

    t.test('a host reaches its own published port by IPv6', async (t) => {
      for (const { host } of agents) {
        const local = await TestClient.start(lab, host);
        for (const address of [host.address6, '::1']) {
          const replies = await local.get([`http://[${address}]:${PUBLISHED}`], 6);
          t.same(
            replies.map(({ ok }) => ok),
            Array(6).fill(true),
            address,
          );
          t.notOk(
            replies.some((reply) => reply.client === '::1'),
            'seen by a real address',
          );
        }
      }
    });

    t.test('20 MB arrive as they were sent', async (t) => {
      for (const [what, from, base] of [
        ['the published port', client, urls[0]],
        ['the published port of another host', client, urls[1]],
        ['the VIP', inside, `http://[${vip6}]`],
        ['the IPv4 VIP', inside, `http://${vip}`],
      ] as const) {
        const up = await from.upload(String(base), MEGABYTES_20);
        t.equal(up.received, up.sent, `up through ${what}`);
        const down = await from.download(String(base), MEGABYTES_20);
        t.equal(down.received, down.sent, `down through ${what}`);
      }
    });

    t.test('what the CLI shows', async (t) => {
      t.match(await manager.list('network', 'ls', '--filter', 'name=app'), [{ IPv6: 'true' }]);
      const { stdout } = await manager.weft('network', 'inspect', 'app');
      t.match(JSON.parse(stdout), [
        { EnableIPv6: true, IPAM: { Config: [{}, { Gateway: 'fd77::1' }] } },
      ]);
    });
  });
}

test('a cluster is of one family, and says so', { skip: SKIP, timeout: 120_000 }, async (t) => {
  const lab = new Lab();
  t.teardown(() => lab.close());
  const { manager } = await startCluster(lab, 1);
  const other = new LabAgent(lab, lab.addHost('other'));
  await other.start();
  const { stdout } = await manager.weft('join-token', '-q', 'worker');
  const join = (...options: string[]) =>
    other.refused('join', '--token', stdout.trim(), ...options, `${manager.host.address}:2377`);
  t.match(
    await join('--advertise-addr', other.host.address6),
    `this node advertises the IPv6 address ${other.host.address6}, and node host1 of the cluster the IPv4 address ${manager.host.address}`,
  );
});
