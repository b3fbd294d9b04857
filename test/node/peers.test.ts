import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'tap';
import { parseIpv4 } from '../../src/core/address.ts';
import { SILENT_LOG } from '../../src/core/capabilities.ts';
import { SYSTEM_CLOCK, SYSTEM_RANDOM } from '../../src/io/system.ts';
import type { Identity } from '../../src/node/identity.ts';
import { Peers } from '../../src/node/peers.ts';
import { TASK } from '../support/endpoint-value.ts';

/** Peers of a node `name` at a loopback address, which have not started to gossip. */
function makePeers(memoryFile: string, name: string, address: string) {
  const failed: string[] = [];
  let onChange: () => void = () => {};
  const identity: Identity = {
    clusterId: 'cluster',
    nodeId: name,
    nodeSecret: 'secret',
    role: 'worker',
    dataPathPort: 4789,
    advertiseAddress: address,
    gossipPort: 47_946,
    managers: [],
    generation: 1,
  };
  const peers = new Peers(
    {
      clock: SYSTEM_CLOCK,
      random: SYSTEM_RANDOM,
      log: SILENT_LOG,
      onChanged: () => onChange(),
      onFailed: (node) => failed.push(node),
    },
    {
      identity,
      settings: { encryption: false, profile: 'lan', compression: true },
      description: { hostname: `host-${name}`, agentVersion: '0' },
      memoryFile,
    },
  );
  /** Waits until something that the peers show is as wanted. */
  const until = (isSo: () => boolean): Promise<void> =>
    new Promise((resolve) => {
      onChange = () => {
        if (isSo()) resolve();
      };
      onChange();
    });
  return { peers, until, failed };
}

function entriesOf(peers: Peers): string[] {
  return Array.from(peers.entries(), ({ node, record: { taskId, state }, isRemembered }) =>
    [node, taskId, state, ...(isRemembered ? ['remembered'] : [])].join(' '),
  ).sort();
}

test('what a node announces is shown on another one, alike, and counted when it is applied', async (t) => {
  const directory = t.testdir();
  const [a, b] = [
    makePeers(join(directory, 'a.jsonl'), 'a', '127.0.0.2'),
    makePeers(join(directory, 'b.jsonl'), 'b', '127.0.0.3'),
  ];
  t.teardown(() => Promise.all([a.peers.close(), b.peers.close()]));
  const value = { ...TASK, mac: TASK.mac.toUpperCase() };
  const known = { node: 'b', key: 'endpoint/blue/10.0.1.5', value: { ...TASK, taskId: 'old' } };
  const vtep = { node: 'b', key: 'vtep', value: { address: '127.0.0.3', port: 4789 } };
  await writeFile(
    join(directory, 'a.jsonl'),
    [vtep, known].map((line) => `${JSON.stringify(line)}\n`).join(''),
  );
  await a.peers.recall();
  t.same(entriesOf(a.peers), ['b old active remembered']);
  a.peers.announce('endpoint/blue/10.0.1.6', { ...TASK, taskId: 't2', state: 'draining' });
  b.peers.announce('endpoint/blue/10.0.1.5', value);
  await Promise.all([a.peers.start(), b.peers.start()]);
  const wanted = ['a t2 draining', 'b t1 active'];
  const shows = (peers: Peers): boolean =>
    JSON.stringify(entriesOf(peers)) === JSON.stringify(wanted);
  const [onA, onB] = [a.until(() => shows(a.peers)), b.until(() => shows(b.peers))];
  a.peers.join(['127.0.0.3:47946']);
  await Promise.all([onA, onB]);
  const texts = (peers: Peers): string[] =>
    Array.from(peers.entries(), ({ node, text }) => `${node} ${text}`).sort();
  t.same(texts(a.peers), texts(b.peers));
  t.ok(texts(a.peers)[1]?.includes(TASK.mac), 'in one form');
  t.same(
    Array.from(a.peers.view.vteps(), ({ node, address, hostname }) => [node, address, hostname]),
    [['b', parseIpv4('127.0.0.3'), 'host-b']],
  );
  await a.peers.applyTimes.during(async () => {});
  const { count } = a.peers.applyTimes.seconds;
  t.ok(count > 0, 'changes of the other node are counted');
  a.peers.announce('endpoint/blue/10.0.1.6', undefined);
  await a.peers.applyTimes.during(async () => {});
  t.equal(a.peers.applyTimes.seconds.count, count, 'and those of this one are not');
});
