import { fnv1a } from './fnv1a.ts';

/** Seed of this index' hash: others of the same names are independent of it. */
const HASH_SEED = 3;
/** A place that holds no slot. */
const EMPTY = -1;
const PLACES_MIN = 16;

/**
 * Numbers names densely, so that what is kept per name can lie in arrays: a node of a large cluster
 * keeps several things per member, and a `Map` for each would cost forty bytes a name and more. Slots
 * are numbered from 0; those of removed names are given out again. Linear probing with backward
 * shifts (Knuth, TAOCP 6.4, algorithm R). BOUNDED by its users: `membersMax` of the tuning.
 */
export class NameIndex {
  /** Slots by hash; a power of two, at least twice as many as there are names. */
  #places = new Int32Array(PLACES_MIN).fill(EMPTY);
  #names: (string | undefined)[] = [];
  #free: number[] = [];
  #size = 0;
  /** Whether a clone has the same arrays: whoever changes them first makes copies. */
  #isShared = false;

  /** An index with the same slots. */
  clone(): NameIndex {
    const copy = new NameIndex();
    copy.#places = this.#places;
    copy.#names = this.#names;
    copy.#free = this.#free;
    copy.#size = this.#size;
    copy.#isShared = true;
    this.#isShared = true;
    return copy;
  }

  /** Names that have a slot. */
  get size(): number {
    return this.#size;
  }

  /** Slots are below this. */
  get limit(): number {
    return this.#names.length;
  }

  /** The name that has `slot`; undefined if none has. */
  nameOf(slot: number): string | undefined {
    return this.#names[slot];
  }

  /** The slot of `name`; undefined if it has none. */
  get(name: string): number | undefined {
    const slot = this.#places[this.#placeOf(name)];
    return slot === EMPTY ? undefined : slot;
  }

  /** The slot of `name`, a new one if it has none. */
  add(name: string): number {
    const known = this.get(name);
    if (known !== undefined) return known;
    this.#unshare();
    if ((this.#size + 1) * 2 > this.#places.length) this.#grow();
    const slot = this.#free.pop() ?? this.#names.length;
    this.#names[slot] = name;
    this.#places[this.#placeOf(name)] = slot;
    this.#size++;
    return slot;
  }

  /** @returns the slot that `name` had, which is free now; undefined if it had none */
  delete(name: string): number | undefined {
    const place = this.#placeOf(name);
    const slot = this.#places[place] ?? EMPTY;
    if (slot === EMPTY) return undefined;
    this.#unshare();
    this.#names[slot] = undefined;
    this.#free.push(slot);
    this.#size--;
    this.#close(place);
    return slot;
  }

  /** Moves what follows an emptied place forward, as far as it may be found there. */
  #close(emptied: number): void {
    const mask = this.#places.length - 1;
    let hole = emptied;
    for (let place = (hole + 1) & mask; ; place = (place + 1) & mask) {
      const slot = this.#places[place] ?? EMPTY;
      if (slot === EMPTY) break;
      const home = this.#homeOf(this.#names[slot] ?? '');
      // It may move unless its home lies between the hole and itself.
      if (((place - home) & mask) >= ((place - hole) & mask)) {
        this.#places[hole] = slot;
        hole = place;
      }
    }
    this.#places[hole] = EMPTY;
  }

  #unshare(): void {
    if (!this.#isShared) return;
    this.#places = this.#places.slice();
    this.#names = this.#names.slice();
    this.#free = this.#free.slice();
    this.#isShared = false;
  }

  #homeOf(name: string): number {
    return fnv1a(name, HASH_SEED) & (this.#places.length - 1);
  }

  /** Where `name` is, or would be. */
  #placeOf(name: string): number {
    const mask = this.#places.length - 1;
    for (let place = this.#homeOf(name); ; place = (place + 1) & mask) {
      const slot = this.#places[place] ?? EMPTY;
      if (slot === EMPTY || this.#names[slot] === name) return place;
    }
  }

  #grow(): void {
    this.#places = new Int32Array(this.#places.length * 2).fill(EMPTY);
    for (const [slot, name] of this.#names.entries()) {
      if (name !== undefined) this.#places[this.#placeOf(name)] = slot;
    }
  }
}
