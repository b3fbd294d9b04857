import type { Alive } from './messages.ts';
import type { PeerAddress } from './peer-address.ts';
import type { Suspicion } from './suspicion.ts';

/** In the order of their number on the wire (memberlist `NodeStateType`). */
export const MEMBER_STATES = ['alive', 'suspect', 'dead', 'left'] as const;
/** 'suspect' still counts as running; 'dead' is failed, 'left' said goodbye. */
export type MemberState = (typeof MEMBER_STATES)[number];

/** A member as the agent sees it. */
export interface MemberView extends PeerAddress {
  readonly name: string;
  readonly state: MemberState;
  readonly incarnation: number;
  readonly meta: Uint8Array;
  /** Protocol min, max, current, delegate min, max, current. */
  readonly versions: Uint8Array;
}

/**
 * A member as the protocol keeps it. A change makes a new one: what says the same of a member may be
 * one object, however many hold it.
 */
export interface Member extends MemberView {
  /** 0 while it is alive: nothing asks since when. */
  readonly stateChangedMs: number;
  /** Set exactly while `state` is 'suspect'. */
  readonly suspicion: Suspicion | undefined;
}

/** @returns whether `member` is taken to be running */
export function isLive(member: { readonly state: MemberState }): boolean {
  return member.state === 'alive' || member.state === 'suspect';
}

/** A copy of what others may see of `member`. */
export function viewMember(member: Member): MemberView {
  const { name, address, port, state, incarnation, meta, versions } = member;
  return { name, address, port, state, incarnation, meta, versions };
}

/** A member as an alive message tells of it. */
export function newMember(alive: Omit<Alive, 'kind'>): Member {
  const { node: name, address, port, incarnation, meta, versions } = alive;
  return {
    ...{ name, address, port, incarnation, meta, versions },
    ...{ state: 'alive', stateChangedMs: 0, suspicion: undefined },
  };
}

/** What `member`, in its present incarnation, is told of as. */
export function aliveOf(member: Member): Alive {
  const { name: node, address, port, incarnation, meta, versions } = member;
  return { kind: 'alive', node, address, port, incarnation, meta, versions };
}
