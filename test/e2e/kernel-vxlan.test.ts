// Interoperation with Linux' own VXLAN device (RFC 7348): an agent's port on one host, a kernel VTEP
// with a static forwarding database on the other.
import { type Test, test } from 'tap';
import { formatMac, macOfIpv4, parseIpv4 } from '../../src/core/address.ts';
import type { HostTables } from '../support/data-plane-host.ts';
import { canMakeLab, Lab, type LabHost } from '../support/lab.ts';
import { Lines } from '../support/lines.ts';

const VNI = 4097;
const OURS = '10.9.0.11';
const THEIRS = '10.9.0.12';
const MEGABYTES_100 = 100 * 1024 * 1024;
const NODE = process.execPath;

interface Setup {
  readonly lab: Lab;
  readonly task: string;
  readonly kernel: LabHost;
  readonly counters: () => Promise<{
    readonly traffic: Record<string, number>;
    readonly drops: Record<string, number>;
  }>;
}

async function setUp(lab: Lab, threads: number): Promise<Setup> {
  const host = lab.addHost('a');
  const kernel = lab.addHost('b');
  const task = `${lab.prefix}task`;
  lab.ip([`netns add ${task}`]);
  lab.ip(['link set lo up'], task);
  const tables: HostTables = {
    vtep: host.address,
    vni: VNI,
    subnet: '10.9.0.0/24',
    gateway: '10.9.0.1',
    ports: [{ netns: task, address: OURS }],
    peers: [kernel.address],
    endpoints: [{ address: THEIRS, vtep: kernel.address }],
    flowFile: `${lab.folder}/flows`,
    threads,
  };
  const script = new URL('../support/data-plane-host.ts', import.meta.url).pathname;
  const child = lab.spawn(host, [NODE, script, JSON.stringify(tables)]);
  const lines = new Lines(child);
  await lines.until(/^ready$/);
  lab.ip(
    [
      `link add vx0 type vxlan id ${VNI} local ${kernel.address} dstport 4789 nolearning`,
      `link set vx0 address ${formatMac(macOfIpv4(parseIpv4(THEIRS)))} mtu 1450 up`,
      `addr add ${THEIRS}/24 dev vx0`,
    ],
    kernel,
  );
  const mac = formatMac(macOfIpv4(parseIpv4(OURS)));
  // The first entry carries data; the second one ARP, which the agent answers.
  for (const entry of [mac, '00:00:00:00:00:00']) {
    const to = ['dev', 'vx0', 'dst', host.address];
    await lab.exec(kernel, ['bridge', 'fdb', 'append', entry, ...to]);
  }
  const counters = async () => {
    child.stdin?.write('\n');
    return JSON.parse(await lines.next());
  };
  return { lab, task, kernel, counters };
}

async function move(
  lab: Lab,
  from: string | LabHost,
  to: string | LabHost,
  address: string,
): Promise<{ readonly sent: string; readonly received: string }> {
  const script = new URL('../support/stream.ts', import.meta.url).pathname;
  const received = new Lines(lab.spawn(to, [NODE, script, 'serve', '5000']));
  await received.until(/^listening$/);
  const { stdout } = await lab.exec(from, [
    NODE,
    script,
    'send',
    address,
    '5000',
    `${MEGABYTES_100}`,
  ]);
  return { sent: stdout.trim(), received: await received.next() };
}

/** How many pings of 1, 2, … 1400 bytes payload were answered, one of each. */
async function answeredSizes(lab: Lab, from: string | LabHost, address: string): Promise<number> {
  const each = `seq 1 1400 | xargs -P 8 -I SIZE ping -c 1 -W 5 -q -s SIZE ${address} || true`;
  const { stdout } = await lab.exec(from, ['sh', '-c', each], 120_000);
  return [...stdout.matchAll(/ 1 received/g)].length;
}

async function exchange(t: Test, threads: number): Promise<void> {
  const lab = new Lab();
  t.teardown(() => lab.close());
  const { task, kernel, counters } = await setUp(lab, threads);

  t.equal(await answeredSizes(lab, task, THEIRS), 1_400, 'pings of 1 to 1400 bytes from our port');
  t.equal(
    await answeredSizes(lab, kernel, OURS),
    1_400,
    'pings of 1 to 1400 bytes from the kernel',
  );
  const large = ['ping', '-c', '2', '-W', '2', '-s', '60000'];
  await t.resolves(lab.exec(task, [...large, THEIRS]), 'fragments of a 60,000-byte ping, ours');
  await t.resolves(lab.exec(kernel, [...large, OURS]), 'fragments of a 60,000-byte ping, theirs');

  const out = await move(lab, task, kernel, THEIRS);
  t.equal(out.received, out.sent, '100 MB to the kernel arrive as they were sent');
  const back = await move(lab, kernel, task, OURS);
  t.equal(back.received, back.sent, '100 MB from the kernel arrive as they were sent');

  const { traffic, drops } = await counters();
  t.ok((traffic['arp-replies'] ?? 0) >= 2, 'the agent answered ARP on both sides');
  t.ok(
    (traffic['port-bytes-in'] ?? 0) / (traffic['port-frames-in'] ?? 1) > 2_000,
    'superframes were cut by us, not by the task’s kernel',
  );
  const unexpected = Object.entries(drops).filter(
    ([reason, count]) => count > 0 && !['multicast', 'nd-unknown'].includes(reason),
  );
  t.same(unexpected, [], 'nothing was dropped but multicast and probes for duplicates');
}

for (const threads of [1, 2]) {
  test(
    `a kernel VXLAN device is a valid peer of ${threads} packet threads`,
    {
      skip: !canMakeLab() && 'needs root',
      timeout: 240_000,
    },
    (t) => exchange(t, threads),
  );
}
