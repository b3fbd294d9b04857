// One node's gossip as a process of its own, for tests that kill it. `node gossip-node.ts CONFIG`, a JSON
// object; commands come as lines of JSON on stdin, events and answers go as lines of JSON to stdout.
import { createInterface } from 'node:readline';
import type { Json } from '../../src/core/store.ts';
import type { GossipEvent } from '../../src/gossip/effects.ts';
import { Gossip } from '../../src/gossip/gossip.ts';
import { decodeTags } from '../../src/gossip/member-tags.ts';
import type { PeerAddress } from '../../src/gossip/peer-address.ts';
import { NodeGossipCipher } from '../../src/io/gossip-cipher.ts';
import { GossipTransport } from '../../src/io/gossip-transport.ts';
import { SYSTEM_CLOCK, SYSTEM_RANDOM, systemLog } from '../../src/io/system.ts';

/** What the process is started with. */
export interface GossipNodeConfig extends PeerAddress {
  readonly name: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly compression: boolean;
  /** In base64; without one nothing is encrypted. */
  readonly key?: string | undefined;
}

/** What it is told to do; it answers each with a line that has the command's `id`. */
export type GossipNodeCommand =
  | { readonly id: number; readonly do: 'join'; readonly seeds: readonly PeerAddress[] }
  | { readonly id: number; readonly do: 'set'; readonly key: string; readonly value: Json }
  | { readonly id: number; readonly do: 'leave' | 'state' };

/** What it knows: the answer to 'state'. */
export interface GossipNodeState {
  readonly members: readonly {
    readonly name: string;
    readonly address: string;
    readonly port: number;
    readonly state: string;
    readonly tags: Readonly<Record<string, string>>;
  }[];
  /** Equal in all nodes whose tables are. */
  readonly summary: string;
  readonly endpoints: readonly string[];
  readonly counters: Readonly<Record<string, number>>;
}

/** A line of its output. */
export type GossipNodeLine =
  | { readonly kind: 'ready' }
  | { readonly kind: 'event'; readonly event: GossipEvent }
  | { readonly kind: 'answer'; readonly id: number; readonly state?: GossipNodeState };

function say(line: GossipNodeLine): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

async function main(config: GossipNodeConfig): Promise<void> {
  const { name, address, port, compression, key } = config;
  const tags = new Map(Object.entries(config.tags));
  const gossip = new Gossip(
    { random: SYSTEM_RANDOM, cipher: new NodeGossipCipher() },
    { name, address, port, tags, compression, generation: Date.now() },
    SYSTEM_CLOCK.nowMs(),
  );
  const keys = key === undefined ? [] : [new Uint8Array(Buffer.from(key, 'base64'))];
  gossip.setKeys(keys, { seal: true, strict: true });
  const transport = new GossipTransport(
    { gossip, clock: SYSTEM_CLOCK, log: systemLog('warn') },
    { onEvent: (event) => say({ kind: 'event', event }) },
  );
  await transport.start();
  say({ kind: 'ready' });
  const state = (): GossipNodeState => ({
    members: gossip.members().map((member) => ({
      ...{ name: member.name, address: member.address, port: member.port, state: member.state },
      tags: Object.fromEntries(decodeTags(member.meta)),
    })),
    summary: gossip.table.summary(),
    endpoints: [...gossip.table.visible()].map(({ node, key }) => `${node}/${key}`).sort(),
    counters: transport.counters(),
  });
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line) as GossipNodeCommand;
    const { id } = command;
    if (command.do === 'join') transport.join(command.seeds);
    else if (command.do === 'set') gossip.table.setLocal(command.key, command.value);
    else if (command.do === 'leave') await transport.leave();
    say({ kind: 'answer', id, ...(command.do === 'state' && { state: state() }) });
  }
  await transport.close();
}

if (import.meta.main) await main(JSON.parse(process.argv[2] ?? '{}') as GossipNodeConfig);
