import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../core/capabilities.ts';
import { isRunning, type ProcessIdentity } from '../io/process.ts';
import { EXIT_FILE, PROCESS_FILE, parseExitFile, parseProcessFile } from './supervisor.ts';
import type { TaskExit } from './task-runtime.ts';

/** How often a process is looked at whose supervisor may have died without a word. */
const LIVENESS_INTERVAL_MS = 1_000;

/** How long a supervisor may take to write down an end; it needs milliseconds. The second look decides. */
const EXIT_FILE_GRACE_MS = 900;

/** Reads who a task's process is. @returns undefined if it was never started */
export async function readProcessFile(directory: string): Promise<ProcessIdentity | undefined> {
  const text = await readFile(join(directory, PROCESS_FILE), 'utf8').catch(() => '');
  return parseProcessFile(text);
}

/** Reads how a task ended from its state directory. @returns undefined if it has not */
export async function readExit(directory: string): Promise<TaskExit | undefined> {
  const file = join(directory, EXIT_FILE);
  const exitCode = parseExitFile(await readFile(file, 'utf8').catch(() => ''));
  const stats = await stat(file).catch(() => undefined);
  if (exitCode === undefined || stats === undefined) return undefined;
  return { exitCode, endedAtMs: Math.round(stats.mtimeMs) };
}

/**
 * Notices the end of a task's process, the agent's own child or an earlier agent's: at once through
 * {@link ExitWatch.check}, and within seconds should its supervisor have been killed.
 */
export class ExitWatch {
  /** Resolves when the process has ended; never rejects, and never after {@link ExitWatch.close}. */
  readonly exit: Promise<TaskExit>;
  readonly #clock: Clock;
  readonly #directory: string;
  readonly #identity: ProcessIdentity;
  readonly #timer: NodeJS.Timeout;
  #resolve: (exit: TaskExit) => void = () => {};
  #isClosed = false;
  #goneSinceMs: number | undefined;

  constructor(deps: { readonly clock: Clock }, directory: string, identity: ProcessIdentity) {
    this.#clock = deps.clock;
    this.#directory = directory;
    this.#identity = identity;
    this.exit = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.#timer = setInterval(() => void this.check(), LIVENESS_INTERVAL_MS);
  }

  /** Looks now. Call it whenever the state directory changed. */
  async check(): Promise<void> {
    // The exit file comes after the end of the process, so it is worth a look only then.
    if (this.#isClosed || (await isRunning(this.#identity))) return;
    const exit = await readExit(this.#directory);
    if (exit === undefined) this.#onGoneSilently();
    else this.#finish(exit);
  }

  #onGoneSilently(): void {
    const nowMs = this.#clock.nowMs();
    this.#goneSinceMs ??= nowMs;
    if (nowMs - this.#goneSinceMs < EXIT_FILE_GRACE_MS) return;
    this.#finish({ exitCode: undefined, endedAtMs: this.#clock.epochMs() });
  }

  #finish(exit: TaskExit): void {
    this.close();
    this.#resolve(exit);
  }

  /** Stops looking. */
  close(): void {
    this.#isClosed = true;
    clearInterval(this.#timer);
  }
}
