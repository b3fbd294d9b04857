import { gossipLabRowNames, gossipLabRows } from './gossip-lab.ts';
import { gossipSimPeers, gossipSimRowNames, gossipSimRows } from './gossip-sim.ts';
import { benchGossipTable, gossipTablePeers, gossipTableRows } from './gossip-table.ts';
import { SERF } from './peers/serf.ts';
import type { BenchOptions, Row } from './rows.ts';

/** What gossip is measured in: one entry for each way to measure it, in the order of their rows. */
const PARTS = [
  { names: gossipLabRowNames, rows: gossipLabRows, peers: [SERF] },
  { names: gossipSimRowNames(), rows: gossipSimRows, peers: gossipSimPeers() },
  { names: gossipTableRows(), rows: benchGossipTable, peers: gossipTablePeers() },
];

/** Names of all rows, in their order. */
export function gossipRows(): string[] {
  return PARTS.flatMap(({ names }) => names);
}

/** Names of all that gossip is measured beside. */
export function gossipPeers(): string[] {
  return [...new Set(PARTS.flatMap(({ peers }) => peers))];
}

/** How soon nodes know of each other's ends, losses and endpoints. */
export async function* benchGossip(
  options: BenchOptions,
  complain: (text: string, isFailure: boolean) => void,
): AsyncGenerator<Row> {
  for (const { names, rows } of PARTS) {
    const { only } = options;
    if (only === undefined || names.some((name) => only.includes(name))) {
      yield* rows(options, complain);
    }
  }
}
