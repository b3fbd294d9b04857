import { test } from 'tap';
import { GossipChaos } from '../support/gossip-chaos.ts';
import { GossipSim } from '../support/gossip-sim.ts';

/** A run is a function of its seed; set GOSSIP_SEED to replay or to look for others. */
const SEED = Number(process.env.GOSSIP_SEED ?? 1);
const NODES = 1_000;
const ENDPOINTS = 100;

test(`${NODES} nodes with ${ENDPOINTS} endpoints each are equal again after all that can go wrong`, (t) => {
  const sim = new GossipSim({
    ...{ seed: SEED, loss: 0.05, duplication: 0.02, delayMs: [0.2, 80], compression: false },
    onEvent: () => {},
  });
  sim.addKnown(NODES, ENDPOINTS);
  t.ok(sim.converged(), 'they begin knowing each other');
  const chaos = new GossipChaos(sim, {
    ...{ durationMs: 4_000, changes: 25, restarts: 0.5, stalls: 1, blocks: 0.5, clockJumps: 2 },
    ...{ cutOff: 3, deaf: 1 },
  });
  chaos.run();
  const healMs = sim.runUntil(() => sim.converged(), 180_000);
  t.ok(healMs !== undefined, `equal ${healMs} ms after it ended (replay with GOSSIP_SEED=${SEED})`);
  const expected = chaos.expected();
  for (const name of ['n0', 'n1', `n${NODES - 1}`]) {
    t.ok(sim.visible(name) === expected, `${name} sees what each node says, and nothing else`);
  }
  t.end();
});
