import { LamportClock } from './lamport-clock.ts';

/** Times that are remembered (serf config.go `EventBuffer`, `QueryBuffer`). */
export const RECENT_TIMES = 512;
/** Messages of one time. Serf has no bound; so many are sent at once by no cluster. */
export const RECENT_PER_TIME_MAX = 64;

/** 'new' is to be passed on; 'old' may have been seen or not; 'full' has no room to be known again. */
export type Admission = 'new' | 'seen' | 'old' | 'full';

/**
 * Tells messages apart that were not seen yet, by their Lamport time and a key (serf.go
 * `handleUserEvent`, `handleQuery`). BOUNDED by {@link RECENT_TIMES} and {@link RECENT_PER_TIME_MAX}.
 */
export class RecentMessages {
  readonly clock: LamportClock = new LamportClock();
  readonly #slots: { time: number; keys: Set<string> }[] = [];

  /** Takes note of a message; its time is witnessed. */
  admit(time: number, key: string): Admission {
    this.clock.witness(time);
    if (time + RECENT_TIMES < this.clock.time) return 'old';
    const slot = this.#slots[time % RECENT_TIMES];
    if (slot === undefined || slot.time < time) {
      this.#slots[time % RECENT_TIMES] = { time, keys: new Set([key]) };
      return 'new';
    }
    if (slot.time > time) return 'old';
    if (slot.keys.has(key)) return 'seen';
    if (slot.keys.size >= RECENT_PER_TIME_MAX) return 'full';
    slot.keys.add(key);
    return 'new';
  }
}
