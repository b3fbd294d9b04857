/** One published port (Docker `EndpointPortConfig`). */
export interface PortConfig {
  readonly Name?: string;
  readonly Protocol: 'tcp' | 'udp';
  readonly TargetPort: number;
  /** 0 where the manager is to choose one. */
  readonly PublishedPort: number;
  /** `ingress`: on every node, by the routing mesh; `host`: on the nodes of the tasks. */
  readonly PublishMode: 'ingress' | 'host';
}

/** How a service is reached. */
export interface EndpointSpec {
  /** `vip`, unless it says otherwise. */
  readonly Mode?: 'vip' | 'dnsrr' | '';
  readonly Ports?: readonly PortConfig[];
}

/** What a task runs. */
export interface ContainerSpec {
  /** Kept as it came: what runs is Command and Args, an image is the docker runtime's. */
  readonly Image?: string;
  readonly Labels?: Readonly<Record<string, string>>;
  readonly Command?: readonly string[];
  readonly Args?: readonly string[];
  /** `NAME=value` each. */
  readonly Env?: readonly string[];
  readonly Dir?: string;
  readonly User?: string;
  readonly Hostname?: string;
  readonly StopSignal?: string;
  /** Nanoseconds. */
  readonly StopGracePeriod?: number;
  readonly Isolation?: 'default' | '';
}

/** What happens when a task ends; what it leaves out is as in Swarm. */
export interface RestartPolicy {
  /** `any`, unless it says otherwise. */
  readonly Condition?: 'none' | 'on-failure' | 'any' | '';
  /** Nanoseconds. */
  readonly Delay?: number;
  /** 0: no limit. */
  readonly MaxAttempts?: number;
  /** Nanoseconds in which attempts count; 0: all the time there is. */
  readonly Window?: number;
}

/** Where tasks may run. */
export interface Placement {
  readonly Constraints?: readonly string[];
  /** Of the service on one node; 0: no limit. */
  readonly MaxReplicas?: number;
  readonly Platforms?: readonly { readonly Architecture?: string; readonly OS?: string }[];
}

/** What each task of a service is (Docker `TaskSpec`). */
export interface TaskSpec {
  readonly ContainerSpec: ContainerSpec;
  readonly RestartPolicy?: RestartPolicy;
  readonly Placement?: Placement;
  /** `Target` is a network's id, or in requests its name. */
  readonly Networks?: readonly { readonly Target: string; readonly Aliases?: readonly string[] }[];
  /** Another number replaces all tasks. */
  readonly ForceUpdate?: number;
  readonly Runtime?: 'container' | '';
}

/** How tasks are replaced when a service changes. */
export interface UpdateConfig {
  /** Slots replaced at a time; 0: all at once. */
  readonly Parallelism?: number;
  readonly FailureAction?: 'pause' | '';
  /** Nanoseconds. */
  readonly Monitor?: number;
  readonly Order?: 'stop-first' | '';
}

/** What a service is to be (Docker `ServiceSpec`), as far as it is honoured. */
export interface ServiceSpec {
  readonly Name?: string;
  readonly Labels?: Readonly<Record<string, string>>;
  readonly TaskTemplate: TaskSpec;
  /** One of them; one replica, unless it says otherwise. */
  readonly Mode?: {
    readonly Replicated?: { readonly Replicas?: number };
    readonly Global?: Readonly<Record<string, never>>;
  };
  readonly UpdateConfig?: UpdateConfig;
  readonly EndpointSpec?: EndpointSpec;
}

/** Tasks wanted by a replicated service; 1 if it does not say. */
export function replicasOf(spec: ServiceSpec): number {
  return spec.Mode?.Replicated?.Replicas ?? 1;
}

/** Whether a service wants one task on every node. */
export function isGlobal(spec: ServiceSpec): boolean {
  return spec.Mode?.Global !== undefined;
}

/** Whether `port` is published on every node, by the routing mesh. */
export function isIngressPort(port: PortConfig): boolean {
  return port.PublishMode === 'ingress';
}

/** The whole argument vector of a task: command, then arguments. */
export function argvOf(spec: TaskSpec): readonly string[] {
  return [...(spec.ContainerSpec.Command ?? []), ...(spec.ContainerSpec.Args ?? [])];
}
