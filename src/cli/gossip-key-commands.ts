import type { AgentClient } from './agent-client.ts';
import type { GossipKeys } from './api-types.ts';
import type { Cli, WeftCommand } from './command.ts';
import { humanDuration } from './durations.ts';
import { refused } from './errors.ts';
import { addListOptions, type Column, type ListOptions, printList, type Row } from './output.ts';
import type { Terminal } from './terminal.ts';
import { gossipKey, nonEmpty } from './values.ts';

/** Pause between two looks at the keys, in milliseconds. */
const POLL_MS = 250;

const KEY_COLUMNS: readonly Column[] = [
  ['ID', 'ID'],
  ['STATE', 'State'],
  ['CREATED', 'CreatedSince'],
  ['NODES', 'Nodes'],
];
const SECRET_COLUMN: Column = ['KEY', 'Key'];

interface KeyListOptions extends ListOptions {
  readonly showKeys?: boolean;
}

interface ChangeOptions {
  readonly detach?: boolean;
}

/** Fills `gossip key`: `list|rotate|install|use|remove`. */
export function fillGossipKey(key: WeftCommand, cli: Cli): void {
  addListOptions(key.command('list').alias('ls').description('List the keys of the cluster'))
    .option('--show-keys', 'Show the keys themselves, as a serf agent needs them')
    .action((options: KeyListOptions) => listKeys(cli, options));
  addChange(key, 'rotate', 'Replace the primary key by a new one').action(
    (options: ChangeOptions) => change(cli, options, (client) => client.rotateGossipKey()),
  );
  addChange(key, 'install', 'Add a key that nodes accept, and do not use')
    .argument('<key>', '16, 24 or 32 bytes in base64')
    .action((text: string, options: ChangeOptions) => {
      const given = gossipKey(text, 'the key');
      return change(cli, options, (client) => client.installGossipKey(given));
    });
  addChange(key, 'use', 'Make an installed key the primary one')
    .argument('<id>', 'ID of the key', nonEmpty)
    .action((id: string, options: ChangeOptions) =>
      change(cli, options, (client) => client.useGossipKey(id)),
    );
  addChange(key, 'remove', 'Remove a key that is not the primary one')
    .alias('rm')
    .argument('<id>', 'ID of the key', nonEmpty)
    .action((id: string, options: ChangeOptions) =>
      change(cli, options, (client) => client.removeGossipKey(id)),
    );
}

function addChange(key: WeftCommand, name: string, description: string): WeftCommand {
  const command = key.command(name) as WeftCommand;
  command.description(description);
  command.option('-d, --detach', 'Exit at once, and do not wait for the nodes');
  return command;
}

async function listKeys(cli: Cli, options: KeyListOptions): Promise<void> {
  const { terminal } = cli;
  const keys = await cli.client().gossipKeys(options.showKeys === true);
  const rows = (keys.keys ?? []).map((key): Row => {
    const ageMs = terminal.epochMs() - Date.parse(key.createdAt ?? '');
    return {
      CreatedAt: key.createdAt ?? '',
      CreatedSince: Number.isNaN(ageMs) ? '' : `${humanDuration(ageMs)} ago`,
      ID: key.id ?? '',
      ...(key.key === undefined ? {} : { Key: key.key }),
      Nodes: `${key.confirmed ?? 0}/${key.nodes ?? 0}`,
      State: key.state ?? '',
    };
  });
  const columns = options.showKeys === true ? [...KEY_COLUMNS, SECRET_COLUMN] : KEY_COLUMNS;
  printList(terminal, columns, rows, options);
  if (keys.mode === 'off' || keys.mode === 'accept') {
    terminal.writeError('Gossip is not encrypted: "weft gossip key rotate" makes it so\n');
  }
  if (keys.changing === true) terminal.writeError(`A change is under way: ${missing(keys)}\n`);
}

/** Asks for a change, and waits until it has taken effect on all nodes. */
async function change(
  cli: Cli,
  options: ChangeOptions,
  ask: (client: AgentClient) => Promise<{ readonly id?: string }>,
): Promise<void> {
  const { terminal } = cli;
  const client = cli.client();
  const { id = '' } = await ask(client);
  terminal.write(`${id}\n`);
  if (options.detach !== true) await waitForKeys(client, terminal);
}

/** Ctrl-C ends the wait, not the change. @throws {CliError} naming the nodes that it has not reached */
async function waitForKeys(client: AgentClient, terminal: Terminal): Promise<void> {
  const interrupt = new AbortController();
  const restore = terminal.onInterrupt(() => interrupt.abort());
  let shown = '';
  try {
    for (;;) {
      const keys = await client.gossipKeys(false);
      const line = `overall progress: ${confirmed(keys)} out of ${keys.nodes ?? 0} nodes\n`;
      if (line !== shown) terminal.write(line);
      shown = line;
      if (keys.changing !== true) {
        finish(terminal, keys);
        return;
      }
      await terminal.sleep(POLL_MS, interrupt.signal);
      if (interrupt.signal.aborted) {
        terminal.write(
          'Operation continuing in background.\nUse `weft gossip key list` to check progress.\n',
        );
        return;
      }
    }
  } finally {
    restore();
  }
}

function finish(terminal: Terminal, keys: GossipKeys): void {
  const { waiting = [], down = [] } = keys;
  if (waiting.length > 0) {
    throw refused(
      `The change was made without nodes that did not confirm it: ${missing(keys)}; they are cut off from gossip until they do, see their logs`,
    );
  }
  if (down.length > 0) {
    terminal.write(`Nodes that are down get the keys when they come back: ${names(down)}\n`);
  }
  terminal.write('verify: all nodes have the keys\n');
}

function confirmed({ nodes = 0, waiting = [] }: GossipKeys): number {
  return nodes - waiting.length;
}

function missing({ waiting = [] }: GossipKeys): string {
  return waiting.length === 0 ? 'all nodes have confirmed' : `waiting for ${names(waiting)}`;
}

function names(nodes: readonly { readonly name?: string; readonly id?: string }[]): string {
  return nodes.map(({ name, id }) => name || (id ?? '')).join(', ');
}
