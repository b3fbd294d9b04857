// What `weft capture`, `weft flows` and the counters of peers show of real packets.
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type Test, test } from 'tap';
import { formatIpv4 } from '../../src/core/address.ts';
import { PROTO_ICMP } from '../../src/core/packet.ts';
import { eventually, type LabAgent, startCluster } from '../support/cluster.ts';
import { canMakeLab, Lab } from '../support/lab.ts';
import { type CapturedPacket, type CaptureFile, readPcapng } from '../support/pcapng-reader.ts';
import {
  HTTP_PORT,
  type PlacedTask,
  runningTasks,
  SERVER_COMMAND,
  TestClient,
  vipOf,
} from '../support/services.ts';

const WEFT = new URL('../../bin/weft.mjs', import.meta.url).pathname;
const PINGS = 5;
const PUBLISHED = 8080;

/** What a ping of a capture is, as `web.1 in request 10.0.1.5 > 10.0.1.6`. */
function pingOf({ interface: { name }, direction, bytes }: CapturedPacket): string | undefined {
  if (bytes.readUInt16BE(12) !== 0x0800 || bytes[23] !== PROTO_ICMP) return undefined;
  const kind = { 8: 'request', 0: 'reply' }[bytes[34] ?? -1];
  const [from, to] = [bytes.readUInt32BE(26), bytes.readUInt32BE(30)].map(formatIpv4);
  return `${name} ${direction} ${kind} ${from} > ${to}`;
}

/** How often each ping was seen. */
function pingsIn({ packets }: CaptureFile): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const ping of packets.map(pingOf)) {
    if (ping !== undefined) counts[ping] = (counts[ping] ?? 0) + 1;
  }
  return counts;
}

/** A `weft capture` that runs in a host, with its output in a file. */
class CaptureRun {
  readonly #ended: Promise<unknown>;
  readonly #file: string;
  readonly #child: ReturnType<Lab['spawn']>;
  #errors = '';

  constructor(lab: Lab, agent: LabAgent, name: string, args: readonly string[]) {
    this.#file = `${lab.folder}/${name}.pcapng`;
    const command = [process.execPath, WEFT, '-H', `unix://${agent.socket}`, 'capture', ...args];
    const script = `exec "$@" >${this.#file}`;
    this.#child = lab.spawn(agent.host, ['sh', '-c', script, 'sh', ...command]);
    this.#child.stderr?.on('data', (chunk) => {
      this.#errors += String(chunk);
    });
    this.#ended = once(this.#child, 'exit');
  }

  /** Waits until the capture has started: the section's header is there. */
  async started(): Promise<void> {
    await eventually('the capture starts', async () => {
      if (this.#child.exitCode !== null) throw new Error(this.#errors);
      return this.#read().length > 0 || undefined;
    });
  }

  /** Presses Ctrl-C, and reads what was written. */
  async interrupted(): Promise<CaptureFile> {
    this.#child.kill('SIGINT');
    return await this.ended();
  }

  async ended(): Promise<CaptureFile> {
    await this.#ended;
    return readPcapng(this.#read());
  }

  /** What it said at its end. */
  get errors(): string {
    return this.#errors;
  }

  #read(): Uint8Array {
    try {
      return readFileSync(this.#file);
    } catch {
      return new Uint8Array(0);
    }
  }
}

function shortName(service: string, { slot }: PlacedTask): string {
  return `${service}.${slot}`;
}

/** The same as Wireshark's own programs read it, if they are here. */
function readByWireshark(t: Test, file: string, expected: number): void {
  let output: string;
  try {
    output = execFileSync('capinfos', ['-M', '-c', file], { encoding: 'utf8' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    t.comment('capinfos is not installed');
    return;
  }
  t.match(output, new RegExp(`Number of packets:\\s+${expected}\\b`));
}

test('packets, flows and peers can be seen', {
  skip: !canMakeLab() && 'needs root',
  timeout: 240_000,
}, async (t) => {
  const lab = new Lab();
  t.teardown(() => lab.close());
  const outside = lab.addHost('client');
  const cluster = await startCluster(lab, 2);
  const { manager, agents } = cluster;
  const [, worker] = agents;
  for (const [name, port] of [
    ['app', PUBLISHED],
    ['other', PUBLISHED + 1],
  ] as const) {
    await manager.weft('network', 'create', name);
    await manager.weft(
      ...['service', 'create', '--name', name, '--runtime', 'process', '--network', name],
      ...['--replicas', '2', '-p', `${port}:${HTTP_PORT}`, ...SERVER_COMMAND],
    );
  }
  const app = await runningTasks(cluster, 'app', 2);
  const other = await runningTasks(cluster, 'other', 2);
  const on = (tasks: readonly PlacedTask[], agent: LabAgent | undefined): PlacedTask =>
    tasks.find((task) => task.agent === agent)!;
  const here = on(app, manager);
  const there = on(app, worker);
  const ping = (from: PlacedTask, to: PlacedTask, count = PINGS) =>
    lab.exec(from.netns, ['ping', '-c', String(count), '-i', '0.05', '-W', '5', to.address]);
  await ping(here, there, 1); // what follows finds its way at once

  await t.test('a capture has both ways of a ping, and nothing of another network', async (t) => {
    const runs = {
      all: new CaptureRun(lab, manager, 'all', ['app']),
      task: new CaptureRun(lab, manager, 'task', ['app', '--task', shortName('app', here)]),
      peer: new CaptureRun(lab, manager, 'peer', ['app', '--peer', 'host2', '-s', '60']),
      other: new CaptureRun(lab, manager, 'other', ['other']),
    };
    for (const run of Object.values(runs)) await run.started();
    t.match(
      await manager.refused('capture', 'app'),
      'Cannot start a capture: 4 run on this node already',
    );
    await Promise.all([ping(here, there), ping(on(other, manager), on(other, worker))]);
    const atTask = shortName('app', here);
    const fromTask = {
      [`${atTask} in request ${here.address} > ${there.address}`]: PINGS,
      [`${atTask} out reply ${there.address} > ${here.address}`]: PINGS,
    };
    const fromPeer = {
      [`peer host2 out request ${here.address} > ${there.address}`]: PINGS,
      [`peer host2 in reply ${there.address} > ${here.address}`]: PINGS,
    };
    const all = await runs.all.interrupted();
    t.same(pingsIn(all), { ...fromTask, ...fromPeer });
    t.same(pingsIn(await runs.task.interrupted()), fromTask);
    const peer = await runs.peer.interrupted();
    t.same(pingsIn(peer), fromPeer);
    t.ok(
      peer.packets.every(({ bytes, originalBytes }) => bytes.length === 60 && originalBytes === 98),
      'cut at the snaplen',
    );
    const elsewhere = Object.keys(pingsIn(await runs.other.interrupted()));
    t.equal(elsewhere.length, 4);
    t.notOk(elsewhere.some((one) => one.includes(here.address)));
    t.match(runs.all.errors, new RegExp(`^${all.packets.length} frames captured, 0 dropped\n$`));
    readByWireshark(t, `${lab.folder}/all.pcapng`, all.packets.length);
    const nowUs = Date.now() * 1_000;
    t.ok(
      all.packets.every(({ timeUs }) => Math.abs(nowUs - timeUs) < 60e6),
      'times are those of the wall clock',
    );
  });

  await t.test('a capture keeps superframes whole, and ends by its count', async (t) => {
    const [name, count] = [shortName('app', here), 200];
    const run = new CaptureRun(lab, manager, 'bulk', ['app', '--task', name, '-c', String(count)]);
    await run.started();
    const client = await TestClient.start(lab, here.netns);
    const { sent, received } = await client.upload(`http://${there.address}`, 8 * 1024 * 1024);
    t.equal(received, sent, 'the transfer is as it was sent');
    const { packets, interfaces } = await run.ended();
    t.equal(packets.length, count);
    t.same(
      interfaces.map((one) => one.name),
      [name],
    );
    t.ok(
      packets.some(
        ({ bytes, originalBytes }) => bytes.length > 10_000 && bytes.length === originalBytes,
      ),
      'some frames stand for many segments',
    );
  });

  await t.test('names that are not there are refused with those that are', async (t) => {
    for (const [args, message] of [
      [['nowhere'], /Cannot find "nowhere" among the networks: expected .*app/],
      [
        ['app', '--task', 'x'],
        /Cannot find "x" among the tasks of this node on the network app: expected app\.\d/,
      ],
      [['app', '--peer', 'x'], /Cannot find "x" among the peers: expected host2/],
    ] as const) {
      t.match(await manager.refused('capture', ...args), message);
    }
  });

  await t.test('flows are listed where they are balanced, and where they return', async (t) => {
    const { vip } = await vipOf(cluster, 'app', 'app');
    const inside = await TestClient.start(lab, here.netns);
    const client = await TestClient.start(lab, outside);
    await inside.get([`http://${vip}`], 4);
    await client.get([`http://${manager.host.address}:${PUBLISHED}`], 8);
    const flows = await manager.list('flows', '--network', 'app');
    const wayOf = (way: string) => flows.filter((flow) => flow.way === way);
    t.equal(wayOf('vip').length, 4);
    for (const flow of wayOf('vip')) {
      t.match(flow, { protocol: 'tcp', vip: `${vip}:80`, service: 'app', network: 'app' });
      t.ok(flow.client?.startsWith(`${here.address}:`));
    }
    t.equal(wayOf('published').length, 8);
    t.ok(wayOf('published').every((flow) => flow.client?.startsWith(`${outside.address}:`)));
    const returned = await worker!.list(
      'flows',
      '--service',
      'app',
      '--task',
      shortName('app', there),
    );
    const back = returned.filter((flow) => flow.way === 'return');
    t.ok(back.length > 0);
    for (const flow of back) {
      t.match(flow, {
        via: `${manager.host.address}:4789`,
        backend: `${there.address}:${HTTP_PORT}`,
      });
    }
    t.same(await manager.list('flows', '--service', 'other'), []);
    t.equal((await manager.list('flows', '--limit', '3')).length, 3);
  });

  await t.test('peers are counted apart', async (t) => {
    const peers = async () => {
      const status = (await manager.api.json('GET', '/weft/status')) as {
        readonly peers: readonly {
          readonly name: string;
          readonly address: string;
          readonly datagrams: { readonly in: number; readonly out: number };
          readonly bytes: { readonly in: number; readonly out: number };
        }[];
      };
      return status.peers;
    };
    const [before] = await peers();
    await ping(here, there);
    const [after] = await peers();
    t.match(after, { name: 'host2', address: worker!.host.address });
    t.ok((after?.datagrams.in ?? 0) - (before?.datagrams.in ?? 0) >= PINGS);
    t.ok((after?.datagrams.out ?? 0) - (before?.datagrams.out ?? 0) >= PINGS);
    t.ok((after?.bytes.out ?? 0) - (before?.bytes.out ?? 0) >= PINGS * 106);
    t.match((await manager.weft('status')).stdout, /^Peers\nNAME .*\nhost2 +172\./m);
    const { stdout } = await lab.exec(manager.host, [
      process.execPath,
      '-e',
      `process.stdout.write(await (await fetch('http://127.0.0.1:9477/metrics')).text())`,
    ]);
    const label = `node="${there.nodeId}",vtep="${worker!.host.address}"`;
    t.match(stdout, new RegExp(`^weft_peer_rx_datagrams_total{${label}} [1-9]`, 'm'));
    t.match(stdout, new RegExp(`^weft_peer_tx_bytes_total{${label}} [1-9]`, 'm'));
  });
});
