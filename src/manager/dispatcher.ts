import type { Clock, Log, Random } from '../core/capabilities.ts';
import { AssignmentBuilder } from './assignments.ts';
import { clusterOf } from './cluster.ts';
import type { ClusterState } from './cluster-state.ts';
import { ManagerError } from './errors.ts';
import { gossipKeysOf, gossipSettingsOf } from './gossip-keys.ts';
import { equalInConstantTime } from './ids.ts';
import { roleOfToken, type Sha256 } from './join-tokens.ts';
import { HEARTBEAT_MS, NodeLiveness } from './node-liveness.ts';
import { admitNode, HEARTBEAT_FAILURE, hashSecret, releaseNode, setNodeState } from './nodes.ts';
import type { NodeRecord } from './records.ts';
import type { CancelSchedule, Schedule } from './schedule.ts';
import { Session } from './session.ts';
import type {
  JoinRequest,
  JoinResponse,
  LogSessionMessage,
  StatusReport,
  StatusResponse,
} from './session-protocol.ts';
import type { StateWriter } from './state-writer.ts';
import { applyReport, isNews } from './status-reports.ts';
import { WriteBatcher } from './write-batcher.ts';

/** Changes that come within this time go to the nodes in one message (swarmkit: 100 ms). */
const ASSIGNMENT_BATCH_MS = 50;
/** Each heartbeat is asked for up to this much early, so that nodes do not report in step. */
const HEARTBEAT_EPSILON_MS = 500;
/** After a failure of the store. */
const RETRY_MS = 1_000;

/** What a {@link Dispatcher} needs. */
export interface DispatcherDeps {
  readonly state: ClusterState;
  readonly writer: StateWriter;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly sha256: Sha256;
  readonly schedule: Schedule;
  /** `host:port` of every manager. */
  readonly managers: () => readonly string[];
  /** Told of every session that ends, for whatever reason. */
  readonly onSessionEnd: (nodeId: string) => void;
}

interface QueuedReport {
  readonly nodeId: string;
  readonly report: StatusReport;
}

/**
 * The managers' side of the sessions with nodes: who they are, what they must do, how they are.
 * {@link module:session-protocol} says what travels.
 */
export class Dispatcher {
  readonly #deps: DispatcherDeps;
  readonly #builder: AssignmentBuilder;
  readonly #liveness = new NodeLiveness();
  /** By node: one each. BOUNDED by the nodes of the cluster. */
  readonly #sessions = new Map<string, Session>();
  readonly #reports: WriteBatcher<QueuedReport>;
  readonly #cancels = new Map<'update' | 'ping' | 'liveness', CancelSchedule>();
  #endSubscription: (() => void) | undefined;
  #stopped = false;

  constructor(deps: DispatcherDeps) {
    this.#deps = deps;
    this.#builder = new AssignmentBuilder(deps.state, deps.managers);
    this.#reports = new WriteBatcher((reports) =>
      deps.writer.write((draft) => {
        const nowMs = deps.clock.epochMs();
        for (const { nodeId, report } of reports) applyReport(draft, nodeId, report, nowMs);
      }),
    );
  }

  /**
   * Waits for the nodes of before: what they are is unknown to a manager that has just started, so
   * they get twice the usual time.
   */
  start(): void {
    const { state, clock } = this.#deps;
    for (const node of state.all('nodes')) {
      if (node.state !== 'down') this.#liveness.expect(node.id, clock.nowMs());
    }
    this.#endSubscription = state.subscribe(() => this.#planUpdate());
    this.#planPing();
    this.#planLivenessCheck();
  }

  /** Ends all sessions: the nodes go on by themselves, and look for another manager. */
  stop(): void {
    this.#stopped = true;
    this.#endSubscription?.();
    for (const cancel of this.#cancels.values()) cancel();
    for (const session of this.#sessions.values()) session.end();
    this.#sessions.clear();
  }

  /**
   * Makes a node a member.
   *
   * @throws {ManagerError} UNAUTHENTICATED if the token is not right, INVALID if its address is not,
   *   PRECONDITION if it is to be a second manager
   */
  async join(request: JoinRequest): Promise<JoinResponse> {
    const { state, writer, random, sha256, clock, log } = this.#deps;
    const cluster = clusterOf(state);
    const role = roleOfToken(request.token, cluster, sha256);
    const { node, secret } = await writer.write((draft) =>
      admitNode(draft, request, { role, cluster, random, sha256, nowMs: clock.epochMs() }),
    );
    this.#liveness.expect(node.id, clock.nowMs());
    this.#planLivenessCheck();
    log.info({ nodeId: node.id, hostname: request.description.hostname, role }, 'node joined');
    const { id: clusterId, dataPathPort } = cluster;
    const gossip = gossipSettingsOf(state, cluster);
    const gossipKeys = gossipKeysOf(state);
    const identity = { clusterId, nodeId: node.id, nodeSecret: secret, role, dataPathPort };
    return { ...identity, gossip, ...(gossipKeys === undefined ? {} : { gossipKeys }) };
  }

  /**
   * The node that a request comes from.
   *
   * @param authorization - The header: `Bearer <nodeId>.<nodeSecret>`.
   * @throws {ManagerError} UNAUTHENTICATED
   */
  authenticate(authorization: string | undefined): NodeRecord {
    const [, nodeId = '', secret = ''] = /^Bearer (\w+)\.(\w+)$/.exec(authorization ?? '') ?? [];
    const node = this.#deps.state.find('nodes', nodeId);
    const hash = hashSecret(secret, this.#deps.sha256);
    if (node?.secretHash === undefined || !equalInConstantTime(hash, node.secretHash)) {
      throw new ManagerError(
        { code: 'UNAUTHENTICATED' },
        'the node is not a member of this cluster: its credential is wrong, or it has been removed',
      );
    }
    return node;
  }

  /** Opens a node's session; one that is open already ends, and the node counts as ready. */
  async openSession(nodeId: string): Promise<ReadableStream<Uint8Array>> {
    const { state, writer, clock } = this.#deps;
    const node = await writer.write((draft) => {
      const known = draft.find('nodes', nodeId);
      if (known?.secretHash === undefined) throw removedMeanwhile();
      setNodeState(draft, known, 'ready', '', clock.epochMs());
      return known;
    });
    this.#sessions.get(nodeId)?.end('superseded');
    const session = new Session({
      node,
      clusterId: clusterOf(state).id,
      assignments: () => this.#builder.build(node),
      onEnd: () => {
        if (this.#sessions.get(nodeId) === session) this.#sessions.delete(nodeId);
        this.#deps.onSessionEnd(nodeId);
      },
    });
    this.#sessions.set(nodeId, session);
    this.#liveness.heard(nodeId, clock.nowMs());
    this.#planLivenessCheck();
    return session.stream;
  }

  /**
   * Takes a node's report; the answer comes once it is durable. Reports that arrive during a write
   * share the next one.
   *
   * @throws {ManagerError} NO_SESSION if the node must open one first
   */
  async report(node: NodeRecord, report: StatusReport): Promise<StatusResponse> {
    if (!this.#sessions.has(node.id)) {
      throw new ManagerError(
        { code: 'NO_SESSION' },
        `node ${node.id} has no session: open one before reporting`,
      );
    }
    this.#liveness.heard(node.id, this.#deps.clock.nowMs());
    if (isNews(node, report)) await this.#reports.add({ nodeId: node.id, report });
    const earlyMs = Math.floor(this.#deps.random.next() * HEARTBEAT_EPSILON_MS);
    return { heartbeatMs: HEARTBEAT_MS - earlyMs };
  }

  /** Takes a node's leave. */
  async leave(nodeId: string): Promise<void> {
    const { writer, clock, log } = this.#deps;
    await writer.write((draft) => {
      const node = draft.find('nodes', nodeId);
      if (node !== undefined) releaseNode(draft, node, clock.epochMs());
    });
    this.#drop(nodeId)?.end();
    log.info({ nodeId }, 'node left');
  }

  /** Gossip has lost the node: its next heartbeat decides, instead of the third one. */
  nodeSuspected(nodeId: string): void {
    this.#liveness.suspect(nodeId);
    this.#planLivenessCheck();
  }

  /** Sends a message on a node's session; false if there is none, or it cannot take more. */
  tell(nodeId: string, message: LogSessionMessage): boolean {
    return this.#sessions.get(nodeId)?.tell(message) ?? false;
  }

  /** Whether a node's session is open. */
  hasSession(nodeId: string): boolean {
    return this.#sessions.has(nodeId);
  }

  #drop(nodeId: string): Session | undefined {
    const session = this.#sessions.get(nodeId);
    this.#sessions.delete(nodeId);
    this.#liveness.forget(nodeId);
    return session;
  }

  #planUpdate(): void {
    if (this.#cancels.has('update')) return;
    this.#plan('update', this.#deps.clock.nowMs() + ASSIGNMENT_BATCH_MS, () => {
      for (const [nodeId, session] of this.#sessions) {
        if (this.#deps.state.find('nodes', nodeId) !== undefined) session.update();
        else this.#drop(nodeId)?.end('removed');
      }
    });
  }

  #planPing(): void {
    this.#plan('ping', this.#deps.clock.nowMs() + HEARTBEAT_MS, () => {
      for (const session of this.#sessions.values()) session.ping();
      this.#planPing();
    });
  }

  #planLivenessCheck(): void {
    const deadlineMs = this.#liveness.nextDeadlineMs;
    this.#cancels.get('liveness')?.();
    this.#cancels.delete('liveness');
    if (deadlineMs !== undefined) this.#plan('liveness', deadlineMs, () => this.#markSilentNodes());
  }

  #markSilentNodes(): void {
    const { clock, writer, log } = this.#deps;
    const silent = this.#liveness.takeExpired(clock.nowMs());
    this.#planLivenessCheck();
    if (silent.length === 0) return;
    for (const nodeId of silent) {
      log.warn({ nodeId }, 'node is down: heartbeat failure');
      this.#drop(nodeId)?.end();
    }
    const marked = writer.write((draft) => {
      for (const nodeId of silent) {
        const node = draft.find('nodes', nodeId);
        // One that has come back meanwhile has a session again.
        if (node === undefined || node.state === 'down' || this.#sessions.has(nodeId)) continue;
        setNodeState(draft, node, 'down', HEARTBEAT_FAILURE, clock.epochMs());
      }
    });
    marked.catch((error: unknown) => {
      if (this.#stopped) return; // The store may be closed already.
      log.error({ err: error, silent }, 'cannot mark nodes as down, will try again');
      const retry = (): void => {
        for (const nodeId of silent) this.#liveness.expect(nodeId, clock.nowMs());
        this.#planLivenessCheck();
      };
      this.#deps.schedule(clock.nowMs() + RETRY_MS, retry);
    });
  }

  #plan(name: 'update' | 'ping' | 'liveness', atMs: number, task: () => void): void {
    if (this.#stopped) return;
    const cancel = this.#deps.schedule(atMs, () => {
      this.#cancels.delete(name);
      task();
    });
    this.#cancels.set(name, cancel);
  }
}

function removedMeanwhile(): ManagerError {
  return new ManagerError(
    { code: 'UNAUTHENTICATED' },
    'the node has been removed from the cluster',
  );
}
