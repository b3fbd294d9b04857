// The keys of gossip on three hosts: rotated, missed, kept and forgotten; and a cluster that starts in plaintext.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { test } from 'tap';
import { encodeMessage } from '../../src/gossip/messages.ts';
import { type Cluster, eventually, type LabAgent, startCluster } from '../support/cluster.ts';
import { canMakeLab, Lab, type LabHost } from '../support/lab.ts';
import { aliveMembers, statusOf } from '../support/services.ts';

/** What encrypted packets begin with: the version of memberlist's encryption that has no padding. */
const SEALED = 1;

/** Counts gossip packets that leave, by whether they begin as sealed ones do. */
const WATCH = `table inet watch {
  counter plain {}
  counter sealed {}
  chain out {
    type filter hook output priority 0;
    udp dport 7946 @th,64,8 ${SEALED} counter name sealed return
    udp dport 7946 counter name plain
  }
}`;

async function seen(lab: Lab, host: LabHost): Promise<{ plain: number; sealed: number }> {
  const command = ['nft', '-j', 'list', 'counters', 'table', 'inet', 'watch'];
  const { stdout } = await lab.exec(host, command);
  const { nftables } = JSON.parse(stdout) as {
    nftables: { counter?: { name: string; packets: number } }[];
  };
  const counts = new Map(
    nftables.flatMap(({ counter }) => (counter ? [[counter.name, counter.packets]] : [])),
  );
  return { plain: counts.get('plain') ?? 0, sealed: counts.get('sealed') ?? 0 };
}

/** The agent's metrics, by name and labels. */
async function metricsOf(lab: Lab, agent: LabAgent): Promise<ReadonlyMap<string, number>> {
  const script = `process.stdout.write(await (await fetch('http://127.0.0.1:9477/metrics')).text())`;
  const { stdout } = await lab.exec(agent.host, [process.execPath, '-e', script]);
  const samples = [...stdout.matchAll(/^(weft_\S+) (\S+)$/gm)];
  return new Map(samples.map(([, name = '', value]) => [name, Number(value)]));
}

/** How often each agent could not open something, or would not take it. */
async function refusals(lab: Lab, agents: readonly LabAgent[]): Promise<readonly string[]> {
  const all = await Promise.all(agents.map((agent) => metricsOf(lab, agent)));
  return all.flatMap((metrics, at) =>
    [...metrics]
      .filter(([name]) => /^weft_gossip_faults_total.*(encrypt|decrypt)/.test(name))
      .map(([name, value]) => `${agents[at]?.host.name} ${name} ${value}`),
  );
}

const NO_SERF = spawnSync('serf', ['version']).error !== undefined && 'needs serf';

interface KeyFile {
  readonly mode: string;
  readonly keys: readonly { readonly id: string; readonly key: string }[];
}

function keyFile(agent: LabAgent): KeyFile {
  return JSON.parse(readFileSync(`${agent.stateDirectory}/gossip-keys.json`, 'utf8'));
}

async function allAlive(agents: readonly LabAgent[], count = agents.length): Promise<void> {
  await eventually('all agents see each other', async () => {
    const members = await Promise.all(agents.map(aliveMembers));
    return members.every((names) => names.length === count) || undefined;
  });
}

function lostMembers(agents: readonly LabAgent[]): readonly string[] {
  return agents.flatMap(({ log }) => log.match(/^.*"change":"failed".*$/gm) ?? []);
}

/** What is shown of all keys on the manager: id, state, nodes. */
async function keysOf({ manager }: Cluster): Promise<readonly Record<string, string>[]> {
  return await manager.list('gossip', 'key', 'list');
}

test('keys of gossip', { skip: !canMakeLab() && 'needs root', timeout: 240_000 }, async (t) => {
  const lab = new Lab();
  t.teardown(() => lab.close());
  const outside = lab.addHost('client');
  const cluster = await startCluster(lab, 3);
  const { manager, agents } = cluster;
  const [first, second, third] = agents as [LabAgent, LabAgent, LabAgent];
  for (const { host } of agents) await lab.exec(host, ['nft', WATCH]);
  await allAlive(agents);

  t.test('every node holds them, and nothing but its file shows them', async (t) => {
    const [key] = keyFile(first).keys;
    t.ok(key !== undefined);
    for (const agent of agents) {
      t.same(keyFile(agent), { mode: 'strict', keys: [key] });
      t.equal(statSync(`${agent.stateDirectory}/gossip-keys.json`).mode & 0o777, 0o600);
      t.equal((await metricsOf(lab, agent)).get('weft_gossip_keys'), 1);
      const { stdout: status } = await agent.weft('status', '--format', 'json');
      for (const [where, text] of [
        ['log', agent.log],
        ['status', status],
        ['node.json', readFileSync(`${agent.stateDirectory}/node.json`, 'utf8')],
        ['assignments', readFileSync(`${agent.stateDirectory}/assignments.json`, 'utf8')],
      ] as const) {
        t.notOk(text.includes(key?.key ?? ''), where);
      }
    }
    t.match(await keysOf(cluster), [{ ID: key?.id, State: 'primary', Nodes: '3/3' }]);
    t.notOk((await manager.weft('gossip', 'key', 'list')).stdout.includes(key?.key ?? ''));
    const shown = await manager.list('gossip', 'key', 'list', '--show-keys');
    t.equal(shown[0]?.Key, key?.key);
    t.ok((await metricsOf(lab, manager)).has('weft_gossip_key_age_seconds'));
  });

  t.test('nodes tell the same of members and endpoints', async (t) => {
    const digests = await eventually('they have the same digest', async () => {
      const all = await Promise.all(agents.map((agent) => agent.list('endpoints', '--digest')));
      const texts = new Set(all.map((lines) => JSON.stringify(lines)));
      return texts.size === 1 ? all[0] : undefined;
    });
    t.match(digests.at(-1), { digest: /^[0-9a-f]{16}$/ });
    t.equal(digests.at(0)?.network, 'ingress');
    for (const agent of agents) {
      const members = await agent.list('gossip', 'members');
      t.same(members.map(({ Name }) => Name).sort(), ['host1', 'host2', 'host3']);
      t.same(new Set(members.map(({ State }) => State)), new Set(['alive']));
      for (const { Name, Tags } of members) t.match(Tags, `role=weft,hostname=${Name},version=`);
    }
  });

  t.test('a rotation reaches all nodes, and no packet is lost to it', async (t) => {
    const [before] = keyFile(first).keys;
    const { stdout } = await manager.weft('gossip', 'key', 'rotate');
    t.match(stdout, /verify: all nodes have the keys\n$/);
    const id = stdout.split('\n')[0];
    for (const agent of agents) {
      t.same(
        keyFile(agent).keys.map((key) => key.id),
        [id, before?.id],
      );
    }
    t.match(await keysOf(cluster), [
      { ID: before?.id, State: 'installed', Nodes: '3/3' },
      { ID: id, State: 'primary', Nodes: '3/3' },
    ]);
    t.same(lostMembers(agents), []);
    t.same(await refusals(lab, agents), []);
    await allAlive(agents);
  });

  t.test('nothing readable is on the wire', async (t) => {
    for (const { host } of agents) {
      const { plain, sealed } = await seen(lab, host);
      t.equal(plain, 0, `${host.name} sent nothing in plaintext`);
      t.ok(sealed > 0, `${host.name} sent ${sealed} sealed packets`);
    }
  });

  t.test('a node that was away for two rotations comes back by its session', async (t) => {
    await third.stop();
    for (const _ of [1, 2]) {
      const { stdout } = await manager.weft('gossip', 'key', 'rotate');
      t.match(stdout, /Nodes that are down get the keys when they come back: host3\n/);
    }
    t.equal(keyFile(first).keys.length, 3, 'the oldest one is gone');
    const old = keyFile(third).keys.map(({ id }) => id);
    t.notOk(old.includes(keyFile(first).keys[0]?.id ?? ''));
    await third.start();
    await eventually('it has the keys', async () => {
      const { keys } = keyFile(third);
      return keys[0]?.id === keyFile(first).keys[0]?.id || undefined;
    });
    await allAlive(agents);
    t.match(await keysOf(cluster), [{ Nodes: '3/3' }, { Nodes: '3/3' }, { Nodes: '3/3' }]);
  });

  t.test('a node starts with its keys while no manager answers', async (t) => {
    await manager.stop();
    await second.kill();
    await second.start();
    await eventually('the two workers see each other', async () => {
      const members = await Promise.all([second, third].map(aliveMembers));
      return members.every((names) => names.length === 2) || undefined;
    });
    t.equal((await metricsOf(lab, second)).get('weft_gossip_keys'), 3);
    t.equal((await statusOf(second)).cluster?.connected, false);
    await third.kill();
    rmSync(`${third.stateDirectory}/gossip-keys.json`);
    await third.start();
    t.match(third.log, /no gossip keys are known: gossip waits for a manager/);
    t.equal((await metricsOf(lab, third)).get('weft_gossip_keys'), 0);
    t.equal((await aliveMembers(third)).length, 1, 'without keys it says nothing');
    await manager.start();
    await allAlive(agents);
  });

  t.test('keys are installed, used and removed by hand', async (t) => {
    const given = Buffer.alloc(16, 7).toString('base64');
    t.match(await manager.refused('gossip', 'key', 'install', given), /there are 3 keys/);
    const [spare] = await keysOf(cluster);
    await manager.weft('gossip', 'key', 'remove', spare?.ID ?? '');
    const { stdout } = await manager.weft('gossip', 'key', 'install', given);
    const id = stdout.split('\n')[0] ?? '';
    t.equal(keyFile(third).keys.at(-1)?.key, given);
    await manager.weft('gossip', 'key', 'use', id);
    for (const agent of agents) t.equal(keyFile(agent).keys[0]?.id, id);
    t.match(await manager.refused('gossip', 'key', 'remove', id), /it is the primary one/);
    await allAlive(agents);
  });

  t.test('a host without a key is not heard', async (t) => {
    const before = await metricsOf(lab, first);
    // A ping's type is 0, which is what one version of the encryption begins with.
    const name = 'weft_gossip_faults_total{reason="packet_undecryptable"}';
    await sendPing(lab, outside, first);
    await eventually('its packet is dropped', async () => {
      const after = await metricsOf(lab, first);
      return (after.get(name) ?? 0) > (before.get(name) ?? 0) || undefined;
    });
    t.pass('it is counted');
  });

  t.test('an agent of serf gets in by the key that is shown', { skip: NO_SERF }, async (t) => {
    const keys = await manager.list('gossip', 'key', 'list', '--show-keys');
    const key = keys.find(({ State }) => State === 'primary')?.Key ?? '';
    const serf = lab.spawn(outside, [
      ...['serf', 'agent', '-node=stranger', `-bind=${outside.address}`, `-encrypt=${key}`],
      ...[`-join=${first.host.address}`, '-rpc-addr=127.0.0.1:7373'],
    ]);
    serf.stdout?.resume();
    serf.stderr?.resume();
    for (const agent of agents) {
      const member = await eventually(`${agent.host.name} sees it`, async () => {
        const members = await agent.list('gossip', 'members');
        return members.find(({ ID, State }) => ID === 'stranger' && State === 'alive');
      });
      t.match(member, { Name: 'stranger', Address: `${outside.address}:7946` });
    }
    const { stdout } = await lab.exec(outside, ['serf', 'members', '-status=alive']);
    t.equal(stdout.trim().split('\n').length, 1 + agents.length, 'and it sees all nodes');
  });

  t.test('a node that leaves forgets the keys', async (t) => {
    await third.weft('leave');
    t.notOk(existsSync(`${third.stateDirectory}/gossip-keys.json`));
    t.ok(existsSync(`${second.stateDirectory}/gossip-keys.json`));
  });
});

/** Sends what memberlist would answer, in plaintext. */
async function sendPing(lab: Lab, from: LabHost, to: LabAgent): Promise<void> {
  const ping = encodeMessage({ kind: 'ping', sequence: 1, node: '' });
  const script = `
    const socket = require('node:dgram').createSocket('udp4');
    socket.send(Buffer.from('${Buffer.from(ping).toString('hex')}', 'hex'), 7946, '${to.host.address}',
      () => socket.close());`;
  await lab.exec(from, [process.execPath, '-e', script]);
}

test('a cluster in plaintext', {
  skip: !canMakeLab() && 'needs root',
  timeout: 120_000,
}, async (t) => {
  const lab = new Lab();
  t.teardown(() => lab.close());
  const options = [
    '--gossip-encryption',
    'off',
    '--gossip-label',
    'blue',
    '--gossip-profile',
    'local',
  ];
  const cluster = await startCluster(lab, 3, options);
  const { manager, agents } = cluster;
  for (const { host } of agents) await lab.exec(host, ['nft', WATCH]);
  await allAlive(agents);

  t.test('works, and has no keys', async (t) => {
    t.same(await keysOf(cluster), []);
    for (const agent of agents) {
      t.notOk(existsSync(`${agent.stateDirectory}/gossip-keys.json`));
      await eventually(`${agent.host.name} sends`, async () => {
        return (await seen(lab, agent.host)).plain > 10 || undefined;
      });
    }
    t.same(await refusals(lab, agents), []);
  });

  t.test('is encrypted by a rotation, and loses nobody', async (t) => {
    await manager.weft('gossip', 'key', 'rotate');
    t.match(await keysOf(cluster), [{ State: 'primary', Nodes: '3/3' }]);
    for (const agent of agents) t.equal(keyFile(agent).mode, 'strict');
    t.same(lostMembers(agents), []);
    t.same(await refusals(lab, agents), []);
    await allAlive(agents);
  });
});
