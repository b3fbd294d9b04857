import { Hono } from 'hono';
import type { ApiContext } from './api-context.ts';
import { gossipRoutes } from './api-gossip.ts';
import { networkRoutes } from './api-networks.ts';
import { nodeRoutes } from './api-nodes.ts';
import { serviceRoutes } from './api-services.ts';
import { API_VERSION, systemRoutes } from './api-system.ts';
import { taskRoutes } from './api-tasks.ts';
import { answerErrors, limitBody } from './http-errors.ts';

/** More than any spec needs; Docker's own objects are smaller. */
const BODY_BYTES_MAX = 1024 * 1024;

/**
 * The swarm family of the Docker Engine API, for the agent's unix socket. Every path is there with
 * and without a version: `/nodes` and `/v1.54/nodes`.
 */
export function managerApi(context: ApiContext): Hono {
  const routes = new Hono();
  systemRoutes(routes, context);
  nodeRoutes(routes, context);
  networkRoutes(routes, context);
  serviceRoutes(routes, context);
  taskRoutes(routes, context);
  gossipRoutes(routes, context);
  const app = new Hono();
  answerErrors(app, context.log);
  app.use(limitBody(BODY_BYTES_MAX));
  app.use(async (c, next) => {
    await next();
    c.header('Api-Version', API_VERSION);
  });
  app.route('/', routes);
  app.route('/:version{v1\\.[0-9]+}', routes);
  return app;
}
