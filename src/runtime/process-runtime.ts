import { type FSWatcher, watch } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock, Log } from '../core/capabilities.ts';
import { invariant } from '../core/invariant.ts';
import {
  createNetns,
  deleteNetns,
  NETNS_PREFIX,
  netnsPath,
  processesInNetns,
} from '../io/linux/netns.ts';
import {
  isRunning,
  killProcess,
  type ProcessIdentity,
  readBootId,
  runCommand,
  signalProcess,
  spawnDetached,
} from '../io/process.ts';
import type { TaskAssignment } from '../manager/session-protocol.ts';
import { ExitWatch, readExit, readProcessFile } from './exit-watch.ts';
import { openOutput } from './output-file.ts';
import { type SupervisorTools, supervisorLaunch } from './supervisor.ts';
import { findSupervisorTools, resolveTaskEnvironment } from './task-environment.ts';
import { DEFAULT_LOG_LIMITS, type LogLimits, TaskLog } from './task-log.ts';
import {
  type AdoptedTask,
  type FoundProcess,
  type LogOptions,
  type LogRecord,
  RuntimeError,
  type TaskExit,
  type TaskRuntime,
} from './task-runtime.ts';

/** A killed process is gone within a scheduler tick; one in uninterruptible sleep may never be. */
const KILL_ROUNDS_MAX = 50;
const KILL_ROUND_MS = 20;

/** How soon to look for what a directory watch ought to have told. */
const LOOK_AGAIN_MS = 1_000;

/** Node's longest timer; a longer one would fire at once. 24 days. */
const TIMER_MS_MAX = 0x7fff_ffff;

/** What a {@link ProcessRuntime} needs. */
export interface ProcessRuntimeDeps {
  readonly clock: Clock;
  readonly log: Log;
}

/** Where a {@link ProcessRuntime} keeps its tasks. */
export interface ProcessRuntimeOptions {
  /** Holds one directory per task; survives the agent. Two agents never share one. */
  readonly stateDirectory: string;
  /** What the tasks' namespaces are named by, followed by the task's id. Default `weft-`. */
  readonly netnsPrefix?: string;
  /** Default {@link DEFAULT_LOG_LIMITS}. */
  readonly logLimits?: LogLimits;
}

/** What is known of a task that has resources. */
interface TaskHandle {
  readonly directory: string;
  readonly netns: string;
  readonly log: TaskLog;
  readonly watcher: FSWatcher;
  identity: ProcessIdentity | undefined;
  watch: ExitWatch | undefined;
  /** Set as soon as there is a process. */
  exit: Promise<TaskExit> | undefined;
}

/**
 * Runs tasks as processes of the host, each in a network namespace of its own. Nothing of a task
 * depends on the agent's life: a supervisor ({@link supervisorLaunch}) is its parent, its output goes to
 * files, and everything to find it again lies in its state directory.
 */
export class ProcessRuntime implements TaskRuntime {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #options: ProcessRuntimeOptions;
  /** By task id. BOUNDED by the tasks that are assigned to this node. */
  readonly #tasks = new Map<string, TaskHandle>();
  #tools: SupervisorTools | undefined;

  constructor(deps: ProcessRuntimeDeps, options: ProcessRuntimeOptions) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#options = options;
  }

  /** See {@link TaskRuntime.adopt}. */
  async adopt(): Promise<readonly AdoptedTask[]> {
    await mkdir(this.#options.stateDirectory, { recursive: true, mode: 0o700 });
    const taskIds = (await readdir(this.#options.stateDirectory)).sort();
    return await Promise.all(taskIds.map((taskId) => this.#adoptTask(taskId)));
  }

  async #adoptTask(taskId: string): Promise<AdoptedTask> {
    const handle = await this.#open(taskId);
    const found = await this.#findProcess(handle);
    return { taskId, netnsPath: netnsPath(handle.netns), ...found };
  }

  async #findProcess(handle: TaskHandle): Promise<FoundProcess> {
    const identity = await readProcessFile(handle.directory);
    const ended = await readExit(handle.directory);
    if (ended !== undefined) {
      handle.exit = Promise.resolve(ended);
      return { state: 'ended', exit: ended };
    }
    if (identity === undefined) return { state: 'prepared' };
    if (identity.bootId !== (await readBootId())) {
      const exit = { exitCode: undefined, endedAtMs: this.#clock.epochMs() };
      handle.exit = Promise.resolve(exit);
      return { state: 'ended', exit };
    }
    const exit = this.#follow(handle, identity);
    if (await isRunning(identity)) return { state: 'running', pid: identity.pid };
    return { state: 'ended', exit: await exit };
  }

  /** See {@link TaskRuntime.prepare}. */
  async prepare(task: TaskAssignment): Promise<string> {
    await resolveTaskEnvironment(task, runCommand);
    // The directory first: it is how a later agent finds the namespace.
    const { netns } = await this.#open(task.id);
    await createNetns(netns);
    return netnsPath(netns);
  }

  /** See {@link TaskRuntime.start}. */
  async start(task: TaskAssignment): Promise<number> {
    const handle = this.#require(task.id);
    invariant(handle.exit === undefined, `task ${task.id} is started once`);
    this.#tools ??= await findSupervisorTools();
    const { credentials, directory, env } = await resolveTaskEnvironment(task, runCommand);
    const launch = supervisorLaunch(this.#tools, {
      stateDirectory: handle.directory,
      netnsPath: netnsPath(handle.netns),
      argv: task.argv,
      credentials,
      env,
    });
    const stdout = await openOutput(join(handle.directory, 'stdout'), credentials);
    const stderr = await openOutput(join(handle.directory, 'stderr'), credentials);
    try {
      const descriptors = { stdout: stdout.fd, stderr: stderr.fd };
      const supervisor = await spawnDetached(launch.argv, {
        ...descriptors,
        directory,
        env: launch.env,
      });
      const identity = await this.#awaitProcess(handle, supervisor.ended);
      void this.#follow(handle, identity);
      void supervisor.ended.then(() => handle.watch?.check());
      return identity.pid;
    } catch (error) {
      if (error instanceof RuntimeError) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      throw new RuntimeError({ code: 'START_FAILED', reason }, { cause: error });
    } finally {
      await Promise.all([stdout.close(), stderr.close()]);
    }
  }

  /** Waits for the supervisor to name the process that it started. */
  async #awaitProcess(handle: TaskHandle, ended: Promise<void>): Promise<ProcessIdentity> {
    let hasEnded = false;
    void ended.then(() => {
      hasEnded = true;
    });
    for (;;) {
      // The promise first: the file may appear between a look and the wait.
      const change = new Promise<void>((resolve) => handle.watcher.once('change', () => resolve()));
      const wasEnded = hasEnded;
      const identity = await readProcessFile(handle.directory);
      if (identity !== undefined) return identity;
      if (wasEnded) {
        throw new RuntimeError({ code: 'START_FAILED', reason: 'its supervisor ended at once' });
      }
      // Should the watch miss it.
      const lookAgain = delay(LOOK_AGAIN_MS);
      await Promise.race([change, ended, lookAgain]);
    }
  }

  /** See {@link TaskRuntime.wait}. */
  wait(taskId: string): Promise<TaskExit> {
    const { exit } = this.#require(taskId);
    invariant(exit !== undefined, `task ${taskId} was started before it is waited for`);
    return exit;
  }

  /** See {@link TaskRuntime.stop}. */
  async stop(task: TaskAssignment): Promise<void> {
    const handle = this.#tasks.get(task.id);
    if (handle === undefined) return;
    const { exit, identity } = handle;
    if (exit !== undefined && identity !== undefined) {
      if (await signalProcess(identity, task.stopSignal)) {
        const grace = new AbortController();
        const graceMs = Math.min(task.stopGraceMs, TIMER_MS_MAX);
        const timer = delay(graceMs, undefined, { signal: grace.signal }).catch(() => {});
        await Promise.race([exit, timer]);
        grace.abort();
        // Should it have left its namespace, where all others are found.
        await signalProcess(identity, 'SIGKILL');
      }
    }
    await this.#killAll(handle);
    await exit;
  }

  /** Kills whatever lives in the task's namespace: children may have left its session. */
  async #killAll(handle: TaskHandle): Promise<void> {
    for (let round = 0; round < KILL_ROUNDS_MAX; round += 1) {
      const pids = await processesInNetns(handle.netns);
      if (pids.length === 0) return;
      for (const pid of pids) killProcess(pid);
      await delay(KILL_ROUND_MS);
    }
    this.#log.warn({ netns: handle.netns }, 'processes of an ended task cannot be killed');
  }

  /** See {@link TaskRuntime.release}. */
  async release(taskId: string): Promise<void> {
    const handle = this.#tasks.get(taskId);
    if (handle === undefined) return;
    await this.#killAll(handle);
    handle.watch?.close();
    handle.watcher.close();
    await handle.log.finish();
    await deleteNetns(handle.netns);
  }

  /** See {@link TaskRuntime.remove}. */
  async remove(taskId: string): Promise<void> {
    await this.release(taskId);
    await this.#tasks.get(taskId)?.log.close();
    await rm(this.#directory(taskId), { recursive: true, force: true });
    this.#tasks.delete(taskId);
  }

  /** See {@link TaskRuntime.logs}. */
  async *logs(taskId: string, options: LogOptions): AsyncGenerator<LogRecord, void, undefined> {
    const handle = this.#tasks.get(taskId);
    if (handle !== undefined) yield* handle.log.read(options);
  }

  /** See {@link TaskRuntime.close}. */
  async close(): Promise<void> {
    for (const handle of this.#tasks.values()) {
      handle.watch?.close();
      handle.watcher.close();
      await handle.log.close();
    }
    this.#tasks.clear();
  }

  #require(taskId: string): TaskHandle {
    const handle = this.#tasks.get(taskId);
    invariant(handle !== undefined, `task ${taskId} was prepared or adopted before it is used`);
    return handle;
  }

  #directory(taskId: string): string {
    // It becomes a path and the name of a namespace.
    invariant(
      /^[A-Za-z0-9_-]+$/.test(taskId),
      `a task id is a word, not ${JSON.stringify(taskId)}`,
    );
    return join(this.#options.stateDirectory, taskId);
  }

  async #open(taskId: string): Promise<TaskHandle> {
    const known = this.#tasks.get(taskId);
    if (known !== undefined) return known;
    const directory = this.#directory(taskId);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const deps = { clock: this.#clock, log: this.#log, run: runCommand };
    const log = new TaskLog(deps, directory, this.#options.logLimits ?? DEFAULT_LOG_LIMITS);
    await log.recover();
    const handle: TaskHandle = {
      directory,
      netns: `${this.#options.netnsPrefix ?? NETNS_PREFIX}${taskId}`,
      log,
      watcher: watch(directory),
      identity: undefined,
      watch: undefined,
      exit: undefined,
    };
    handle.watcher.on('change', (_event, name) => {
      if (name === 'stdout' || name === 'stderr') log.poke();
      else void handle.watch?.check();
    });
    // The directory is gone or the watch is refused: the periodic look of ExitWatch remains.
    handle.watcher.on('error', (error) => {
      this.#log.warn({ error, directory }, 'a task directory cannot be watched');
    });
    this.#tasks.set(taskId, handle);
    return handle;
  }

  #follow(handle: TaskHandle, identity: ProcessIdentity): Promise<TaskExit> {
    const exitWatch = new ExitWatch({ clock: this.#clock }, handle.directory, identity);
    handle.identity = identity;
    handle.watch = exitWatch;
    handle.exit = exitWatch.exit;
    const { log } = handle;
    log.poke();
    void exitWatch.check();
    return exitWatch.exit;
  }
}
