import type { Clock } from '../core/capabilities.ts';
import { formatIp, type Ip } from '../core/ip.ts';
import {
  LIMITED_ADDRESSES_MAX,
  LOADED_BURST,
  LOADED_MESSAGES_PER_SECOND,
  UNDER_LOAD_MS,
  UNLOADED_MESSAGES_PER_SECOND,
} from './constants.ts';

const SECOND_MS = 1_000;

interface Bucket {
  tokens: number;
  filledAtMs: number;
}

/**
 * Says when handshake messages come faster than they should be answered, and shares what is answered
 * then between the addresses that have proven themselves by a cookie.
 */
export class HandshakeLoad {
  readonly #clock: Clock;
  #second = Number.NEGATIVE_INFINITY;
  #messages = 0;
  #underLoadUntilMs = Number.NEGATIVE_INFINITY;
  /** BOUNDED by LIMITED_ADDRESSES_MAX; those that have been quiet longest leave first. */
  readonly #buckets = new Map<string, Bucket>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Counts one message. @returns whether the node is under load with it */
  count(): boolean {
    const nowMs = this.#clock.nowMs();
    const second = Math.floor(nowMs / SECOND_MS);
    this.#messages = second === this.#second ? this.#messages + 1 : 1;
    this.#second = second;
    if (this.#messages > UNLOADED_MESSAGES_PER_SECOND) {
      this.#underLoadUntilMs = nowMs + UNDER_LOAD_MS;
    }
    return nowMs < this.#underLoadUntilMs;
  }

  /** Whether one more message of `address` may be answered under load. */
  allows(address: Ip): boolean {
    const nowMs = this.#clock.nowMs();
    const key = formatIp(address);
    const bucket = this.#buckets.get(key) ?? { tokens: LOADED_BURST, filledAtMs: nowMs };
    const earned = ((nowMs - bucket.filledAtMs) / SECOND_MS) * LOADED_MESSAGES_PER_SECOND;
    bucket.tokens = Math.min(LOADED_BURST, bucket.tokens + earned);
    bucket.filledAtMs = nowMs;
    this.#buckets.delete(key);
    this.#forgetFull(nowMs);
    if (this.#buckets.size >= LIMITED_ADDRESSES_MAX) return false;
    this.#buckets.set(key, bucket); // Last: the order of the map is that of use.
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }

  /** A bucket that has filled up again says no more than none. */
  #forgetFull(nowMs: number): void {
    const fullAfterMs = (LOADED_BURST / LOADED_MESSAGES_PER_SECOND) * SECOND_MS;
    for (const [key, bucket] of this.#buckets) {
      if (nowMs - bucket.filledAtMs < fullAfterMs) return;
      this.#buckets.delete(key);
    }
  }
}
