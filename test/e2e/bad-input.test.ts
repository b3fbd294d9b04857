// What people get wrong, through the real command line and agent: a sentence, exit code 1, nothing made.
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { test } from 'tap';
import { eventually, LabAgent, startCluster } from '../support/cluster.ts';
import { canMakeLab, Lab, type LabHost } from '../support/lab.ts';
import {
  HTTP_PORT,
  runningTasks,
  SERVER_COMMAND,
  statusOf,
  TestClient,
} from '../support/services.ts';

const WEFT = new URL('../../bin/weft.mjs', import.meta.url).pathname;
/** Longest a refusal may take; without it a test of a command that hangs would hang, too. */
const REFUSAL_MS = 30_000;

interface Refusal {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command that must fail. */
async function refusal(
  lab: Lab,
  host: LabHost,
  command: readonly string[],
): Promise<Refusal | undefined> {
  const ended = await lab.exec(host, command, REFUSAL_MS).catch((error: unknown) => error);
  return ended instanceof Error ? (ended as unknown as Refusal) : undefined;
}

const CREATE = ['service', 'create', '--runtime', 'process'];
const SLEEP = ['sleep', 'infinity'];

test('bad input', { skip: !canMakeLab() && 'needs root', timeout: 240_000 }, async (t) => {
  const lab = new Lab();
  t.teardown(() => lab.close());
  const cluster = await startCluster(lab, 1);
  const { manager } = cluster;
  const spare = new LabAgent(lab, lab.addHost('spare'));
  await spare.start();

  await manager.weft('network', 'create', '--subnet', '10.50.0.0/24', 'app');
  await manager.weft(
    ...[...CREATE, '--name', 'web', '--network', 'app', '-p', '8080:80'],
    ...SERVER_COMMAND,
  );
  await runningTasks(cluster, 'web', 1);
  lab.ip(['route add 10.66.0.0/16 dev eth0'], manager.host);

  const lists = async (): Promise<unknown> => ({
    networks: (await manager.list('network', 'ls')).map(({ ID, Name }) => [ID, Name]),
    services: (await manager.list('service', 'ls')).map(({ ID, Name, Ports }) => [ID, Name, Ports]),
    nodes: (await manager.list('node', 'ls')).map(({ ID, Hostname }) => [ID, Hostname]),
    namespaces: readdirSync('/run/netns').filter((name) => name.startsWith(lab.prefix)),
    spare: (await statusOf(spare)).cluster,
  });

  t.test('commands', async (t) => {
    const before = await lists();
    const address = `${manager.host.address}:2377`;
    const wrong = `SWMTKN-1-${'0'.repeat(50)}-${'0'.repeat(25)}`;
    const { stdout } = await manager.weft('join-token', '-q', 'worker');
    const token = stdout.trim();
    const changed = `${token.slice(0, -1)}${token.endsWith('0') ? '1' : '0'}`;
    const cases: readonly [what: string, agent: LabAgent, args: readonly string[], says: RegExp][] =
      [
        [
          'an unknown flag',
          manager,
          ['network', 'create', '--sbnet', '10.1.0.0/24', 'n'],
          /--sbnet/,
        ],
        ['an unknown command', manager, ['netwrk', 'ls'], /netwrk/],
        ['no name', manager, ['network', 'create'], /name/],
        ['a bad CIDR', manager, ['network', 'create', '--subnet', '10.300.0.0/24', 'n'], /10\.300/],
        ['a bad prefix', manager, ['network', 'create', '--subnet', '10.1.0.0/33', 'n'], /\/33/],
        [
          'host bits',
          manager,
          ['network', 'create', '--subnet', '10.1.0.7/24', 'n'],
          /10\.1\.0\.7\/24.*10\.1\.0\.0\/24/s,
        ],
        [
          'a subnet of another network',
          manager,
          ['network', 'create', '--subnet', '10.50.0.128/25', 'n'],
          /10\.50\.0\.128\/25.*app/s,
        ],
        [
          'a gateway outside',
          manager,
          ['network', 'create', '--subnet', '10.51.0.0/24', '--gateway', '10.52.0.1', 'n'],
          /10\.52\.0\.1/,
        ],
        ['a network’s name', manager, ['network', 'create', 'app'], /app already exists/],
        [
          'a service’s name',
          manager,
          [...CREATE, '--name', 'web', ...SLEEP],
          /web.*exist|exist.*web/i,
        ],
        [
          'a port of another service',
          manager,
          [...CREATE, '--name', 'two', '-p', '8080:80', ...SLEEP],
          /8080.*web/s,
        ],
        ['a bad port', manager, [...CREATE, '--name', 'two', '-p', '70000:80', ...SLEEP], /70000/],
        [
          'an unknown network',
          manager,
          [...CREATE, '--name', 'two', '--network', 'nowhere', ...SLEEP],
          /network nowhere not found/,
        ],
        ['no command', manager, [...CREATE, '--name', 'two'], /COMMAND/],
        ['an unknown service', manager, ['service', 'rm', 'nothing'], /service nothing not found/],
        ['a negative scale', manager, ['service', 'scale', 'web=-1'], /web=-1/],
        ['a network in use', manager, ['network', 'rm', 'app'], /app.*(in use|used)/s],
        [
          'joining twice',
          manager,
          ['join', '--token', wrong, address],
          /already part of a cluster/,
        ],
        ['making a second cluster', manager, ['init'], /already part of a cluster/],
        ['leaving as the only manager', manager, ['leave'], /--force/],
        ['a foreign token', spare, ['join', '--token', wrong, address], /token/i],
        ['a wrong token', spare, ['join', '--token', changed, address], /token/i],
        ['no manager there', spare, ['join', '--token', wrong, '172.30.0.1:9'], /172\.30\.0\.1:9/],
        ['no cluster', spare, ['service', 'ls'], /not a cluster manager/],
        ['nothing to leave', spare, ['leave'], /not part of a cluster/],
        [
          'an advertised address of another',
          spare,
          ['init', '--advertise-addr', '192.0.2.9'],
          /192\.0\.2\.9/,
        ],
      ];
    for (const [what, agent, args, says] of cases) {
      const url = `unix://${agent.socket}`;
      const command = [process.execPath, WEFT, '-H', url, ...args];
      const found = await refusal(lab, agent.host, command);
      t.match(found, { code: 1, stdout: '', stderr: says }, `${what}: ${found?.stderr.trim()}`);
      t.notMatch(found?.stderr, /\n\s+at /, 'no stack');
    }
    const found = await refusal(lab, manager.host, [
      process.execPath,
      WEFT,
      '-H',
      'unix:///none',
      'ps',
    ]);
    t.match(found, { code: 1, stderr: /ps/ });
    const silent = [process.execPath, WEFT, '-H', 'unix:///none/weft.sock', 'node', 'ls'];
    t.match(
      await refusal(lab, manager.host, silent),
      { code: 1, stderr: /weft agent/ },
      'no agent',
    );
    t.same(await lists(), before, 'nothing was made, changed or removed');
  });

  t.test('a subnet that the host has a route to', async (t) => {
    // Routes are read when the cluster is made: this cluster knows those of its first day.
    const host = lab.addHost('routed');
    lab.ip(['route add 10.0.0.0/24 dev eth0', 'route add 10.66.0.0/16 dev eth0'], host);
    const agent = new LabAgent(lab, host);
    await agent.start();
    await agent.weft('init');
    const stderr = await agent.refused('network', 'create', '--subnet', '10.66.7.0/24', 'n');
    t.match(stderr, /10\.66\.7\.0\/24.*10\.66\.0\.0\/16/s, stderr.trim());
    await agent.weft('network', 'create', 'free');
    const { stdout } = await agent.weft('network', 'inspect', 'free');
    const [network] = JSON.parse(stdout) as {
      readonly IPAM: { readonly Config: readonly { readonly Subnet: string }[] };
    }[];
    t.not(network?.IPAM.Config[0]?.Subnet, '10.0.0.0/24', 'nor is one chosen by itself');
    await agent.weft('leave', '--force');
    await agent.kill();
  });

  t.test('a port that a process of the host holds', async (t) => {
    const listener = `require('net').createServer().listen(9090, () => console.log('listening'))`;
    const holder = lab.spawn(manager.host, [process.execPath, '-e', listener]);
    await new Promise((resolve) => holder.stdout?.once('data', resolve));
    const taken = [
      ...CREATE,
      '-d',
      '--name',
      'taken',
      '-p',
      `9090:${HTTP_PORT}`,
      ...SERVER_COMMAND,
    ];
    const before = await lists();
    const stderr = await manager.refused(...taken);
    t.match(stderr, new RegExp(`9090.*pid ${holder.pid}`), stderr.trim());
    t.same(await lists(), before, 'nothing was made');
    holder.kill();
    await manager.weft(...taken);

    // On another host of the cluster it is known only later.
    const other = lab.spawn(spare.host, [process.execPath, '-e', listener]);
    await new Promise((resolve) => other.stdout?.once('data', resolve));
    const { stdout: token } = await manager.weft('join-token', '-q', 'worker');
    await spare.weft('join', '--token', token.trim(), `${manager.host.address}:2377`);
    const { portConflicts } = await eventually('the conflict is known', async () => {
      const status = await statusOf(spare);
      return status.portConflicts?.length ? status : undefined;
    });
    t.match(portConflicts, [{ port: 9090, holder: new RegExp(`\\(pid ${other.pid}\\)`) }]);
    t.match((await spare.weft('status')).stdout, new RegExp(`9090/tcp.*pid ${other.pid}`));
    const { stdout } = await lab.exec(spare.host, ['nft', 'list', 'table', 'inet', 'weft']);
    t.notMatch(stdout, '9090', 'the process keeps its port');
    t.match(stdout, '8080', 'and the other services keep theirs');
    await manager.weft('service', 'rm', 'taken');
    other.kill();
  });

  t.test('a command that does not exist', async (t) => {
    await manager.weft(
      ...[...CREATE, '-d', '--name', 'lost', '--restart-condition', 'none', '/no/such/program'],
    );
    const error = await eventually('the task says why', async () => {
      const tasks = await manager.list('service', 'ps', '--no-trunc', 'lost');
      return tasks.find(({ Error: error }) => error)?.Error;
    });
    t.match(error, /\/no\/such\/program/, error);
    await manager.weft('service', 'rm', 'lost');
  });

  t.test('an agent on a host that lacks something', async (t) => {
    const host = lab.addHost('poor');
    const folder = `${lab.folder}/poor`;
    mkdirSync(folder);
    const agent = [process.execPath, WEFT, 'agent', '--state-dir', `${folder}/state`];
    const args = [...agent, '--run-dir', `${folder}/run`, '--metrics-addr', 'none'];
    const noTun = ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs none /dev/net; exec "$@"', 'sh'];
    const withoutTun = await refusal(lab, host, [...noTun, ...args]);
    t.match(withoutTun, { code: 1, stderr: /\/dev\/net\/tun \(ENOENT\).*modprobe tun/s });
    t.notMatch(withoutTun?.stderr, 'CAP_', 'and nothing else is missing');

    const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
    const bare = [...noTun, ...nobody, '--inh-caps=-all', '--bounding-set=-all'];
    const unprivileged = await refusal(lab, host, [...bare, ...args]);
    t.match(unprivileged, { code: 1, stderr: /^weft: Cannot start the agent/ });
    for (const what of ['CAP_NET_ADMIN', 'CAP_SYS_ADMIN', '/dev/net/tun', 'sudo weft']) {
      t.match(unprivileged?.stderr, what, `${what} is named, all at once`);
    }
    t.notMatch(unprivileged?.stderr, /\n\s+at /, 'no stack');
    t.notOk(existsSync(`${folder}/state`), 'nothing was made');
    t.notOk(existsSync(`${folder}/run`));
    const flags = await refusal(lab, host, [...args, '--gossip-port', '0', '--netns-prefix', 'x']);
    t.match(flags, { code: 1, stderr: /--gossip-port "0".*--netns-prefix "x"/s }, 'bad flags');
    t.match((await lab.exec(host, ['ip', '-br', 'link'])).stdout, /^lo.*\neth0\S*.*\n$/);
  });

  t.test('a port that another program has', async (t) => {
    const host = lab.addHost('busy');
    const listener = `require('dgram').createSocket('udp4').bind(4789, () => console.log('bound'))`;
    const holder = lab.spawn(host, [process.execPath, '-e', listener]);
    await new Promise((resolve) => holder.stdout?.once('data', resolve));
    const agent = new LabAgent(lab, host);
    await agent.start();
    t.match(await agent.refused('init'), /4789/, 'the data path’s');
    t.equal((await statusOf(agent)).cluster, undefined, 'no cluster is half-made');
    holder.kill();
    await eventually('it works once the port is free', async () => {
      return (await agent.weft('init').catch(() => undefined)) && true;
    });
    await agent.kill();
  });

  const client = await TestClient.start(lab, spare.host);
  const [reply] = await client.get([`http://${manager.host.address}:8080`], 1);
  t.equal(reply?.ok, true, 'after all that the service answers');
});
