/**
 * The shapes of the Docker Engine API (v1.54) that the command line reads and writes. What is read
 * has optional fields only: another version of the agent may leave any of them out.
 */

/** `POST /swarm/init`. What is left out is the agent's own configuration. */
export interface SwarmInitRequest {
  readonly ListenAddr?: string;
  readonly AdvertiseAddr?: string;
  readonly DataPathPort?: number;
  readonly DefaultAddrPool?: readonly string[];
  readonly SubnetSize?: number;
  /** weft's own. */
  readonly Gossip?: {
    readonly Encryption?: boolean;
    readonly Profile?: string;
    readonly Compression?: boolean;
    readonly Label?: string;
    /** Base64. */
    readonly Key?: string;
    /** Nanoseconds; 0 is never. */
    readonly KeyRotation?: number;
  };
}

/** `POST /swarm/join`. What is left out is the agent's own configuration. */
export interface SwarmJoinRequest {
  readonly JoinToken: string;
  readonly RemoteAddrs: readonly string[];
  readonly ListenAddr?: string;
  readonly AdvertiseAddr?: string;
  readonly Availability?: string;
}

export interface Swarm {
  readonly ID?: string;
  readonly JoinTokens?: { readonly Worker?: string; readonly Manager?: string };
}

export interface SystemInfo {
  readonly Swarm?: {
    readonly NodeID?: string;
    readonly NodeAddr?: string;
    readonly RemoteManagers?:
      | readonly { readonly NodeID?: string; readonly Addr?: string }[]
      | null;
  };
}

export interface SystemVersion {
  readonly Version?: string;
  readonly ApiVersion?: string;
  readonly Os?: string;
  readonly Arch?: string;
  readonly KernelVersion?: string;
}

/** Every stored object: `Index` must be given back to change it. */
export interface Versioned {
  readonly ID?: string;
  readonly Version?: { readonly Index?: number };
  /** RFC 3339. */
  readonly CreatedAt?: string;
}

export interface NodeSpec {
  readonly Labels?: Readonly<Record<string, string>>;
  readonly Role?: string;
  readonly Availability?: string;
}

export interface Node extends Versioned {
  readonly Spec?: NodeSpec;
  readonly Description?: {
    readonly Hostname?: string;
    readonly Engine?: { readonly EngineVersion?: string };
  };
  readonly Status?: { readonly State?: string; readonly Addr?: string };
  readonly ManagerStatus?: { readonly Leader?: boolean; readonly Reachability?: string } | null;
}

export interface IpamConfig {
  readonly Subnet?: string;
  readonly IPRange?: string;
  readonly Gateway?: string;
  readonly AuxiliaryAddresses?: Readonly<Record<string, string>>;
}

/** `POST /networks/create`. */
export interface NetworkCreateRequest {
  readonly Name: string;
  readonly Driver: string;
  readonly EnableIPv6: boolean;
  readonly Internal: boolean;
  readonly Attachable: boolean;
  readonly Ingress: boolean;
  readonly IPAM: { readonly Driver: string; readonly Config: readonly IpamConfig[] };
  readonly Options: Readonly<Record<string, string>>;
  readonly Labels: Readonly<Record<string, string>>;
}

export interface Network {
  readonly Id?: string;
  readonly Name?: string;
  readonly Created?: string;
  readonly Driver?: string;
  readonly Scope?: string;
  readonly EnableIPv6?: boolean;
  readonly Internal?: boolean;
  readonly Labels?: Readonly<Record<string, string>> | null;
}

export interface PortConfig {
  readonly Protocol?: string;
  readonly TargetPort?: number;
  /** 0: the cluster picks one. */
  readonly PublishedPort?: number;
  readonly PublishMode?: string;
}

export interface ContainerSpec {
  readonly Image?: string;
  readonly Command?: readonly string[];
  readonly Args?: readonly string[];
  readonly Hostname?: string;
  readonly Env?: readonly string[];
  readonly Dir?: string;
  readonly User?: string;
  readonly StopSignal?: string;
  /** Nanoseconds. */
  readonly StopGracePeriod?: number;
}

export interface RestartPolicy {
  readonly Condition?: string;
  /** Nanoseconds. */
  readonly Delay?: number;
  readonly MaxAttempts?: number;
  /** Nanoseconds. */
  readonly Window?: number;
}

export interface TaskSpec {
  readonly ContainerSpec?: ContainerSpec;
  readonly RestartPolicy?: RestartPolicy;
  readonly Placement?: {
    readonly Constraints?: readonly string[];
    readonly MaxReplicas?: number;
  };
  readonly Networks?: readonly { readonly Target?: string; readonly Aliases?: readonly string[] }[];
  readonly ForceUpdate?: number;
}

export interface ServiceSpec {
  readonly Name?: string;
  readonly Labels?: Readonly<Record<string, string>>;
  readonly TaskTemplate?: TaskSpec;
  readonly Mode?: {
    readonly Replicated?: { readonly Replicas?: number };
    readonly Global?: Readonly<Record<string, never>>;
  };
  readonly EndpointSpec?: { readonly Mode?: string; readonly Ports?: readonly PortConfig[] };
}

export interface ServiceStatus {
  readonly RunningTasks?: number;
  readonly DesiredTasks?: number;
}

export interface Service extends Versioned {
  readonly Spec?: ServiceSpec;
  readonly Endpoint?: { readonly Ports?: readonly PortConfig[] };
  /** Only in lists that asked for it. */
  readonly ServiceStatus?: ServiceStatus;
}

export interface Task extends Versioned {
  readonly Spec?: TaskSpec;
  readonly ServiceID?: string;
  readonly Slot?: number;
  readonly NodeID?: string;
  readonly DesiredState?: string;
  readonly Status?: {
    /** RFC 3339. */
    readonly Timestamp?: string;
    readonly State?: string;
    readonly Message?: string;
    readonly Err?: string;
    readonly PortStatus?: { readonly Ports?: readonly PortConfig[] };
  };
}

/** `GET /weft/status`: what one agent knows about itself, cluster or not. */
export interface AgentStatus {
  readonly version?: string;
  readonly node?: {
    readonly id?: string;
    readonly hostname?: string;
    readonly role?: string;
    readonly advertiseAddress?: string;
  };
  /** Absent while the node is in no cluster. */
  readonly cluster?: {
    readonly id?: string;
    readonly managers?: readonly string[];
    readonly connected?: boolean;
  } | null;
  readonly dataPlane?: {
    /** Threads that handle packets. */
    readonly threads?: number;
    readonly ports?: number;
    readonly vteps?: number;
    readonly networks?: number;
    readonly endpoints?: number;
    readonly services?: number;
    /** Entries of the flow table by protocol. */
    readonly flows?: Readonly<Record<string, number>>;
    readonly mtuBytes?: number;
    /** What seals and opens the datagrams of encrypted networks. */
    readonly aead?: string;
    /** Counters by name. */
    readonly packets?: Readonly<Record<string, number>>;
    /** Counters by reason. */
    readonly drops?: Readonly<Record<string, number>>;
  };
  /** Paths to the other nodes' VTEPs. */
  readonly paths?: readonly {
    readonly node?: string;
    readonly address?: string;
    readonly state?: string;
    /** The largest outer packet that is sent there. */
    readonly mtuBytes?: number;
    /** Smoothed and lowest round-trip time; absent while no probe was answered. */
    readonly rttMs?: number;
    readonly rttMinMs?: number;
    /** Share of the last probes that were lost. */
    readonly lossRatio?: number;
  }[];
  /** Encrypted channels to the other nodes. */
  readonly sessions?: readonly {
    readonly node?: string;
    readonly address?: string;
    readonly state?: string;
    /** Of the session that data is sent by. */
    readonly ageSeconds?: number;
  }[];
  readonly gossip?: {
    readonly members?: readonly {
      readonly name?: string;
      readonly address?: string;
      readonly state?: string;
    }[];
  };
  readonly peers?: readonly {
    readonly id?: string;
    readonly name?: string;
    readonly address?: string;
    readonly datagrams?: Directions;
    readonly bytes?: Directions;
    readonly drops?: Directions;
  }[];
  readonly tasks?: readonly {
    readonly id?: string;
    readonly name?: string;
    readonly state?: string;
    readonly pid?: number;
    readonly error?: string;
  }[];
  readonly portConflicts?: readonly {
    readonly protocol?: string;
    readonly port?: number;
    readonly holder?: string;
  }[];
}

/** What came from another node, and what went to it. */
export interface Directions {
  readonly in?: number;
  readonly out?: number;
}

/** A flow of `GET /weft/flows`. */
export interface Flow {
  readonly way?: string;
  readonly protocol?: string;
  readonly client?: string;
  readonly vip?: string;
  readonly service?: string;
  readonly backend?: string;
  readonly taskId?: string;
  readonly task?: string;
  readonly via?: string;
  readonly network?: string;
  readonly state?: string;
  readonly gone?: boolean;
  readonly ageMs?: number;
  readonly idleMs?: number;
}

/** Some flows, and the cursor of the next request if there may be more. */
export interface FlowPage {
  readonly flows?: readonly Flow[];
  readonly next?: number;
}

/** An endpoint of `GET /weft/endpoints`. */
export interface Endpoint {
  readonly network?: string;
  readonly address?: string;
  readonly address6?: string;
  readonly node?: string;
  readonly service?: string;
  readonly task?: string;
  readonly taskId?: string;
  readonly state?: string;
}

/** A line of `GET /weft/endpoints/digest`; the last one has no network, and is about all. */
export interface EndpointDigest {
  readonly network?: string;
  readonly endpoints?: number;
  readonly digest?: string;
}

/** A member of `GET /weft/gossip/members`. */
export interface GossipMember {
  readonly name?: string;
  readonly id?: string;
  readonly address?: string;
  readonly state?: string;
  readonly incarnation?: number;
  readonly protocol?: number;
  readonly tags?: Readonly<Record<string, string>>;
}

/** A node that a change of keys is about. */
export interface KeyNode {
  readonly id?: string;
  readonly name?: string;
}

/** `GET /weft/gossip/keys`. */
export interface GossipKeys {
  /** `off`, `accept`, `seal` or `strict`. */
  readonly mode?: string;
  readonly changing?: boolean;
  /** Nodes that are not down. */
  readonly nodes?: number;
  /** Those of them that have not confirmed the keys as they are now. */
  readonly waiting?: readonly KeyNode[];
  readonly down?: readonly KeyNode[];
  readonly keys?: readonly {
    readonly id?: string;
    readonly state?: string;
    /** RFC 3339. */
    readonly createdAt?: string;
    readonly nodes?: number;
    readonly confirmed?: number;
    readonly key?: string;
  }[];
}
