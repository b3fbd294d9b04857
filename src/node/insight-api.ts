import { Hono } from 'hono';
import { z } from 'zod';
import { FLOWS_PER_PAGE } from './flow-report.ts';
import type { Insight } from './insight.ts';
import { LocalApiError } from './local-api-error.ts';

/** Bytes of a frame that are kept unless asked otherwise: all of it, as tcpdump does. */
const SNAPLEN_DEFAULT = 262_144;
/** An Ethernet header. */
const SNAPLEN_MIN = 14;
/** As long as a timer can be: 24 days. */
const DURATION_MS_MAX = 0x7fff_ffff;

const name = z.string({ error: 'expected a name or an id' }).min(1, 'expected a name or an id');
const text = name.optional();
const id = z
  .string({ error: 'expected an id of your own' })
  .regex(/^[\w-]{1,64}$/, 'expected at most 64 letters, digits, - or _');
const captureSchema = z.object({
  id,
  network: name,
  peer: text,
  task: text,
  snaplen: integer(SNAPLEN_MIN, SNAPLEN_DEFAULT).default(SNAPLEN_DEFAULT),
  count: integer(1, Number.MAX_SAFE_INTEGER).optional(),
  durationMs: integer(1, DURATION_MS_MAX).optional(),
});
const flowsSchema = z.object({
  network: text,
  task: text,
  service: text,
  limit: integer(1, FLOWS_PER_PAGE).default(FLOWS_PER_PAGE),
  cursor: integer(0, Number.MAX_SAFE_INTEGER).default(0),
});

const endpointsSchema = z.object({ network: text, service: text, node: text });

/**
 * What of the agent's API looks at packets, and at what gossip knows:
 *
 * - `GET /capture?id=…&network=…` streams pcapng until the count, the duration or the client ends it
 * - `POST /capture/<id>/end` ends the one with that id, whose stream then closes
 * - `GET /flows` a page of flows, and where to go on
 * - `GET /endpoints` the endpoints that gossip shows; `GET /endpoints/digest` the same in a few numbers
 * - `GET /gossip/members` the members that gossip knows
 */
export function insightApi(insight: () => Insight | undefined): Hono {
  const app = new Hono();
  app.get('/capture', async (context) => {
    const { id, ...request } = readQuery(context.req.query(), captureSchema);
    const stream = await inCluster(insight).captures.start(id, request);
    return context.body(stream, 200, { 'content-type': 'application/x-pcapng' });
  });
  app.post('/capture/:id/end', (context) => {
    const id = context.req.param('id');
    if (inCluster(insight).captures.end(id)) return context.body(null, 204);
    throw new LocalApiError(404, `Cannot end the capture ${id}: it does not run`);
  });
  app.get('/flows', (context) => {
    const request = readQuery(context.req.query(), flowsSchema);
    return context.json(inCluster(insight).flows(request));
  });
  app.get('/endpoints', (context) => {
    const request = readQuery(context.req.query(), endpointsSchema);
    return context.json({ endpoints: inCluster(insight).endpoints(request) });
  });
  app.get('/endpoints/digest', (context) =>
    context.json({ digests: inCluster(insight).digests() }),
  );
  app.get('/gossip/members', (context) => context.json({ members: inCluster(insight).members() }));
  return app;
}

function inCluster(insight: () => Insight | undefined): Insight {
  const found = insight();
  if (found !== undefined) return found;
  throw new LocalApiError(
    503,
    'This node is in no cluster: it has no packets to show. Use "weft init" or "weft join" first.',
  );
}

/** A whole number in a query, in decimal. */
function integer(min: number, max: number): z.ZodType<number, string> {
  return z
    .string()
    .refine((value) => /^\d+$/.test(value) && Number(value) >= min && Number(value) <= max, {
      error: `expected a whole number from ${min} to ${max}`,
    })
    .transform(Number);
}

function readQuery<Query>(
  query: Readonly<Record<string, string>>,
  schema: z.ZodType<Query>,
): Query {
  const parsed = schema.safeParse(query);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const field = issue?.path.join('.') ?? '';
  const given = query[field] === undefined ? 'nothing' : JSON.stringify(query[field]);
  throw new LocalApiError(400, `Invalid ${field}: ${issue?.message}, received ${given}`);
}
