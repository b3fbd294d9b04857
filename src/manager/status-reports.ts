import { setNodeState } from './nodes.ts';
import type { NodeRecord, TaskRecord, TaskStatus } from './records.ts';
import type { StatusReport, TaskStatusReport } from './session-protocol.ts';
import type { Draft } from './state-writer.ts';
import { finishTask } from './task-lifecycle.ts';
import { isFinished, stateOrder } from './task-states.ts';

/**
 * Writes what a node reports. Tasks only move forward: a report that is older than what is known,
 * about an unknown task or about another node's changes nothing.
 *
 * @param nowMs - Milliseconds since the Unix epoch.
 */
export function applyReport(
  draft: Draft,
  nodeId: string,
  report: StatusReport,
  nowMs: number,
): void {
  const node = draft.find('nodes', nodeId);
  if (node === undefined) return; // Removed while the report was on its way.
  if (describesAnew(node, report)) {
    const description = report.description ?? node.description;
    const { portConflicts, gossipKeys } = report;
    const { gossipKeys: _, ...rest } = node;
    const keys = gossipKeys === undefined ? {} : { gossipKeys };
    draft.save('nodes', { ...rest, description, portConflicts, ...keys, updatedAtMs: nowMs });
  }
  const current = draft.find('nodes', nodeId);
  if (current !== undefined) setNodeState(draft, current, 'ready', '', nowMs);
  for (const status of report.tasks) applyTaskStatus(draft, nodeId, status, nowMs);
}

/** Whether `report` says nothing that the records do not say: most heartbeats are such. */
export function isNews(node: NodeRecord, report: StatusReport): boolean {
  return report.tasks.length > 0 || node.state !== 'ready' || describesAnew(node, report);
}

function describesAnew(node: NodeRecord, report: StatusReport): boolean {
  const { description = node.description, portConflicts, gossipKeys } = report;
  return (
    JSON.stringify(gossipKeys) !== JSON.stringify(node.gossipKeys) ||
    JSON.stringify(description) !== JSON.stringify(node.description) ||
    JSON.stringify(portConflicts) !== JSON.stringify(node.portConflicts)
  );
}

function applyTaskStatus(
  draft: Draft,
  nodeId: string,
  report: TaskStatusReport,
  nowMs: number,
): void {
  const task = draft.find('tasks', report.taskId);
  if (task === undefined || task.nodeId !== nodeId || !advances(task, report)) return;
  const status: TaskStatus = {
    state: report.state,
    message: report.message,
    ...(report.error === undefined ? {} : { err: report.error }),
    timestampMs: report.timestampMs,
    ...(report.pid === undefined ? {} : { pid: report.pid }),
    ...(report.exitCode === undefined ? {} : { exitCode: report.exitCode }),
  };
  const updated = { ...task, updatedAtMs: nowMs, status };
  if (isFinished(report.state)) finishTask(draft, updated);
  else draft.save('tasks', updated);
}

function advances(task: TaskRecord, report: TaskStatusReport): boolean {
  const { status } = task;
  const step = stateOrder(report.state) - stateOrder(status.state);
  if (step !== 0) return step > 0 && !isFinished(status.state);
  return (
    status.message !== report.message ||
    status.err !== report.error ||
    status.pid !== report.pid ||
    status.exitCode !== report.exitCode
  );
}
