import { setTimeout as delay } from 'node:timers/promises';
import type { Clock, Log } from '../core/capabilities.ts';
import type { TaskAssignment, TaskStatusReport } from '../manager/session-protocol.ts';
import {
  advanceStatus,
  hasEnded,
  isExecFailure,
  nextStep,
  type StatusChange,
  statusOfExit,
  type TaskRecord,
} from './task-lifecycle.ts';
import type { AdoptedTask, TaskExit, TaskNetwork, TaskRuntime } from './task-runtime.ts';
import type { TaskStore } from './task-store.ts';

/** How long to wait before what could not be removed is tried again. */
const REMOVE_RETRY_MS = 5_000;

/** What a {@link TaskWorker} needs. */
export interface TaskWorkerDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: TaskStore;
  /** Undefined when this node does not have the task's kind of runtime. */
  readonly runtime: TaskRuntime | undefined;
  readonly network: TaskNetwork;
  /** Called with every new status, after it was stored. */
  readonly report: (status: TaskStatusReport) => void;
}

/**
 * Drives one task, a step at a time, towards what is desired of it. An end is reported only when the
 * task's interfaces are gone, because its addresses may be given to another task from then on.
 */
export class TaskWorker {
  /** Resolves when all of the task is removed; never if the worker is closed before. */
  readonly removed: Promise<void>;
  /** Resolves when what an earlier agent left of the task is taken over, or given up. */
  readonly resumed: Promise<void>;
  readonly #deps: TaskWorkerDeps;
  readonly #log: Log;
  #record: TaskRecord;
  #isClosed = false;
  #isRemoved = false;
  #wake: () => void = () => {};
  #saved: Promise<void> = Promise.resolve();

  /** @param adopted - What the runtime found of the task, if an earlier agent had it. */
  constructor(deps: TaskWorkerDeps, record: TaskRecord, adopted?: AdoptedTask) {
    this.#deps = deps;
    this.#log = deps.log.child({ taskId: record.assignment.id });
    this.#record = record;
    this.resumed = this.#begin(adopted);
    this.removed = new Promise((resolve, reject) => {
      this.#drive().then((isRemoved) => {
        this.#isRemoved = isRemoved;
        if (isRemoved) resolve();
      }, reject);
    });
  }

  /** The last status that was reported. */
  get status(): TaskStatusReport {
    return this.#record.status;
  }

  /** Whether {@link TaskWorker.removed} has resolved. */
  get isRemoved(): boolean {
    return this.#isRemoved;
  }

  /** Who runs the task. */
  get runtime(): TaskRuntime | undefined {
    return this.#deps.runtime;
  }

  /** Asks for another state. A task never goes back: what is past 'running' stays so. */
  desire(desiredState: TaskAssignment['desiredState']): void {
    const { assignment } = this.#record;
    if (desiredState === 'running' || desiredState === assignment.desiredState) return;
    if (assignment.desiredState === 'remove') return;
    this.#record = { ...this.#record, assignment: { ...assignment, desiredState } };
    void this.#save();
    this.#wake();
  }

  /** Stops driving. The task is left as it is. */
  close(): void {
    this.#isClosed = true;
    this.#wake();
  }

  async #begin(adopted: AdoptedTask | undefined): Promise<void> {
    // What was more than assigned has come from the store, and its tasks are waiting to be served.
    if (adopted === undefined && this.status.state === 'assigned') await this.#save();
    else await this.#resume(adopted);
  }

  async #drive(): Promise<boolean> {
    await this.resumed;
    while (!this.#isClosed) {
      const changed = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      const { desiredState } = this.#record.assignment;
      const step = nextStep(this.status.state, desiredState);
      if (step === 'accept') await this.#become({ state: 'accepted' });
      else if (step === 'prepare') await this.#prepare();
      else if (step === 'start') await this.#start();
      else if (step === 'stop') await this.#stop();
      else if (step === 'watch') await this.#watch(changed);
      else if (desiredState === 'remove') return await this.#remove();
      else await changed;
    }
    return false;
  }

  /** Goes on where an earlier agent stopped. */
  async #resume(adopted: AdoptedTask | undefined): Promise<void> {
    const { state } = this.status;
    if (hasEnded(state)) {
      await this.#release(); // the earlier agent may have been killed half-way
    } else if (state === 'running' || state === 'starting') {
      await this.#resumeStarted(adopted);
    } else if (state === 'ready') {
      await this.#prepareResources();
    }
  }

  async #resumeStarted(adopted: AdoptedTask | undefined): Promise<void> {
    if (adopted?.state === 'running') {
      try {
        await this.#deps.network.attach(this.#record.assignment, adopted.netnsPath);
        await this.#become({ state: 'running', pid: adopted.pid });
      } catch (error) {
        await this.#fail('failed', error);
      }
    } else if (adopted?.state === 'ended') {
      await this.#finish(adopted.exit);
    } else {
      // Whether its process ever ran is unknown: starting it again could run it twice.
      await this.#finish({ exitCode: undefined, endedAtMs: this.#deps.clock.epochMs() });
    }
  }

  async #prepare(): Promise<void> {
    await this.#become({ state: 'preparing' });
    if (await this.#prepareResources()) await this.#become({ state: 'ready' });
  }

  async #prepareResources(): Promise<boolean> {
    const { runtime, network } = this.#deps;
    const { assignment } = this.#record;
    try {
      if (runtime === undefined) {
        throw new Error(`Cannot run the task: this node has no ${assignment.runtime} runtime`);
      }
      const netnsPath = await runtime.prepare(assignment);
      await network.attach(assignment, netnsPath);
      return true;
    } catch (error) {
      await this.#fail('rejected', error);
      return false;
    }
  }

  async #start(): Promise<void> {
    await this.#become({ state: 'starting' });
    try {
      const pid = await this.#deps.runtime?.start(this.#record.assignment);
      await this.#become({ state: 'running', ...(pid === undefined ? {} : { pid }) });
    } catch (error) {
      await this.#fail('failed', error);
    }
  }

  async #watch(changed: Promise<void>): Promise<void> {
    const exit = await Promise.race([this.#deps.runtime?.wait(this.status.taskId), changed]);
    if (exit !== undefined && !this.#isClosed) await this.#finish(exit);
  }

  async #stop(): Promise<void> {
    const { runtime, network } = this.#deps;
    const { assignment } = this.#record;
    let exit: TaskExit | undefined;
    if (this.status.state === 'running') {
      const ended = runtime?.wait(assignment.id);
      // Peers need not be waited for once the task has ended by itself.
      await Promise.race([this.#attempt('drain', () => network.drain(assignment)), ended]);
      if (this.#isClosed) return;
      await this.#attempt('stop', async () => runtime?.stop(assignment));
      exit = await ended;
    }
    await this.#release();
    const { exitCode } = exit ?? {};
    await this.#become({ state: 'shutdown', ...(exitCode === undefined ? {} : { exitCode }) });
  }

  async #finish(exit: TaskExit): Promise<void> {
    await this.#release();
    const saidLast = isExecFailure(exit.exitCode) ? await this.#lastErrorLine() : undefined;
    await this.#become(statusOfExit(exit, saidLast));
  }

  async #fail(state: 'failed' | 'rejected', error: unknown): Promise<void> {
    this.#log.warn({ error }, 'a task cannot run');
    await this.#release();
    await this.#become({ state, error: error instanceof Error ? error.message : String(error) });
  }

  async #release(): Promise<void> {
    const { assignment } = this.#record;
    await this.#attempt('detach', () => this.#deps.network.detach(assignment));
    await this.#attempt('release', async () => this.#deps.runtime?.release(assignment.id));
  }

  /** @returns true when the task is removed, false when the worker was closed before */
  async #remove(): Promise<boolean> {
    const { id } = this.#record.assignment;
    const remove = async () => {
      await this.#deps.runtime?.remove(id);
      await this.#saved;
      await this.#deps.store.remove(id);
    };
    while (!(await this.#attempt('remove', remove))) {
      if (this.#isClosed) return false;
      await delay(REMOVE_RETRY_MS, undefined, { ref: false });
    }
    return true;
  }

  async #lastErrorLine(): Promise<string | undefined> {
    let line: string | undefined;
    const records = this.#deps.runtime?.logs(this.status.taskId, { follow: false, tail: 1 }) ?? [];
    for await (const record of records) if (record.stream === 'stderr') line = record.line;
    return line;
  }

  /** Does what must not hold up the rest when it fails. @returns whether it succeeded */
  async #attempt(step: string, action: () => Promise<unknown>): Promise<boolean> {
    try {
      await action();
      return true;
    } catch (error) {
      this.#log.error({ error, step }, 'a step of a task failed');
      return false;
    }
  }

  async #become(change: StatusChange): Promise<void> {
    if (this.#isClosed) return; // another agent may drive the task by now
    const status = advanceStatus(this.status, change, this.#deps.clock.epochMs());
    this.#record = { ...this.#record, status };
    await this.#save();
    this.#deps.report(status);
  }

  /** Stores the record as it is then. A full disk must not stop tasks: it is logged only. */
  #save(): Promise<void> {
    const save = () => this.#deps.store.save(this.#record);
    this.#saved = this.#saved.then(async () => {
      await this.#attempt('save', save);
    });
    return this.#saved;
  }
}
