import type { Context } from 'hono';
import type { ApiContext } from './api-context.ts';
import { invalid, isLogUnavailable, logUnavailable } from './errors.ts';
import { type LogRequest, multiplexLogs, type TaskLogOptions } from './log-stream.ts';
import { taskName } from './lookup.ts';
import type { TaskRecord } from './records.ts';
import { isFlagSet, parseCount } from './request-query.ts';
import type { LogRecord } from './session-protocol.ts';

/** Docker's type for frames with a header. */
const CONTENT_TYPE = 'application/vnd.docker.multiplexed-stream';

/** Reasons that a refusal lists: they are as many as nodes. */
const REASONS_MAX = 3;

/**
 * Answers a request for the logs of some tasks: those of this host from its own files, the others by
 * their nodes. The answer begins as soon as one log can be read.
 *
 * @throws {ManagerError} LOG_UNAVAILABLE if none of these logs can be read, INVALID
 */
export async function logsResponse(
  c: Context,
  api: ApiContext,
  tasks: readonly TaskRecord[],
): Promise<Response> {
  const request = readLogRequest(c);
  const abort = new AbortController();
  // The client may go away before there is a stream for it to cancel.
  c.req.raw.signal.addEventListener('abort', () => abort.abort());
  const { tail, follow } = request;
  const options = { follow, ...(tail === undefined ? {} : { tail }), signal: abort.signal };
  const logs = tasks.flatMap((task) =>
    task.nodeId === undefined ? [] : [{ task, records: openLog(api, task, task.nodeId, options) }],
  );
  if (logs.length > 0) await requireOne(logs);
  const headers = { 'content-type': CONTENT_TYPE };
  return new Response(multiplexLogs(logs, request, abort, api.clock), { headers });
}

async function openLog(
  { taskLogs, logRelay, state }: ApiContext,
  task: TaskRecord,
  nodeId: string,
  options: TaskLogOptions,
): Promise<AsyncIterable<LogRecord>> {
  const records = taskLogs?.(task.id, options);
  if (records !== undefined) return records;
  const node = state.find('nodes', nodeId);
  if (node === undefined) throw logUnavailable(`node ${nodeId} has been removed from the cluster`);
  return await logRelay.open(node, task.id, options);
}

/** Waits until one of `logs` is open. */
async function requireOne(
  logs: readonly { readonly task: TaskRecord; readonly records: Promise<unknown> }[],
): Promise<void> {
  try {
    await Promise.any(logs.map(({ records }) => records));
  } catch (error) {
    const failures: readonly unknown[] = error instanceof AggregateError ? error.errors : [error];
    const bug = failures.find((failure) => !isLogUnavailable(failure));
    if (bug !== undefined) throw bug;
    const reasons = [...new Set(failures.map((failure) => (failure as Error).message))];
    const more = reasons.length - REASONS_MAX;
    const shown = reasons.slice(0, REASONS_MAX).join('; ') + (more > 0 ? `; and ${more} more` : '');
    const what = logs.map(({ task }) => taskName(task));
    throw logUnavailable(
      what.length === 1
        ? `Cannot read the log of task ${what[0]}: ${shown}`
        : `Cannot read any of the logs of ${what.length} tasks: ${shown}`,
      { cause: error },
    );
  }
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
