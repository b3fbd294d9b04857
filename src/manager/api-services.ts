import type { Context, Hono } from 'hono';
import type { ApiContext } from './api-context.ts';
import { serviceObject } from './docker-objects.ts';
import { invalid, ManagerError } from './errors.ts';
import { parseFilters, passes, passesLabels, requireValues } from './filters.ts';
import { heldPorts } from './held-ports.ts';
import { recordKey } from './keys.ts';
import { logsResponse } from './log-requests.ts';
import { findService } from './lookup.ts';
import type { ServiceRecord } from './records.ts';
import { parseBody } from './request-body.ts';
import { checkVersion, isFlagSet } from './request-query.ts';
import { serviceSpecSchema } from './service-schema.ts';
import { isGlobal, type ServiceSpec } from './service-spec.ts';
import { createService, deleteService, type ServiceContext, updateService } from './services.ts';

const MODES = ['replicated', 'global', 'replicated-job', 'global-job'];
const FILTERS = ['id', 'label', 'mode', 'name'];

/** `/services`. */
export function serviceRoutes(app: Hono, context: ApiContext): void {
  const { state, writer } = context;

  app.get('/services', (c) => {
    const services = selectServices(state.all('services'), c.req.query('filters'));
    const withStatus = isFlagSet(c.req.query('status'));
    return c.json(services.map((service) => serviceObject(state, service, withStatus)));
  });

  app.get('/services/:id', (c) =>
    c.json(serviceObject(state, findService(state, c.req.param('id')))),
  );

  app.post('/services/create', async (c) => {
    const spec = parseBody(serviceSpecSchema, await c.req.text());
    const serviceContext = await contextFor(context, spec, undefined);
    const service = await writer.write((draft) => createService(draft, spec, serviceContext));
    return c.json({ ID: service.id, Warnings: [] }, 201);
  });

  app.post('/services/:id/update', (c) => handleUpdate(c, context));

  app.delete('/services/:id', async (c) => {
    await writer.write((draft) => {
      deleteService(draft, findService(draft, c.req.param('id')), context.clock.epochMs());
    });
    return c.body(null, 200);
  });

  app.get('/services/:id/logs', (c) => {
    const service = findService(state, c.req.param('id'));
    return logsResponse(c, context, [...state.tasksOfService(service.id)]);
  });
}

async function handleUpdate(
  c: Context<object, '/services/:id/update'>,
  context: ApiContext,
): Promise<Response> {
  const { state, writer } = context;
  if (c.req.query('rollback')) {
    throw new ManagerError(
      { code: 'NOT_SUPPORTED' },
      'rollback is not supported: update the service with its former spec',
    );
  }
  const spec = parseBody(serviceSpecSchema, await c.req.text());
  const reference = c.req.param('id');
  const serviceContext = await contextFor(context, spec, findService(state, reference));
  await writer.write((draft) => {
    const service = findService(draft, reference);
    checkVersion(c.req.query('version'), state.revisionOf(recordKey('services', service.id)));
    updateService(draft, service, spec, serviceContext);
  });
  return c.json({ Warnings: [] });
}

/** Looks at this host's ports first: a transaction cannot wait for that. */
async function contextFor(
  context: ApiContext,
  spec: ServiceSpec,
  previous: ServiceRecord | undefined,
): Promise<ServiceContext> {
  const held = await heldPorts(context, spec, previous);
  const [refused] = held.asked;
  if (refused !== undefined) {
    throw invalid(
      `port '${refused.port}' is already in use on this node by ${refused.holder}`,
      'EndpointSpec.Ports',
    );
  }
  const { random, clock } = context;
  return { random, nowMs: clock.epochMs(), heldPorts: held.automatic };
}

function selectServices(
  services: Iterable<ServiceRecord>,
  query: string | undefined,
): ServiceRecord[] {
  const filters = parseFilters(query, FILTERS);
  requireValues(filters, 'mode', MODES);
  const modeOf = (service: ServiceRecord): string =>
    isGlobal(service.spec) ? 'global' : 'replicated';
  return [...services]
    .filter(
      (service) =>
        passes(filters, 'id', (id) => service.id.startsWith(id)) &&
        passes(filters, 'name', (name) => (service.spec.Name ?? '').startsWith(name)) &&
        passes(filters, 'mode', (mode) => modeOf(service) === mode) &&
        passesLabels(filters, 'label', service.spec.Labels ?? {}),
    )
    .sort((a, b) => ((a.spec.Name ?? '') < (b.spec.Name ?? '') ? -1 : 1));
}
