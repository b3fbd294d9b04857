import { stat } from 'node:fs/promises';
import {
  CommandError,
  findExecutable,
  type RunCommand,
  SYSTEM_PATH,
  toSignal,
} from '../io/process.ts';
import type { TaskAssignment } from '../manager/session-protocol.ts';
import type { Credentials, SupervisorTools } from './supervisor.ts';
import { RuntimeError } from './task-runtime.ts';

/** What a task needs of this node, found and checked. */
export interface TaskEnvironment {
  readonly directory: string;
  /** Undefined: the agent's own user, root. */
  readonly credentials: Credentials | undefined;
  readonly env: Readonly<Record<string, string>>;
}

/** Docker's default for a container without a name of its own: the start of its id. */
const HOSTNAME_CHARACTERS = 12;

/**
 * Checks that this node has what the task asks for, so that a mistake in a service is named instead
 * of being an exit code.
 *
 * @param run - Looks up users, with `getent`, which knows LDAP and the like too.
 * @throws {RuntimeError} naming the first thing that is missing
 */
export async function resolveTaskEnvironment(
  task: TaskAssignment,
  run: RunCommand,
): Promise<TaskEnvironment> {
  const directory = task.directory ?? '/';
  const isDirectory = await stat(directory).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
  if (!isDirectory) throw new RuntimeError({ code: 'DIRECTORY_NOT_FOUND', directory });
  try {
    toSignal(task.stopSignal);
  } catch (error) {
    throw new RuntimeError({ code: 'BAD_SIGNAL', signal: task.stopSignal }, { cause: error });
  }
  const credentials = task.user === undefined ? undefined : await findUser(task.user, run);
  const env = taskVariables(task, credentials?.home ?? '/root');
  const { PATH: path = SYSTEM_PATH } = env;
  await requireExecutable(task.argv[0] ?? '', path, directory);
  return { directory, credentials, env };
}

async function requireExecutable(command: string, path: string, directory: string): Promise<void> {
  const executable = await findExecutable(command, path, directory);
  if (executable.found) return;
  const isMissing = executable.reason === 'missing';
  throw new RuntimeError({
    code: isMissing ? 'COMMAND_NOT_FOUND' : 'COMMAND_NOT_EXECUTABLE',
    command,
  });
}

/**
 * A task's variables: nothing of the agent's own. What the service sets wins over the defaults; who
 * the task is cannot be overridden.
 *
 * @param home - Home directory of the task's user.
 */
export function taskVariables(task: TaskAssignment, home: string): Record<string, string> {
  const given = task.env.map((line): [string, string] => {
    const at = line.indexOf('=');
    // As in Docker, a bare NAME would take the value of the agent's own variable: it is not passed on.
    return at < 0 ? [line, ''] : [line.slice(0, at), line.slice(at + 1)];
  });
  return {
    PATH: SYSTEM_PATH,
    HOME: home,
    HOSTNAME: task.hostname ?? task.id.slice(0, HOSTNAME_CHARACTERS),
    ...Object.fromEntries(given.filter(([name]) => name !== '')),
    WEFT_TASK_ID: task.id,
    WEFT_TASK_NAME: task.name,
    WEFT_TASK_SLOT: String(task.slot),
    WEFT_SERVICE_NAME: task.serviceName,
  };
}

/**
 * Finds `name`, `uid`, `name:group`, `uid:gid`. A uid without an entry is valid and belongs to group 0
 * unless one is given, as in Docker.
 */
async function findUser(user: string, run: RunCommand): Promise<Credentials> {
  const [name = '', group] = user.split(':', 2);
  // passwd(5): name:password:uid:gid:comment:home:shell
  const entry = await getent(run, 'passwd', name);
  const isNumeric = /^\d+$/.test(name);
  if (entry === undefined && !isNumeric) throw new RuntimeError({ code: 'USER_NOT_FOUND', user });
  return {
    uid: Number(entry?.[2] ?? name),
    gid: group === undefined ? Number(entry?.[3] ?? 0) : await findGroup(group, user, run),
    name: entry?.[0],
    home: entry?.[5] ?? '/',
  };
}

async function findGroup(group: string, user: string, run: RunCommand): Promise<number> {
  if (/^\d+$/.test(group)) return Number(group);
  const entry = await getent(run, 'group', group); // group(5): name:password:gid:members
  if (entry === undefined) throw new RuntimeError({ code: 'USER_NOT_FOUND', user });
  return Number(entry[2]);
}

async function getent(
  run: RunCommand,
  database: string,
  key: string,
): Promise<readonly string[] | undefined> {
  try {
    return (await run(['getent', '--', database, key])).trim().split(':');
  } catch (error) {
    // getent(1): 2 means that the key was not found.
    const isMissing =
      error instanceof CommandError &&
      error.detail.code === 'COMMAND_FAILED' &&
      error.detail.exitCode === 2;
    if (isMissing) return undefined;
    throw error;
  }
}

/**
 * Finds the programs that a supervisor is made of: POSIX, util-linux and coreutils.
 *
 * @throws {RuntimeError} naming the one that is missing
 */
export async function findSupervisorTools(): Promise<SupervisorTools> {
  const find = async (name: string): Promise<string> => {
    const executable = await findExecutable(name, SYSTEM_PATH, '/');
    if (executable.found) return executable.path;
    throw new RuntimeError({ code: 'START_FAILED', reason: `this node has no program ${name}` });
  };
  return {
    sh: await find('sh'),
    setsid: await find('setsid'),
    env: await find('env'),
    nsenter: await find('nsenter'),
    setpriv: await find('setpriv'),
  };
}
