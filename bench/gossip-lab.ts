import { setTimeout as delay } from 'node:timers/promises';
import { type Cluster, eventually, type LabAgent, startCluster } from '../test/support/cluster.ts';
import { Lab, type LabHost } from '../test/support/lab.ts';
import { aliveMembers, runningTasks, statusOf } from '../test/support/services.ts';
import { eventsOf, failedMs } from './agent-events.ts';
import { visibleMs } from './endpoint-visible.ts';
import { buildPackage } from './package.ts';
import { SERF, type SerfHost, startSerf, untilWhole } from './peers/serf.ts';
import { type BenchOptions, type Row, row } from './rows.ts';

/** Agents of each kind. */
const NODES = 5;
const CUT_SECONDS = 60;
const LOSS_PERCENT = 30;
/** Endpoints that come, of which the percentiles are. */
const CHANGES = 100;
const WAIT_MS = 300_000;
/** Before each kill: a member that failed and came back makes others patient (Lifeguard), a second for each ping. */
const SETTLE_MS = 10_000;
/** How often logs are looked at for losses, so that none has left them. */
const LOOK_MS = 2_000;

/** Names of the rows. */
export const gossipLabRowNames: readonly string[] = [
  'endpoint-visible-p50',
  'endpoint-visible-p99',
  `failed-everywhere-${NODES}`,
  `partition-heal-${NODES}`,
  `loss${LOSS_PERCENT}-false-deaths`,
];

/** Both clusters, in one lab. */
export interface Sides {
  readonly lab: Lab;
  readonly weft: Cluster;
  readonly serf: readonly SerfHost[];
}

type Measure = (sides: Sides, options: BenchOptions) => Promise<Row[]>;

/** Endpoints come first: later, tasks are moved away from nodes that were lost. */
const MEASURES: readonly { readonly rows: readonly string[]; readonly measure: Measure }[] = [
  { rows: gossipLabRowNames.slice(0, 2), measure: endpointVisible },
  { rows: gossipLabRowNames.slice(2, 3), measure: failedEverywhere },
  { rows: gossipLabRowNames.slice(3, 4), measure: partitionHeal },
  { rows: gossipLabRowNames.slice(4), measure: falseDeaths },
];

/**
 * Five agents beside five agents of serf, on one underlay of network namespaces: both lose a member, the
 * link between two halves, or packets at the same moments.
 */
export async function* gossipLabRows(
  options: BenchOptions,
  complain: (text: string, isFailure: boolean) => void,
): AsyncGenerator<Row> {
  const { only } = options;
  const lab = new Lab();
  try {
    const sides = await build(lab);
    for (const { rows, measure } of MEASURES) {
      if (only !== undefined && !rows.some((name) => only.includes(name))) continue;
      try {
        for (const made of await measure(sides, options)) {
          if (only?.includes(made.name) ?? true) yield made;
        }
      } catch (error) {
        complain(`${rows.join(', ')}: ${error instanceof Error ? error.message : error}`, true);
      }
    }
  } finally {
    await lab.close();
  }
}

async function build(lab: Lab): Promise<Sides> {
  const hosts = Array.from({ length: NODES }, (_, index) => lab.addHost(`serf${index + 1}`));
  const weft = await startCluster(lab, NODES, [], await buildPackage());
  const serf = await startSerf(lab, hosts);
  await untilAlive(weft);
  await weft.manager.weft('network', 'create', 'app');
  for (const { host } of weft.agents) {
    for (const kind of ['client', 'probe']) {
      await weft.manager.weft(
        ...['service', 'create', '-d', '--name', `${kind}-${host.name}`, '--network', 'app'],
        ...['--runtime', 'process', '--restart-delay', '1s'],
        ...['--constraint', `node.hostname==${host.name}`, 'sleep', 'infinity'],
      );
    }
  }
  return { lab, weft, serf };
}

async function untilAlive({ agents }: Cluster): Promise<void> {
  await eventually(
    'all agents are alive to all',
    async () => {
      const alive = await Promise.all(agents.map(aliveMembers));
      return alive.every((names) => names.length === agents.length) || undefined;
    },
    WAIT_MS,
  );
}

async function endpointVisible({ lab, weft, serf }: Sides): Promise<Row[]> {
  const ours = await visibleMs(lab, weft, CHANGES);
  const theirs: number[] = [];
  for (let turn = 0; turn < CHANGES; turn += 1) theirs.push(await eventMs(serf, turn));
  return [
    row('endpoint-visible-p50', 'ms', [at(ours, 0.5)], SERF, [at(theirs, 0.5)]),
    row('endpoint-visible-p99', 'ms', [at(ours, 0.99)], SERF, [at(theirs, 0.99)]),
  ];
}

/** From when an agent of serf has an event until all others have it. */
async function eventMs(serf: readonly SerfHost[], turn: number): Promise<number> {
  const name = `event-${turn}`;
  const from = serf[turn % serf.length];
  await from?.command('event', '-coalesce=false', name);
  const arrivals = await eventually(`${name} reaches all`, async () => {
    const times = serf.map((agent) => agent.firstMs('user-event', name, 0));
    return times.every((atMs) => atMs !== undefined) ? times : undefined;
  });
  return Math.max(...arrivals) - Math.min(...arrivals);
}

async function failedEverywhere(sides: Sides, { runs }: BenchOptions): Promise<Row[]> {
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let run = 0; run < runs; run += 1) {
    const [weft, serf] = await killBoth(sides, 1 + (run % (NODES - 1)));
    ours.push(weft);
    theirs.push(serf);
  }
  return [row(`failed-everywhere-${NODES}`, 'ms', ours, SERF, theirs)];
}

/** Kills a member of each kind, and lets it come back when all others have noticed. */
async function killBoth({ weft, serf }: Sides, index: number): Promise<[number, number]> {
  const agent = member(weft.agents, index);
  const peer = member(serf, index);
  const nodeId = (await statusOf(agent)).node.id ?? '';
  const others = weft.agents.filter((other) => other !== agent);
  const peers = serf.filter((other) => other !== peer);
  await delay(SETTLE_MS);
  const killedMs = Date.now();
  await Promise.all([agent.kill(), peer.kill()]);
  const times = await Promise.all([
    lastMs('weft', () => others.map((other) => failedMs(other, nodeId, killedMs))),
    lastMs(SERF, () =>
      peers.map((other) => other.firstMs('EventMemberFailed', peer.host.name, killedMs)),
    ),
  ]);
  await Promise.all([agent.start(), peer.start(member(peers, 0).host)]);
  await Promise.all([untilAlive(weft), untilWhole(serf)]);
  return [times[0] - killedMs, times[1] - killedMs];
}

/** Waits until all have a time. @returns the last one */
async function lastMs(what: string, times: () => readonly (number | undefined)[]): Promise<number> {
  const all = await eventually(
    `all of ${what} notice`,
    async () => {
      const found = times().filter((atMs) => atMs !== undefined);
      return found.length === times().length ? found : undefined;
    },
    WAIT_MS,
  );
  return Math.max(...all);
}

async function partitionHeal(sides: Sides, { runs }: BenchOptions): Promise<Row[]> {
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let run = 0; run < runs; run += 1) {
    const [weft, serf] = await cutBoth(sides);
    ours.push(weft);
    theirs.push(serf);
  }
  return [row(`partition-heal-${NODES}`, 'ms', ours, SERF, theirs)];
}

/** Cuts two of each kind off the other three; a task ends on both sides meanwhile. */
async function cutBoth({ lab, weft, serf }: Sides): Promise<[number, number]> {
  const isFar = (_: unknown, index: number): boolean => index >= 2;
  const far = [...weft.agents.filter(isFar), ...serf.filter(isFar)];
  const probes = await Promise.all(
    [0, NODES - 1].map((index) =>
      runningTasks(weft, `probe-${member(weft.agents, index).host.name}`, 1, WAIT_MS),
    ),
  );
  lab.cut(far.map(({ host }) => host));
  await delay((CUT_SECONDS * 1_000) / 2);
  for (const [task] of probes) if (task !== undefined) process.kill(task.pid, 'SIGKILL');
  await delay((CUT_SECONDS * 1_000) / 2);
  await requireApart(weft);
  const mendedMs = Date.now();
  lab.mend();
  const [equalMs, joinedMs] = await Promise.all([
    digestsEqualMs(weft),
    lastMs(SERF, () =>
      serf.flatMap((agent, index) =>
        serf
          .filter((_, other) => index < 2 !== other < 2)
          .map(({ host }) => agent.firstMs('EventMemberJoin', host.name, mendedMs)),
      ),
    ),
  ]);
  await Promise.all([untilAlive(weft), untilWhole(serf)]);
  return [equalMs - mendedMs, joinedMs - mendedMs];
}

/** @throws {Error} if a node still shows endpoints of the other side, so that the cut was none */
async function requireApart({ agents }: Cluster): Promise<void> {
  for (const [index, agent] of agents.entries()) {
    const nodes = (await agent.list('endpoints')).map(({ node }) => node);
    const others = agents.filter((_, other) => index < 2 !== other < 2);
    const shown = others.find(({ host }) => nodes.includes(host.name));
    if (shown === undefined) continue;
    throw new Error(`${agent.host.name} shows endpoints of ${shown.host.name} beyond the cut`);
  }
}

/** When all nodes show the same of all: each one's own is what it has, so nothing stale is left then. */
async function digestsEqualMs({ agents }: Cluster): Promise<number> {
  return await eventually(
    'all digests are equal',
    async () => {
      const all = await Promise.all(
        agents.map(async ({ api }) =>
          JSON.stringify(await api.json('GET', '/weft/endpoints/digest')),
        ),
      );
      return new Set(all).size === 1 ? Date.now() : undefined;
    },
    WAIT_MS,
  );
}

/** All packets of one node of each kind are lost at random, in both directions. */
async function falseDeaths(sides: Sides, { longSeconds }: BenchOptions): Promise<Row[]> {
  const { lab, weft, serf } = sides;
  const lossy: LabHost[] = [member(weft.agents, 2).host, member(serf, 2).host];
  const sinceMs = Date.now();
  for (const host of lossy) await lab.exec(host, ['nft', LOSS]);
  const ours = new Set<string>();
  while (Date.now() < sinceMs + longSeconds * 1_000) {
    await delay(LOOK_MS);
    for (const agent of weft.agents) for (const death of deaths(agent, sinceMs)) ours.add(death);
  }
  const theirs = serf.flatMap(({ events }) =>
    events.filter(({ kind, atMs }) => kind === 'EventMemberFailed' && atMs >= sinceMs),
  );
  for (const host of lossy) await lab.exec(host, ['nft', 'delete', 'table', 'inet', 'weft-loss']);
  return [row(`loss${LOSS_PERCENT}-false-deaths`, '', [ours.size], SERF, [theirs.length])];
}

const LOSS = `table inet weft-loss {
  chain in {
    type filter hook input priority -300;
    iifname "eth0" numgen random mod 100 < ${LOSS_PERCENT} drop
  }
  chain out {
    type filter hook output priority -300;
    oifname "eth0" numgen random mod 100 < ${LOSS_PERCENT} drop
  }
}`;

function deaths(agent: LabAgent, sinceMs: number): readonly string[] {
  return eventsOf(agent, sinceMs)
    .filter(({ change }) => change === 'failed')
    .map(({ atMs, node }) => `${agent.host.name} ${atMs} ${node}`);
}

function member<Member>(members: readonly Member[], index: number): Member {
  const found = members[index];
  if (found === undefined) throw new RangeError(`there is no member ${index}`);
  return found;
}

/** The value that `share` of all do not exceed. */
function at(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}
