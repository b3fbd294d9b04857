import type { BroadcastQueue } from './broadcast-queue.ts';
import type { GossipTuning } from './config.ts';
import { crc32 } from './crc32.ts';
import type { MemberChange, Outbox } from './effects.ts';
import { LamportClock } from './lamport-clock.ts';
import type { MemberState } from './member.ts';
import { MESSAGE_TYPE } from './messages.ts';
import { RecentMessages } from './recent-messages.ts';
import {
  decodeSerfMessage,
  encodeIntent,
  encodeUserState,
  type Intent,
  type SerfMessage,
  type SerfState,
} from './serf-messages.ts';

/** How long an intent about a node that is no member is kept (serf `RecentIntentTimeout`). */
const INTENT_KEPT_MS = 300_000;
/** Room for the containers around a broadcast: CRC, compound. One that never fits would stay. */
const PACKET_OVERHEAD_BYTES = 16;

/** What {@link SerfDelegate} needs of its surroundings. */
export interface SerfDelegateParts {
  readonly tuning: Pick<GossipTuning, 'membersMax' | 'packetBytesMax'>;
  readonly outbox: Pick<Outbox, 'count'>;
  /** Broadcasts to all members, whatever they run. */
  readonly queue: Pick<BroadcastQueue, 'push' | 'has'>;
  /** This node's name. */
  readonly self: string;
  /** All known members, the failed ones that were reaped included. */
  readonly members: () => Iterable<{ readonly name: string; readonly state: MemberState }>;
  /** State of a member; undefined if there is none of this name. */
  readonly stateOf: (name: string) => MemberState | undefined;
  /** A failed member has left, by a forced leave. */
  readonly declareLeft: (name: string) => void;
}

/** The last word on whether a member stays. */
interface Status {
  /** Lamport time of the last intent. */
  time: number;
  /** It said that it leaves: when it goes, it has not failed. */
  leaving: boolean;
}

/**
 * What serf adds to memberlist, as far as a member has to take part in it (serf delegate.go,
 * serf.go): the Lamport clocks, the intents to join and to leave, and passing on events and queries,
 * which are not answered. Broadcasts go to the queue.
 */
export class SerfDelegate {
  readonly #parts: SerfDelegateParts;
  readonly #clock = new LamportClock();
  readonly #events = new RecentMessages();
  readonly #queries = new RecentMessages();
  /** BOUNDED by the members: see {@link collect}. */
  readonly #statuses = new Map<string, Status>();
  /** Last intents about nodes that are no members. BOUNDED by `membersMax` of the tuning. */
  readonly #intents = new Map<string, Intent & { readonly untilMs: number }>();
  #leaving = false;

  constructor(parts: SerfDelegateParts) {
    this.#parts = parts;
  }

  /** Handles the payload of a `user` message; what is new in a cluster is passed on, once. */
  receive(payload: Uint8Array, nowMs: number): void {
    const message = decodeSerfMessage(payload);
    if (typeof message === 'string') {
      this.#parts.outbox.count(`serf_message_${message}`);
    } else if (this.#takesOn(message, nowMs)) {
      this.#broadcast(keyOf(message), payload);
    }
  }

  /** Serf's part of the state to push, with `weft` in it. */
  wrapState(weft: Uint8Array): Uint8Array {
    const members = [...this.#parts.members()];
    const serf: SerfState = {
      time: this.#clock.time,
      statusTimes: new Map(
        members.map(({ name }) => [name, this.#statuses.get(name)?.time ?? 0] as const),
      ),
      left: members.filter(({ state }) => state === 'left').map(({ name }) => name),
      eventTime: this.#events.clock.time,
      queryTime: this.#queries.clock.time,
    };
    return encodeUserState({ serf, weft });
  }

  /** Merges serf's part of a push/pull. To be called when the members in it are known. */
  merge(state: SerfState, nowMs: number): void {
    // Nothing was said yet at the times that a state tells of.
    this.#clock.witness(Math.max(0, state.time - 1));
    this.#events.clock.witness(Math.max(0, state.eventTime - 1));
    this.#queries.clock.witness(Math.max(0, state.queryTime - 1));
    const left = new Set(state.left);
    for (const node of left) {
      // When it left is not told, but that was after the intent that is.
      const time = Math.min((state.statusTimes.get(node) ?? 0) + 1, Number.MAX_SAFE_INTEGER);
      this.#heed({ kind: 'leave', time, node }, nowMs);
    }
    for (const [node, time] of state.statusTimes) {
      if (!left.has(node) && time > 0) this.#heed({ kind: 'join', time, node }, nowMs);
    }
  }

  /** Tells all that this node is here to stay, at a time beyond all that was said of it. */
  announceJoin(): void {
    // Serf does not step on first. With one step more it outbids what others make of a leave of this
    // node's last life when they push their state: that leave's time and 1.
    this.#announce('join', this.#clock.increment());
  }

  /** Tells all that this node is about to leave; what is said of it is not refuted any more. */
  announceLeave(): void {
    this.#leaving = true;
    const { time } = this.#clock;
    this.#clock.increment();
    this.#announce('leave', time);
  }

  /** Whether the last intent of this node has been sent as often as broadcasts are. */
  get announced(): boolean {
    return !this.#parts.queue.has(intentKey(this.#parts.self));
  }

  /** Takes note of what happened to a member. */
  memberChanged(change: MemberChange, name: string): void {
    if (change === 'joined' || change === 'returned') {
      const intent = this.#intents.get(name);
      this.#intents.delete(name);
      const status = this.#statusOf(name);
      status.leaving = intent?.kind === 'leave' && intent.time > status.time;
      status.time = Math.max(status.time, intent?.time ?? 0);
    } else if (change === 'failed' && this.#statuses.get(name)?.leaving === true) {
      this.#parts.declareLeft(name);
    }
  }

  /** Forgets what is kept of nodes that are no members any more, and old intents. */
  collect(nowMs: number): void {
    for (const name of this.#statuses.keys()) {
      if (this.#parts.stateOf(name) === undefined) this.#statuses.delete(name);
    }
    for (const [name, { untilMs }] of this.#intents) {
      if (untilMs <= nowMs) this.#intents.delete(name);
    }
  }

  /** Whether others should hear of `message` from here. */
  #takesOn(message: SerfMessage, nowMs: number): boolean {
    if (message.kind !== 'event' && message.kind !== 'query') return this.#heed(message, nowMs);
    const recent = message.kind === 'event' ? this.#events : this.#queries;
    const admission = recent.admit(message.time, keyOf(message));
    if (admission === 'old' || admission === 'full') {
      this.#parts.outbox.count(`serf_${message.kind}_${admission}`);
    }
    return admission === 'new' && (message.kind === 'event' || message.broadcast);
  }

  /** serf.go `handleNodeJoinIntent`, `handleNodeLeaveIntent`. @returns whether it is news */
  #heed(intent: Intent, nowMs: number): boolean {
    const { kind, time, node } = intent;
    const { self, stateOf, declareLeft } = this.#parts;
    this.#clock.witness(time);
    const state = stateOf(node);
    if (state === undefined) return this.#keepIntent(intent, nowMs);
    const status = this.#statusOf(node);
    if (time <= status.time) return false;
    if (kind === 'leave' && node === self && !this.#leaving) {
      this.announceJoin();
      return false;
    }
    status.time = time;
    status.leaving = kind === 'leave';
    if (kind === 'leave' && state === 'dead') declareLeft(node);
    return true;
  }

  #keepIntent(intent: Intent, nowMs: number): boolean {
    const { node, time } = intent;
    const known = this.#intents.get(node);
    if (known !== undefined && time <= known.time) return false;
    if (known === undefined && this.#intents.size >= this.#parts.tuning.membersMax) {
      // In place of another one it would let that one pass as new again, and so on for ever.
      this.#parts.outbox.count('serf_intents_full');
      return false;
    }
    this.#intents.set(node, { ...intent, untilMs: nowMs + INTENT_KEPT_MS });
    return true;
  }

  #announce(kind: Intent['kind'], time: number): void {
    const { self } = this.#parts;
    this.#clock.witness(time);
    const status = this.#statusOf(self);
    status.time = Math.max(status.time, time);
    this.#broadcast(intentKey(self), encodeIntent({ kind, time, node: self }));
  }

  #broadcast(key: string, payload: Uint8Array): void {
    if (payload.length + PACKET_OVERHEAD_BYTES > this.#parts.tuning.packetBytesMax) {
      this.#parts.outbox.count('serf_message_too_large');
      return;
    }
    const message = new Uint8Array(payload.length + 1);
    message[0] = MESSAGE_TYPE.user;
    message.set(payload, 1);
    this.#parts.queue.push(key, message);
  }

  #statusOf(name: string): Status {
    const known = this.#statuses.get(name);
    if (known !== undefined) return known;
    const status = { time: 0, leaving: false };
    this.#statuses.set(name, status);
    return status;
  }
}

function intentKey(node: string): string {
  return `intent ${node}`;
}

/** What makes a message the same as another one of its time, as serf has it. */
function keyOf(message: SerfMessage): string {
  switch (message.kind) {
    case 'event': {
      const { name, payload, time } = message;
      const contents = `${name.length} ${crc32(name)} ${payload.length} ${crc32(payload)}`;
      return `event ${time} ${contents}`;
    }
    case 'query':
      return `query ${message.time} ${message.id}`;
    default:
      return intentKey(message.node);
  }
}
