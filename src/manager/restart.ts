import { millisecondsOf } from './common-spec.ts';
import type { TaskRecord } from './records.ts';
import type { RestartPolicy } from './service-spec.ts';
import { isFinished } from './task-states.ts';

/** Delay before a task that ended is started again (swarmkit `api/defaults/service.go`). */
export const RESTART_DELAY_MS = 5_000;

/** Why a task must give way to another one in its slot. */
export type ReplacementReason =
  /** It ended by itself. */
  | 'finished'
  /** Its node is down or removed. */
  | 'node-lost'
  /** Its node drains, or does not meet the constraints any more. */
  | 'evicted'
  /** The service has changed. */
  | 'updated';

/** What the restart policy makes of a task that must give way. */
export type RestartDecision =
  | { readonly kind: 'give-up' }
  | {
      readonly kind: 'restart';
      /** The new task must not start earlier. */
      readonly startAtMs: number;
      /** For the new task's record. */
      readonly restartsAtMs: readonly number[];
    };

/**
 * Applies a task's restart policy (swarmkit `manager/orchestrator/restart`). The delay slows down
 * crash loops: it does not hold up a task whose node went away under it, nor an update.
 *
 * @param policy - The service's, as it is now.
 * @param nowMs - Milliseconds since the Unix epoch.
 */
export function decideRestart(
  task: TaskRecord,
  policy: RestartPolicy,
  reason: ReplacementReason,
  nowMs: number,
): RestartDecision {
  if (reason === 'updated') return { kind: 'restart', startAtMs: nowMs, restartsAtMs: [] };
  const condition = policy.Condition || 'any';
  if (condition === 'none') return { kind: 'give-up' };
  if (condition === 'on-failure' && task.status.state === 'complete') return { kind: 'give-up' };
  if (reason !== 'finished') {
    return { kind: 'restart', startAtMs: nowMs, restartsAtMs: task.restartsAtMs };
  }
  const attemptsMax = policy.MaxAttempts ?? 0; // 0: no limit
  const windowMs = millisecondsOf(policy.Window ?? 0); // 0: all the time there is
  const since = windowMs === 0 ? Number.NEGATIVE_INFINITY : nowMs - windowMs;
  const recent = task.restartsAtMs.filter((atMs) => atMs > since);
  if (attemptsMax > 0 && recent.length >= attemptsMax) return { kind: 'give-up' };
  const delayMs = policy.Delay === undefined ? RESTART_DELAY_MS : millisecondsOf(policy.Delay);
  return {
    kind: 'restart',
    startAtMs: nowMs + delayMs,
    restartsAtMs: attemptsMax === 0 ? [] : [...recent, nowMs],
  };
}

/** Whether a task that gives way may still run, so that its successor should wait for its end. */
export function mayStillRun(task: TaskRecord, reason: ReplacementReason): boolean {
  return (reason === 'evicted' || reason === 'updated') && !isFinished(task.status.state);
}
