import { timestamp } from './docker-objects.ts';
import type { TaskRecord } from './records.ts';

/** One line of a task's output, or a piece of one. */
export interface TaskLogRecord {
  /** Milliseconds since the Unix epoch. */
  readonly timestampMs: number;
  readonly stream: 'stdout' | 'stderr';
  /** Without its newline. */
  readonly line: string;
}

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
) => AsyncIterable<TaskLogRecord> | undefined;

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

/** A task's log, opened. */
export interface OpenLog {
  readonly task: TaskRecord;
  readonly records: AsyncIterable<TaskLogRecord>;
}

/**
 * The logs of some tasks as one stream in Docker's multiplexed format (Engine API, "attach"), each
 * line as it comes. The reader sets the pace: one frame of each log is read ahead, no more.
 *
 * @param abort - Ends the readers of `logs` when the stream is cancelled.
 */
export function multiplexLogs(
  logs: readonly OpenLog[],
  request: LogRequest,
  abort: AbortController,
): ReadableStream<Uint8Array> {
  const frames = merge(logs.map((log) => framesOf(log, request)));
  return new ReadableStream({
    async pull(controller) {
      const next = await frames.next();
      if (next.done === true) controller.close();
      else controller.enqueue(next.value);
    },
    cancel() {
      abort.abort();
    },
  });
}

async function* framesOf(
  { task, records }: OpenLog,
  request: LogRequest,
): AsyncGenerator<Uint8Array, void> {
  for await (const record of records) {
    if (record.timestampMs < request.sinceMs || !request[record.stream]) continue;
    const time = request.timestamps ? `${timestamp(record.timestampMs)} ` : '';
    const details = request.details ? `${detailsOf(task)} ` : '';
    yield encodeFrame(record.stream, `${time}${details}${record.line}\n`);
  }
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
