import type { Json } from '../src/core/store.ts';
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
  readonly address: string;
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
      address: ownerAddress(index),
      entries: [vtep, ...entries.slice(0, perNode)],
    };
  });
}

/** Where an owner's gossip is. */
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
