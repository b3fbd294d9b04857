import { parseBase64, toBase64 } from '../core/base64.ts';
import type { Random } from '../core/capabilities.ts';
import type { StateView } from './cluster-state.ts';
import { invalid, notFound, preconditionFailed } from './errors.ts';
import {
  conforms,
  GOSSIP_KEYS_MAX,
  type GossipKey,
  type GossipKeyRing,
  type KeyHolder,
  ringAssignment,
  rotationDueMs,
  scaledRotationMs,
  stepRing,
  withKey,
  withNext,
  withoutKey,
} from './gossip-key-ring.ts';
import {
  GOSSIP_SETTINGS_BEFORE,
  type GossipKeysAssignment,
  type GossipSettings,
} from './gossip-protocol.ts';
import { toHex } from './ids.ts';
import type { Sha256 } from './join-tokens.ts';
import { CLUSTER_KEY, GOSSIP_KEYS_KEY } from './keys.ts';
import type { ClusterRecord, NodeRecord } from './records.ts';
import type { Draft } from './state-writer.ts';

/** Swarm's number: swarmkit `manager/keymanager/keymanager.go`. */
export const KEY_ROTATION_MS_DEFAULT: number = 12 * 3_600_000;
/** A rotation takes three steps; one that comes sooner than a slow one ends helps nobody. */
export const KEY_ROTATION_MS_MIN = 60_000;
/** AES-128, AES-192 and AES-256. */
const KEY_BYTES: readonly number[] = [16, 24, 32];
const NEW_KEY_BYTES = 32;
const ID_DIGITS = 10;

/** What making and changing keys takes. */
export interface KeyContext {
  readonly random: Random;
  readonly sha256: Sha256;
  /** Milliseconds since the Unix epoch. */
  readonly nowMs: number;
}

/** How the cluster gossips: as nodes are told it. */
export function gossipSettingsOf(view: StateView, cluster: ClusterRecord): GossipSettings {
  const { keyRotationMs: _, ...settings } = cluster.gossip ?? {
    ...GOSSIP_SETTINGS_BEFORE,
    keyRotationMs: KEY_ROTATION_MS_DEFAULT,
  };
  return { ...settings, encryption: view.get(GOSSIP_KEYS_KEY)?.mode === 'strict' };
}

/** The keys as nodes are told them; undefined if the cluster has never had any. */
export function gossipKeysOf(view: StateView): GossipKeysAssignment | undefined {
  const ring = view.get(GOSSIP_KEYS_KEY);
  return ring && ringAssignment(ring);
}

/** A random key of 32 bytes. */
export function newGossipKey({ random, sha256, nowMs }: KeyContext): GossipKey {
  return keyOf(random.bytes(NEW_KEY_BYTES), sha256, nowMs);
}

/**
 * A key that somebody gives.
 *
 * @param text - In base64.
 * @param field - What it is called in the request. Refusals do not repeat the key.
 * @throws {ManagerError} INVALID if it is no key
 */
export function readGossipKey(text: string, field: string, context: KeyContext): GossipKey {
  const bytes = parseBase64(text);
  if (bytes !== undefined && KEY_BYTES.includes(bytes.length)) {
    return keyOf(bytes, context.sha256, context.nowMs);
  }
  const given =
    bytes === undefined ? 'a text that is not base64' : `a key of ${bytes.length} bytes`;
  throw invalid(
    `Invalid ${field}: expected 16, 24 or 32 bytes in base64; ${given} was given`,
    field,
  );
}

function keyOf(bytes: Uint8Array, sha256: Sha256, nowMs: number): GossipKey {
  const id = toHex(sha256(bytes)).slice(0, ID_DIGITS);
  return { id, key: toBase64(bytes), createdAtMs: nowMs };
}

/** The nodes that must confirm a change: one that is down gets all keys when it comes back. */
export function keyHolders(nodes: Iterable<NodeRecord>): KeyHolder[] {
  return [...nodes]
    .filter(({ state }) => state !== 'down')
    .map(({ id, gossipKeys }) => ({ nodeId: id, report: gossipKeys }));
}

/** What {@link driveGossipKeys} has done, to be logged once it is stored. No key is in it. */
export interface KeyProgress {
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
  readonly isWarning: boolean;
}

/**
 * Takes the cluster's keys one step further, or begins a rotation that is due.
 *
 * @returns what was done, and when to look again
 */
export function driveGossipKeys(
  draft: Draft,
  context: KeyContext,
): { readonly progress: readonly KeyProgress[]; readonly wakeAtMs?: number } {
  const ring = draft.get(GOSSIP_KEYS_KEY);
  const cluster = draft.get(CLUSTER_KEY);
  if (ring === undefined || cluster === undefined) return { progress: [] };
  const { nowMs } = context;
  const step = stepRing(ring, keyHolders(draft.all('nodes')), nowMs);
  if (step.ring !== ring) {
    draft.put(GOSSIP_KEYS_KEY, step.ring);
    return { progress: describeStep(ring, step.ring, step.skipped), wakeAtMs: nowMs };
  }
  if (step.wakeAtMs !== undefined) return { progress: [], wakeAtMs: step.wakeAtMs };
  const wantedMs = cluster.gossip?.keyRotationMs ?? KEY_ROTATION_MS_DEFAULT;
  const rotationMs = scaledRotationMs(wantedMs, [...draft.all('nodes')].length);
  const dueMs = rotationDueMs(ring, rotationMs, nowMs);
  if (dueMs === undefined) return { progress: [] };
  if (dueMs > nowMs) return { progress: [], wakeAtMs: dueMs };
  const key = newGossipKey(context);
  draft.put(GOSSIP_KEYS_KEY, withNext(withKey(ring, key, nowMs), key.id, nowMs));
  const fields = { keyId: key.id };
  return { progress: [{ message: 'gossip key rotation begins', fields, isWarning: false }] };
}

function describeStep(
  before: GossipKeyRing,
  after: GossipKeyRing,
  skipped: readonly string[],
): KeyProgress[] {
  const { primaryId, mode } = after;
  const fields = { keyId: primaryId, mode, keys: after.keys.map(({ id }) => id) };
  const isDone = after.stepSinceMs === undefined;
  const message = isDone ? 'gossip keys are as they should be' : 'gossip keys: next step';
  const unconfirmed: KeyProgress = {
    message: 'nodes did not confirm the gossip keys in time, going on without them',
    fields: { nodeIds: skipped, keys: before.keys.map(({ id }) => id) },
    isWarning: true,
  };
  const step: KeyProgress = { message, fields, isWarning: false };
  return skipped.length > 0 ? [unconfirmed, step] : [step];
}

/**
 * Adds a key that a serf agent may use, too.
 *
 * @throws {ManagerError} PRECONDITION if the ring is full or has it, or an agent knows no keys
 */
export function installGossipKey(draft: Draft, key: GossipKey, nowMs: number): void {
  const ring = draft.get(GOSSIP_KEYS_KEY);
  const { keys = [] } = ring ?? {};
  if (keys.some(({ id }) => id === key.id)) {
    throw preconditionFailed(`Cannot install gossip key ${key.id}: it is installed already`);
  }
  if (keys.length >= GOSSIP_KEYS_MAX) {
    throw preconditionFailed(
      `Cannot install gossip key ${key.id}: there are ${keys.length} keys, expected at most ${GOSSIP_KEYS_MAX}: remove one first ("weft gossip key remove")`,
    );
  }
  requireKeyAgents(draft, ring);
  draft.put(GOSSIP_KEYS_KEY, withKey(ring, key, nowMs));
}

/**
 * Begins to replace the primary key by a new one. Where gossip was plaintext it is encrypted then.
 *
 * @returns the id of the new key
 * @throws {ManagerError} PRECONDITION while another change is under way
 */
export function rotateGossipKey(draft: Draft, context: KeyContext): string {
  const ring = draft.get(GOSSIP_KEYS_KEY);
  requireAtRest(ring, 'rotate the gossip key');
  requireKeyAgents(draft, ring);
  const key = newGossipKey(context);
  const { nowMs } = context;
  draft.put(GOSSIP_KEYS_KEY, withNext(withKey(ring, key, nowMs), key.id, nowMs));
  return key.id;
}

/**
 * Makes an installed key the one that is sealed by; nothing happens if it is.
 *
 * @throws {ManagerError} NOT_FOUND, or PRECONDITION while another key is about to be primary
 */
export function useGossipKey(draft: Draft, reference: string, nowMs: number): string {
  const { ring, key } = findKey(draft, reference);
  const { nextId, primaryId } = ring;
  if (nextId !== undefined && nextId !== key.id) {
    throw preconditionFailed(
      `Cannot use gossip key ${key.id}: key ${nextId} is about to be the primary one, try again when it is`,
    );
  }
  if (nextId === undefined && primaryId !== key.id) {
    draft.put(GOSSIP_KEYS_KEY, withNext(ring, key.id, nowMs));
  }
  return key.id;
}

/**
 * Takes a key out of the ring.
 *
 * @throws {ManagerError} NOT_FOUND, or PRECONDITION if nodes seal by it, or a change is under way
 */
export function removeGossipKey(draft: Draft, reference: string, nowMs: number): string {
  const { ring, key } = findKey(draft, reference);
  if (key.id === ring.primaryId) {
    throw preconditionFailed(
      `Cannot remove gossip key ${key.id}: it is the primary one, use another one first ("weft gossip key use")`,
    );
  }
  requireAtRest(ring, `remove gossip key ${key.id}`);
  draft.put(GOSSIP_KEYS_KEY, withoutKey(ring, key.id, nowMs));
  return key.id;
}

/** A key by its id, or the start of it that only one has. */
function findKey(
  draft: Draft,
  reference: string,
): { readonly ring: GossipKeyRing; readonly key: GossipKey } {
  const ring = draft.get(GOSSIP_KEYS_KEY);
  const found = ring?.keys.filter(({ id }) => id.startsWith(reference)) ?? [];
  const [key] = found;
  if (ring === undefined || key === undefined || reference === '') {
    throw notFound('gossip key', reference);
  }
  if (found.length === 1) return { ring, key };
  throw invalid(`gossip key ${reference} is ambiguous: ${found.length} keys begin so`, 'id');
}

function requireAtRest(ring: GossipKeyRing | undefined, what: string): void {
  if (ring?.stepSinceMs === undefined) return;
  throw preconditionFailed(
    `Cannot ${what}: another change of the keys is under way, try again when it is done ("weft gossip key list" shows it)`,
  );
}

/** An agent of before there were keys would be cut off by the first one. */
function requireKeyAgents(draft: Draft, ring: GossipKeyRing | undefined): void {
  if (ring !== undefined && ring.mode !== 'accept') return;
  for (const { state, gossipKeys, description } of draft.all('nodes')) {
    if (state === 'down' || gossipKeys !== undefined) continue;
    throw preconditionFailed(
      `Cannot encrypt gossip: the agent of node ${description.hostname} has not said that it knows keys, upgrade it first`,
    );
  }
}

/** Whether a node has said that it holds `key`. */
export function holdsKey(node: NodeRecord, key: GossipKey): boolean {
  return node.gossipKeys?.ids.includes(key.id) === true;
}

/** Whether a node has confirmed all that the ring says now. */
export function hasConfirmed(node: NodeRecord, ring: GossipKeyRing): boolean {
  return conforms(ring, node.gossipKeys);
}
