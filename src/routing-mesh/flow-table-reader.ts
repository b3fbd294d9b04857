import { type FlowRecord, readFlow } from './flow-listing.ts';
import { FLOW_HASH_KEY_BYTES, FlowTable } from './flow-table.ts';
import { toTicks } from './ticks.ts';

/** Reads of an entry that changes meanwhile, before it is given up on. */
const TRIES = 3;

/**
 * Looks at a flow table that other threads change, and changes nothing. An entry is read twice, because a
 * thread that shares its table with no other one locks nothing: what came out alike was not torn.
 */
export class FlowTableReader {
  readonly capacity: number;
  readonly #table: FlowTable;

  /**
   * @param memory - As the table's owner has it.
   * @param capacity - The table's slots.
   * @throws {Error} if there is no such table
   */
  constructor(memory: Uint8Array, capacity: number) {
    this.capacity = capacity;
    const hashKey = new Uint8Array(FLOW_HASH_KEY_BYTES); // the table has its own
    this.#table = new FlowTable({ memory, capacity, hashKey, sharing: 'further' });
  }

  /**
   * The entry in `slot`; undefined if it is free, or changes too fast to be read.
   *
   * @param nowMs - Wall-clock milliseconds since the Unix epoch.
   */
  read(slot: number, nowMs: number): FlowRecord | undefined {
    this.#table.now = toTicks(nowMs);
    for (let turn = 0; turn < TRIES; turn++) {
      const first = readFlow(this.#table, slot);
      if (first === undefined) return undefined;
      const second = readFlow(this.#table, slot);
      if (second !== undefined && areAlike(first, second)) return second;
    }
    return undefined;
  }
}

/** Whether two reads show the same flow; packets may have come in between. */
function areAlike(first: FlowRecord, second: FlowRecord): boolean {
  const names = Object.keys(first) as (keyof FlowRecord)[];
  return names.every((name) => name === 'idleMs' || first[name] === second[name]);
}
