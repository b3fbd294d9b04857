import type { Delta } from './endpoint-delta.ts';
import { TREE_LEAVES } from './endpoint-tree.ts';
import type { RecordVersion } from './record-version.ts';

/** First byte of weft's user messages and user state: serf's begin with 0 to 9. */
export const ENDPOINT_MAGIC = 0x57;
/** Second byte: what follows. */
export const ENDPOINT_KIND = {
  delta: 1,
  repair: 2,
  summary: 3,
  digest: 4,
  branches: 5,
  leaves: 6,
  behind: 7,
  pull: 8,
  pulled: 9,
} as const;

/** Some leaves of the tree: from `first` on, those below `last`. */
export interface LeafRange {
  readonly first: number;
  readonly last: number;
}

/** The whole tree. */
export const ALL_LEAVES: LeafRange = { first: 0, last: TREE_LEAVES };

/** What a node has of one record, and whether it takes the record's owner for a live member. */
export interface SeenVersion extends RecordVersion {
  readonly isLive: boolean;
}

/** What a node has of the records in some leaves: one that is not listed is not there. */
export interface DigestWindow extends LeafRange {
  readonly versions: readonly SeenVersion[];
}

/** How far a record has come that is too large for one answer: see {@link PullRequest}. */
export interface Resume {
  readonly node: string;
  readonly until: number;
}

/** "Send me what I lack of these leaves." By stream, answered by {@link PullAnswer}. */
export interface PullRequest extends DigestWindow {
  readonly kind: 'pull';
  /** As the last answer said. */
  readonly resume?: Resume;
}

/** What was lacking, as far as an answer has room. */
export interface PullAnswer {
  readonly kind: 'pulled';
  readonly deltas: readonly Delta[];
  /** The leaf to ask from next; `last` of the request when nothing is left. */
  readonly next: number;
  /** A record that only a part of was sent, where its version does not tell how much. */
  readonly resume?: Resume;
}

/**
 * Messages about endpoints, in `user` messages: see endpoint-sync.ts and endpoint-comparison.ts for
 * their use.
 */
export type EndpointMessage =
  | { readonly kind: 'delta' | 'repair'; readonly delta: Delta }
  | { readonly kind: 'summary'; readonly summary: string }
  /** `answer`: it answers a digest, and is not answered by one. */
  | { readonly kind: 'digest'; readonly windows: readonly DigestWindow[]; readonly answer: boolean }
  /** `TREE_FANOUT` sums of `SUM_BYTES`. */
  | { readonly kind: 'branches'; readonly sums: Uint8Array }
  | { readonly kind: 'leaves'; readonly branch: number; readonly sums: Uint8Array }
  | ({ readonly kind: 'behind' } & LeafRange)
  | PullRequest
  | PullAnswer;
