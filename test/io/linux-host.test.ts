import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'tap';
import { parseInterfaces } from '../../src/io/linux/ip-command.ts';
import { parseListeners, portHolder } from '../../src/io/linux/listeners.ts';
import { type HostProbes, missingPrerequisites } from '../../src/io/linux/prerequisites.ts';
import {
  findExecutable,
  isRunning,
  parseProcessStat,
  readBootId,
  runCommand,
  signalProcess,
  toSignal,
} from '../../src/io/process.ts';

const PROC_NET_TCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20510 1 0000000000000000 100 0 0 10 0
   1: 0502A8C0:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 18761 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 99999 1 0000000000000000 20 0 0 10 -1
`;
const PROC_NET_UDP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  351: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 777 2 0000000000000000 0
  352: 00000000000000000000000001000000:0036 00000000000000000000000001000000:0035 01 00000000:00000000 00:00000000 00000000     0        0 778 2 0000000000000000 0
`;

test('parseListeners() keeps sockets that wait for clients', (t) => {
  t.same(parseListeners('tcp', PROC_NET_TCP), [
    { address: '127.0.0.1', port: 8080, inode: 20510 },
    { address: '192.168.2.5', port: 22, inode: 18761 },
  ]);
  t.same(parseListeners('udp', PROC_NET_UDP6), [
    { address: '0:0:0:0:0:0:0:1', port: 53, inode: 777 },
  ]);
  for (const text of ['', 'sl\n', 'sl\n\n0:\n', 'sl\n 0: zz 0A']) {
    t.same(parseListeners('tcp', text), []);
  }
  t.end();
});

test('portHolder() names the process', async (t) => {
  const me = new RegExp(`^\\S.* \\(pid ${process.pid}\\)$`);
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const tcpPort = (server.address() as AddressInfo).port;
  t.match(await portHolder('tcp', tcpPort), me);
  server.close();
  await once(server, 'close');
  t.equal(await portHolder('tcp', tcpPort), undefined);
  const socket = createSocket('udp6').bind(0, '::1');
  await once(socket, 'listening');
  t.match(await portHolder('udp', socket.address().port), me);
  t.equal(await portHolder('tcp', socket.address().port), undefined);
  socket.close();
  await once(socket, 'close');
});

test('missingPrerequisites() tells everything at once, with the fix', async (t) => {
  const host = (overrides: Partial<HostProbes>): HostProbes => ({
    capabilities: async () => 0x1ff_ffff_ffffn,
    openTun: () => undefined,
    hasProgram: async () => true,
    ...overrides,
  });
  t.same(await missingPrerequisites(host({})), []);
  const nothing = host({
    capabilities: async () => 0n,
    openTun: () => 'ENOENT',
    hasProgram: async () => false,
  });
  t.same(
    (await missingPrerequisites(nothing)).map(({ what, fix }) => [what, fix]),
    [
      ['CAP_NET_ADMIN', 'run weft as root: sudo weft … (in a container: --cap-add NET_ADMIN)'],
      ['CAP_SYS_ADMIN', 'run weft as root: sudo weft … (in a container: --cap-add SYS_ADMIN)'],
      [
        '/dev/net/tun (ENOENT)',
        'modprobe tun; mkdir -p /dev/net; mknod -m 666 /dev/net/tun c 10 200',
      ],
      ['ip', 'apt-get install iproute2'],
      ['tc', 'apt-get install iproute2'],
      ['nft', 'apt-get install nftables'],
      ['nsenter', 'apt-get install util-linux'],
      ['setpriv', 'apt-get install util-linux'],
    ],
  );
  const adminOnly = host({ capabilities: async () => 1n << 12n });
  t.match(await missingPrerequisites(adminOnly), [{ what: 'CAP_SYS_ADMIN' }]);
  for (const [code, fix] of [
    ['ENODEV', /^modprobe tun$/],
    ['EPERM', /--device \/dev\/net\/tun/],
    ['EACCES', /as root/],
  ] as const) {
    t.match(await missingPrerequisites(host({ openTun: () => code })), [{ fix }]);
  }
  t.type(await missingPrerequisites(), 'Array', 'the real probes answer');
});

test('runCommand() returns the output, or says what failed and why', async (t) => {
  t.equal(await runCommand(['cat'], { input: 'given' }), 'given');
  t.equal(
    await runCommand(['true'], { input: 'x'.repeat(1 << 20) }),
    '',
    'unread input is no error',
  );
  await t.rejects(runCommand(['weft-no-such-program', 'x']), {
    name: 'CommandError',
    command: 'weft-no-such-program x',
    detail: { code: 'COMMAND_NOT_FOUND' },
  });
  await t.rejects(runCommand(['sh', '-c', 'echo no >&2; exit 3']), {
    message: 'Cannot run `sh -c echo no >&2; exit 3`: no (exit code 3)',
    detail: { code: 'COMMAND_FAILED', exitCode: 3, stderr: 'no' },
  });
  await t.rejects(runCommand(['sh', '-c', 'kill -9 $$']), { message: /a signal ended it$/ });
});

test('a process is known by its start time and boot too', async (t) => {
  const line = '12 (a) b (c)) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2';
  t.same(parseProcessStat(line), { state: 'S', startTicks: 98765 });
  t.equal(parseProcessStat(''), undefined);
  const [pid, bootId] = [process.pid, await readBootId()];
  const stat = parseProcessStat(await runCommand(['cat', `/proc/${pid}/stat`]));
  const me = { pid, bootId, startTicks: stat?.startTicks ?? 0 };
  t.ok(await isRunning(me));
  for (const other of [
    { ...me, startTicks: me.startTicks + 1 },
    { ...me, bootId: 'another' },
    { ...me, pid: 0x7fff_ffff },
  ]) {
    const isSame = await isRunning(other);
    const isKilled = await signalProcess(other, 'SIGKILL');
    t.same([isSame, isKilled], [false, false]);
  }
  t.throws(() => toSignal('TERM'), RangeError);
});

test('findExecutable() looks where execvp(3) does', async (t) => {
  const path = '/nowhere::/usr/bin:/bin';
  t.match(await findExecutable('sh', path, '/'), { found: true, path: /bin\/sh$/ });
  t.match(await findExecutable('bin/sh', path, '/'), { found: true, path: '/bin/sh' });
  t.match(await findExecutable('sh', '', '/bin'), { found: true, path: '/bin/sh' });
  t.same(await findExecutable('', path, '/'), { found: false, reason: 'missing' });
  t.same(await findExecutable('etc', '/', '/'), { found: false, reason: 'not-executable' });
});

test('parseInterfaces() reads the addresses that last, of both families', (t) => {
  const json = `[{"ifname":"eth0","flags":["BROADCAST","UP"],"mtu":1450,"address":"02:42:0a:00:00:05",
    "addr_info":[{"family":"inet","local":"10.0.0.5","prefixlen":24,"scope":"global"},
                 {"family":"inet6","local":"fd00::a1","prefixlen":64,"scope":"global","temporary":true},
                 {"family":"inet6","local":"fd00::a2","prefixlen":64,"scope":"global","deprecated":true},
                 {"family":"inet6","local":"fd00::5","prefixlen":64,"scope":"global"},
                 {"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"}]}]`;
  t.same(parseInterfaces(json), [
    {
      name: 'eth0',
      mac: '02:42:0a:00:00:05',
      mtuBytes: 1450,
      isUp: true,
      addresses: [
        { address: '10.0.0.5', prefix: 24 },
        { address: 'fd00::5', prefix: 64 },
      ],
    },
  ]);
  t.same(parseInterfaces(''), []);
  t.end();
});
