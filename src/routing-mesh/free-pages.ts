/** What the system gives and takes at once, in bytes. With larger pages it refuses, and all memory stays. */
const PAGE_BYTES = 4096;
/** Pages that are given back by one call: the lock is held meanwhile, for some 50 us. */
const RUN_PAGES_MAX = 256;

// What was seen of a page last: a flow, none, none once more; and that it was given back since.
const IN_USE = 0;
const FREE = 1;
const FREE_AGAIN = 2;
const RELEASED = 3;

/**
 * Gives memory back to the system: what was there is lost.
 *
 * @param offset - Into the table's memory, in bytes; a multiple of 4096, as is `bytes`.
 */
export type ReleaseMemory = (offset: number, bytes: number) => void;

/** The slots of a table of which {@link FreePages} looks after the memory. */
export interface PagedSlots {
  readonly capacity: number;
  /** Whether `count` slots from `first` on are all free. */
  areFree(first: number, count: number): boolean;
  lock(): void;
  unlock(): void;
}

/**
 * Gives back the memory of a table's entries a page at a time, after a flood has left: a page whose slots
 * are free at two looks in a row. One look would do, but a table that is in steady use would have its pages
 * taken and given all the time. What lies in a free slot means nothing, so it may be lost.
 */
export class FreePages {
  readonly #slots: PagedSlots;
  readonly #release: ReleaseMemory;
  /** Where the first whole page is, in bytes, and its first slot. */
  readonly #firstByte: number;
  readonly #firstSlot: number;
  readonly #slotsPerPage: number;
  readonly #states: Uint8Array;

  /**
   * @param entriesAt - Where the entries start in the table's memory, which starts with a page. A multiple
   *   of `entryBytes`.
   * @param entryBytes - A power of two up to 4096.
   */
  constructor(slots: PagedSlots, entriesAt: number, entryBytes: number, release: ReleaseMemory) {
    this.#slots = slots;
    this.#release = release;
    this.#firstByte = Math.ceil(entriesAt / PAGE_BYTES) * PAGE_BYTES;
    this.#firstSlot = (this.#firstByte - entriesAt) / entryBytes;
    this.#slotsPerPage = PAGE_BYTES / entryBytes;
    const pages = Math.floor((slots.capacity - this.#firstSlot) / this.#slotsPerPage);
    this.#states = new Uint8Array(Math.max(0, pages));
  }

  /** Looks at the pages that start within `count` slots from `first` on. The lock must not be held. */
  look(first: number, count: number): void {
    const start = this.#pageFrom(first);
    const end = Math.min(this.#pageFrom(first + count), this.#states.length);
    for (let page = start; page < end; page++) this.#lookAt(page);
    let page = start;
    while (page < end) {
      const runEnd = this.#endOfRun(page, Math.min(end, page + RUN_PAGES_MAX));
      if (runEnd > page) this.#releaseRun(page, runEnd);
      page = Math.max(runEnd, page + 1);
    }
  }

  #lookAt(page: number): void {
    const state = this.#states[page] ?? IN_USE;
    if (!this.#areFree(page, 1)) this.#states[page] = IN_USE;
    else if (state === IN_USE) this.#states[page] = FREE;
    else if (state === FREE) this.#states[page] = FREE_AGAIN;
  }

  /** The end of the pages from `page` on that are due, at most `end`. */
  #endOfRun(page: number, end: number): number {
    let next = page;
    while (next < end && this.#states[next] === FREE_AGAIN) next++;
    return next;
  }

  #releaseRun(page: number, end: number): void {
    this.#slots.lock();
    // Another thread may have added a flow meanwhile; with the lock none does.
    if (this.#areFree(page, end - page)) {
      this.#release(this.#firstByte + page * PAGE_BYTES, (end - page) * PAGE_BYTES);
      this.#states.fill(RELEASED, page, end);
    }
    this.#slots.unlock();
  }

  #areFree(page: number, pages: number): boolean {
    const first = this.#firstSlot + page * this.#slotsPerPage;
    return this.#slots.areFree(first, pages * this.#slotsPerPage);
  }

  /** The first page that starts at `slot` or after it. */
  #pageFrom(slot: number): number {
    return Math.max(0, Math.ceil((slot - this.#firstSlot) / this.#slotsPerPage));
  }
}
