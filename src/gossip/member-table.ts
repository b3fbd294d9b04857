import type { Random } from '../core/capabilities.ts';
import { isLive, type Member } from './member.ts';
import { NameIndex } from './name-index.ts';

/** Random draws per member that is wanted, before a pick looks at all (memberlist `kRandomNodes`). */
const DRAWS_PER_PICK = 16;

/**
 * The known members in the order of probing. BOUNDED by its user: `membersMax` of the tuning. Nothing
 * but a walk over all of them takes longer in a larger cluster.
 */
export class MemberTable {
  readonly #random: Random;
  #index = new NameIndex();
  #bySlot: (Member | undefined)[] = [];
  /** Members that are not alive: the few that something is to be done about. */
  readonly #troubled = new Map<string, Member>();
  /** Slots of all members, shuffled at each wrap. */
  #ring = new Int32Array(16);
  #ringSize = 0;
  #ringNext = 0;
  #live = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Knows what `other` knows from now on. */
  adopt(other: MemberTable): void {
    this.#index = other.#index.clone();
    this.#bySlot = other.#bySlot.slice();
    this.#ring = other.#ring.slice();
    this.#ringSize = other.#ringSize;
    this.#ringNext = this.#ringSize; // the order is its own
    this.#live = other.#live;
    this.#troubled.clear();
    for (const member of other.#troubled.values()) this.#troubled.set(member.name, member);
  }

  get size(): number {
    return this.#index.size;
  }

  /** Members that are taken to be running. */
  get liveCount(): number {
    return this.#live;
  }

  get(name: string): Member | undefined {
    const slot = this.#index.get(name);
    return slot === undefined ? undefined : this.#bySlot[slot];
  }

  *values(): Generator<Member, void, undefined> {
    for (const member of this.#bySlot) if (member !== undefined) yield member;
  }

  /** Members that are suspect, dead or left. May be changed while it is walked. */
  troubled(): Iterable<Member> {
    return this.#troubled.values();
  }

  /** Adds a member, or puts it in the place of the one of its name. */
  put(member: Member): void {
    const { name } = member;
    const known = this.#index.get(name);
    const slot = known ?? this.#index.add(name);
    const before = this.#bySlot[slot];
    this.#bySlot[slot] = member;
    if (before !== undefined && isLive(before)) this.#live--;
    if (isLive(member)) this.#live++;
    if (member.state === 'alive') this.#troubled.delete(name);
    else this.#troubled.set(name, member);
    if (known === undefined) this.#enterRing(slot);
  }

  delete(name: string): void {
    const member = this.get(name);
    const slot = this.#index.delete(name);
    if (member === undefined || slot === undefined) return;
    this.#bySlot[slot] = undefined;
    this.#troubled.delete(name);
    if (isLive(member)) this.#live--;
    const place = this.#ring.subarray(0, this.#ringSize).indexOf(slot);
    this.#ring.copyWithin(place, place + 1, this.#ringSize);
    this.#ringSize--;
    if (place < this.#ringNext) this.#ringNext--;
  }

  /**
   * The next member to probe: round robin over a shuffled list, so that each is probed once per
   * round (SWIM section 4.3).
   */
  nextOnRing(accept: (member: Member) => boolean): Member | undefined {
    for (let looked = 0; looked <= this.#ringSize; looked++) {
      if (this.#ringNext >= this.#ringSize) {
        this.#shuffle();
        this.#ringNext = 0;
      }
      const member = this.#bySlot[this.#ring[this.#ringNext++] ?? -1];
      if (member !== undefined && accept(member)) return member;
    }
    return undefined;
  }

  /** Up to `count` different members that `accept` takes, at random. */
  pick(count: number, accept: (member: Member) => boolean): Member[] {
    const picked: Member[] = [];
    // Drawn blindly while that is likely to find some: a walk over thousands for each packet is not.
    const isLarge = this.#ringSize > count * DRAWS_PER_PICK * 2;
    for (let draw = 0; isLarge && draw < count * DRAWS_PER_PICK; draw++) {
      if (picked.length === count) return picked;
      const member = this.#bySlot[this.#ring[this.#below(this.#ringSize)] ?? -1];
      const isNew = member !== undefined && !picked.includes(member);
      if (isNew && accept(member)) picked.push(member);
    }
    return picked.length === count ? picked : this.#pickOfAll(count, accept);
  }

  #pickOfAll(count: number, accept: (member: Member) => boolean): Member[] {
    const candidates: Member[] = [];
    for (const member of this.#bySlot) {
      if (member !== undefined && accept(member)) candidates.push(member);
    }
    for (let place = 0; place < Math.min(count, candidates.length); place++) {
      const other = place + this.#below(candidates.length - place);
      const [a, b] = [candidates[place], candidates[other]];
      if (a !== undefined && b !== undefined) {
        candidates[place] = b;
        candidates[other] = a;
      }
    }
    return candidates.slice(0, count);
  }

  /** At a random place, so that the first probe of a new member is not always the last of a round. */
  #enterRing(slot: number): void {
    if (this.#ringSize === this.#ring.length) {
      const grown = new Int32Array(this.#ring.length * 2);
      grown.set(this.#ring);
      this.#ring = grown;
    }
    const place = this.#below(this.#ringSize + 1);
    this.#ring[this.#ringSize++] = this.#ring[place] ?? slot;
    this.#ring[place] = slot;
  }

  /** Fisher-Yates. */
  #shuffle(): void {
    const ring = this.#ring;
    for (let place = 0; place < this.#ringSize; place++) {
      const other = place + this.#below(this.#ringSize - place);
      const slot = ring[place] ?? 0;
      ring[place] = ring[other] ?? 0;
      ring[other] = slot;
    }
  }

  #below(limit: number): number {
    return Math.floor(this.#random.next() * limit);
  }
}
