import type { Hono } from 'hono';
import type { Clock, Log, Random } from '../core/capabilities.ts';
import type { Store } from '../core/store.ts';
import type { HostRoute } from '../ipam/address-space.ts';
import { poolUsage } from './addresses.ts';
import { managerApi } from './api.ts';
import type { LocalNode, PortHolder } from './api-context.ts';
import { clusterOf } from './cluster.ts';
import { ClusterState } from './cluster-state.ts';
import { Dispatcher } from './dispatcher.ts';
import { type JoinTokens, joinTokensOf, type Sha256 } from './join-tokens.ts';
import { GOSSIP_KEYS_KEY } from './keys.ts';
import { LogRelay } from './log-relay.ts';
import type { TaskLogs } from './log-stream.ts';
import { Reconciler } from './reconciler.ts';
import type { NodeState } from './records.ts';
import type { Schedule } from './schedule.ts';
import { sessionApi } from './session-api.ts';
import { TASK_STATES, type TaskState } from './session-protocol.ts';
import { StateWriter } from './state-writer.ts';

/** What a manager needs of the world. */
export interface ManagerDeps {
  /** Of a cluster that has been initialised; the manager does not close it. */
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly sha256: Sha256;
  readonly schedule: Schedule;
  /** Without it, ports that a process of this host holds are not refused. */
  readonly portHolder?: PortHolder;
  /** Without it, subnets are checked against each other only. */
  readonly hostRoutes?: () => Promise<readonly HostRoute[]>;
  /** The logs on this host. Without it, this host's node is asked like any other. */
  readonly taskLogs?: TaskLogs;
}

/** How the cluster is, counted: for metrics. */
export interface ManagerSnapshot {
  readonly tasksByState: ReadonlyMap<TaskState, number>;
  readonly nodesByState: ReadonlyMap<NodeState, number>;
  readonly services: number;
  /** Age of the key that gossip is sealed by; absent while it is not. */
  readonly gossipKeyAgeMs?: number;
  readonly pools: readonly {
    readonly networkId: string;
    readonly networkName: string;
    readonly capacity: number;
    readonly used: number;
  }[];
}

/**
 * A cluster's manager: the API for people, the sessions of nodes, and the reconciliation between
 * what the one asks for and what the others do. It opens no sockets: both APIs are fetch handlers.
 */
export class Manager {
  /** The Docker Engine API, for this host's unix socket. */
  readonly api: Hono;
  /** The routes of nodes, for the TCP address: see session-protocol.ts. */
  readonly sessionApi: Hono;
  readonly #sha256: Sha256;
  readonly #clock: Clock;
  readonly #state: ClusterState;
  readonly #dispatcher: Dispatcher;
  readonly #reconciler: Reconciler;

  constructor(deps: ManagerDeps, local: LocalNode) {
    const { store, clock, random, log, schedule, sha256 } = deps;
    this.#sha256 = sha256;
    this.#clock = clock;
    this.#state = new ClusterState(store);
    const state = this.#state;
    const writer = new StateWriter(store, state);
    const shared = { state, writer, clock, random, log, schedule, sha256 };
    const logRelay = new LogRelay({
      ...shared,
      tell: (nodeId, message) => this.#dispatcher.tell(nodeId, message),
    });
    this.#dispatcher = new Dispatcher({
      ...shared,
      managers: local.managers,
      onSessionEnd: (nodeId) => logRelay.sessionEnded(nodeId),
    });
    this.#reconciler = new Reconciler(shared);
    this.sessionApi = sessionApi(this.#dispatcher, logRelay, log);
    this.api = managerApi({
      ...shared,
      local,
      joinTokens: () => this.joinTokens(),
      portHolder: deps.portHolder,
      hostRoutes: deps.hostRoutes,
      taskLogs: deps.taskLogs,
      logRelay,
    });
  }

  /**
   * Reads the store and begins to manage. Call once, before the APIs are served.
   *
   * @throws {ManagerError} UNAVAILABLE if the store holds no cluster
   */
  async start(): Promise<void> {
    await this.#state.start();
    clusterOf(this.#state);
    this.#dispatcher.start();
    this.#reconciler.start();
  }

  /** Ends sessions and plans; nodes go on with what they know. */
  stop(): void {
    this.#reconciler.stop();
    this.#dispatcher.stop();
    this.#state.stop();
  }

  /** The tokens by which nodes join. */
  joinTokens(): JoinTokens {
    return joinTokensOf(clusterOf(this.#state), this.#sha256);
  }

  /** Gossip has lost a node: see {@link Dispatcher.nodeSuspected}. */
  nodeSuspected(nodeId: string): void {
    this.#dispatcher.nodeSuspected(nodeId);
  }

  /** Counts the cluster's objects; every state is listed, with 0 if there is none in it. */
  snapshot(): ManagerSnapshot {
    const state = this.#state;
    const tasksByState = new Map<TaskState, number>(TASK_STATES.map((name) => [name, 0]));
    for (const { status } of state.all('tasks')) increment(tasksByState, status.state);
    const nodesByState = new Map<NodeState, number>([
      ['unknown', 0],
      ['ready', 0],
      ['down', 0],
    ]);
    for (const node of state.all('nodes')) increment(nodesByState, node.state);
    const pools = [...state.all('networks')].flatMap(({ id, name }) => {
      const usage = poolUsage(state, id);
      return usage === undefined ? [] : [{ networkId: id, networkName: name, ...usage }];
    });
    const services = [...state.all('services')].length;
    return { tasksByState, nodesByState, services, pools, ...this.#gossipKeyAge() };
  }

  #gossipKeyAge(): Pick<ManagerSnapshot, 'gossipKeyAgeMs'> {
    const ring = this.#state.get(GOSSIP_KEYS_KEY);
    const primary = ring?.keys.find(({ id }) => id === ring.primaryId);
    if (primary === undefined) return {};
    return { gossipKeyAgeMs: Math.max(0, this.#clock.epochMs() - primary.createdAtMs) };
  }
}

function increment<K>(counts: Map<K, number>, key: K): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
