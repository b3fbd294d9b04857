/**
 * What a manager and an agent say to each other on the manager's TCP address (2377), all JSON over
 * HTTP:
 *
 * - `POST /weft/v1/join` {@link JoinRequest} -> {@link JoinResponse}; the token is the credential
 * - `GET  /weft/v1/session` -> newline-delimited {@link SessionMessage}, open until either side ends it
 * - `POST /weft/v1/status` {@link StatusReport} -> {@link StatusResponse}; also the heartbeat
 * - `POST /weft/v1/logs/<requestId>` newline-delimited {@link LogRecord} -> 204; the answer to a
 *   `logs` message, sent as the log grows. It ends when the log does, with a {@link LogRefusal} if
 *   that is too early, or when the manager says so: by `endLogs`, or by its answer
 * - `POST /weft/v1/logs/<requestId>/refusal` {@link LogRefusal} -> 204; the other answer
 * - `POST /weft/v1/leave` -> 204
 *
 * Refusals are `{"message": …}`: 401 for a credential that is wrong or of a removed node, 409 for a
 * status without an open session, 404 for a log that the manager did not ask of this node or does not
 * wait for any more, 400 for a malformed message.
 *
 * All but join carry `Authorization: Bearer <nodeId>.<nodeSecret>`. Mutual TLS will replace the
 * bearer secret without a change to the messages.
 */

import type { GossipKeysAssignment, GossipKeysReport, GossipSettings } from './gossip-protocol.ts';

/** The last moment that a Date can hold (ECMA-262, time values): no message names a later one. */
export const TIMESTAMP_MS_MAX = 8_640_000_000_000_000;

/** Task states in Swarm's order (swarmkit `api/types.proto`): a task only ever moves forward. */
export const TASK_STATES = [
  'new',
  'pending',
  'assigned',
  'accepted',
  'preparing',
  'ready',
  'starting',
  'running',
  'complete',
  'shutdown',
  'failed',
  'rejected',
  'remove',
  'orphaned',
] as const;
/** One of {@link TASK_STATES}. */
export type TaskState = (typeof TASK_STATES)[number];

/** What a node tells about itself. */
export interface NodeDescription {
  readonly hostname: string;
  readonly platform: { readonly architecture: string; readonly os: string };
  readonly resources: { readonly nanoCpus: number; readonly memoryBytes: number };
  /** weft's own version. */
  readonly agentVersion: string;
  /** X25519 key of its encrypted channels: 32 bytes in base64. The private half never leaves the node. */
  readonly publicKey?: string;
  /** What the node says about itself for `engine.labels.*` constraints. */
  readonly labels?: Readonly<Record<string, string>>;
}

/** How a host asks to become a node. */
export interface JoinRequest {
  /** `SWMTKN-1-<digest>-<secret>`. */
  readonly token: string;
  readonly description: NodeDescription;
  /** The address, without port, at which other nodes reach this one: VTEP and gossip. */
  readonly advertiseAddress: string;
  readonly gossipPort: number;
  readonly availability: 'active' | 'pause' | 'drain';
}

/** A new node's identity: to be kept, since the secret cannot be had again. */
export interface JoinResponse {
  readonly clusterId: string;
  readonly nodeId: string;
  readonly nodeSecret: string;
  readonly role: 'worker' | 'manager';
  /** UDP port of VXLAN, the same on every node of the cluster. */
  readonly dataPathPort: number;
  /** Absent from a manager of before there were settings. */
  readonly gossip?: GossipSettings;
  /** What the node must hold before its first packet; absent while the cluster has no keys. */
  readonly gossipKeys?: GossipKeysAssignment;
}

/** A network of the cluster: every node gets every network. */
export interface NetworkAssignment {
  readonly id: string;
  readonly name: string;
  /** VXLAN network identifier, in [4096, 2^24). */
  readonly vni: number;
  /** `a.b.c.d/n`. */
  readonly subnet: string;
  readonly gateway: string;
  /** Both are present on a dual-stack network. */
  readonly subnet6?: string;
  readonly gateway6?: string;
  /** True for the routing mesh's own network. */
  readonly ingress: boolean;
  /** Nothing of it crosses the underlay unsealed. */
  readonly encrypted?: boolean;
}

/** A node that the manager vouches for: whoever owns this key is that node. */
export interface NodeAssignment {
  readonly id: string;
  /** X25519, 32 bytes in base64. */
  readonly publicKey: string;
  /** Its VTEP. */
  readonly address: string;
  readonly dataPathPort: number;
}

/** What a service or a task is reached by on one network. */
export interface AddressAssignment {
  readonly networkId: string;
  readonly address: string;
  /** On a dual-stack network. */
  readonly address6?: string;
}

/** A port published in `ingress` mode. */
export interface PortAssignment {
  readonly protocol: 'tcp' | 'udp';
  readonly targetPort: number;
  readonly publishedPort: number;
}

/** A service that the node's mesh must balance: every node gets every service. */
export interface ServiceAssignment {
  readonly id: string;
  readonly name: string;
  /** Its VIPs on the networks of its tasks. */
  readonly vips: readonly AddressAssignment[];
  /** Its VIP on the ingress network; absent when it publishes nothing. */
  readonly ingressVip?: string;
  /** The IPv6 one; absent if the first network of its tasks has no IPv6, too: nobody would answer. */
  readonly ingressVip6?: string;
  /** Ports published in `ingress` mode. */
  readonly ports: readonly PortAssignment[];
}

/** One task for this node, with all that is needed to run it while no manager answers. */
export interface TaskAssignment {
  readonly id: string;
  readonly serviceId: string;
  readonly serviceName: string;
  readonly slot: number;
  /** `<service>.<slot>.<id>`. */
  readonly name: string;
  readonly desiredState: 'running' | 'shutdown' | 'remove';
  readonly runtime: 'process' | 'docker';
  /** The whole argument vector: command, then arguments. Never empty. */
  readonly argv: readonly string[];
  /** `NAME=value` lines. */
  readonly env: readonly string[];
  readonly directory?: string;
  /** User name or `uid[:gid]`. */
  readonly user?: string;
  readonly hostname?: string;
  /** Signal name, such as SIGTERM. */
  readonly stopSignal: string;
  readonly stopGraceMs: number;
  /** First attachment is `eth0`. */
  readonly attachments: readonly AddressAssignment[];
}

/** Everything a node must know, in one piece: it replaces what was known before. */
export interface AssignmentSet {
  readonly clusterId: string;
  readonly nodeId: string;
  /** This node's own address on the ingress network, `a.b.c.d`. */
  readonly ingressAddress: string;
  /** Absent if that network has no IPv6. */
  readonly ingressAddress6?: string;
  readonly networks: readonly NetworkAssignment[];
  readonly services: readonly ServiceAssignment[];
  readonly tasks: readonly TaskAssignment[];
  /** All nodes that may have encrypted channels, this one among them. */
  readonly nodes: readonly NodeAssignment[];
  /** `host:port` of every manager. */
  readonly managers: readonly string[];
  /** `host:port` of gossip members to join by. */
  readonly gossipSeeds: readonly string[];
  /** Absent from a manager of before there were settings. */
  readonly gossip?: GossipSettings;
  /** Secret: not to be kept with the rest. Absent while the cluster has no keys. */
  readonly gossipKeys?: GossipKeysAssignment;
}

/** A change to an {@link AssignmentSet}: removals by id, and the objects that are new or changed. */
export interface AssignmentChange {
  readonly networks: readonly NetworkAssignment[];
  readonly services: readonly ServiceAssignment[];
  readonly tasks: readonly TaskAssignment[];
  readonly nodes: readonly NodeAssignment[];
  readonly removedNetworks: readonly string[];
  readonly removedServices: readonly string[];
  readonly removedTasks: readonly string[];
  readonly removedNodes: readonly string[];
  readonly managers: readonly string[];
  readonly gossipSeeds: readonly string[];
  /** Present if they changed. */
  readonly gossip?: GossipSettings;
  readonly gossipKeys?: GossipKeysAssignment;
}

/** One line of the session stream. The first one is always `complete`. */
export type SessionMessage =
  | { readonly kind: 'complete'; readonly sequence: number; readonly assignments: AssignmentSet }
  | { readonly kind: 'change'; readonly sequence: number; readonly change: AssignmentChange }
  /** Sent every few seconds, so that a dead connection is noticed. */
  | { readonly kind: 'ping'; readonly sequence: number }
  /** Another session of this node has been opened, so this one ends: the newer agent owns the node. */
  | { readonly kind: 'superseded'; readonly sequence: number }
  /** The node has been removed from the cluster: stop all tasks and forget it. */
  | { readonly kind: 'removed'; readonly sequence: number }
  | (LogSessionMessage & { readonly sequence: number });

/** What a session says about logs. The requests of a session end with it. */
export type LogSessionMessage =
  | {
      readonly kind: 'logs';
      /** Names the answer; unguessable. */
      readonly requestId: string;
      readonly taskId: string;
      /** Go on with what is written from now on, until the task ends. */
      readonly follow: boolean;
      /** Records to begin with, from the end; all if absent. */
      readonly tail?: number;
    }
  /** Nobody reads that log any more. */
  | { readonly kind: 'endLogs'; readonly requestId: string };

/** One line of a task's output, or a piece of one. */
export interface LogRecord {
  /** Milliseconds since the Unix epoch. */
  readonly timestampMs: number;
  readonly stream: 'stdout' | 'stderr';
  /** Without its newline. */
  readonly line: string;
}

/** Why a node sends no log, or no more of it. */
export interface LogRefusal {
  /** As it goes on after the node's name: `it does not have the log of this task`. */
  readonly message: string;
}

/** The state of one task, as its node sees it. */
export interface TaskStatusReport {
  readonly taskId: string;
  readonly state: TaskState;
  readonly message: string;
  /** Why the task failed or was rejected. */
  readonly error?: string;
  readonly pid?: number;
  readonly exitCode?: number;
  /** Milliseconds since the Unix epoch. */
  readonly timestampMs: number;
}

/** What changed on a node; without news it is just a heartbeat. */
export interface StatusReport {
  /** Statuses that changed since the last report; all of them in the first one of a session. */
  readonly tasks: readonly TaskStatusReport[];
  /** Present when it changed, and in the first report of a session. */
  readonly description?: NodeDescription;
  /** Published ports that this node cannot serve, and what holds them. */
  readonly portConflicts: readonly {
    readonly protocol: 'tcp' | 'udp';
    readonly port: number;
    readonly holder: string;
  }[];
  /** The keys that this node gossips by; absent from agents that know none. */
  readonly gossipKeys?: GossipKeysReport;
}

/** The manager has stored the report. */
export interface StatusResponse {
  /** When the next report is due at the latest, in milliseconds from now. */
  readonly heartbeatMs: number;
}
