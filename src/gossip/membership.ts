import { invariant } from '../core/invariant.ts';
import type { Awareness } from './awareness.ts';
import type { BroadcastQueue } from './broadcast-queue.ts';
import { bytesEqual } from './bytes.ts';
import type { GossipTuning } from './config.ts';
import type { MemberChange, Outbox } from './effects.ts';
import { FailedMembers } from './failed-members.ts';
import { aliveOf, isLive, type Member, newMember, viewMember } from './member.ts';
import type { MemberTable } from './member-table.ts';
import { type Accusation, type Alive, encodeMessage, type Rumour } from './messages.ts';
import { formatPeer, type PeerAddress } from './peer-address.ts';
import type { PushPullNode } from './push-pull.ts';
import { QuietTimes } from './quiet-times.ts';
import { Suspicion, suspicionMinMs } from './suspicion.ts';

/** Incarnations are 32 bits on the wire; at the last one nothing can be refuted any more. */
const INCARNATION_MAX = 0xffff_ffff;
/** Conflict events and hints to the thought-dead are at most one per member in this time. */
const QUIET_MS = 1_000;

/**
 * Probe intervals between two words to a suspect. Who holds a suspicion may have been cut off himself: his
 * accusation was lost, or the answer to it, and when its time is over he would declare a healthy member
 * dead. Our own: memberlist's buddy system tells the suspect only when it is its turn to be probed.
 */
const TELL_INTERVALS = 2;

/** What {@link Membership} works on; shared with the rest of Swim. */
export interface MembershipParts {
  readonly tuning: GossipTuning;
  readonly table: MemberTable;
  readonly queue: BroadcastQueue;
  readonly awareness: Awareness;
  readonly outbox: Outbox;
  /** Sends one rumour directly. */
  readonly tell: (to: PeerAddress, rumour: Rumour) => void;
  /** Gives one object for all that say the same of a living member; see {@link Sharing}. */
  readonly share?: ((member: Member) => Member) | undefined;
}

/**
 * Merges rumours into the member table by SWIM's order of precedence (section 4.2): for a member, a
 * higher incarnation wins; at the same one, dead beats suspect beats alive. Each rumour that
 * changed something is gossiped on; one against this node is refuted. Follows memberlist state.go
 * (`aliveNode`, `suspectNode`, `deadNode`) branch by branch.
 */
export class Membership {
  readonly #parts: MembershipParts;
  readonly #selfName: string;
  /** About members, and to peers. */
  readonly #quiet = new QuietTimes(QUIET_MS);
  readonly #failed: FailedMembers;
  #leaving = false;
  /** When the first suspect's time is over; undefined if that must be looked up. */
  #deadlineMs: number | undefined;

  /** @param self - This node, not yet in the table. */
  constructor(parts: MembershipParts, self: Member) {
    this.#parts = parts;
    this.#failed = new FailedMembers(parts.tuning);
    this.#selfName = self.name;
    parts.table.put(self);
    this.#broadcast(aliveOf(self));
  }

  /** This node, as it is known now. */
  get self(): Member {
    const self = this.#parts.table.get(this.#selfName);
    invariant(self !== undefined, 'a node is a member to itself');
    return self;
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
    const left = { ...member, state: 'left' } as const;
    if (this.#parts.table.get(name) !== undefined) this.#put(left);
    this.#failed.delete(name);
    this.#report('left', left);
  }

  /** @param from - Who sent it, if it came in a packet. */
  apply(rumour: Rumour, nowMs: number, from?: PeerAddress): void {
    if (rumour.kind === 'alive') this.#alive(rumour, nowMs);
    else {
      if (from !== undefined) this.#correct(rumour, from, nowMs);
      if (rumour.kind === 'suspect') this.#suspect(rumour, nowMs);
      else this.#dead(rumour, nowMs);
    }
  }

  /**
   * Answers who accuses this node of what it has refuted already: the refutation did not get there.
   * memberlist is silent, and the accuser goes on until a push/pull, or declares this node dead.
   */
  #correct({ node, incarnation }: Accusation, from: PeerAddress, nowMs: number): void {
    const { self } = this;
    const isOld = node === self.name && incarnation < self.incarnation && isLive(self);
    if (isOld && this.#quiet.break(formatPeer(from), nowMs)) this.#parts.tell(from, aliveOf(self));
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
        this.#suspect({ kind: 'suspect', incarnation, node: name, from: this.#selfName }, nowMs);
      }
    }
  }

  /**
   * What to tell one other node of `name`: a member that is dead here is only suspected there, so that
   * it can refute. Undefined if it is not known.
   */
  rumourOf(name: string): Rumour | undefined {
    const member = this.find(name);
    if (member === undefined) return undefined;
    const { state, incarnation } = member;
    if (isLive(member)) return aliveOf(member);
    if (state === 'left') return { kind: 'dead', incarnation, node: name, from: name };
    return { kind: 'suspect', incarnation, node: name, from: this.#selfName };
  }

  /** Tells everyone that this node leaves; after this it refutes nothing. */
  leave(nowMs: number): void {
    if (this.#leaving) return;
    this.#leaving = true;
    const { name, incarnation } = this.self;
    this.#dead({ kind: 'dead', incarnation, node: name, from: name }, nowMs);
  }

  /** Declares suspects dead whose time is over, and forgets the long dead. */
  expire(nowMs: number): void {
    const { tuning, table } = this.#parts;
    for (const member of table.troubled()) {
      if (member.suspicion !== undefined && member.suspicion.deadlineMs <= nowMs) {
        const { name, incarnation } = member;
        const dead: Accusation = { kind: 'dead', incarnation, node: name, from: this.#selfName };
        this.#dead(dead, nowMs);
      } else if (member.suspicion?.takeTell(nowMs) === true) {
        this.#deadlineMs = undefined;
        this.#tellSuspect(member);
      } else if (!isLive(member) && member.stateChangedMs + tuning.gossipToTheDeadMs < nowMs) {
        this.#reap(member);
      }
    }
    this.#failed.expire(nowMs);
    this.#quiet.expire(nowMs);
  }

  /** When {@link expire} has something to do next; Infinity if nothing is pending. */
  nextDeadlineMs(): number {
    if (this.#deadlineMs !== undefined) return this.#deadlineMs;
    let deadlineMs = Number.POSITIVE_INFINITY;
    for (const { suspicion } of this.#parts.table.troubled()) {
      if (suspicion !== undefined) deadlineMs = Math.min(deadlineMs, suspicion.nextMs);
    }
    this.#deadlineMs = deadlineMs;
    return deadlineMs;
  }

  #alive(rumour: Alive, nowMs: number): void {
    const isSelf = rumour.node === this.#selfName;
    if (isSelf && this.#leaving) return;
    if (!versionsValid(rumour.versions)) {
      this.#parts.outbox.count('bad_versions');
      return;
    }
    const known = this.#parts.table.get(rumour.node);
    if (known === undefined) {
      this.#welcome(rumour);
      return;
    }
    const moved = rumour.address !== known.address || rumour.port !== known.port;
    const reclaimed = moved && this.#mayReclaim(known, nowMs);
    if (moved && !reclaimed) {
      this.#conflict(known, rumour, nowMs);
    } else if (isSelf) {
      this.#heardOfSelf(rumour);
    } else if (rumour.incarnation > known.incarnation || reclaimed) {
      this.#update(known, rumour);
    } else if (known.state === 'dead' && this.#quiet.break(known.name, nowMs)) {
      // It lives for someone: tell it what is said here, so that it can refute at once.
      this.#tellSuspect({ ...known, address: rumour.address, port: rumour.port });
    }
  }

  #tellSuspect({ name: node, incarnation, address, port }: Member): void {
    const from = this.#selfName;
    this.#parts.tell({ address, port }, { kind: 'suspect', incarnation, node, from });
  }

  /** A node that was not in the table. */
  #welcome(rumour: Alive): void {
    const { table, tuning, outbox } = this.#parts;
    if (rumour.incarnation === 0) return; // no node ever says it; memberlist ignores it too
    if (table.size >= tuning.membersMax && !this.#makeRoom()) {
      outbox.count('members_full');
      return;
    }
    const returned = this.#failed.delete(rumour.node);
    const member = this.#put(newMember(rumour));
    this.#broadcast(rumour);
    this.#report(returned ? 'returned' : 'joined', member);
  }

  #update(before: Member, rumour: Alive): void {
    const { state, address, port, meta } = before;
    const updated =
      address !== rumour.address || port !== rumour.port || !bytesEqual(meta, rumour.meta);
    this.#broadcast(rumour);
    const versions = rumour.versions.length > 0 ? rumour.versions : before.versions;
    const member = this.#put(newMember({ ...rumour, versions }));
    if (state === 'dead') this.#report('returned', member);
    else if (state === 'left') this.#report('joined', member);
    else if (state === 'suspect') this.#report('refuted', member);
    if (updated && isLive({ state })) this.#report('updated', member);
  }

  /** Others may hold an older life of this node, which looks newer: outbid it. */
  #heardOfSelf(rumour: Alive): void {
    const { self } = this;
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
      if (member.suspicion.confirm(rumour.from)) {
        this.#broadcast(rumour);
        this.#deadlineMs = undefined;
      }
      return;
    }
    if (member.state !== 'alive') return;
    if (member.name === this.#selfName) {
      this.#refute(rumour.incarnation);
      return;
    }
    this.#broadcast(rumour);
    const { incarnation, from } = rumour;
    const suspicion = this.#newSuspicion(from, nowMs);
    const suspect = { ...member, incarnation, suspicion, stateChangedMs: nowMs };
    this.#report('suspected', this.#put({ ...suspect, state: 'suspect' }));
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
      tellMs: TELL_INTERVALS * tuning.probeIntervalMs,
    });
  }

  #dead(rumour: Accusation, nowMs: number): void {
    const member = this.#parts.table.get(rumour.node);
    if (member === undefined || rumour.incarnation < member.incarnation) return;
    if (!isLive(member)) return;
    const isSelf = member.name === this.#selfName;
    if (isSelf && !this.#leaving) {
      this.#refute(rumour.incarnation);
      return;
    }
    this.#broadcast(rumour);
    const { incarnation, node, from } = rumour;
    const state = node === from ? 'left' : 'dead';
    const gone = { ...member, incarnation, state, stateChangedMs: nowMs } as const;
    this.#put({ ...gone, suspicion: undefined });
    if (!isSelf) this.#report(state === 'left' ? 'left' : 'failed', gone);
  }

  #put(member: Member): Member {
    const { table, share } = this.#parts;
    const kept = member.state === 'alive' && share !== undefined ? share(member) : member;
    if (table.get(member.name)?.state !== 'alive' || member.state !== 'alive') {
      this.#deadlineMs = undefined;
    }
    table.put(kept);
    return kept;
  }

  /** Says that this node lives, at an incarnation above the accusation's. */
  #refute(accused: number): void {
    const { self } = this;
    const incarnation = Math.min(INCARNATION_MAX, Math.max(self.incarnation, accused) + 1);
    this.#parts.awareness.apply(1);
    this.#broadcast(aliveOf(this.#put({ ...self, incarnation })));
  }

  #mayReclaim(member: Member, nowMs: number): boolean {
    const { deadNodeReclaimMs } = this.#parts.tuning;
    if (member.state === 'left') return true;
    const deadForMs = nowMs - member.stateChangedMs;
    return member.state === 'dead' && deadNodeReclaimMs > 0 && deadForMs > deadNodeReclaimMs;
  }

  #conflict(member: Member, claimed: PeerAddress, nowMs: number): void {
    this.#parts.outbox.count('name_conflict');
    if (!this.#quiet.break(member.name, nowMs)) return;
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
    for (const member of this.#parts.table.troubled()) {
      if (isLive(member) || member.name === this.#selfName) continue;
      if (oldest === undefined || member.stateChangedMs < oldest.stateChangedMs) oldest = member;
    }
    if (oldest !== undefined) this.#reap(oldest);
    return oldest !== undefined;
  }

  /** The dead leave the table, as in memberlist; the failed are remembered apart, as in serf. */
  #reap(member: Member): void {
    if (member.name === this.#selfName) return;
    this.#parts.table.delete(member.name);
    if (member.state === 'dead') this.#failed.add(member);
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
