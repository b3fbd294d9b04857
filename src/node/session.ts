import type { Log } from '../core/capabilities.ts';
import { HttpError } from '../io/http-client.ts';
import { ManagerClient, type NodeCredentials, splitHostPort } from '../io/manager-client.ts';
import type { GossipKeysReport } from '../manager/gossip-protocol.ts';
import type {
  AssignmentSet,
  NodeDescription,
  SessionMessage,
  StatusReport,
  TaskStatusReport,
} from '../manager/session-protocol.ts';
import { applyChange } from './assignments.ts';
import { LogAnswers, type ReadTaskLog } from './log-answers.ts';

/** Reconnection backoff, as Swarm's agent has it (swarmkit `agent/agent.go`). */
const BACKOFF_MS_MIN = 100;
const BACKOFF_MS_MAX = 8_000;
/** Status changes are gathered for this long, so that a burst is one report. */
const REPORT_DELAY_MS = 20;
/** Until a manager says otherwise. */
const HEARTBEAT_MS_DEFAULT = 5_000;
/** A session that is silent for so many heartbeats is dead: the manager pings in each. */
const SILENT_HEARTBEATS_MAX = 3;
const UNAUTHORIZED = 401;
/** Swarm's port for managers. */
export const MANAGER_PORT = 2377;

/** What a session tells its node. */
export interface SessionEvents {
  /** The whole set, each time that anything of it changes. */
  readonly assigned: (assignments: AssignmentSet) => void;
  /** A manager answers, or none does any more. */
  readonly connected: (manager: string | undefined) => void;
  /** The cluster has removed this node. */
  readonly removed: () => void;
}

/** What {@link Session} works with. */
export interface SessionDeps {
  readonly credentials: NodeCredentials;
  readonly description: NodeDescription;
  readonly log: Log;
  readonly events: SessionEvents;
  /** Statuses of all tasks of this node, for the first report of a session. */
  readonly allStatuses: () => readonly TaskStatusReport[];
  readonly portConflicts: () => StatusReport['portConflicts'];
  readonly gossipKeys: () => GossipKeysReport;
  readonly taskLog: ReadTaskLog;
}

/**
 * The node's connection to whichever manager answers: assignments come down, statuses go up. While none
 * answers it keeps trying, and the node goes on with what it knows.
 */
export class Session {
  readonly #deps: SessionDeps;
  readonly #stop = new AbortController();
  #managers: readonly string[];
  #connected: ManagerClient | undefined;
  #current: AssignmentSet | undefined;
  #heartbeatMs = HEARTBEAT_MS_DEFAULT;
  #timer: NodeJS.Timeout | undefined;
  /** Latest status of each task that changed since the last report. BOUNDED by the node's tasks. */
  readonly #changed = new Map<string, TaskStatusReport>();
  #full = true;
  /** Whether something else than tasks must be told soon. */
  #hasNews = false;
  #loop: Promise<void> = Promise.resolve();

  /** @param managers - `host:port` of those known now; a session brings the current list. */
  constructor(deps: SessionDeps, managers: readonly string[]) {
    this.#deps = deps;
    this.#managers = managers;
  }

  /** Starts to connect. Returns at once. */
  start(): void {
    this.#loop = this.#run();
  }

  /** Ends the session; statuses that were not reported yet are lost. */
  async close(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    await this.#loop;
  }

  /** Reports a task's new status as soon as a manager listens. */
  taskChanged(status: TaskStatusReport): void {
    this.#changed.set(status.taskId, status);
    this.#reportIn(REPORT_DELAY_MS);
  }

  /** Reports which keys gossip uses as soon as a manager listens. */
  gossipKeysChanged(): void {
    this.#hasNews = true;
    this.#reportIn(REPORT_DELAY_MS);
  }

  async #run(): Promise<void> {
    let backoffMs = BACKOFF_MS_MIN;
    for (let turn = 0; !this.#stop.signal.aborted; turn += 1) {
      const manager = this.#managers[turn % this.#managers.length] ?? '';
      const startedAt = performance.now();
      try {
        await this.#serve(manager);
      } catch (error) {
        if (this.#isRemoved(error)) return;
        if (this.#stop.signal.aborted) return;
        this.#deps.log.warn({ manager, error: String(error) }, 'session ended');
      } finally {
        this.#disconnected();
      }
      // A session that lasted starts the backoff anew.
      if (performance.now() - startedAt > BACKOFF_MS_MAX) backoffMs = BACKOFF_MS_MIN;
      await pause(backoffMs * (0.5 + Math.random() / 2), this.#stop.signal);
      backoffMs = Math.min(BACKOFF_MS_MAX, backoffMs * 2);
    }
  }

  async #serve(manager: string): Promise<void> {
    const { host, port } = splitHostPort(manager, MANAGER_PORT);
    const client = new ManagerClient(host, port);
    const { credentials, log, taskLog } = this.#deps;
    const logAnswers = new LogAnswers({ client, credentials, log, taskLog });
    const silence = new AbortController();
    const signal = AbortSignal.any([this.#stop.signal, silence.signal]);
    let watchdog: NodeJS.Timeout | undefined;
    const listen = (): void => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => silence.abort(), SILENT_HEARTBEATS_MAX * this.#heartbeatMs);
    };
    listen();
    try {
      for await (const message of client.session(credentials, signal)) {
        listen();
        if (message.kind === 'logs' || message.kind === 'endLogs') logAnswers.receive(message);
        else if (this.#accept(message, manager, client) === 'removed') return;
      }
    } finally {
      logAnswers.close();
      clearTimeout(watchdog);
    }
  }

  #accept(message: SessionMessage, manager: string, client: ManagerClient): 'removed' | undefined {
    if (this.#connected !== client) {
      this.#connected = client;
      this.#full = true;
      this.#deps.events.connected(manager);
      this.#reportIn(0);
    }
    return this.#receive(message);
  }

  #receive(message: SessionMessage): 'removed' | undefined {
    switch (message.kind) {
      case 'complete':
        this.#current = message.assignments;
        break;
      case 'change':
        if (this.#current === undefined) return undefined;
        this.#current = applyChange(this.#current, message.change);
        break;
      case 'removed':
        this.#stop.abort();
        this.#deps.events.removed();
        return 'removed';
      case 'superseded':
        this.#deps.log.error({}, 'another agent has taken over this node: is it started twice?');
        return undefined;
      default:
        return undefined;
    }
    this.#managers = this.#current.managers;
    this.#deps.events.assigned(this.#current);
    return undefined;
  }

  #isRemoved(error: unknown): boolean {
    if (!(error instanceof HttpError) || error.detail.code !== 'STATUS') return false;
    if (error.detail.status !== UNAUTHORIZED) return false;
    this.#stop.abort();
    this.#deps.log.error({ error: error.message }, 'the cluster does not know this node any more');
    this.#deps.events.removed();
    return true;
  }

  #disconnected(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#connected === undefined) return;
    this.#connected = undefined;
    this.#deps.events.connected(undefined);
  }

  #reportIn(delayMs: number): void {
    if (this.#connected === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#report(), delayMs);
  }

  async #report(): Promise<void> {
    const client = this.#connected;
    if (client === undefined) return;
    const full = this.#full;
    const tasks = full ? this.#deps.allStatuses() : [...this.#changed.values()];
    this.#changed.clear();
    this.#full = false;
    this.#hasNews = false;
    try {
      const response = await client.report(this.#deps.credentials, {
        tasks,
        portConflicts: this.#deps.portConflicts(),
        gossipKeys: this.#deps.gossipKeys(),
        ...(full ? { description: this.#deps.description } : {}),
      });
      this.#heartbeatMs = response.heartbeatMs;
    } catch (error) {
      if (this.#isRemoved(error)) return;
      this.#full = true; // what this report held must not be lost
      this.#deps.log.warn({ error: String(error) }, 'status report failed');
    }
    if (this.#changed.size > 0 || this.#hasNews) this.#reportIn(REPORT_DELAY_MS);
    else this.#reportIn(this.#heartbeatMs);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(finish, ms);
    function finish(): void {
      clearTimeout(timer);
      signal.removeEventListener('abort', finish);
      resolve();
    }
    signal.addEventListener('abort', finish);
    if (signal.aborted) finish();
  });
}
