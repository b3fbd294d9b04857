import type { ProcessIdentity } from '../io/process.ts';

/**
 * The parent of every task process: a POSIX shell script, so that it needs no installation, a
 * megabyte of memory and outlives the agent. It keeps the exit code for an agent that may be dead when
 * the task ends, and passes on the signals that a shutdown of the machine sends.
 *
 * Arguments: the task's state directory, then the command that becomes the task. Nothing may be
 * assigned before the task is forked off: a variable that the task's environment holds as well would
 * reach the task changed.
 *
 * `process` and `exit` appear whole, by a rename, for the reader may look at any moment.
 */
const SUPERVISOR_SCRIPT = `umask 022
(shift; exec "$@") &
task=$! state=$1
trap 'caught=1; kill -s TERM "$task"' TERM
trap 'caught=1; kill -s INT "$task"' INT
trap 'caught=1; kill -s HUP "$task"' HUP
read -r stat <"/proc/$task/stat"
set -- \${stat##*) }
read -r boot </proc/sys/kernel/random/boot_id
echo "$task \${20} $boot" >"$state/process.new"
mv "$state/process.new" "$state/process"
while :; do
  caught=0
  wait "$task"
  code=$?
  [ "$caught" = 1 ] && kill -0 "$task" 2>/dev/null || break
done
kill -s KILL -- "-$task" 2>/dev/null
echo "$code" >"$state/exit.new"
mv "$state/exit.new" "$state/exit"
`;

/** In a task's state directory: who it is, as {@link parseProcessFile} reads it. */
export const PROCESS_FILE = 'process';
/** In a task's state directory: how it ended, as {@link parseExitFile} reads it. */
export const EXIT_FILE = 'exit';

/** What the supervisor is to start. */
export interface SupervisedCommand {
  readonly stateDirectory: string;
  /** Path of the network namespace that the task runs in. */
  readonly netnsPath: string;
  readonly argv: readonly string[];
  readonly credentials: Credentials | undefined;
  readonly env: Readonly<Record<string, string>>;
}

/** Whom a task runs as. */
export interface Credentials {
  readonly uid: number;
  readonly gid: number;
  /** Login name, which has supplementary groups; undefined for a user without an entry. */
  readonly name: string | undefined;
  readonly home: string;
}

/** Absolute paths: the supervisor runs with the task's PATH. */
export interface SupervisorTools {
  readonly sh: string;
  readonly setsid: string;
  readonly env: string;
  readonly nsenter: string;
  readonly setpriv: string;
}

/** An argument vector and the environment that goes with it. */
export interface SupervisorLaunch {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/**
 * The command line of a supervisor. Each program on it replaces itself with the next:
 *
 * - `setsid` gives the task a session of its own, so that all of it can be killed at once;
 * - `env` undoes the ignored SIGINT and SIGQUIT that a shell gives to background jobs (POSIX.1, Shell
 *   2.11), which no program could undo for its children, and adds the variables whose names
 *   (`spring.datasource.url`) a shell does not pass on; the others are not on the command line, where
 *   every user could read them;
 * - `nsenter` enters the network namespace and nothing else, unlike `ip netns exec`, which mounts
 *   another /sys and hides the cgroups;
 * - `setpriv` drops privileges last.
 */
export function supervisorLaunch(
  tools: SupervisorTools,
  command: SupervisedCommand,
): SupervisorLaunch {
  const entries = Object.entries(command.env);
  const isShellName = ([name]: [string, string]) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(name);
  const operands = entries.filter((entry) => !isShellName(entry)).map(([n, v]) => `${n}=${v}`);
  const { credentials } = command;
  const setpriv =
    credentials === undefined ? [] : [tools.setpriv, ...setprivOptions(credentials), '--'];
  return {
    argv: [
      ...[tools.sh, '-c', SUPERVISOR_SCRIPT, 'weft-supervisor', command.stateDirectory],
      tools.setsid,
      ...[tools.env, '--default-signal=INT,QUIT', ...operands],
      ...[tools.nsenter, `--net=${command.netnsPath}`, '--'],
      ...setpriv,
      ...command.argv,
    ],
    env: Object.fromEntries(entries.filter(isShellName)),
  };
}

function setprivOptions({ uid, gid, name }: Credentials): readonly string[] {
  const groups = name === undefined ? '--clear-groups' : '--init-groups';
  return [`--reuid=${name ?? uid}`, `--regid=${gid}`, groups, '--inh-caps=-all'];
}

/** Reads the supervisor's `process` file. @returns undefined if it is not whole */
export function parseProcessFile(text: string): ProcessIdentity | undefined {
  const [pid, startTicks, bootId = ''] = text.trim().split(' ');
  const identity = { pid: Number(pid), startTicks: Number(startTicks), bootId };
  const whole = identity.pid > 0 && Number.isInteger(identity.startTicks) && bootId !== '';
  return whole ? identity : undefined;
}

/** Reads the supervisor's `exit` file. @returns the exit code, undefined if it is not whole */
export function parseExitFile(text: string): number | undefined {
  return /^\d+\n$/.test(text) ? Number(text) : undefined;
}
