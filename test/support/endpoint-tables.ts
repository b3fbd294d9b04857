import { LAN_TUNING } from '../../src/gossip/config.ts';
import { EndpointTable, type TableApplied } from '../../src/gossip/endpoint-table.ts';

/** A value as records keep it. */
export const content = (value: number | string): string => JSON.stringify(value);

/** A table as a node of that name has it when it starts. */
export function newTable(node: string, generation = 1): EndpointTable {
  return new EndpointTable(node, generation, { tuning: LAN_TUNING }, 0);
}

/** Brings `to` all that `from` has of `node`. */
export function copy(
  from: EndpointTable,
  to: EndpointTable,
  node: string,
): TableApplied | undefined {
  const delta = from.deltaFor(node, to.versionOf(node));
  return delta && to.apply(delta, 0);
}

/** All that is visible, to compare. */
export function dumpTable(table: EndpointTable): string {
  return [...table.visible()]
    .map(({ node, key, value }) => `${node}/${key}=${value}`)
    .sort()
    .join(' ');
}
