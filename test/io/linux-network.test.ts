import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { parseIpv4, parseMac } from '../../src/core/address.ts';
import { type LogFields, SILENT_LOG } from '../../src/core/capabilities.ts';
import { parseIpv6 } from '../../src/core/ip.ts';
import { IpCommand } from '../../src/io/linux/ip-command.ts';
import {
  canHaveIpv6,
  configureInterface,
  createNetns,
  deleteNetns,
  listNetns,
  netnsExists,
  netnsPath,
  processesInNetns,
  readSysctl,
  runInNetns,
  sweepNetns,
  writeSysctls,
} from '../../src/io/linux/netns.ts';
import {
  forwardDropChains,
  type PublishedPort,
  PublishedPortTable,
  renderPublishedPorts,
} from '../../src/io/linux/nftables.ts';
import { killProcess, runCommand } from '../../src/io/process.ts';

if (process.getuid?.() !== 0) {
  test('namespaces and nftables', { skip: 'needs root' }, (t) => t.end());
  process.exit();
}

function newPrefix(t: Test): string {
  const prefix = `weft-t${randomBytes(4).toString('hex')}-`;
  t.teardown(() => sweepNetns(prefix, new Set()));
  return prefix;
}

async function newNetns(t: Test): Promise<string> {
  const name = `${newPrefix(t)}a`;
  await createNetns(name);
  return name;
}

test('createNetns() and deleteNetns() can be repeated, and mind stale files', async (t) => {
  const prefix = newPrefix(t);
  const name = `${prefix}a`;
  t.notOk(await netnsExists(name));
  await createNetns(name);
  const inode = await runInNetns(name)(['readlink', '/proc/self/ns/net']);
  await createNetns(name);
  t.equal(await runInNetns(name)(['readlink', '/proc/self/ns/net']), inode, 'it is still the same');
  t.match(await new IpCommand().interfaces(name), [{ name: 'lo', isUp: true }]);
  t.equal(await readSysctl('net/ipv4/ip_unprivileged_port_start', runInNetns(name)), '0');
  t.equal(await readSysctl('net/ipv4/conf/all/rp_filter', runInNetns(name)), '0');
  t.same(await processesInNetns(name), []);
  await writeFile(netnsPath(`${prefix}b`), '');
  t.notOk(await netnsExists(`${prefix}b`), 'a plain file is no namespace');
  await createNetns(`${prefix}b`);
  t.ok(await netnsExists(`${prefix}b`));
  await createNetns(`${prefix}c`);
  t.same(await sweepNetns(prefix, new Set([name])), [`${prefix}b`, `${prefix}c`]);
  t.same(await listNetns(prefix), [name]);
  await deleteNetns(name);
  await deleteNetns(name);
  t.same(await listNetns(prefix), []);
  for (const foreign of ['docker', '../weft-x', 'weft-a/b', '']) {
    await t.rejects(createNetns(foreign), /Invariant broken/);
    await t.rejects(deleteNetns(foreign), /Invariant broken/);
  }
});

test('configureInterface() makes an interface what it is to be, from any state', async (t) => {
  const netns = await newNetns(t);
  const ip = new IpCommand();
  await ip.batch(netns, ['tuntap add dev eth0 mode tap', 'addr add 10.9.9.9/16 dev eth0']);
  const config = {
    name: 'eth0',
    address: parseIpv4('10.0.1.3'),
    prefix: 24,
    mac: parseMac('02:42:0a:00:01:03'),
    mtuBytes: 1450,
    gsoMaxBytes: 60_000,
    gateway: parseIpv4('10.0.1.1'),
  };
  for (const round of ['first', 'second']) {
    await configureInterface(netns, config);
    const link = (await ip.interfaces(netns)).find(({ name }) => name === 'eth0');
    t.same(
      link,
      {
        name: 'eth0',
        mac: '02:42:0a:00:01:03',
        mtuBytes: 1450,
        isUp: true,
        addresses: [{ address: '10.0.1.3', prefix: 24 }],
      },
      `${round} time`,
    );
    t.match(await ip.command(['-n', netns, 'route']), 'default via 10.0.1.1 dev eth0');
    t.match(await ip.command(['-n', netns, '-d', 'link', 'show', 'eth0']), 'gso_max_size 60000');
    t.equal(await readSysctl('net/ipv6/conf/eth0/disable_ipv6', runInNetns(netns)), '1');
  }
  await t.rejects(configureInterface(netns, { ...config, name: 'eth1' }), {
    name: 'CommandError',
    message: /-batch -`: Cannot find device "eth1"\nCommand failed -:1/,
  });
});

test('configureInterface() switches IPv6 on, and leaves nothing for it to find out', async (t) => {
  const netns = await newNetns(t);
  const ip = new IpCommand();
  await ip.batch(netns, ['tuntap add dev eth0 mode tap', 'link set eth0 up']);
  const config = { name: 'eth0', address: parseIpv4('10.0.1.3'), prefix: 24 };
  const gateway = parseIpv6('fd00:1::1');
  for (const last of ['7', '3', '3']) {
    const address = parseIpv6(`fd00:1::${last}`);
    await configureInterface(netns, { ...config, ipv6: { address, prefix: 64, gateway } });
  }
  const [link] = JSON.parse(await ip.command(['-n', netns, '-j', '-6', 'addr', 'show', 'eth0']));
  t.match(
    link.addr_info,
    [{ local: 'fd00:1::3', prefixlen: 64, tentative: undefined }],
    'at once, and alone: no link-local address beside it',
  );
  t.equal(link.addr_info.length, 1);
  t.match(await ip.command(['-n', netns, '-6', 'route']), 'default via fd00:1::1 dev eth0');
  const read = (key: string) => readSysctl(`net/ipv6/conf/eth0/${key}`, runInNetns(netns));
  for (const key of ['accept_ra', 'autoconf', 'accept_dad', 'disable_ipv6']) {
    t.equal(await read(key), '0', key);
  }
  t.ok(await canHaveIpv6(1_280));
  t.notOk(await canHaveIpv6(1_279), 'the kernel would take it off the interface');
});

const UPLINK = { device: 'weft0', address: parseIpv4('10.255.0.2'), tunnelPort: 4789 };
const UPLINK6 = { ...UPLINK, address6: parseIpv6('fd00:8::2') };
const WEB: PublishedPort = {
  protocol: 'tcp',
  publishedPort: 8080,
  vip: '10.255.0.5',
  targetPort: 80,
};

test('renderPublishedPorts() does not depend on order, and refuses what is wrong', (t) => {
  const dns: PublishedPort = { ...WEB, protocol: 'udp', targetPort: 53 };
  const other: PublishedPort = { ...WEB, publishedPort: 443 };
  const ports = [WEB, dns, other];
  const text = renderPublishedPorts(UPLINK, ports);
  t.equal(renderPublishedPorts(UPLINK, ports.toReversed()), text);
  t.match(text, '443 : 10.255.0.5 . 80,\n      8080 : 10.255.0.5 . 80 }');
  t.match(text, 'snat ip to 10.255.0.2');
  t.notMatch(text, 'ip6', 'a host without IPv6 publishes nothing by it');
  const dual = renderPublishedPorts(UPLINK6, [{ ...WEB, vip6: 'FD00:8:0::5' }, other]);
  t.match(
    dual,
    'map tcp6-ports {\n    type inet_service : ipv6_addr . inet_service\n    elements = { 8080 : fd00:8::5 . 80 }',
  );
  t.match(dual, 'ip6 saddr ::1 snat ip6 to fd00:8::2');
  for (const [port, message] of [
    [{ ...WEB, publishedPort: 0 }, /Cannot use 0 as a port/],
    [{ ...WEB, targetPort: 65_536 }, /Cannot use 65536 as a port/],
    [{ ...WEB, targetPort: 1.5 }, /Cannot use 1.5 as a port/],
    [{ ...WEB, vip: '10.0.0.1; drop' }, /as an IPv4 address/],
    [{ ...WEB, vip6: 'fd00::1; drop' }, /as an IPv6 address/],
  ] as const) {
    t.throws(() => renderPublishedPorts(UPLINK6, [port]), { name: 'RangeError', message });
  }
  t.throws(() => renderPublishedPorts(UPLINK, [WEB, WEB]), { message: /publish 8080\/tcp twice/ });
  t.throws(() => renderPublishedPorts({ ...UPLINK, device: 'a"b' }, []), RangeError);
  t.end();
});

async function newTable(t: Test): Promise<{
  netns: string;
  table: PublishedPortTable;
  file: string;
  warnings: LogFields[];
}> {
  const netns = await newNetns(t);
  const directory = await mkdtemp(join(tmpdir(), 'weft-test-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const file = join(directory, 'nftables.conf');
  const warnings: LogFields[] = [];
  const log = { ...SILENT_LOG, warn: (fields: LogFields) => void warnings.push(fields) };
  const run = runInNetns(netns);
  const table = new PublishedPortTable({ log, run }, { uplink: UPLINK, file });
  await new IpCommand().batch(netns, ['tuntap add dev weft0 mode tap', 'link set weft0 up']);
  return { netns, table, file, warnings };
}

test('PublishedPortTable replaces its own table at once and leaves others alone', async (t) => {
  const { netns, table, file, warnings } = await newTable(t);
  const nft = (...args: string[]) => runInNetns(netns)(['nft', ...args]);
  await nft('add table ip other; add chain ip other f { type filter hook forward priority 0; }');
  await table.enableForwarding();
  t.equal(await readSysctl('net/ipv4/ip_forward', runInNetns(netns)), '1');
  t.equal(await readSysctl('net/ipv4/conf/weft0/route_localnet', runInNetns(netns)), '1');
  t.same(warnings, []);
  await nft('add chain ip other f { policy drop; }');
  await table.enableForwarding();
  t.same(warnings, [{ chains: ['ip other f'], device: 'weft0' }]);

  await table.replace([WEB]);
  const first = await nft('list', 'table', 'inet', 'weft');
  t.match(first, '8080 : 10.255.0.5 . 80');
  t.equal(await readFile(file, 'utf8'), renderPublishedPorts(UPLINK, [WEB]));
  await Promise.all([
    table.replace([]),
    table.replace([
      { ...WEB, publishedPort: 9090 },
      { ...WEB, protocol: 'udp' },
    ]),
  ]);
  const second = await nft('list', 'table', 'inet', 'weft');
  t.match(second, '9090 : 10.255.0.5 . 80');
  t.notMatch(second, /map tcp-ports \{[^}]*8080 :/);
  await t.rejects(table.replace([WEB, WEB]), RangeError);
  t.equal(await nft('list', 'table', 'inet', 'weft'), second, 'a refused change changes nothing');
  await table.remove();
  await table.remove();
  t.match(await nft('list', 'tables'), /^table ip other\n$/);
});

test('connections are tracked, but not the datagrams of the tunnel', async (t) => {
  const { netns, table } = await newTable(t);
  const run = runInNetns(netns);
  await table.replace([WEB]);
  const count = (port: number, state: string) =>
    `add rule inet other in udp dport ${port} ct state ${state} counter name "${state}-${port}"`;
  const states = ['untracked', 'new'];
  const counters = [4789, 4790].flatMap((port) => states.map((state) => ({ port, state })));
  await run([
    'nft',
    [
      'add table inet other',
      'add chain inet other in { type filter hook input priority 0; }',
      ...counters.map(({ port, state }) => `add counter inet other ${state}-${port}`),
      ...counters.map(({ port, state }) => count(port, state)),
    ].join(';'),
  ]);
  const send = 'for port in 4789 4790; do echo hello >"/dev/udp/127.0.0.1/$port" || :; done';
  await run(['bash', '-c', send]);
  const json = JSON.parse(await run(['nft', '-j', 'list', 'counters'])) as {
    nftables: { counter?: { name: string; packets: number } }[];
  };
  const seen = json.nftables.flatMap(({ counter }) => (counter === undefined ? [] : [counter]));
  t.same(Object.fromEntries(seen.map(({ name, packets }) => [name, packets])), {
    'untracked-4789': 1,
    'new-4789': 0,
    'untracked-4790': 0,
    'new-4790': 1,
  });
});

test('forwardDropChains() finds what would stop clients', (t) => {
  const chain = (fields: object) => ({ chain: { family: 'ip', table: 'filter', ...fields } });
  const json = JSON.stringify({
    nftables: [
      { metainfo: {} },
      chain({ name: 'FORWARD', hook: 'forward', policy: 'drop' }),
      chain({ name: 'INPUT', hook: 'input', policy: 'drop' }),
      chain({ name: 'user' }),
      chain({ family: 'inet', table: 'weft', name: 'f', hook: 'forward', policy: 'drop' }),
    ],
  });
  t.same(forwardDropChains(json), ['ip filter FORWARD']);
  t.end();
});

/**
 * A client host, a node and a backend behind the node's weft0, joined by veth pairs. weft0 stands for
 * the agent: the backend has the VIP itself.
 */
test('clients reach a published port under their own address', async (t) => {
  const prefix = newPrefix(t);
  const [client, node, backend] = ['c', 'n', 'b'].map((name) => prefix + name) as [
    string,
    string,
    string,
  ];
  for (const name of [client, node, backend]) await createNetns(name);
  const ip = new IpCommand();
  await ip.command(`link add up0 netns ${node} type veth peer eth0 netns ${client}`.split(' '));
  await ip.command(`link add weft0 netns ${node} type veth peer eth0 netns ${backend}`.split(' '));
  const vip6 = 'fd00:8::5';
  const onLink = (address: string, gateway?: string) => ({
    address: parseIpv6(address),
    prefix: 64,
    ...(gateway === undefined ? {} : { gateway: parseIpv6(gateway) }),
  });
  await configureInterface(client, {
    name: 'eth0',
    address: parseIpv4('192.168.7.2'),
    prefix: 24,
    ipv6: onLink('fd00:7::2'),
  });
  await configureInterface(node, {
    name: 'up0',
    address: parseIpv4('192.168.7.1'),
    prefix: 24,
    ipv6: onLink('fd00:7::1'),
  });
  await configureInterface(node, {
    name: 'weft0',
    address: UPLINK.address,
    prefix: 24,
    ipv6: { ...onLink('fd00:8::2'), prefix: 128 },
  });
  await configureInterface(backend, {
    name: 'eth0',
    address: parseIpv4(WEB.vip),
    prefix: 24,
    gateway: UPLINK.address,
    ipv6: onLink(vip6, 'fd00:8::2'),
  });
  // As with an agent behind weft0: a next hop whose address nobody has to be asked for.
  const backendLink = (await ip.interfaces(backend)).find(({ name }) => name === 'eth0');
  await ip.batch(node, [
    `neigh replace fd00:8::1 lladdr ${backendLink?.mac} dev weft0 nud permanent`,
    'route replace fd00:8::/64 via fd00:8::1 dev weft0 onlink',
  ]);
  const directory = await mkdtemp(join(tmpdir(), 'weft-test-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const table = new PublishedPortTable(
    { log: SILENT_LOG, run: runInNetns(node) },
    { uplink: UPLINK6, file: join(directory, 'nftables.conf') },
  );
  await writeSysctls(
    { 'net/ipv4/ip_forward': '0', 'net/ipv6/conf/up0/accept_ra': '1' },
    runInNetns(node),
  );
  await table.enableForwarding();
  await table.enableForwarding();
  t.equal(
    await readSysctl('net/ipv6/conf/up0/accept_ra', runInNetns(node)),
    '2',
    'a host with a default route of router advertisements keeps it',
  );
  await table.replace([{ ...WEB, vip6 }]);

  const server = `require('net').createServer((s) => s.end(s.remoteAddress)).listen(80, '::',
    () => console.log('up'))`;
  const script = '"$1" -e "$2" >"$3" 2>&1 & echo $!';
  const output = join(directory, 'server');
  const pid = await runInNetns(backend)([
    ...['sh', '-c', script, 'sh', process.execPath, server, output],
  ]);
  t.teardown(async () => void killProcess(Number(pid)));
  await runCommand(['sh', '-c', 'until grep -q up "$1"; do :; done', 'sh', output]);
  const ask = `require('net').connect(8080, process.argv[1]).setTimeout(3000, process.abort).pipe(process.stdout)`;
  for (const [from, address, seen] of [
    [client, '192.168.7.1', '192.168.7.2'],
    [node, '192.168.7.1', '192.168.7.1'],
    [node, '127.0.0.1', '10.255.0.2'], // loopback addresses cannot travel
    [client, 'fd00:7::1', 'fd00:7::2'],
    [node, 'fd00:7::1', 'fd00:7::1'],
    [node, '::1', 'fd00:8::2'],
  ] as const) {
    const got = await runInNetns(from)([process.execPath, '-e', ask, address]);
    t.equal(
      got.replace('::ffff:', ''),
      seen,
      `${address} from ${from === client ? 'outside' : 'the node'}`,
    );
  }
});
