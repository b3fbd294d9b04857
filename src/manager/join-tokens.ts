import type { Random } from '../core/capabilities.ts';
import { ManagerError } from './errors.ts';
import { equalInConstantTime, newSecret, toBase36 } from './ids.ts';
import type { ClusterRecord, NodeRole } from './records.ts';

/** SHA-256 of some bytes: 32 bytes. */
export type Sha256 = (data: Uint8Array) => Uint8Array;

/** `SWMTKN-1-<digest>-<secret>`: swarmkit `ca/config.go`. */
const TOKEN_PREFIX = 'SWMTKN-1';
const TOKEN_PATTERN = /^SWMTKN-1-([0-9a-z]{50})-([0-9a-z]{25})$/;
/** 256 bits in base36. */
const DIGEST_LENGTH = 50;

/** The tokens by which nodes join a cluster. */
export interface JoinTokens {
  readonly worker: string;
  readonly manager: string;
}

/** The secrets of a cluster's two tokens. */
export interface TokenSecrets {
  readonly worker: string;
  readonly manager: string;
}

/** Fresh secrets for both tokens; the old tokens stop working once these are stored. */
export function newTokenSecrets(random: Random): TokenSecrets {
  return { worker: newSecret(random), manager: newSecret(random) };
}

/** The part of a token that tells one cluster from another. */
function clusterDigest(clusterId: string, sha256: Sha256): string {
  return toBase36(sha256(new TextEncoder().encode(clusterId)), DIGEST_LENGTH);
}

/** The join tokens of `cluster`. */
export function joinTokensOf(cluster: ClusterRecord, sha256: Sha256): JoinTokens {
  const digest = clusterDigest(cluster.id, sha256);
  return {
    worker: `${TOKEN_PREFIX}-${digest}-${cluster.tokenSecrets.worker}`,
    manager: `${TOKEN_PREFIX}-${digest}-${cluster.tokenSecrets.manager}`,
  };
}

/**
 * The role that `token` gives in `cluster`.
 *
 * @throws {ManagerError} UNAUTHENTICATED if the token is malformed, of another cluster or rotated
 */
export function roleOfToken(token: string, cluster: ClusterRecord, sha256: Sha256): NodeRole {
  const [, digest, secret] = TOKEN_PATTERN.exec(token) ?? [];
  if (digest === undefined || secret === undefined) {
    throw refused('the join token is malformed: expected SWMTKN-1-<50 digits>-<25 digits>');
  }
  if (!equalInConstantTime(digest, clusterDigest(cluster.id, sha256))) {
    throw refused('the join token is of another cluster');
  }
  // Both are compared whichever fits, so that the time taken tells nothing.
  const isWorker = equalInConstantTime(secret, cluster.tokenSecrets.worker);
  const isManager = equalInConstantTime(secret, cluster.tokenSecrets.manager);
  if (isManager) return 'manager';
  if (isWorker) return 'worker';
  throw refused(
    'the join token is not valid any more: "weft join-token worker" on a manager shows the present one',
  );
}

function refused(reason: string): ManagerError {
  return new ManagerError({ code: 'UNAUTHENTICATED' }, `Cannot join: ${reason}`);
}
