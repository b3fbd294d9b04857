import { Hono } from 'hono';
import { z } from 'zod';
import type { Log } from '../core/capabilities.ts';
import type { Dispatcher } from './dispatcher.ts';
import { GOSSIP_KEY_MODES } from './gossip-protocol.ts';
import { answerErrors, limitBody } from './http-errors.ts';
import { type LogRelay, logRefusalSchema } from './log-relay.ts';
import { parseBody } from './request-body.ts';
import {
  type JoinRequest,
  type StatusReport,
  TASK_STATES,
  type TaskState,
  TIMESTAMP_MS_MAX,
} from './session-protocol.ts';

/** A report about some ten thousand tasks; a longer one is no report. */
const BODY_BYTES_MAX = 8 * 1024 * 1024;
const TASKS_MAX = 10_000;
const PORT_CONFLICTS_MAX = 1_000;
/** More than a ring has, also while it changes. */
const GOSSIP_KEYS_MAX = 16;

/** States that an agent may report: the others are the manager's to set. */
const REPORTED_STATES = TASK_STATES.filter(
  (state): state is Exclude<TaskState, 'new' | 'pending' | 'assigned' | 'orphaned'> =>
    !['new', 'pending', 'assigned', 'orphaned'].includes(state),
);

const text = (lengthMax: number) =>
  z.string('expected a string').max(lengthMax, `expected ${lengthMax} characters at most`);
const count = z.number('expected a number').min(0, 'expected 0 or more');
const port = z.number('expected a port number').int().min(1).max(65_535);

const descriptionSchema = z.object({
  hostname: text(255).min(1, 'expected a host name'),
  platform: z.object({ architecture: text(64), os: text(64) }),
  resources: z.object({ nanoCpus: count, memoryBytes: count }),
  agentVersion: text(64),
  publicKey: z
    .string()
    .regex(/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/, 'expected 32 bytes in base64')
    .exactOptional(),
  labels: z.record(z.string(), text(4_096)).exactOptional(),
});

const joinSchema: z.ZodType<JoinRequest> = z.object({
  token: text(256),
  description: descriptionSchema,
  advertiseAddress: text(64),
  gossipPort: port,
  availability: z.enum(['active', 'pause', 'drain']),
});

const taskStatusSchema = z.object({
  taskId: text(64),
  state: z.enum(REPORTED_STATES),
  message: text(4_096),
  error: text(16_384).exactOptional(),
  pid: z.int().min(0).exactOptional(),
  exitCode: z.int().exactOptional(),
  timestampMs: z.number().min(0).max(TIMESTAMP_MS_MAX),
});

const reportSchema: z.ZodType<StatusReport> = z.object({
  tasks: z.array(taskStatusSchema).max(TASKS_MAX),
  description: descriptionSchema.exactOptional(),
  portConflicts: z
    .array(z.object({ protocol: z.enum(['tcp', 'udp']), port, holder: text(256) }))
    .max(PORT_CONFLICTS_MAX),
  gossipKeys: z
    .object({
      mode: z.enum(GOSSIP_KEY_MODES),
      ids: z
        .array(z.string().regex(/^[0-9a-f]{10}$/, 'expected 10 hexadecimal digits'))
        .max(GOSSIP_KEYS_MAX),
    })
    .exactOptional(),
});

/** The routes that agents use, for the managers' TCP address: see session-protocol.ts. */
export function sessionApi(dispatcher: Dispatcher, logRelay: LogRelay, log: Log): Hono {
  const app = new Hono();
  answerErrors(app, log);
  // Before the limit, which would read it to its end: a log has any length, and is read as it comes.
  app.post('/weft/v1/logs/:requestId', async (context) => {
    const node = dispatcher.authenticate(context.req.header('authorization'));
    const body = context.req.raw.body ?? new Blob([]).stream();
    await logRelay.accept(node.id, context.req.param('requestId'), body);
    return context.body(null, 204);
  });
  app.use(limitBody(BODY_BYTES_MAX));
  app.post('/weft/v1/join', async (context) => {
    const request = parseBody(joinSchema, await context.req.text());
    return context.json(await dispatcher.join(request));
  });
  app.get('/weft/v1/session', async (context) => {
    const node = dispatcher.authenticate(context.req.header('authorization'));
    const headers = { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' };
    return new Response(await dispatcher.openSession(node.id), { headers });
  });
  app.post('/weft/v1/status', async (context) => {
    const node = dispatcher.authenticate(context.req.header('authorization'));
    const report = parseBody(reportSchema, await context.req.text());
    return context.json(await dispatcher.report(node, report));
  });
  app.post('/weft/v1/logs/:requestId/refusal', async (context) => {
    const node = dispatcher.authenticate(context.req.header('authorization'));
    const { message } = parseBody(logRefusalSchema, await context.req.text());
    logRelay.refuse(node.id, context.req.param('requestId'), message);
    return context.body(null, 204);
  });
  app.post('/weft/v1/leave', async (context) => {
    const node = dispatcher.authenticate(context.req.header('authorization'));
    await dispatcher.leave(node.id);
    return context.body(null, 204);
  });
  return app;
}
