import type { Command } from 'commander';
import type { ServiceSpec } from './api-types.ts';
import { type Cli, forEachTarget, repeatable } from './command.ts';
import { refused } from './errors.ts';
import { waitForService } from './service-progress.ts';
import { toEnvironment } from './service-spec.ts';
import { constraint, integer, label, nonEmpty, type Pair } from './values.ts';
import { splitWords } from './words.ts';

/** The flags of `service update`, parsed. */
export interface UpdateFlags {
  readonly replicas?: number;
  readonly image?: string;
  readonly args?: readonly string[];
  readonly envAdd: readonly string[];
  readonly envRm: readonly string[];
  readonly labelAdd: readonly Pair[];
  readonly labelRm: readonly string[];
  readonly constraintAdd: readonly string[];
  readonly constraintRm: readonly string[];
  readonly force?: boolean;
}

interface WaitFlags {
  readonly detach?: boolean;
  readonly quiet?: boolean;
}

/** Adds `service update` and `service scale`. */
export function addUpdateCommands(service: Command, cli: Cli): void {
  service
    .command('update')
    .description('Change a service')
    .argument('<service>', 'Name or ID')
    .option('--replicas <n>', 'Number of tasks', integer(0))
    .option('--image <image>', 'Image of the tasks', nonEmpty)
    .option('--args <command line>', 'Arguments of the command, quoted as for a shell', splitWords)
    .addOption(repeatable('--env-add <name=value>', 'Add or change a variable', nonEmpty))
    .addOption(repeatable('--env-rm <name>', 'Remove a variable', nonEmpty))
    .addOption(repeatable('--label-add <name=value>', 'Add or change a label', label))
    .addOption(repeatable('--label-rm <name>', 'Remove a label', nonEmpty))
    .addOption(repeatable('--constraint-add <expression>', 'Add a constraint', constraint))
    .addOption(repeatable('--constraint-rm <expression>', 'Remove a constraint', nonEmpty))
    .option('--force', 'Replace the tasks even if nothing changed')
    .option('-d, --detach', 'Do not wait until the tasks run')
    .option('-q, --quiet', 'Do not show progress')
    .action(async (reference: string, options: UpdateFlags & WaitFlags) => {
      const spec = (current: ServiceSpec) => updateServiceSpec(current, options, cli.terminal.env);
      const id = await changeService(cli, reference, spec);
      cli.terminal.write(`${reference}\n`);
      await waitUnlessDetached(cli, id, options);
    });
  service
    .command('scale')
    .description('Change the number of tasks of one or more services')
    .argument('<service=replicas...>', 'Name or ID, and number of tasks', collectScales)
    .option('-d, --detach', 'Do not wait until the tasks run')
    .action((scales: readonly Scale[], options: WaitFlags) => scaleServices(cli, scales, options));
}

interface Scale {
  readonly reference: string;
  readonly replicas: number;
}

/** Commander starts a repeated argument from undefined. */
function collectScales(text: string, previous: readonly Scale[] | undefined): Scale[] {
  const split = text.lastIndexOf('=');
  const replicas = integer(0)(split < 1 ? '' : text.slice(split + 1));
  return [...(previous ?? []), { reference: text.slice(0, split), replicas }];
}

async function scaleServices(
  cli: Cli,
  scales: readonly Scale[],
  options: WaitFlags,
): Promise<void> {
  const replicas = new Map(scales.map((scale) => [scale.reference, scale.replicas]));
  const ids: string[] = [];
  const changing = forEachTarget([...replicas.keys()], async (reference) => {
    const count = replicas.get(reference) ?? 0;
    ids.push(await changeService(cli, reference, (spec) => withReplicas(spec, count)));
    cli.terminal.write(`${reference} scaled to ${count}\n`);
  });
  await changing;
  for (const id of ids) await waitUnlessDetached(cli, id, options);
}

/** Reads a service, changes its spec and writes it back. @returns its id */
async function changeService(
  cli: Cli,
  reference: string,
  change: (spec: ServiceSpec) => ServiceSpec,
): Promise<string> {
  const client = cli.client();
  const service = await client.service(reference);
  const { Warnings: warnings } = await client.updateService(service, change(service.Spec ?? {}));
  for (const warning of warnings ?? []) cli.terminal.writeError(`Warning: ${warning}\n`);
  return service.ID ?? reference;
}

async function waitUnlessDetached(cli: Cli, id: string, options: WaitFlags): Promise<void> {
  if (options.detach === true) return;
  await waitForService(cli.client(), cli.terminal, id, { quiet: options.quiet === true });
}

/**
 * The spec with the flags applied; what no flag names stays.
 *
 * @param environment - Where `--env-add NAME` without a value takes it from.
 * @throws {CliError} if a flag does not fit this service
 */
export function updateServiceSpec(
  spec: ServiceSpec,
  flags: UpdateFlags,
  environment: Readonly<Record<string, string | undefined>>,
): ServiceSpec {
  const template = spec.TaskTemplate ?? {};
  const container = template.ContainerSpec ?? {};
  const scaled = flags.replicas === undefined ? spec : withReplicas(spec, flags.replicas);
  return {
    ...scaled,
    Labels: withLabels(spec.Labels ?? {}, flags),
    TaskTemplate: {
      ...template,
      ContainerSpec: {
        ...container,
        ...(flags.image === undefined ? {} : { Image: flags.image }),
        ...withArguments(container, flags.args),
        ...withEnvironment(container.Env, flags, environment),
      },
      ...withConstraints(template.Placement, flags),
      ForceUpdate: (template.ForceUpdate ?? 0) + (flags.force === true ? 1 : 0),
    },
  };
}

function withReplicas(spec: ServiceSpec, replicas: number): ServiceSpec {
  if (spec.Mode?.Global !== undefined) {
    throw refused(
      `Cannot set the replicas of service ${spec.Name}: it is global, expected a replicated one`,
    );
  }
  return { ...spec, Mode: { Replicated: { ...spec.Mode?.Replicated, Replicas: replicas } } };
}

function withLabels(labels: Readonly<Record<string, string>>, flags: UpdateFlags) {
  const result = new Map(Object.entries(labels));
  for (const name of flags.labelRm) result.delete(name);
  for (const [name, value] of flags.labelAdd) result.set(name, value);
  return Object.fromEntries(result);
}

/** A process task has its whole vector in Command: the program stays, its arguments change. */
function withArguments(
  container: NonNullable<NonNullable<ServiceSpec['TaskTemplate']>['ContainerSpec']>,
  args: readonly string[] | undefined,
) {
  if (args === undefined) return {};
  const [program] = container.Command ?? [];
  return container.Image || program === undefined
    ? { Args: args }
    : { Command: [program, ...args] };
}

function withEnvironment(
  current: readonly string[] | undefined,
  flags: UpdateFlags,
  environment: Readonly<Record<string, string | undefined>>,
) {
  if (flags.envAdd.length === 0 && flags.envRm.length === 0) return {};
  const kept = (current ?? []).filter((line) => !flags.envRm.includes(line.split('=', 1)[0] ?? ''));
  return { Env: toEnvironment([...kept, ...flags.envAdd], environment) };
}

function withConstraints(
  placement: NonNullable<ServiceSpec['TaskTemplate']>['Placement'],
  flags: UpdateFlags,
) {
  if (flags.constraintAdd.length === 0 && flags.constraintRm.length === 0) return {};
  const removed = new Set(flags.constraintRm.map(normalise));
  const kept = (placement?.Constraints ?? []).filter((text) => !removed.has(normalise(text)));
  return { Placement: { ...placement, Constraints: [...kept, ...flags.constraintAdd] } };
}

/** `node.role == worker` and `node.role==worker` are one constraint. */
function normalise(expression: string): string {
  return expression.replaceAll(/\s+/g, '');
}
