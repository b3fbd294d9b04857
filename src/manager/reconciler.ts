import type { Clock, Log, Random } from '../core/capabilities.ts';
import { allocateTasks } from './allocator.ts';
import type { ClusterState } from './cluster-state.ts';
import { driveGossipKeys, type KeyProgress } from './gossip-keys.ts';
import type { Sha256 } from './join-tokens.ts';
import { CLUSTER_KEY } from './keys.ts';
import { planService } from './orchestrator.ts';
import { orphanTasks, reapTasks } from './reaper.ts';
import { ReconcilePass } from './reconcile-pass.ts';
import type { NodeRecord } from './records.ts';
import type { CancelSchedule, Schedule } from './schedule.ts';
import { scheduleTasks } from './scheduler.ts';
import { openStartGates } from './start-gate.ts';
import type { Draft, StateWriter } from './state-writer.ts';

/** Changes that come within this time are looked at together (swarmkit scheduler: 50 ms). */
const DEBOUNCE_MS = 20;
/** After a failure of the store. */
const RETRY_MS = 1_000;

/**
 * Brings the cluster's tasks one step nearer to what its services and nodes call for. Level-triggered:
 * it looks at the whole state and needs no history, so it may run at any time and as often as wanted;
 * when everything is as it should be it writes nothing.
 */
export function reconcile(draft: Draft, pass: ReconcilePass): void {
  const nodes: ReadonlyMap<string, NodeRecord> = new Map(
    Array.from(draft.all('nodes'), (node) => [node.id, node]),
  );
  orphanTasks(draft, nodes, pass);
  reapTasks(draft, pass); // Before allocation, which may need the addresses.
  for (const service of [...draft.all('services')]) planService(draft, service, nodes, pass);
  openStartGates(draft, nodes, pass);
  allocateTasks(draft, pass);
  scheduleTasks(draft, nodes, pass);
}

/** What a {@link Reconciler} needs. */
export interface ReconcilerDeps {
  readonly state: ClusterState;
  readonly writer: StateWriter;
  readonly clock: Clock;
  readonly random: Random;
  readonly sha256: Sha256;
  readonly log: Log;
  readonly schedule: Schedule;
}

/** Runs {@link reconcile} after every change of the state, and when a deadline passes. */
export class Reconciler {
  readonly #deps: ReconcilerDeps;
  #cancel: CancelSchedule | undefined;
  /** On the monotonic clock; infinite while nothing is planned. */
  #dueAtMs = Number.POSITIVE_INFINITY;
  #running = false;
  #stopped = false;
  #endSubscription: (() => void) | undefined;

  constructor(deps: ReconcilerDeps) {
    this.#deps = deps;
  }

  /** Starts to follow the state. */
  start(): void {
    const { state, clock } = this.#deps;
    this.#endSubscription = state.subscribe(() => this.#wakeAt(clock.nowMs() + DEBOUNCE_MS));
    this.#wakeAt(clock.nowMs());
  }

  /** Plans no more passes; one that runs ends by itself. */
  stop(): void {
    this.#stopped = true;
    this.#endSubscription?.();
    this.#cancel?.();
  }

  #wakeAt(atMs: number): void {
    if (this.#stopped || atMs >= this.#dueAtMs) return;
    this.#cancel?.();
    this.#dueAtMs = atMs;
    this.#cancel = this.#deps.schedule(atMs, () => {
      this.#dueAtMs = Number.POSITIVE_INFINITY;
      this.#run().catch((error: unknown) => {
        if (this.#stopped) return; // The store may be closed already.
        this.#deps.log.error({ err: error }, 'reconciliation failed, will try again');
        this.#wakeAt(this.#deps.clock.nowMs() + RETRY_MS);
      });
    });
  }

  async #run(): Promise<void> {
    if (this.#running) {
      this.#wakeAt(this.#deps.clock.nowMs() + DEBOUNCE_MS);
      return;
    }
    this.#running = true;
    try {
      const { clock, random, sha256, state, writer } = this.#deps;
      const historyLimit = state.get(CLUSTER_KEY)?.taskHistoryLimit ?? 0;
      const { nextAtMs, progress } = await writer.write((draft) => {
        const pass = new ReconcilePass({ nowMs: clock.epochMs(), random, historyLimit });
        reconcile(draft, pass);
        const keys = driveGossipKeys(draft, { nowMs: pass.nowMs, random, sha256 });
        if (keys.wakeAtMs !== undefined) pass.wakeAt(keys.wakeAtMs);
        return { nextAtMs: pass.nextAtMs, progress: keys.progress };
      });
      this.#tell(progress);
      if (nextAtMs !== undefined) {
        // Deadlines are wall-clock times, since they outlive this process; timers are not.
        this.#wakeAt(clock.nowMs() + Math.max(0, nextAtMs - clock.epochMs()));
      }
    } finally {
      this.#running = false;
    }
  }

  #tell(progress: readonly KeyProgress[]): void {
    const { log } = this.#deps;
    for (const { message, fields, isWarning } of progress) {
      if (isWarning) log.warn(fields, message);
      else log.info(fields, message);
    }
  }
}
