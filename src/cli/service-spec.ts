import type {
  ContainerSpec,
  PortConfig,
  RestartPolicy,
  ServiceSpec,
  TaskSpec,
} from './api-types.ts';
import { usageError } from './errors.ts';
import type { Pair } from './values.ts';

/** The label by which a service asks for a runtime other than `docker`. */
export const RUNTIME_LABEL = 'weft.runtime';

/** The flags of `service create`, parsed. Durations are in nanoseconds. */
export interface CreateFlags {
  readonly name?: string;
  readonly replicas?: number;
  readonly mode: 'replicated' | 'global';
  readonly network: readonly NetworkFlag[];
  /** One entry per flag; a range makes several ports. */
  readonly publish: readonly (readonly PortConfig[])[];
  readonly env: readonly string[];
  readonly label: readonly Pair[];
  readonly constraint: readonly string[];
  readonly runtime?: 'process' | 'docker';
  readonly user?: string;
  readonly workdir?: string;
  readonly hostname?: string;
  readonly stopSignal?: string;
  readonly stopGracePeriod?: number;
  readonly restartCondition?: string;
  readonly restartDelay?: number;
  readonly restartMaxAttempts?: number;
  readonly restartWindow?: number;
  readonly endpointMode?: string;
  readonly replicasMaxPerNode?: number;
}

/** A network to attach to: its name or id, and the names by which others find the service there. */
export interface NetworkFlag {
  readonly target: string;
  readonly aliases: readonly string[];
}

/** What comes from elsewhere than the flags. */
export interface SpecSurroundings {
  /** `IMAGE [COMMAND] [ARG...]`, or the argument vector of a process. */
  readonly argv: readonly string[];
  /** Network ids by the name that was given. */
  readonly networkIds: ReadonlyMap<string, string>;
  /** Where `--env NAME` without a value takes it from. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Whether the tasks are plain processes: no image, the positional arguments are the command. */
export function isProcessRuntime(flags: Pick<CreateFlags, 'runtime' | 'label'>): boolean {
  if (flags.runtime !== undefined) return flags.runtime === 'process';
  return flags.label.some(([name, value]) => name === RUNTIME_LABEL && value === 'process');
}

/**
 * Builds the spec of a new service. Only what was given is in it: the defaults are the cluster's.
 *
 * @throws {CliError} if flags contradict each other
 */
export function toServiceSpec(flags: CreateFlags, surroundings: SpecSurroundings): ServiceSpec {
  checkFlags(flags);
  const labels = new Map(flags.label);
  if (flags.runtime === 'process') labels.set(RUNTIME_LABEL, 'process');
  return {
    ...(flags.name === undefined ? {} : { Name: flags.name }),
    Labels: Object.fromEntries(labels),
    TaskTemplate: toTaskSpec(flags, surroundings),
    Mode:
      flags.mode === 'global' ? { Global: {} } : { Replicated: { Replicas: flags.replicas ?? 1 } },
    EndpointSpec: { Mode: flags.endpointMode ?? 'vip', Ports: flags.publish.flat() },
  };
}

function checkFlags(flags: CreateFlags): void {
  if (flags.mode === 'global' && flags.replicas !== undefined) {
    throw usageError(
      `Cannot use --replicas ${flags.replicas} with --mode global: expected --mode replicated`,
    );
  }
  if (flags.mode === 'global' && flags.replicasMaxPerNode !== undefined) {
    throw usageError(
      `Cannot use --replicas-max-per-node ${flags.replicasMaxPerNode} with --mode global: ` +
        'expected --mode replicated',
    );
  }
  const isMesh = flags.publish.flat().some((port) => port.PublishMode === 'ingress');
  if (flags.endpointMode === 'dnsrr' && isMesh) {
    throw usageError(
      'Cannot publish an ingress port with --endpoint-mode dnsrr: ' +
        'expected --endpoint-mode vip, or mode=host in --publish',
    );
  }
}

function toTaskSpec(flags: CreateFlags, surroundings: SpecSurroundings): TaskSpec {
  const restart = toRestartPolicy(flags);
  const { replicasMaxPerNode, constraint } = flags;
  return {
    ContainerSpec: toContainerSpec(flags, surroundings),
    ...(Object.keys(restart).length === 0 ? {} : { RestartPolicy: restart }),
    ...(constraint.length === 0 && replicasMaxPerNode === undefined
      ? {}
      : {
          Placement: {
            ...(constraint.length === 0 ? {} : { Constraints: constraint }),
            ...(replicasMaxPerNode === undefined ? {} : { MaxReplicas: replicasMaxPerNode }),
          },
        }),
    ...(flags.network.length === 0
      ? {}
      : {
          Networks: flags.network.map(({ target, aliases }) => ({
            Target: surroundings.networkIds.get(target) ?? target,
            ...(aliases.length === 0 ? {} : { Aliases: aliases }),
          })),
        }),
    ForceUpdate: 0,
  };
}

function toContainerSpec(flags: CreateFlags, surroundings: SpecSurroundings): ContainerSpec {
  const [image = '', ...args] = surroundings.argv;
  const env = toEnvironment(flags.env, surroundings.environment);
  return {
    ...(isProcessRuntime(flags)
      ? { Command: surroundings.argv }
      : { Image: image, ...(args.length === 0 ? {} : { Args: args }) }),
    ...(env.length === 0 ? {} : { Env: env }),
    ...(flags.workdir === undefined ? {} : { Dir: flags.workdir }),
    ...(flags.user === undefined ? {} : { User: flags.user }),
    ...(flags.hostname === undefined ? {} : { Hostname: flags.hostname }),
    ...(flags.stopSignal === undefined ? {} : { StopSignal: flags.stopSignal }),
    ...(flags.stopGracePeriod === undefined ? {} : { StopGracePeriod: flags.stopGracePeriod }),
  };
}

function toRestartPolicy(flags: CreateFlags): RestartPolicy {
  return {
    ...(flags.restartCondition === undefined ? {} : { Condition: flags.restartCondition }),
    ...(flags.restartDelay === undefined ? {} : { Delay: flags.restartDelay }),
    ...(flags.restartMaxAttempts === undefined ? {} : { MaxAttempts: flags.restartMaxAttempts }),
    ...(flags.restartWindow === undefined ? {} : { Window: flags.restartWindow }),
  };
}

/**
 * Gives every `NAME` without a value the one of `environment`; without one there it is left out. Of
 * several values for one name the last counts.
 */
export function toEnvironment(
  given: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): string[] {
  const lines = new Map<string, string>();
  for (const text of given) {
    const [name = ''] = text.split('=', 1);
    const value = text.includes('=') ? text.slice(name.length + 1) : environment[name];
    if (value !== undefined) lines.set(name, `${name}=${value}`);
  }
  return [...lines.values()];
}
