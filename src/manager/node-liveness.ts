/** A node reports at least this often (swarmkit `dispatcher.go`). */
export const HEARTBEAT_MS = 5_000;
/** Missed heartbeats after which a node counts as down. */
const HEARTBEATS_MISSED_MAX = 3;
/** A ready node that has not been heard of for this long is down. */
export const DOWN_AFTER_MS: number = HEARTBEAT_MS * HEARTBEATS_MISSED_MAX;
/** The same when gossip has lost the node too: one heartbeat and a little (epsilon 0.5 s). */
export const SUSPECT_DOWN_AFTER_MS: number = HEARTBEAT_MS + 500;
/** For nodes that have not been heard of since they joined, or since this manager started. */
export const UNKNOWN_DOWN_AFTER_MS: number = DOWN_AFTER_MS * 2;

interface Watched {
  heardAtMs: number;
  graceMs: number;
}

/**
 * Which nodes have been silent for too long. Pure bookkeeping: all times are arguments, on the
 * monotonic clock. BOUNDED by the nodes of the cluster.
 */
export class NodeLiveness {
  readonly #nodes = new Map<string, Watched>();

  /** Starts to wait for a node that has not been heard of yet; nothing happens if it is watched. */
  expect(nodeId: string, nowMs: number): void {
    if (this.#nodes.has(nodeId)) return;
    this.#nodes.set(nodeId, { heardAtMs: nowMs, graceMs: UNKNOWN_DOWN_AFTER_MS });
  }

  /** A sign of life. */
  heard(nodeId: string, nowMs: number): void {
    this.#nodes.set(nodeId, { heardAtMs: nowMs, graceMs: DOWN_AFTER_MS });
  }

  /** Somebody else lost the node: shortens the wait until it is heard of again. */
  suspect(nodeId: string): void {
    const watched = this.#nodes.get(nodeId);
    if (watched !== undefined) watched.graceMs = Math.min(watched.graceMs, SUSPECT_DOWN_AFTER_MS);
  }

  /** Stops watching a node. */
  forget(nodeId: string): void {
    this.#nodes.delete(nodeId);
  }

  /** The nodes that are down by `nowMs`; they are not watched any more. */
  takeExpired(nowMs: number): string[] {
    const expired: string[] = [];
    for (const [nodeId, { heardAtMs, graceMs }] of this.#nodes) {
      if (heardAtMs + graceMs <= nowMs) expired.push(nodeId);
    }
    for (const nodeId of expired) this.#nodes.delete(nodeId);
    return expired;
  }

  /** When the next node expires if nothing is heard; undefined if none is watched. */
  get nextDeadlineMs(): number | undefined {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const { heardAtMs, graceMs } of this.#nodes.values()) {
      nextMs = Math.min(nextMs, heardAtMs + graceMs);
    }
    return Number.isFinite(nextMs) ? nextMs : undefined;
  }
}
