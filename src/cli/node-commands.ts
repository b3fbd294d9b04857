import { type Command, Option } from 'commander';
import type { AgentClient } from './agent-client.ts';
import type { Node, NodeSpec } from './api-types.ts';
import { type Cli, forEachTarget, repeatable, type WeftCommand } from './command.ts';
import { refused } from './errors.ts';
import { filter, toFilters } from './filters.ts';
import {
  addInspectOptions,
  addListOptions,
  type Column,
  capitalise,
  compareNames,
  type ListOptions,
  printList,
  printObjects,
  type Row,
} from './output.ts';
import { readNames, TASK_COLUMNS, taskRows } from './task-table.ts';
import { label, nonEmpty, type Pair } from './values.ts';

const NODE_COLUMNS: readonly Column[] = [
  // Two spaces keep the ids of other nodes in line with the one that carries the star.
  ['ID', (row) => `${row.ID}${row.Self === true ? ' *' : '  '}`],
  ['HOSTNAME', 'Hostname'],
  ['STATUS', 'Status'],
  ['AVAILABILITY', 'Availability'],
  ['MANAGER STATUS', 'ManagerStatus'],
  ['ENGINE VERSION', 'EngineVersion'],
];

interface UpdateOptions {
  readonly availability?: string;
  readonly labelAdd: readonly Pair[];
  readonly labelRm: readonly string[];
}

interface TasksOptions extends ListOptions {
  readonly filter: readonly Pair[];
  readonly trunc: boolean;
  readonly resolve: boolean;
}

/** Fills `node`: `ls|inspect|ps|rm|update`. */
export function fillNode(node: WeftCommand, cli: Cli): void {
  addListOptions(node.command('ls').alias('list').description('List nodes'))
    .addOption(
      repeatable(
        '-f, --filter <key=value>',
        'Filter by id, label, name or role',
        filter(['id', 'label', 'name', 'role']),
      ),
    )
    .action((options: ListOptions & { readonly filter: readonly Pair[] }) =>
      listNodes(cli, options),
    );
  addInspectOptions(
    node
      .command('inspect')
      .description('Display detailed information on one or more nodes')
      .argument('<node...>', 'Host name or ID; "self" is this node'),
  ).action((references: string[], options: { readonly format?: 'json' }) =>
    inspectNodes(cli, references, options.format),
  );
  addListOptions(
    node
      .command('ps')
      .description('List tasks running on one or more nodes')
      .argument('[node...]', 'Host name or ID; this node when left out'),
  )
    .addOption(
      repeatable(
        '-f, --filter <key=value>',
        'Filter by desired-state, id, label, name or service',
        filter(['desired-state', 'id', 'label', 'name', 'service']),
      ),
    )
    .option('--no-resolve', 'Show IDs in place of names')
    .option('--no-trunc', 'Show whole IDs and errors')
    .action((references: string[], options: TasksOptions) => listTasks(cli, references, options));
  node
    .command('rm')
    .alias('remove')
    .description('Remove one or more nodes from the cluster')
    .argument('<node...>', 'Host name or ID')
    .option('-f, --force', 'Remove a node that is not down')
    .action((references: string[], options: { readonly force?: boolean }) =>
      forEachTarget(references, async (reference) => {
        const client = cli.client();
        await client.removeNode(await resolveSelf(client, reference), options.force === true);
        cli.terminal.write(`${reference}\n`);
      }),
    );
  addUpdateCommand(node, cli);
}

function addUpdateCommand(node: Command, cli: Cli): void {
  node
    .command('update')
    .description('Update a node')
    .argument('<node>', 'Host name or ID; "self" is this node')
    .addOption(
      new Option('--availability <mode>', 'Whether the node takes tasks').choices([
        'active',
        'pause',
        'drain',
      ]),
    )
    .addOption(repeatable('--label-add <name=value>', 'Add or change a label', label))
    .addOption(repeatable('--label-rm <name>', 'Remove a label', nonEmpty))
    .action(async (reference: string, options: UpdateOptions) => {
      const client = cli.client();
      const current = await client.node(await resolveSelf(client, reference));
      await client.updateNode(current, updateNodeSpec(current.Spec ?? {}, options));
      cli.terminal.write(`${reference}\n`);
    });
}

function updateNodeSpec(spec: NodeSpec, options: UpdateOptions): NodeSpec {
  const labels = new Map(Object.entries(spec.Labels ?? {}));
  for (const name of options.labelRm) {
    if (!labels.delete(name)) {
      throw refused(`Cannot remove label ${name}: the node does not have it`);
    }
  }
  for (const [name, value] of options.labelAdd) labels.set(name, value);
  return {
    ...spec,
    Labels: Object.fromEntries(labels),
    ...(options.availability === undefined ? {} : { Availability: options.availability }),
  };
}

async function listNodes(
  cli: Cli,
  options: ListOptions & { readonly filter: readonly Pair[] },
): Promise<void> {
  const client = cli.client();
  const [nodes, info] = await Promise.all([client.nodes(toFilters(options.filter)), client.info()]);
  const rows = nodes
    .map((node) => nodeRow(node, info.Swarm?.NodeID))
    .sort((a, b) => compareNames(String(a.Hostname), String(b.Hostname)));
  printList(cli.terminal, NODE_COLUMNS, rows, options);
}

function nodeRow(node: Node, selfId: string | undefined): Row {
  return {
    Availability: capitalise(node.Spec?.Availability ?? ''),
    EngineVersion: node.Description?.Engine?.EngineVersion ?? '',
    Hostname: node.Description?.Hostname ?? '',
    ID: node.ID ?? '',
    ManagerStatus: managerStatus(node),
    Self: node.ID !== undefined && node.ID === selfId,
    Status: capitalise(node.Status?.State ?? 'unknown'),
  };
}

function managerStatus({ ManagerStatus: status }: Node): string {
  if (status === undefined || status === null) return '';
  return status.Leader === true ? 'Leader' : capitalise(status.Reachability ?? '');
}

async function inspectNodes(
  cli: Cli,
  references: readonly string[],
  format: 'json' | undefined,
): Promise<void> {
  const client = cli.client();
  const found: Node[] = [];
  const failing = forEachTarget(references, async (reference) => {
    found.push(await client.node(await resolveSelf(client, reference)));
  });
  await failing.finally(() => printObjects(cli.terminal, found, format));
}

async function listTasks(
  cli: Cli,
  references: readonly string[],
  options: TasksOptions,
): Promise<void> {
  const client = cli.client();
  const ids: string[] = [];
  for (const reference of references.length === 0 ? ['self'] : references) {
    const node = await client.node(await resolveSelf(client, reference));
    if (node.ID !== undefined) ids.push(node.ID);
  }
  const tasks = await client.tasks({ ...toFilters(options.filter), node: ids });
  const names = await readNames(client, options.resolve);
  const rows = taskRows(tasks, names, { ...options, nowMs: cli.terminal.epochMs() });
  printList(cli.terminal, TASK_COLUMNS, rows, options);
}

/** Docker's word for the node that answers. */
async function resolveSelf(client: AgentClient, reference: string): Promise<string> {
  if (reference !== 'self') return reference;
  const id = (await client.info()).Swarm?.NodeID;
  if (id === undefined || id === '') {
    throw refused('Cannot look up this node: it is in no cluster, use "weft init" or "weft join"');
  }
  return id;
}
