import type { Hono } from 'hono';
import type { ApiContext } from './api-context.ts';
import type { ClusterState } from './cluster-state.ts';
import { taskObject } from './docker-objects.ts';
import { parseFilters, passes, passesLabels, requireValues } from './filters.ts';
import { logsResponse } from './log-requests.ts';
import { findTask, taskName } from './lookup.ts';
import type { TaskRecord } from './records.ts';
import { newestFirst } from './task-states.ts';

/** What Docker documents, and `ready` and `remove`, which its tasks can be wanted to be as well. */
const DESIRED_STATES = ['running', 'shutdown', 'accepted', 'ready', 'remove'];
const FILTERS = ['desired-state', 'id', 'label', 'name', 'node', 'service'];

/** `/tasks`. */
export function taskRoutes(app: Hono, context: ApiContext): void {
  const { state } = context;

  app.get('/tasks', (c) => {
    const tasks = selectTasks(state, c.req.query('filters'));
    return c.json(tasks.map((task) => taskObject(state, task)));
  });

  app.get('/tasks/:id', (c) => c.json(taskObject(state, findTask(state, c.req.param('id')))));

  app.get('/tasks/:id/logs', (c) => logsResponse(c, context, [findTask(state, c.req.param('id'))]));
}

function selectTasks(state: ClusterState, query: string | undefined): TaskRecord[] {
  const filters = parseFilters(query, FILTERS);
  requireValues(filters, 'desired-state', DESIRED_STATES);
  return [...state.all('tasks')]
    .filter((task) => {
      const node = state.find('nodes', task.nodeId ?? '');
      return (
        passes(filters, 'id', (id) => task.id.startsWith(id)) &&
        passes(filters, 'name', (name) => taskName(task).startsWith(name)) &&
        passes(filters, 'desired-state', (desired) => task.desiredState === desired) &&
        passes(filters, 'service', (service) =>
          refersTo(service, task.serviceId, task.serviceName),
        ) &&
        passes(filters, 'node', (name) =>
          refersTo(name, task.nodeId ?? '', node?.description.hostname ?? ''),
        ) &&
        passesLabels(filters, 'label', task.serviceLabels)
      );
    })
    .sort((a, b) => a.slot - b.slot || newestFirst(a, b));
}

function refersTo(reference: string, id: string, name: string): boolean {
  return reference !== '' && (reference === name || id.startsWith(reference));
}
