import type { Awareness } from './awareness.ts';
import type { BroadcastQueue } from './broadcast-queue.ts';
import { bytesEqual } from './bytes.ts';
import type { GossipTuning } from './config.ts';
import type { MemberChange, Outbox } from './effects.ts';
import { aliveOf, isLive, type Member, type MemberTable, newMember, viewMember } from './member.ts';
import { type Accusation, type Alive, encodeMessage, type Rumour } from './messages.ts';
import type { PeerAddress } from './peer-address.ts';
import type { PushPullNode } from './push-pull.ts';
import { Suspicion, suspicionMinMs } from './suspicion.ts';

/** Incarnations are 32 bits on the wire; at the last one nothing can be refuted any more. */
const INCARNATION_MAX = 0xffff_ffff;
/** Conflict events and hints to the thought-dead are at most one per member in this time. */
const QUIET_MS = 1_000;

/** What {@link Membership} works on; shared with the rest of Swim. */
export interface MembershipParts {
  readonly tuning: GossipTuning;
  readonly table: MemberTable;
  readonly queue: BroadcastQueue;
  readonly awareness: Awareness;
  readonly outbox: Outbox;
  /** Sends one rumour directly. */
  readonly tell: (to: PeerAddress, rumour: Rumour) => void;
}

/**
 * Merges rumours into the member table by SWIM's order of precedence (section 4.2): for a member, a
 * higher incarnation wins; at the same one, dead beats suspect beats alive. Each rumour that
 * changed something is gossiped on; one against this node is refuted. Follows memberlist state.go
 * (`aliveNode`, `suspectNode`, `deadNode`) branch by branch.
 */
export class Membership {
  readonly #parts: MembershipParts;
  readonly #self: Member;
  /** Failed members that were reaped, for reconnects. BOUNDED by `membersMax`: the oldest goes. */
  readonly #failed = new Map<string, Member>();
  #leaving = false;

  /** @param self - This node, not yet in the table. */
  constructor(parts: MembershipParts, self: Member) {
    this.#parts = parts;
    this.#self = self;
    parts.table.add(self);
    this.#broadcast(aliveOf(self));
  }

  get leaving(): boolean {
    return this.#leaving;
  }

  /** Reaped failed members, the oldest first. */
  failed(): Iterable<Member> {
    return this.#failed.values();
  }

  /** The member of this name, be it a failed one that was reaped. */
  find(name: string): Member | undefined {
    return this.#parts.table.get(name) ?? this.#failed.get(name);
  }

  /** A failed member has left, as someone says who knows: it is not tried to reach it any more. */
  declareLeft(name: string): void {
    const member = this.find(name);
    if (member?.state !== 'dead') return;
    member.state = 'left';
    this.#failed.delete(name);
    this.#report('left', member);
  }

  apply(rumour: Rumour, nowMs: number): void {
    if (rumour.kind === 'alive') this.#alive(rumour, nowMs);
    else if (rumour.kind === 'suspect') this.#suspect(rumour, nowMs);
    else this.#dead(rumour, nowMs);
  }

  /**
   * Merges the members of a push/pull. A member that is dead to the other node is only suspected
   * here, so that it can refute (memberlist `mergeState`).
   */
  merge(nodes: readonly PushPullNode[], nowMs: number): void {
    for (const { state, ...node } of nodes) {
      const { incarnation, node: name } = node;
      if (state === 'alive') this.#alive({ kind: 'alive', ...node }, nowMs);
      else if (state === 'left') {
        this.#dead({ kind: 'dead', incarnation, node: name, from: name }, nowMs);
      } else {
        this.#suspect({ kind: 'suspect', incarnation, node: name, from: this.#self.name }, nowMs);
      }
    }
  }

  /** Tells everyone that this node leaves; after this it refutes nothing. */
  leave(nowMs: number): void {
    if (this.#leaving) return;
    this.#leaving = true;
    const { name, incarnation } = this.#self;
    this.#dead({ kind: 'dead', incarnation, node: name, from: name }, nowMs);
  }

  /** Declares suspects dead whose time is over, and forgets the long dead. */
  expire(nowMs: number): void {
    const { tuning, table } = this.#parts;
    for (const member of [...table.values()]) {
      if (member.suspicion !== undefined && member.suspicion.deadlineMs <= nowMs) {
        const { name, incarnation } = member;
        const dead: Accusation = { kind: 'dead', incarnation, node: name, from: this.#self.name };
        this.#dead(dead, nowMs);
      } else if (!isLive(member) && member.stateChangedMs + tuning.gossipToTheDeadMs < nowMs) {
        this.#reap(member);
      }
    }
    for (const [name, member] of this.#failed) {
      if (member.stateChangedMs + tuning.reconnectTimeoutMs < nowMs) this.#failed.delete(name);
    }
  }

  /** When {@link expire} has something to do next; Infinity if nothing is pending. */
  nextDeadlineMs(): number {
    let deadlineMs = Number.POSITIVE_INFINITY;
    for (const { suspicion } of this.#parts.table.values()) {
      if (suspicion !== undefined) deadlineMs = Math.min(deadlineMs, suspicion.deadlineMs);
    }
    return deadlineMs;
  }

  #alive(rumour: Alive, nowMs: number): void {
    const isSelf = rumour.node === this.#self.name;
    if (isSelf && this.#leaving) return;
    if (!versionsValid(rumour.versions)) {
      this.#parts.outbox.count('bad_versions');
      return;
    }
    const known = this.#parts.table.get(rumour.node);
    if (known === undefined) {
      this.#welcome(rumour, nowMs);
      return;
    }
    const moved = rumour.address !== known.address || rumour.port !== known.port;
    const reclaimed = moved && this.#mayReclaim(known, nowMs);
    if (moved && !reclaimed) {
      this.#conflict(known, rumour, nowMs);
    } else if (isSelf) {
      this.#heardOfSelf(rumour);
    } else if (rumour.incarnation > known.incarnation || reclaimed) {
      this.#update(known, rumour, nowMs);
    } else if (known.state === 'dead' && nowMs >= known.quietUntilMs) {
      // It lives for someone: tell it what is said here, so that it can refute at once.
      known.quietUntilMs = nowMs + QUIET_MS;
      const { name, incarnation } = known;
      const { name: from } = this.#self;
      this.#parts.tell(rumour, { kind: 'suspect', incarnation, node: name, from });
    }
  }

  /** A node that was not in the table. */
  #welcome(rumour: Alive, nowMs: number): void {
    const { table, tuning, outbox } = this.#parts;
    if (rumour.incarnation === 0) return; // no node ever says it; memberlist ignores it too
    if (table.size >= tuning.membersMax && !this.#makeRoom()) {
      outbox.count('members_full');
      return;
    }
    const returned = this.#failed.delete(rumour.node);
    const member = newMember(rumour, nowMs);
    table.add(member);
    this.#broadcast(rumour);
    this.#report(returned ? 'returned' : 'joined', member);
  }

  #update(member: Member, rumour: Alive, nowMs: number): void {
    const { state, address, port, meta } = member;
    const updated =
      address !== rumour.address || port !== rumour.port || !bytesEqual(meta, rumour.meta);
    this.#broadcast(rumour);
    member.incarnation = rumour.incarnation;
    member.address = rumour.address;
    member.port = rumour.port;
    member.meta = rumour.meta;
    if (rumour.versions.length > 0) member.versions = rumour.versions;
    member.suspicion = undefined;
    if (state !== 'alive') {
      member.state = 'alive';
      member.stateChangedMs = nowMs;
    }
    if (state === 'dead') this.#report('returned', member);
    else if (state === 'left') this.#report('joined', member);
    else if (state === 'suspect') this.#report('refuted', member);
    if (updated && isLive({ state })) this.#report('updated', member);
  }

  /** Others may hold an older life of this node, which looks newer: outbid it. */
  #heardOfSelf(rumour: Alive): void {
    const self = this.#self;
    const same =
      rumour.incarnation === self.incarnation &&
      bytesEqual(rumour.meta, self.meta) &&
      bytesEqual(rumour.versions, self.versions);
    if (rumour.incarnation >= self.incarnation && !same) this.#refute(rumour.incarnation);
  }

  #suspect(rumour: Accusation, nowMs: number): void {
    const member = this.#parts.table.get(rumour.node);
    if (member === undefined || rumour.incarnation < member.incarnation) return;
    if (member.suspicion !== undefined) {
      // Independent accusers shorten the suspicion: others should hear of each.
      if (member.suspicion.confirm(rumour.from)) this.#broadcast(rumour);
      return;
    }
    if (member.state !== 'alive') return;
    if (member === this.#self) {
      this.#refute(rumour.incarnation);
      return;
    }
    this.#broadcast(rumour);
    member.incarnation = rumour.incarnation;
    member.state = 'suspect';
    member.stateChangedMs = nowMs;
    member.suspicion = this.#newSuspicion(rumour.from, nowMs);
    this.#report('suspected', member);
  }

  #newSuspicion(from: string, nowMs: number): Suspicion {
    const { tuning, table } = this.#parts;
    const wanted = tuning.suspicionMult - 2;
    const others = table.size - 2; // without this node and the suspect
    const minMs = suspicionMinMs(tuning.suspicionMult, table.size, tuning.probeIntervalMs);
    return new Suspicion(from, nowMs, {
      confirmationsWanted: others < wanted ? 0 : wanted,
      minMs,
      maxMs: minMs * tuning.suspicionMaxTimeoutMult,
    });
  }

  #dead(rumour: Accusation, nowMs: number): void {
    const member = this.#parts.table.get(rumour.node);
    if (member === undefined || rumour.incarnation < member.incarnation) return;
    if (!isLive(member)) return;
    if (member === this.#self && !this.#leaving) {
      this.#refute(rumour.incarnation);
      return;
    }
    this.#broadcast(rumour);
    member.incarnation = rumour.incarnation;
    member.state = rumour.node === rumour.from ? 'left' : 'dead';
    member.stateChangedMs = nowMs;
    member.suspicion = undefined;
    if (member !== this.#self) {
      this.#report(member.state === 'left' ? 'left' : 'failed', member);
    }
  }

  /** Says that this node lives, at an incarnation above the accusation's. */
  #refute(accused: number): void {
    const self = this.#self;
    self.incarnation = Math.min(INCARNATION_MAX, Math.max(self.incarnation, accused) + 1);
    this.#parts.awareness.apply(1);
    this.#broadcast(aliveOf(self));
  }

  #mayReclaim(member: Member, nowMs: number): boolean {
    const { deadNodeReclaimMs } = this.#parts.tuning;
    if (member.state === 'left') return true;
    const deadForMs = nowMs - member.stateChangedMs;
    return member.state === 'dead' && deadNodeReclaimMs > 0 && deadForMs > deadNodeReclaimMs;
  }

  #conflict(member: Member, claimed: PeerAddress, nowMs: number): void {
    this.#parts.outbox.count('name_conflict');
    if (nowMs < member.quietUntilMs) return;
    member.quietUntilMs = nowMs + QUIET_MS;
    const { address, port } = claimed;
    this.#parts.outbox.event({
      kind: 'conflict',
      member: viewMember(member),
      claimed: { address, port },
    });
  }

  /** Reaps the member that has been dead longest. */
  #makeRoom(): boolean {
    let oldest: Member | undefined;
    for (const member of this.#parts.table.values()) {
      if (isLive(member) || member === this.#self) continue;
      if (oldest === undefined || member.stateChangedMs < oldest.stateChangedMs) oldest = member;
    }
    if (oldest !== undefined) this.#reap(oldest);
    return oldest !== undefined;
  }

  /** The dead leave the table, as in memberlist; the failed are remembered apart, as in serf. */
  #reap(member: Member): void {
    if (member === this.#self) return;
    this.#parts.table.delete(member.name);
    if (member.state !== 'dead') return;
    this.#failed.set(member.name, member);
    const [oldest] = this.#failed.keys();
    const full = this.#failed.size > this.#parts.tuning.membersMax;
    if (full && oldest !== undefined) this.#failed.delete(oldest);
  }

  #broadcast(rumour: Rumour): void {
    this.#parts.queue.push(rumour.node, encodeMessage(rumour));
  }

  #report(change: MemberChange, member: Member): void {
    this.#parts.outbox.event({ kind: 'member', change, member: viewMember(member) });
  }
}

function versionsValid(versions: Uint8Array): boolean {
  if (versions.length < 3) return true; // protocol 1 had none
  const [min = 0, max = 0] = versions;
  return min > 0 && max > 0 && min <= max;
}
