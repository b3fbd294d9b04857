import type { ReconcilePass } from './reconcile-pass.ts';
import type { NodeRecord, TaskRecord } from './records.ts';
import type { Draft } from './state-writer.ts';
import { isFinished } from './task-states.ts';

/** A task waits this long for the one it replaces (swarmkit `restart.go`: old task timeout). */
export const PREDECESSOR_WAIT_MS = 60_000;

/**
 * Lets waiting tasks start: when their delay is over, and the task that they replace has ended or
 * had its time.
 */
export function openStartGates(
  draft: Draft,
  nodes: ReadonlyMap<string, NodeRecord>,
  pass: ReconcilePass,
): void {
  for (const task of [...draft.all('tasks')]) {
    if (task.desiredState !== 'ready') continue;
    const opensAtMs = gateOpensAtMs(draft, task, nodes, pass.nowMs);
    if (opensAtMs > pass.nowMs) pass.wakeAt(opensAtMs);
    else draft.save('tasks', { ...task, desiredState: 'running', updatedAtMs: pass.nowMs });
  }
}

function gateOpensAtMs(
  draft: Draft,
  task: TaskRecord,
  nodes: ReadonlyMap<string, NodeRecord>,
  nowMs: number,
): number {
  const delayEndsAtMs = task.startAtMs ?? nowMs;
  const predecessor = task.replaces === undefined ? undefined : draft.find('tasks', task.replaces);
  if (predecessor === undefined || isFinished(predecessor.status.state)) return delayEndsAtMs;
  const node = nodes.get(predecessor.nodeId ?? '');
  if (node === undefined || node.state === 'down') return delayEndsAtMs;
  return Math.max(delayEndsAtMs, task.createdAtMs + PREDECESSOR_WAIT_MS);
}
