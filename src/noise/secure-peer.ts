import type { Clock, Random } from '../core/capabilities.ts';
import {
  CROSSING_MS,
  INITIATION_INTERVAL_MS,
  KEEPALIVE_MS,
  REJECT_AFTER_MS,
  REKEY_AFTER_MESSAGES,
  REKEY_AFTER_MS,
  REKEY_ATTEMPT_MS,
  REKEY_JITTER_MS_MAX,
  REKEY_TIMEOUT_MS,
} from './constants.ts';
import { CookieJar } from './cookie.ts';
import { toHex } from './crypto.ts';
import { type Endpoint, type HandshakeDrop, isSameEndpoint, type SecureEffect } from './effects.ts';
import {
  type HandshakeIdentity,
  InitiatorHandshake,
  type ResponderHandshake,
  type TransportKeys,
} from './handshake.ts';
import { type Keypair, Keypairs } from './keypairs.ts';
import { encodeInitiation, encodeResponse } from './messages.ts';
import { isLater, TAI64N_BYTES } from './tai64n.ts';

const NEVER = Number.POSITIVE_INFINITY;
const LONG_AGO = Number.NEGATIVE_INFINITY;
const EMPTY = new Uint8Array();

/** A node that the manager vouches for. */
export interface PeerSpec {
  /** Node id. */
  readonly id: string;
  /** Static X25519 key, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** Where to begin: an authentic message from elsewhere moves it. */
  readonly endpoint: Endpoint;
}

/** What a session carried since the last time that it was asked. */
export interface SessionActivity {
  readonly localIndex: number;
  /** Messages with content. */
  readonly sent: number;
  readonly received: number;
  /** Messages without content. */
  readonly keepalivesSent: number;
  readonly keepalivesReceived: number;
}

/** What all peers of a node share. */
export interface PeerDeps {
  readonly identity: HandshakeIdentity;
  readonly clock: Clock;
  readonly random: Random;
  /** A TAI64N label later than all before it. */
  readonly timestamp: () => Uint8Array;
  /** Reserves a session index for `peer`. */
  readonly newIndex: (peer: SecurePeer) => number;
  readonly releaseIndex: (index: number) => void;
}

interface Attempt {
  readonly handshake: InitiatorHandshake;
  readonly index: number;
  /** When the first initiation of this attempt was sent. */
  readonly startedAtMs: number;
  readonly sentAtMs: number;
  readonly retryAtMs: number;
}

/** The handshakes and sessions with one peer: WireGuard's timers (whitepaper section 6) without timers. */
export class SecurePeer {
  readonly spec: PeerSpec;
  readonly #deps: PeerDeps;
  readonly #keypairs = new Keypairs();
  readonly #cookies: CookieJar;
  /** Of two crossing initiations, the one of the smaller key goes on. */
  readonly #isFirst: boolean;
  #endpoint: Endpoint;
  /** Where the initiation of the unconfirmed session came from. */
  #nextEndpoint: Endpoint | undefined;
  #attempt: Attempt | undefined;
  #lastHandshakeSentMs = LONG_AGO;
  #lastTimestamp: Uint8Array = new Uint8Array(TAI64N_BYTES);
  #lastInitiationMs = LONG_AGO;
  /** What the session with index `#countedIndex` has sent in all. */
  #sentInAll = 0;
  #countedIndex = 0;
  /** When an empty message is due, because data came and nothing went back. */
  #keepaliveAtMs = NEVER;
  /** When the peer counts as deaf, because data went and nothing came back. */
  #deafAtMs = NEVER;

  constructor(deps: PeerDeps, spec: PeerSpec) {
    const { identity, clock, random } = deps;
    this.spec = spec;
    this.#deps = deps;
    this.#endpoint = spec.endpoint;
    this.#cookies = new CookieJar({ crypto: identity.crypto, clock, random }, spec.publicKey);
    this.#isFirst = toHex(identity.staticKeys.publicKey) < toHex(spec.publicKey);
  }

  get endpoint(): Endpoint {
    return this.#endpoint;
  }

  /** The session that data is sent by. */
  get session(): Keypair | undefined {
    return this.#keypairs.current;
  }

  /** Whether an initiation of this node waits for its answer. */
  get isConnecting(): boolean {
    return this.#attempt !== undefined;
  }

  /** When {@link SecurePeer.tick} has something to do, on the monotonic clock. */
  get deadlineMs(): number {
    const oldest = Math.min(...this.#keypairs.all().map((pair) => pair.createdAtMs));
    const retryAtMs = this.#attempt?.retryAtMs ?? NEVER;
    return Math.min(retryAtMs, this.#keepaliveAtMs, this.#deafAtMs, oldest + REJECT_AFTER_MS);
  }

  /** The data plane has data for the peer and nothing to send it by. */
  wantSession(): SecureEffect[] {
    return this.#initiate();
  }

  /** Does what is due by now. */
  tick(): SecureEffect[] {
    const nowMs = this.#deps.clock.nowMs();
    const ended = this.#keypairs.end((pair) => nowMs - pair.createdAtMs >= REJECT_AFTER_MS);
    const effects = this.#ended(ended);
    if (nowMs >= this.#keepaliveAtMs) {
      this.#keepaliveAtMs = NEVER;
      if (this.session !== undefined) effects.push({ kind: 'keepalive', peerId: this.spec.id });
    }
    if (nowMs >= this.#deafAtMs) {
      this.#deafAtMs = NEVER;
      effects.push(...this.#initiate());
    }
    if (this.#attempt !== undefined && nowMs >= this.#attempt.retryAtMs) {
      effects.push(...this.#retry(this.#attempt, nowMs));
    }
    return effects;
  }

  /** Takes note of what a session carried: by it sessions are kept alive and renewed. */
  active(activity: SessionActivity): SecureEffect[] {
    const pair = this.#keypairs.find(activity.localIndex);
    if (pair === undefined) return [];
    const nowMs = this.#deps.clock.nowMs();
    const hasSent = activity.sent + activity.keepalivesSent > 0;
    const hasReceived = activity.received + activity.keepalivesReceived > 0;
    // Of what happened since the last time, the order is not known. To send after having received is
    // taken as the last of it: at worst that costs one empty message.
    if (hasReceived) this.#deafAtMs = NEVER;
    if (hasSent) this.#keepaliveAtMs = NEVER;
    if (activity.sent > 0 && this.#deafAtMs === NEVER) {
      this.#deafAtMs = nowMs + KEEPALIVE_MS + REKEY_TIMEOUT_MS + this.#jitterMs();
    }
    if (activity.received > 0 && this.#keepaliveAtMs === NEVER) {
      this.#keepaliveAtMs = nowMs + KEEPALIVE_MS;
    }
    const isUsedUp = this.#countSent(activity) >= REKEY_AFTER_MESSAGES;
    const isOld = this.#isOld(pair, nowMs, hasSent, hasReceived);
    return isOld || isUsedUp ? this.#initiate() : [];
  }

  /** An authentic message came under the session `localIndex` for the first time. */
  confirmed(localIndex: number): SecureEffect[] {
    if (this.#keypairs.next?.localIndex !== localIndex) return [];
    const effects = this.#ended(this.#keypairs.confirmNext());
    if (this.#nextEndpoint !== undefined) effects.push(...this.moved(this.#nextEndpoint));
    this.#nextEndpoint = undefined;
    return effects;
  }

  /** An authentic message came from `endpoint`. */
  moved(endpoint: Endpoint): SecureEffect[] {
    if (isSameEndpoint(this.#endpoint, endpoint)) return [];
    this.#endpoint = endpoint;
    return [{ kind: 'move', peerId: this.spec.id, to: endpoint }];
  }

  /** An initiation of this peer, whose payload has been authenticated. */
  receiveInitiation(
    handshake: ResponderHandshake,
    sender: number,
    timestamp: Uint8Array,
    from: Endpoint,
  ): SecureEffect[] {
    const nowMs = this.#deps.clock.nowMs();
    if (!isLater(timestamp, this.#lastTimestamp)) return dropped('replayed');
    if (nowMs - this.#lastInitiationMs < INITIATION_INTERVAL_MS) return dropped('flood');
    this.#lastTimestamp = timestamp;
    this.#lastInitiationMs = nowMs;
    const attempt = this.#attempt;
    if (this.#isFirst && attempt !== undefined && nowMs - attempt.sentAtMs < CROSSING_MS) {
      return dropped('crossed');
    }
    const response = handshake.respond(this.#deps.identity.crypto.generateKeyPair(), EMPTY);
    if (response === undefined) return dropped('not-authentic');
    this.#abandon();
    const index = this.#deps.newIndex(this);
    const keypair = sessionOf(response.keys, index, sender, false, nowMs);
    const effects = this.#ended(this.#keypairs.addAnswered(keypair));
    const bytes = encodeResponse(index, sender, response.message);
    this.#cookies.addMacs(bytes);
    this.#lastHandshakeSentMs = nowMs;
    this.#nextEndpoint = from;
    // Keys first: the initiator's data may follow the response's arrival at once.
    effects.push(this.#install(keypair, false));
    effects.push({ kind: 'send', to: from, bytes });
    return effects;
  }

  /** A response to the initiation with index `receiver`. */
  receiveResponse(
    receiver: number,
    sender: number,
    noise: Uint8Array,
    from: Endpoint,
  ): SecureEffect[] {
    const attempt = this.#attempt;
    if (attempt?.index !== receiver) return dropped('unknown-index');
    const finished = attempt.handshake.finish(noise);
    if (finished === undefined) return dropped('not-authentic');
    const nowMs = this.#deps.clock.nowMs();
    this.#attempt = undefined; // Its index goes on as the session's.
    this.#deafAtMs = NEVER;
    const keypair = sessionOf(finished.keys, receiver, sender, true, nowMs);
    const effects = this.#ended(this.#keypairs.addInitiated(keypair));
    this.#endpoint = from;
    effects.push(this.#install(keypair, true));
    // The responder may not send before it has heard something under the new keys.
    effects.push({ kind: 'keepalive', peerId: this.spec.id });
    return effects;
  }

  /** A cookie for the next initiation; the retry that is due anyway will carry it. */
  receiveCookie(nonce: Uint8Array, sealedCookie: Uint8Array): SecureEffect[] {
    return this.#cookies.accept(nonce, sealedCookie) ? [] : dropped('not-authentic');
  }

  /** Ends all sessions and handshakes with this peer. */
  close(): SecureEffect[] {
    this.#abandon();
    return this.#ended(this.#keypairs.end(() => true));
  }

  /** Messages of a session so far. Only one is counted, since data is sent by one at a time. */
  #countSent({ localIndex, sent, keepalivesSent }: SessionActivity): number {
    if (localIndex !== this.#countedIndex) this.#sentInAll = 0;
    this.#countedIndex = localIndex;
    this.#sentInAll += sent + keepalivesSent;
    return this.#sentInAll;
  }

  #isOld(pair: Keypair, nowMs: number, hasSent: boolean, hasReceived: boolean): boolean {
    // Only the initiator renews by age, or both would at once.
    if (pair !== this.#keypairs.current || !pair.isInitiator) return false;
    const ageMs = nowMs - pair.createdAtMs;
    const lastMomentMs = REJECT_AFTER_MS - KEEPALIVE_MS - REKEY_TIMEOUT_MS;
    return (hasSent && ageMs >= REKEY_AFTER_MS) || (hasReceived && ageMs >= lastMomentMs);
  }

  #initiate(): SecureEffect[] {
    const nowMs = this.#deps.clock.nowMs();
    if (this.#attempt !== undefined) return [];
    if (nowMs - this.#lastHandshakeSentMs < REKEY_TIMEOUT_MS) return [];
    return this.#sendInitiation(nowMs, nowMs);
  }

  #retry(attempt: Attempt, nowMs: number): SecureEffect[] {
    if (nowMs - attempt.startedAtMs < REKEY_ATTEMPT_MS) {
      return this.#sendInitiation(attempt.startedAtMs, nowMs);
    }
    this.#abandon();
    return [{ kind: 'giveUp', peerId: this.spec.id }];
  }

  #sendInitiation(startedAtMs: number, nowMs: number): SecureEffect[] {
    this.#abandon();
    const { identity, timestamp, newIndex } = this.#deps;
    const ephemeral = identity.crypto.generateKeyPair();
    const { publicKey } = this.spec;
    const handshake = InitiatorHandshake.start(identity, publicKey, ephemeral, timestamp());
    if (handshake === undefined) return []; // A key that nobody can own: nobody will answer.
    const index = newIndex(this);
    const bytes = encodeInitiation(index, handshake.message);
    this.#cookies.addMacs(bytes);
    this.#lastHandshakeSentMs = nowMs;
    const retryAtMs = nowMs + REKEY_TIMEOUT_MS + this.#jitterMs();
    this.#attempt = { handshake, index, startedAtMs, sentAtMs: nowMs, retryAtMs };
    return [{ kind: 'send', to: this.#endpoint, bytes }];
  }

  #install(keypair: Keypair, isConfirmed: boolean): SecureEffect {
    return { kind: 'install', peerId: this.spec.id, keypair, isConfirmed, to: this.#endpoint };
  }

  #abandon(): void {
    if (this.#attempt === undefined) return;
    this.#deps.releaseIndex(this.#attempt.index);
    this.#attempt = undefined;
  }

  #ended(pairs: readonly Keypair[]): SecureEffect[] {
    return pairs.map(({ localIndex }) => {
      this.#deps.releaseIndex(localIndex);
      return { kind: 'remove', peerId: this.spec.id, localIndex };
    });
  }

  #jitterMs(): number {
    return this.#deps.random.next() * REKEY_JITTER_MS_MAX;
  }
}

function dropped(reason: HandshakeDrop): SecureEffect[] {
  return [{ kind: 'drop', reason }];
}

function sessionOf(
  { sendKey, receiveKey }: TransportKeys,
  localIndex: number,
  remoteIndex: number,
  isInitiator: boolean,
  createdAtMs: number,
): Keypair {
  return { localIndex, remoteIndex, sendKey, receiveKey, isInitiator, createdAtMs };
}
