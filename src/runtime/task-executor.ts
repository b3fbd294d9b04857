import type { Clock, Log } from '../core/capabilities.ts';
import type { TaskAssignment, TaskStatusReport } from '../manager/session-protocol.ts';
import { assignedStatus, type TaskRecord } from './task-lifecycle.ts';
import type {
  AdoptedTask,
  LogOptions,
  LogRecord,
  TaskNetwork,
  TaskRuntime,
} from './task-runtime.ts';
import type { TaskStore } from './task-store.ts';
import { TaskWorker } from './task-worker.ts';

/** This node's runtimes, by the kind that a task asks for. */
export type TaskRuntimes = Readonly<Partial<Record<TaskAssignment['runtime'], TaskRuntime>>>;

/** What a {@link TaskExecutor} needs. */
export interface TaskExecutorDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: TaskStore;
  readonly runtimes: TaskRuntimes;
  readonly network: TaskNetwork;
  /** Called with every new status of a task. */
  readonly report: (status: TaskStatusReport) => void;
}

/**
 * The node's worker: makes its tasks what the managers last said, one step after the other within a
 * task, all tasks at once. It remembers them on disk, so they go on while no manager answers, and an
 * agent that starts anew finds its tasks instead of starting them twice. Restarting a task that ended
 * is the manager's business: it assigns a new one.
 */
export class TaskExecutor {
  readonly #deps: TaskExecutorDeps;
  /** By task id. BOUNDED by the tasks that the managers assign to this node. */
  readonly #workers = new Map<string, TaskWorker>();
  /** Ids of the last assignment. */
  #wanted: ReadonlySet<string> = new Set();
  #isClosed = false;

  constructor(deps: TaskExecutorDeps) {
    this.#deps = deps;
  }

  /**
   * Takes over the tasks of an earlier agent. Call it first and once; it needs no manager. What is
   * left of tasks that nobody remembers is killed and removed. Resolves when every task that runs is
   * on its networks again.
   */
  async restore(): Promise<void> {
    const records = await this.#deps.store.list();
    const adopted = new Map<string, AdoptedTask>();
    for (const runtime of Object.values(this.#deps.runtimes)) {
      for (const task of await runtime.adopt()) {
        adopted.set(task.taskId, task);
        if (records.some((record) => record.assignment.id === task.taskId)) continue;
        this.#deps.log.warn({ taskId: task.taskId }, 'removing what is left of an unknown task');
        await runtime.remove(task.taskId);
      }
    }
    for (const record of records) this.#add(record, adopted.get(record.assignment.id));
    await Promise.all([...this.#workers.values()].map((worker) => worker.resumed));
  }

  /**
   * Sets the tasks of this node. Repeat it as often as you like.
   *
   * @param tasks - All of them: a known task that is missing is stopped and removed.
   */
  assign(tasks: readonly TaskAssignment[]): void {
    this.#wanted = new Set(tasks.map((task) => task.id));
    for (const [taskId, worker] of this.#workers) {
      if (this.#wanted.has(taskId)) continue;
      worker.desire('remove');
      if (worker.isRemoved) this.#workers.delete(taskId);
    }
    for (const task of tasks) {
      const worker = this.#workers.get(task.id);
      if (worker !== undefined) worker.desire(task.desiredState);
      else this.#add({ assignment: task, status: assignedStatus(task.id, this.#epochMs()) });
    }
  }

  /** The last status of every task, for the first report to a manager. */
  statuses(): readonly TaskStatusReport[] {
    return [...this.#workers.values()].map((worker) => worker.status);
  }

  /** Stops and removes all tasks, as a node does that leaves its cluster. */
  async removeAll(): Promise<void> {
    const removed = [...this.#workers.values()].map((worker) => worker.removed);
    this.assign([]);
    await Promise.all(removed);
  }

  /** What a task wrote; empty when this node does not know it. */
  async *logs(taskId: string, options: LogOptions): AsyncGenerator<LogRecord, void, undefined> {
    const runtime = this.#workers.get(taskId)?.runtime;
    if (runtime !== undefined) yield* runtime.logs(taskId, options);
  }

  /** Lets go of all tasks, which run on. Runtimes are closed by who made them. */
  close(): void {
    this.#isClosed = true;
    for (const worker of this.#workers.values()) worker.close();
    this.#workers.clear();
  }

  #epochMs(): number {
    return this.#deps.clock.epochMs();
  }

  #add(record: TaskRecord, adopted?: AdoptedTask): void {
    if (this.#isClosed) return;
    const runtime = this.#deps.runtimes[record.assignment.runtime];
    const worker = new TaskWorker({ ...this.#deps, runtime }, record, adopted);
    const { id } = record.assignment;
    this.#workers.set(id, worker);
    // Until then it stays known, so that one task never has two workers; and while it is assigned,
    // so that its end stays known.
    void worker.removed.then(() => {
      if (!this.#wanted.has(id)) this.#workers.delete(id);
    });
  }
}
