import type { GossipKeysReport, GossipSettings } from './gossip-protocol.ts';
import type { NetworkCreate } from './network-spec.ts';
import type { PortConfig, ServiceSpec, TaskSpec } from './service-spec.ts';
import type { NodeDescription, TaskState } from './session-protocol.ts';

/** What every stored object has. Its version is the store's revision of its key. */
export interface ObjectRecord {
  readonly id: string;
  /** Milliseconds since the Unix epoch, here and in every other `…AtMs` of a record. */
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
}

/** The cluster itself: one per store. */
export interface ClusterRecord extends ObjectRecord {
  readonly tokenSecrets: { readonly worker: string; readonly manager: string };
  /** `a.b.c.d/n`, from which networks without a subnet of their own get one. */
  readonly addressPools: readonly string[];
  /** The same for IPv6; absent in a cluster that an agent without IPv6 created. */
  readonly addressPools6?: readonly string[];
  /** Prefix length of the IPv4 subnets. */
  readonly subnetPrefix: number;
  readonly dataPathPort: number;
  /** Finished tasks kept in each slot (Swarm's task history limit). */
  readonly taskHistoryLimit: number;
  /** How its nodes gossip; absent in a cluster that an agent without these settings created. */
  readonly gossip?: ClusterGossip;
}

/** How the nodes of a cluster gossip. Whether they encrypt is told by the keys that there are. */
export interface ClusterGossip extends Omit<GossipSettings, 'encryption'> {
  /** How long a key seals before the next one does; 0 for ever. */
  readonly keyRotationMs: number;
}

/** A manager holds the cluster's state; both run tasks. */
export type NodeRole = 'worker' | 'manager';
/** `pause`: no new tasks; `drain`: no tasks at all. */
export type NodeAvailability = 'active' | 'pause' | 'drain';
/** `unknown`: joined, or known from before a manager's restart, and not heard of yet. */
export type NodeState = 'unknown' | 'ready' | 'down';

/** A host of the cluster. */
export interface NodeRecord extends ObjectRecord {
  readonly role: NodeRole;
  readonly availability: NodeAvailability;
  readonly labels: Readonly<Record<string, string>>;
  readonly description: NodeDescription;
  readonly advertiseAddress: string;
  readonly dataPathPort: number;
  readonly gossipPort: number;
  /** Its own address on the ingress network. */
  readonly ingressAddress: string;
  /** Absent if that network has no IPv6. */
  readonly ingressAddress6?: string;
  readonly state: NodeState;
  /** Why it is in `state`; may be empty. */
  readonly message: string;
  readonly stateSinceMs: number;
  /** SHA-256 of its secret in hex; absent once the node has left. */
  readonly secretHash?: string;
  /** Published ports that it cannot serve. BOUNDED by the session API's limit. */
  readonly portConflicts: readonly PortConflict[];
  /** The keys of gossip that it has confirmed; absent before, and if its agent knows none. */
  readonly gossipKeys?: GossipKeysReport;
}

/** A published port of which a node says that something else holds it. */
export interface PortConflict {
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
  readonly holder: string;
}

/** An overlay network. */
export interface NetworkRecord extends ObjectRecord {
  readonly name: string;
  /** The request that made it. */
  readonly spec: NetworkCreate;
  /** `a.b.c.d/n`. */
  readonly subnet: string;
  readonly gateway: string;
  /** Both are present on a dual-stack network. */
  readonly subnet6?: string;
  readonly gateway6?: string;
  readonly vni: number;
  readonly ingress: boolean;
}

/** What a service or a task is reached by on one network. */
export interface NetworkAddress {
  readonly networkId: string;
  readonly address: string;
  /** On a dual-stack network. */
  readonly address6?: string;
}

/** A wish for tasks. */
export interface ServiceRecord extends ObjectRecord {
  /** As the API gave it, with network ids for network names. */
  readonly spec: ServiceSpec;
  /** Counts the changes after which tasks must be replaced; tasks carry the one they are made by. */
  readonly taskVersion: number;
  /** `spec`'s ports, with every published port known. */
  readonly ports: readonly PortConfig[];
  readonly vips: readonly NetworkAddress[];
  /** The networks its tasks attach to, the one of `eth0` first. */
  readonly networkIds: readonly string[];
}

/** What is known about a task's process. */
export interface TaskStatus {
  readonly state: TaskState;
  readonly message: string;
  /** Why it cannot proceed, failed or was rejected. */
  readonly err?: string;
  readonly timestampMs: number;
  readonly pid?: number;
  readonly exitCode?: number;
}

/** What the orchestrator wants of a task: `ready` waits for its start time or its predecessor. */
export type DesiredState = 'ready' | 'running' | 'shutdown' | 'remove';

/** One run of a service's command, on one node. */
export interface TaskRecord extends ObjectRecord {
  readonly serviceId: string;
  /** The service's name and labels: they outlive it here. */
  readonly serviceName: string;
  readonly serviceLabels: Readonly<Record<string, string>>;
  /** 1 and up for replicated services, 0 for global ones. */
  readonly slot: number;
  readonly nodeId?: string;
  readonly desiredState: DesiredState;
  readonly status: TaskStatus;
  readonly spec: TaskSpec;
  readonly taskVersion: number;
  /** Ports that it takes on its own node (PublishMode host). */
  readonly hostPorts: readonly PortConfig[];
  readonly networkIds: readonly string[];
  /** In the order of `networkIds`; empty until allocated, and kept for the record when released. */
  readonly attachments: readonly NetworkAddress[];
  /** Whether `attachments` are its own: false before allocation and once it is finished. */
  readonly holdsAddresses: boolean;
  /** A `ready` task becomes `running` no earlier than this. */
  readonly startAtMs?: number;
  /** A `ready` task waits for this one to end, for a bounded time. */
  readonly replaces?: string;
  /** Its restart policy has ended: it keeps its slot filled until the service is changed. */
  readonly isFinal: boolean;
  /** When its predecessors were restarted, newest last. BOUNDED by the policy's MaxAttempts. */
  readonly restartsAtMs: readonly number[];
}
