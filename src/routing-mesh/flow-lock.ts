/** Sets that one holder of the lock may change: a new flow, what makes room for it, and what it replaces. */
const OPEN_SETS_MAX = 64;

/** Where a {@link FlowLock} has its words, as indexes of 32-bit words. */
export interface FlowLockPlace {
  readonly words: Int32Array;
  /** The lock itself. */
  readonly lock: number;
  /** The first set's version, and the distance to the next one's. */
  readonly versions: number;
  readonly stride: number;
  /** Whether there are other threads. Without them nothing here does anything. */
  readonly isShared: boolean;
}

/**
 * What keeps threads that share a flow table apart: one lock for all that change it, and a version per
 * set for those that only read. A set's version is odd while it is being changed. Waiting is spinning: changes
 * take about a microsecond, and a thread of packets has nothing else to do. Allocates nothing.
 */
export class FlowLock {
  readonly isShared: boolean;
  readonly #words: Int32Array;
  readonly #lock: number;
  readonly #versions: number;
  readonly #stride: number;
  /** Words of the versions that are odd by this thread's doing. */
  readonly #open = new Int32Array(OPEN_SETS_MAX);
  #openCount = 0;

  constructor({ words, lock, versions, stride, isShared }: FlowLockPlace) {
    this.#words = words;
    this.#lock = lock;
    this.#versions = versions;
    this.#stride = stride;
    this.isShared = isShared;
  }

  /** Waits until no other thread changes the table. */
  acquire(): void {
    if (!this.isShared) return;
    while (Atomics.compareExchange(this.#words, this.#lock, 0, 1) !== 0) {
      while (Atomics.load(this.#words, this.#lock) !== 0);
    }
  }

  /** Says that `set` is about to be changed; the lock must be held. */
  open(set: number): void {
    if (!this.isShared) return;
    const word = this.#versions + set * this.#stride;
    if ((Atomics.load(this.#words, word) & 1) !== 0) return;
    Atomics.add(this.#words, word, 1);
    this.#open[this.#openCount] = word;
    this.#openCount += 1;
  }

  /** Ends all changes, and lets the next thread in. */
  release(): void {
    if (!this.isShared) return;
    for (let index = 0; index < this.#openCount; index++) {
      Atomics.add(this.#words, this.#open[index] ?? 0, 1);
    }
    this.#openCount = 0;
    Atomics.store(this.#words, this.#lock, 0);
  }

  /** Waits until `set` is not being changed. */
  version(set: number): number {
    if (!this.isShared) return 0;
    const word = this.#versions + set * this.#stride;
    let version = Atomics.load(this.#words, word);
    while ((version & 1) !== 0) version = Atomics.load(this.#words, word);
    return version;
  }

  /** Whether `set` was left alone since {@link FlowLock.version} answered `version`. */
  isAt(set: number, version: number): boolean {
    if (!this.isShared) return true;
    return Atomics.load(this.#words, this.#versions + set * this.#stride) === version;
  }

  /** Frees the lock and the versions, whoever held them. Only before other threads start. */
  reset(sets: number): void {
    this.#words[this.#lock] = 0;
    for (let set = 0; set < sets; set++) this.#words[this.#versions + set * this.#stride] = 0;
  }
}
