import type { Command } from 'commander';
import type { Service, ServiceStatus, Task } from './api-types.ts';
import { type Cli, forEachTarget, repeatable, type WeftCommand } from './command.ts';
import { filter, toFilters } from './filters.ts';
import {
  addInspectOptions,
  addListOptions,
  type Column,
  compareNames,
  type ListOptions,
  printList,
  printObjects,
  type Row,
  shortId,
} from './output.ts';
import { formatPorts } from './published-ports.ts';
import { addCreateCommand } from './service-create.ts';
import { addLogsCommand } from './service-logs.ts';
import { addUpdateCommands } from './service-update.ts';
import { imageOf, readNames, TASK_COLUMNS, taskRows } from './task-table.ts';
import type { Pair } from './values.ts';

const SERVICE_COLUMNS: readonly Column[] = [
  ['ID', 'ID'],
  ['NAME', 'Name'],
  ['MODE', 'Mode'],
  ['REPLICAS', 'Replicas'],
  ['IMAGE', 'Image'],
  ['PORTS', 'Ports'],
];

interface ServiceListOptions extends ListOptions {
  readonly filter: readonly Pair[];
  readonly trunc: boolean;
}

interface TasksOptions extends ServiceListOptions {
  readonly resolve: boolean;
}

/** Fills `service`: `create|inspect|logs|ls|ps|rm|scale|update`. */
export function fillService(service: WeftCommand, cli: Cli): void {
  addCreateCommand(service, cli);
  addListCommands(service, cli);
  addInspectOptions(
    service
      .command('inspect')
      .description('Display detailed information on one or more services')
      .argument('<service...>', 'Name or ID'),
  ).action(async (references: string[], options: { readonly format?: 'json' }) => {
    const found: Service[] = [];
    const failing = forEachTarget(references, async (reference) => {
      found.push(await cli.client().service(reference));
    });
    await failing.finally(() => printObjects(cli.terminal, found, options.format));
  });
  addUpdateCommands(service, cli);
  addLogsCommand(service, cli);
  service
    .command('rm')
    .alias('remove')
    .description('Remove one or more services')
    .argument('<service...>', 'Name or ID')
    .action((references: string[]) =>
      forEachTarget(references, async (reference) => {
        await cli.client().removeService(reference);
        cli.terminal.write(`${reference}\n`);
      }),
    );
}

function addListCommands(service: Command, cli: Cli): void {
  addListOptions(service.command('ls').alias('list').description('List services'))
    .addOption(
      repeatable(
        '-f, --filter <key=value>',
        'Filter by id, label, mode or name',
        filter(['id', 'label', 'mode', 'name']),
      ),
    )
    .option('--no-trunc', 'Show whole IDs')
    .action((options: ServiceListOptions) => listServices(cli, options));
  addListOptions(
    service
      .command('ps')
      .description('List the tasks of one or more services')
      .argument('<service...>', 'Name or ID'),
  )
    .addOption(
      repeatable(
        '-f, --filter <key=value>',
        'Filter by desired-state, id, name or node',
        filter(['desired-state', 'id', 'name', 'node']),
      ),
    )
    .option('--no-resolve', 'Show IDs in place of names')
    .option('--no-trunc', 'Show whole IDs and errors')
    .action((references: string[], options: TasksOptions) => listTasks(cli, references, options));
}

async function listServices(cli: Cli, options: ServiceListOptions): Promise<void> {
  const client = cli.client();
  const services = await client.services(toFilters(options.filter));
  // A manager that keeps no count (Engine API before 1.41) leaves it to its clients.
  const isCounted = services.every((service) => service.ServiceStatus !== undefined);
  const tasks = isCounted ? [] : await client.tasks({ 'desired-state': ['running'] });
  const rows = services
    .map((service) =>
      serviceRow(service, service.ServiceStatus ?? countTasks(service, tasks), options),
    )
    .sort((a, b) => compareNames(String(a.Name), String(b.Name)));
  printList(cli.terminal, SERVICE_COLUMNS, rows, options);
}

function countTasks(service: Service, tasks: readonly Task[]): ServiceStatus {
  const own = tasks.filter((task) => task.ServiceID === service.ID);
  return {
    RunningTasks: own.filter((task) => task.Status?.State === 'running').length,
    DesiredTasks: service.Spec?.Mode?.Replicated?.Replicas ?? own.length,
  };
}

function serviceRow(service: Service, status: ServiceStatus, options: ServiceListOptions): Row {
  const id = service.ID ?? '';
  return {
    ID: options.trunc ? shortId(id) : id,
    Image: imageOf(service.Spec?.TaskTemplate),
    Mode: service.Spec?.Mode?.Global === undefined ? 'replicated' : 'global',
    Name: service.Spec?.Name ?? '',
    Ports: formatPorts(service.Endpoint?.Ports ?? [], 'ingress'),
    Replicas: formatReplicas(service, status),
  };
}

function formatReplicas(service: Service, status: ServiceStatus): string {
  const max = service.Spec?.TaskTemplate?.Placement?.MaxReplicas ?? 0;
  const count = `${status.RunningTasks ?? 0}/${status.DesiredTasks ?? 0}`;
  return max > 0 ? `${count} (max ${max} per node)` : count;
}

/** Tasks of the services that exist; those that do not are reported after the table. */
async function listTasks(
  cli: Cli,
  references: readonly string[],
  options: TasksOptions,
): Promise<void> {
  const client = cli.client();
  const ids: string[] = [];
  let failure: unknown;
  try {
    await forEachTarget(references, async (reference) => {
      ids.push((await client.service(reference)).ID ?? reference);
    });
  } catch (error) {
    if (ids.length === 0) throw error;
    failure = error;
  }
  const tasks = await client.tasks({ ...toFilters(options.filter), service: ids });
  const names = await readNames(client, options.resolve);
  const rows = taskRows(tasks, names, { ...options, nowMs: cli.terminal.epochMs() });
  printList(cli.terminal, TASK_COLUMNS, rows, options);
  if (failure !== undefined) throw failure;
}
