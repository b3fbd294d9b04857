import type { Log } from '../core/capabilities.ts';
import type { ManagerClient, NodeCredentials } from '../io/manager-client.ts';
import type { LogRecord, LogRefusal, LogSessionMessage } from '../manager/session-protocol.ts';

/** Logs that are sent at one time; a manager asks for no more than this of all nodes together. */
const ANSWERS_MAX = 500;

/** Reads the log of a task; undefined if this node does not have it. */
export type ReadTaskLog = (
  taskId: string,
  options: { readonly follow: boolean; readonly tail?: number; readonly signal: AbortSignal },
) => AsyncIterable<LogRecord> | undefined;

/** What {@link LogAnswers} works with. */
export interface LogAnswersDeps {
  readonly client: ManagerClient;
  readonly credentials: NodeCredentials;
  readonly log: Log;
  readonly taskLog: ReadTaskLog;
}

/** Answers what a session asks about logs: each one by a post of its own, at the manager's pace. */
export class LogAnswers {
  readonly #deps: LogAnswersDeps;
  /** By request id. BOUNDED by {@link ANSWERS_MAX}. */
  readonly #open = new Map<string, AbortController>();

  constructor(deps: LogAnswersDeps) {
    this.#deps = deps;
  }

  /** Takes a message of the session. Returns at once. */
  receive(message: LogSessionMessage): void {
    if (message.kind === 'endLogs') this.#open.get(message.requestId)?.abort();
    else void this.#answer(message);
  }

  /** Ends all answers, as the session has ended on which they were asked for. */
  close(): void {
    for (const answer of this.#open.values()) answer.abort();
  }

  async #answer(request: LogSessionMessage & { readonly kind: 'logs' }): Promise<void> {
    const { client, credentials, log } = this.#deps;
    const { requestId, taskId } = request;
    const fields = { taskId, requestId };
    const answer = new AbortController();
    const records = this.#read(request, answer.signal);
    try {
      if (typeof records === 'string') {
        await client.refuseLog(credentials, requestId, { message: records });
      } else {
        this.#open.set(requestId, answer);
        const lines = linesOf(records, (error) =>
          log.warn({ ...fields, error: String(error) }, 'log of a task cannot be read'),
        );
        await client.sendLog(credentials, requestId, lines, answer.signal);
      }
    } catch (error) {
      // Mostly the manager's reader has gone away meanwhile.
      log.debug({ ...fields, error: String(error) }, 'log was not sent to its end');
    } finally {
      this.#open.delete(requestId);
      answer.abort(); // a log that is followed waits for it
    }
  }

  /** @returns why not, if the log cannot be read */
  #read(
    { taskId, follow, tail }: LogSessionMessage & { readonly kind: 'logs' },
    signal: AbortSignal,
  ): AsyncIterable<LogRecord> | string {
    if (this.#open.size >= ANSWERS_MAX) return `it sends ${ANSWERS_MAX} logs already`;
    const options = { follow, ...(tail === undefined ? {} : { tail }), signal };
    return this.#deps.taskLog(taskId, options) ?? 'it does not have the log of this task';
  }
}

/** `records`, and at their end why it comes too early. */
async function* linesOf(
  records: AsyncIterable<LogRecord>,
  onFailure: (error: unknown) => void,
): AsyncGenerator<LogRecord | LogRefusal, void> {
  try {
    for await (const { timestampMs, stream, line } of records) yield { timestampMs, stream, line };
  } catch (error) {
    onFailure(error);
    yield { message: 'it cannot read the rest of the log of this task' };
  }
}
