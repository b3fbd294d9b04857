import type { AssignmentChange, AssignmentSet } from '../manager/session-protocol.ts';

/**
 * Applies a change to what is assigned.
 *
 * @returns a new set; `known` stays as it is
 */
export function applyChange(known: AssignmentSet, change: AssignmentChange): AssignmentSet {
  return {
    ...known,
    networks: merge(known.networks, change.networks, change.removedNetworks),
    services: merge(known.services, change.services, change.removedServices),
    tasks: merge(known.tasks, change.tasks, change.removedTasks),
    nodes: merge(known.nodes ?? [], change.nodes, change.removedNodes),
    managers: change.managers,
    gossipSeeds: change.gossipSeeds,
    ...(change.gossip === undefined ? {} : { gossip: change.gossip }),
    ...(change.gossipKeys === undefined ? {} : { gossipKeys: change.gossipKeys }),
  };
}

function merge<Item extends { readonly id: string }>(
  known: readonly Item[],
  changed: readonly Item[],
  removed: readonly string[],
): readonly Item[] {
  const items = new Map(known.map((item) => [item.id, item]));
  for (const id of removed) items.delete(id);
  for (const item of changed) items.set(item.id, item);
  return [...items.values()];
}
