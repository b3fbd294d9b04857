import { Option } from 'commander';
import type { Flow } from './api-types.ts';
import type { Cli, WeftCommand } from './command.ts';
import { shortDuration } from './durations.ts';
import { shortId } from './output.ts';
import { formatTable } from './table.ts';
import { integer, nonEmpty } from './values.ts';

/** Flows that are shown unless more are asked for. */
const LIMIT_DEFAULT = 1_000;
/** Flows that the agent gives in one answer, at most. */
const PAGE_MAX = 1_000;

interface FlowsOptions {
  readonly network?: string;
  readonly task?: string;
  readonly service?: string;
  readonly limit: number;
  readonly format?: 'table' | 'json';
  readonly json?: boolean;
}

/** Fills `flows`. */
export function fillFlows(command: WeftCommand, cli: Cli): void {
  command
    .option('--network <network>', 'Only those on this network', nonEmpty)
    .option('--task <task>', 'Only those that this task is an end of', nonEmpty)
    .option('--service <service>', 'Only those to this service', nonEmpty)
    .option('-n, --limit <n>', 'Show so many at most', integer(1), LIMIT_DEFAULT)
    .addOption(
      new Option('--format <format>', 'Print a table, or one JSON object per line').choices([
        'table',
        'json',
      ]),
    )
    .option('--json', 'The same as --format json')
    .action((options: FlowsOptions) => showFlows(cli, options));
}

async function showFlows(cli: Cli, options: FlowsOptions): Promise<void> {
  const { terminal } = cli;
  const { limit } = options;
  const flows = await readFlows(cli, options);
  const shown = flows.slice(0, limit);
  if (options.json === true || options.format === 'json') {
    terminal.write(shown.map((flow) => `${JSON.stringify(flow)}\n`).join(''));
  } else {
    terminal.write(formatFlows(shown));
  }
  if (flows.length > limit) {
    terminal.writeError(`There are more than ${limit} flows: see --limit, or ask for fewer\n`);
  }
}

/** One more than the limit, if there are so many. Each answer is a part of the agent's table. */
async function readFlows(cli: Cli, options: FlowsOptions): Promise<Flow[]> {
  const { network, task, service, limit } = options;
  const client = cli.client();
  const flows: Flow[] = [];
  for (let cursor: number | undefined = 0; cursor !== undefined && flows.length <= limit; ) {
    const pageLimit = Math.min(PAGE_MAX, limit + 1 - flows.length);
    const page = await client.flows({ network, task, service, limit: pageLimit, cursor });
    flows.push(...(page.flows ?? []));
    cursor = page.next;
  }
  return flows;
}

function formatFlows(flows: readonly Flow[]): string {
  const headers = ['PROTOCOL', 'CLIENT', 'VIP', 'BACKEND', 'STATE', 'AGE', 'IDLE', 'NETWORK'];
  const rows = flows.map((flow) => [
    flow.protocol ?? '',
    flow.client ?? '',
    flow.vip ?? '',
    flow.backend ?? '',
    `${flow.state ?? ''}${flow.gone === true ? ' (gone)' : ''}`,
    shortDuration(flow.ageMs ?? 0),
    shortDuration(flow.idleMs ?? 0),
    flow.network ?? '',
    flow.service ?? '',
    flow.task ?? shortId(flow.taskId ?? ''),
    flow.via === undefined ? (flow.way ?? '') : `${flow.way ?? ''} via ${flow.via}`,
  ]);
  return formatTable([...headers, 'SERVICE', 'TASK', 'WAY'], rows);
}
