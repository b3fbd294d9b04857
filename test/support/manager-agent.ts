import type { GossipKeysReport } from '../../src/manager/gossip-protocol.ts';
import type {
  AssignmentSet,
  JoinResponse,
  SessionMessage,
  StatusReport,
  TaskAssignment,
  TaskState,
  TaskStatusReport,
} from '../../src/manager/session-protocol.ts';
import { type Answer, type ManagerLab, settle } from './manager-lab.ts';

/** What a simulated agent makes of a task that it is to run: the states that it reports. */
export type Behaviour = (task: TaskAssignment) => readonly TaskState[];

const FINISHED: ReadonlySet<TaskState> = new Set(['complete', 'shutdown', 'failed', 'rejected']);
const RUNS: Behaviour = () => ['accepted', 'preparing', 'starting', 'running'];

/** An agent without a host: it consumes its assignments and reports what `behaviour` says. */
export class FakeAgent {
  readonly lab: ManagerLab;
  readonly hostname: string;
  readonly identity: JoinResponse;
  behaviour: Behaviour = RUNS;
  /** Whether tasks that are to be shut down stop at once. */
  stopsTasks = true;
  /** Whether it holds the keys of gossip that it is told, and says so. */
  confirmsKeys = false;
  /** What it has said of them. */
  gossipKeys: GossipKeysReport | undefined;
  assignments: AssignmentSet | undefined;
  readonly messages: SessionMessage[] = [];
  /** What it has reported of each task. */
  readonly states: Map<string, TaskState> = new Map();
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  #isConnected = false;
  #cancelHeartbeat = (): void => {};

  private constructor(lab: ManagerLab, hostname: string, identity: JoinResponse) {
    this.lab = lab;
    this.hostname = hostname;
    this.identity = identity;
  }

  /** Joins and opens a session. @param fields - Of the request to join, if not the usual ones. */
  static async join(
    lab: ManagerLab,
    hostname: string,
    role = 'worker',
    fields: Readonly<Record<string, unknown>> = {},
  ): Promise<FakeAgent> {
    const tokens = lab.manager.joinTokens();
    const answer = await joinRequest(lab, {
      token: role === 'manager' ? tokens.manager : tokens.worker,
      hostname,
      ...fields,
    });
    if (answer.status !== 200) throw new Error(`Cannot join: ${answer.body.message}`);
    const agent = new FakeAgent(lab, hostname, answer.body);
    await agent.connect();
    return agent;
  }

  get id(): string {
    return this.identity.nodeId;
  }

  get isConnected(): boolean {
    return this.#isConnected;
  }

  get authorization(): string {
    return `Bearer ${this.identity.nodeId}.${this.identity.nodeSecret}`;
  }

  /** Opens a session and starts to send heartbeats. */
  async connect(): Promise<number> {
    const response = await this.request('GET', '/weft/v1/session');
    if (response.status !== 200 || response.body === null) return response.status;
    this.#reader = response.body.getReader();
    this.#isConnected = true;
    void this.#follow(this.#reader);
    this.#beat();
    await settle();
    return 200;
  }

  /** Falls silent, as a host does that loses its power. */
  kill(): void {
    this.#isConnected = false;
    this.#cancelHeartbeat();
    void this.#reader?.cancel();
  }

  /** Falls silent while the connection seems to stay, as behind a cut cable. */
  freeze(): void {
    this.#isConnected = false;
    this.#cancelHeartbeat();
  }

  async request(method: string, path: string, body?: unknown): Promise<Response> {
    const headers = { authorization: this.authorization };
    const init = body === undefined ? {} : { body: JSON.stringify(body) };
    return await this.lab.manager.sessionApi.request(path, { method, headers, ...init });
  }

  async report(
    tasks: readonly TaskStatusReport[],
    rest?: Partial<StatusReport>,
  ): Promise<Response> {
    const keys = this.gossipKeys === undefined ? {} : { gossipKeys: this.gossipKeys };
    const usual = { tasks, portConflicts: [], ...keys };
    return await this.request('POST', '/weft/v1/status', { ...usual, ...rest });
  }

  /** Reports one task's state. */
  async reportState(taskId: string, state: TaskState, error?: string): Promise<void> {
    this.states.set(taskId, state);
    const timestampMs = this.lab.time.epochMs();
    const status = { taskId, state, message: state, timestampMs };
    await this.report([error === undefined ? status : { ...status, error }]);
  }

  /** The tasks that it is to run. */
  get running(): TaskAssignment[] {
    return (this.assignments?.tasks ?? []).filter((task) => task.desiredState === 'running');
  }

  async #follow(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    let text = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (!this.#isConnected || done) break;
      text += decoder.decode(value, { stream: true });
      const lines = text.split('\n');
      text = lines.pop() ?? '';
      for (const line of lines) this.#take(JSON.parse(line));
      await this.react();
    }
    if (this.#reader === reader) this.#isConnected = false;
  }

  #take(message: SessionMessage): void {
    this.messages.push(message);
    if (message.kind === 'complete') this.assignments = message.assignments;
    if (message.kind !== 'change' || this.assignments === undefined) return;
    const { change } = message;
    this.assignments = {
      ...this.assignments,
      networks: merge(this.assignments.networks, change.networks, change.removedNetworks),
      services: merge(this.assignments.services, change.services, change.removedServices),
      tasks: merge(this.assignments.tasks, change.tasks, change.removedTasks),
      nodes: merge(this.assignments.nodes, change.nodes, change.removedNodes),
      managers: change.managers,
      gossipSeeds: change.gossipSeeds,
      ...(change.gossip === undefined ? {} : { gossip: change.gossip }),
      ...(change.gossipKeys === undefined ? {} : { gossipKeys: change.gossipKeys }),
    };
  }

  /** Brings its tasks to what is wanted of them. */
  async react(): Promise<void> {
    await this.#confirmKeys();
    for (const task of this.assignments?.tasks ?? []) {
      const state = this.states.get(task.id);
      if (task.desiredState === 'running' && state === undefined) {
        for (const next of this.behaviour(task)) await this.reportState(task.id, next);
      } else if (task.desiredState !== 'running' && this.stopsTasks) {
        if (state === undefined || !FINISHED.has(state))
          await this.reportState(task.id, 'shutdown');
      }
    }
  }

  async #confirmKeys(): Promise<void> {
    if (!this.confirmsKeys) return;
    const { mode = 'accept', keys = [] } = this.assignments?.gossipKeys ?? {};
    const report = { mode, ids: keys.map(({ id }) => id) };
    if (JSON.stringify(report) === JSON.stringify(this.gossipKeys)) return;
    this.gossipKeys = report;
    await this.report([]);
  }

  #beat(): void {
    this.#cancelHeartbeat();
    this.#cancelHeartbeat = this.lab.time.schedule(this.lab.time.nowMs() + 5_000, () => {
      if (!this.#isConnected) return;
      void this.report([]);
      this.#beat();
    });
  }
}

function merge<T extends { readonly id: string }>(
  before: readonly T[],
  changed: readonly T[],
  removed: readonly string[],
): T[] {
  const all = new Map(before.map((item) => [item.id, item]));
  for (const id of removed) all.delete(id);
  for (const item of changed) all.set(item.id, item);
  return [...all.values()];
}

let nextHost = 10;

/** Asks to join with what a host says about itself; fields may be set otherwise. */
export async function joinRequest(
  lab: ManagerLab,
  fields: { readonly token: string; readonly hostname?: string; readonly [field: string]: unknown },
): Promise<Answer> {
  const { hostname = 'host', ...rest } = fields;
  nextHost += 1;
  const response = await lab.manager.sessionApi.request('/weft/v1/join', {
    method: 'POST',
    body: JSON.stringify({
      description: {
        hostname,
        platform: { architecture: 'x86_64', os: 'linux' },
        resources: { nanoCpus: 2e9, memoryBytes: 2 ** 32 },
        agentVersion: '0.1.0',
      },
      advertiseAddress: `192.0.2.${nextHost % 250}`,
      gossipPort: 7946,
      availability: 'active',
      ...rest,
    }),
  });
  return { status: response.status, body: await response.json() };
}
