// `node bench/gossip-sim-run.ts NODES`: simulates a cluster of NODES in virtual time and prints what was
// measured, as one line of JSON. A process of its own: thousands of nodes in one process need a heap of
// their own kind, and give it back by its end.
import { type GossipTuning, LAN_TUNING } from '../src/gossip/config.ts';
import type { GossipEvent } from '../src/gossip/effects.ts';
import { Gossip } from '../src/gossip/gossip.ts';
import { GossipSim, type SimNode, seededRandom } from '../test/support/gossip-sim.ts';
import type { SimFigures } from './gossip-sim.ts';

const SEED = 1;
/** The table of a node in this bench holds what an agent without tasks announces: its VTEP. */
const ENDPOINTS = 1;
/** As in a cluster of one site, but for the bound on members. */
const TUNING: Partial<GossipTuning> = { membersMax: 20_000 };
/** Nodes without endpoint tables: what memberlist alone would send. */
const MEMBERS_ONLY: Partial<GossipTuning> = { ...TUNING, summaryIntervalMs: 1e9 };
/** SWIM without what Lifeguard adds (Dadgar et al., 2018): no local health, no dynamic suspicion, no buddies. */
const NO_LIFEGUARD: Partial<GossipTuning> = {
  ...TUNING,
  awarenessMaxMultiplier: 1,
  suspicionMaxTimeoutMult: 1,
  buddySystem: false,
};
const SETTLE_MS = 2_000;
/** Part of the nodes that change an endpoint each second, and part of them that are slow. */
const CHURN = 0.01;
const SLOW = 0.01;
/** A slow node's messages wait for so long, and pass for so long; each drawn evenly by its logarithm. */
const BLOCKED_MS = [500, 32_000] as const;
const PASSING_MS = [1, 4_000] as const;

const size = Number(process.argv[2]);
if (!Number.isInteger(size) || size < 3) {
  console.error(`Cannot simulate ${process.argv[2]} nodes: expected an integer of 3 or more`);
  process.exit(1);
}
const isLarge = size > 1_000;
/** Each change is told some 200,000 times in a cluster of ten thousand. */
const CHURN_MS = isLarge ? 1_000 : 10_000;
const REST_MS = isLarge ? 4_000 : 10_000;
/** Virtual time in which failures are counted: what slow nodes cause grows with the square of the nodes. */
const SLOW_MS = size > 100 ? 120_000 : 600_000;
const memory = memoryOf(size);
const membersOnly = atRest(new GossipSim({ seed: SEED, tuning: MEMBERS_ONLY, onEvent: ignore }), 0);
const delays = new Map<string, number[]>();
const sim = new GossipSim({ seed: SEED, tuning: TUNING, onEvent: noteDelay });
let changedAtMs = 0;
const rest = atRest(sim, ENDPOINTS);
const knowMs = allKnow(isLarge ? 3 : 20);
const churnBytes = churn();
const figures: SimFigures = {
  ...{ size, knowMs, churnBytes, memory },
  rest: { ...rest, membersOnlyBytes: membersOnly.bytes, membersOnlyCpuUs: membersOnly.cpuUs },
  ...(isLarge
    ? {}
    : {
        falsePositives: {
          lifeguard: falsePositives(TUNING),
          noLifeguard: falsePositives(NO_LIFEGUARD),
        },
      }),
};
console.log(JSON.stringify(figures));

function ignore(): void {}

/** Bytes that a node sends, and microseconds of CPU that it takes with its packets, per second. */
function atRest(sim: GossipSim, endpoints: number): { bytes: number; cpuUs: number } {
  sim.addKnown(size, endpoints);
  sim.run(SETTLE_MS);
  const before = sentBytes(sim);
  const cpu = process.cpuUsage();
  sim.run(REST_MS);
  const { user, system } = process.cpuUsage(cpu);
  const nodeSeconds = (size * REST_MS) / 1_000;
  return { bytes: (sentBytes(sim) - before) / nodeSeconds, cpuUs: (user + system) / nodeSeconds };
}

function sentBytes(sim: GossipSim): number {
  return [...sim.nodes.values()].reduce((sum, { bytes }) => sum + bytes, 0);
}

function noteDelay(_node: SimNode, event: GossipEvent): void {
  if (event.kind !== 'endpoints') return;
  for (const { key } of event.changed) delays.get(key)?.push(sim.nowMs - changedAtMs);
}

/** Milliseconds from a change on one node until each of the others has it, of `count` changes. */
function allKnow(count: number): number[] {
  const all: number[] = [];
  for (let change = 0; change < count; change++) {
    const name = `n${Math.floor(sim.random.next() * size)}`;
    sim.run(sim.random.next() * 1_000);
    const known: number[] = [];
    delays.set('endpoint/0', known);
    changedAtMs = sim.nowMs;
    sim.get(name).gossip.table.setLocal('endpoint/0', { change, state: 'draining' });
    sim.announce(name);
    const done = sim.runUntil(() => known.length === size - 1, 60_000);
    if (done === undefined) throw new Error(`Only ${known.length} nodes heard of a change`);
    all.push(...known);
  }
  delays.clear();
  return percentiles(all);
}

/** p50, p99 and the largest. */
function percentiles(values: number[]): number[] {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (part: number): number => sorted[Math.ceil(part * sorted.length) - 1] ?? Number.NaN;
  return [at(0.5), at(0.99), at(1)];
}

/** Bytes that a node sends per second while some change an endpoint each second. */
function churn(): number {
  const changes = Math.ceil(size * CHURN * (CHURN_MS / 1_000));
  for (let change = 0; change < changes; change++) {
    sim.after(sim.random.next() * CHURN_MS, () => {
      const name = `n${Math.floor(sim.random.next() * size)}`;
      sim.get(name).gossip.table.setLocal('endpoint/0', { change, state: 'active' });
      sim.announce(name);
    });
  }
  const before = sentBytes(sim);
  sim.run(CHURN_MS);
  return (sentBytes(sim) - before) / ((size * CHURN_MS) / 1_000);
}

/** How often a node that is not slow was declared failed somewhere, per hour and node. */
function falsePositives(tuning: Partial<GossipTuning>): number {
  const isSlow = (name: string): boolean => Number(name.slice(1)) < Math.max(1, size * SLOW);
  let failed = 0;
  const cluster = new GossipSim({
    ...{ seed: SEED, tuning, compression: false },
    onEvent: (_node, event) => {
      const isFailure = event.kind === 'member' && event.change === 'failed';
      if (isFailure && !isSlow(event.member.name)) failed++;
    },
  });
  cluster.addKnown(size, 0);
  const draw = ([least, most]: readonly [number, number]): number =>
    least * (most / least) ** cluster.random.next();
  const slowDown = (name: string): void => {
    const blockedMs = draw(BLOCKED_MS);
    cluster.block(name, blockedMs);
    cluster.after(blockedMs + draw(PASSING_MS), () => slowDown(name));
  };
  for (const name of cluster.nodes.keys()) if (isSlow(name)) slowDown(name);
  cluster.run(SLOW_MS);
  return failed / (size * (SLOW_MS / 3_600_000));
}

/** Kilobytes that one node's tables take in a cluster of this size, nothing shared; and members alone. */
function memoryOf(members: number): { kilobytes: number; membersOnlyKilobytes: number } {
  const random = seededRandom(SEED);
  const make = (name: string, index: number): Gossip => {
    const address = `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
    const config = {
      name,
      address,
      port: 7946,
      generation: 1,
      tuning: { ...LAN_TUNING, ...TUNING },
    };
    const gossip = new Gossip({ random }, config, 0);
    gossip.table.setLocal('endpoint/0', { node: name, entry: 0, state: 'active' });
    return gossip;
  };
  const heap = (): number => {
    // Buffers are let go by the collection after the one that finds them.
    for (let round = 0; round < 4; round++) globalThis.gc?.();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const node = make('node', 0);
  const before = heap();
  for (let index = 1; index < members; index++) {
    node.restore({ ...make(`member-${index}`, index).snapshot(), records: [] }, 0);
  }
  const withMembers = heap();
  for (let index = 1; index < members; index++) {
    node.restore({ ...make(`member-${index}`, index).snapshot(), members: [] }, 0);
  }
  const all = heap();
  if (node.memberCounts().known !== members) throw new Error('A member is missing');
  return { kilobytes: (all - before) / 1e3, membersOnlyKilobytes: (withMembers - before) / 1e3 };
}
