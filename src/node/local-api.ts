import { Hono } from 'hono';
import { z } from 'zod';
import { httpStatusOf, ManagerError } from '../manager/errors.ts';
import { GOSSIP_PROFILES, type GossipProfile } from '../manager/gossip-protocol.ts';
import type { Insight } from './insight.ts';
import { insightApi } from './insight-api.ts';
import { LocalApiError } from './local-api-error.ts';

/** Body of `POST /swarm/init` (Docker Engine API), as far as it is honoured. */
export interface InitRequest {
  readonly ListenAddr?: string | undefined;
  readonly AdvertiseAddr?: string | undefined;
  readonly DataPathPort?: number | undefined;
  readonly DefaultAddrPool?: readonly string[] | null | undefined;
  readonly SubnetSize?: number | undefined;
  /** weft's own. */
  readonly Gossip?: InitGossip | undefined;
}

/** How a new cluster is to gossip; what is left out has a default. */
export interface InitGossip {
  readonly Encryption?: boolean | undefined;
  readonly Profile?: GossipProfile | undefined;
  readonly Compression?: boolean | undefined;
  /** 1 to 255 bytes of UTF-8. */
  readonly Label?: string | undefined;
  /** The first key: 16, 24 or 32 bytes in base64. */
  readonly Key?: string | undefined;
  /** Nanoseconds; 0 is never. */
  readonly KeyRotation?: number | undefined;
}

/** Body of `POST /swarm/join`. */
export interface JoinClusterRequest {
  readonly ListenAddr?: string | undefined;
  readonly AdvertiseAddr?: string | undefined;
  readonly RemoteAddrs: readonly string[];
  readonly JoinToken: string;
  readonly Availability?: 'active' | 'pause' | 'drain' | undefined;
}

/** What an agent does for its own host, whether that is in a cluster or not. */
export interface LocalAgent {
  /** The manager's API, if this host is a manager. */
  readonly managerApi: () => ((request: Request) => Response | Promise<Response>) | undefined;
  readonly isInCluster: () => boolean;
  /** @returns the node's id */
  readonly init: (request: InitRequest) => Promise<string>;
  readonly join: (request: JoinClusterRequest) => Promise<void>;
  readonly leave: (force: boolean) => Promise<void>;
  /** Docker's `/info`, for a host that is no manager. */
  readonly info: () => Readonly<Record<string, unknown>>;
  /** Docker's `/version`. */
  readonly version: () => Readonly<Record<string, unknown>>;
  /** What `weft status` shows. */
  readonly status: () => Promise<Readonly<Record<string, unknown>>>;
  /** What can be seen of this host's packets, if it is in a cluster. */
  readonly insight: () => Insight | undefined;
}

const initSchema: z.ZodType<InitRequest> = z.object({
  ListenAddr: z.string().optional(),
  AdvertiseAddr: z.string().optional(),
  DataPathPort: z.number().int().min(0).max(65_535).optional(),
  DefaultAddrPool: z.array(z.string()).nullish(),
  SubnetSize: z.number().int().min(0).max(30).optional(),
  Gossip: z
    .object({
      Encryption: z.boolean().optional(),
      Profile: z.enum(GOSSIP_PROFILES).optional(),
      Compression: z.boolean().optional(),
      Label: z.string().optional(),
      Key: z.string().optional(),
      KeyRotation: z.number().int().min(0).optional(),
    })
    .optional(),
});
const joinSchema: z.ZodType<JoinClusterRequest> = z.object({
  ListenAddr: z.string().optional(),
  AdvertiseAddr: z.string().optional(),
  RemoteAddrs: z.array(z.string()).min(1),
  JoinToken: z.string().min(1),
  Availability: z.enum(['active', 'pause', 'drain']).optional(),
});

const NOT_IN_CLUSTER =
  'This node is not a cluster manager. Use "weft init" or "weft join" to connect this node to a cluster and try again.';
const NOT_A_MANAGER =
  'This node is not a cluster manager. Worker nodes can not be used to view or modify cluster state. Please run this command on a manager node.';

/**
 * The API on the agent's own unix socket: what concerns this host is answered here, the cluster's
 * objects by the manager, if this host is one.
 */
export function localApi(agent: LocalAgent): Hono {
  const app = new Hono();
  app.onError((error, context) => {
    if (error instanceof ManagerError) {
      return context.json({ message: error.message }, httpStatusOf(error.detail));
    }
    const status = error instanceof LocalApiError ? error.status : 500;
    return context.json({ message: error.message }, status);
  });
  for (const prefix of ['', '/:version{v1\\.[0-9]+}']) {
    app.post(`${prefix}/swarm/init`, async (context) => {
      const request = await readBody(context.req.raw, initSchema);
      return context.json(await agent.init(request));
    });
    app.post(`${prefix}/swarm/join`, async (context) => {
      await agent.join(await readBody(context.req.raw, joinSchema));
      return context.body(null, 200);
    });
    app.post(`${prefix}/swarm/leave`, async (context) => {
      await agent.leave(['1', 'true'].includes(context.req.query('force') ?? ''));
      return context.body(null, 200);
    });
  }
  app.get('/weft/status', async (context) => context.json(await agent.status()));
  app.route('/weft', insightApi(agent.insight));
  app.all('*', async (context) => {
    const manager = agent.managerApi();
    if (manager !== undefined) return await manager(context.req.raw);
    switch (context.req.path.replace(/^\/v1\.\d+(?=\/)/, '')) {
      case '/_ping':
        return context.text('OK');
      case '/info':
        return context.json(agent.info());
      case '/version':
        return context.json(agent.version());
    }
    const message = agent.isInCluster() ? NOT_A_MANAGER : NOT_IN_CLUSTER;
    return context.json({ message }, 503);
  });
  return app;
}

async function readBody<Body>(request: Request, schema: z.ZodType<Body>): Promise<Body> {
  const value: unknown = await request.json().catch((cause: unknown) => {
    throw new LocalApiError(400, 'Cannot read the request: expected a JSON body', { cause });
  });
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new LocalApiError(400, `Invalid ${issue?.path.join('.') || 'body'}: ${issue?.message}`);
}
