import { execFile, spawn } from 'node:child_process';
import { constants as fsConstants } from 'node:fs';
import { access, readFile, stat } from 'node:fs/promises';
import { constants as osConstants } from 'node:os';
import { resolve } from 'node:path';

/** Where system programs are looked for: Debian's root PATH, whatever the agent was started with. */
export const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** A program of the system that takes longer hangs: `ip` and `nft` need milliseconds. */
const RUN_TIMEOUT_MS = 10_000;
/** More output than this is a mistake of ours: `ip -j` prints about 500 bytes per interface. */
const RUN_OUTPUT_BYTES_MAX = 16 * 1024 * 1024;

/** Why a program did not do its work. */
export type CommandErrorDetail =
  | { readonly code: 'COMMAND_NOT_FOUND' }
  | { readonly code: 'COMMAND_TIMED_OUT'; readonly timeoutMs: number }
  /** `exitCode` is null when a signal ended the program. */
  | { readonly code: 'COMMAND_FAILED'; readonly exitCode: number | null; readonly stderr: string };

/** A program of the system that did not do what it was asked for. Match on `detail.code`. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  /** The argument vector as one line. */
  readonly command: string;
  readonly detail: CommandErrorDetail;

  constructor(command: string, detail: CommandErrorDetail, cause: unknown) {
    super(`Cannot run \`${command}\`: ${describeDetail(detail)}`, { cause });
    this.command = command;
    this.detail = detail;
  }
}

function describeDetail(detail: CommandErrorDetail): string {
  if (detail.code === 'COMMAND_NOT_FOUND') return `no such program in ${SYSTEM_PATH}`;
  if (detail.code === 'COMMAND_TIMED_OUT') return `it did not end within ${detail.timeoutMs} ms`;
  const status = detail.exitCode === null ? 'a signal ended it' : `exit code ${detail.exitCode}`;
  return detail.stderr === '' ? status : `${detail.stderr} (${status})`;
}

/** How to run a program. */
export interface RunOptions {
  /** Written to standard input, which is empty otherwise. */
  readonly input?: string;
}

/**
 * Runs a program to its end and returns what it printed. {@link runCommand} is the real one;
 * {@link withPrefix} makes one that works in another namespace.
 */
export type RunCommand = (argv: readonly string[], options?: RunOptions) => Promise<string>;

/**
 * Runs a program without a shell, in the C locale, for at most 10 s.
 *
 * @param argv - The program, looked up in {@link SYSTEM_PATH}, and its arguments.
 * @returns its standard output
 * @throws {CommandError} if it is missing, fails or hangs; `stderr` holds what it said
 */
export function runCommand(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const [program = '', ...args] = argv;
  const command = argv.join(' ');
  return new Promise((fulfil, reject) => {
    const child = execFile(
      program,
      args,
      {
        env: { PATH: SYSTEM_PATH, LC_ALL: 'C' },
        timeout: RUN_TIMEOUT_MS,
        killSignal: 'SIGKILL',
        maxBuffer: RUN_OUTPUT_BYTES_MAX,
      },
      (error, stdout, stderr) => {
        if (error === null) fulfil(stdout);
        else reject(new CommandError(command, commandErrorDetail(error, stderr), error));
      },
    );
    // A program that ends without reading its input is judged by its exit code, not by EPIPE.
    child.stdin?.on('error', () => {});
    child.stdin?.end(options.input ?? '');
  });
}

function commandErrorDetail(
  error: { code?: string | number | null; killed?: boolean },
  stderr: string,
): CommandErrorDetail {
  if (error.code === 'ENOENT') return { code: 'COMMAND_NOT_FOUND' };
  if (error.killed === true && typeof error.code !== 'string') {
    return { code: 'COMMAND_TIMED_OUT', timeoutMs: RUN_TIMEOUT_MS };
  }
  const exitCode = typeof error.code === 'number' ? error.code : null;
  const said = stderr.trim() || (typeof error.code === 'string' ? error.code : '');
  return { code: 'COMMAND_FAILED', exitCode, stderr: said };
}

/**
 * Puts `prefix` in front of every command.
 *
 * @param prefix - For instance `nsenter --net=/run/netns/x`.
 */
export function withPrefix(run: RunCommand, prefix: readonly string[]): RunCommand {
  return (argv, options) => run([...prefix, ...argv], options);
}

/**
 * Finds `program` as execvp(3) does.
 *
 * @param program - A name to look for in `path`, or a path when it holds a slash.
 * @param path - Directories separated by colons, as in PATH.
 * @param directory - What relative paths are relative to.
 * @returns its path, or why it cannot be run
 */
export async function findExecutable(
  program: string,
  path: string,
  directory: string,
): Promise<
  | { readonly found: true; readonly path: string }
  | { readonly found: false; readonly reason: 'missing' | 'not-executable' }
> {
  const candidates = program.includes('/')
    ? [program]
    : path.split(':').map((entry) => `${entry === '' ? '.' : entry}/${program}`);
  let reason: 'missing' | 'not-executable' = 'missing';
  for (const candidate of program === '' ? [] : candidates) {
    const file = resolve(directory, candidate);
    const stats = await stat(file).catch(() => undefined);
    if (stats === undefined) continue;
    const isExecutable =
      stats.isFile() &&
      (await access(file, fsConstants.X_OK).then(
        () => true,
        () => false,
      ));
    if (isExecutable) return { found: true, path: file };
    reason = 'not-executable';
  }
  return { found: false, reason };
}

/** How to start a process that outlives this one. */
export interface DetachedOptions {
  readonly directory: string;
  /** The whole environment: nothing is inherited. */
  readonly env: Readonly<Record<string, string>>;
  /** Descriptors that become standard output and error; the caller closes its own copies. */
  readonly stdout: number;
  readonly stderr: number;
  /** Standard input in place of /dev/null. */
  readonly stdin?: number;
  /** What it has as descriptors 3, 4 and so on. */
  readonly more?: readonly number[];
}

/** A process in a session of its own. */
export interface DetachedProcess {
  readonly pid: number;
  /** Resolves when it has ended; never rejects, and never if this process ends first. */
  readonly ended: Promise<void>;
}

/**
 * Starts a process in a session of its own, with nothing that ties it to this one but the descriptors
 * it is given: no terminal, standard input from /dev/null. It goes on when this process is killed.
 *
 * @param argv - The program as an absolute path, and its arguments.
 * @throws {Error} the operating system's error if the process cannot be made
 */
export function spawnDetached(
  argv: readonly string[],
  options: DetachedOptions,
): Promise<DetachedProcess> {
  const [program = '', ...args] = argv;
  const child = spawn(program, args, {
    cwd: options.directory,
    env: options.env,
    detached: true,
    stdio: [options.stdin ?? 'ignore', options.stdout, options.stderr, ...(options.more ?? [])],
  });
  const ended = new Promise<void>((fulfil) => {
    child.once('exit', () => fulfil());
  });
  return new Promise((fulfil, reject) => {
    child.once('error', reject);
    child.once('spawn', () => {
      child.unref();
      fulfil({ pid: child.pid ?? 0, ended });
    });
  });
}

/**
 * A process beyond doubt: a process id is reused, but not together with its start time within one
 * boot of the machine.
 */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks from boot to its start: field 22 of /proc/PID/stat (proc(5)). */
  readonly startTicks: number;
  /** /proc/sys/kernel/random/boot_id. */
  readonly bootId: string;
}

/** What {@link parseProcessStat} reads. */
export interface ProcessStat {
  /** One letter: R, S, D, Z (zombie) and so on. */
  readonly state: string;
  readonly startTicks: number;
}

/**
 * Reads a line of /proc/PID/stat. The name in it may hold spaces and parentheses, so fields count
 * from the last closing one.
 */
export function parseProcessStat(line: string): ProcessStat | undefined {
  const fields = line.slice(line.lastIndexOf(')') + 2).split(' ');
  const [state = ''] = fields; // field 3; so field 22 has index 19
  const startTicks = Number(fields[19]);
  return state === '' || !Number.isInteger(startTicks) ? undefined : { state, startTicks };
}

let bootId: Promise<string> | undefined;

/** The identifier of this boot of the machine, which no process outlives. */
export function readBootId(): Promise<string> {
  bootId ??= readFile('/proc/sys/kernel/random/boot_id', 'utf8').then((text) => text.trim());
  return bootId;
}

/** Whether that very process still runs. A zombie has ended. */
export async function isRunning(identity: ProcessIdentity): Promise<boolean> {
  if (identity.bootId !== (await readBootId())) return false;
  const line = await readFile(`/proc/${identity.pid}/stat`, 'utf8').catch(() => '');
  const now = parseProcessStat(line);
  return now !== undefined && now.startTicks === identity.startTicks && !/[ZX]/.test(now.state);
}

/**
 * Sends a signal to that very process, if it still runs.
 *
 * @param signal - Such as SIGTERM.
 * @returns false if the process has ended
 * @throws {RangeError} if this system has no such signal
 */
export async function signalProcess(identity: ProcessIdentity, signal: string): Promise<boolean> {
  const name = toSignal(signal);
  return (await isRunning(identity)) && sendSignal(identity.pid, name);
}

/** Kills (SIGKILL) a process by its number. @returns false if there is no such process */
export function killProcess(pid: number): boolean {
  return sendSignal(pid, 'SIGKILL');
}

function sendSignal(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

/**
 * Checks a signal's name.
 *
 * @throws {RangeError} if this system has no such signal
 */
export function toSignal(name: string): NodeJS.Signals {
  if (!Object.hasOwn(osConstants.signals, name)) {
    throw new RangeError(
      `Cannot use ${JSON.stringify(name)} as a signal: expected a name such as SIGTERM`,
    );
  }
  return name as NodeJS.Signals;
}
