import { test } from 'tap';
import { GossipChaos } from '../support/gossip-chaos.ts';
import { GossipSim } from '../support/gossip-sim.ts';

/** A run is a function of its seed; set GOSSIP_SEED to replay or to look for others. */
const SEED = Number(process.env.GOSSIP_SEED ?? 1);
const LIMIT_MS = 60_000;

/** A cluster of `count` nodes that know each other, each with one endpoint. */
function cluster(
  count: number,
  options: { readonly seed: number; readonly loss?: number },
): GossipSim {
  const sim = new GossipSim({ compression: false, ...options });
  sim.addMany(count);
  for (const node of sim.running()) node.gossip.table.setLocal('task', node.name);
  return sim;
}

/** What is said when a run goes wrong. */
const seedOf = (seed: number, what: string): string =>
  `${what} (seed ${seed}; replay all with GOSSIP_SEED=${SEED})`;

/** Whether all running nodes have the same visible endpoints. */
function sameEndpoints(sim: GossipSim): boolean {
  return new Set(sim.running().map(({ name }) => sim.visible(name))).size === 1;
}

/** How often `change` of `member` was reported, on all nodes. */
function count(sim: GossipSim, change: string, member: string): number {
  const events = [...sim.nodes.values()].flatMap((node) => node.events);
  return events.filter(
    ({ event }) =>
      event.kind === 'member' && event.change === change && event.member.name === member,
  ).length;
}

for (const [index, nodes, loss] of [
  [0, 2, 0],
  [1, 20, 0],
  [2, 50, 0],
  [3, 30, 0.2],
] as const) {
  const seed = SEED + index;
  test(`${nodes} nodes with ${loss * 100} % loss converge, and on each later change`, (t) => {
    const sim = cluster(nodes, { seed, loss });
    const joinMs = sim.runUntil(() => sim.converged(), LIMIT_MS);
    t.ok(joinMs !== undefined && joinMs < 10_000, seedOf(seed, `joined in ${joinMs} ms`));
    const { table } = sim.get('n1').gossip;
    for (let entry = 0; entry < 300; entry++) table.setLocal(`bulk-${entry}`, 'x'.repeat(99));
    const bulkMs = sim.runUntil(() => sim.converged(), LIMIT_MS);
    t.ok(bulkMs !== undefined && bulkMs < 5_000, seedOf(seed, `30 kB in ${bulkMs} ms`));
    for (let entry = 0; entry < 299; entry++) table.deleteLocal(`bulk-${entry}`);
    table.setLocal('task', 'moved');
    const changeMs = sim.runUntil(() => sim.converged(), LIMIT_MS);
    t.ok(changeMs !== undefined && changeMs < 5_000, seedOf(seed, `changed in ${changeMs} ms`));
    t.equal([...sim.get('n0').gossip.table.visible()].length, nodes + 1);
    t.ok(sameEndpoints(sim));
    sim.run(90_000); // past the life of tombstones
    t.ok(sim.converged() && sameEndpoints(sim), seedOf(seed, 'and it stays so'));
    t.same(sim.get('n0').gossip.counters(), {}, 'nothing was dropped');
    t.end();
  });
}

test('a killed node is failed for all within seconds, and its endpoints are hidden', (t) => {
  const seed = SEED + 10;
  const sim = cluster(20, { seed });
  sim.runUntil(() => sim.converged(), LIMIT_MS);
  sim.kill('n7');
  const failed = (): boolean =>
    sim.running().every(({ name }) => sim.stateOf(name, 'n7') === 'dead');
  const failedMs = sim.runUntil(failed, LIMIT_MS);
  t.ok(failedMs !== undefined && failedMs < 15_000, seedOf(seed, `failed in ${failedMs} ms`));
  t.equal(count(sim, 'failed', 'n7'), 19, 'once for each');
  t.notOk(sim.visible('n3').includes('n7'));
  t.equal(
    sim.running().some(({ name }) => sim.stateOf(name, 'n8') !== 'alive'),
    false,
    'no one else',
  );
  sim.run(LIMIT_MS);
  t.equal(sim.stateOf('n3', 'n7'), 'dead', 'still listed when reaped');
  t.end();
});

test('a node that comes back with a higher generation has only its new endpoints', (t) => {
  for (const [offset, downMs] of [
    [20, 500], // before anyone has noticed
    [21, 12_000],
    [22, 60_000], // after it was reaped
  ] as const) {
    const seed = SEED + offset;
    const sim = cluster(12, { seed });
    sim.runUntil(() => sim.converged(), LIMIT_MS);
    sim.kill('n4');
    sim.run(downMs);
    sim.add('n4', ['n2'], 2).gossip.table.setLocal('second', 'life');
    const backMs = sim.runUntil(() => sim.converged(), LIMIT_MS);
    t.ok(backMs !== undefined && backMs < 10_000, seedOf(seed, `back in ${backMs} ms`));
    t.ok(sameEndpoints(sim));
    const entries = [...sim.get('n9').gossip.table.visible()].filter(({ node }) => node === 'n4');
    t.same(entries, [{ node: 'n4', key: 'second', value: 'life' }]);
  }
  t.end();
});

test('a restarted node that has no seeds is found by the others', (t) => {
  const seed = SEED + 25;
  const sim = cluster(5, { seed });
  sim.runUntil(() => sim.converged(), LIMIT_MS);
  sim.kill('n0');
  sim.run(1_000);
  sim.add('n0', [], 2).gossip.table.setLocal('second', 'life');
  const backMs = sim.runUntil(() => sim.converged(), LIMIT_MS);
  t.ok(backMs !== undefined && backMs < 15_000, seedOf(seed, `back in ${backMs} ms`));
  t.end();
});

test('a suspicion that is refuted never becomes a death', (t) => {
  const seed = SEED + 30;
  const sim = cluster(10, { seed });
  sim.runUntil(() => sim.converged(), LIMIT_MS);
  // One node hears nothing for less than the time that suspects have.
  sim.partition((a, b) => a === 'n5' || b === 'n5');
  sim.runUntil(() => count(sim, 'suspected', 'n5') > 0, 10_000);
  sim.run(1_500);
  sim.heal();
  t.ok(count(sim, 'suspected', 'n5') > 0, seedOf(seed, 'it was suspected'));
  sim.run(30_000);
  t.equal(count(sim, 'failed', 'n5'), 0, seedOf(seed, 'it was not given up'));
  t.equal(count(sim, 'refuted', 'n5'), count(sim, 'suspected', 'n5'), 'all heard the refutation');
  t.ok(sim.converged());
  t.ok(sim.get('n5').gossip.members()[0]!.incarnation > 1);
  t.end();
});

test('a partition heals: all return, and the tables are equal again', (t) => {
  const half = (name: string): number => Number(name.slice(1)) % 2;
  for (const [offset, cutMs, loss] of [
    [40, 20_000, 0],
    [41, 90_000, 0.1], // long after the dead were reaped
  ] as const) {
    const seed = SEED + offset;
    const sim = cluster(20, { seed, loss });
    sim.runUntil(() => sim.converged(), LIMIT_MS);
    sim.partition((a, b) => half(a) !== half(b));
    const split = (): boolean =>
      sim.running().every(({ name, gossip }) => {
        const live = gossip.members().filter(({ state }) => state === 'alive');
        return live.length === 10 && live.every((member) => half(member.name) === half(name));
      });
    t.ok(sim.runUntil(split, 120_000) !== undefined, seedOf(seed, 'each half is on its own'));
    sim.get('n0').gossip.table.setLocal('task', 'changed');
    sim.get('n1').gossip.table.deleteLocal('task');
    sim.get('n2').gossip.table.setLocal('more', 1);
    sim.run(cutMs);
    t.notOk(sim.visible('n0').includes('"n1"'));
    sim.heal();
    const healMs = sim.runUntil(() => sim.converged(), 120_000);
    t.ok(healMs !== undefined && healMs < 30_000, seedOf(seed, `healed in ${healMs} ms`));
    t.ok(sameEndpoints(sim));
    t.equal([...sim.get('n7').gossip.table.visible()].length, 20);
  }
  t.end();
});

test('a node that leaves is left, not failed, and is told when it may go', (t) => {
  const seed = SEED + 50;
  const sim = cluster(15, { seed });
  sim.runUntil(() => sim.converged(), LIMIT_MS);
  sim.leave('n6');
  const finished = (): boolean =>
    sim.get('n6').events.some(({ event }) => event.kind === 'leaveFinished');
  t.ok(sim.runUntil(finished, 6_000) !== undefined, seedOf(seed, 'its broadcast went out'));
  sim.kill('n6');
  sim.run(20_000);
  t.equal(count(sim, 'left', 'n6'), 14);
  t.equal(count(sim, 'failed', 'n6'), 0);
  t.notOk(sim.visible('n0').includes('n6'));
  sim.run(40_000);
  t.equal(sim.stateOf('n0', 'n6'), undefined, 'forgotten in the end');
  sim.leave('n0');
  const alone = new GossipSim({ seed });
  alone.add('n0', []);
  alone.leave('n0');
  t.match(alone.get('n0').events, [{ event: { kind: 'leaveFinished' } }], 'no one to tell');
  t.end();
});

test('a node whose only seed is not up yet joins when it is', (t) => {
  const seed = SEED + 60;
  const sim = new GossipSim({ seed });
  sim.add('n1', ['n0']);
  sim.run(30_000);
  sim.add('n0', []);
  const joinMs = sim.runUntil(() => sim.converged(), LIMIT_MS);
  t.ok(joinMs !== undefined && joinMs < 5_000, seedOf(seed, `joined in ${joinMs} ms`));
  t.end();
});

test('UDP that is lost wholly does not fail a member that answers by TCP', (t) => {
  const seed = SEED + 70;
  const sim = cluster(3, { seed });
  sim.runUntil(() => sim.converged(), LIMIT_MS);
  sim.loss = 1;
  sim.run(LIMIT_MS);
  for (const name of ['n0', 'n1', 'n2']) t.equal(count(sim, 'failed', name), 0, seedOf(seed, name));
  t.end();
});

for (const [index, nodes] of [3, 8, 20].entries()) {
  test(`${nodes} nodes are equal again after all that can go wrong`, (t) => {
    const seed = SEED + 80 + index;
    const sim = new GossipSim({
      ...{ seed, loss: 0.1, duplication: 0.05, delayMs: [0.2, 150], compression: false },
    });
    sim.addKnown(nodes, 5);
    const chaos = new GossipChaos(sim, {
      ...{ durationMs: 60_000, changes: 5, restarts: 0.2, stalls: 0.3, blocks: 0.3 },
      ...{ clockJumps: 0.2, cutOff: Math.ceil(nodes / 3), deaf: 1 },
    });
    chaos.run();
    const healMs = sim.runUntil(() => sim.converged(), 120_000);
    t.ok(healMs !== undefined, seedOf(seed, `equal after ${healMs} ms`));
    for (const { name } of sim.running())
      t.equal(sim.visible(name), chaos.expected(), seedOf(seed, name));
    t.end();
  });
}
