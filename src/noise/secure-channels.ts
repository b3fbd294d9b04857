import type { Clock, Random } from '../core/capabilities.ts';
import { formatIpPort, type Ip } from '../core/ip.ts';
import { CookieChecker } from './cookie.ts';
import { equalBytes, KEY_BYTES, labelBytes, toHex } from './crypto.ts';
import { type Endpoint, type HandshakeDrop, isSameEndpoint, type SecureEffect } from './effects.ts';
import { type HandshakeIdentity, ResponderHandshake } from './handshake.ts';
import { HandshakeLoad } from './handshake-load.ts';
import {
  decodeHandshake,
  type HandshakeMessage,
  MESSAGE_COOKIE_REPLY,
  MESSAGE_INITIATION,
} from './messages.ts';
import { type PeerDeps, type PeerSpec, SecurePeer, type SessionActivity } from './secure-peer.ts';
import { tai64n } from './tai64n.ts';

/** One step of the sender's timestamps where its clock has not moved on: 1 microsecond. */
const TIMESTAMP_STEP_MS = 0.001;

/** What the channels of a node work with. */
export interface SecureChannelsDeps {
  readonly identity: HandshakeIdentity;
  readonly clock: Clock;
  readonly random: Random;
  /**
   * Wall-clock time that no timestamp may be before, in milliseconds since the Unix epoch: peers refuse
   * a node whose clock was set back between two of its lives.
   */
  readonly timestampFloorMs: number;
}

/** What `weft status` shows of a peer's channel. */
export interface SecureChannelStatus {
  readonly peerId: string;
  readonly endpoint: Endpoint;
  readonly state: 'idle' | 'connecting' | 'established';
  /** Age of the session that data is sent by. */
  readonly sessionAgeMs: number | undefined;
}

/**
 * All encrypted channels of a node: one state machine without I/O. It is told what arrives, what is
 * wanted and that time passes, and says what to do. Only the data plane seals and opens data.
 */
export class SecureChannels {
  readonly #deps: SecureChannelsDeps;
  readonly #peerDeps: PeerDeps;
  readonly #checker: CookieChecker;
  readonly #load: HandshakeLoad;
  /** BOUNDED by the nodes that the manager vouches for. */
  readonly #peers = new Map<string, SecurePeer>();
  readonly #byKey = new Map<string, SecurePeer>();
  /** Of every initiation under way and every session. BOUNDED by four per peer. */
  readonly #byIndex = new Map<number, SecurePeer>();
  #lastTimestampMs: number;

  constructor(deps: SecureChannelsDeps) {
    const { identity, clock, random } = deps;
    this.#deps = deps;
    this.#lastTimestampMs = deps.timestampFloorMs;
    const cookieDeps = { crypto: identity.crypto, clock, random };
    this.#checker = new CookieChecker(cookieDeps, identity.staticKeys.publicKey);
    this.#load = new HandshakeLoad(clock);
    this.#peerDeps = {
      identity,
      clock,
      random,
      timestamp: () => this.#timestamp(),
      newIndex: (peer) => this.#newIndex(peer),
      releaseIndex: (index) => this.#byIndex.delete(index),
    };
  }

  /** When {@link SecureChannels.tick} has something to do, on the monotonic clock. */
  get deadlineMs(): number {
    let deadlineMs = Number.POSITIVE_INFINITY;
    for (const peer of this.#peers.values()) deadlineMs = Math.min(deadlineMs, peer.deadlineMs);
    return deadlineMs;
  }

  /**
   * The whole set of peers. Who is not in it any more, or has another key or address, loses its sessions
   * at once.
   *
   * @throws {RangeError} if a key is not 32 bytes long
   */
  setPeers(specs: readonly PeerSpec[]): SecureEffect[] {
    for (const { id, publicKey } of specs) {
      if (publicKey.length !== KEY_BYTES) {
        throw new RangeError(
          `Cannot use the public key of node ${id}: expected ${KEY_BYTES} bytes, got ${publicKey.length}`,
        );
      }
    }
    const wanted = new Map(specs.map((spec) => [spec.id, spec]));
    const effects: SecureEffect[] = [];
    for (const [id, peer] of this.#peers) {
      const spec = wanted.get(id);
      if (spec !== undefined && isSamePeer(spec, peer.spec)) continue;
      effects.push(...peer.close());
      this.#peers.delete(id);
      this.#byKey.delete(toHex(peer.spec.publicKey));
    }
    for (const spec of specs) {
      if (this.#peers.has(spec.id)) continue;
      const peer = new SecurePeer(this.#peerDeps, spec);
      this.#peers.set(spec.id, peer);
      this.#byKey.set(toHex(spec.publicKey), peer);
    }
    return effects;
  }

  /** The data plane has data for a peer and nothing to send it by. */
  wantSession(peerId: string): SecureEffect[] {
    return this.#peers.get(peerId)?.wantSession() ?? [];
  }

  /** A datagram whose first byte is that of a handshake message. */
  receive(from: Endpoint, bytes: Uint8Array): SecureEffect[] {
    const message = decodeHandshake(bytes);
    if (message === undefined) return dropped('malformed');
    if (message.type === MESSAGE_COOKIE_REPLY) {
      const peer = this.#byIndex.get(message.receiver);
      if (peer === undefined) return dropped('unknown-index');
      return peer.receiveCookie(message.nonce, message.sealedCookie);
    }
    if (!this.#checker.hasMac1(bytes)) return dropped('bad-mac1');
    const refused = this.#refuseUnderLoad(message.sender, from, bytes);
    if (refused !== undefined) return refused;
    if (message.type === MESSAGE_INITIATION) return this.#receiveInitiation(message, from);
    const peer = this.#byIndex.get(message.receiver);
    if (peer === undefined) return dropped('unknown-index');
    return peer.receiveResponse(message.receiver, message.sender, message.noise, from);
  }

  /** An authentic data message came under a session that waited for one. */
  confirmed(localIndex: number): SecureEffect[] {
    return this.#byIndex.get(localIndex)?.confirmed(localIndex) ?? [];
  }

  /**
   * An authentic data message came from another address than the peer's. Its port stays: data leaves
   * from other ports than the one that a node listens on.
   */
  moved(localIndex: number, address: Ip): SecureEffect[] {
    const peer = this.#byIndex.get(localIndex);
    return peer?.moved({ address, port: peer.endpoint.port }) ?? [];
  }

  /** What sessions carried since the last call; about once a second. */
  active(activities: readonly SessionActivity[]): SecureEffect[] {
    return activities.flatMap(
      (activity) => this.#byIndex.get(activity.localIndex)?.active(activity) ?? [],
    );
  }

  /** Does what is due by now. */
  tick(): SecureEffect[] {
    const nowMs = this.#deps.clock.nowMs();
    return [...this.#peers.values()].flatMap((peer) =>
      nowMs < peer.deadlineMs ? [] : peer.tick(),
    );
  }

  /** One entry per peer. */
  status(): SecureChannelStatus[] {
    const nowMs = this.#deps.clock.nowMs();
    return Array.from(this.#peers.values(), (peer) => {
      const { session, endpoint, isConnecting } = peer;
      return {
        peerId: peer.spec.id,
        endpoint,
        state: session !== undefined ? 'established' : isConnecting ? 'connecting' : 'idle',
        sessionAgeMs: session && nowMs - session.createdAtMs,
      };
    });
  }

  /** Strangers are stopped before the second, dearer half of an initiation is read. */
  #receiveInitiation(
    message: HandshakeMessage & { readonly type: typeof MESSAGE_INITIATION },
    from: Endpoint,
  ): SecureEffect[] {
    const handshake = ResponderHandshake.read(this.#deps.identity, message.noise);
    if (handshake === undefined) return dropped('not-authentic');
    const peer = this.#byKey.get(toHex(handshake.remoteKey));
    if (peer === undefined) return dropped('unknown-peer');
    const timestamp = handshake.openPayload();
    if (timestamp === undefined) return dropped('not-authentic');
    return peer.receiveInitiation(handshake, message.sender, timestamp, from);
  }

  #refuseUnderLoad(sender: number, from: Endpoint, bytes: Uint8Array): SecureEffect[] | undefined {
    if (!this.#load.count()) return undefined;
    const source = labelBytes(formatIpPort(from.address, from.port));
    if (!this.#checker.hasMac2(bytes, source)) {
      const reply = this.#checker.reply(bytes, sender, source);
      return [{ kind: 'send', to: from, bytes: reply }, ...dropped('cookie-sent')];
    }
    return this.#load.allows(from.address) ? undefined : dropped('rate-limited');
  }

  #timestamp(): Uint8Array {
    const nowMs = this.#deps.clock.epochMs();
    this.#lastTimestampMs = Math.max(nowMs, this.#lastTimestampMs + TIMESTAMP_STEP_MS);
    return tai64n(this.#lastTimestampMs);
  }

  /** 31 random bits: where a packet loop handles them, they stay small integers. */
  #newIndex(peer: SecurePeer): number {
    for (;;) {
      const bytes = this.#deps.random.bytes(4);
      const index = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) >>> 1;
      if (index === 0 || this.#byIndex.has(index)) continue;
      this.#byIndex.set(index, peer);
      return index;
    }
  }
}

function isSamePeer(a: PeerSpec, b: PeerSpec): boolean {
  return equalBytes(a.publicKey, b.publicKey) && isSameEndpoint(a.endpoint, b.endpoint);
}

function dropped(reason: HandshakeDrop): SecureEffect[] {
  return [{ kind: 'drop', reason }];
}
