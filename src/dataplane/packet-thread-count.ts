/**
 * How many packet threads a machine gets unless told otherwise: at most half of its cores, since tasks and the
 * kernel's own network code need the others, and no more than the source ports that a sender spreads its flows
 * over. A power of two, so that those spread evenly.
 *
 * @param cores - That this process may use.
 */
export function packetThreadsFor(cores: number): number {
  if (cores < 4) return 1;
  return cores < 8 ? 2 : 4;
}
