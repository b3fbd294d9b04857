// Three hosts with an agent each, a client outside and everything that a service is made of.
import { existsSync, readdirSync } from 'node:fs';
import { test } from 'tap';
import { eventually, type LabAgent, startCluster, taskNetns } from '../support/cluster.ts';
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
  tasksOf,
  UDP_PORT,
  vipOf,
} from '../support/services.ts';

const PUBLISHED = 8080;
const PUBLISHED_UDP = 5300;
const MEGABYTES_20 = 20 * 1024 * 1024;
/** Whole, with fragments beyond the overlay's MTU, and close to the largest of UDP. */
const DATAGRAM_BYTES = [1, 1_400, 9_000, 60_000];

/** Metric families that documentation promises, on a manager with a running service. */
const METRIC_FAMILIES = [
  'weft_port_frames_total',
  'weft_port_bytes_total',
  'weft_underlay_datagrams_total',
  'weft_underlay_bytes_total',
  'weft_drops_total',
  'weft_answers_total',
  'weft_flows',
  'weft_flow_evictions_total',
  'weft_service_backends',
  'weft_members',
  'weft_gossip_faults_total',
  'weft_gossip_health_score',
  'weft_gossip_keys',
  'weft_gossip_key_age_seconds',
  'weft_peer_rtt_seconds',
  'weft_peer_probe_loss_ratio',
  'weft_peer_path_mtu_bytes',
  'weft_handshake_drops_total',
  'weft_tasks',
  'weft_published_port_conflicts',
  'weft_cluster_tasks',
  'weft_cluster_nodes',
  'weft_cluster_services',
  'weft_pool_addresses',
  'weft_pool_addresses_used',
  'process_resident_memory_bytes',
];

/** Lines of an agent's log that tell of errors (pino's level 50 and above). */
function errorsOf({ log }: LabAgent): readonly string[] {
  return log.split('\n').filter((line) => /^\{"level":[56]0,/.test(line));
}

test('a cluster of three', { skip: !canMakeLab() && 'needs root', timeout: 240_000 }, async (t) => {
  const lab = new Lab();
  t.teardown(() => lab.close());
  const outside = lab.addHost('client');
  const cluster = await startCluster(lab, 3);
  const { manager, agents } = cluster;
  const addresses = agents.map(({ host }) => host.address);
  const client = await TestClient.start(lab, outside);

  const ruleset = async (host: LabHost): Promise<string> =>
    (await lab.exec(host, ['nft', 'list', 'ruleset'])).stdout;
  const interfaces = async (netns: string | LabHost): Promise<string[]> => {
    const { stdout } = await lab.exec(netns, ['ip', '-j', 'link']);
    return (JSON.parse(stdout) as { readonly ifname: string }[]).map(({ ifname }) => ifname);
  };
  const taskNamespaces = (): string[] =>
    readdirSync('/run/netns').filter((name) =>
      agents.some((agent) => name.startsWith(taskNetns(lab, agent, ''))),
    );
  const pings = (netns: string | LabHost, address: string, bytes = 56) =>
    lab.exec(netns, ['ping', '-c', '2', '-i', '0.2', '-W', '2', '-s', String(bytes), address]);

  await manager.weft('network', 'create', '--subnet', '10.77.0.0/24', 'app');
  await manager.weft(
    ...['service', 'create', '--name', 'web', '--runtime', 'process', '--network', 'app'],
    ...['--replicas', '3', '-p', `${PUBLISHED}:${HTTP_PORT}`],
    ...['-p', `${PUBLISHED_UDP}:${UDP_PORT}/udp`, ...SERVER_COMMAND],
  );
  await manager.weft(
    ...['service', 'create', '--name', 'fourth', '--runtime', 'process', '--network', 'app'],
    ...['sleep', 'infinity'],
  );
  const web = await runningTasks(cluster, 'web', 3);
  const [fourth] = await runningTasks(cluster, 'fourth', 1);
  const { vip, gateway } = await vipOf(cluster, 'web', 'app');
  const task = await TestClient.start(lab, fourth!.netns);
  const urls = addresses.map((address) => `http://${address}:${PUBLISHED}`);
  const names = ['web.1', 'web.2', 'web.3'];
  const taskNumbers = (replies: readonly Reply[]): string[] =>
    Object.keys(tally(replies.map((reply) => reply.task?.split('.').slice(0, 2).join('.')))).sort();
  // A service is up when its tasks run; every node hears of a backend a moment later.
  await eventually('every host serves the published port', async () => {
    const replies = await client.get(urls, 3);
    return replies.every(({ ok }) => ok) || undefined;
  });

  t.test('the published port is served by every host, with the client’s own address', async (t) => {
    for (const [index, url] of urls.entries()) {
      const replies = await client.get([url], 60);
      t.same(
        replies.filter(({ ok }) => !ok),
        [],
        `no request to host ${index + 1} fails`,
      );
      t.same(tally(replies.map((reply) => reply.client)), { [outside.address]: 60 });
      t.same(taskNumbers(replies), names, 'and all replicas serve');
    }
    for (const address of addresses) {
      const replies = await client.who(address, PUBLISHED_UDP, 12);
      t.same(tally(replies.map((reply) => reply.client)), { [outside.address]: 12 }, 'UDP as well');
      t.same(await client.echo(address, PUBLISHED_UDP, DATAGRAM_BYTES), DATAGRAM_BYTES);
    }
  });

  t.test('the VIP reaches all replicas from another task', async (t) => {
    const replies = await task.get([`http://${vip}`], 90);
    t.same(
      replies.filter(({ ok }) => !ok),
      [],
    );
    t.same(tally(replies.map((reply) => reply.client)), { [fourth!.address]: 90 });
    t.same(taskNumbers(replies), names);
    t.same(taskNumbers(await task.who(vip, UDP_PORT, 30)), names, 'by UDP, too');
    t.same(await task.echo(vip, UDP_PORT, DATAGRAM_BYTES), DATAGRAM_BYTES, 'fragments included');
    await t.resolves(pings(fourth!.netns, vip), 'ping of the VIP');
    await t.resolves(pings(fourth!.netns, gateway), 'ping of the gateway');
    for (const { address } of web) {
      await t.resolves(pings(fourth!.netns, address), `ping of ${address}`);
      await t.resolves(pings(fourth!.netns, address, 20_000), 'in fragments');
      t.same(
        (await task.get([`http://${address}`], 1)).map(({ ok }) => ok),
        [true],
        'direct',
      );
    }
    // A task that calls its own service may meet itself.
    const self = await TestClient.start(lab, web[0]!.netns);
    t.same(taskNumbers(await self.get([`http://${vip}`], 60)), names, 'from a replica itself');
  });

  t.test('20 MB arrive as they were sent', async (t) => {
    for (const [what, from, base] of [
      ['the published port', client, urls[0]],
      ['the published port of another host', client, urls[1]],
      ['the VIP', task, `http://${vip}`],
    ] as const) {
      const up = await from.upload(String(base), MEGABYTES_20);
      t.equal(up.received, up.sent, `up through ${what}`);
      const down = await from.download(String(base), MEGABYTES_20);
      t.equal(down.bytes, MEGABYTES_20);
      t.equal(down.received, down.sent, `down through ${what}`);
    }
  });

  t.test('a host reaches its own published port', async (t) => {
    for (const { host } of agents) {
      const local = await TestClient.start(lab, host);
      const own = await local.get([`http://${host.address}:${PUBLISHED}`], 6);
      t.same(
        own.map(({ ok }) => ok),
        Array(6).fill(true),
        'by its own address',
      );
      const loopback = await local.get([`http://127.0.0.1:${PUBLISHED}`], 6);
      t.same(
        loopback.map(({ ok }) => ok),
        Array(6).fill(true),
        'by 127.0.0.1',
      );
      t.notOk(
        loopback.some((reply) => reply.client?.startsWith('127.')),
        'seen by a real address',
      );
      t.same(await local.echo('127.0.0.1', PUBLISHED_UDP, [1, 9_000]), [1, 9_000]);
    }
  });

  t.test('what the CLI shows', async (t) => {
    const services = await manager.list('service', 'ls');
    t.match(services, [
      { Name: 'fourth', Replicas: '1/1' },
      { Name: 'web', Replicas: '3/3', Ports: /\*:8080->80\/tcp/ },
    ]);
    const ps = await manager.list('service', 'ps', 'web');
    t.same(ps.map(({ Node }) => Node).sort(), ['host1', 'host2', 'host3'], 'spread');
    t.match((await manager.weft('service', 'logs', 'web')).stdout, /serving on port 80/);
    for (const agent of agents) {
      const { stdout } = await agent.weft('status');
      t.match(stdout, agent.host.name);
      t.same(await aliveMembers(agent), await aliveMembers(manager));
      t.equal((await statusOf(agent)).gossip?.members.length, 3);
    }
    t.same(
      (await manager.list('node', 'ls')).map(({ Hostname, Status }) => [Hostname, Status]),
      [
        ['host1', 'Ready'],
        ['host2', 'Ready'],
        ['host3', 'Ready'],
      ],
    );
  });

  t.test('metrics are sound', async (t) => {
    const url = 'http://127.0.0.1:9477/metrics';
    const { stdout } = await lab.exec(manager.host, [
      process.execPath,
      '-e',
      `process.stdout.write(await (await fetch('${url}')).text())`,
    ]);
    const families = new Set([...stdout.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name));
    t.same(
      METRIC_FAMILIES.filter((name) => !families.has(name)),
      [],
      'all families are there',
    );
    for (const [what, pattern] of [
      ['frames were counted', /^weft_port_frames_total\{direction="in"\} [1-9]/m],
      ['backends', /^weft_service_backends\{service="web",state="active"\} 3$/m],
      ['members', /^weft_members\{state="alive"\} 3$/m],
      ['tasks', /^weft_tasks\{state="running"\} [1-9]/m],
      ['addresses', /^weft_pool_addresses_used\{network="app"\} [1-9]/m],
    ] as const) {
      t.match(stdout, pattern, what);
    }
    const promtool = lab.spawn(manager.host, ['promtool', 'check', 'metrics']);
    let said = '';
    for (const stream of [promtool.stdout, promtool.stderr]) {
      stream?.on('data', (chunk) => {
        said += String(chunk);
      });
    }
    promtool.stdin?.end(stdout);
    const code = await new Promise((resolve) => promtool.once('exit', resolve));
    t.same({ code, said }, { code: 0, said: '' }, 'promtool has nothing to say');
  });

  t.test('no agent met an error', async (t) => {
    for (const agent of agents) t.same(errorsOf(agent), [], agent.host.name);
  });

  t.test('scaling up and down', async (t) => {
    await manager.weft('service', 'scale', 'web=5');
    await runningTasks(cluster, 'web', 5);
    const all = await eventually('five replicas serve', async () => {
      const seen = taskNumbers(await client.get(urls, 90));
      return seen.length === 5 ? seen : undefined;
    });
    t.same(all, [...names, 'web.4', 'web.5']);
    const before = await tasksOf(cluster, 'web');
    await manager.weft('service', 'scale', 'web=2');
    const left = await runningTasks(cluster, 'web', 2);
    const gone = before.filter(({ id }) => left.every((task) => task.id !== id));
    t.equal(gone.length, 3);
    await eventually('namespaces of stopped tasks are gone', async () => {
      const rest = gone.filter(({ netns }) => existsSync(`/run/netns/${netns}`));
      return rest.length === 0 || undefined;
    });
    const replies = await client.get(urls, 30);
    t.same(
      replies.filter(({ ok }) => !ok),
      [],
      'the rest serves on',
    );
    t.equal(taskNumbers(replies).length, 2);
    await manager.weft('service', 'scale', 'web=3');
    await runningTasks(cluster, 'web', 3);
  });

  t.test('workers go on while the manager’s agent is dead', async (t) => {
    const [, second, third] = urls;
    const survivors = (await tasksOf(cluster, 'web')).filter(({ agent }) => agent !== manager);
    await manager.kill();
    const replies = await client.get([second!, third!], 40);
    t.same(
      replies.filter(({ ok }) => !ok),
      [],
      'published ports answer',
    );
    for (const { pid } of survivors) t.ok(existsSync(`/proc/${pid}`), 'tasks live');
    await manager.start();
    await eventually('the manager sees all nodes', async () => {
      const nodes = await manager.list('node', 'ls');
      return nodes.every(({ Status }) => Status === 'Ready') || undefined;
    });
    await runningTasks(cluster, 'web', 3);
    const now = await tasksOf(cluster, 'web');
    for (const { id, pid } of survivors) {
      t.ok(
        now.some((task) => task.id === id && task.pid === pid),
        'as the same processes',
      );
    }
  });

  t.test('removing a service frees everything', async (t) => {
    const netnsOf = (await tasksOf(cluster, 'web')).map(({ netns }) => netns);
    await manager.weft('service', 'rm', 'web');
    await eventually('namespaces are gone', async () => {
      return netnsOf.every((name) => !existsSync(`/run/netns/${name}`)) || undefined;
    });
    await eventually('nft rules are gone', async () => {
      const texts = await Promise.all(agents.map(({ host }) => ruleset(host)));
      return texts.every((text) => !text.includes(String(PUBLISHED))) || undefined;
    });
    const [reply] = await client.get(urls, 1);
    t.equal(reply?.ok, false, 'the port is closed');
    t.equal(taskNamespaces().length, 1, 'only the fourth task is left');
    await eventually('endpoints are gone', async () => {
      const all = await Promise.all(agents.map(statusOf));
      return all.every(({ dataPlane }) => dataPlane?.endpoints === 1) || undefined;
    });
    await manager.weft('service', 'rm', 'fourth');
    await eventually(
      'all namespaces are gone',
      async () => taskNamespaces().length === 0 || undefined,
    );
    await eventually(
      'the network can go',
      async () => (await manager.weft('network', 'rm', 'app').catch(() => undefined)) && true,
    );
    for (const { host } of agents) {
      const taps = (await interfaces(host)).filter((name) => name !== 'lo' && name !== 'eth0');
      t.same(taps, ['weft0'], 'the host has no interface but its own port');
    }
  });

  t.test('leaving takes everything of weft off a host', async (t) => {
    const worker = agents[2]!;
    const before = (await lab.exec(worker.host, ['ip', '-j', 'route'])).stdout;
    t.match(before, /weft0/);
    await manager.weft(
      ...['service', 'create', '--name', 'last', '--runtime', 'process', '--replicas', '3'],
      ...['-p', `${PUBLISHED}:${HTTP_PORT}`, ...SERVER_COMMAND],
    );
    await runningTasks(cluster, 'last', 3);
    await worker.weft('leave');
    t.same(await interfaces(worker.host), ['lo', 'eth0'], 'no weft0');
    t.equal(await ruleset(worker.host), '', 'no nft table');
    t.same(
      taskNamespaces().filter((name) => name.includes('host3-')),
      [],
      'no task',
    );
    t.notOk(existsSync(`${worker.stateDirectory}/node.json`), 'no identity');
    t.same(readdirSync(`${worker.stateDirectory}/tasks`), [], 'no state of tasks');
    t.equal((await statusOf(worker)).cluster, undefined);
    const down = await eventually('the node is down', async () => {
      const nodes = await manager.list('node', 'ls');
      return nodes.find(({ Hostname, Status }) => Hostname === 'host3' && Status === 'Down');
    });
    await runningTasks(cluster, 'last', 3);
    await manager.weft('node', 'rm', down.ID!);
    t.same(
      (await manager.list('node', 'ls')).map(({ Hostname }) => Hostname),
      ['host1', 'host2'],
    );
    const again = await manager.weft('join-token', '-q', 'worker');
    await worker.weft('join', '--token', again.stdout.trim(), `${manager.host.address}:2377`);
    t.equal((await manager.list('node', 'ls')).length, 3, 'it can come back');
  });

  t.test('no worker met an error in all that', async (t) => {
    for (const agent of agents.slice(1)) t.same(errorsOf(agent), [], agent.host.name);
  });
});
