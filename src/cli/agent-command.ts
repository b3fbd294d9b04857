import type { AgentOptions } from '../agent-options.ts';
import type { Cli, WeftCommand } from './command.ts';
import { refused } from './errors.ts';

/** Runs an agent until it is told to stop. */
export type RunAgent = (options: AgentOptions) => Promise<void>;

/**
 * What fills `agent`. The checks of its flags are loaded when it runs: its help needs none of them.
 *
 * @param runAgent - Called with what the flags say.
 */
export function agentCommand(runAgent: RunAgent): (command: WeftCommand, cli: Cli) => void {
  return (command, cli) => fillAgent(command, cli, runAgent);
}

function fillAgent(command: WeftCommand, cli: Cli, runAgent: RunAgent): void {
  command
    .option('--state-dir <path>', 'State that survives restarts', '/var/lib/weft')
    .option('--run-dir <path>', 'State of this boot', '/run/weft')
    .option('--socket <path>', 'Unix socket of the API (default weft.sock in the run directory)')
    .option(
      '--advertise-addr <ip|interface>',
      "Address for other nodes (default the default route's)",
    )
    .option('--listen-addr <host:port>', 'Where a manager takes sessions', '0.0.0.0:2377')
    .option('--gossip-port <port>', 'UDP and TCP port of gossip', '7946')
    .option('--data-path-port <port>', 'UDP port of VXLAN, for a cluster started here', '4789')
    .option(
      '--packet-threads <number>',
      "Threads that handle packets (default by the machine's cores)",
    )
    .option('--metrics-addr <host:port>', 'Where /metrics is served, or none', '127.0.0.1:9477')
    .option('--log-level <level>', 'trace, debug, info, warn, error, fatal or silent', 'info')
    .option(
      '--hostname <name>',
      "Name of this node (default this machine's)",
      cli.terminal.hostname,
    )
    .option('--netns-prefix <prefix>', "Start of the names of tasks' network namespaces", 'weft-')
    .action(async (flags: Readonly<Record<string, unknown>>) => {
      const { toAgentOptions } = await import('./agent-options.ts');
      await runAgent(toAgentOptions(flags)).catch(rethrow);
    });
}

/** A refusal reads `Cannot …` throughout weft; a plain error has nothing else to tell by. */
function rethrow(error: unknown): never {
  const isRefusal =
    error instanceof Error && error.name === 'Error' && error.message.startsWith('Cannot ');
  throw isRefusal ? refused(error.message, { cause: error }) : error;
}
