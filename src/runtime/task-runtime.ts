import type { TaskAssignment } from '../manager/session-protocol.ts';

/** How a task's process ended. */
export interface TaskExit {
  /**
   * Its exit code; 128 plus the signal's number when a signal ended it, as in a shell. Undefined when
   * nobody saw it end (the machine went down, or the supervisor was killed as well).
   */
  readonly exitCode: number | undefined;
  readonly endedAtMs: number;
}

/** How a runtime found a task's process when the agent started. */
export type FoundProcess =
  /** It never ran. */
  | { readonly state: 'prepared' }
  | { readonly state: 'running'; readonly pid: number }
  | { readonly state: 'ended'; readonly exit: TaskExit };

/** A task that has resources of an earlier agent. */
export type AdoptedTask = FoundProcess & {
  readonly taskId: string;
  /** As {@link TaskRuntime.prepare} returned it. */
  readonly netnsPath: string;
};

/** One line of a task's output. */
export interface LogRecord {
  /** When the agent read it: milliseconds since the Unix epoch. */
  readonly timestampMs: number;
  readonly stream: 'stdout' | 'stderr';
  /** The text without its newline; bytes that are not UTF-8 read as U+FFFD. */
  readonly line: string;
  /** True for a piece of a line that was too long: the next record of the stream continues it. */
  readonly partial: boolean;
}

/** Which records to read. */
export interface LogOptions {
  /** Go on with new records until the task has ended or `signal` aborts. */
  readonly follow: boolean;
  /** How many of the records at hand to begin with; undefined for all. */
  readonly tail?: number;
  readonly signal?: AbortSignal;
}

/** Why a task cannot be run. */
export type RuntimeErrorDetail =
  | { readonly code: 'COMMAND_NOT_FOUND'; readonly command: string }
  | { readonly code: 'COMMAND_NOT_EXECUTABLE'; readonly command: string }
  | { readonly code: 'DIRECTORY_NOT_FOUND'; readonly directory: string }
  | { readonly code: 'USER_NOT_FOUND'; readonly user: string }
  | { readonly code: 'BAD_SIGNAL'; readonly signal: string }
  | { readonly code: 'START_FAILED'; readonly reason: string };

/** A task that cannot be run as its service asks. The message goes to the operator as it is. */
export class RuntimeError extends Error {
  override readonly name = 'RuntimeError';
  readonly detail: RuntimeErrorDetail;

  constructor(detail: RuntimeErrorDetail, options?: ErrorOptions) {
    super(runtimeErrorMessage(detail), options);
    this.detail = detail;
  }
}

function runtimeErrorMessage(detail: RuntimeErrorDetail): string {
  switch (detail.code) {
    case 'COMMAND_NOT_FOUND':
      return `Cannot start ${JSON.stringify(detail.command)}: no such file on this node or in PATH`;
    case 'COMMAND_NOT_EXECUTABLE':
      return `Cannot start ${JSON.stringify(detail.command)}: it is not an executable file`;
    case 'DIRECTORY_NOT_FOUND':
      return `Cannot start in ${JSON.stringify(detail.directory)}: no such directory on this node`;
    case 'USER_NOT_FOUND':
      return `Cannot run as ${JSON.stringify(detail.user)}: no such user or group on this node`;
    case 'BAD_SIGNAL':
      return `Cannot stop with ${JSON.stringify(detail.signal)}: expected a signal such as SIGTERM`;
    case 'START_FAILED':
      return `Cannot start the task: ${detail.reason}`;
  }
}

/**
 * Something that runs tasks: a process, or a container of an engine. Calls for one task never
 * overlap; every call may be repeated, because an agent that was killed does not know how far it got.
 */
export interface TaskRuntime {
  /**
   * Finds the tasks that ran, or were to run, under an earlier agent. Call it first and once. It
   * changes nothing that runs.
   */
  adopt(): Promise<readonly AdoptedTask[]>;

  /**
   * Makes all that the task needs before it can start, and checks that it can.
   *
   * @returns the path of its network namespace, with its loopback up and no other interface
   * @throws {RuntimeError} if its service asks for something that this node does not have
   */
  prepare(task: TaskAssignment): Promise<string>;

  /**
   * Starts the prepared task.
   *
   * @returns the id of its first process
   * @throws {RuntimeError} if it cannot be started
   */
  start(task: TaskAssignment): Promise<number>;

  /** Resolves when a started or adopted task has ended; at once when it has already. */
  wait(taskId: string): Promise<TaskExit>;

  /**
   * Sends the task's stop signal, waits for its grace period, then kills all of it. A task that does
   * not run is left alone.
   */
  stop(task: TaskAssignment): Promise<void>;

  /** Frees what an ended task no longer needs, its network namespace above all. Its logs stay. */
  release(taskId: string): Promise<void>;

  /** Releases the task and deletes the rest of it, logs included. */
  remove(taskId: string): Promise<void>;

  /** What the task wrote, oldest first. Empty when the task is unknown. */
  logs(taskId: string, options: LogOptions): AsyncIterable<LogRecord>;

  /** Lets go of all tasks. They run on, and the next {@link TaskRuntime.adopt} finds them. */
  close(): Promise<void>;
}

/** The network side of a task: made by whoever owns the data plane. */
export interface TaskNetwork {
  /**
   * Gives the task its interfaces. Repeatable: called again for a running task after the agent
   * started anew.
   *
   * @param netnsPath - What {@link TaskRuntime.prepare} returned.
   */
  attach(task: TaskAssignment, netnsPath: string): Promise<void>;
  /**
   * Called before the stop signal: resolves when peers send no new flows to the task, or gave up
   * waiting for them.
   */
  drain(task: TaskAssignment): Promise<void>;
  /** Takes the interfaces away, after the task ended and before its namespace goes. Repeatable. */
  detach(task: TaskAssignment): Promise<void>;
}
