import { releaseTaskAddresses } from './addresses.ts';
import { newId } from './ids.ts';
import type { ReconcilePass } from './reconcile-pass.ts';
import type { ServiceRecord, TaskRecord } from './records.ts';
import type { Draft } from './state-writer.ts';
import { isFinished, wasHandedOut, withStatus } from './task-states.ts';

/** Where a new task goes, and what it follows. */
export interface TaskPlace {
  /** 0 for a global service's task, which has a node instead. */
  readonly slot: number;
  readonly nodeId?: string;
  readonly startAtMs?: number;
  /** The id of the task whose end it should wait for. */
  readonly replaces?: string;
  readonly restartsAtMs?: readonly number[];
}

/** Creates a task of `service` as it is now. */
export function createTask(
  draft: Draft,
  service: ServiceRecord,
  place: TaskPlace,
  pass: ReconcilePass,
): TaskRecord {
  const waits =
    place.replaces !== undefined || (place.startAtMs !== undefined && place.startAtMs > pass.nowMs);
  const task: TaskRecord = {
    id: newId(pass.random),
    createdAtMs: pass.nowMs,
    updatedAtMs: pass.nowMs,
    serviceId: service.id,
    serviceName: service.spec.Name ?? '',
    serviceLabels: service.spec.Labels ?? {},
    slot: place.slot,
    ...(place.nodeId === undefined ? {} : { nodeId: place.nodeId }),
    desiredState: waits ? 'ready' : 'running',
    status: { state: 'new', message: 'created', timestampMs: pass.nowMs },
    spec: service.spec.TaskTemplate,
    taskVersion: service.taskVersion,
    hostPorts: service.ports.filter((port) => port.PublishMode === 'host'),
    networkIds: service.networkIds,
    attachments: [],
    holdsAddresses: false,
    ...(waits && place.startAtMs !== undefined ? { startAtMs: place.startAtMs } : {}),
    ...(place.replaces === undefined ? {} : { replaces: place.replaces }),
    isFinal: false,
    restartsAtMs: place.restartsAtMs ?? [],
  };
  draft.save('tasks', task);
  return task;
}

/**
 * Ends a task: its agent stops it, and it stays as history (`shutdown`) or goes away (`remove`). One
 * that no agent has heard of ends here and now.
 */
export function retireTask(
  draft: Draft,
  task: TaskRecord,
  desiredState: 'shutdown' | 'remove',
  nowMs: number,
): void {
  if (wasHandedOut(task) || isFinished(task.status.state)) {
    draft.save('tasks', { ...task, desiredState, updatedAtMs: nowMs });
  } else if (desiredState === 'remove') {
    deleteTask(draft, task);
  } else {
    const status = { state: 'shutdown', message: 'shut down before it was started' } as const;
    finishTask(draft, withStatus({ ...task, desiredState }, status, nowMs));
  }
}

/** Saves a task whose status says that it has ended, and frees its addresses. */
export function finishTask(draft: Draft, task: TaskRecord): void {
  releaseTaskAddresses(draft, task);
  draft.save('tasks', { ...task, holdsAddresses: false });
}

/** Deletes a task with all it holds. */
export function deleteTask(draft: Draft, task: TaskRecord): void {
  releaseTaskAddresses(draft, task);
  draft.drop('tasks', task.id);
}
