import type { Random } from '../core/capabilities.ts';
import { isSameFamily } from '../core/cidr.ts';
import { formatIp, type Ip, isIpv6, parseIp } from '../core/ip.ts';
import { IpamError } from '../ipam/errors.ts';
import type { AddressPair } from '../ipam/pool.ts';
import { claimAddress, releaseAddresses } from './addresses.ts';
import { invalid, preconditionFailed } from './errors.ts';
import { newId, newSecret, toHex } from './ids.ts';
import type { Sha256 } from './join-tokens.ts';
import { ingressNetworkOf } from './networks.ts';
import { orphanTask } from './reaper.ts';
import type {
  ClusterRecord,
  NodeAvailability,
  NodeRecord,
  NodeRole,
  NodeState,
} from './records.ts';
import type { JoinRequest } from './session-protocol.ts';
import type { Draft } from './state-writer.ts';
import { takesRoom } from './task-states.ts';

/** Why a node is down, in Swarm's words. */
export const HEARTBEAT_FAILURE = 'heartbeat failure';
/** Why a node that left by itself is down. */
export const NODE_LEFT = 'node left the cluster';

/** What a node's admission depends on besides its request. */
export interface JoinContext {
  readonly role: NodeRole;
  readonly cluster: ClusterRecord;
  readonly random: Random;
  readonly sha256: Sha256;
  /** Milliseconds since the Unix epoch. */
  readonly nowMs: number;
}

/** The form in which a node's secret is stored. */
export function hashSecret(secret: string, sha256: Sha256): string {
  return toHex(sha256(new TextEncoder().encode(secret)));
}

/**
 * Makes a node a member: it has an identity and an address on the ingress network from then on, and
 * becomes ready with its first session.
 *
 * @returns the node, and its secret, which is not stored
 * @throws {ManagerError} INVALID if it cannot be reached at its address, or the ingress network is
 *   full; PRECONDITION if it is to be a second manager, or its address is of another family than
 *   those of the other nodes
 */
export function admitNode(
  draft: Draft,
  request: JoinRequest,
  context: JoinContext,
): { readonly node: NodeRecord; readonly secret: string } {
  const advertised = parseAdvertiseAddress(request.advertiseAddress);
  requireFamily(draft, advertised);
  if (context.role === 'manager') requireNoManager(draft);
  const { random, nowMs } = context;
  const id = newId(random);
  const secret = newSecret(random);
  const { address, address6 } = claimIngressAddress(draft, id);
  const node: NodeRecord = {
    id,
    createdAtMs: nowMs,
    updatedAtMs: nowMs,
    role: context.role,
    availability: request.availability,
    labels: {},
    description: request.description,
    advertiseAddress: formatIp(advertised),
    dataPathPort: context.cluster.dataPathPort,
    gossipPort: request.gossipPort,
    ingressAddress: address,
    ...(address6 === undefined ? {} : { ingressAddress6: address6 }),
    state: 'unknown',
    message: '',
    stateSinceMs: nowMs,
    secretHash: hashSecret(secret, context.sha256),
    portConflicts: [],
  };
  draft.save('nodes', node);
  return { node, secret };
}

/** The cluster's state is in one manager's own store, where a second one could not reach it. */
function requireNoManager(draft: Draft): void {
  for (const { role, description } of draft.all('nodes')) {
    if (role !== 'manager') continue;
    throw preconditionFailed(
      `Cannot join as a manager: this cluster has one already, ${description.hostname}, and several are not supported. Join as a worker: "weft join-token worker" on that manager shows the token`,
    );
  }
}

/** Nodes reach each other by gossip and VXLAN: addresses of two families would not. */
function requireFamily(draft: Draft, address: Ip): void {
  for (const { advertiseAddress, description } of draft.all('nodes')) {
    if (isSameFamily(parseIp(advertiseAddress), address)) continue;
    throw preconditionFailed(
      `Cannot join: this node advertises ${describeAddress(address)}, and node ${description.hostname} of the cluster ${describeAddress(parseIp(advertiseAddress))}, expected addresses of one family: use --advertise-addr`,
    );
  }
}

function describeAddress(address: Ip): string {
  return isIpv6(address) ? `the IPv6 address ${address}` : `the IPv4 address ${formatIp(address)}`;
}

function parseAdvertiseAddress(text: string): Ip {
  try {
    return parseIp(text);
  } catch (error) {
    throw invalid(
      `Invalid advertiseAddress: ${(error as Error).message}`,
      'advertiseAddress',
      error,
    );
  }
}

function claimIngressAddress(draft: Draft, nodeId: string): AddressPair {
  try {
    return claimAddress(draft, ingressNetworkOf(draft).id, { holder: nodeId, kind: 'node' });
  } catch (error) {
    if (!(error instanceof IpamError)) throw error;
    throw invalid(`Cannot join: the ingress network is full: ${error.message}`, undefined, error);
  }
}

/** Records that a node is in another state; nothing happens if it is in it, for the same reason. */
export function setNodeState(
  draft: Draft,
  node: NodeRecord,
  state: NodeState,
  message: string,
  nowMs: number,
): void {
  if (node.state === state && node.message === message) return;
  draft.save('nodes', { ...node, state, message, stateSinceMs: nowMs, updatedAtMs: nowMs });
}

/**
 * Takes a node's leave: it has stopped its tasks, and its credential ends. The node stays listed as
 * down until it is removed.
 */
export function releaseNode(draft: Draft, node: NodeRecord, nowMs: number): void {
  endTasksOf(draft, node.id, nowMs);
  const { secretHash: _, ...rest } = node;
  draft.save('nodes', {
    ...rest,
    state: 'down',
    message: NODE_LEFT,
    stateSinceMs: nowMs,
    updatedAtMs: nowMs,
  });
}

/**
 * Removes a node with its credential and its addresses; its tasks count as gone.
 *
 * @param options - `force` removes a worker that is not down; `localNodeId` is the manager's own node.
 * @throws {ManagerError} PRECONDITION if the node must not be removed
 */
export function removeNode(
  draft: Draft,
  node: NodeRecord,
  options: {
    readonly force: boolean;
    readonly localNodeId: string | undefined;
    readonly nowMs: number;
  },
): void {
  if (node.id === options.localNodeId || (node.role === 'manager' && node.state !== 'down')) {
    throw preconditionFailed(
      `node ${node.id} is a cluster manager and cannot be removed: let it leave first ("weft leave")`,
    );
  }
  if (node.state !== 'down' && !options.force) {
    throw preconditionFailed(
      `node ${node.id} is not down and can't be removed: let it leave first, or use --force`,
    );
  }
  endTasksOf(draft, node.id, options.nowMs);
  releaseAddresses(draft, ingressNetworkOf(draft).id, node.id);
  draft.drop('nodes', node.id);
}

function endTasksOf(draft: Draft, nodeId: string, nowMs: number): void {
  for (const task of [...draft.tasksOfNode(nodeId)]) {
    if (takesRoom(task)) orphanTask(draft, task, nowMs);
  }
}

/** Changes what an operator decides about a node. */
export function updateNode(
  draft: Draft,
  node: NodeRecord,
  wish: {
    readonly availability: NodeAvailability;
    readonly labels: Readonly<Record<string, string>>;
    readonly role: NodeRole;
  },
  nowMs: number,
): void {
  if (wish.role !== node.role) {
    throw preconditionFailed(
      `node ${node.id} cannot change its role: let it leave and join with a ${wish.role} token`,
    );
  }
  const { availability, labels } = wish;
  draft.save('nodes', { ...node, availability, labels, updatedAtMs: nowMs });
}
