import { randomBytes } from 'node:crypto';
import { type Test, test } from 'tap';
import { parseIpv4 } from '../../src/core/address.ts';
import {
  configureInterface,
  createNetns,
  netnsPath,
  runInNetns,
  sweepNetns,
} from '../../src/io/linux/netns.ts';
import { closeTap } from '../../src/io/linux/tap.ts';
import { TapOpener } from '../../src/io/linux/tap-opener.ts';

const skip = process.getuid?.() !== 0 && 'needs root';

async function setUp(t: Test) {
  const prefix = `weft-t${randomBytes(4).toString('hex')}-`;
  const netns = `${prefix}a`;
  const opener = new TapOpener();
  t.teardown(async () => {
    await opener.close();
    await sweepNetns(prefix, new Set());
  });
  await createNetns(netns);
  const open = async (queues: number) => (await opener.open(netnsPath(netns), 'eth0', queues)).fds;
  return { netns, open, opener };
}

test('a TAP keeps the kind that it was made as, and is opened as what it is', {
  skip,
}, async (t) => {
  const { open } = await setUp(t);
  const single = await open(1);
  t.equal(single.length, 1);
  await t.rejects(open(1), { code: 'EBUSY' }, 'its only queue is taken');
  closeTap(single);
  const again = await open(2);
  t.equal(again.length, 1, 'one queue is all that it has');
  closeTap(again);
});

test('a TAP of several queues is opened with as many as there are threads', { skip }, async (t) => {
  const { open } = await setUp(t);
  for (const queues of [2, 1, 4, 1, 2]) {
    const fds = await open(queues);
    t.equal(fds.length, queues);
    t.equal(new Set(fds).size, queues);
    closeTap(fds);
  }
});

test('what is no TAP is refused', { skip }, async (t) => {
  const { netns, open } = await setUp(t);
  await runInNetns(netns)(['ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth1']);
  for (const queues of [1, 2]) {
    await t.rejects(open(queues), { code: 'EINVAL', message: /the TAP eth0 .*another kind/ });
  }
});

test('an interface of several queues has no queueing discipline', { skip }, async (t) => {
  const { netns, open } = await setUp(t);
  const fds = await open(2);
  const config = { name: 'eth0', address: parseIpv4('10.9.0.2'), prefix: 24, hasManyQueues: true };
  for (let times = 0; times < 2; times += 1) {
    await configureInterface(netns, config);
    const qdiscs = await runInNetns(netns)(['tc', 'qdisc', 'show', 'dev', 'eth0']);
    t.match(qdiscs, /^qdisc noqueue [^\n]*\n$/);
  }
  closeTap(fds);
});
