import type { Clock } from '../core/capabilities.ts';
import { timestamp } from './docker-objects.ts';
import { isLogUnavailable } from './errors.ts';
import { taskName } from './lookup.ts';
import type { TaskRecord } from './records.ts';
import type { LogRecord } from './session-protocol.ts';

/** Which part of a log is wanted. */
export interface TaskLogOptions {
  /** Go on with what is written from now on, until the task ends or `signal` aborts. */
  readonly follow: boolean;
  /** Records to begin with, from the end; all by default. */
  readonly tail?: number;
  readonly signal: AbortSignal;
}

/**
 * Reads the log of one task. A capability: logs are files of the node that ran the task.
 *
 * @returns undefined if this host does not have that task's log
 */
export type TaskLogs = (
  taskId: string,
  options: TaskLogOptions,
) => AsyncIterable<LogRecord> | undefined;

/** What a request for logs wants to see. */
export interface LogRequest {
  readonly follow: boolean;
  readonly tail?: number;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly timestamps: boolean;
  /** Whether each line says which task wrote it. */
  readonly details: boolean;
  /** Milliseconds since the Unix epoch; 0 for all. */
  readonly sinceMs: number;
}

/** A task's log, open or about to be. LOG_UNAVAILABLE, now or later, says why no more can be read. */
export interface TaskLog {
  readonly task: TaskRecord;
  readonly records: AsyncIterable<LogRecord> | Promise<AsyncIterable<LogRecord>>;
}

/**
 * The logs of some tasks as one stream in Docker's multiplexed format (Engine API, "attach"), each
 * line as it comes. The reader sets the pace: one frame of each log is read ahead, no more. A log that
 * cannot be read is replaced by a line on stderr that says why, whatever streams are asked for.
 *
 * @param abort - Ends the readers of `logs` when the stream is cancelled or fails.
 */
export function multiplexLogs(
  logs: readonly TaskLog[],
  request: LogRequest,
  abort: AbortController,
  clock: Clock,
): ReadableStream<Uint8Array> {
  const frames = merge(logs.map((log) => framesOf(log, request, clock)));
  return new ReadableStream({
    async pull(controller) {
      try {
        const next = await frames.next();
        if (next.done === true) controller.close();
        else controller.enqueue(next.value);
      } catch (error) {
        abort.abort();
        throw error;
      }
    },
    cancel() {
      abort.abort();
    },
  });
}

async function* framesOf(
  { task, records }: TaskLog,
  request: LogRequest,
  clock: Clock,
): AsyncGenerator<Uint8Array, void> {
  try {
    for await (const record of await records) {
      if (record.timestampMs < request.sinceMs || !request[record.stream]) continue;
      yield frameOf(record, task, request);
    }
  } catch (error) {
    if (!isLogUnavailable(error)) throw error;
    const line = `Cannot read the log of task ${taskName(task)}: ${error.message}`;
    yield frameOf({ timestampMs: clock.epochMs(), stream: 'stderr', line }, task, request);
  }
}

function frameOf(record: LogRecord, task: TaskRecord, request: LogRequest): Uint8Array {
  const time = request.timestamps ? `${timestamp(record.timestampMs)} ` : '';
  const details = request.details ? `${detailsOf(task)} ` : '';
  return encodeFrame(record.stream, `${time}${details}${record.line}\n`);
}

/** Docker's log attributes, which its client turns into `service.slot.id@node`. */
function detailsOf(task: TaskRecord): string {
  const attributes = {
    'com.docker.swarm.node.id': task.nodeId ?? '',
    'com.docker.swarm.service.id': task.serviceId,
    'com.docker.swarm.task.id': task.id,
  };
  return Object.entries(attributes)
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
}

/** `[stream type, 0, 0, 0, length as 32 bits big-endian]`, then the text. */
function encodeFrame(stream: 'stdout' | 'stderr', text: string): Uint8Array {
  const payload = new TextEncoder().encode(text);
  const frame = new Uint8Array(8 + payload.length);
  const view = new DataView(frame.buffer);
  view.setUint8(0, stream === 'stdout' ? 1 : 2);
  view.setUint32(4, payload.length);
  frame.set(payload, 8);
  return frame;
}

type Arrival<T> =
  | { readonly source: AsyncIterator<T>; readonly result: IteratorResult<T> }
  | { readonly error: unknown };

/**
 * Yields what any of `sources` yields, in the order of arrival. (Not by `Promise.race`, which would
 * leave a reaction on a silent source for each line of the others.)
 */
async function* merge<T>(sources: readonly AsyncIterator<T>[]): AsyncGenerator<T, void> {
  /** BOUNDED: one arrival of each source. */
  const arrived: Arrival<T>[] = [];
  let wake = (): void => {};
  const readNext = (source: AsyncIterator<T>): void => {
    source
      .next()
      .then(
        (result) => arrived.push({ source, result }),
        (error: unknown) => arrived.push({ error }),
      )
      .finally(() => wake());
  };
  for (const source of sources) readNext(source);
  for (let open = sources.length; open > 0; ) {
    const arrival = arrived.shift();
    if (arrival === undefined) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    } else if ('error' in arrival) {
      throw arrival.error;
    } else if (arrival.result.done === true) {
      open -= 1;
    } else {
      readNext(arrival.source);
      yield arrival.result.value;
    }
  }
}
