import type { Clock, Log, Random } from '../core/capabilities.ts';
import { formatIpPort, type Ip, isIpv6, parseIp, parseIpv6 } from '../core/ip.ts';
import type { DataPlaneCommand } from '../dataplane/commands.ts';
import { DataPlane, type DataPlaneOptions } from '../dataplane/data-plane.ts';
import type { PacketThread } from '../dataplane/packet-thread.ts';
import { readJsonFile, removeFile, writeJsonFile } from '../io/json-file.ts';
import { FdKeeper } from '../io/linux/fd-keeper.ts';
import { openSharedPort } from '../io/linux/shared-port.ts';
import { TapOpener } from '../io/linux/tap-opener.ts';
import { systemSchedule } from '../io/system.ts';
import {
  GOSSIP_SETTINGS_BEFORE,
  type GossipKeysAssignment,
  type GossipSettings,
} from '../manager/gossip-protocol.ts';
import type {
  AssignmentSet,
  NetworkAssignment,
  NodeDescription,
  TaskStatusReport,
} from '../manager/session-protocol.ts';
import { ProcessRuntime } from '../runtime/process-runtime.ts';
import { TaskExecutor } from '../runtime/task-executor.ts';
import type { LogOptions, LogRecord } from '../runtime/task-runtime.ts';
import { TaskStore } from '../runtime/task-store.ts';
import { innerMtuBytes } from '../vxlan/overhead.ts';
import { Attachments } from './attachments.ts';
import { DesiredTables } from './desired-tables.ts';
import { Encryption, encryptedPeers } from './encryption.ts';
import type { GossipKeyFile } from './gossip-key-file.ts';
import { GossipKeys } from './gossip-keys.ts';
import { HostPort, type HostPortOptions, type PortConflict } from './host-port.ts';
import type { Identity } from './identity.ts';
import { Insight } from './insight.ts';
import { PathMonitor } from './path-monitor.ts';
import { PeerSlots } from './peer-slots.ts';
import { Peers } from './peers.ts';
import { waitUntilListening } from './readiness.ts';
import { Session } from './session.ts';
import { TableSync } from './table-sync.ts';

/** How often a published port that something else held is tried again. */
const PORT_RETRY_MS = 10_000;

/** What a {@link Node} works with. */
export interface NodeDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The cluster has removed this node, or a part without which it cannot go on has died. */
  readonly onRemoved: () => void;
  readonly onFailure: (error: Error) => void;
  /** Gossip has declared another node dead. */
  readonly onPeerFailed: (nodeId: string) => void;
}

/** How a node is set up. */
export interface NodeOptions {
  readonly identity: Identity;
  readonly description: NodeDescription;
  /** The private key of its encrypted channels. */
  readonly encryptionKey: Uint8Array;
  /** Where the keys of gossip are kept: those of the answer to the join are in it already. */
  readonly gossipKeyFile: GossipKeyFile;
  /** What must survive a restart of the machine. */
  readonly stateDir: string;
  /** What must survive the process, but not the machine: on a tmpfs. */
  readonly runDir: string;
  /** MTU of the interface that has the advertised address, in bytes. */
  readonly underlayMtuBytes: number;
  readonly packetThreads: number;
  /** What the names of tasks' network namespaces start with. */
  readonly netnsPrefix: string;
}

/** Whether the underlay is IPv6. */
function isOverIpv6({ identity }: NodeOptions): boolean {
  return isIpv6(parseIp(identity.advertiseAddress));
}

/**
 * This host as a node of a cluster: data plane, gossip, tasks and the session with a manager, and how
 * what one says reaches the others. Everything but the session goes on without a manager.
 */
export class Node {
  readonly dataPlane: DataPlane;
  /** Paths to the other nodes' VTEPs. */
  readonly paths: PathMonitor;
  /** Encrypted channels to the other nodes. */
  readonly encryption: Encryption;
  readonly #deps: NodeDeps;
  readonly #options: NodeOptions;
  readonly #peers: Peers;
  readonly #settings: GossipSettings;
  /** The keys that this node gossips by. */
  readonly gossipKeys: GossipKeys;
  readonly #keeper: FdKeeper;
  readonly #opener: TapOpener;
  readonly #runtime: ProcessRuntime;
  readonly #executor: TaskExecutor;
  readonly #attachments: Attachments;
  readonly #session: Session;
  readonly #desired: DesiredTables;
  readonly #tables: TableSync;
  readonly #slots: PeerSlots;
  /** What operators look into. */
  readonly insight: Insight;
  #hostPort: HostPort | undefined;
  #assignments: AssignmentSet | undefined;
  /** Whether it has been said that gossip's settings are not the manager's. */
  #hasWarned = false;
  #manager: string | undefined;
  #nextPortId = 1;
  /** Which VTEPs the paths lead to. */
  #followedVteps = 0;
  /** Assignments are worked off one after the other. */
  #work: Promise<void> = Promise.resolve();
  readonly #portRetry: NodeJS.Timeout;
  /** Whether the tasks of an earlier agent have been taken over. */
  #isRestored = false;
  #closed = false;
  readonly #stopped = new AbortController();

  private constructor(
    deps: NodeDeps,
    options: NodeOptions,
    dataPlane: DataPlane,
    keeper: FdKeeper,
    settings: GossipSettings,
  ) {
    const { clock, random, log } = deps;
    const { identity } = options;
    this.#settings = settings;
    this.#deps = deps;
    this.#options = options;
    this.dataPlane = dataPlane;
    this.#keeper = keeper;
    this.#opener = new TapOpener(keeper);
    this.paths = new PathMonitor(
      {
        clock,
        random,
        schedule: systemSchedule,
        apply: (commands) => {
          dataPlane.apply(commands).catch((error: unknown) => this.#failed(error, 'paths'));
        },
      },
      { linkMtuBytes: options.underlayMtuBytes, ipv6: isOverIpv6(options) },
    );
    this.#slots = new PeerSlots(dataPlane.peerCounters);
    this.encryption = this.#makeEncryption();
    this.#peers = new Peers(
      {
        clock,
        random,
        log,
        onChanged: () => this.#syncTables(),
        onFailed: deps.onPeerFailed,
      },
      {
        identity,
        settings,
        description: options.description,
        memoryFile: `${options.runDir}/endpoints.jsonl`,
      },
    );
    this.gossipKeys = new GossipKeys({
      file: options.gossipKeyFile,
      log,
      apply: (keys, modes) => this.#peers.setKeys(keys, modes),
    });
    this.#desired = new DesiredTables(this.#peers.view, (vteps) => this.#slots.place(vteps));
    this.#tables = new TableSync(dataPlane, log, () => this.#desired.changes());
    this.#attachments = new Attachments({
      dataPlane,
      opener: this.#opener,
      log,
      network: (id) => this.#assignments?.networks.find((network) => network.id === id),
      mtuBytes: ({ encrypted }) => this.#overlayMtuBytes(encrypted === true),
      announce: (key, value) => this.#peers.announce(key, value),
      nextPortId: () => this.#nextPortId++,
      isRunning: (taskId) => this.#isRunning(taskId),
      onConfigFailed: (device, error) => this.#failed(error, `settings of ${device}`),
    });
    this.#runtime = new ProcessRuntime(
      { clock, log },
      { stateDirectory: `${options.stateDir}/tasks`, netnsPrefix: options.netnsPrefix },
    );
    this.#executor = new TaskExecutor({
      clock,
      log,
      store: new TaskStore({ log }, `${options.stateDir}/assigned-tasks`),
      runtimes: { process: this.#runtime },
      network: this.#attachments,
      report: (status) => this.#taskChanged(status),
    });
    this.#session = this.#makeSession();
    this.insight = new Insight({
      clock,
      dataPlane,
      flowFile: this.#flowFile,
      slots: this.#slots,
      assignments: () => this.#assignments,
      ports: () => this.#attachments.ports(),
      hostPortId: () => this.#hostPort?.portId,
      members: () => this.#peers.members(),
      entries: () => this.#peers.visible(),
      view: this.#peers.view,
    });
    this.#portRetry = setInterval(() => this.#retryPorts(), PORT_RETRY_MS);
  }

  /**
   * Starts the node: what ran under an earlier agent is taken over before a manager is asked.
   *
   * @param threads - For the data plane, if they have been made already: as many as there are to be.
   * @throws {Error} if a port is taken or a file is damaged; nothing runs then
   */
  static async start(
    deps: NodeDeps,
    options: NodeOptions,
    threads?: readonly PacketThread[],
  ): Promise<Node> {
    const { identity, runDir } = options;
    const keeper = await FdKeeper.open(deps.log, runDir);
    const vtepAddress = parseIp(identity.advertiseAddress);
    let node: Node | undefined;
    const dataPlaneOptions: DataPlaneOptions = {
      vtepAddress,
      sockets: underlaySockets(keeper, vtepAddress, identity.dataPathPort, options.packetThreads),
      held: true,
      flowFile: flowFileIn(runDir),
      linkMtuBytes: options.underlayMtuBytes,
      onPath: (event) => node?.paths.hear(event),
      onSecureEvent: (event) => node?.encryption.receive(event),
      onPortGone: (portId) => deps.log.warn({ portId }, 'interface of a task is gone'),
      onFailure: deps.onFailure,
    };
    const dataPlane = await DataPlane.start(deps.random, dataPlaneOptions, threads);
    const known = await readAssignments(options.stateDir).catch(() => undefined);
    // What a manager has said since is newer than what was said at the join.
    const settings = known?.gossip ?? identity.gossip ?? GOSSIP_SETTINGS_BEFORE;
    node = new Node(deps, options, dataPlane, keeper, settings);
    try {
      await node.#start();
      return node;
    } catch (error) {
      await node.close();
      throw error;
    }
  }

  /** MTU of the tasks' interfaces on networks that are not encrypted, in bytes. */
  get overlayMtuBytes(): number {
    return this.#overlayMtuBytes(false);
  }

  /** What the managers said last. */
  get assignments(): AssignmentSet | undefined {
    return this.#assignments;
  }

  /** The manager that answers, as `host:port`. */
  get manager(): string | undefined {
    return this.#manager;
  }

  get portConflicts(): readonly PortConflict[] {
    return this.#hostPort?.conflicts ?? [];
  }

  get peers(): Peers {
    return this.#peers;
  }

  get tasks(): TaskExecutor {
    return this.#executor;
  }

  /** What a task wrote; undefined if this node does not know the task. */
  taskLogs(taskId: string, options: LogOptions): AsyncIterable<LogRecord> | undefined {
    const isKnown = this.#executor.statuses().some((status) => status.taskId === taskId);
    return isKnown ? this.#executor.logs(taskId, options) : undefined;
  }

  /** Stops all tasks and takes this host out of the cluster's data plane. */
  async leave(): Promise<void> {
    await this.#session.close();
    await this.#executor.removeAll();
    await this.#work;
    await this.#peers.leave();
    await this.#hostPort?.remove();
    this.#hostPort = undefined;
    await removeFile(this.#assignmentsFile);
    await this.close();
    await this.#keeper.end();
    await removeFile(this.#flowFile);
  }

  /** Lets go of everything: tasks keep running, with their interfaces, for the next agent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopped.abort();
    clearInterval(this.#portRetry);
    await this.#session.close();
    await this.#work;
    this.#executor.close();
    await this.#runtime.close();
    await this.#peers.close();
    this.paths.close();
    this.insight.captures.close();
    this.encryption.close();
    await this.dataPlane.close();
    this.#hostPort?.close();
    this.#attachments.close();
    await this.#opener.close();
    this.#keeper.close();
  }

  get #flowFile(): string {
    return flowFileIn(this.#options.runDir);
  }

  #makeSession(): Session {
    const { identity, description } = this.#options;
    const { log, onRemoved } = this.#deps;
    return new Session(
      {
        credentials: identity,
        description,
        log,
        events: {
          assigned: (assignments) => this.#assigned(assignments),
          connected: (manager) => this.#connected(manager),
          removed: onRemoved,
        },
        allStatuses: () => this.#executor.statuses(),
        portConflicts: () => this.portConflicts,
        gossipKeys: () => this.gossipKeys.report,
        taskLog: (taskId, logOptions) => this.taskLogs(taskId, logOptions),
      },
      identity.managers,
    );
  }

  #makeEncryption(): Encryption {
    const { clock, random, log } = this.#deps;
    const { identity, encryptionKey: privateKey } = this.#options;
    const { clusterId, generation } = identity;
    const apply = (commands: readonly DataPlaneCommand[]) => this.dataPlane.apply(commands);
    return new Encryption(
      { clock, random, log, schedule: systemSchedule, apply },
      { privateKey, clusterId, generation },
    );
  }

  #overlayMtuBytes(encrypted: boolean): number {
    const ipv6 = isOverIpv6(this.#options);
    return innerMtuBytes(this.#options.underlayMtuBytes, { ipv6, encrypted });
  }

  get #assignmentsFile(): string {
    return assignmentsFileIn(this.#options.stateDir);
  }

  /**
   * Packets wait in the kernel until all is as the last agent had it. Other nodes hear of this one when
   * it has its endpoints again, and services are balanced from then on: a table without them would end
   * the flows of tasks that never stopped.
   */
  async #start(): Promise<void> {
    await this.#peers.recall();
    await this.gossipKeys.recall();
    const known = await readAssignments(this.#options.stateDir);
    if (known !== undefined) await this.#know(known);
    await Promise.all([this.#executor.restore(), known && this.#openHostPort(known)]);
    this.#isRestored = true;
    this.#define();
    await this.#applyTables();
    await this.dataPlane.serve();
    this.#keeper.dropOffered();
    if (known !== undefined) await this.#publish(known);
    await this.#startPeers();
    this.#peers.join(known?.gossipSeeds ?? []);
    this.#session.start();
  }

  /** In a cluster that encrypts, a node without keys waits for those that the manager tells it. */
  async #startPeers(): Promise<void> {
    if (this.#settings.encryption && this.gossipKeys.count === 0) {
      this.#deps.log.warn({}, 'no gossip keys are known: gossip waits for a manager');
    } else {
      await this.#peers.start();
    }
  }

  #isRunning(taskId: string): boolean {
    return this.#executor
      .statuses()
      .some((status) => status.taskId === taskId && status.state === 'running');
  }

  #syncTables(): void {
    if (this.#closed) return;
    this.#applyTables().catch((error: unknown) => this.#failed(error, 'tables'));
  }

  /** A path is probed as soon as the packet thread knows its VTEP. */
  async #applyTables(): Promise<void> {
    const { view, applyTimes } = this.#peers;
    await applyTimes.during(() => this.#tables.sync());
    if (this.#followedVteps === view.vtepsVersion) return;
    this.#followedVteps = view.vtepsVersion;
    this.paths.follow([...view.vteps()]);
  }

  /** @throws {RangeError} if an address or VNI that the manager said is none */
  #define(): void {
    const { networks = [], services = [] } = this.#assignments ?? {};
    this.#desired.define({ networks, services: this.#isRestored ? services : [] });
  }

  #connected(manager: string | undefined): void {
    this.#manager = manager;
    if (manager !== undefined) this.#deps.log.info({ manager }, 'connected to a manager');
  }

  /** @param told - Its keys are secrets, and go no further. */
  #assigned({ gossipKeys, ...assignments }: AssignmentSet): void {
    this.#work = this.#work
      .then(async () => {
        if (this.#closed) return;
        await this.#takeGossipKeys(gossipKeys);
        this.#compareSettings(assignments);
        await this.#prepare(assignments);
        this.#peers.join(assignments.gossipSeeds);
        await writeJsonFile(this.#assignmentsFile, assignments);
        this.#executor.assign(assignments.tasks);
      })
      .catch((error: unknown) => this.#failed(error, 'assignments'));
  }

  async #takeGossipKeys(told: GossipKeysAssignment | undefined): Promise<void> {
    if (told === undefined) return;
    try {
      if (await this.gossipKeys.take(told)) this.#session.gossipKeysChanged();
      if (this.gossipKeys.count > 0) await this.#peers.start();
    } catch (error) {
      this.#failed(error, 'gossip keys'); // tasks and networks do not depend on them
    }
  }

  /** Says once if gossip was started by other settings than the manager's. */
  #compareSettings({ gossip = this.#settings }: AssignmentSet): void {
    const { encryption: _, ...used } = this.#settings;
    const { encryption: __, ...told } = gossip;
    if (this.#hasWarned || JSON.stringify(told) === JSON.stringify(used)) return;
    this.#hasWarned = true;
    this.#deps.log.warn({ told, used }, 'gossip settings differ: restart the agent to use them');
  }

  /** Makes networks, services and published ports as assigned, before tasks need them. */
  async #prepare(assignments: AssignmentSet): Promise<void> {
    await this.#know(assignments);
    await this.#publish(assignments);
  }

  async #know(assignments: AssignmentSet): Promise<void> {
    this.#assignments = assignments;
    this.encryption.setPeers(encryptedPeers(assignments));
    this.#define();
    await this.#applyTables();
  }

  /** Opens the host's own port and makes published ports lead there. */
  async #publish(assignments: AssignmentSet): Promise<void> {
    await this.#openHostPort(assignments);
    try {
      await this.#hostPort?.setUp();
      await this.#hostPort?.publish(assignments.services);
    } catch (error) {
      this.#failed(error, 'published ports'); // tasks and their networks do not depend on them
    }
  }

  async #openHostPort(assignments: AssignmentSet): Promise<void> {
    const { networks, ingressAddress, ingressAddress6 } = assignments;
    const ingress = networks.find((network) => network.ingress);
    if (this.#hostPort !== undefined || ingress === undefined || ingressAddress === '') return;
    const opened = HostPort.open(
      {
        dataPlane: this.dataPlane,
        opener: this.#opener,
        log: this.#deps.log,
        nextPortId: () => this.#nextPortId++,
      },
      {
        address: ingressAddress,
        subnet: ingress.subnet,
        ...ipv6Ingress(ingress, ingressAddress6),
        mtuBytes: this.overlayMtuBytes,
        tunnelPort: this.#options.identity.dataPathPort,
        rulesetFile: `${this.#options.runDir}/published-ports.nft`,
      },
    );
    try {
      this.#hostPort = await opened;
    } catch (error) {
      this.#failed(error, 'published ports');
    }
  }

  #retryPorts(): void {
    const { services } = this.#assignments ?? {};
    if (services === undefined || this.portConflicts.length === 0) return;
    this.#work = this.#work
      .then(() => this.#hostPort?.publish(services))
      .catch((error: unknown) => this.#failed(error, 'published ports'));
  }

  #taskChanged(status: TaskStatusReport): void {
    const { taskId, state, error } = status;
    this.#deps.log.info({ taskId, state, ...(error === undefined ? {} : { error }) }, 'task');
    if (state === 'running') void this.#activate(taskId, status.pid);
    this.#session.taskChanged(status);
  }

  /** Lets a task have flows as soon as it listens on the ports that its service publishes. */
  async #activate(taskId: string, pid: number | undefined): Promise<void> {
    const task = this.#assignments?.tasks.find(({ id }) => id === taskId);
    const service = this.#assignments?.services.find(({ id }) => id === task?.serviceId);
    const ports = (service?.ports ?? []).filter(({ protocol }) => protocol === 'tcp');
    if (pid !== undefined && ports.length > 0) {
      const targets = ports.map(({ targetPort }) => targetPort);
      const listens = await waitUntilListening(pid, targets, this.#stopped.signal);
      if (!listens) this.#deps.log.warn({ taskId, targets }, 'task does not listen on its ports');
    }
    if (this.#isRunning(taskId)) this.#attachments.announceState(taskId, 'active');
  }

  #failed(error: unknown, what: string): void {
    if (!this.#closed) this.#deps.log.error({ what, error: String(error) }, 'a step failed');
  }
}

function ipv6Ingress(
  { subnet6, gateway6 }: NetworkAssignment,
  address: string | undefined,
): Pick<HostPortOptions, 'ipv6'> {
  if (subnet6 === undefined || gateway6 === undefined || address === undefined) return {};
  return { ipv6: { address, subnet: subnet6, gateway: gateway6 } };
}

/** Where what the manager said last is kept. */
function assignmentsFileIn(stateDir: string): string {
  return `${stateDir}/assignments.json`;
}

async function readAssignments(stateDir: string): Promise<AssignmentSet | undefined> {
  return (await readJsonFile(assignmentsFileIn(stateDir))) as AssignmentSet | undefined;
}

/** Where the flow table of a node lives. */
function flowFileIn(runDir: string): string {
  return `${runDir}/flows`;
}

/** The sockets of this node's VTEP: the last agent's, in which datagrams wait, and as many new ones as it lacks. */
function underlaySockets(
  keeper: FdKeeper,
  vtepAddress: Ip,
  port: number,
  count: number,
): readonly number[] {
  const any = isIpv6(vtepAddress) ? parseIpv6('::') : 0;
  const name = `udp ${formatIpPort(any, port)}`;
  const kept = keeper.takeGroup(name, count);
  const sockets = openSharedPort(any, port, count, kept);
  keeper.keepGroup(name, sockets, kept.length);
  return sockets;
}
