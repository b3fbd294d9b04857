import type { TaskRecord, TaskStatus } from './records.ts';
import { TASK_STATES, type TaskState } from './session-protocol.ts';

const ORDER: ReadonlyMap<TaskState, number> = new Map(
  TASK_STATES.map((state, index) => [state, index]),
);

/** The place of `state` in Swarm's order; a task's state never goes to a lower one. */
export function stateOrder(state: TaskState): number {
  return ORDER.get(state) ?? 0;
}

/** Whether a task in `state` has ended, in whatever way: its process does not run any more. */
export function isFinished(state: TaskState): boolean {
  return stateOrder(state) > stateOrder('running');
}

/** Whether the orchestrator wants `task` to run, now or soon. */
export function isLive(task: TaskRecord): boolean {
  return task.desiredState === 'running' || task.desiredState === 'ready';
}

/** Whether `task` takes room on its node: its process runs, or may still run. */
export function takesRoom(task: TaskRecord): boolean {
  return task.nodeId !== undefined && !isFinished(task.status.state);
}

/**
 * Whether an agent may have heard of `task`: assignments leave out tasks without a node, and those
 * that are not to start yet.
 */
export function wasHandedOut(task: TaskRecord): boolean {
  return (
    task.nodeId !== undefined &&
    task.desiredState !== 'ready' &&
    stateOrder(task.status.state) >= stateOrder('assigned')
  );
}

/** `task` with some of its status changed. */
export function withStatus(
  task: TaskRecord,
  status: Omit<TaskStatus, 'timestampMs'>,
  nowMs: number,
): TaskRecord {
  return { ...task, updatedAtMs: nowMs, status: { ...status, timestampMs: nowMs } };
}

/** Orders tasks from the newest to the oldest; of one moment, by id. */
export function newestFirst(a: TaskRecord, b: TaskRecord): number {
  return b.createdAtMs - a.createdAtMs || (a.id < b.id ? 1 : -1);
}
