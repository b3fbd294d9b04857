import type { Clock, Random } from '../core/capabilities.ts';
import { formatIp, type Ip } from '../core/ip.ts';
import type { DataPlaneCommand, PathEvent } from '../dataplane/commands.ts';
import { PathMtu, type PathMtuOptions, type PathState } from '../vxlan/path-mtu.ts';
import type { RoundTrips } from '../vxlan/path-quality.ts';

/** Peers are probed in turns: so many at once at most, and turns are so far apart at least. */
const PEERS_PER_TURN = 4;
const TURN_MS = 10;

/** What {@link PathMonitor} works with. */
export interface PathMonitorDeps {
  readonly clock: Clock;
  readonly random: Random;
  /** Runs a task once at a time of the clock's `nowMs`; returns what takes it back. */
  readonly schedule: (atMs: number, task: () => void) => () => void;
  /** Hands commands to the packet thread. */
  readonly apply: (commands: readonly DataPlaneCommand[]) => void;
}

/** Where another node takes VXLAN. */
export interface Vtep {
  readonly address: Ip;
  readonly port: number;
}

/** What is known of the path to one VTEP. */
export interface PathReport extends Vtep {
  readonly state: PathState;
  /** The largest outer packet that is sent there. */
  readonly mtuBytes: number;
  /** Undefined while no probe was answered. */
  readonly roundTrips: RoundTrips | undefined;
  /** Share of probes that were lost lately; undefined before the first one's fate is known. */
  readonly lossRatio: number | undefined;
}

interface Path {
  readonly vtep: Vtep;
  readonly prober: PathMtu;
  /** What the packet thread was told. */
  toldMtuBytes: number;
}

/** Probes the paths to all other nodes, and tells the packet thread how large a packet each carries. */
export class PathMonitor {
  readonly #deps: PathMonitorDeps;
  readonly #options: PathMtuOptions;
  /** By the text of the address. BOUNDED by the members that gossip reports. */
  #paths: ReadonlyMap<string, Path> = new Map();
  /** The next turn: when, and how to take it back. */
  #nextTurnMs = Number.POSITIVE_INFINITY;
  #cancel: (() => void) | undefined;
  #lastTurnMs = Number.NEGATIVE_INFINITY;
  #isClosed = false;

  constructor(deps: PathMonitorDeps, options: PathMtuOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Probes these VTEPs from now on, and no others. The packet thread must know them already. */
  follow(vteps: readonly Vtep[]): void {
    if (this.#isClosed) return;
    const paths = vteps.map((vtep): [string, Path] => {
      const key = formatIp(vtep.address);
      const known = this.#paths.get(key);
      return [key, known?.vtep.port === vtep.port ? known : this.#newPath(vtep)];
    });
    this.#paths = new Map(paths);
    const added = [...this.#paths.values()];
    const commands = added.flatMap((path) => this.#changedMtu(path));
    if (commands.length > 0) this.#deps.apply(commands);
    this.#plan();
  }

  /** Takes what the packet thread says about a path. */
  hear(event: PathEvent): void {
    if (this.#isClosed) return;
    const nowMs = this.#deps.clock.nowMs();
    const path = this.#paths.get(formatIp(event.kind === 'probeReply' ? event.from : event.to));
    if (path === undefined) return;
    if (event.kind === 'pathTooBig') path.prober.tooBig(event.limitBytes, nowMs);
    else path.prober.answered(event.nonce, event.sizeBytes, event.rttUs, nowMs);
    const commands = this.#changedMtu(path);
    if (commands.length > 0) this.#deps.apply(commands);
    this.#wakeBy(path.prober.dueMs);
  }

  /** All paths, in the order of {@link PathMonitor.follow}. */
  reports(): readonly PathReport[] {
    return [...this.#paths.values()].map(({ vtep, prober }) => ({
      ...vtep,
      state: prober.state,
      mtuBytes: prober.mtuBytes,
      roundTrips: prober.quality.roundTrips,
      lossRatio: prober.quality.lossRatio,
    }));
  }

  close(): void {
    this.#isClosed = true;
    this.#cancel?.();
  }

  #newPath(vtep: Vtep): Path {
    const { clock, random } = this.#deps;
    return { vtep, prober: new PathMtu(random, this.#options, clock.nowMs()), toldMtuBytes: 0 };
  }

  /** Does what is due, for those first that wait the longest. */
  #turn(): void {
    const nowMs = this.#deps.clock.nowMs();
    this.#lastTurnMs = nowMs;
    this.#nextTurnMs = Number.POSITIVE_INFINITY;
    const due = [...this.#paths.values()]
      .filter(({ prober }) => prober.dueMs <= nowMs)
      .sort((a, b) => a.prober.dueMs - b.prober.dueMs)
      .slice(0, PEERS_PER_TURN);
    const commands = due.flatMap((path): DataPlaneCommand[] => {
      const to = path.vtep.address;
      const probes = path.prober
        .tick(nowMs)
        .map((probe) => ({ kind: 'probe', to, ...probe }) as const);
      // Now and then it is told what it knows: it forgets a VTEP that leaves and comes back at once.
      return probes.length > 0 ? [this.#tellMtu(path), ...probes] : this.#changedMtu(path);
    });
    if (commands.length > 0) this.#deps.apply(commands);
    this.#plan();
  }

  #changedMtu(path: Path): DataPlaneCommand[] {
    return path.toldMtuBytes === path.prober.mtuBytes ? [] : [this.#tellMtu(path)];
  }

  #tellMtu(path: Path): DataPlaneCommand {
    const { mtuBytes } = path.prober;
    path.toldMtuBytes = mtuBytes;
    return { kind: 'setPathMtu', address: path.vtep.address, mtuBytes };
  }

  /** Plans the next turn for the first path that is due. */
  #plan(): void {
    this.#cancel?.();
    this.#nextTurnMs = Number.POSITIVE_INFINITY;
    let firstMs = Number.POSITIVE_INFINITY;
    for (const { prober } of this.#paths.values()) firstMs = Math.min(firstMs, prober.dueMs);
    this.#wakeBy(firstMs);
  }

  #wakeBy(dueMs: number): void {
    const atMs = Math.max(dueMs, this.#lastTurnMs + TURN_MS);
    if (atMs >= this.#nextTurnMs) return;
    this.#cancel?.();
    this.#nextTurnMs = atMs;
    this.#cancel = this.#deps.schedule(atMs, () => this.#turn());
  }
}
