import { formatHostPort } from '../core/ip.ts';
import type { MemberView } from '../gossip/member.ts';
import type { Named } from './find-named.ts';

/** Where the protocol version that a member speaks is among its versions. */
const PROTOCOL_CURRENT = 2;

/** A member of gossip, as `GET /weft/gossip/members` shows it. */
export interface MemberReport {
  /** Its host's, or what gossip calls it where that is not known. */
  readonly name: string;
  /** What gossip calls it: the id of a node, or a name that a serf agent gave itself. */
  readonly id: string;
  /** `host:port` of its gossip. */
  readonly address: string;
  readonly state: string;
  readonly incarnation: number;
  /** memberlist's, that it speaks; 0 if it has not said. */
  readonly protocol: number;
}

/** @param nodes - Host names by node, where they are known. */
export function memberReports(
  members: readonly MemberView[],
  nodes: readonly Named[],
): MemberReport[] {
  const names = new Map(nodes.map(({ id, name }) => [id, name]));
  return members.map(({ name: id, address, port, state, incarnation, versions }) => ({
    name: names.get(id) ?? id,
    id,
    address: formatHostPort(address, port),
    state,
    incarnation,
    protocol: versions[PROTOCOL_CURRENT] ?? 0,
  }));
}
