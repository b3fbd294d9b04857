import { formatIpv4, parseIpv4 } from '../src/core/address.ts';
import type { Json } from '../src/core/store.ts';
import type { EndpointRecord } from '../src/gossip/endpoint-record.ts';
import { Gossip } from '../src/gossip/gossip.ts';
import type { Member } from '../src/gossip/member.ts';
import type { PeerAddress } from '../src/gossip/peer-address.ts';
import { NodeGossipCipher } from '../src/io/gossip-cipher.ts';
import { SYSTEM_CLOCK, SYSTEM_RANDOM } from '../src/io/system.ts';
import { endpointKey } from '../src/node/endpoint-record.ts';
import { firstChanges, SIZE } from './table-load.ts';

/** Nodes that announce endpoints. */
export const OWNERS = 100;

/** An entry of a node's table. */
export interface LoadEntry {
  readonly key: string;
  readonly value: Json;
}

/** A node that announces endpoints, and what it says: its VTEP comes first. */
export interface Owner {
  readonly name: string;
  readonly entries: readonly LoadEntry[];
}

/** {@link OWNERS} nodes with `perNode` endpoints each, the same for each call; 1,000 at most. */
export function ownersOf(perNode: number): Owner[] {
  const changes = firstChanges();
  const share = SIZE.nodes / OWNERS;
  return Array.from({ length: OWNERS }, (_, index) => {
    const [vtep, ...entries] = changes
      .slice(index * share, (index + 1) * share)
      .flatMap(({ added }, part) => (part === 0 ? added : added.slice(1)));
    if (vtep === undefined) throw new RangeError('a node announces its VTEP');
    return {
      name: changes[index * share]?.node ?? '',
      entries: [vtep, ...entries.slice(0, perNode)],
    };
  });
}

/** Where an owner's gossip is on loopback. */
export function ownerAddress(index: number): string {
  return `127.77.0.${index + 1}`;
}

/** An endpoint of `owner` that says something else than in its turn before. */
export function changeOf({ entries }: Owner, turn: number): LoadEntry {
  const count = entries.length - 1;
  const entry = entries[1 + (turn % count)];
  if (entry === undefined) throw new RangeError('an owner has endpoints');
  const state = Math.floor(turn / count) % 2 === 0 ? 'draining' : 'active';
  return { key: entry.key, value: { ...(entry.value as object), state } };
}

/** The JSON text of all, in bytes: what is in it is ASCII. */
export function textBytes(owners: readonly Owner[]): number {
  return owners.reduce(
    (sum, { entries }) =>
      sum + entries.reduce((text, entry) => text + JSON.stringify(entry).length, 0),
    0,
  );
}

/** The same endpoints, but all on one network, at the addresses from `first` on. */
export function onNetwork(owners: readonly Owner[], networkId: string, first: string): Owner[] {
  let next = parseIpv4(first) as number;
  const moved = ({ value }: LoadEntry): LoadEntry => {
    const address = formatIpv4(next++);
    const key = endpointKey(networkId, address);
    return { key, value: { ...(value as object), networkId, address } };
  };
  return owners.map(({ name, entries }) => {
    return { name, entries: [...entries.slice(0, 1), ...entries.slice(1).map(moved)] };
  });
}

const CIPHER = new NodeGossipCipher();

/** Gossip as agents have it. */
export function newNode(self: PeerAddress & { readonly name: string }, key: Uint8Array): Gossip {
  const deps = { random: SYSTEM_RANDOM, cipher: CIPHER, epochMs: () => SYSTEM_CLOCK.epochMs() };
  const { name, address, port } = self;
  const config = { name, address, port, generation: 1 };
  const gossip = new Gossip(deps, config, SYSTEM_CLOCK.nowMs());
  gossip.setKeys([key], { seal: true, strict: true });
  return gossip;
}

/** Those of `owners` that are wanted, as nodes that know all owners and what they announce. */
export function knowingNodes(
  owners: readonly (Owner & PeerAddress)[],
  key: Uint8Array,
  isWanted: (owner: Owner) => boolean,
): Gossip[] {
  const members: Member[] = [];
  const records: EndpointRecord[] = [];
  const nodes: Gossip[] = [];
  for (const owner of owners) {
    const gossip = newNode(owner, key);
    for (const entry of owner.entries) gossip.table.setLocal(entry.key, entry.value);
    const known = gossip.snapshot();
    members.push(...known.members);
    records.push(...known.records);
    if (isWanted(owner)) nodes.push(gossip);
  }
  // Nodes of one process hold what they have in common once.
  for (const record of records) record.isShared = nodes.length > 1;
  for (const gossip of nodes) gossip.restore({ members, records }, SYSTEM_CLOCK.nowMs());
  return nodes;
}
