import { z } from 'zod';
import type { Clock, Random } from '../core/capabilities.ts';
import { logUnavailable, type ManagerError, notFound } from './errors.ts';
import { newSecret } from './ids.ts';
import { readLines } from './json-lines.ts';
import type { TaskLogOptions } from './log-stream.ts';
import type { NodeRecord } from './records.ts';
import type { CancelSchedule, Schedule } from './schedule.ts';
import {
  type LogRecord,
  type LogRefusal,
  type LogSessionMessage,
  TIMESTAMP_MS_MAX,
} from './session-protocol.ts';

/** A node that has not begun to answer by then counts as silent. */
const ANSWER_TIMEOUT_MS = 10_000;
/** Logs that are read at one time. Each takes a connection and up to two chunks of 64 KiB. */
const LOGS_MAX = 500;
/** A record on one line: the agents' longest is 16 KiB of text, up to six times that when escaped. */
const LINE_CHARS_MAX = 128 * 1024;

const recordSchema: z.ZodType<LogRecord> = z.object({
  timestampMs: z.number().min(0).max(TIMESTAMP_MS_MAX),
  stream: z.enum(['stdout', 'stderr']),
  line: z.string(),
});

/** Also as the last line of an answer. */
export const logRefusalSchema: z.ZodType<LogRefusal> = z.object({
  message: z.string('expected a string').max(1_024, 'expected 1024 characters at most'),
});
const lineSchema = z.union([recordSchema, logRefusalSchema]);

/** What a {@link LogRelay} needs. */
export interface LogRelayDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly schedule: Schedule;
  /** Sends a message on a node's session; false if that cannot be done now. */
  readonly tell: (nodeId: string, message: LogSessionMessage) => boolean;
}

/**
 * The logs of tasks on other nodes. A node opens all connections itself, so it is asked on its
 * session and answers with a post, which this class pairs with the request. Nothing is stored between
 * the two: the post is read at the pace of who reads the log, and TCP tells the node to wait. BOUNDED
 * by {@link LOGS_MAX}. A log lives no longer than the session on which it was asked for.
 */
export class LogRelay {
  readonly #deps: LogRelayDeps;
  /** By request id: unguessable, so that only who was asked can answer. */
  readonly #logs = new Map<string, RelayedLog>();

  constructor(deps: LogRelayDeps) {
    this.#deps = deps;
  }

  /**
   * Asks a node for the log of one of its tasks.
   *
   * @param options - Its signal ends the log, without an error if the log is open by then.
   * @returns once the node answers; the records throw LOG_UNAVAILABLE if the answer breaks off
   * @throws {ManagerError} LOG_UNAVAILABLE with the reason, which begins with the node's name
   */
  async open(
    node: NodeRecord,
    taskId: string,
    { follow, tail, signal }: TaskLogOptions,
  ): Promise<AsyncIterable<LogRecord>> {
    const { clock, random, schedule, tell } = this.#deps;
    const name = `node ${node.description.hostname}`;
    if (signal.aborted) throw readerGone();
    if (this.#logs.size >= LOGS_MAX) {
      throw logUnavailable(`${name} is not asked: ${LOGS_MAX} logs are being read already`);
    }
    const requestId = newSecret(random);
    const about = { requestId, taskId, follow, ...(tail === undefined ? {} : { tail }) };
    if (!tell(node.id, { kind: 'logs', ...about })) {
      throw logUnavailable(`${name} is ${node.state === 'down' ? 'down' : 'not connected'}`);
    }
    const atMs = clock.nowMs() + ANSWER_TIMEOUT_MS;
    const log = new RelayedLog(node.id, name, {
      cancelTimeout: schedule(atMs, () =>
        log.close(
          logUnavailable(`${name} did not answer within ${ANSWER_TIMEOUT_MS / 1_000} seconds`),
        ),
      ),
      onClose: (isEnded) => {
        this.#logs.delete(requestId);
        signal.removeEventListener('abort', cancel);
        if (!isEnded) tell(node.id, { kind: 'endLogs', requestId });
      },
    });
    const cancel = (): void => log.close(readerGone());
    signal.addEventListener('abort', cancel);
    this.#logs.set(requestId, log);
    await log.answered;
    return log.records(signal);
  }

  /**
   * Takes a node's answer to a request.
   *
   * @param body - Newline-delimited {@link LogRecord}.
   * @returns once the answer has been read, or nobody wants the rest of it
   * @throws {ManagerError} NOT_FOUND if this node is not waited for to answer it
   */
  async accept(nodeId: string, requestId: string, body: ReadableStream<Uint8Array>): Promise<void> {
    await this.#waiting(nodeId, requestId).accept(body);
  }

  /**
   * Takes the news that a node cannot answer a request.
   *
   * @param reason - In the words of the node: `it does not have the log of this task`.
   * @throws {ManagerError} NOT_FOUND as {@link accept} does
   */
  refuse(nodeId: string, requestId: string, reason: string): void {
    this.#waiting(nodeId, requestId).refuse(reason);
  }

  /** A node's session has ended, and with it the logs that were asked for on it. */
  sessionEnded(nodeId: string): void {
    for (const log of this.#logs.values()) if (log.nodeId === nodeId) log.lost();
  }

  #waiting(nodeId: string, requestId: string): RelayedLog {
    const log = this.#logs.get(requestId);
    if (log === undefined || log.nodeId !== nodeId || log.isAnswered) {
      throw notFound('log request', requestId);
    }
    return log;
  }
}

interface RelayedLogHooks {
  readonly cancelTimeout: CancelSchedule;
  /** @param isEnded - Whether the node needs not be told that nothing more is wanted of it. */
  readonly onClose: (isEnded: boolean) => void;
}

/** One log on its way: asked for, then open, then closed. */
class RelayedLog {
  readonly nodeId: string;
  readonly #name: string;
  readonly #hooks: RelayedLogHooks;
  readonly #answered = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<void>();
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  #isEnded = false;
  #isClosed = false;
  #failure: ManagerError | undefined;

  constructor(nodeId: string, name: string, hooks: RelayedLogHooks) {
    this.nodeId = nodeId;
    this.#name = name;
    this.#hooks = hooks;
  }

  /** Resolves when the node answers; rejects if it does not. */
  get answered(): Promise<void> {
    return this.#answered.promise;
  }

  get isAnswered(): boolean {
    return this.#reader !== undefined;
  }

  /** The node's answer has come. @returns when it may be closed */
  accept(body: ReadableStream<Uint8Array>): Promise<void> {
    this.#reader = body.getReader();
    this.#hooks.cancelTimeout();
    this.#answered.resolve();
    return this.#closed.promise;
  }

  refuse(reason: string): void {
    this.#isEnded = true;
    this.close(logUnavailable(`${this.#name} says: ${reason}`));
  }

  /** The node cannot be told anything any more. */
  lost(): void {
    this.#isEnded = true;
    this.close(logUnavailable(`${this.#name} has lost its connection`));
  }

  /**
   * Ends the log; harmless when repeated.
   *
   * @param failure - What the reader is told, unless it is the reader who ends it.
   */
  close(failure?: ManagerError): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#failure = failure;
    this.#hooks.cancelTimeout();
    this.#hooks.onClose(this.#isEnded);
    if (failure !== undefined) this.#answered.reject(failure);
    // A read that is under way ends with it. That the post has failed already is no news.
    this.#reader?.cancel().catch(() => {});
    this.#closed.resolve();
  }

  /** The records as they come. @param signal - Tells that the reader has ended the log itself. */
  async *records(signal: AbortSignal): AsyncGenerator<LogRecord, void> {
    const reader = this.#reader;
    if (reader === undefined) return;
    try {
      for await (const text of readLines(reader, LINE_CHARS_MAX)) {
        const line = parseLine(text);
        if ('message' in line) this.refuse(line.message);
        else yield line;
      }
      // The end that close() makes looks like the end of the log.
      this.#isEnded ||= !this.#isClosed;
    } catch (error) {
      this.close(logUnavailable(`${this.#name} broke off its answer: ${(error as Error).message}`));
    } finally {
      this.close();
    }
    if (this.#failure !== undefined && !signal.aborted) throw this.#failure;
  }
}

function parseLine(text: string): LogRecord | LogRefusal {
  const { data } = lineSchema.safeParse(JSON.parse(text));
  if (data !== undefined) return data;
  throw new TypeError(`expected a log record, received ${text.slice(0, 80)}`);
}

function readerGone(): ManagerError {
  return logUnavailable('nobody waits for the log any more');
}
