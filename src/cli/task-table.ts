import type { AgentClient } from './agent-client.ts';
import type { Service, Task } from './api-types.ts';
import { humanDuration } from './durations.ts';
import { type Column, capitalise, compareNames, type Row, shortId } from './output.ts';
import { formatPorts } from './published-ports.ts';

/** Docker's columns of `service ps` and `node ps`. */
export const TASK_COLUMNS: readonly Column[] = [
  ['ID', 'ID'],
  ['NAME', 'Name'],
  ['IMAGE', 'Image'],
  ['NODE', 'Node'],
  ['DESIRED STATE', 'DesiredState'],
  ['CURRENT STATE', 'CurrentState'],
  ['ERROR', 'Error'],
  ['PORTS', 'Ports'],
];

/** Characters of an error that tables show (docker/cli `task/formatter.go`). */
const ERROR_LENGTH_MAX = 30;

export interface TaskRowOptions {
  readonly trunc: boolean;
  /** False: show ids in place of names. */
  readonly resolve: boolean;
  readonly nowMs: number;
}

/** Names of nodes and services by id. What is gone, or not asked for, goes by its id. */
export interface Names {
  node(id: string): string;
  service(id: string): string;
}

/** Reads the names that tasks refer to, with one request each for nodes and services. */
export async function readNames(client: AgentClient, resolve: boolean): Promise<Names> {
  if (!resolve) return { node: (id) => id, service: (id) => id };
  const [nodes, services] = await Promise.all([client.nodes(), client.services()]);
  const nodeNames = new Map(nodes.map((node) => [node.ID, node.Description?.Hostname]));
  const serviceNames = new Map(services.map((service) => [service.ID, service.Spec?.Name]));
  return {
    node: (id) => nodeNames.get(id) ?? id,
    service: (id) => serviceNames.get(id) ?? id,
  };
}

/** `web.3`; a global service's tasks are told apart by their node. */
export function taskName(task: Task, names: Names): string {
  const place = (task.Slot ?? 0) > 0 ? String(task.Slot) : (task.NodeID ?? '');
  return `${names.service(task.ServiceID ?? '')}.${place}`;
}

/**
 * The rows of `tasks` as Docker orders them: by name, newest first, with the predecessors of a task
 * indented below it.
 */
export function taskRows(tasks: readonly Task[], names: Names, options: TaskRowOptions): Row[] {
  const named = tasks
    .map((task) => ({ task, name: taskName(task, names) }))
    .sort(
      (a, b) =>
        compareNames(a.name, b.name) ||
        (b.task.CreatedAt ?? '').localeCompare(a.task.CreatedAt ?? ''),
    );
  return named.map(({ task, name }, index) => {
    const isPredecessor = named[index - 1]?.name === name;
    const state = capitalise(task.Status?.State ?? 'unknown');
    return {
      ID: options.trunc ? shortId(task.ID ?? '') : (task.ID ?? ''),
      Name: isPredecessor ? ` \\_ ${name}` : name,
      Image: imageOf(task.Spec),
      Node: names.node(task.NodeID ?? ''),
      DesiredState: capitalise(task.DesiredState ?? ''),
      CurrentState: `${state} ${age(task.Status?.Timestamp, options.nowMs)}`.trim(),
      Error: formatError(task.Status?.Err ?? '', options.trunc),
      Ports: formatPorts(task.Status?.PortStatus?.Ports ?? [], 'host'),
    };
  });
}

/** What a task runs: its image, or the program of a process task, which has none. */
export function imageOf(spec: NonNullable<Service['Spec']>['TaskTemplate']): string {
  const container = spec?.ContainerSpec;
  return container?.Image || container?.Command?.[0] || container?.Args?.[0] || '';
}

function age(timestamp: string | undefined, nowMs: number): string {
  const sinceMs = Date.parse(timestamp ?? '');
  return Number.isNaN(sinceMs) ? '' : `${humanDuration(Math.max(0, nowMs - sinceMs))} ago`;
}

function formatError(error: string, trunc: boolean): string {
  if (error === '') return '';
  const isCut = trunc && error.length > ERROR_LENGTH_MAX;
  return `"${isCut ? `${error.slice(0, ERROR_LENGTH_MAX - 1)}…` : error}"`;
}
