import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import type { Clock, Random } from '../../src/core/capabilities.ts';
import { SILENT_LOG } from '../../src/core/capabilities.ts';
import type { Store } from '../../src/core/store.ts';
import { MemoryStore } from '../../src/io/store/memory.ts';
import { type InitClusterOptions, initCluster } from '../../src/manager/init-cluster.ts';
import { Manager, type ManagerDeps } from '../../src/manager/manager.ts';
import type { CancelSchedule, Schedule } from '../../src/manager/schedule.ts';

/** Wall-clock time at which every laboratory starts. */
const EPOCH_MS = Date.UTC(2026, 0, 1);

/** A clock that stands still until it is told to move, and the timers that hang on it. */
export class FakeTime implements Clock {
  #nowMs = 1_000;
  readonly #timers = new Map<symbol, { readonly atMs: number; readonly task: () => void }>();

  nowMs(): number {
    return this.#nowMs;
  }

  epochMs(): number {
    return EPOCH_MS + this.#nowMs;
  }

  readonly schedule: Schedule = (atMs, task): CancelSchedule => {
    const key = Symbol('timer');
    this.#timers.set(key, { atMs, task });
    return () => this.#timers.delete(key);
  };

  /** Moves on by `ms`, timer by timer, and lets everything happen that a timer sets off. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      await settle();
      const due = [...this.#timers].sort(([, a], [, b]) => a.atMs - b.atMs)[0];
      if (due === undefined || due[1].atMs > untilMs) break;
      this.#timers.delete(due[0]);
      this.#nowMs = Math.max(this.#nowMs, due[1].atMs);
      due[1].task();
    }
    this.#nowMs = untilMs;
    await settle();
  }
}

/** Lets all promises that need no time run to their end. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn += 1) await setImmediate();
}

/** Chance that a seed replays (mulberry32). */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    bytes: (length) => Uint8Array.from({ length }, () => Math.floor(next() * 256)),
  };
}

export function sha256(data: Uint8Array): Uint8Array {
  return createHash('sha256').update(data).digest();
}

/** An answer of the API: its status and its JSON. */
export interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: tests read deep into answers and check what they find.
  readonly body: any;
}

export interface LabOptions {
  readonly seed?: number;
  readonly store?: Store;
  readonly deps?: Partial<ManagerDeps>;
  readonly cluster?: Partial<InitClusterOptions>;
  readonly localNodeId?: () => string | undefined;
}

/** A manager on a fake clock and a store in memory. */
export class ManagerLab {
  readonly time: FakeTime = new FakeTime();
  readonly random: Random;
  readonly store: Store;
  readonly #options: LabOptions;
  manager: Manager;

  private constructor(options: LabOptions) {
    this.#options = options;
    this.random = seededRandom(options.seed ?? 1);
    this.store = options.store ?? new MemoryStore();
    this.manager = this.#newManager();
  }

  static async start(options: LabOptions = {}): Promise<ManagerLab> {
    const lab = new ManagerLab(options);
    const clock = lab.time;
    await initCluster(lab.store, { clock, random: lab.random, sha256, ...options.cluster });
    await lab.manager.start();
    return lab;
  }

  #newManager(): Manager {
    const deps = {
      store: this.store,
      clock: this.time,
      random: this.random,
      log: SILENT_LOG,
      sha256,
      schedule: this.time.schedule,
      ...this.#options.deps,
    };
    return new Manager(deps, {
      version: '0.1.0',
      nodeId: this.#options.localNodeId ?? (() => undefined),
      managers: () => ['192.0.2.1:2377'],
      managerPort: 2377,
    });
  }

  /** Ends the manager without warning, and starts another one on the same store. */
  async restartManager(): Promise<void> {
    this.manager.stop();
    this.manager = this.#newManager();
    await this.manager.start();
  }

  async call(method: string, path: string, body?: unknown): Promise<Answer> {
    const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
    const response = await this.manager.api.request(path, init);
    const text = await response.text();
    return { status: response.status, body: text === '' ? undefined : JSON.parse(text) };
  }

  get(path: string): Promise<Answer> {
    return this.call('GET', path);
  }

  post(path: string, body: unknown): Promise<Answer> {
    return this.call('POST', path, body);
  }

  delete(path: string): Promise<Answer> {
    return this.call('DELETE', path);
  }

  /** The tasks that are wanted now, of one service or of all. */
  async liveTasks(service?: string): Promise<Answer['body'][]> {
    const { body } = await this.get('/tasks');
    const services = service === undefined ? undefined : await this.get(`/services/${service}`);
    return body.filter(
      (task: Answer['body']) =>
        ['running', 'ready'].includes(task.DesiredState) &&
        (services === undefined || task.ServiceID === services.body.ID),
    );
  }

  stop(): void {
    this.manager.stop();
  }
}

/** The spec of a service of processes. */
export function serviceSpec(
  name: string,
  replicas: number,
  rest: {
    readonly networks?: readonly string[];
    readonly ports?: readonly object[];
    readonly task?: object;
    readonly [field: string]: unknown;
  } = {},
): Record<string, unknown> {
  const { networks, ports, task, ...fields } = rest;
  return {
    Name: name,
    Labels: { 'weft.runtime': 'process' },
    TaskTemplate: {
      ContainerSpec: { Command: ['/bin/server'], Args: ['--verbose'] },
      ...(networks === undefined ? {} : { Networks: networks.map((Target) => ({ Target })) }),
      ...task,
    },
    Mode: { Replicated: { Replicas: replicas } },
    ...(ports === undefined ? {} : { EndpointSpec: { Ports: ports } }),
    ...fields,
  };
}
