import { formatHostPort } from '../core/ip.ts';
import type { MemberView } from '../gossip/member.ts';
import { decodeTags, isWeftMeta } from '../gossip/member-tags.ts';
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
  /** What it says about itself, as serf's agents do. */
  readonly tags: Readonly<Record<string, string>>;
}

/** What must not get to a terminal: these texts are whatever a member sends. */
const CONTROLS = /[\p{Cc}\p{Cf}]/gu;

/** @param nodes - Host names by node, as live ones announce them; of others, their tag tells. */
export function memberReports(
  members: readonly MemberView[],
  nodes: readonly Named[],
): MemberReport[] {
  const names = new Map(nodes.map(({ id, name }) => [id, name]));
  return members.map(({ name: id, address, port, state, incarnation, versions, meta }) => {
    const tags = decodeTags(meta);
    return {
      name: printable(names.get(id) ?? (isWeftMeta(meta) ? tags.get('hostname') : undefined) ?? id),
      id: printable(id),
      address: formatHostPort(address, port),
      state,
      incarnation,
      protocol: versions[PROTOCOL_CURRENT] ?? 0,
      tags: Object.fromEntries(
        Array.from(tags, ([tag, value]) => [printable(tag), printable(value)]),
      ),
    };
  });
}

function printable(text: string): string {
  return text.replaceAll(CONTROLS, '\ufffd');
}
