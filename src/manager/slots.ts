import { meetsConstraints, parseConstraint } from './constraints.ts';
import type { NodeRecord, ServiceRecord, TaskRecord } from './records.ts';
import type { ReplacementReason } from './restart.ts';
import type { TaskSpec } from './service-spec.ts';
import { isFinished, isLive, newestFirst } from './task-states.ts';

/** One of the places of a service: a number for replicated services, a node for global ones. */
export interface Slot {
  /** 0 for global services. */
  readonly number: number;
  /** Of global services only. */
  readonly nodeId?: string;
  /** The task that fills the slot: one that is wanted, or the last one if its policy has ended. */
  readonly holder: TaskRecord | undefined;
  /** All others, whose end is settled; in no particular order. */
  readonly history: readonly TaskRecord[];
  /** Wanted besides `holder`: only after two managers acted at once; to be shut down. */
  readonly surplus: readonly TaskRecord[];
}

/** Groups a service's tasks by slot, keyed by number or node id. Slots may be empty of holders. */
export function slotsOf(tasks: Iterable<TaskRecord>, global: boolean): Map<string, Slot> {
  const groups = new Map<string, TaskRecord[]>();
  for (const task of tasks) {
    const key = global ? (task.nodeId ?? '') : String(task.slot);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [task]);
    else group.push(task);
  }
  const slots = new Map<string, Slot>();
  for (const [key, group] of groups) {
    const kept = group.filter((task) => task.desiredState !== 'remove');
    const live = kept.filter(isLive).sort(newestFirst);
    const holder = live[0] ?? kept.find((task) => task.isFinal);
    const place = global ? { number: 0, nodeId: key } : { number: Number(key) };
    const history = kept.filter((task) => task !== holder && !isLive(task));
    slots.set(key, { ...place, holder, history, surplus: live.slice(1) });
  }
  return slots;
}

/** Whether a node may hold tasks with `spec`, by its labels and nature alone. */
export function fitsConstraints(node: NodeRecord, spec: TaskSpec): boolean {
  const constraints = (spec.Placement?.Constraints ?? []).flatMap(
    (text) => parseConstraint(text) ?? [],
  );
  return meetsConstraints(node, constraints);
}

/**
 * Why the holder of a slot must give way, if it must; updates are not looked at here.
 *
 * @param node - The holder's node; undefined if it has none, or is gone.
 */
export function reasonToReplace(
  holder: TaskRecord,
  node: NodeRecord | undefined,
  service: ServiceRecord,
): ReplacementReason | undefined {
  if (holder.isFinal) return undefined;
  if (holder.status.state === 'orphaned') return 'node-lost';
  if (holder.nodeId !== undefined) {
    if (node === undefined || node.state === 'down') return 'node-lost';
    if (node.availability === 'drain') return 'evicted';
    // Paused nodes keep what they have (swarmkit `constraintenforcer`).
    if (node.availability === 'active' && !fitsConstraints(node, service.spec.TaskTemplate))
      return 'evicted';
  }
  return isFinished(holder.status.state) ? 'finished' : undefined;
}

/** Whether the slot's task is made by an older form of the service. */
export function isOutdated(slot: Slot, service: ServiceRecord): boolean {
  return slot.holder !== undefined && slot.holder.taskVersion !== service.taskVersion;
}
