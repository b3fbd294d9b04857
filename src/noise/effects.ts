import type { Ip } from '../core/ip.ts';
import type { Keypair } from './keypairs.ts';

/** Where a peer's datagrams come from and go to. */
export interface Endpoint {
  readonly address: Ip;
  readonly port: number;
}

/** Whether both are the same address and port. */
export function isSameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a.address === b.address && a.port === b.port;
}

/** Why a handshake message was not acted upon. */
export const HANDSHAKE_DROPS = [
  /** Neither type nor size of a handshake message. */
  'malformed',
  /** Made by somebody who does not know this node's key. */
  'bad-mac1',
  /** Under load, and the sender has not proven its address: it was sent a cookie. */
  'cookie-sent',
  /** Under load, and the address has had its share. */
  'rate-limited',
  /** Answers no initiation that is under way. */
  'unknown-index',
  /** Not made for this node, or forged. */
  'not-authentic',
  /** The sender's key is that of no peer: it was removed, or never was one. */
  'unknown-peer',
  /** An initiation that was seen before, or is older than one that was. */
  'replayed',
  /** Initiations of one peer in too short a time. */
  'flood',
  /** Both ends began at once, and this node's initiation goes on. */
  'crossed',
] as const;
export type HandshakeDrop = (typeof HANDSHAKE_DROPS)[number];

/** What the caller must now do, in order. The state machine itself sends nothing. */
export type SecureEffect =
  /** Sends a datagram from the node's VXLAN port. */
  | { readonly kind: 'send'; readonly to: Endpoint; readonly bytes: Uint8Array }
  /**
   * Gives the data plane a session. It accepts messages under it at once; it sends by it at once if
   * `isConfirmed`, and otherwise from the first authentic message on.
   */
  | {
      readonly kind: 'install';
      readonly peerId: string;
      readonly keypair: Keypair;
      readonly isConfirmed: boolean;
      /** Where its messages go. */
      readonly to: Endpoint;
    }
  /** Takes a session from the data plane. */
  | { readonly kind: 'remove'; readonly peerId: string; readonly localIndex: number }
  /** Has the data plane send an empty message by the peer's session. */
  | { readonly kind: 'keepalive'; readonly peerId: string }
  /** The peer is at another address: its messages go there. */
  | { readonly kind: 'move'; readonly peerId: string; readonly to: Endpoint }
  /** No answer for so long that what waits for a session is not worth keeping. */
  | { readonly kind: 'giveUp'; readonly peerId: string }
  /** Something to count. */
  | { readonly kind: 'drop'; readonly reason: HandshakeDrop };
