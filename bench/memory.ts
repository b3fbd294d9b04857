import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Cluster } from '../test/support/cluster.ts';
import { Lines } from '../test/support/lines.ts';
import {
  ECHO_PORT,
  SERVER_COMMAND,
  statusOf,
  TestClient,
  vipOf,
} from '../test/support/services.ts';
import type { Ground, Path } from './ground.ts';
import { sendTcp, sendUdp } from './iperf.ts';
import { type Row, row } from './rows.ts';
import { agents, plainTasks } from './weft.ts';

/** An agent is at rest when it has had nothing to do for so long. */
const REST_SECONDS = 15;
/** A first load, after which buffers have their size. */
const WARM_UP_SECONDS = 5;
/** A load after which short connections have used every page of the flow table: what grows then, leaks. */
const FILL_SECONDS = 20;
/** One round of the long load; TCP and small datagrams take turns. */
const ROUND_SECONDS = 10;
const REQUESTS_AT_ONCE = 200;
/** Every flow of a short connection or datagram has expired after it: the longest limit is UDP's 180 s. */
const FLOW_EXPIRY_SECONDS = 240;

/** Resident memory of an agent with a running service before it has carried anything, and after. */
export async function* memoryAtRest(ground: Ground): AsyncGenerator<Row> {
  const path = await vipPath(ground);
  const cluster = await ground.once(agents);
  await delay(REST_SECONDS * 1_000);
  const atRest = residentMegabytes(cluster);
  await sendTcp(ground.lab, path, WARM_UP_SECONDS, 1);
  yield row('rss-at-rest', 'MB', [atRest], 'after-run', [residentMegabytes(cluster)]);
}

/** Memory of flows that have expired goes back to the system within two rounds of the table, 8 s each. */
const RELEASE_SECONDS = 20;

/**
 * Resident memory and flows of agents before and after `seconds` of full load by a service's VIP: TCP over
 * eight connections and small datagrams in turn, with short connections beside them, so that the flow
 * table fills. Flows are counted when those of the load must have expired, and memory once more after that;
 * one connection stays open all the time.
 *
 * @throws {Error} if that connection, or every short one, was lost
 */
export async function* memoryAfter(ground: Ground, seconds: number): AsyncGenerator<Row> {
  const { lab } = ground;
  const path = await vipPath(ground);
  const cluster = await ground.once(agents);
  await new Lines(lab.spawn(path.to, SERVER_COMMAND)).next();
  const client = await TestClient.start(lab, path.from);
  await client.open('kept', path.address, ECHO_PORT);
  const flows = await flowCount(cluster);
  await delay(REST_SECONDS * 1_000);
  const before = [residentMegabytes(cluster)];
  await load(ground, path, client, FILL_SECONDS);
  const megabytes = residentMegabytes(cluster);
  await load(ground, path, client, seconds);
  const after = [residentMegabytes(cluster)];
  yield row(`rss-after-${seconds}s`, 'MB', after, `after-${FILL_SECONDS}s`, [megabytes]);
  const left = await flowsLeft(cluster, flows);
  yield row(`flows-after-${seconds}s`, 'flows', [left], 'before', [flows]);
  await delay(RELEASE_SECONDS * 1_000);
  yield row(`rss-rest-after-${seconds}s`, 'MB', [residentMegabytes(cluster)], 'before', before);
  if ((await client.say('kept', 'still there')) === null) {
    throw new Error('a connection that was open all the time was lost');
  }
}

/** From one task to the service of the other, by its VIP. */
async function vipPath(ground: Ground): Promise<Path> {
  const [from, to] = await ground.once(plainTasks);
  const { vip } = await vipOf(await ground.once(agents), 'plain-b', 'plain');
  return { from: from.netns, to: to.netns, address: vip };
}

/** Loads `path` for about `seconds`. */
async function load(
  { lab }: Ground,
  path: Path,
  client: TestClient,
  seconds: number,
): Promise<void> {
  const end = performance.now() + seconds * 1_000;
  const secondsLeft = (): number => Math.ceil((end - performance.now()) / 1_000);
  let answers = 0;
  const shortConnections = async (): Promise<void> => {
    while (secondsLeft() > 0) {
      const replies = await client.get([`http://${path.address}`], REQUESTS_AT_ONCE);
      answers += replies.filter(({ ok }) => ok).length;
    }
  };
  const streams = async (): Promise<void> => {
    for (let round = 0; secondsLeft() > 0; round += 1) {
      const length = Math.min(ROUND_SECONDS, secondsLeft());
      if (round % 2 === 0) await sendTcp(lab, path, length, 8);
      else await sendUdp(lab, path, length, 64);
    }
  };
  await Promise.all([shortConnections(), streams()]);
  if (answers === 0) throw new Error('no short connection got an answer under load');
}

/** How many flows there are when no more than `expected` are left, or when all others have had their time. */
async function flowsLeft(cluster: Cluster, expected: number): Promise<number> {
  const deadline = performance.now() + FLOW_EXPIRY_SECONDS * 1_000;
  for (;;) {
    const flows = await flowCount(cluster);
    if (flows <= expected || performance.now() > deadline) return flows;
    await delay(1_000);
  }
}

/** Flows that the two agents track together. */
async function flowCount({ agents }: Cluster): Promise<number> {
  const statuses = await Promise.all(agents.map(statusOf));
  return statuses
    .flatMap(({ dataPlane }) => Object.values(dataPlane?.flows ?? {}))
    .reduce((sum, count) => sum + count, 0);
}

/** Of the agent that has most (proc_pid_status(5)): the manager's, as a rule. */
function residentMegabytes({ agents }: Cluster): number {
  const kibibytes = agents.map(({ pid }) =>
    Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]),
  );
  return (Math.max(...kibibytes) * 1_024) / 1e6;
}
