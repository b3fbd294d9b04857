import { type Command, InvalidArgumentError } from 'commander';
import { type AgentClient, isNotFound } from './agent-client.ts';
import type { Task } from './api-types.ts';
import type { Cli } from './command.ts';
import { parseDurationNs } from './durations.ts';
import { refused } from './errors.ts';
import { LogDemultiplexer, type LogFrame, parseLogLine } from './log-frames.ts';
import { shortId } from './output.ts';
import { type Names, readNames, taskName } from './task-table.ts';
import { integer } from './values.ts';

interface LogsOptions {
  readonly follow?: boolean;
  readonly tail: string;
  readonly since?: string;
  readonly timestamps?: boolean;
  readonly taskIds: boolean;
  readonly resolve: boolean;
  readonly trunc: boolean;
  readonly raw?: boolean;
}

/** Adds `service logs`. */
export function addLogsCommand(service: Command, cli: Cli): void {
  service
    .command('logs')
    .description('Fetch the logs of a service or task')
    .argument('<service|task>', 'Name or ID')
    .option('-f, --follow', 'Go on with what is logged from now on')
    .option('-n, --tail <n>', 'Lines to show from the end of each log, or all', tail, 'all')
    .option(
      '--since <time>',
      'Only lines since an RFC 3339 time, or for a duration such as 10m',
      since,
    )
    .option('-t, --timestamps', 'Show the time of each line')
    .option('--no-task-ids', 'Leave task IDs out of the prefix')
    .option('--no-resolve', 'Show IDs in place of names')
    .option('--no-trunc', 'Show whole IDs')
    .option('--raw', 'Show the lines without a prefix')
    .action((reference: string, options: LogsOptions) => showLogs(cli, reference, options));
}

function tail(text: string): string {
  return text === 'all' ? text : String(integer(0)(text));
}

function since(text: string): string {
  if (parseDurationNs(text) === undefined && Number.isNaN(Date.parse(text))) {
    throw new InvalidArgumentError('expected a time such as 2026-01-31T12:00:00Z, or a duration');
  }
  return text;
}

function toEpochSeconds(text: string, nowMs: number): number {
  const ns = parseDurationNs(text);
  const epochMs = ns === undefined ? Date.parse(text) : nowMs - ns / 1e6;
  return Math.floor(epochMs / 1_000);
}

async function showLogs(cli: Cli, reference: string, options: LogsOptions): Promise<void> {
  const client = cli.client();
  const source = await findSource(client, reference);
  const prefixes = new LinePrefixes(client, await readNames(client, options.resolve), options);
  const chunks = await client.logs(source.kind, source.id, {
    follow: options.follow === true,
    timestamps: options.timestamps === true,
    tail: options.tail,
    ...(options.since === undefined
      ? {}
      : { since: toEpochSeconds(options.since, cli.terminal.epochMs()) }),
  });
  const demultiplexer = new LogDemultiplexer();
  for await (const chunk of chunks) {
    for (const frame of demultiplexer.push(chunk)) {
      const text = await prefixes.format(frame);
      if (frame.stream === 'stdout') cli.terminal.write(text);
      else cli.terminal.writeError(text);
    }
    await cli.terminal.drained();
  }
  demultiplexer.end();
}

async function findSource(
  client: AgentClient,
  reference: string,
): Promise<{ readonly kind: 'services' | 'tasks'; readonly id: string }> {
  try {
    return { kind: 'services', id: (await client.service(reference)).ID ?? reference };
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  try {
    return { kind: 'tasks', id: (await client.task(reference)).ID ?? reference };
  } catch (error) {
    if (!isNotFound(error)) throw error;
    throw refused(`Cannot show the logs of ${reference}: there is no such service or task`);
  }
}

/** Puts `name.slot.id@node    | ` in front of each line, as Docker does. */
class LinePrefixes {
  readonly #client: AgentClient;
  readonly #names: Names;
  readonly #options: LogsOptions;
  /** BOUNDED by the tasks that write to this log while it is shown. */
  readonly #prefixes = new Map<string, string>();

  constructor(client: AgentClient, names: Names, options: LogsOptions) {
    this.#client = client;
    this.#names = names;
    this.#options = options;
  }

  /** The line of `frame` as it is shown, with its newline. */
  async format(frame: LogFrame): Promise<string> {
    const text = frame.text.endsWith('\n') ? frame.text : `${frame.text}\n`;
    const line = parseLogLine(text, this.#options.timestamps === true);
    if (line === undefined) return text;
    const timestamp = line.timestamp === '' ? '' : `${line.timestamp} `;
    if (this.#options.raw === true) return timestamp + line.message;
    return `${timestamp}${await this.#prefix(line.taskId, line.nodeId)}    | ${line.message}`;
  }

  async #prefix(taskId: string, nodeId: string): Promise<string> {
    const known = this.#prefixes.get(taskId);
    if (known !== undefined) return known;
    const task = await this.#task(taskId);
    const id = this.#options.trunc ? shortId(taskId) : taskId;
    const name = task === undefined ? id : this.#taskName(task, id);
    const prefix = `${name}@${this.#names.node(nodeId || (task?.NodeID ?? ''))}`;
    this.#prefixes.set(taskId, prefix);
    return prefix;
  }

  #taskName(task: Task, id: string): string {
    const name = taskName(task, this.#names);
    return this.#options.taskIds ? `${name}.${id}` : name;
  }

  /** Undefined if it has been reaped meanwhile: its lines are still worth showing. */
  async #task(taskId: string): Promise<Task | undefined> {
    try {
      return await this.#client.task(taskId);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }
}
