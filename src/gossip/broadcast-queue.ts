interface Broadcast {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Order of arrival. */
  readonly id: number;
  transmits: number;
}

/**
 * Rumours that ride on packets, each a limited number of times, least sent first (memberlist
 * queue.go `TransmitLimitedQueue`). BOUNDED by `queueMax`: past it the most sent one is dropped.
 */
export class BroadcastQueue {
  readonly #queueMax: number;
  readonly #byName = new Map<string, Broadcast>();
  /**
   * Broadcasts by how often they were sent. Within a tier the largest comes first, so that small ones
   * fill the gaps, and of equals the newest.
   */
  readonly #tiers: Broadcast[][] = [[]];
  #nextId = 0;

  constructor(queueMax: number) {
    this.#queueMax = queueMax;
  }

  get size(): number {
    return this.#byName.size;
  }

  /** Whether the broadcast `name` has sends left. */
  has(name: string): boolean {
    return this.#byName.has(name);
  }

  /**
   * Queues `bytes`, in place of an older broadcast of the same name.
   *
   * @param name - What it is about: one broadcast per name is enough.
   */
  push(name: string, bytes: Uint8Array): void {
    const older = this.#byName.get(name);
    if (older !== undefined) this.#remove(older);
    this.#insert({ name, bytes, id: this.#nextId++, transmits: 0 });
    if (this.#byName.size > this.#queueMax) {
      const last = this.#tiers.findLast(({ length }) => length > 0)?.at(-1);
      if (last !== undefined) this.#remove(last);
    }
  }

  /** Forgets all that is queued. */
  clear(): void {
    this.#byName.clear();
    this.#tiers.length = 1;
    this.#tiers[0] = [];
  }

  /**
   * Picks broadcasts for one packet and counts them as sent.
   *
   * @param freeBytes - Room in the packet; each broadcast takes its length and `overheadBytes`.
   * @param transmitsMax - After so many sends a broadcast is done.
   * @param countMax - How many may be picked.
   */
  take(
    freeBytes: number,
    overheadBytes: number,
    transmitsMax: number,
    countMax: number,
  ): Uint8Array[] {
    const taken: Broadcast[] = [];
    let free = freeBytes - overheadBytes;
    for (const tier of this.#tiers) {
      for (let place = 0; place < tier.length && taken.length < countMax; place++) {
        const broadcast = tier[place];
        if (broadcast === undefined) break;
        if (broadcast.bytes.length > free) {
          place = firstOfAtMost(tier, free) - 1;
          continue;
        }
        free -= broadcast.bytes.length + overheadBytes;
        taken.push(broadcast);
      }
    }
    for (const broadcast of taken) {
      this.#remove(broadcast);
      broadcast.transmits++;
      if (broadcast.transmits < transmitsMax) this.#insert(broadcast);
    }
    return taken.map(({ bytes }) => bytes);
  }

  #insert(broadcast: Broadcast): void {
    while (this.#tiers.length <= broadcast.transmits) this.#tiers.push([]);
    const tier = this.#tiers[broadcast.transmits];
    tier?.splice(placeOf(tier, broadcast), 0, broadcast);
    this.#byName.set(broadcast.name, broadcast);
  }

  #remove(broadcast: Broadcast): void {
    const tier = this.#tiers[broadcast.transmits];
    tier?.splice(placeOf(tier, broadcast), 1);
    this.#byName.delete(broadcast.name);
  }
}

/** Where `broadcast` is in its tier, or belongs. */
function placeOf(tier: readonly Broadcast[], { bytes, id }: Broadcast): number {
  return firstThat(
    tier,
    (other) =>
      other.bytes.length < bytes.length || (other.bytes.length === bytes.length && other.id <= id),
  );
}

/** Index of the first broadcast of at most `bytes`; the length of the tier if all are larger. */
function firstOfAtMost(tier: readonly Broadcast[], bytes: number): number {
  return firstThat(tier, (other) => other.bytes.length <= bytes);
}

/** Binary search: `holds` is false for the first part of `tier` and true for the rest. */
function firstThat(tier: readonly Broadcast[], holds: (other: Broadcast) => boolean): number {
  let low = 0;
  let high = tier.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const other = tier[middle];
    if (other !== undefined && holds(other)) high = middle;
    else low = middle + 1;
  }
  return low;
}
