import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { LAN_TUNING } from '../src/gossip/config.ts';
import type { BenchOptions, Row } from './rows.ts';
import { row } from './rows.ts';

/** Nodes of the simulated clusters. */
const SIZES = [100, 1_000, 10_000];
/** A simulation of ten thousand nodes moves gigabytes of short-lived packets beside gigabytes that stay. */
const NODE_FLAGS = ['--expose-gc', '--max-old-space-size=12000', '--max-semi-space-size=128'];
const SCRIPT = new URL('gossip-sim-run.ts', import.meta.url).pathname;

/** What a simulation of one cluster has measured; all that is per second is so in virtual time. */
export interface SimFigures {
  readonly size: number;
  /** From a change on one node until each of the others has it, in milliseconds: p50, p99, the largest. */
  readonly knowMs: readonly number[];
  /** Per node and second. */
  readonly rest: {
    readonly bytes: number;
    readonly cpuUs: number;
    readonly membersOnlyBytes: number;
    readonly membersOnlyCpuUs: number;
  };
  /** Per node and second. */
  readonly churnBytes: number;
  /** Per node and hour. Not of the largest cluster: slow nodes make more rumours there than can be simulated. */
  readonly falsePositives?: { readonly lifeguard: number; readonly noLifeguard: number };
  /** Of one node's tables. */
  readonly memory: { readonly kilobytes: number; readonly membersOnlyKilobytes: number };
}

/** The rows of one cluster size, in the order of their names. */
const ROWS: readonly ((figures: SimFigures) => Row | undefined)[] = [
  (figures) => allKnow(figures, 'p50', 0),
  (figures) => allKnow(figures, 'p99', 1),
  (figures) => allKnow(figures, 'max', 2),
  ({ size, rest }) =>
    row(`bytes-rest-${size}`, 'B/s', [rest.bytes], 'members-only', [rest.membersOnlyBytes]),
  ({ size, rest, churnBytes }) =>
    row(`bytes-churn-${size}`, 'B/s', [churnBytes], 'at-rest', [rest.bytes]),
  ({ size, falsePositives }) =>
    falsePositives &&
    row(
      ...([`false-positives-${size}`, '/node-hour', [falsePositives.lifeguard]] as const),
      ...(['no-lifeguard', [falsePositives.noLifeguard]] as const),
    ),
  ({ size, rest }) =>
    row(`cpu-${size}`, 'us/s', [rest.cpuUs], 'members-only', [rest.membersOnlyCpuUs]),
  ({ size, memory }) =>
    row(`memory-${size}`, 'kB', [memory.kilobytes], 'members-only', [memory.membersOnlyKilobytes]),
];
const NAMES = [
  ...['all-know-p50', 'all-know-p99', 'all-know-max', 'bytes-rest', 'bytes-churn'],
  ...['false-positives', 'cpu', 'memory'],
];
/** What slow nodes do is not simulated in a larger cluster. */
const FALSE_POSITIVES_SIZE_MAX = 1_000;

/** Names of the rows that {@link gossipSimRows} gives. */
export function gossipSimRowNames(): string[] {
  return SIZES.flatMap((size) => namesOf(size));
}

/** What the rows are beside: a bound, or the same cluster in another way. */
export function gossipSimPeers(): string[] {
  return ['log2n', 'members-only', 'at-rest', 'no-lifeguard'];
}

/**
 * Simulated clusters: how fast all nodes know of a change, what a node sends and computes, and how often a
 * healthy node is declared failed. The same state machines as in an agent, in virtual time and from a seed.
 */
export async function* gossipSimRows(
  { only }: Pick<BenchOptions, 'only'>,
  complain: (text: string, isFailure: boolean) => void,
): AsyncGenerator<Row> {
  for (const size of SIZES) {
    const isWanted = (name: string): boolean => only === undefined || only.includes(name);
    if (!namesOf(size).some(isWanted)) continue;
    try {
      const command = [...NODE_FLAGS, SCRIPT, String(size)];
      const { stdout } = await promisify(execFile)(process.execPath, command);
      const figures = JSON.parse(stdout) as SimFigures;
      for (const make of ROWS) {
        const made = make(figures);
        if (made !== undefined && isWanted(made.name)) yield made;
      }
    } catch (error) {
      complain(`simulation of ${size} nodes: ${(error as Error).message}`, true);
    }
  }
}

function namesOf(size: number): string[] {
  const names = NAMES.filter(
    (name) => name !== 'false-positives' || size <= FALSE_POSITIVES_SIZE_MAX,
  );
  return names.map((name) => `${name}-${size}`);
}

/** Beside the bound of an epidemic in which every node that knows tells one other each round. */
function allKnow({ size, knowMs }: SimFigures, which: string, index: number): Row {
  const boundMs = Math.log2(size) * LAN_TUNING.gossipIntervalMs;
  return row(`all-know-${which}-${size}`, 'ms', [knowMs[index] ?? Number.NaN], 'log2n', [boundMs]);
}
