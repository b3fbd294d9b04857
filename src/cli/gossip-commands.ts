import type { Cli, WeftCommand } from './command.ts';
import { fillGossipKey } from './gossip-key-commands.ts';
import { addListOptions, type Column, type ListOptions, printList } from './output.ts';

const MEMBER_COLUMNS: readonly Column[] = [
  ['NAME', 'Name'],
  ['ID', 'ID'],
  ['ADDRESS', 'Address'],
  ['STATE', 'State'],
  ['INCARNATION', 'Incarnation'],
  ['PROTOCOL', 'Protocol'],
  ['TAGS', 'Tags'],
];

/** Fills `gossip`: `members`, and `key` with its commands. */
export function fillGossip(gossip: WeftCommand, cli: Cli): void {
  addListOptions(
    gossip.command('members').description('List the members as gossip on this host sees them'),
  ).action((options: ListOptions) => listMembers(cli, options));
  const key = gossip.command('key').description('Manage the keys that gossip is encrypted by');
  fillGossipKey(key as WeftCommand, cli);
}

async function listMembers(cli: Cli, options: ListOptions): Promise<void> {
  const { members = [] } = await cli.client().gossipMembers();
  const rows = members.map((member) => ({
    Address: member.address ?? '',
    ID: member.id ?? '',
    Incarnation: String(member.incarnation ?? ''),
    Name: member.name ?? '',
    Protocol: String(member.protocol ?? ''),
    State: member.state ?? '',
    Tags: Object.entries(member.tags ?? {})
      .map(([tag, value]) => `${tag}=${value}`)
      .join(','),
  }));
  printList(cli.terminal, MEMBER_COLUMNS, rows, options);
}
