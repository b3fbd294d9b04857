import { test } from 'tap';
import { checkTuning, type GossipTuning, LAN_TUNING } from '../../src/gossip/config.ts';
import { LOCAL_TUNING, PROFILE_TUNINGS, WAN_TUNING } from '../../src/gossip/profiles.ts';

/** The fields that memberlist has, by its names for them. */
function memberlist(tuning: GossipTuning): Readonly<Record<string, number>> {
  return {
    TCPTimeout: tuning.streamTimeoutMs,
    IndirectChecks: tuning.indirectChecks,
    RetransmitMult: tuning.retransmitMult,
    SuspicionMult: tuning.suspicionMult,
    SuspicionMaxTimeoutMult: tuning.suspicionMaxTimeoutMult,
    PushPullInterval: tuning.pushPullIntervalMs,
    ProbeTimeout: tuning.probeTimeoutMs,
    ProbeInterval: tuning.probeIntervalMs,
    AwarenessMaxMultiplier: tuning.awarenessMaxMultiplier,
    GossipNodes: tuning.gossipNodes,
    GossipInterval: tuning.gossipIntervalMs,
    GossipToTheDeadTime: tuning.gossipToTheDeadMs,
    UDPBufferSize: tuning.packetBytesMax,
  };
}

/** memberlist's config.go. */
const LAN = {
  TCPTimeout: 10_000,
  IndirectChecks: 3,
  RetransmitMult: 4,
  SuspicionMult: 4,
  SuspicionMaxTimeoutMult: 6,
  PushPullInterval: 30_000,
  ProbeTimeout: 500,
  ProbeInterval: 1_000,
  AwarenessMaxMultiplier: 8,
  GossipNodes: 3,
  GossipInterval: 200,
  GossipToTheDeadTime: 30_000,
  UDPBufferSize: 1_400,
};
const WAN = {
  ...LAN,
  TCPTimeout: 30_000,
  SuspicionMult: 6,
  PushPullInterval: 60_000,
  ProbeTimeout: 3_000,
  ProbeInterval: 5_000,
  GossipNodes: 4,
  GossipInterval: 500,
  GossipToTheDeadTime: 60_000,
};
const LOCAL = {
  ...LAN,
  TCPTimeout: 1_000,
  IndirectChecks: 1,
  RetransmitMult: 2,
  SuspicionMult: 3,
  PushPullInterval: 15_000,
  ProbeTimeout: 200,
  GossipInterval: 100,
  GossipToTheDeadTime: 15_000,
};

for (const [name, tuning, expected] of [
  ['lan', LAN_TUNING, LAN],
  ['wan', WAN_TUNING, WAN],
  ['local', LOCAL_TUNING, LOCAL],
] as const) {
  test(`profile ${name} is memberlist's`, (t) => {
    t.same(memberlist(tuning), expected);
    t.equal(PROFILE_TUNINGS[name], tuning);
    t.doesNotThrow(() => checkTuning(tuning));
    t.end();
  });
}
