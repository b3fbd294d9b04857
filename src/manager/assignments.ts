import { formatHostPort } from '../core/ip.ts';
import type { StateView } from './cluster-state.ts';
import { millisecondsOf } from './common-spec.ts';
import { gossipKeysOf, gossipSettingsOf } from './gossip-keys.ts';
import type { GossipKeysAssignment, GossipSettings } from './gossip-protocol.ts';
import { CLUSTER_KEY } from './keys.ts';
import { taskName } from './lookup.ts';
import { isEncrypted } from './network-spec.ts';
import type { NetworkRecord, NodeRecord, ServiceRecord, TaskRecord } from './records.ts';
import { runtimeOf } from './service-rules.ts';
import { argvOf, isIngressPort } from './service-spec.ts';
import type {
  AssignmentChange,
  AssignmentSet,
  NetworkAssignment,
  NodeAssignment,
  ServiceAssignment,
  TaskAssignment,
} from './session-protocol.ts';
import { parseSignal } from './signals.ts';
import { wasHandedOut } from './task-states.ts';

/** What every container engine sends first (Docker's default stop signal and grace). */
const STOP_SIGNAL = 'SIGTERM';
const STOP_GRACE_MS = 10_000;
/** Members that a node is told to join by: any one of them would do. */
const GOSSIP_SEEDS_MAX = 8;

/** An assignment set by id, so that two of them can be compared. */
export interface Assignments {
  readonly networks: ReadonlyMap<string, NetworkAssignment>;
  readonly services: ReadonlyMap<string, ServiceAssignment>;
  readonly tasks: ReadonlyMap<string, TaskAssignment>;
  readonly nodes: ReadonlyMap<string, NodeAssignment>;
  readonly managers: readonly string[];
  readonly gossipSeeds: readonly string[];
  readonly gossip: GossipSettings | undefined;
  readonly gossipKeys: GossipKeysAssignment | undefined;
}

/**
 * Makes the assignments of nodes from the state. What is the same for a record is made once and kept
 * as long as the record is, so that sets of many nodes share it and compare by identity.
 */
export class AssignmentBuilder {
  readonly #view: StateView;
  readonly #managers: () => readonly string[];
  readonly #networks = new WeakMap<NetworkRecord, NetworkAssignment>();
  readonly #services = new WeakMap<ServiceRecord, ServiceAssignment>();
  readonly #tasks = new WeakMap<TaskRecord, TaskAssignment>();
  readonly #nodes = new WeakMap<NodeRecord, NodeAssignment>();

  /** @param managers - Says `host:port` of every manager. */
  constructor(view: StateView, managers: () => readonly string[]) {
    this.#view = view;
    this.#managers = managers;
  }

  /** What `node` must know now. */
  build(node: NodeRecord): Assignments {
    const cluster = this.#view.get(CLUSTER_KEY);
    const ingress = [...this.#view.all('networks')].find((network) => network.ingress)?.id;
    return {
      networks: mapOf(this.#view.all('networks'), (record) =>
        memoise(this.#networks, record, networkAssignment),
      ),
      services: mapOf(this.#view.all('services'), (record) =>
        memoise(this.#services, record, (service) =>
          serviceAssignment(this.#view, service, ingress),
        ),
      ),
      tasks: mapOf([...this.#view.tasksOfNode(node.id)].filter(wasHandedOut), (record) =>
        memoise(this.#tasks, record, taskAssignment),
      ),
      nodes: mapOf([...this.#view.all('nodes')].filter(isVouchedFor), (record) =>
        memoise(this.#nodes, record, nodeAssignment),
      ),
      managers: this.#managers(),
      gossipSeeds: gossipSeedsFor(this.#view, node),
      gossip: cluster && gossipSettingsOf(this.#view, cluster),
      gossipKeys: gossipKeysOf(this.#view),
    };
  }
}

function mapOf<R extends { readonly id: string }, A>(
  records: Iterable<R>,
  make: (record: R) => A,
): ReadonlyMap<string, A> {
  return new Map(Array.from(records, (record) => [record.id, make(record)]));
}

function memoise<R extends object, A>(known: WeakMap<R, A>, record: R, make: (record: R) => A): A {
  let assignment = known.get(record);
  if (assignment === undefined) {
    assignment = make(record);
    known.set(record, assignment);
  }
  return assignment;
}

function networkAssignment(network: NetworkRecord): NetworkAssignment {
  const { id, name, vni, subnet, gateway, subnet6, gateway6, ingress } = network;
  const ipv6 = subnet6 === undefined || gateway6 === undefined ? {} : { subnet6, gateway6 };
  const encryption = isEncrypted(network.spec) ? { encrypted: true } : {};
  return { id, name, vni, subnet, gateway, ...ipv6, ingress, ...encryption };
}

/** Whether the node is a member that has told its key: one that has left is none any more. */
function isVouchedFor({ secretHash, description }: NodeRecord): boolean {
  return secretHash !== undefined && description.publicKey !== undefined;
}

function nodeAssignment(node: NodeRecord): NodeAssignment {
  const { id, description, advertiseAddress, dataPathPort } = node;
  return {
    id,
    publicKey: description.publicKey ?? '',
    address: advertiseAddress,
    dataPathPort,
  };
}

function serviceAssignment(
  view: StateView,
  service: ServiceRecord,
  ingressId: string | undefined,
): ServiceAssignment {
  const ingressVip = service.vips.find((vip) => vip.networkId === ingressId);
  const servesIpv6 = view.find('networks', service.networkIds[0] ?? '')?.subnet6 !== undefined;
  const ingressVip6 = servesIpv6 ? ingressVip?.address6 : undefined;
  return {
    id: service.id,
    name: service.spec.Name ?? '',
    vips: service.vips.filter((vip) => vip.networkId !== ingressId),
    ...(ingressVip === undefined ? {} : { ingressVip: ingressVip.address }),
    ...(ingressVip6 === undefined ? {} : { ingressVip6 }),
    ports: service.ports.filter(isIngressPort).map((port) => ({
      protocol: port.Protocol,
      targetPort: port.TargetPort,
      publishedPort: port.PublishedPort,
    })),
  };
}

function taskAssignment(task: TaskRecord): TaskAssignment {
  const container = task.spec.ContainerSpec;
  return {
    id: task.id,
    serviceId: task.serviceId,
    serviceName: task.serviceName,
    slot: task.slot,
    name: taskName(task),
    desiredState: task.desiredState === 'ready' ? 'running' : task.desiredState,
    runtime: runtimeOf(task.serviceLabels) ?? 'process',
    argv: argvOf(task.spec),
    env: container.Env ?? [],
    ...(container.Dir ? { directory: container.Dir } : {}),
    ...(container.User ? { user: container.User } : {}),
    ...(container.Hostname ? { hostname: container.Hostname } : {}),
    stopSignal: parseSignal(container.StopSignal ?? STOP_SIGNAL) ?? STOP_SIGNAL,
    stopGraceMs:
      container.StopGracePeriod === undefined
        ? STOP_GRACE_MS
        : millisecondsOf(container.StopGracePeriod),
    attachments: task.attachments,
  };
}

/** Other members that may be alive: managers first, then those known to be ready. */
function gossipSeedsFor(view: StateView, node: NodeRecord): string[] {
  const rank = (other: NodeRecord): number =>
    Number(other.role !== 'manager') + 2 * Number(other.state !== 'ready');
  return [...view.all('nodes')]
    .filter((other) => other.id !== node.id && other.state !== 'down')
    .sort((a, b) => rank(a) - rank(b) || (a.id < b.id ? -1 : 1))
    .slice(0, GOSSIP_SEEDS_MAX)
    .map((other) => formatHostPort(other.advertiseAddress, other.gossipPort));
}

/** The message form of `assignments`. */
export function completeSet(
  assignments: Assignments,
  node: NodeRecord,
  clusterId: string,
): AssignmentSet {
  return {
    clusterId,
    nodeId: node.id,
    ingressAddress: node.ingressAddress,
    ...(node.ingressAddress6 === undefined ? {} : { ingressAddress6: node.ingressAddress6 }),
    networks: [...assignments.networks.values()],
    services: [...assignments.services.values()],
    tasks: [...assignments.tasks.values()],
    nodes: [...assignments.nodes.values()],
    managers: assignments.managers,
    gossipSeeds: assignments.gossipSeeds,
    ...gossipPart(assignments.gossip, assignments.gossipKeys),
  };
}

/** What is there of both. */
function gossipPart(
  gossip: GossipSettings | undefined,
  gossipKeys: GossipKeysAssignment | undefined,
): Pick<AssignmentSet, 'gossip' | 'gossipKeys'> {
  return {
    ...(gossip === undefined ? {} : { gossip }),
    ...(gossipKeys === undefined ? {} : { gossipKeys }),
  };
}

/** What leads from one set to the next; undefined if they are the same. */
export function changeBetween(
  before: Assignments,
  after: Assignments,
): AssignmentChange | undefined {
  const gossip = isEqual(before.gossip, after.gossip) ? undefined : after.gossip;
  const gossipKeys = isEqual(before.gossipKeys, after.gossipKeys) ? undefined : after.gossipKeys;
  const change: AssignmentChange = {
    networks: changed(before.networks, after.networks),
    services: changed(before.services, after.services),
    tasks: changed(before.tasks, after.tasks),
    nodes: changed(before.nodes, after.nodes),
    removedNetworks: removed(before.networks, after.networks),
    removedServices: removed(before.services, after.services),
    removedTasks: removed(before.tasks, after.tasks),
    removedNodes: removed(before.nodes, after.nodes),
    managers: after.managers,
    gossipSeeds: after.gossipSeeds,
    ...gossipPart(gossip, gossipKeys),
  };
  const nothingMoved =
    change.networks.length + change.services.length + change.tasks.length === 0 &&
    change.removedNetworks.length + change.removedServices.length === 0 &&
    change.removedTasks.length + change.nodes.length + change.removedNodes.length === 0;
  const isSame =
    nothingMoved &&
    gossip === undefined &&
    gossipKeys === undefined &&
    isEqual(before.managers, after.managers) &&
    isEqual(before.gossipSeeds, after.gossipSeeds);
  return isSame ? undefined : change;
}

function changed<A>(before: ReadonlyMap<string, A>, after: ReadonlyMap<string, A>): A[] {
  const assignments: A[] = [];
  for (const [id, assignment] of after) {
    const known = before.get(id);
    if (known !== assignment && !isEqual(known, assignment)) assignments.push(assignment);
  }
  return assignments;
}

function removed(
  before: ReadonlyMap<string, unknown>,
  after: ReadonlyMap<string, unknown>,
): string[] {
  return [...before.keys()].filter((id) => !after.has(id));
}

/** Both come from the same code, field by field: equal values serialise alike. */
function isEqual(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
