import { randomUUID } from 'node:crypto';
import type { CaptureQuery } from './agent-client.ts';
import { CaptureBlocks } from './capture-blocks.ts';
import type { Cli, WeftCommand } from './command.ts';
import { refused, usageError } from './errors.ts';
import { duration, integer, nonEmpty } from './values.ts';

/** What the agent keeps of a frame, in bytes: an Ethernet header at least, a superframe at most. */
const SNAPLEN_MIN = 14;
const SNAPLEN_MAX = 262_144;

interface CaptureOptions {
  readonly peer?: string;
  readonly task?: string;
  readonly snaplen?: number;
  readonly count?: number;
  /** Nanoseconds. */
  readonly duration?: number;
}

/** Fills `capture`. */
export function fillCapture(command: WeftCommand, cli: Cli): void {
  command
    .argument('<network>', 'Name or ID of the network')
    .option('--peer <node|address>', 'Only what crosses to or from this node', nonEmpty)
    .option('--task <task>', 'Only what this task of this host sends and gets', nonEmpty)
    .option('-s, --snaplen <bytes>', 'Keep this much of a frame', integer(SNAPLEN_MIN, SNAPLEN_MAX))
    .option('-c, --count <n>', 'End after so many frames', integer(1))
    .option('--duration <time>', 'End after this time, such as 30s', duration)
    .addHelpText(
      'after',
      '\nWrites pcapng to standard output: weft capture web | wireshark -k -i -\n',
    )
    .action((network: string, options: CaptureOptions) => capture(cli, network, options));
}

async function capture(cli: Cli, network: string, options: CaptureOptions): Promise<void> {
  const { terminal } = cli;
  if (terminal.isInteractive) {
    throw refused(
      'Cannot write a capture to a terminal: send it to a program, as in ' +
        `"weft capture ${network} | wireshark -k -i -", or to a file`,
    );
  }
  const client = cli.client();
  const id = randomUUID();
  const blocks = new CaptureBlocks();
  const chunks = await client.capture(id, toQuery(network, options));
  const restore = terminal.onInterrupt(() => {
    restore(); // a second Ctrl-C does not wait for the agent
    client.endCapture(id).catch(() => {}); // a capture that has ended is what was asked for
  });
  try {
    for await (const chunk of chunks) {
      terminal.writeBytes(blocks.push(chunk));
      await terminal.drained();
    }
  } finally {
    restore();
  }
  terminal.writeError(`${blocks.frames} frames captured, ${blocks.dropped} dropped\n`);
}

function toQuery(network: string, options: CaptureOptions): CaptureQuery {
  const { peer, task, snaplen, count } = options;
  if (peer !== undefined && task !== undefined) {
    throw usageError('Cannot use --peer together with --task: expected one of them');
  }
  if (options.duration === 0) throw usageError('Cannot use --duration 0: expected a longer time');
  const durationMs = options.duration === undefined ? undefined : Math.ceil(options.duration / 1e6);
  return { network, peer, task, snaplen, count, durationMs };
}
