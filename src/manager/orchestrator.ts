import type { ReconcilePass } from './reconcile-pass.ts';
import type { NodeRecord, ServiceRecord, TaskRecord } from './records.ts';
import { decideRestart, mayStillRun, type ReplacementReason } from './restart.ts';
import { isGlobal, replicasOf } from './service-spec.ts';
import { fitsConstraints, isOutdated, reasonToReplace, type Slot, slotsOf } from './slots.ts';
import type { Draft } from './state-writer.ts';
import { createTask, retireTask } from './task-lifecycle.ts';
import { isFinished, stateOrder } from './task-states.ts';

/** Slots replaced at a time when a service is updated (swarmkit `api/defaults/service.go`). */
const UPDATE_PARALLELISM = 1;

/**
 * Brings the tasks of `service` to what its spec wants: surplus slots go, tasks that ended or lost
 * their node are replaced by the restart policy, outdated ones by the update policy, missing ones
 * are created. Only tasks are written; where they run is the scheduler's to say.
 */
export function planService(
  draft: Draft,
  service: ServiceRecord,
  nodes: ReadonlyMap<string, NodeRecord>,
  pass: ReconcilePass,
): void {
  const global = isGlobal(service.spec);
  const slots = slotsOf(draft.tasksOfService(service.id), global);
  for (const slot of slots.values()) {
    for (const task of slot.surplus) retireTask(draft, task, 'shutdown', pass.nowMs);
  }
  const kept = global
    ? keepEligibleNodes(draft, service, slots, nodes, pass)
    : keepReplicas(draft, slots, replicasOf(service.spec), pass);
  for (const slot of kept) {
    if (slot.holder === undefined) continue;
    const node = slot.holder.nodeId === undefined ? undefined : nodes.get(slot.holder.nodeId);
    const reason = reasonToReplace(slot.holder, node, service);
    if (reason !== undefined) replace(draft, { service, slot, holder: slot.holder, reason }, pass);
  }
  updateOutdated(draft, service, kept, pass);
  if (global) fillNodes(draft, service, nodes, pass);
  else fillReplicas(draft, service, pass);
}

/** Removes the slots beyond `replicas`; returns those that stay. */
function keepReplicas(
  draft: Draft,
  slots: ReadonlyMap<string, Slot>,
  replicas: number,
  pass: ReconcilePass,
): Slot[] {
  const filled = [...slots.values()].filter((slot) => slot.holder !== undefined);
  const surplus = new Set(pickSurplus(filled, filled.length - replicas));
  for (const slot of surplus) {
    for (const task of [slot.holder, ...slot.history]) {
      if (task !== undefined) retireTask(draft, task, 'remove', pass.nowMs);
    }
  }
  return filled.filter((slot) => !surplus.has(slot));
}

/**
 * Chooses which slots a smaller service gives up: first those that do not run, then those on the
 * node with the most of them, and of these the highest number.
 */
function pickSurplus(slots: readonly Slot[], count: number): Slot[] {
  const left = [...slots];
  const perNode = new Map<string, number>();
  const nodeOf = (slot: Slot): string => slot.holder?.nodeId ?? '';
  for (const slot of left) perNode.set(nodeOf(slot), (perNode.get(nodeOf(slot)) ?? 0) + 1);
  const isIdle = (slot: Slot): boolean => slot.holder?.status.state !== 'running';
  const loadOf = (slot: Slot): number => perNode.get(nodeOf(slot)) ?? 0;
  const picked: Slot[] = [];
  while (picked.length < count) {
    left.sort(
      (a, b) =>
        Number(isIdle(b)) - Number(isIdle(a)) || loadOf(b) - loadOf(a) || b.number - a.number,
    );
    const slot = left.shift();
    if (slot === undefined) break;
    perNode.set(nodeOf(slot), loadOf(slot) - 1);
    picked.push(slot);
  }
  return picked;
}

/** Shuts down a global service's tasks on nodes that may not hold them; returns the other slots. */
function keepEligibleNodes(
  draft: Draft,
  service: ServiceRecord,
  slots: ReadonlyMap<string, Slot>,
  nodes: ReadonlyMap<string, NodeRecord>,
  pass: ReconcilePass,
): Slot[] {
  return [...slots.values()].filter((slot) => {
    if (slot.holder === undefined) return false;
    const reason = reasonToReplace(slot.holder, nodes.get(slot.nodeId ?? ''), service);
    if (reason !== 'node-lost' && reason !== 'evicted') return true;
    // A task of this node cannot move: it is created anew when the node is fit again.
    retireTask(draft, slot.holder, 'shutdown', pass.nowMs);
    return false;
  });
}

interface Replacement {
  readonly service: ServiceRecord;
  readonly slot: Slot;
  readonly holder: TaskRecord;
  readonly reason: ReplacementReason;
}

/** Shuts a task down and creates the one that follows it, if the restart policy wants one. */
function replace(draft: Draft, replacement: Replacement, pass: ReconcilePass): void {
  const { service, slot, holder, reason } = replacement;
  const decision = decideRestart(
    holder,
    service.spec.TaskTemplate.RestartPolicy ?? {},
    reason,
    pass.nowMs,
  );
  if (decision.kind === 'give-up') {
    retireTask(draft, { ...holder, isFinal: true }, 'shutdown', pass.nowMs);
    return;
  }
  if (!pass.takeCreation()) return;
  retireTask(
    draft,
    holder.isFinal ? { ...holder, isFinal: false } : holder,
    'shutdown',
    pass.nowMs,
  );
  createTask(
    draft,
    service,
    {
      slot: slot.number,
      ...(slot.nodeId === undefined ? {} : { nodeId: slot.nodeId }),
      startAtMs: decision.startAtMs,
      ...(mayStillRun(holder, reason) ? { replaces: holder.id } : {}),
      restartsAtMs: decision.restartsAtMs,
    },
    pass,
  );
}

/**
 * Replaces outdated tasks, at most so many at a time as the update policy allows: slots whose new
 * task does not run yet count, so that a broken update stops by itself.
 */
function updateOutdated(
  draft: Draft,
  service: ServiceRecord,
  kept: readonly Slot[],
  pass: ReconcilePass,
): void {
  if (!kept.some((slot) => isOutdated(slot, service))) return;
  const current = slotsOf(draft.tasksOfService(service.id), isGlobal(service.spec));
  const outdated: Slot[] = [];
  let inProgress = 0;
  for (const slot of current.values()) {
    if (isOutdated(slot, service)) outdated.push(slot);
    else if (slot.holder !== undefined && !hasStarted(slot.holder)) inProgress += 1;
  }
  const parallelism = service.spec.UpdateConfig?.Parallelism ?? UPDATE_PARALLELISM;
  let room = parallelism === 0 ? outdated.length : parallelism - inProgress;
  // Those that do not run anyway cost nothing: they go first, and do not count.
  outdated.sort((a, b) => Number(isRunning(a)) - Number(isRunning(b)) || a.number - b.number);
  for (const slot of outdated) {
    if (slot.holder === undefined) continue;
    if (isRunning(slot)) {
      if (room <= 0) return;
      room -= 1;
    }
    replace(draft, { service, slot, holder: slot.holder, reason: 'updated' }, pass);
  }
}

function hasStarted(task: TaskRecord): boolean {
  return task.isFinal || task.status.state === 'running';
}

function isRunning(slot: Slot): boolean {
  const state = slot.holder?.status.state ?? 'new';
  return !isFinished(state) && stateOrder(state) >= stateOrder('starting');
}

function fillReplicas(draft: Draft, service: ServiceRecord, pass: ReconcilePass): void {
  const taken = new Set<number>();
  for (const slot of slotsOf(draft.tasksOfService(service.id), false).values()) {
    if (slot.holder !== undefined) taken.add(slot.number);
  }
  let missing = replicasOf(service.spec) - taken.size;
  for (let slot = 1; missing > 0; slot += 1) {
    if (taken.has(slot)) continue;
    if (!pass.takeCreation()) return;
    createTask(draft, service, { slot }, pass);
    missing -= 1;
  }
}

function fillNodes(
  draft: Draft,
  service: ServiceRecord,
  nodes: ReadonlyMap<string, NodeRecord>,
  pass: ReconcilePass,
): void {
  const slots = slotsOf(draft.tasksOfService(service.id), true);
  for (const node of nodes.values()) {
    if (slots.get(node.id)?.holder !== undefined) continue;
    if (node.state !== 'ready' || node.availability !== 'active') continue;
    if (!fitsConstraints(node, service.spec.TaskTemplate)) continue;
    if (!pass.takeCreation()) return;
    createTask(draft, service, { slot: 0, nodeId: node.id }, pass);
  }
}
