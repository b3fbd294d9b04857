import type { Random } from '../core/capabilities.ts';
import type { GossipTuning } from './config.ts';
import type { Outbox } from './effects.ts';
import { isLive, type Member } from './member.ts';
import type { MemberTable } from './member-table.ts';
import { formatPeer, type PeerAddress } from './peer-address.ts';
import { Periodic } from './periodic.ts';

/** Addresses to join by that are remembered; later ones are dropped. */
export const SEEDS_MAX = 64;

/** What a {@link Reconnector} works on. */
export interface ReconnectorParts {
  readonly tuning: GossipTuning;
  readonly random: Random;
  readonly table: MemberTable;
  readonly outbox: Outbox;
  /** Failed members that are not in the table any more. */
  readonly failed: () => Iterable<Member>;
}

/** Whom to look for: seeds while this node is alone, and members that were lost, so that partitions heal. */
export class Reconnector {
  readonly #parts: ReconnectorParts;
  /** BOUNDED by {@link SEEDS_MAX}. */
  readonly #seeds = new Map<string, PeerAddress>();
  readonly #joinTurn: Periodic;
  readonly #reconnectTurn: Periodic;

  constructor(parts: ReconnectorParts, nowMs: number) {
    const { tuning, random } = parts;
    this.#parts = parts;
    this.#joinTurn = new Periodic(nowMs + tuning.joinRetryMs);
    this.#reconnectTurn = new Periodic(nowMs + random.next() * tuning.reconnectIntervalMs);
  }

  /** When {@link tick} is due next. */
  get nextMs(): number {
    return Math.min(this.#joinTurn.nextMs, this.#reconnectTurn.nextMs);
  }

  /** Remembers an address to join by. @returns false if there is no room; that is counted */
  addSeed(seed: PeerAddress): boolean {
    const isKnown = this.#seeds.has(formatPeer(seed));
    if (!isKnown && this.#seeds.size >= SEEDS_MAX) {
      this.#parts.outbox.count('seeds_full');
      return false;
    }
    this.#seeds.set(formatPeer(seed), seed);
    return true;
  }

  /** @returns whom to start a push/pull with now */
  tick(nowMs: number): PeerAddress[] {
    const { tuning, table } = this.#parts;
    const isAlone = table.liveCount <= 1;
    const joins = this.#joinTurn.take(nowMs, tuning.joinRetryMs);
    const reconnects = this.#reconnectTurn.take(nowMs, tuning.reconnectIntervalMs);
    if (isAlone) return joins ? this.#lostSeeds() : [];
    return reconnects ? this.#someoneLost() : [];
  }

  /**
   * A failed member, or a seed that is no member now, or none. On average each one is tried once per
   * interval by some live member (serf `reconnect`).
   */
  #someoneLost(): PeerAddress[] {
    const { random, table, failed } = this.#parts;
    const dead = [...table.troubled()].filter(({ state }) => state === 'dead');
    const lost = [...dead, ...failed(), ...this.#lostSeeds()];
    if (random.next() >= lost.length / table.liveCount) return [];
    const peer = lost[Math.floor(random.next() * lost.length)];
    return peer === undefined ? [] : [peer];
  }

  /** Seeds that no live member has the address of. */
  #lostSeeds(): PeerAddress[] {
    const lost = new Map(this.#seeds);
    if (lost.size === 0) return [];
    for (const member of this.#parts.table.values()) {
      if (isLive(member)) lost.delete(formatPeer(member));
    }
    return [...lost.values()];
  }
}
