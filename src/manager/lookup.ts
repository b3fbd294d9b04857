import type { StateView } from './cluster-state.ts';
import { ManagerError, notFound, type ObjectKind } from './errors.ts';
import type { TableName, Tables } from './keys.ts';
import type { NetworkRecord, NodeRecord, ServiceRecord, TaskRecord } from './records.ts';

/** The node with this id, hostname, or unique beginning of an id. */
export function findNode(view: StateView, reference: string): NodeRecord {
  return resolve(view, {
    table: 'nodes',
    kind: 'node',
    reference,
    nameOf: (n) => n.description.hostname,
  });
}

/** The network with this id, name, or unique beginning of an id. */
export function findNetwork(view: StateView, reference: string): NetworkRecord {
  return resolve(view, { table: 'networks', kind: 'network', reference, nameOf: (n) => n.name });
}

/** The service with this id, name, or unique beginning of an id. */
export function findService(view: StateView, reference: string): ServiceRecord {
  return resolve(view, {
    table: 'services',
    kind: 'service',
    reference,
    nameOf: (s) => s.spec.Name ?? '',
  });
}

/** The task with this id, name, or unique beginning of an id. */
export function findTask(view: StateView, reference: string): TaskRecord {
  return resolve(view, { table: 'tasks', kind: 'task', reference, nameOf: taskName });
}

/** `<service>.<slot>.<id>`, with the node's id for the slot where tasks have no number. */
export function taskName(task: TaskRecord): string {
  return `${task.serviceName}.${task.slot === 0 ? task.nodeId : task.slot}.${task.id}`;
}

interface Lookup<N extends TableName> {
  readonly table: N;
  readonly kind: ObjectKind;
  readonly reference: string;
  readonly nameOf: (record: Tables[N]) => string;
}

/**
 * Docker's order: the whole id, then the whole name, then the beginning of an id.
 *
 * @throws {ManagerError} NOT_FOUND, or AMBIGUOUS if several fit equally well
 */
function resolve<N extends TableName>(view: StateView, lookup: Lookup<N>): Tables[N] {
  const { table, kind, reference, nameOf } = lookup;
  const exact = view.find(table, reference);
  if (exact !== undefined) return exact;
  const all = [...view.all(table)];
  const named = all.filter((record) => nameOf(record) === reference);
  const matches =
    named.length > 0 || reference === ''
      ? named
      : all.filter((record) => record.id.startsWith(reference));
  const [match] = matches;
  if (match === undefined || reference === '') throw notFound(kind, reference);
  if (matches.length > 1) {
    throw new ManagerError(
      { code: 'AMBIGUOUS', kind, matches: matches.length },
      `${kind} ${reference} is ambiguous (${matches.length} matches found)`,
    );
  }
  return match;
}
