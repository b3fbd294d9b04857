import { canMakeLab, Lab } from '../test/support/lab.ts';
import { Ground, missingPackages, type Path, type Side } from './ground.ts';
import { ALL_MEASUREMENTS, type Measurement, RTT, TCP_ONE, UDP_SMALL } from './measurements.ts';
import { memoryAfter, memoryAtRest } from './memory.ts';
import { kernelVxlan, kernelVxlanV6, kernelVxlanV6Underlay } from './peers/kernel-vxlan.ts';
import { nebula } from './peers/nebula.ts';
import { openvpn } from './peers/openvpn.ts';
import { tinc } from './peers/tinc.ts';
import { veth, vethV6 } from './peers/veth.ts';
import { wireguardGo } from './peers/wireguard-go.ts';
import { untilReachable } from './ping.ts';
import { type BenchOptions, type Row, row } from './rows.ts';
import { weft, weftEncrypted, weftLocal, weftPlain, weftV6, weftV6Underlay } from './weft.ts';

/** A form of weft beside its peers, and how the names of its rows differ from those of the figures. */
interface Suite {
  readonly prefix?: string;
  readonly suffix?: string;
  readonly ours: Side;
  readonly peers: readonly Side[];
  readonly measurements: readonly Measurement[];
}

const SUITES: readonly Suite[] = [
  { ours: weft, peers: [veth, kernelVxlan], measurements: ALL_MEASUREMENTS },
  { prefix: 'local-', ours: weftLocal, peers: [veth], measurements: [TCP_ONE] },
  {
    suffix: '-encrypted',
    ours: weftEncrypted,
    peers: [weftPlain, wireguardGo, nebula, tinc, openvpn],
    measurements: ALL_MEASUREMENTS,
  },
  {
    suffix: '-v6',
    ours: weftV6,
    peers: [vethV6, kernelVxlanV6],
    measurements: ALL_MEASUREMENTS,
  },
  {
    suffix: '-v6underlay',
    ours: weftV6Underlay,
    peers: [vethV6, kernelVxlanV6Underlay],
    measurements: [TCP_ONE, UDP_SMALL, RTT],
  },
];

/** How much of a failed program's output is repeated; iperf3 puts its error last. */
const MESSAGE_CHARACTERS = 500;
/** How long a new path may take until its far end answers. */
const REACHABLE_SECONDS = 15;

/**
 * Throughput, packet rate, round trips and CPU time of all forms of weft, each beside its peers, and the
 * memory of the agents. Sides take turns, so that a noisy machine disturbs all alike. A side that is not
 * installed, or fails, is left out, and `complain` is told.
 */
export async function* benchDataPlane(
  options: BenchOptions,
  complain: (text: string, isFailure: boolean) => void,
): AsyncGenerator<Row> {
  if (!canMakeLab()) throw new Error('Cannot bench the data plane: it needs root');
  const lab = new Lab();
  try {
    yield* new Bench(new Ground(lab, options.packetThreads), options, complain).rows();
  } finally {
    await lab.close();
  }
}

/** Names of all rows, in their order. */
export function dataPlaneRows({ longSeconds }: Pick<BenchOptions, 'longSeconds'>): string[] {
  const figures = SUITES.flatMap((suite) =>
    suite.measurements.flatMap((measurement) => rowNames(suite, measurement)),
  );
  return ['rss-at-rest', ...figures, ...longRows(longSeconds)];
}

/** Names of all that weft is measured beside. */
export function dataPlanePeers(): string[] {
  return [...new Set(SUITES.flatMap(({ peers }) => peers.map(({ name }) => name)))];
}

function rowNames({ prefix = '', suffix = '' }: Suite, { figures }: Measurement): string[] {
  return figures.map(({ name }) => `${prefix}${name}${suffix}`);
}

function longRows(seconds: number): string[] {
  return [`rss-after-${seconds}s`, `flows-after-${seconds}s`, `rss-rest-after-${seconds}s`];
}

/** One run of the bench. */
class Bench {
  readonly #ground: Ground;
  readonly #options: BenchOptions;
  readonly #complain: (text: string, isFailure: boolean) => void;
  /** Paths that were built; those that could not be are undefined. */
  readonly #paths = new Map<Side, Path | undefined>();

  constructor(
    ground: Ground,
    options: BenchOptions,
    complain: (text: string, isFailure: boolean) => void,
  ) {
    this.#ground = ground;
    this.#options = options;
    this.#complain = complain;
  }

  async *rows(): AsyncGenerator<Row> {
    // First of all, while the agents have carried nothing.
    yield* this.#memory(['rss-at-rest'], () => memoryAtRest(this.#ground));
    for (const suite of SUITES) {
      for (const measurement of suite.measurements) yield* this.#compare(suite, measurement);
    }
    const { longSeconds } = this.#options;
    yield* this.#memory(longRows(longSeconds), () => memoryAfter(this.#ground, longSeconds));
  }

  async *#memory(
    names: readonly string[],
    measure: () => AsyncGenerator<Row>,
  ): AsyncGenerator<Row> {
    if (!names.some((name) => this.#isWanted(name))) return;
    try {
      for await (const made of measure()) if (this.#isWanted(made.name)) yield made;
    } catch (error) {
      this.#complain(`${names.join(', ')}: ${describe(error)}`, true);
    }
  }

  /** Measures weft and its peers in turn, and gives a row for each figure and peer. */
  async *#compare(suite: Suite, measurement: Measurement): AsyncGenerator<Row> {
    const names = rowNames(suite, measurement);
    if (!names.some((name) => this.#isWanted(name))) return;
    if ((await this.#path(suite.ours, suite)) === undefined) return;
    const sides = [suite.ours, ...suite.peers.filter(({ name }) => this.#isPeerWanted(name))];
    const samples = new Map<Side, (readonly number[])[]>();
    for (const side of sides) {
      if ((await this.#path(side, suite)) !== undefined) samples.set(side, []);
    }
    for (let run = 0; run < this.#options.runs && samples.has(suite.ours); run += 1) {
      for (const side of samples.keys()) {
        const sample = await this.#sample(side, suite, measurement);
        if (sample === undefined) samples.delete(side);
        else samples.get(side)?.push(sample);
      }
    }
    const ours = samples.get(suite.ours);
    if (ours === undefined) return;
    for (const [index, name] of names.entries()) {
      if (!this.#isWanted(name)) continue;
      const values = (of: readonly (readonly number[])[]): number[] =>
        of.map((sample) => sample[index] ?? Number.NaN);
      for (const [side, theirs] of samples) {
        if (side === suite.ours) continue;
        const { unit = '' } = measurement.figures[index] ?? {};
        yield row(name, unit, values(ours), side.name, values(theirs));
      }
    }
  }

  /** The path of a side, which is built when it is first asked for; undefined if that failed. */
  async #path(side: Side, suite: Suite): Promise<Path | undefined> {
    if (this.#paths.has(side)) return this.#paths.get(side);
    const path = await this.#build(side, suite);
    this.#paths.set(side, path);
    return path;
  }

  async #build(side: Side, { prefix = '', suffix = '' }: Suite): Promise<Path | undefined> {
    const missing = missingPackages(side);
    if (missing.length > 0) {
      const command = `apt-get install ${missing.join(' ')}`;
      this.#complain(`${side.name} is not installed, its rows are left out: ${command}`, false);
      return undefined;
    }
    try {
      const path = await side.build(this.#ground);
      await untilReachable(this.#ground.lab, path, REACHABLE_SECONDS);
      return path;
    } catch (error) {
      const name = `${side.name} of the rows "${prefix}…${suffix}"`;
      this.#complain(`Cannot build ${name}, they are left out: ${describe(error)}`, true);
      return undefined;
    }
  }

  async #sample(
    side: Side,
    suite: Suite,
    measurement: Measurement,
  ): Promise<readonly number[] | undefined> {
    const path = this.#paths.get(side);
    if (path === undefined) return undefined;
    try {
      return await measurement.run(this.#ground.lab, path, this.#options.seconds);
    } catch (error) {
      const names = rowNames(suite, measurement).join(', ');
      this.#complain(`Cannot measure ${names} of ${side.name}: ${describe(error)}`, true);
      return undefined;
    }
  }

  #isWanted(name: string): boolean {
    return this.#options.only?.includes(name) ?? true;
  }

  #isPeerWanted(name: string): boolean {
    return this.#options.peers?.includes(name) ?? true;
  }
}

/** What went wrong: what a program that failed said, or the error's own words. */
function describe(error: unknown): string {
  const { stderr, stdout, message } = error as Error & Readonly<Record<string, unknown>>;
  const said = [stderr, stdout]
    .map((text) => String(text ?? '').trim())
    .find((text) => text !== '');
  return said?.slice(-MESSAGE_CHARACTERS) ?? message;
}
