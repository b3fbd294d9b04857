import type { MemberState } from './member.ts';
import { VERSIONS_BYTES } from './messages.ts';

/** A member or a node that a push/pull tells of. */
export interface Versioned {
  readonly state: MemberState;
  /** Protocol min, max, current, delegate min, max, current; absent or short in old nodes. */
  readonly versions: Uint8Array;
}

/** A pair of versions that is negotiated: where its minimum, maximum and current one stand. */
const KINDS = [
  ['protocol', 0],
  ['delegate', 3],
] as const;

/** Which version no two of the nodes agree on. */
export type VersionConflict = (typeof KINDS)[number][0];

/**
 * Whether each node speaks a version that all live ones understand, of the protocol and of the
 * delegate (memberlist state.go `verifyProtocol`): a range is asked of those alive, but every node
 * must speak a version within it. A node that a push/pull tells of without versions speaks none.
 * Unlike in memberlist, a known member without versions is left out: one such rumour would end all
 * exchanges with everyone.
 *
 * @param remote - Nodes that a push/pull tells of.
 * @param known - Members known here, this node included.
 * @returns what does not fit; undefined if all do
 */
export function versionConflict(
  remote: readonly Versioned[],
  known: Iterable<Versioned>,
): VersionConflict | undefined {
  const sayers = [...known].filter(({ versions }) => versions.length >= VERSIONS_BYTES);
  const all = [...remote, ...sayers];
  for (const [kind, at] of KINDS) {
    let min = 0;
    let max = 0xff;
    for (const { state, versions } of all) {
      if (state !== 'alive' || versions.length < VERSIONS_BYTES - 1) continue;
      min = Math.max(min, versions[at] ?? 0);
      max = Math.min(max, versions[at + 1] ?? 0);
    }
    const conflict = all.some(({ versions }) => {
      const speaks = versions.length < VERSIONS_BYTES ? 0 : (versions[at + 2] ?? 0);
      return speaks < min || speaks > max;
    });
    if (conflict) return kind;
  }
  return undefined;
}
