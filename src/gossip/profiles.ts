import { type GossipTuning, LAN_TUNING } from './config.ts';

/**
 * For nodes that are far from each other: memberlist's `DefaultWANConfig` (config.go), which is also
 * what a serf agent has with `-profile=wan`. What memberlist does not know is slowed down likewise.
 */
export const WAN_TUNING: GossipTuning = {
  ...LAN_TUNING,
  streamTimeoutMs: 30_000,
  suspicionMult: 6,
  pushPullIntervalMs: 60_000,
  probeTimeoutMs: 3_000,
  probeIntervalMs: 5_000,
  gossipNodes: 4,
  gossipIntervalMs: 500,
  gossipToTheDeadMs: 60_000,
  reconnectIntervalMs: 15_000,
  joinRetryMs: 5_000,
  leaveTimeoutMs: 15_000,
  summaryIntervalMs: 2_500,
  tombstoneMs: 120_000,
  departedRecordMs: 120_000,
};

/**
 * For nodes of one machine: memberlist's `DefaultLocalConfig` (config.go), which is also what a serf
 * agent has with `-profile=local`.
 */
export const LOCAL_TUNING: GossipTuning = {
  ...LAN_TUNING,
  streamTimeoutMs: 1_000,
  indirectChecks: 1,
  retransmitMult: 2,
  suspicionMult: 3,
  pushPullIntervalMs: 15_000,
  probeTimeoutMs: 200,
  probeIntervalMs: 1_000,
  gossipIntervalMs: 100,
  gossipToTheDeadMs: 15_000,
  joinRetryMs: 1_000,
};

/** Names of the tunings, as serf's agent calls them. */
export type ProfileName = 'lan' | 'wan' | 'local';

/** The tuning of each profile. */
export const PROFILE_TUNINGS: Readonly<Record<ProfileName, GossipTuning>> = {
  lan: LAN_TUNING,
  wan: WAN_TUNING,
  local: LOCAL_TUNING,
};
