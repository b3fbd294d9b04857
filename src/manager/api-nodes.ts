import type { Hono } from 'hono';
import { z } from 'zod';
import type { ApiContext } from './api-context.ts';
import { labelsSchema } from './common-spec.ts';
import { nodeObject } from './docker-objects.ts';
import { parseFilters, passes, passesLabels, requireValues } from './filters.ts';
import { recordKey } from './keys.ts';
import { findNode } from './lookup.ts';
import { removeNode, updateNode } from './nodes.ts';
import type { NodeRecord } from './records.ts';
import { parseBody } from './request-body.ts';
import { checkVersion, isFlagSet } from './request-query.ts';

const nodeSpecSchema = z.strictObject(
  {
    Name: z.literal('', 'nodes have no names but their host names').exactOptional(),
    Labels: labelsSchema.exactOptional(),
    Role: z.enum(['worker', 'manager'], 'expected "worker" or "manager"'),
    Availability: z.enum(['active', 'pause', 'drain'], 'expected "active", "pause" or "drain"'),
  },
  'expected a JSON object',
);

const ROLES = ['worker', 'manager'];
const MEMBERSHIPS = ['accepted', 'pending'];
const FILTERS = ['id', 'label', 'membership', 'name', 'node.label', 'role'];

/** `/nodes`. */
export function nodeRoutes(app: Hono, context: ApiContext): void {
  const { state, writer, clock, local } = context;

  app.get('/nodes', (c) => {
    const nodes = selectNodes(state.all('nodes'), c.req.query('filters'));
    return c.json(nodes.map((node) => nodeObject(state, node, local.managerPort)));
  });

  app.get('/nodes/:id', (c) =>
    c.json(nodeObject(state, findNode(state, c.req.param('id')), local.managerPort)),
  );

  app.delete('/nodes/:id', async (c) => {
    const force = isFlagSet(c.req.query('force'));
    await writer.write((draft) => {
      const node = findNode(draft, c.req.param('id'));
      removeNode(draft, node, { force, localNodeId: local.nodeId(), nowMs: clock.epochMs() });
    });
    return c.body(null, 200);
  });

  app.post('/nodes/:id/update', async (c) => {
    const spec = parseBody(nodeSpecSchema, await c.req.text());
    await writer.write((draft) => {
      const node = findNode(draft, c.req.param('id'));
      checkVersion(c.req.query('version'), state.revisionOf(recordKey('nodes', node.id)));
      const { Availability: availability, Labels: labels = {}, Role: role } = spec;
      updateNode(draft, node, { availability, labels, role }, clock.epochMs());
    });
    return c.body(null, 200);
  });
}

function selectNodes(nodes: Iterable<NodeRecord>, query: string | undefined): NodeRecord[] {
  const filters = parseFilters(query, FILTERS);
  requireValues(filters, 'role', ROLES);
  requireValues(filters, 'membership', MEMBERSHIPS);
  return [...nodes]
    .filter(
      (node) =>
        passes(filters, 'id', (id) => node.id.startsWith(id)) &&
        passes(filters, 'name', (name) => node.description.hostname.startsWith(name)) &&
        passes(filters, 'role', (role) => node.role === role) &&
        // Who has a token is accepted at once.
        passes(filters, 'membership', (membership) => membership === 'accepted') &&
        passesLabels(filters, 'label', node.description.labels ?? {}) &&
        passesLabels(filters, 'node.label', node.labels),
    )
    .sort((a, b) => (a.id < b.id ? -1 : 1));
}
