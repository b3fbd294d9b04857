import type { Hono } from 'hono';
import type { ApiContext } from './api-context.ts';
import { networkObject, networkSummary } from './docker-objects.ts';
import { parseFilters, passes, passesLabels, requireValues } from './filters.ts';
import { findNetwork } from './lookup.ts';
import { networkCreateSchema } from './network-spec.ts';
import { createNetwork, deleteNetwork } from './networks.ts';
import type { NetworkRecord } from './records.ts';
import { parseBody } from './request-body.ts';

const SCOPES = ['swarm', 'global', 'local'];
const TYPES = ['custom', 'builtin'];
const FILTERS = ['driver', 'id', 'label', 'name', 'scope', 'type'];

/** `/networks`. */
export function networkRoutes(app: Hono, context: ApiContext): void {
  const { state, writer, clock, random } = context;

  app.get('/networks', (c) => {
    const networks = selectNetworks(state.all('networks'), c.req.query('filters'));
    return c.json(networks.map(networkSummary));
  });

  app.get('/networks/:id', (c) =>
    c.json(networkObject(state, findNetwork(state, c.req.param('id')))),
  );

  app.post('/networks/create', async (c) => {
    const spec = parseBody(networkCreateSchema, await c.req.text());
    const hostRoutes = (await context.hostRoutes?.()) ?? [];
    const network = await writer.write((draft) =>
      createNetwork(draft, spec, { random, nowMs: clock.epochMs(), hostRoutes }),
    );
    return c.json({ Id: network.id, Warning: '' }, 201);
  });

  app.delete('/networks/:id', async (c) => {
    await writer.write((draft) => deleteNetwork(draft, findNetwork(draft, c.req.param('id'))));
    return c.body(null, 204);
  });
}

function selectNetworks(
  networks: Iterable<NetworkRecord>,
  query: string | undefined,
): NetworkRecord[] {
  const filters = parseFilters(query, FILTERS);
  requireValues(filters, 'scope', SCOPES);
  requireValues(filters, 'type', TYPES);
  return [...networks]
    .filter(
      (network) =>
        passes(filters, 'id', (id) => network.id.includes(id)) &&
        passes(filters, 'name', (name) => network.name.includes(name)) &&
        passes(filters, 'driver', (driver) => driver === 'overlay') &&
        passes(filters, 'scope', (scope) => scope === 'swarm') &&
        passes(filters, 'type', (type) => type === 'custom') &&
        passesLabels(filters, 'label', network.spec.Labels ?? {}),
    )
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}
