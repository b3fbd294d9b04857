/** What a manager tells nodes about gossip: part of the messages of session-protocol.ts. */

/** memberlist's and serf's profiles: how fast failures are found, at how many packets. */
export const GOSSIP_PROFILES = ['lan', 'wan', 'local'] as const;
/** One of {@link GOSSIP_PROFILES}. */
export type GossipProfile = (typeof GOSSIP_PROFILES)[number];

/** How the cluster gossips: chosen when it is made, and the same on every node. */
export interface GossipSettings {
  /** Whether a node that has no key yet must not gossip. */
  readonly encryption: boolean;
  readonly profile: GossipProfile;
  readonly compression: boolean;
  /** What every packet and stream begins with, 1 to 255 bytes of UTF-8; none if absent. */
  readonly label?: string;
}

/** What holds in a cluster, and for a node, of before there were settings. */
export const GOSSIP_SETTINGS_BEFORE: GossipSettings = {
  encryption: false,
  profile: 'lan',
  compression: true,
};

/**
 * What is done by the keys. `accept`: opens what is sealed by any of them, takes plaintext, and
 * seals nothing. `seal`: also seals by the first one. `strict`: also takes no plaintext.
 */
export const GOSSIP_KEY_MODES = ['accept', 'seal', 'strict'] as const;
/** One of {@link GOSSIP_KEY_MODES}. */
export type GossipKeyMode = (typeof GOSSIP_KEY_MODES)[number];

/** A key as nodes are told it: a secret. */
export interface GossipKeyAssignment {
  /** The first 10 hexadecimal digits of the key's SHA-256: no secret. */
  readonly id: string;
  /** 16, 24 or 32 bytes (AES-128, AES-192, AES-256) in base64. */
  readonly key: string;
}

/** The keys that a node must hold: all of them, and no others. */
export interface GossipKeysAssignment {
  readonly mode: GossipKeyMode;
  /** The one to seal by comes first. */
  readonly keys: readonly GossipKeyAssignment[];
}

/** What a node does by which keys now. */
export interface GossipKeysReport {
  readonly mode: GossipKeyMode;
  /** Ids, in the order of the assignment. */
  readonly ids: readonly string[];
}
