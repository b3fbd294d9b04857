import type { ReconcilePass } from './reconcile-pass.ts';
import type { NodeRecord, TaskRecord } from './records.ts';
import type { Draft } from './state-writer.ts';
import { deleteTask, finishTask } from './task-lifecycle.ts';
import { isFinished, isLive, newestFirst, takesRoom, withStatus } from './task-states.ts';

/** A node that is down for so long is taken to be gone with its tasks (swarmkit dispatcher). */
export const ORPHAN_AFTER_MS: number = 24 * 60 * 60 * 1_000;

/** Ends the tasks on nodes that have been down for too long: their addresses become free. */
export function orphanTasks(
  draft: Draft,
  nodes: ReadonlyMap<string, NodeRecord>,
  pass: ReconcilePass,
): void {
  for (const node of nodes.values()) {
    if (node.state !== 'down') continue;
    const held = [...draft.tasksOfNode(node.id)].filter(takesRoom);
    if (held.length === 0) continue;
    const dueAtMs = node.stateSinceMs + ORPHAN_AFTER_MS;
    if (dueAtMs > pass.nowMs) pass.wakeAt(dueAtMs);
    else for (const task of held) orphanTask(draft, task, pass.nowMs);
  }
}

/** Ends a task whose node will not tell any more how it went. */
export function orphanTask(draft: Draft, task: TaskRecord, nowMs: number): void {
  const status = { ...task.status, state: 'orphaned', message: 'node is gone' } as const;
  finishTask(draft, withStatus(task, status, nowMs));
}

/**
 * Deletes tasks that are over: those to be removed once their agent has confirmed the end, those that
 * went with their node, and of each slot's history all but the newest.
 */
export function reapTasks(draft: Draft, pass: ReconcilePass): void {
  const history = new Map<string, TaskRecord[]>();
  for (const task of [...draft.all('tasks')]) {
    if (isLive(task) || takesRoom(task)) continue;
    if (task.desiredState === 'remove' || task.status.state === 'orphaned') {
      deleteTask(draft, task);
    } else if (!task.isFinal && isFinished(task.status.state)) {
      const slot = `${task.serviceId}/${task.slot === 0 ? task.nodeId : task.slot}`;
      const tasks = history.get(slot);
      if (tasks === undefined) history.set(slot, [task]);
      else tasks.push(task);
    }
  }
  for (const tasks of history.values()) {
    tasks.sort(newestFirst);
    for (const task of tasks.slice(pass.historyLimit)) deleteTask(draft, task);
  }
}
