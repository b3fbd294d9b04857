import { type Command, InvalidArgumentError, Option } from 'commander';
import type { AgentClient } from './agent-client.ts';
import { type Cli, repeatable } from './command.ts';
import { usageError } from './errors.ts';
import { publishedPorts } from './published-ports.ts';
import { waitForService } from './service-progress.ts';
import {
  type CreateFlags,
  isProcessRuntime,
  type NetworkFlag,
  toServiceSpec,
} from './service-spec.ts';
import { constraint, duration, integer, label, nonEmpty } from './values.ts';

interface CreateOptions extends CreateFlags {
  readonly detach?: boolean;
  readonly quiet?: boolean;
}

/** Adds `service create`. */
export function addCreateCommand(service: Command, cli: Cli): void {
  const create = service
    .command('create')
    .description('Create a service')
    .usage(
      '[options] IMAGE [COMMAND] [ARG...]\n' +
        '       weft service create [options] --runtime process COMMAND [ARG...]',
    )
    .argument('[argv...]', 'Image and command; with --runtime process the command alone')
    .passThroughOptions();
  addServiceFlags(create);
  addTaskFlags(create);
  create.action((argv: string[], options: CreateOptions) => createService(cli, argv, options));
}

function addServiceFlags(create: Command): void {
  create
    .option('--name <name>', 'Name of the service (default a random one)', nonEmpty)
    .option('--replicas <n>', 'Number of tasks (default 1)', integer(0))
    .addOption(
      new Option('--mode <mode>', 'As many tasks as asked for, or one on every node')
        .choices(['replicated', 'global'])
        .default('replicated'),
    )
    .addOption(repeatable('--network <network>', 'Network to attach to', networkFlag))
    .addOption(
      repeatable(
        '-p, --publish <port>',
        'Publish a port: 8080:80[/udp], or published=8080,target=80,protocol=udp,mode=host',
        publishedPorts,
      ),
    )
    .addOption(
      new Option('--endpoint-mode <mode>', 'What the name resolves to (default vip)').choices([
        'vip',
        'dnsrr',
      ]),
    )
    .addOption(repeatable('-l, --label <name=value>', 'Label of the service', label))
    .addOption(
      repeatable(
        '--constraint <expression>',
        'Where tasks may run, such as node.role==worker',
        constraint,
      ),
    )
    .option('--replicas-max-per-node <n>', 'Most tasks on one node (default no limit)', integer(0))
    .option('-d, --detach', 'Do not wait until the tasks run')
    .option('-q, --quiet', 'Do not show progress');
}

function addTaskFlags(create: Command): void {
  create
    .addOption(
      new Option('--runtime <runtime>', 'What runs the tasks (default docker)').choices([
        'process',
        'docker',
      ]),
    )
    .addOption(
      repeatable(
        '-e, --env <name=value>',
        'Environment variable; NAME alone takes its value from here',
        environmentVariable,
      ),
    )
    .option('-u, --user <user>', 'User name, or uid[:gid]', nonEmpty)
    .option('-w, --workdir <directory>', 'Working directory of the command', nonEmpty)
    .option('--hostname <name>', 'Host name of the tasks', nonEmpty)
    .option('--stop-signal <signal>', 'Signal that asks a task to end (default SIGTERM)', nonEmpty)
    .option(
      '--stop-grace-period <duration>',
      'Time to end in before a task is killed (default 10s)',
      duration,
    )
    .addOption(
      new Option('--restart-condition <condition>', 'When to restart a task (default any)').choices(
        ['none', 'on-failure', 'any'],
      ),
    )
    .option('--restart-delay <duration>', 'Pause before a restart (default 5s)', duration)
    .option('--restart-max-attempts <n>', 'Most restarts (default no limit)', integer(0))
    .option('--restart-window <duration>', 'Time in which restarts are counted', duration);
}

function environmentVariable(text: string): string {
  if (!/^[^=\s]+(=|$)/.test(text)) {
    throw new InvalidArgumentError('expected NAME=value, or NAME');
  }
  return text;
}

/** `backend`, or `name=backend,alias=db`. */
function networkFlag(text: string): NetworkFlag {
  if (!text.includes('=')) return { target: nonEmpty(text), aliases: [] };
  let target = '';
  const aliases: string[] = [];
  for (const field of text.split(',')) {
    const [, key, value = ''] = /^(name|alias)=(.+)$/.exec(field) ?? [];
    if (key === undefined) {
      throw new InvalidArgumentError('expected a network, or name=network,alias=name');
    }
    if (key === 'name') target = value;
    else aliases.push(value);
  }
  return { target: nonEmpty(target), aliases };
}

async function createService(
  cli: Cli,
  argv: readonly string[],
  options: CreateOptions,
): Promise<void> {
  if (argv.length === 0) {
    throw usageError(
      isProcessRuntime(options)
        ? 'Cannot create a service of no command: expected COMMAND [ARG...] after the flags'
        : 'Cannot create a service of no image: expected IMAGE [COMMAND] [ARG...] after the flags, ' +
            'or --runtime process COMMAND [ARG...]',
    );
  }
  const client = cli.client();
  const spec = toServiceSpec(options, {
    argv,
    networkIds: await resolveNetworks(client, options.network),
    environment: cli.terminal.env,
  });
  const { ID: id = '', Warnings: warnings } = await client.createService(spec);
  for (const warning of warnings ?? []) cli.terminal.writeError(`Warning: ${warning}\n`);
  cli.terminal.write(`${id}\n`);
  if (options.detach !== true) {
    await waitForService(client, cli.terminal, id, { quiet: options.quiet === true });
  }
}

/** Asks for every network: one that is not there is refused before anything is made. */
async function resolveNetworks(
  client: AgentClient,
  networks: readonly NetworkFlag[],
): Promise<Map<string, string>> {
  const ids = new Map<string, string>(); // BOUNDED by the flags
  for (const { target } of networks) {
    ids.set(target, (await client.network(target)).Id ?? target);
  }
  return ids;
}
