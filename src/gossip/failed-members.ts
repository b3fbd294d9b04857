import type { GossipTuning } from './config.ts';
import type { Member } from './member.ts';

/**
 * Failed members that are not in the member table any more: kept for reconnects, as in serf. BOUNDED by
 * `membersMax`: the oldest goes.
 */
export class FailedMembers {
  readonly #tuning: Pick<GossipTuning, 'membersMax' | 'reconnectTimeoutMs'>;
  readonly #members = new Map<string, Member>();

  constructor(tuning: Pick<GossipTuning, 'membersMax' | 'reconnectTimeoutMs'>) {
    this.#tuning = tuning;
  }

  get(name: string): Member | undefined {
    return this.#members.get(name);
  }

  /** The oldest first. */
  values(): Iterable<Member> {
    return this.#members.values();
  }

  add(member: Member): void {
    this.#members.set(member.name, member);
    const [oldest] = this.#members.keys();
    const isFull = this.#members.size > this.#tuning.membersMax;
    if (isFull && oldest !== undefined) this.#members.delete(oldest);
  }

  /** @returns whether there was one of this name */
  delete(name: string): boolean {
    return this.#members.delete(name);
  }

  /** Forgets those that failed too long ago. */
  expire(nowMs: number): void {
    for (const [name, { stateChangedMs }] of this.#members) {
      if (stateChangedMs + this.#tuning.reconnectTimeoutMs < nowMs) this.#members.delete(name);
    }
  }
}
