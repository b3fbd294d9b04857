import { hashString } from './flow-hash.ts';

/**
 * Slots of a Maglev table. Prime, so that every `skip` visits every slot (Maglev, NSDI 2016, section
 * 3.4). 16,381 is Cilium's default (`maglev.tableSize`): the paper asks for 100 times the backends,
 * which is room for 160 replicas of a service, and a table of 16-bit indexes takes 32 KiB.
 */
export const MAGLEV_SLOTS = 16_381;

/** The value of each slot when no backend has any weight. */
export const MAGLEV_NONE = 0xffff;

/** What {@link buildMaglevTable} needs to know of a backend. */
export interface MaglevBackend {
  /** Unique in its set, and the same on every node. */
  readonly id: string;
  /** Share of the slots in proportion to the others' weights; 0 for none. Not negative, finite. */
  readonly weight: number;
}

/** Seeds of the paper's h1 and h2. Protocol: every node must agree on both. */
const OFFSET_SEED = 0;
const SKIP_SEED = 0x9e37_79b9;

/** One backend's walk through its own permutation of the slots. */
interface Walk {
  readonly index: number;
  readonly skip: number;
  /** Share of a turn that each round brings: 1 for the heaviest backend. */
  readonly share: number;
  slot: number;
  /** Turns saved up so far. */
  credit: number;
}

/**
 * Shares `table` between backends in proportion to weight; when one leaves, few other slots move.
 * Every backend takes the next free slot of its own permutation in turn; a lighter one sits out rounds
 * until its shares add up to a turn (as Envoy's and Cilium's Maglev do).
 *
 * @param backends - Sorted by `id`: nodes that know the same set must build the same table. At most 65,535.
 * @param table - {@link MAGLEV_SLOTS} entries, overwritten with indexes into `backends`.
 */
export function buildMaglevTable(backends: readonly MaglevBackend[], table: Uint16Array): void {
  table.fill(MAGLEV_NONE);
  const heaviest = backends.reduce((most, backend) => Math.max(most, backend.weight), 0);
  if (heaviest === 0) return;
  const walks: Walk[] = [];
  for (const [index, backend] of backends.entries()) {
    if (backend.weight === 0) continue;
    walks.push({
      index,
      skip: (hashString(backend.id, SKIP_SEED) % (MAGLEV_SLOTS - 1)) + 1,
      share: backend.weight / heaviest,
      slot: hashString(backend.id, OFFSET_SEED) % MAGLEV_SLOTS,
      credit: 0,
    });
  }
  let free = MAGLEV_SLOTS;
  while (free > 0) {
    for (const walk of walks) {
      walk.credit += walk.share;
      if (walk.credit < 1) continue;
      walk.credit -= 1;
      // Most of the work is here: a backend walks past some ten taken slots for each that it finds free.
      const { skip } = walk;
      let { slot } = walk;
      while (table[slot] !== MAGLEV_NONE) {
        slot += skip;
        if (slot >= MAGLEV_SLOTS) slot -= MAGLEV_SLOTS;
      }
      walk.slot = slot;
      table[slot] = walk.index;
      free -= 1;
      if (free === 0) return;
    }
  }
}
