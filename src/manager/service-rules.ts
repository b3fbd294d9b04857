import { invalid, ManagerError } from './errors.ts';
import type { ServiceRecord } from './records.ts';
import { argvOf, isGlobal, isIngressPort, type ServiceSpec } from './service-spec.ts';

/** The label that says how a service's tasks are run. */
export const RUNTIME_LABEL = 'weft.runtime';
/** Runtimes of this build. */
const RUNTIMES = ['process'] as const;
type Runtime = (typeof RUNTIMES)[number];

/** How the tasks of a service with these labels are run. */
export function runtimeOf(labels: Readonly<Record<string, string>>): Runtime | undefined {
  const label = Object.hasOwn(labels, RUNTIME_LABEL) ? labels[RUNTIME_LABEL] : undefined;
  return RUNTIMES.find((runtime) => runtime === label);
}

/**
 * Checks what the shape of a spec cannot say: fields that exclude or need one another.
 *
 * @throws {ManagerError} INVALID naming the field and what is expected of it
 */
export function checkServiceSpec(spec: ServiceSpec): void {
  checkRuntime(spec);
  const ports = spec.EndpointSpec?.Ports ?? [];
  if (spec.EndpointSpec?.Mode === 'dnsrr' && ports.some(isIngressPort)) {
    throw invalid(
      "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
      'EndpointSpec.Ports',
    );
  }
  if (ports.some((port) => !isIngressPort(port) && port.PublishedPort === 0)) {
    throw invalid(
      'Invalid EndpointSpec.Ports: a port published in host mode needs a PublishedPort of 1 or more',
      'EndpointSpec.Ports',
    );
  }
}

function checkRuntime(spec: ServiceSpec): void {
  const label = spec.Labels?.[RUNTIME_LABEL];
  if (runtimeOf(spec.Labels ?? {}) === undefined) {
    const given = label === undefined ? 'no runtime was given' : `"${label}" was given`;
    throw invalid(
      `Invalid Labels["${RUNTIME_LABEL}"]: ${given}, expected "process": ` +
        'the docker runtime is not in this build, use --runtime process',
      'Labels',
    );
  }
  const [command] = argvOf(spec.TaskTemplate);
  if (command === undefined || command === '') {
    throw invalid(
      'Invalid TaskTemplate.ContainerSpec.Command: the process runtime needs a command to run, none was given',
      'TaskTemplate.ContainerSpec.Command',
    );
  }
}

/**
 * Checks that an update leaves a service what it is.
 *
 * @throws {ManagerError} NOT_SUPPORTED or INVALID
 */
export function checkServiceUpdate(service: ServiceRecord, asked: ServiceSpec): void {
  if (asked.Name && asked.Name !== service.spec.Name) {
    throw new ManagerError({ code: 'NOT_SUPPORTED' }, 'renaming services is not supported');
  }
  if (isGlobal(asked) !== isGlobal(service.spec)) {
    throw invalid('service mode change is not allowed', 'Mode');
  }
}

/** Whether tasks made by `before` are not what `after` asks for. */
export function needsNewTasks(before: ServiceRecord, after: ServiceRecord): boolean {
  const tasksOf = (service: ServiceRecord): string =>
    JSON.stringify(
      sortKeys([
        // Where tasks may run and when they are restarted does not change what runs.
        { ...service.spec.TaskTemplate, Placement: undefined, RestartPolicy: undefined },
        service.networkIds,
        service.ports.filter((port) => !isIngressPort(port)),
        service.spec.Labels?.[RUNTIME_LABEL],
      ]),
    );
  return tasksOf(before) !== tasksOf(after);
}

/** `value` with the fields of every object in one order: equal objects serialise alike. */
function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, item]) => [key, sortKeys(item)]));
}
