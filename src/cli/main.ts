import { hostname } from 'node:os';
import { CommanderError, Option } from 'commander';
import { packageVersion } from '../io/package-version.ts';
import type { RunAgent } from './agent-command.ts';
import { type Cli, fullName, WeftCommand } from './command.ts';
import { describeFailure, isExpected } from './errors.ts';
import { processTerminal, type Terminal } from './terminal.ts';

/** Gives a command its flags, its subcommands and what it does. */
type Fill = (command: WeftCommand, cli: Cli) => void;

/** A command of the first level; the rest of it is loaded when it is the one that is run. */
interface Family {
  readonly name: string;
  readonly description: string;
  readonly load: () => Promise<Fill>;
}

/**
 * Runs one command line of this process, and sets its exit code.
 *
 * @param argv - Without the interpreter and the script.
 * @param env - The process's environment variables.
 */
export async function runProcess(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<void> {
  process.exitCode = await main(argv, processTerminal(env, hostname()));
}

/**
 * Runs one command line to its end.
 *
 * @param argv - Without the interpreter and the script.
 * @param runAgent - What `weft agent` starts.
 * @returns the exit code: 0, or 1 with a reason on standard error
 * @throws whatever is a bug of weft
 */
export async function main(
  argv: readonly string[],
  terminal: Terminal,
  runAgent: RunAgent = runRealAgent,
): Promise<number> {
  const program = createProgram(terminal, runAgent);
  let running: string | undefined;
  program.hook('preAction', (_, command) => {
    running = fullName(command);
  });
  try {
    // `weft help service create` is `weft service create --help`.
    const [first, ...rest] = argv;
    await program.parseAsync(first === 'help' ? [...rest, '--help'] : [...argv], { from: 'user' });
    return 0;
  } catch (error) {
    // Help and the version end by an exception, too. They have been printed.
    if (error instanceof CommanderError) return error.exitCode;
    if (!isExpected(error)) throw error;
    terminal.writeError(describeFailure(error, running));
    return 1;
  }
}

/** Loaded on demand: other commands must not pay for what an agent needs. */
async function runRealAgent(...parameters: Parameters<RunAgent>): Promise<void> {
  const agent = await import('../agent.ts');
  await agent.runAgent(...parameters);
}

function createProgram(terminal: Terminal, runAgent: RunAgent): WeftCommand {
  const program = new WeftCommand('weft');
  program
    .description('Overlay networks, services and a routing mesh for plain hosts')
    .addOption(
      new Option(
        '-H, --host <url>',
        'Where the agent listens (default $WEFT_HOST, or unix:///run/weft/weft.sock)',
      ),
    )
    .version(packageVersion(), '-v, --version', 'Show the version of this program')
    .helpOption('-h, --help', 'Show this help')
    .helpCommand(false)
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.write(text),
      writeErr: (text) => terminal.writeError(text),
    });
  const families = new Map<unknown, Family>(); // BOUNDED by the list
  for (const family of listFamilies(runAgent)) {
    families.set(program.command(family.name).description(family.description), family);
  }
  program.hook('preSubcommand', async (_, command) => {
    const family = families.get(command);
    if (family === undefined) return;
    const [fill, { connect }] = await Promise.all([family.load(), import('./agent-client.ts')]);
    const { host } = program.opts<{ readonly host?: string }>();
    fill(command as WeftCommand, { terminal, client: () => connect(host, terminal.env) });
  });
  return program;
}

function listFamilies(runAgent: RunAgent): Family[] {
  const cluster = () => import('./cluster-commands.ts');
  const status = () => import('./status-commands.ts');
  return [
    {
      name: 'agent',
      description: 'Run the agent of this host, in the foreground',
      load: async () => (await import('./agent-command.ts')).agentCommand(runAgent),
    },
    {
      name: 'init',
      description: 'Start a cluster with this node as its manager',
      load: async () => (await cluster()).fillInit,
    },
    {
      name: 'join',
      description: 'Join a cluster as a worker or manager',
      load: async () => (await cluster()).fillJoin,
    },
    {
      name: 'leave',
      description: 'Leave the cluster, and stop its tasks on this node',
      load: async () => (await cluster()).fillLeave,
    },
    {
      name: 'join-token',
      description: 'Show how to join the cluster as a worker or manager',
      load: async () => (await cluster()).fillJoinToken,
    },
    {
      name: 'status',
      description: 'Show what the agent on this host is doing',
      load: async () => (await status()).fillStatus,
    },
    {
      name: 'capture',
      description: "Write a network's packets on this host as pcapng, for Wireshark",
      load: async () => (await import('./capture-command.ts')).fillCapture,
    },
    {
      name: 'flows',
      description: 'List the flows that this host balances',
      load: async () => (await import('./flows-command.ts')).fillFlows,
    },
    {
      name: 'endpoints',
      description: 'List the endpoints that this host knows, or compare them by a digest',
      load: async () => (await import('./endpoints-command.ts')).fillEndpoints,
    },
    {
      name: 'gossip',
      description: 'Look at gossip, and manage its keys',
      load: async () => (await import('./gossip-commands.ts')).fillGossip,
    },
    {
      name: 'version',
      description: 'Show the versions of this program and of the agent',
      load: async () => (await status()).fillVersion,
    },
    {
      name: 'node',
      description: 'Manage the nodes of the cluster',
      load: async () => (await import('./node-commands.ts')).fillNode,
    },
    {
      name: 'network',
      description: 'Manage networks',
      load: async () => (await import('./network-commands.ts')).fillNetwork,
    },
    {
      name: 'service',
      description: 'Manage services',
      load: async () => (await import('./service-commands.ts')).fillService,
    },
  ];
}
