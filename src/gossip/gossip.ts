import { invariant } from '../core/invariant.ts';
import { BroadcastQueue } from './broadcast-queue.ts';
import { checkTuning, type GossipTuning, LAN_TUNING } from './config.ts';
import { type AskEffect, type Effect, Outbox, type PushPullEffect } from './effects.ts';
import { ENDPOINT_MAGIC } from './endpoint-messages.ts';
import type { EndpointRecord } from './endpoint-record.ts';
import { EndpointSync, type SyncStats } from './endpoint-sync.ts';
import { EndpointTable } from './endpoint-table.ts';
import {
  checkAddress,
  checkConfig,
  type GossipConfig,
  type GossipDeps,
  type GossipSnapshot,
  PROTOCOL_VERSIONS,
} from './gossip-config.ts';
import { MachineTime } from './machine-time.ts';
import { isLive, type Member, type MemberView } from './member.ts';
import { encodeTags, isWeftMeta } from './member-tags.ts';
import { encodeMessage } from './messages.ts';
import type { PeerAddress } from './peer-address.ts';
import { Periodic } from './periodic.ts';
import { encodePushPull, encodeUserStream, type PushPull } from './push-pull.ts';
import type { OwnerState } from './record-store.ts';
import { SerfDelegate } from './serf-delegate.ts';
import { decodeUserState } from './serf-messages.ts';
import { Swim } from './swim.ts';
import { type KeyUse, Wire } from './wire.ts';

/** Room that a packet has beside label and encryption: an alive message with 512 bytes of meta. */
const ROOM_BYTES_MIN = 900;

/**
 * One node's gossip: membership and the endpoint tables on top, as one state machine without I/O.
 * Every input gives the effects that the caller must perform, in order. `nowMs` is a
 * {@link Clock.nowMs}; jumps of it do no harm.
 */
export class Gossip {
  /** Endpoints of all nodes. Changes of the own ones go out with the next tick. */
  readonly table: EndpointTable;
  readonly config: GossipConfig;
  readonly tuning: GossipTuning;
  /** Label, compression and keys; streams are sealed and read with it. */
  readonly wire: Wire;
  readonly #outbox = new Outbox();
  readonly #time: MachineTime;
  readonly #swim: Swim;
  readonly #sync: EndpointSync;
  readonly #serf: SerfDelegate;
  readonly #summaryTurn: Periodic;
  /** Whether all are told when the first seed has answered. */
  #joining = false;
  /** Set while only serf's members are told that this node leaves: until then, at most. */
  #leaveDeadlineMs: number | undefined;

  /** @throws {RangeError} if name, address, port, tags or label cannot be used */
  constructor(deps: GossipDeps, config: GossipConfig, nowMs: number) {
    checkConfig(config);
    const tuning = { ...LAN_TUNING, ...config.tuning };
    checkTuning(tuning);
    const { label, compression } = config;
    const wire = new Wire(deps, { label, compression, defaultPort: config.port });
    const roomBytes = tuning.packetBytesMax - wire.packetOverheadBytesMax;
    invariant(roomBytes >= ROOM_BYTES_MIN, 'a packet has room beside label and encryption');
    this.wire = wire;
    this.config = config;
    this.tuning = tuning;
    const { name, address, port, generation, tags = new Map() } = config;
    const outbox = this.#outbox;
    const { random, epochMs = () => 0, sharing } = deps;
    const queue = new BroadcastQueue(tuning.queueMax);
    const serfQueue = new BroadcastQueue(tuning.queueMax);
    this.#time = new MachineTime(nowMs, tuning.probeTimeoutMs / 2);
    const shareRecord = sharing && ((record: EndpointRecord) => sharing.record(record));
    this.table = new EndpointTable(
      name,
      generation,
      { tuning, epochMs, share: shareRecord },
      nowMs,
    );
    const encodeState = (join: boolean): Uint8Array => this.#encodePushPull(join);
    const self = { name, address, port, meta: encodeTags(tags), versions: PROTOCOL_VERSIONS };
    const shared = { tuning, random, outbox };
    const queues = [
      { queue, weftOnly: true },
      { queue: serfQueue, weftOnly: false },
    ];
    const share = sharing && ((member: Member) => sharing.member(member));
    this.#swim = new Swim({ ...shared, wire, queues, encodeState, share }, self, nowMs);
    // What it passes on must fit whatever keys come, as must what is made for endpoints.
    const userShared = { ...shared, tuning: { ...tuning, packetBytesMax: roomBytes } };
    this.#serf = new SerfDelegate({
      ...userShared,
      queue: serfQueue,
      self: name,
      members: () => this.#swim.allMembers(),
      stateOf: (member) => this.#swim.find(member)?.state,
      declareLeft: (member) => this.#swim.declareLeft(member),
    });
    this.#sync = new EndpointSync({
      ...userShared,
      ...{ table: this.table, queue, epochMs },
      hasten: (now) => this.#swim.hasten(now),
      send: (to, messages) => this.#swim.sender.sendUser(to, messages),
      tellOf: (to, node) => this.#swim.tellOf(to, node),
      isPeer: (peer) => this.#swim.isPeer(peer),
      ask: (to, payload) => outbox.push({ kind: 'ask', to, bytes: encodeUserStream(payload) }),
    });
    this.#summaryTurn = new Periodic(nowMs + deps.random.next() * tuning.summaryIntervalMs);
  }

  /** 0 if this node keeps up with the protocol, else up to `awarenessMaxMultiplier` - 1. */
  get localHealth(): number {
    return this.#swim.localHealth;
  }

  /** This node first, then all others that are known, the failed and left included. */
  members(): MemberView[] {
    return this.#swim.members();
  }

  /** How many members live, and how many are known at all; less than {@link members} takes. */
  memberCounts(): { readonly alive: number; readonly known: number } {
    return this.#swim.memberCounts();
  }

  /** What was dropped, by reason. */
  counters(): Record<string, number> {
    return this.#outbox.counters();
  }

  /** How the endpoint tables compare with those of other nodes. */
  syncStats(): SyncStats {
    return this.#sync.stats;
  }

  /** All that is visible here. */
  snapshot(): GossipSnapshot {
    const members = [...this.#swim.stateToPush()].filter(isLive);
    return { members, records: [...this.table.records()] };
  }

  /** Starts with what others knew: members that live, and their records. Nothing is reported. */
  restore({ members, records }: GossipSnapshot, nowMs: number): void {
    const now = this.#time.advance(nowMs);
    this.#swim.restore(members, now);
    this.table.restore(records, now);
    this.#sync.restored();
  }

  /** The same with all that `other` knows, this node included: for thousands of nodes alike. */
  restoreLike(other: Gossip, nowMs: number): void {
    this.#swim.adopt(other.#swim, this.#time.advance(nowMs));
    this.table.adopt(other.table);
    this.#sync.restored();
  }

  /** Begins to tell of changes of the own record at once: otherwise the next tick does. */
  announce(nowMs: number): Effect[] {
    const now = this.#time.advance(nowMs);
    this.#sync.flush(now);
    return this.#finish(now);
  }

  /**
   * Replaces the keys of gossip encryption, at any time; see {@link Wire.setKeys} for the order in
   * which a running cluster changes them.
   *
   * @param keys - 16, 24 or 32 bytes each, the one that seals first; none is no encryption.
   * @throws {KeyringError} if one cannot be used; then all stay as they were
   */
  setKeys(keys: readonly Uint8Array[], options: KeyUse): void {
    this.wire.setKeys(keys, options);
  }

  /** Takes one UDP payload. Anything malformed in it is counted and not answered. */
  packet(bytes: Uint8Array, from: PeerAddress, nowMs: number): Effect[] {
    const now = this.#time.advance(nowMs);
    if (from.port === 0) {
      // UDP has it for "no answer" (RFC 768), and a socket throws when told to send there.
      this.#outbox.count('packet_from_port_0');
      return this.#finish(now);
    }
    const { messages, drops } = this.wire.openPacket(bytes);
    for (const reason of drops) this.#outbox.count(`packet_${reason.replaceAll('-', '_')}`);
    for (const message of messages) {
      if (message.kind === 'user') this.#receiveUser(message.payload, from, now);
      else this.#swim.receive(message, from, now);
    }
    return this.#finish(now);
  }

  /** Does what is due. To be called at {@link nextDeadlineMs}; earlier and later do no harm. */
  tick(nowMs: number): Effect[] {
    const now = this.#time.advance(nowMs);
    this.#sync.flush(now);
    this.#swim.tick(now);
    this.#leaveWhenTold(now);
    if (this.#summaryTurn.take(now, this.tuning.summaryIntervalMs)) {
      this.table.collect(now);
      this.#serf.collect(now);
      this.#sync.sendSummaries(this.#peersToCompare());
    }
    return this.#finish(now);
  }

  /** When {@link tick} is due, on the clock of the inputs. */
  nextDeadlineMs(): number {
    return this.#time.toClockMs(Math.min(this.#swim.nextDeadlineMs(), this.#summaryTurn.nextMs));
  }

  /** Joins by any of `seeds`; they are tried again while no other member is known. */
  join(seeds: readonly PeerAddress[], nowMs: number): Effect[] {
    const now = this.#time.advance(nowMs);
    for (const seed of seeds) checkAddress(seed);
    this.#joining = true;
    this.#swim.join(seeds);
    return this.#finish(now);
  }

  /** Tells the others that this node leaves; a 'leaveFinished' event says that it may stop. */
  leave(nowMs: number): Effect[] {
    const now = this.#time.advance(nowMs);
    if (this.#swim.leaving || this.#leaveDeadlineMs !== undefined) return this.#finish(now);
    this.#serf.announceLeave();
    this.#leaveDeadlineMs = now + this.tuning.leaveTimeoutMs / 2;
    this.#leaveWhenTold(now);
    return this.#finish(now);
  }

  /**
   * Takes a push/pull that another node started.
   *
   * @returns the effects, and the answer to write to the stream
   */
  pushPullRequest(
    request: PushPull,
    nowMs: number,
  ): { readonly effects: Effect[]; readonly reply: Uint8Array } {
    const now = this.#time.advance(nowMs);
    // memberlist answers before it merges; this way the answer has what the merge found out.
    this.#merge(request, now);
    const effects = this.#finish(now);
    return { effects, reply: this.#encodePushPull(request.join) };
  }

  /** Takes the answer to a push/pull that this node started. */
  pushPullReply(started: PushPullEffect, reply: PushPull, nowMs: number): Effect[] {
    const now = this.#time.advance(nowMs);
    const differs = this.#merge(reply, now);
    if (started.purpose === 'join' && this.#joining) {
      this.#joining = false;
      this.#serf.announceJoin();
    }
    // Who comes new, or comes back, lacks much; what others lack, the summaries will tell.
    if (differs && started.purpose === 'join') this.#sync.pullFrom(started.to, now);
    return this.#finish(now);
  }

  /**
   * Takes a user message that came by stream.
   *
   * @returns the answer to write to the stream, if there is one
   */
  streamUser(
    payload: Uint8Array,
    from: PeerAddress,
    nowMs: number,
  ): { readonly effects: Effect[]; readonly reply?: Uint8Array } {
    const now = this.#time.advance(nowMs);
    const answer = this.#sync.serve(payload);
    if (answer === undefined && payload.length > 0) this.#receiveUser(payload, from, now);
    const effects = this.#finish(now);
    return answer === undefined ? { effects } : { effects, reply: encodeUserStream(answer) };
  }

  /** Takes the payload of the answer to what this node asked. */
  answered(asked: AskEffect, payload: Uint8Array, nowMs: number): Effect[] {
    const now = this.#time.advance(nowMs);
    this.#sync.answered(asked.to, payload, now);
    return this.#finish(now);
  }

  /** Takes note that what this node asked is not answered; without it others wait for its time to end. */
  unanswered(asked: AskEffect): void {
    this.#sync.unanswered(asked.to);
  }

  /** Takes the ack to a ping that was sent over TCP. */
  streamAck(sequence: number, nowMs: number): Effect[] {
    const now = this.#time.advance(nowMs);
    this.#swim.receive({ kind: 'ack', sequence }, this.config, now);
    return this.#finish(now);
  }

  /** @returns the answer to a ping over TCP; undefined if it is meant for another node */
  streamPong(ping: { readonly sequence: number; readonly node: string }): Uint8Array | undefined {
    if (ping.node !== '' && ping.node !== this.config.name) return undefined;
    return encodeMessage({ kind: 'ack', sequence: ping.sequence });
  }

  #receiveUser(payload: Uint8Array, from: PeerAddress, now: number): void {
    if (payload[0] === ENDPOINT_MAGIC) this.#sync.receive(payload, from, now);
    else this.#serf.receive(payload, now);
  }

  /**
   * Merges what the other side of a push/pull has, unless it has nodes that do not understand ours.
   *
   * @returns whether the other side is a weft node that does not have what this one has
   */
  #merge({ nodes, userState }: PushPull, now: number): boolean {
    if (!this.#swim.understands(nodes)) return false;
    const state = decodeUserState(userState);
    if (typeof state === 'string' && state !== 'empty') this.#outbox.count(`user_state_${state}`);
    const { weft, serf } = typeof state === 'string' ? {} : state;
    this.#swim.merge(nodes, now);
    this.#settleOwners(now);
    if (serf !== undefined) this.#serf.merge(serf, now);
    return weft !== undefined && this.#sync.differsFrom(weft);
  }

  /** Serf takes it for a failure when who has not said so before goes, even with a goodbye. */
  #leaveWhenTold(now: number): void {
    if (this.#leaveDeadlineMs === undefined) return;
    const others = this.#swim.pick(1, (member) => isLive(member) && !isWeftMeta(member.meta));
    const told = this.#serf.announced || others.length === 0;
    if (!told && now < this.#leaveDeadlineMs) return;
    this.#leaveDeadlineMs = undefined;
    this.#swim.leave(now);
  }

  /** Random members that have tables to compare: serf agents would log our messages. */
  #peersToCompare(): PeerAddress[] {
    return this.#swim.pick(this.tuning.gossipNodes, (member) => {
      return isLive(member) && isWeftMeta(member.meta);
    });
  }

  #encodePushPull(join: boolean): Uint8Array {
    const userState = this.#serf.wrapState(this.#sync.state());
    return encodePushPull(this.#swim.stateToPush(), userState, join);
  }

  #finish(now: number): Effect[] {
    this.#settleOwners(now);
    return this.#outbox.drain();
  }

  /** Shows and hides records as their owners come and go. */
  #settleOwners(now: number): void {
    const effects = this.#outbox.unsettled();
    for (const effect of effects) {
      if (effect.kind !== 'event' || effect.event.kind !== 'member') continue;
      const { member, change } = effect.event;
      const shown = this.table.setOwner(member.name, ownerState(member), now);
      if (shown !== undefined) this.#outbox.event({ kind: 'endpoints', ...shown });
      this.#serf.memberChanged(change, member.name);
    }
    if (effects.length > 0) this.#settleOwners(now); // one that failed may have left by that
  }
}

function ownerState(member: MemberView): OwnerState {
  if (isLive(member)) return 'live';
  return member.state === 'dead' ? 'failed' : 'left';
}
