import type { Json } from '../../../src/core/store.ts';
import {
  readEndpointRecord,
  readVtepRecord,
  VTEP_KEY,
  type VtepRecord,
} from '../../../src/node/endpoint-record.ts';
import type { PlacedEndpoint } from './tables.ts';

/** One entry of the gossip tables as it is visible now. */
export interface VisibleEntry {
  readonly node: string;
  readonly key: string;
  readonly value: Json;
}

/** A VTEP and the id of the node that has it. */
export type PlacedVtep = VtepRecord & { readonly node: string };

/** VTEPs of the other nodes, as they announce them. */
export function vtepRecords(entries: readonly VisibleEntry[], self: string): PlacedVtep[] {
  return [...vteps(entries)].flatMap(([node, vtep]) => (node === self ? [] : [{ node, ...vtep }]));
}

/**
 * All announced endpoints, with the VTEPs of those that other nodes have.
 *
 * @param suspects - Names of nodes that do not answer just now.
 */
export function placedEndpoints(
  entries: readonly VisibleEntry[],
  self: string,
  suspects: ReadonlySet<string>,
): PlacedEndpoint[] {
  const vtepOf = vteps(entries);
  return entries.flatMap(({ node, key, value }): PlacedEndpoint[] => {
    if (key === VTEP_KEY) return [];
    const record = readEndpointRecord(value);
    if (record === undefined) return [];
    if (node === self) return [{ record }];
    const vtep = vtepOf.get(node);
    return vtep === undefined ? [] : [{ record, vtep, suspect: suspects.has(node) }];
  });
}

function vteps(entries: readonly VisibleEntry[]): Map<string, VtepRecord> {
  const known = new Map<string, VtepRecord>();
  for (const { node, key, value } of entries) {
    const record = key === VTEP_KEY ? readVtepRecord(value) : undefined;
    if (record !== undefined) known.set(node, record);
  }
  return known;
}
