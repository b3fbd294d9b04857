import type { ReconcilePass } from './reconcile-pass.ts';
import type { NodeRecord, TaskRecord } from './records.ts';
import { fitsConstraints } from './slots.ts';
import type { Draft } from './state-writer.ts';
import { isLive, takesRoom, withStatus } from './task-states.ts';

/** A node on which a service fails this often in this time comes last (swarmkit `scheduler.go`). */
const FAILURES_MAX = 5;
const FAILURE_WINDOW_MS = 5 * 60 * 1_000;

/** What the scheduler knows of a node; kept up while it assigns. */
interface Candidate {
  readonly node: NodeRecord;
  tasks: number;
  /** Of each service; BOUNDED by the node's tasks, as are the other two. */
  readonly tasksByService: Map<string, number>;
  readonly failuresByService: Map<string, number>;
  readonly hostPorts: Set<string>;
}

/** Why a node cannot take a task, in the order of the checks; worded as swarmkit does. */
const REFUSALS = {
  unavailable: (nodes: number) =>
    `${nodes} ${nodes === 1 ? 'node' : 'nodes'} not available for new tasks`,
  constraint: (nodes: number) =>
    `scheduling constraints not satisfied on ${nodes} ${nodes === 1 ? 'node' : 'nodes'}`,
  hostPort: (nodes: number) =>
    `host-mode port already in use on ${nodes} ${nodes === 1 ? 'node' : 'nodes'}`,
  maxReplicas: () => 'max replicas per node limit exceed',
} as const;
type Refusal = keyof typeof REFUSALS;

/**
 * Assigns pending tasks to nodes: each to the fitting node with the fewest tasks of its service, then
 * with the fewest tasks. A task that fits nowhere stays pending and says why.
 */
export function scheduleTasks(
  draft: Draft,
  nodes: ReadonlyMap<string, NodeRecord>,
  pass: ReconcilePass,
): void {
  const pending = [...draft.all('tasks')].filter(
    (task) => task.status.state === 'pending' && isLive(task),
  );
  if (pending.length === 0) return;
  const candidates = new Map(
    [...nodes.values()].map((node) => [node.id, candidateOf(node, draft, pass.nowMs)]),
  );
  pending.sort((a, b) => a.createdAtMs - b.createdAtMs || a.slot - b.slot);
  const services = new Map(Array.from(draft.all('services'), (service) => [service.id, service]));
  for (const waiting of pending) {
    // Placement may have changed since the task was made: what the service says now holds.
    const { Placement = {} } = services.get(waiting.serviceId)?.spec.TaskTemplate ?? waiting.spec;
    const task = { ...waiting, spec: { ...waiting.spec, Placement } };
    if (task.nodeId === undefined) spread(draft, task, candidates, pass);
    else confirm(draft, task, candidates.get(task.nodeId), pass);
  }
}

function candidateOf(node: NodeRecord, draft: Draft, nowMs: number): Candidate {
  const candidate: Candidate = {
    node,
    tasks: 0,
    tasksByService: new Map(),
    failuresByService: new Map(),
    hostPorts: new Set(),
  };
  for (const task of draft.tasksOfNode(node.id)) {
    // A global service's task names its node before it is scheduled: it takes no room yet.
    if (takesRoom(task) && task.status.state !== 'pending' && task.status.state !== 'new') {
      occupy(candidate, task);
    } else if (hasFailedSince(task, nowMs - FAILURE_WINDOW_MS)) {
      increment(candidate.failuresByService, task.serviceId);
    }
  }
  return candidate;
}

function hasFailedSince(task: TaskRecord, sinceMs: number): boolean {
  const { state, timestampMs } = task.status;
  return (state === 'failed' || state === 'rejected') && timestampMs >= sinceMs;
}

function occupy(candidate: Candidate, task: TaskRecord): void {
  // A task on its way out does not count as load, but still holds its ports.
  for (const port of task.hostPorts)
    candidate.hostPorts.add(`${port.Protocol}/${port.PublishedPort}`);
  if (!isLive(task)) return;
  candidate.tasks += 1;
  increment(candidate.tasksByService, task.serviceId);
}

function increment(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function refusalOf(candidate: Candidate, task: TaskRecord): Refusal | undefined {
  const { node, hostPorts, tasksByService } = candidate;
  if (node.state !== 'ready' || node.availability !== 'active') return 'unavailable';
  if (!fitsConstraints(node, task.spec)) return 'constraint';
  if (task.hostPorts.some((port) => hostPorts.has(`${port.Protocol}/${port.PublishedPort}`))) {
    return 'hostPort';
  }
  const replicasMax = task.spec.Placement?.MaxReplicas ?? 0; // 0: no limit
  if (replicasMax > 0 && (tasksByService.get(task.serviceId) ?? 0) >= replicasMax) {
    return 'maxReplicas';
  }
  return undefined;
}

function spread(
  draft: Draft,
  task: TaskRecord,
  candidates: ReadonlyMap<string, Candidate>,
  pass: ReconcilePass,
): void {
  const refusals = new Map<Refusal, number>();
  let best: Candidate | undefined;
  for (const candidate of candidates.values()) {
    const refusal = refusalOf(candidate, task);
    if (refusal !== undefined) refusals.set(refusal, (refusals.get(refusal) ?? 0) + 1);
    else if (best === undefined || isBetter(candidate, best, task.serviceId)) best = candidate;
  }
  if (best === undefined) postpone(draft, task, refusals, pass);
  else assign(draft, task, best, 'scheduler assigned task to node', pass);
}

/** The order of preference among nodes that can take a task; total, so that a run can be replayed. */
function isBetter(a: Candidate, b: Candidate, serviceId: string): boolean {
  const isFaulty = (candidate: Candidate): number =>
    Number((candidate.failuresByService.get(serviceId) ?? 0) >= FAILURES_MAX);
  const ofService = (candidate: Candidate): number => candidate.tasksByService.get(serviceId) ?? 0;
  const order = isFaulty(a) - isFaulty(b) || ofService(a) - ofService(b) || a.tasks - b.tasks;
  return order === 0 ? a.node.id < b.node.id : order < 0;
}

function confirm(
  draft: Draft,
  task: TaskRecord,
  candidate: Candidate | undefined,
  pass: ReconcilePass,
): void {
  const refusal = candidate === undefined ? 'unavailable' : refusalOf(candidate, task);
  if (candidate === undefined || refusal !== undefined) {
    postpone(draft, task, new Map([[refusal ?? 'unavailable', 1]]), pass);
  } else {
    assign(draft, task, candidate, 'scheduler confirmed task can run on preassigned node', pass);
  }
}

function assign(
  draft: Draft,
  task: TaskRecord,
  candidate: Candidate,
  message: string,
  pass: ReconcilePass,
): void {
  const status = { state: 'assigned', message } as const;
  const assigned = { ...withStatus(task, status, pass.nowMs), nodeId: candidate.node.id };
  draft.save('tasks', assigned);
  occupy(candidate, assigned);
}

function postpone(
  draft: Draft,
  task: TaskRecord,
  refusals: ReadonlyMap<Refusal, number>,
  pass: ReconcilePass,
): void {
  const err = explain(refusals);
  if (task.status.err === err) return; // Said already: an endless loop otherwise.
  const status = { state: 'pending', message: 'pending task scheduling', err } as const;
  draft.save('tasks', withStatus(task, status, pass.nowMs));
}

/** `no suitable node (…)`: the commonest reason first. */
function explain(refusals: ReadonlyMap<Refusal, number>): string {
  const reasons = [...refusals]
    .sort(([, a], [, b]) => b - a)
    .map(([refusal, nodes]) => REFUSALS[refusal](nodes));
  return reasons.length === 0 ? 'no suitable node' : `no suitable node (${reasons.join('; ')})`;
}
