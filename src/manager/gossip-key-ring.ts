import type { GossipKeyMode, GossipKeysAssignment, GossipKeysReport } from './gossip-protocol.ts';

/** Keys of a ring at rest: the one in use, and those that a late packet may be sealed by. */
export const GOSSIP_KEYS_MAX = 3;
/** How long one step waits for nodes that are connected and do not confirm it. */
export const STEP_MS_MAX = 60_000;
/**
 * Seals by one key with random nonces of 96 bits, at which the chance that any two nonces are the same stays
 * below 2^-32 (NIST SP 800-38D, section 8.3). All nodes seal by the same key, so theirs count together.
 */
const SEALS_MAX = 2 ** 32;
/**
 * What a node seals in a second, if it is busy for all of a key's life: 60 packets of hastened gossip (120 with
 * the profile `local`), and a few probes, acks and comparisons.
 */
const SEALS_PER_SECOND = 128;

/** A key of the cluster's ring, as it is stored. */
export interface GossipKey {
  /** The first 10 hexadecimal digits of the key's SHA-256. */
  readonly id: string;
  /** In base64. */
  readonly key: string;
  readonly createdAtMs: number;
}

/**
 * The keys by which the nodes gossip, and how far a change of them has come. All times are
 * milliseconds since the Unix epoch. BOUNDED: {@link GOSSIP_KEYS_MAX} keys, and one that is to go.
 */
export interface GossipKeyRing {
  /** Oldest first. */
  readonly keys: readonly GossipKey[];
  /** The key that nodes seal by; absent while nothing is sealed. */
  readonly primaryId?: string;
  /** When it became that. */
  readonly primarySinceMs?: number;
  /** The key that becomes the primary one as soon as every node holds it. */
  readonly nextId?: string;
  readonly mode: GossipKeyMode;
  /** Since when nodes have had to confirm what the ring says now; absent when there is nothing to wait for. */
  readonly stepSinceMs?: number;
}

/** A node that should hold the ring's keys. */
export interface KeyHolder {
  readonly nodeId: string;
  /** What it has confirmed; absent if it has confirmed nothing yet, or its agent knows no keys. */
  readonly report?: GossipKeysReport | undefined;
}

/** What is to be done about a ring now. */
export interface RingStep {
  /** The same object if nothing is to be done. */
  readonly ring: GossipKeyRing;
  /** When to look again though nothing has changed; absent if never. */
  readonly wakeAtMs?: number;
  /** Nodes that this step waits for no longer. */
  readonly skipped: readonly string[];
}

/** What nodes are told: all keys, the one to seal by first. */
export function ringAssignment(ring: GossipKeyRing): GossipKeysAssignment {
  const keys = ring.keys.map(({ id, key }) => ({ id, key }));
  keys.sort((a, b) => Number(b.id === ring.primaryId) - Number(a.id === ring.primaryId));
  return { mode: ring.mode, keys };
}

/** Whether a node does what the ring says, by the same keys and in the same way. */
export function conforms(ring: GossipKeyRing, report: GossipKeysReport | undefined): boolean {
  if (report === undefined || report.mode !== ring.mode) return false;
  const told = ringAssignment(ring).keys;
  return told.length === report.ids.length && told.every(({ id }, at) => id === report.ids[at]);
}

/**
 * The next step of a change, if it is time for it. A step is told to all nodes, and the next one
 * follows when all have confirmed it, so that at no time a node seals by a key that another one
 * does not hold, or takes no plaintext while another one still sends it:
 *
 * 1. a new key is held by all, and nobody seals by it
 * 2. it is what all seal by; where nothing was sealed before, plaintext is still taken
 * 3. plaintext is not taken any more
 * 4. the oldest keys beyond {@link GOSSIP_KEYS_MAX} are gone
 *
 * A node that does not confirm holds up each step for {@link STEP_MS_MAX} and no longer.
 *
 * @param holders - All nodes but those that are down, which get the whole ring when they come back.
 */
export function stepRing(
  ring: GossipKeyRing,
  holders: readonly KeyHolder[],
  nowMs: number,
): RingStep {
  const { stepSinceMs } = ring;
  if (stepSinceMs === undefined) return { ring, skipped: [] };
  const missing = holders.filter(({ report }) => !conforms(ring, report));
  // A clock that was set back must not make the wait longer.
  const waitedMs = Math.abs(nowMs - stepSinceMs);
  if (missing.length > 0 && waitedMs < STEP_MS_MAX) {
    return { ring, wakeAtMs: nowMs + STEP_MS_MAX - waitedMs, skipped: [] };
  }
  return { ring: nextStep(ring, nowMs), skipped: missing.map(({ nodeId }) => nodeId) };
}

function nextStep(ring: GossipKeyRing, nowMs: number): GossipKeyRing {
  const { nextId, stepSinceMs: _, ...rest } = ring;
  const primary = ring.keys.find(({ id }) => id === nextId);
  if (primary !== undefined) {
    const { nextId: __, ...others } = ring;
    const mode = ring.mode === 'accept' ? 'seal' : ring.mode;
    return {
      ...others,
      primaryId: primary.id,
      primarySinceMs: nowMs,
      mode,
      stepSinceMs: nowMs,
    };
  }
  if (ring.mode === 'seal') return { ...rest, mode: 'strict', stepSinceMs: nowMs };
  const spare = ring.keys.find(({ id }) => id !== ring.primaryId);
  if (ring.keys.length > GOSSIP_KEYS_MAX && spare !== undefined) {
    return { ...rest, keys: ring.keys.filter((key) => key !== spare), stepSinceMs: nowMs };
  }
  return rest;
}

/**
 * When the primary key has done its time.
 *
 * @param rotationMs - How long a key seals; 0 for ever.
 * @returns the time, in the past if it is due; undefined if none is
 */
export function rotationDueMs(
  ring: GossipKeyRing,
  rotationMs: number,
  nowMs: number,
): number | undefined {
  const { primarySinceMs, mode, stepSinceMs } = ring;
  if (rotationMs === 0 || primarySinceMs === undefined) return undefined;
  if (mode !== 'strict' || stepSinceMs !== undefined) return undefined; // a change is under way
  // A primary of the future is what a clock leaves that was set back: its age is not known.
  return primarySinceMs - nowMs > rotationMs ? nowMs : primarySinceMs + rotationMs;
}

/**
 * How long a key seals in a cluster of so many nodes: as long as wanted, or shorter if they could seal more by
 * it than random nonces are good for. Of 12 h that takes more than 776 nodes; 4,096 get 2.3 h.
 *
 * @param rotationMs - 0 for ever, whatever the number: whoever wants that changes keys by hand.
 */
export function scaledRotationMs(rotationMs: number, nodes: number): number {
  const lifeMs = (SEALS_MAX / SEALS_PER_SECOND / Math.max(1, nodes)) * 1000;
  return Math.min(rotationMs, Math.floor(lifeMs));
}

/** A ring with one key, by which everything is sealed from the start. */
export function firstRing(key: GossipKey): GossipKeyRing {
  const { id, createdAtMs } = key;
  return { keys: [key], primaryId: id, primarySinceMs: createdAtMs, mode: 'strict' };
}

/** Adds a key, which nodes open by and do not seal by. */
export function withKey(
  ring: GossipKeyRing | undefined,
  key: GossipKey,
  nowMs: number,
): GossipKeyRing {
  const { keys, ...rest } = ring ?? { keys: [], mode: 'accept' as const };
  return { ...rest, keys: [...keys, key], stepSinceMs: nowMs };
}

/** Makes a key of the ring the primary one, once every node holds it. */
export function withNext(ring: GossipKeyRing, id: string, nowMs: number): GossipKeyRing {
  return { ...ring, nextId: id, stepSinceMs: nowMs };
}

/** Takes a key out of the ring; it is not the primary one, nor about to be. */
export function withoutKey(ring: GossipKeyRing, id: string, nowMs: number): GossipKeyRing {
  return { ...ring, keys: ring.keys.filter((key) => key.id !== id), stepSinceMs: nowMs };
}
