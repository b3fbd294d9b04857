import type { Random } from '../core/capabilities.ts';
import type { Alive } from './messages.ts';
import type { PeerAddress } from './peer-address.ts';
import type { Suspicion } from './suspicion.ts';

/** In the order of their number on the wire (memberlist `NodeStateType`). */
export const MEMBER_STATES = ['alive', 'suspect', 'dead', 'left'] as const;
/** 'suspect' still counts as running; 'dead' is failed, 'left' said goodbye. */
export type MemberState = (typeof MEMBER_STATES)[number];

/** A member as the agent sees it. */
export interface MemberView extends PeerAddress {
  readonly name: string;
  readonly state: MemberState;
  readonly incarnation: number;
  readonly meta: Uint8Array;
  /** Protocol min, max, current, delegate min, max, current. */
  readonly versions: Uint8Array;
}

/** A member as the protocol keeps it. */
export interface Member {
  readonly name: string;
  address: string;
  port: number;
  state: MemberState;
  incarnation: number;
  meta: Uint8Array;
  versions: Uint8Array;
  stateChangedMs: number;
  /** Set exactly while `state` is 'suspect'. */
  suspicion: Suspicion | undefined;
  /** No conflict event, and no hint that it is thought dead, for this member before then. */
  quietUntilMs: number;
}

/** @returns whether `member` is taken to be running */
export function isLive(member: { readonly state: MemberState }): boolean {
  return member.state === 'alive' || member.state === 'suspect';
}

/** A copy of what others may see of `member`. */
export function viewMember(member: Member): MemberView {
  const { name, address, port, state, incarnation, meta, versions } = member;
  return { name, address, port, state, incarnation, meta, versions };
}

/** A member as an alive message tells of it. */
export function newMember(alive: Omit<Alive, 'kind'>, nowMs: number): Member {
  const { node: name, address, port, incarnation, meta, versions } = alive;
  return {
    ...{ name, address, port, incarnation, meta, versions },
    ...{ state: 'alive', stateChangedMs: nowMs, suspicion: undefined, quietUntilMs: 0 },
  };
}

/** What `member`, in its present incarnation, is told of as. */
export function aliveOf(member: Member): Alive {
  const { name: node, address, port, incarnation, meta, versions } = member;
  return { kind: 'alive', node, address, port, incarnation, meta, versions };
}

/** The known members in the order of probing. BOUNDED by its user: `membersMax` of the tuning. */
export class MemberTable {
  readonly #random: Random;
  readonly #byName = new Map<string, Member>();
  /** All members of `#byName`, shuffled at each wrap. */
  readonly #ring: Member[] = [];
  #ringNext = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  get size(): number {
    return this.#ring.length;
  }

  get(name: string): Member | undefined {
    return this.#byName.get(name);
  }

  values(): Iterable<Member> {
    return this.#byName.values();
  }

  /** Adds a member at a random place of the ring, so that its first probe is not always last. */
  add(member: Member): void {
    this.#byName.set(member.name, member);
    const place = this.#below(this.#ring.length + 1);
    const moved = this.#ring[place];
    this.#ring[place] = member;
    if (moved !== undefined) this.#ring.push(moved);
  }

  delete(name: string): void {
    const member = this.#byName.get(name);
    if (member === undefined) return;
    this.#byName.delete(name);
    const place = this.#ring.indexOf(member);
    this.#ring.splice(place, 1);
    if (place < this.#ringNext) this.#ringNext--;
  }

  /**
   * The next member to probe: round robin over a shuffled list, so that each is probed once per
   * round (SWIM section 4.3).
   */
  nextOnRing(accept: (member: Member) => boolean): Member | undefined {
    for (let looked = 0; looked <= this.#ring.length; looked++) {
      if (this.#ringNext >= this.#ring.length) {
        this.#shuffle(this.#ring, this.#ring.length);
        this.#ringNext = 0;
      }
      const member = this.#ring[this.#ringNext++];
      if (member !== undefined && accept(member)) return member;
    }
    return undefined;
  }

  /** Up to `count` different members that `accept` takes, at random. */
  pick(count: number, accept: (member: Member) => boolean): Member[] {
    const candidates = this.#ring.filter(accept);
    this.#shuffle(candidates, count);
    return candidates.slice(0, count);
  }

  /** Fisher-Yates over the first `count` places of `items`. */
  #shuffle(items: Member[], count: number): void {
    for (let place = 0; place < Math.min(count, items.length); place++) {
      const other = place + this.#below(items.length - place);
      const a = items[place];
      const b = items[other];
      if (a === undefined || b === undefined) return;
      items[place] = b;
      items[other] = a;
    }
  }

  #below(limit: number): number {
    return Math.floor(this.#random.next() * limit);
  }
}
