// Two hosts whose path loses half of its width while they work: a link of 1280 bytes in the middle, once with
// routers that say so, and once with routers that say nothing (a black hole).
import { type Test, test } from 'tap';
import { type Cluster, eventually, startCluster } from '../support/cluster.ts';
import { canMakeLab, Lab, type LabHost } from '../support/lab.ts';
import {
  ECHO_PORT,
  HTTP_PORT,
  type PlacedTask,
  runningTasks,
  SERVER_COMMAND,
  statusOf,
  TestClient,
  UDP_PORT,
  vipOf,
} from '../support/services.ts';

const MEGABYTES_10 = 10 * 1024 * 1024;
const NARROW_MTU = 1280;
/** What the tunnel adds to an inner packet, and what more it does on an encrypted network. */
const OVERHEAD = 50;
const ENCRYPTION_OVERHEAD = 32;
const PUBLISHED = 8080;
const UDP_HEADERS = 28;

/** Routers that are silent about packets that they cannot pass on. */
const SILENCE = `table inet silence {
  chain out {
    type filter hook output priority 0;
    icmp type destination-unreachable drop
    icmpv6 type packet-too-big drop
  }
}`;

/** Two routers with a narrow link between them. */
function addRouters(lab: Lab): readonly [LabHost, LabHost] {
  const left = lab.addHost('left');
  const right = lab.addHost('right');
  lab.ip([
    `link add mid netns ${left.netns} mtu ${NARROW_MTU} type veth peer name mid netns ${right.netns} mtu ${NARROW_MTU}`,
  ]);
  for (const [router, address] of [
    [left, '10.250.0.1'],
    [right, '10.250.0.2'],
  ] as const) {
    lab.ip([`addr add ${address}/30 dev mid`, `link set mid mtu ${NARROW_MTU} up`], router);
  }
  return [left, right];
}

async function configureRouter(lab: Lab, router: LabHost, isSilent: boolean): Promise<void> {
  await lab.exec(router, ['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
  if (isSilent) await lab.exec(router, ['nft', SILENCE]);
}

/** Leads what `a` and `b` send to each other through the narrow link. */
function narrow(
  lab: Lab,
  [a, b]: readonly [LabHost, LabHost],
  [left, right]: readonly [LabHost, LabHost],
): void {
  lab.ip([`route replace ${b.address}/32 via 10.250.0.2 dev mid`], left);
  lab.ip([`route replace ${a.address}/32 via 10.250.0.1 dev mid`], right);
  lab.ip([`route replace ${b.address}/32 via ${left.address} dev eth0`], a);
  lab.ip([`route replace ${a.address}/32 via ${right.address} dev eth0`], b);
}

/** MTUs of the paths to other nodes that an agent uses. */
async function pathMtus({ agents }: Cluster): Promise<readonly (number | undefined)[]> {
  const statuses = await Promise.all(agents.map((agent) => statusOf(agent)));
  return statuses.flatMap(({ paths = [] }) => paths.map(({ mtuBytes }) => mtuBytes));
}

async function moves(t: Test, client: TestClient, base: string, name: string): Promise<void> {
  const up = await client.upload(base, MEGABYTES_10);
  t.equal(up.received, up.sent, `10 MB ${name} arrive as they were sent`);
  const down = await client.download(base, MEGABYTES_10);
  t.equal(down.received, down.sent, `10 MB back ${name} arrive as they were sent`);
}

async function ping(lab: Lab, from: PlacedTask, address: string, ...options: string[]) {
  const command = ['ping', '-c', '3', '-i', '0.3', '-W', '1', '-s', '1380', ...options, address];
  const { stdout } = await lab.exec(from.netns, ['sh', '-c', `${command.join(' ')} || true`]);
  return stdout;
}

for (const [name, isSilent, isEncrypted] of [
  ['with routers that say what does not pass', false, false],
  ['with routers that say nothing', true, false],
  ['under an encrypted network', true, true],
] as const) {
  /** What the narrow path leaves to an inner packet. */
  const innerMtu = NARROW_MTU - OVERHEAD - (isEncrypted ? ENCRYPTION_OVERHEAD : 0);
  const datagramBytes = [1, innerMtu - UDP_HEADERS, innerMtu - UDP_HEADERS + 1, 1_370, 9_000];
  test(`a path that becomes narrow, ${name}`, {
    skip: !canMakeLab() && 'needs root',
    timeout: 240_000,
  }, async (t) => {
    const lab = new Lab();
    t.teardown(() => lab.close());
    const outside = lab.addHost('client');
    const cluster = await startCluster(lab, 2);
    const { manager, agents } = cluster;
    const hosts = agents.map(({ host }) => host) as unknown as readonly [LabHost, LabHost];
    // Sessions between the agents are TCP of the host, which finds its way by itself if it may.
    for (const host of hosts) await lab.exec(host, ['sysctl', '-qw', 'net.ipv4.tcp_mtu_probing=1']);
    const routers = addRouters(lab);
    for (const router of routers) await configureRouter(lab, router, isSilent);

    const flags = isEncrypted ? ['--opt', 'encrypted'] : [];
    await manager.weft('network', 'create', ...flags, '--subnet', '10.77.0.0/24', 'app');
    await manager.weft(
      ...['service', 'create', '--name', 'web', '--runtime', 'process', '--network', 'app'],
      ...['--replicas', '2', '-p', `${PUBLISHED}:${HTTP_PORT}`, ...SERVER_COMMAND],
    );
    const tasks = await runningTasks(cluster, 'web', 2);
    const here = tasks.find(({ agent }) => agent === agents[0]) as PlacedTask;
    const there = tasks.find(({ agent }) => agent === agents[1]) as PlacedTask;
    const { vip } = await vipOf(cluster, 'web', 'app');
    const [fromHere, fromThere, client] = await Promise.all([
      TestClient.start(lab, here.netns),
      TestClient.start(lab, there.netns),
      TestClient.start(lab, outside),
    ]);

    await eventually('both paths are confirmed at their full width', async () => {
      const statuses = await Promise.all(agents.map((agent) => statusOf(agent)));
      const paths = statuses.flatMap((status) => status.paths ?? []);
      const isReady = paths.length === 2 && paths.every(({ state }) => state === 'complete');
      return isReady || undefined;
    });
    t.same(await pathMtus(cluster), [1500, 1500]);
    await moves(t, fromHere, `http://${there.address}`, 'before');
    t.equal(await fromHere.open('old', there.address, ECHO_PORT), true);

    narrow(lab, hosts, routers);
    const text = 'x'.repeat(200_000);
    const said = await fromHere.say('old', text);
    t.ok(said?.endsWith(text), 'a connection of before goes on, in both directions');
    await eventually('both ends know', async () => {
      const mtus = await pathMtus(cluster);
      return mtus.every((mtu) => mtu === NARROW_MTU) || undefined;
    });
    await moves(t, fromHere, `http://${there.address}`, 'after');
    await moves(t, fromThere, `http://${here.address}`, 'after, from the other side');
    await moves(t, fromHere, `http://${vip}`, 'to the VIP');
    for (const host of hosts) {
      await moves(t, client, `http://${host.address}:${PUBLISHED}`, `to the port of ${host.name}`);
    }

    t.match(await ping(lab, here, there.address, '-M', 'dont'), / 3 received/, 'without DF');
    const refused = await ping(lab, here, there.address, '-M', 'do');
    t.match(refused, new RegExp(`mtu ?= ?${innerMtu}`), 'with DF the sender is told');
    t.match(refused, / 0 received/);
    t.match(await ping(lab, here, there.address, '-M', 'want'), /[23] received/, 'and heeds it');
    const echoed = await fromThere.echo(here.address, UDP_PORT, datagramBytes);
    t.same(echoed, datagramBytes, 'datagrams around the limit');

    const { paths = [], dataPlane } = await statusOf(agents[0] as (typeof agents)[number]);
    const [path] = paths;
    t.match(path, { address: `${hosts[1].address}:4789`, mtuBytes: NARROW_MTU });
    t.ok(
      (path?.rttMs ?? 0) > 0 && (path?.rttMs ?? 1e9) < 1_000,
      `a round trip of ${path?.rttMs} ms`,
    );
    t.ok((path?.lossRatio ?? 1) < 0.5, `loss of ${path?.lossRatio}`);
    t.equal(dataPlane?.drops['too-big'], undefined, 'who could be told was told');
    t.ok((dataPlane?.packets['too-big-answers'] ?? 0) > 0);
    const url = 'http://127.0.0.1:9477/metrics';
    const metrics = await lab.exec(hosts[0], [
      process.execPath,
      '-e',
      `process.stdout.write(await (await fetch('${url}')).text())`,
    ]);
    for (const family of ['rtt_seconds', 'probe_loss_ratio', 'path_mtu_bytes']) {
      t.match(
        metrics.stdout,
        new RegExp(`weft_peer_${family}\\{node="\\w+",vtep="${hosts[1].address}"\\}`),
      );
    }
  });
}
