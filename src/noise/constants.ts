import { invariant } from '../core/invariant.ts';

// Protocol: both ends must agree. The times are WireGuard's (whitepaper section 6.1 and
// wireguard-go device/constants.go).

/** An initiator makes a new session for one of this age that still sends. */
export const REKEY_AFTER_MS = 120_000;
/** No session sends or receives past this age. */
export const REJECT_AFTER_MS = 180_000;
/** Messages after which a session is renewed: far below the 2^64 that a counter can name. */
export const REKEY_AFTER_MESSAGES: number = 2 ** 60;
/** How long an unanswered initiation is given before the next one. */
export const REKEY_TIMEOUT_MS = 5_000;
/** At most this is added to each {@link REKEY_TIMEOUT_MS}, so that two peers do not stay in step. */
export const REKEY_JITTER_MS_MAX = 334;
/** How long an unanswered handshake is tried before what waits for it is given up. */
export const REKEY_ATTEMPT_MS = 90_000;
/** Who received data and had nothing to say for so long sends an empty message. */
export const KEEPALIVE_MS = 10_000;
/** Lifetime of the secret that cookies are made with, and of a cookie at its receiver. */
export const COOKIE_MS = 120_000;
/** Least time between two initiations of one peer that are answered. */
export const INITIATION_INTERVAL_MS = 20;

// Implementation: tune freely.

/** Of two initiations that cross within this time, the one of the smaller public key goes on. */
export const CROSSING_MS = 1_000;
/** Handshake messages per second past which senders must prove their address by a cookie. */
export const UNLOADED_MESSAGES_PER_SECOND = 100;
/** How long a node stays under load after it was (wireguard-go `UnderLoadAfterTime`). */
export const UNDER_LOAD_MS = 1_000;
/** Handshakes per second of one address under load, and how many of them at once (wireguard-go ratelimiter). */
export const LOADED_MESSAGES_PER_SECOND = 20;
export const LOADED_BURST = 5;
/** Addresses that are limited at a time under load; further ones must wait. */
export const LIMITED_ADDRESSES_MAX = 4_096;

invariant(
  REKEY_AFTER_MS + KEEPALIVE_MS + REKEY_TIMEOUT_MS < REJECT_AFTER_MS,
  'a session can be renewed before it is refused',
);
