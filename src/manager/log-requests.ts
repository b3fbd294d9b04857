import type { Context } from 'hono';
import type { ApiContext } from './api-context.ts';
import { invalid, ManagerError } from './errors.ts';
import { type LogRequest, multiplexLogs, type OpenLog } from './log-stream.ts';
import type { TaskRecord } from './records.ts';
import { isFlagSet, parseCount } from './request-query.ts';

/** Docker's type for frames with a header. */
const CONTENT_TYPE = 'application/vnd.docker.multiplexed-stream';

/**
 * Answers a request for the logs of some tasks.
 *
 * @throws {ManagerError} NOT_SUPPORTED if no log of these tasks can be read here, INVALID
 */
export function logsResponse(c: Context, api: ApiContext, tasks: readonly TaskRecord[]): Response {
  const request = readLogRequest(c);
  const abort = new AbortController();
  const { tail, follow } = request;
  const started = tasks.filter((task) => task.nodeId !== undefined);
  const logs: OpenLog[] = [];
  for (const task of started) {
    const records = api.taskLogs?.(task.id, {
      follow,
      ...(tail === undefined ? {} : { tail }),
      signal: abort.signal,
    });
    if (records !== undefined) logs.push({ task, records });
  }
  if (logs.length === 0 && (started.length > 0 || api.taskLogs === undefined)) {
    throw new ManagerError(
      { code: 'NOT_SUPPORTED' },
      'logs can only be read on the node that ran the task: none of these tasks ran on this one',
    );
  }
  const headers = { 'content-type': CONTENT_TYPE };
  return new Response(multiplexLogs(logs, request, abort), { headers });
}

function readLogRequest(c: Context): LogRequest {
  const stdout = isFlagSet(c.req.query('stdout'));
  const stderr = isFlagSet(c.req.query('stderr'));
  if (!stdout && !stderr) {
    throw invalid('Bad parameters: you must choose at least one stream: stdout=1 or stderr=1');
  }
  const tailText = c.req.query('tail');
  const tail = tailText === 'all' ? undefined : parseCount(tailText, 'tail');
  return {
    follow: isFlagSet(c.req.query('follow')),
    ...(tail === undefined ? {} : { tail }),
    stdout,
    stderr,
    timestamps: isFlagSet(c.req.query('timestamps')),
    details: isFlagSet(c.req.query('details')),
    sinceMs: (parseCount(c.req.query('since'), 'since') ?? 0) * 1_000,
  };
}
