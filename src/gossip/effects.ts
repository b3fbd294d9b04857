import type { Json } from '../core/store.ts';
import type { MemberView } from './member.ts';
import type { PeerAddress } from './peer-address.ts';

/**
 * What happened to a member: 'joined' (first seen, or back after it left), 'updated' (meta or
 * address), 'suspected', 'refuted' (a suspect lives), 'failed', 'left', 'returned' (it had failed).
 */
export type MemberChange =
  | 'joined'
  | 'updated'
  | 'suspected'
  | 'refuted'
  | 'failed'
  | 'left'
  | 'returned';

/** One endpoint of a table as the agent sees it; the value's meaning is the agent's. */
export interface Endpoint {
  readonly key: string;
  readonly value: Json;
}

/** What became different in what is visible of one node's endpoints. */
export interface EndpointChange {
  readonly node: string;
  readonly added: readonly Endpoint[];
  readonly changed: readonly Endpoint[];
  readonly removed: readonly string[];
}

/** News for the agent. `conflict`: another node claims the name of `member` at another address. */
export type GossipEvent =
  | { readonly kind: 'member'; readonly change: MemberChange; readonly member: MemberView }
  | { readonly kind: 'conflict'; readonly member: MemberView; readonly claimed: PeerAddress }
  | ({ readonly kind: 'endpoints' } & EndpointChange)
  | { readonly kind: 'leaveFinished' };

/** A push/pull to start: connect, write `bytes`, read one push/pull, hand both back. All by `Wire`. */
export interface PushPullEffect {
  readonly kind: 'pushPull';
  readonly to: PeerAddress;
  /** A whole stream message, for {@link Wire.sealStream}. */
  readonly bytes: Uint8Array;
  /** Why: to join by a seed or a lost member, or regularly. */
  readonly purpose: 'join' | 'sync';
}

/** A ping over TCP, for a member that does not answer by UDP. */
export interface StreamPingEffect {
  readonly kind: 'streamPing';
  readonly to: PeerAddress;
  readonly bytes: Uint8Array;
  /** What the ack must carry. */
  readonly sequence: number;
  /** After so long the answer is of no use. */
  readonly timeoutMs: number;
}

/** A user message by stream that is answered by one: write `bytes`, read one, hand its payload back. */
export interface AskEffect {
  readonly kind: 'ask';
  readonly to: PeerAddress;
  /** A whole stream message, for {@link Wire.sealStream}. */
  readonly bytes: Uint8Array;
}

/** What the caller must now do, in order. Nothing in this folder performs anything itself. */
export type Effect =
  | { readonly kind: 'send'; readonly to: PeerAddress; readonly bytes: Uint8Array }
  | PushPullEffect
  | StreamPingEffect
  | AskEffect
  | { readonly kind: 'event'; readonly event: GossipEvent };

/** Where the parts of one state machine leave effects and count what they drop. */
export class Outbox {
  #effects: Effect[] = [];
  #settled = 0;
  /** BOUNDED: one entry per drop reason in the source. */
  readonly #counters = new Map<string, number>();

  push(effect: Effect): void {
    this.#effects.push(effect);
  }

  event(event: GossipEvent): void {
    this.#effects.push({ kind: 'event', event });
  }

  count(name: string): void {
    this.#counters.set(name, (this.#counters.get(name) ?? 0) + 1);
  }

  /** The effects since the last call or {@link drain}; they stay in. */
  unsettled(): Effect[] {
    const effects = this.#effects.slice(this.#settled);
    this.#settled = this.#effects.length;
    return effects;
  }

  /** Takes all effects out. */
  drain(): Effect[] {
    const effects = this.#effects;
    this.#effects = [];
    this.#settled = 0;
    return effects;
  }

  counters(): Record<string, number> {
    return Object.fromEntries(this.#counters);
  }
}
