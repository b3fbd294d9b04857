import type { TaskAssignment, TaskState, TaskStatusReport } from '../manager/session-protocol.ts';
import type { TaskExit } from './task-runtime.ts';

/** A task as a node knows it: what it is to be, and what it is. */
export interface TaskRecord {
  readonly assignment: TaskAssignment;
  readonly status: TaskStatusReport;
}

/**
 * What to do with a task next.
 *
 * - `watch`: wait until it ends, or something else is wanted of it
 * - `rest`: it has ended; only its removal remains
 */
export type TaskStep = 'accept' | 'prepare' | 'start' | 'watch' | 'stop' | 'rest';

/** States that a task never leaves. */
const ENDED_STATES: ReadonlySet<TaskState> = new Set([
  'complete',
  'shutdown',
  'failed',
  'rejected',
  'remove',
  'orphaned',
]);

/** Whether `state` is one that a task never leaves. */
export function hasEnded(state: TaskState): boolean {
  return ENDED_STATES.has(state);
}

/**
 * Decides the next step of a task (swarmkit `agent/exec/controller.go`, Do).
 *
 * @param state - What the task is.
 * @param desired - What it is to be.
 */
export function nextStep(state: TaskState, desired: TaskAssignment['desiredState']): TaskStep {
  if (hasEnded(state)) return 'rest';
  if (desired !== 'running') return 'stop';
  switch (state) {
    case 'accepted':
    case 'preparing':
      return 'prepare';
    case 'ready':
    case 'starting':
      return 'start';
    case 'running':
      return 'watch';
    default:
      return 'accept';
  }
}

/** What a status says, in swarmkit's words, which `docker service ps` shows. */
const MESSAGES: Readonly<Partial<Record<TaskState, string>>> = {
  accepted: 'accepted',
  preparing: 'preparing',
  ready: 'prepared',
  starting: 'starting',
  running: 'started',
  complete: 'finished',
  shutdown: 'shutdown',
};

/** What is known beside the new state. */
export interface StatusChange {
  readonly state: TaskState;
  readonly error?: string;
  readonly pid?: number;
  readonly exitCode?: number;
}

/**
 * The status that follows `before`. A failure keeps the message of the state it happened in, as in
 * swarmkit; the process id stays once it is known.
 */
export function advanceStatus(
  before: TaskStatusReport,
  change: StatusChange,
  timestampMs: number,
): TaskStatusReport {
  const message = MESSAGES[change.state] ?? before.message;
  return { ...before, ...change, message, timestampMs };
}

/** The status of a task that has just been assigned. */
export function assignedStatus(taskId: string, timestampMs: number): TaskStatusReport {
  return { taskId, state: 'assigned', message: 'assigned', timestampMs };
}

/**
 * What becomes of a task whose process ended by itself.
 *
 * @param saidLast - The last line that it wrote to standard error, for the cases in which that is the
 *   only reason there is: exit codes 126 and 127 mean that the command could not be executed (POSIX.1,
 *   Shell 2.8.2).
 */
export function statusOfExit(exit: TaskExit, saidLast: string | undefined): StatusChange {
  const { exitCode } = exit;
  if (exitCode === undefined) {
    return { state: 'failed', error: 'task: ended while nobody watched, its exit code is lost' };
  }
  if (exitCode === 0) return { state: 'complete', exitCode };
  const reason = isExecFailure(exitCode) && saidLast !== undefined ? `: ${saidLast}` : '';
  return { state: 'failed', exitCode, error: `task: non-zero exit (${exitCode})${reason}` };
}

/** Whether an exit code means that the command could not be executed. */
export function isExecFailure(exitCode: number | undefined): boolean {
  return exitCode === 126 || exitCode === 127;
}
