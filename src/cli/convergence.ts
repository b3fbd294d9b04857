import { isDeepStrictEqual } from 'node:util';
import type { Service, Task } from './api-types.ts';
import { compareNames } from './output.ts';

/** Where one replica stands, or one node of a global service. */
export interface SlotProgress {
  /** The slot's number, or the node's id. */
  readonly name: string;
  readonly state: string;
  /** Why its latest attempt failed or cannot go on; may be empty. */
  readonly error: string;
  readonly isDone: boolean;
  /** It failed and nothing takes its place. Right after the failure that is so for a moment. */
  readonly isLost: boolean;
}

/** How far the tasks of a service are from what it asks for. */
export interface Convergence {
  readonly desired: number;
  readonly done: number;
  readonly isConverged: boolean;
  readonly slots: readonly SlotProgress[];
}

/** Desired states of tasks that are there to run, or will be. */
const ACTIVE_STATES: ReadonlySet<string> = new Set(['ready', 'running']);
const FAILED_STATES: ReadonlySet<string> = new Set(['failed', 'rejected']);

/**
 * Compares the tasks of a service with its spec. A slot is done when its task runs, or has
 * completed with none to follow it.
 *
 * @param tasks - All of the service, past ones included.
 */
export function assessConvergence(service: Service, tasks: readonly Task[]): Convergence {
  const isGlobal = service.Spec?.Mode?.Global !== undefined;
  const groups = [...groupBySlot(tasks)].map(([name, history]) => ({
    name,
    isActive: history.some(isActive),
    progress: slotProgress(service, name, history),
  }));
  const active = groups.filter((group) => group.isActive);
  // A slot whose task failed for good has no active one, and must be seen all the same.
  const chosen = isGlobal
    ? active
    : [...active, ...groups.filter((group) => !group.isActive)].slice(0, replicasOf(service));
  const slots = chosen.map((group) => group.progress).sort((a, b) => compareNames(a.name, b.name));
  const done = slots.filter((slot) => slot.isDone).length;
  const desired = isGlobal ? slots.length : replicasOf(service);
  // A global service without any task has not been looked at yet.
  return { desired, done, isConverged: done === desired && (desired > 0 || !isGlobal), slots };
}

function replicasOf(service: Service): number {
  return service.Spec?.Mode?.Replicated?.Replicas ?? 1;
}

/** The tasks of each slot (each node of a global service), newest first. */
function groupBySlot(tasks: readonly Task[]): Map<string, Task[]> {
  const groups = new Map<string, Task[]>(); // BOUNDED by the tasks of one service
  const newestFirst = tasks.toSorted((a, b) =>
    (b.CreatedAt ?? '').localeCompare(a.CreatedAt ?? ''),
  );
  for (const task of newestFirst) {
    const name = (task.Slot ?? 0) > 0 ? String(task.Slot) : (task.NodeID ?? '');
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [task]);
    else group.push(task);
  }
  return groups;
}

function isActive(task: Task): boolean {
  return ACTIVE_STATES.has(task.DesiredState ?? '');
}

function slotProgress(service: Service, name: string, history: readonly Task[]): SlotProgress {
  const current = history.find(isActive) ?? history[0];
  const state = current?.Status?.State ?? 'new';
  const ofThisSpec = history.filter((task) => isUpToDate(service, task));
  const isCurrent = current !== undefined && isUpToDate(service, current);
  const isRunning = state === 'running' && current?.DesiredState === 'running';
  return {
    name,
    state,
    error: current?.Status?.Err || ofThisSpec.find((task) => task.Status?.Err)?.Status?.Err || '',
    isDone: isCurrent && (isRunning || state === 'complete'),
    isLost: isCurrent && FAILED_STATES.has(state),
  };
}

/** A task of the spec before an update is to be replaced: it is not enough that it runs. */
function isUpToDate(service: Service, task: Task): boolean {
  const wanted = service.Spec?.TaskTemplate;
  if (task.Spec === undefined) return true;
  return (
    isDeepStrictEqual(task.Spec.ContainerSpec, wanted?.ContainerSpec) &&
    (task.Spec.ForceUpdate ?? 0) === (wanted?.ForceUpdate ?? 0)
  );
}
