import type { Random } from '../core/capabilities.ts';
import { Awareness } from './awareness.ts';
import { BroadcastQueue } from './broadcast-queue.ts';
import { type GossipTuning, scaledPushPullMs } from './config.ts';
import type { Outbox, PushPullEffect } from './effects.ts';
import { isLive, type Member, type MemberView, newMember, viewMember } from './member.ts';
import { MemberTable } from './member-table.ts';
import { Membership } from './membership.ts';
import { encodeMessage, type Message, type Rumour } from './messages.ts';
import { type BroadcastSource, PacketSender } from './packet-sender.ts';
import { type PeerAddress, samePeer } from './peer-address.ts';
import { Periodic } from './periodic.ts';
import { type ProbeAction, Prober } from './prober.ts';
import { versionConflict } from './protocol-versions.ts';
import type { PushPullNode } from './push-pull.ts';
import { Reconnector } from './reconnector.ts';
import type { Wire } from './wire.ts';

/** Rounds of gossip come so many times as often as usual at most. Our own. */
const HASTE = 4;

/** This node, as others will know it. */
export interface SelfConfig extends PeerAddress {
  readonly name: string;
  readonly meta: Uint8Array;
  readonly versions: Uint8Array;
}

/** What {@link Swim} needs of its surroundings. */
export interface SwimParts {
  readonly tuning: GossipTuning;
  readonly random: Random;
  readonly outbox: Outbox;
  readonly wire: Wire;
  /** User messages, which ride where rumours leave room. */
  readonly queues: readonly BroadcastSource[];
  /** Encodes a push/pull to start, user state included. */
  readonly encodeState: (join: boolean) => Uint8Array;
  /** See {@link Sharing}. */
  readonly share?: ((member: Member) => Member) | undefined;
}

/**
 * The membership protocol: SWIM with suspicion, round-robin probes and memberlist's push/pull, as a
 * state machine. Inputs come with the time; what must be done goes to the outbox.
 */
export class Swim {
  /** For user messages to single nodes. */
  readonly sender: PacketSender;
  readonly #parts: SwimParts;
  readonly #self: SelfConfig;
  readonly #table: MemberTable;
  readonly #queue: BroadcastQueue;
  readonly #awareness: Awareness;
  readonly #membership: Membership;
  readonly #prober: Prober;
  readonly #reconnector: Reconnector;
  readonly #probeTurn: Periodic;
  readonly #gossipTurn: Periodic;
  #pushPullTurn: Periodic;
  /** Undefined unless a leave is being broadcast. */
  #leaveDeadlineMs: number | undefined;

  constructor(parts: SwimParts, self: SelfConfig, nowMs: number) {
    const { tuning, random } = parts;
    this.#parts = parts;
    this.#self = self;
    this.#table = new MemberTable(random);
    this.#queue = new BroadcastQueue(tuning.queueMax);
    this.#awareness = new Awareness(tuning.awarenessMaxMultiplier);
    const { outbox, wire } = parts;
    const shared = { tuning, table: this.#table, awareness: this.#awareness, outbox };
    const rumours = { queue: this.#queue, weftOnly: false };
    this.sender = new PacketSender({ ...shared, wire, queues: [rumours, ...parts.queues] });
    const tell = (to: PeerAddress, rumour: Rumour): void => this.sender.send(to, '', [rumour]);
    const { share } = parts;
    this.#membership = new Membership(
      { ...shared, queue: this.#queue, tell, share },
      newMember({ ...self, node: self.name, incarnation: 1 }),
    );
    const firstSequence = Math.floor(random.next() * 0x1_0000_0000);
    this.#prober = new Prober({ ...shared, self, firstSequence });
    // A random start keeps nodes that were started together from acting together.
    const turn = (intervalMs: number): Periodic => new Periodic(nowMs + random.next() * intervalMs);
    this.#probeTurn = turn(tuning.probeIntervalMs);
    this.#gossipTurn = turn(tuning.gossipIntervalMs);
    this.#pushPullTurn = turn(tuning.pushPullIntervalMs);
    const failed = () => this.#membership.failed();
    this.#reconnector = new Reconnector({ ...shared, random, failed }, nowMs);
  }

  /** 0 if this node keeps up; see {@link Awareness}. */
  get localHealth(): number {
    return this.#awareness.score;
  }

  /** Whether the goodbye was said. */
  get leaving(): boolean {
    return this.#membership.leaving;
  }

  /** This node first, then all others, reaped failed ones included. */
  members(): MemberView[] {
    const { self } = this.#membership;
    return [self, ...this.allMembers().filter((member) => member !== self)].map(viewMember);
  }

  /** All members, reaped failed ones included. */
  allMembers(): readonly Member[] {
    return [...this.#table.values(), ...this.#membership.failed()];
  }

  /** The member of this name, be it a failed one that was reaped. */
  find(name: string): Member | undefined {
    return this.#membership.find(name);
  }

  /** See {@link Membership.declareLeft}. */
  declareLeft(name: string): void {
    this.#membership.declareLeft(name);
  }

  /** Members that are alive, suspects apart, and all that are in the table. */
  memberCounts(): { readonly alive: number; readonly known: number } {
    let suspects = 0;
    for (const { state } of this.#table.troubled()) if (state === 'suspect') suspects++;
    return { alive: this.#table.liveCount - suspects, known: this.#table.size };
  }

  /** Members to tell another node of in a push/pull. */
  stateToPush(): Iterable<Member> {
    return this.#table.values();
  }

  /** Remembers `seeds` and asks each for its state. */
  join(seeds: readonly PeerAddress[]): void {
    for (const seed of seeds) {
      const isOther = !samePeer(seed, this.#self);
      if (isOther && this.#reconnector.addSeed(seed)) this.exchange(seed, 'join');
    }
  }

  /** Says goodbye; 'leaveFinished' follows when it has been sent often enough. */
  leave(nowMs: number): void {
    if (this.#membership.leaving) return;
    this.#membership.leave(nowMs);
    this.#leaveDeadlineMs = nowMs + this.#parts.tuning.leaveTimeoutMs;
    this.#finishLeave(nowMs);
  }

  /** Handles one message of a packet; user messages are not its business. */
  receive(message: Exclude<Message, { kind: 'user' }>, from: PeerAddress, nowMs: number): void {
    switch (message.kind) {
      case 'ping': {
        if (message.node !== '' && message.node !== this.#self.name) {
          this.#parts.outbox.count('ping_for_another');
          return;
        }
        const { source, sequence } = message;
        this.sender.send(source ?? from, source?.node ?? '', [{ kind: 'ack', sequence }]);
        return;
      }
      case 'indirectPing': {
        const actions = this.#prober.relay(message, from, nowMs);
        if (actions === undefined) this.#parts.outbox.count('relays_full');
        else this.#perform(actions, nowMs);
        return;
      }
      case 'ack':
        this.#perform(this.#prober.ack(message), nowMs);
        return;
      case 'nack':
        this.#prober.nack(message);
        return;
      default:
        this.#changing(nowMs, () => this.#membership.apply(message, nowMs, from));
    }
  }

  /** Starts with `members`, as if all had been heard of before. */
  restore(members: Iterable<Member>, nowMs: number): void {
    for (const member of members) if (member.name !== this.#self.name) this.#table.put(member);
    this.#restored(nowMs);
  }

  /** Starts with the members that `other` knows, this node among them. */
  adopt(other: Swim, nowMs: number): void {
    this.#table.adopt(other.#table);
    this.#restored(nowMs);
  }

  /** Nothing is to be told, and push/pulls come as rarely as in a cluster of this size. */
  #restored(nowMs: number): void {
    this.#queue.clear();
    this.#pushPullTurn = new Periodic(nowMs + this.#parts.random.next() * this.#pushPullMs());
  }

  #pushPullMs(): number {
    return scaledPushPullMs(this.#parts.tuning.pushPullIntervalMs, this.#table.size);
  }

  /** Makes the next round of gossip come soon: there is something to tell after there was nothing. */
  hasten(nowMs: number): void {
    this.#gossipTurn.hasten(nowMs, this.#parts.tuning.gossipIntervalMs / HASTE);
  }

  /** Tells `to` what is thought of the member `node` here, as a push/pull would of all. */
  tellOf(to: PeerAddress, node: string): void {
    const rumour = this.#membership.rumourOf(node);
    if (rumour !== undefined) this.sender.send(to, '', [rumour]);
  }

  /** Whether a live member has this address; its port may have been translated on the way. */
  isPeer({ address }: PeerAddress): boolean {
    for (const member of this.#table.values()) {
      if (member.address === address && isLive(member)) return true;
    }
    return false;
  }

  /**
   * Whether all these nodes and the known members understand each other. If not, the push/pull that
   * told of them must not be merged, nor its user state (memberlist `mergeRemoteState`).
   */
  understands(nodes: readonly PushPullNode[]): boolean {
    const conflict = versionConflict(nodes, this.#table.values());
    if (conflict !== undefined) this.#parts.outbox.count(`incompatible_${conflict}_version`);
    return conflict === undefined;
  }

  /** Merges the members of a push/pull. */
  merge(nodes: readonly PushPullNode[], nowMs: number): void {
    this.#membership.merge(nodes, nowMs);
  }

  /** Does what is due at `nowMs`. */
  tick(nowMs: number): void {
    const { tuning } = this.#parts;
    this.#changing(nowMs, () => this.#membership.expire(nowMs));
    this.#perform(this.#prober.expire(nowMs), nowMs);
    if (!this.#prober.busy && this.#probeTurn.take(nowMs, tuning.probeIntervalMs)) {
      this.#perform(this.#prober.begin(nowMs), nowMs);
    }
    if (this.#gossipTurn.take(nowMs, tuning.gossipIntervalMs)) this.#gossip(nowMs);
    if (this.#pushPullTurn.take(nowMs, this.#pushPullMs())) {
      for (const member of this.pick(1, ({ state }) => state === 'alive')) {
        this.exchange(member, 'sync');
      }
    }
    if (!this.#membership.leaving) {
      for (const peer of this.#reconnector.tick(nowMs)) this.exchange(peer, 'join');
    }
    this.#finishLeave(nowMs);
  }

  /** When {@link tick} is due next. */
  nextDeadlineMs(): number {
    return Math.min(
      this.#prober.busy ? Number.POSITIVE_INFINITY : this.#probeTurn.nextMs,
      this.#prober.nextDeadlineMs(),
      this.#membership.nextDeadlineMs(),
      this.#gossipTurn.nextMs,
      this.#pushPullTurn.nextMs,
      this.#reconnector.nextMs,
    );
  }

  /** Up to `count` other members that `accept` takes, at random. */
  pick(count: number, accept: (member: Member) => boolean): Member[] {
    return this.#table.pick(count, (member) => member.name !== this.#self.name && accept(member));
  }

  /** Starts a push/pull with `to`. */
  exchange(to: PeerAddress, purpose: PushPullEffect['purpose']): void {
    const bytes = this.#parts.encodeState(purpose === 'join');
    this.#parts.outbox.push({ kind: 'pushPull', to: plainPeer(to), bytes, purpose });
  }

  #perform(actions: readonly ProbeAction[], nowMs: number): void {
    for (const action of actions) {
      if (action.kind === 'send') this.sender.send(action.to, action.node, action.messages);
      else if (action.kind === 'suspect') {
        const { node, incarnation } = action;
        const from = this.#self.name;
        const suspect = { kind: 'suspect', node, incarnation, from } as const;
        this.#changing(nowMs, () => this.#membership.apply(suspect, nowMs));
      } else {
        const { ping, timeoutMs } = action;
        const bytes = encodeMessage(ping);
        const to = plainPeer(action.to);
        const { sequence } = ping;
        this.#parts.outbox.push({ kind: 'streamPing', to, bytes, sequence, timeoutMs });
      }
    }
  }

  /** A change of the membership: what is there to tell after there was nothing is told soon. */
  #changing(nowMs: number, change: () => void): void {
    const wasQuiet = this.#queue.size === 0;
    change();
    if (wasQuiet && this.#queue.size > 0) this.hasten(nowMs);
  }

  /** Sends queued rumours to random members, the recently dead included. */
  #gossip(nowMs: number): void {
    const { tuning } = this.#parts;
    const peers = this.pick(tuning.gossipNodes, (member) => {
      const recentlyDead = nowMs - member.stateChangedMs <= tuning.gossipToTheDeadMs;
      return isLive(member) || (member.state === 'dead' && recentlyDead);
    });
    for (const peer of peers) this.sender.sendBroadcasts(peer, peer.name);
  }

  #finishLeave(nowMs: number): void {
    if (this.#leaveDeadlineMs === undefined) return;
    // After its own leave, whoever still lives is another one.
    const told = !this.#queue.has(this.#self.name) || this.#table.liveCount === 0;
    if (!told && nowMs < this.#leaveDeadlineMs) return;
    this.#leaveDeadlineMs = undefined;
    this.#parts.outbox.event({ kind: 'leaveFinished' });
  }
}

/** Only the address: a member or a seed may carry more. */
function plainPeer({ address, port }: PeerAddress): PeerAddress {
  return { address, port };
}
