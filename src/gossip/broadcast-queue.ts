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
    this.#byName.set(name, { name, bytes, id: this.#nextId++, transmits: 0 });
    if (this.#byName.size > this.#queueMax) {
      const last = this.#ordered().at(-1);
      if (last !== undefined) this.#byName.delete(last.name);
    }
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
    const taken: Uint8Array[] = [];
    let free = freeBytes;
    for (const broadcast of this.#ordered()) {
      if (taken.length === countMax) break;
      const size = broadcast.bytes.length + overheadBytes;
      if (size > free) continue;
      free -= size;
      taken.push(broadcast.bytes);
      broadcast.transmits++;
      if (broadcast.transmits >= transmitsMax) this.#byName.delete(broadcast.name);
    }
    return taken;
  }

  /** Least sent first; then the largest, so that small ones fill the gaps; then the newest. */
  #ordered(): Broadcast[] {
    return [...this.#byName.values()].sort(
      (a, b) => a.transmits - b.transmits || b.bytes.length - a.bytes.length || b.id - a.id,
    );
  }
}
