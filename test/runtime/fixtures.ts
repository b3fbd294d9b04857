import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../../src/core/capabilities.ts';
import { deleteNetns, listNetns, processesInNetns } from '../../src/io/linux/netns.ts';
import { killProcess } from '../../src/io/process.ts';
import type { TaskAssignment } from '../../src/manager/session-protocol.ts';
import type { LogOptions, LogRecord, TaskRuntime } from '../../src/runtime/task-runtime.ts';

export const SYSTEM_CLOCK: Clock = { nowMs: () => performance.now(), epochMs: () => Date.now() };

/** A place for one test: a directory and a prefix for namespaces, both removed with all in them. */
export interface Scratch {
  readonly directory: string;
  readonly netnsPrefix: string;
}

/** Makes a scratch; everything that lives in its namespaces is killed when the test ends. */
export async function scratch(t: { teardown(fn: () => Promise<void>): void }): Promise<Scratch> {
  const directory = await mkdtemp(join(tmpdir(), 'weft-test-'));
  const netnsPrefix = `weft-t${randomBytes(4).toString('hex')}-`;
  t.teardown(async () => {
    for (const name of await listNetns(netnsPrefix)) {
      for (const pid of await processesInNetns(name)) killProcess(pid);
      await deleteNetns(name);
    }
    await rm(directory, { recursive: true, force: true });
  });
  return { directory, netnsPrefix };
}

let lastTask = 0;

/** A task that runs a shell script. */
export function shellTask(script: string, overrides: Partial<TaskAssignment> = {}): TaskAssignment {
  lastTask += 1;
  const id = `task${lastTask}`;
  return {
    id,
    serviceId: 'service1',
    serviceName: 'web',
    slot: 1,
    name: `web.1.${id}`,
    desiredState: 'running',
    runtime: 'process',
    argv: ['sh', '-c', script],
    env: [],
    stopSignal: 'SIGTERM',
    stopGraceMs: 10_000,
    attachments: [],
    ...overrides,
  };
}

/** All that a task wrote so far. */
export async function logRecords(
  runtime: TaskRuntime,
  taskId: string,
  options: LogOptions = { follow: false },
): Promise<LogRecord[]> {
  const records: LogRecord[] = [];
  for await (const record of runtime.logs(taskId, options)) records.push(record);
  return records;
}

/** Waits until a task writes `line` to standard output. */
export async function untilLogged(
  runtime: TaskRuntime,
  taskId: string,
  line: string,
): Promise<void> {
  for await (const record of runtime.logs(taskId, { follow: true })) {
    if (record.line === line) return;
  }
  throw new Error(`Task ${taskId} ended without writing ${JSON.stringify(line)}`);
}
