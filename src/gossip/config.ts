import { invariant } from '../core/invariant.ts';

/**
 * Tuning of the protocol. Names and defaults are those of memberlist's `DefaultLANConfig`
 * (config.go) unless the field says otherwise. All nodes of a cluster should use the same.
 */
export interface GossipTuning {
  /** Time between two failure probes. Lower finds failures sooner and costs more packets. */
  readonly probeIntervalMs: number;
  /** How long an ack to a direct ping may take before others are asked to ping. */
  readonly probeTimeoutMs: number;
  /** Members that are asked for an indirect ping. */
  readonly indirectChecks: number;
  /** A rumour is sent `retransmitMult * ceil(log10(members + 1))` times. */
  readonly retransmitMult: number;
  /** A suspect has at least `suspicionMult * log10(members) * probeIntervalMs` to refute. */
  readonly suspicionMult: number;
  /** Times the minimum: what a suspect gets while no one confirms the suspicion (Lifeguard). */
  readonly suspicionMaxTimeoutMult: number;
  /** Whether who probes a suspect tells it so, for it to refute (Lifeguard's buddy system). Our own. */
  readonly buddySystem: boolean;
  /** An own health score stays below this; timeouts grow with the score (Lifeguard). */
  readonly awarenessMaxMultiplier: number;
  /** Time between two full state exchanges with a random member. Grows with log2(members / 32). */
  readonly pushPullIntervalMs: number;
  /** Members that get queued rumours at each gossip interval. */
  readonly gossipNodes: number;
  readonly gossipIntervalMs: number;
  /** For this long a dead member still gets gossip, so that it can refute; then it is reaped. */
  readonly gossipToTheDeadMs: number;
  /** After this long another address may take over a dead member's name; 0 is never. */
  readonly deadNodeReclaimMs: number;
  /** Largest UDP payload that is sent (`UDPBufferSize`). */
  readonly packetBytesMax: number;
  /** Bound on a whole TCP exchange (`TCPTimeout`). */
  readonly streamTimeoutMs: number;
  /** Whether a failing UDP probe is checked by TCP too (not `DisableTcpPings`). */
  readonly streamPings: boolean;
  /** Time between two attempts to reach a failed member or a lost seed. Serf's is 30 s. */
  readonly reconnectIntervalMs: number;
  /** How long a failed member is remembered (serf `ReconnectTimeout`). */
  readonly reconnectTimeoutMs: number;
  /** Time between two attempts on all seeds while no other member is known. Our own. */
  readonly joinRetryMs: number;
  /** How long a leave may wait for its broadcast (serf `BroadcastTimeout`). */
  readonly leaveTimeoutMs: number;
  /** Time between two summaries of the endpoint tables to random members. Our own. */
  readonly summaryIntervalMs: number;
  /** How long a deletion is kept as such; a node that misses it for longer gets a whole record. */
  readonly tombstoneMs: number;
  /** How long the record of a node that left, or was never seen as a member, is kept. Our own. */
  readonly departedRecordMs: number;
  /** Members known at once; an alive message about one more is dropped. Our own. */
  readonly membersMax: number;
  /** Rumours that wait for transmission (serf `MaxQueueDepth`); the most sent one goes first. */
  readonly queueMax: number;
}

/** Defaults for one site, 1 to a few thousand nodes. */
export const LAN_TUNING: GossipTuning = {
  probeIntervalMs: 1_000,
  probeTimeoutMs: 500,
  indirectChecks: 3,
  retransmitMult: 4,
  suspicionMult: 4,
  suspicionMaxTimeoutMult: 6,
  buddySystem: true,
  awarenessMaxMultiplier: 8,
  pushPullIntervalMs: 30_000,
  gossipNodes: 3,
  gossipIntervalMs: 200,
  gossipToTheDeadMs: 30_000,
  deadNodeReclaimMs: 0,
  packetBytesMax: 1_400,
  streamTimeoutMs: 10_000,
  streamPings: true,
  reconnectIntervalMs: 5_000,
  reconnectTimeoutMs: 24 * 3_600_000,
  joinRetryMs: 2_000,
  leaveTimeoutMs: 5_000,
  summaryIntervalMs: 1_000,
  tombstoneMs: 60_000,
  departedRecordMs: 60_000,
  membersMax: 4_096,
  queueMax: 4_096,
};

/**
 * Checks the relations that the protocol relies on.
 *
 * @throws {Error} naming the relation that does not hold
 */
export function checkTuning(tuning: GossipTuning): void {
  const { probeIntervalMs, probeTimeoutMs, gossipIntervalMs } = tuning;
  for (const [name, value] of Object.entries(tuning)) {
    const valid = typeof value === 'boolean' || (Number.isFinite(value) && value >= 0);
    invariant(valid, `gossip tuning "${name}" is not a number of 0 or more`);
  }
  invariant(gossipIntervalMs > 0, 'the gossip interval is not above 0');
  invariant(probeTimeoutMs < probeIntervalMs, 'a direct ping ends before its probe does');
  invariant(gossipIntervalMs * 2 <= probeTimeoutMs, 'two gossip intervals fit in a ping timeout');
  invariant(tuning.suspicionMult >= 1, 'a suspect has a probe interval or more to refute');
  invariant(tuning.suspicionMaxTimeoutMult >= 1, 'the longest suspicion is not below the shortest');
  invariant(tuning.awarenessMaxMultiplier >= 1, 'the health score has room for 0');
  invariant(tuning.gossipNodes >= 1 && tuning.retransmitMult >= 1, 'rumours are sent at all');
  invariant(
    tuning.packetBytesMax >= 1_000,
    'a packet holds an alive message with 512 bytes of meta',
  );
  invariant(tuning.packetBytesMax <= 65_507, 'a packet fits in a UDP datagram');
  invariant(tuning.membersMax >= 2 && tuning.queueMax >= 1, 'a member and a rumour have room');
}

/**
 * How often a rumour is sent (memberlist `retransmitLimit`).
 *
 * @param members - Members known, this node included.
 */
export function retransmitLimit(retransmitMult: number, members: number): number {
  return retransmitMult * Math.ceil(Math.log10(members + 1));
}

/** Time between two push/pulls in a cluster of `members` (memberlist `pushPullScale`). */
export function scaledPushPullMs(intervalMs: number, members: number): number {
  const SCALE_THRESHOLD = 32;
  if (members <= SCALE_THRESHOLD) return intervalMs;
  return (Math.ceil(Math.log2(members / SCALE_THRESHOLD)) + 1) * intervalMs;
}
