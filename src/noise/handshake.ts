import { concatBytes, KEY_BYTES, type KeyPair, type NoiseCrypto, TAG_BYTES } from './crypto.ts';
import { SymmetricState } from './symmetric-state.ts';

/** The protocol's name in the Noise specification, section 8; part of every transcript. */
export const NOISE_PROTOCOL = 'Noise_IK_25519_AESGCM_SHA256';
/** What message 1 is longer than its payload: ephemeral key, static key, and both tags. */
export const INITIATION_OVERHEAD_BYTES: number = KEY_BYTES + KEY_BYTES + 2 * TAG_BYTES;
/** What message 2 is longer than its payload. */
export const RESPONSE_OVERHEAD_BYTES: number = KEY_BYTES + TAG_BYTES;

const ENCRYPTED_KEY_BYTES = KEY_BYTES + TAG_BYTES;

/** What a node brings to each of its handshakes. */
export interface HandshakeIdentity {
  readonly crypto: NoiseCrypto;
  readonly staticKeys: KeyPair;
  /** Must be equal at both ends. */
  readonly prologue: Uint8Array;
}

/** The keys that a finished handshake gives. */
export interface TransportKeys {
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  readonly handshakeHash: Uint8Array;
}

function begin(identity: HandshakeIdentity, responderKey: Uint8Array): SymmetricState {
  const state = new SymmetricState(identity.crypto, NOISE_PROTOCOL, identity.prologue);
  state.mixHash(responderKey); // IK's pre-message: <- s
  return state;
}

/** Mixes a Diffie-Hellman result in; false if the other's key gives none. */
function mixDh(
  state: SymmetricState,
  crypto: NoiseCrypto,
  privateKey: Uint8Array,
  publicKey: Uint8Array,
): boolean {
  const secret = crypto.dh(privateKey, publicKey);
  if (secret === undefined) return false;
  state.mixKey(secret);
  return true;
}

/**
 * The initiator's side of Noise IK: `-> e, es, s, ss` and `<- e, ee, se` (section 7.5). The responder's
 * static key is known beforehand; the initiator's travels encrypted.
 */
export class InitiatorHandshake {
  /** Message 1. */
  readonly message: Uint8Array;
  readonly #identity: HandshakeIdentity;
  readonly #ephemeral: KeyPair;
  readonly #state: SymmetricState;

  private constructor(
    identity: HandshakeIdentity,
    ephemeral: KeyPair,
    state: SymmetricState,
    message: Uint8Array,
  ) {
    this.#identity = identity;
    this.#ephemeral = ephemeral;
    this.#state = state;
    this.message = message;
  }

  /**
   * @param remoteKey - The responder's static key.
   * @param ephemeral - Used for this handshake alone.
   * @param payload - Sent encrypted; secret from all but the owner of `remoteKey`'s private half.
   * @returns undefined if `remoteKey` is a key that nobody can own
   */
  static start(
    identity: HandshakeIdentity,
    remoteKey: Uint8Array,
    ephemeral: KeyPair,
    payload: Uint8Array,
  ): InitiatorHandshake | undefined {
    const { crypto, staticKeys } = identity;
    const state = begin(identity, remoteKey);
    state.mixHash(ephemeral.publicKey);
    if (!mixDh(state, crypto, ephemeral.privateKey, remoteKey)) return undefined;
    const encryptedKey = state.encryptAndHash(staticKeys.publicKey);
    if (!mixDh(state, crypto, staticKeys.privateKey, remoteKey)) return undefined;
    const encryptedPayload = state.encryptAndHash(payload);
    const message = concatBytes(ephemeral.publicKey, encryptedKey, encryptedPayload);
    return new InitiatorHandshake(identity, ephemeral, state, message);
  }

  /**
   * Reads message 2. A forged one changes nothing: the true one may still come.
   *
   * @returns its payload and the session's keys; undefined if it is not the answer to message 1
   */
  finish(
    message: Uint8Array,
  ): { readonly payload: Uint8Array; readonly keys: TransportKeys } | undefined {
    if (message.length < RESPONSE_OVERHEAD_BYTES) return undefined;
    const { crypto, staticKeys } = this.#identity;
    const state = this.#state.clone();
    const remoteEphemeral = message.subarray(0, KEY_BYTES);
    state.mixHash(remoteEphemeral);
    if (!mixDh(state, crypto, this.#ephemeral.privateKey, remoteEphemeral)) return undefined;
    if (!mixDh(state, crypto, staticKeys.privateKey, remoteEphemeral)) return undefined;
    const payload = state.decryptAndHash(message.subarray(KEY_BYTES));
    if (payload === undefined) return undefined;
    const [sendKey, receiveKey] = state.split();
    return { payload, keys: { sendKey, receiveKey, handshakeHash: state.handshakeHash } };
  }
}

/** The responder's side of Noise IK. Message 1 is read in two steps, to stop early at strangers. */
export class ResponderHandshake {
  /** The initiator's static key. Authentic only once {@link ResponderHandshake.openPayload} succeeds. */
  readonly remoteKey: Uint8Array;
  readonly #identity: HandshakeIdentity;
  readonly #remoteEphemeral: Uint8Array;
  readonly #encryptedPayload: Uint8Array;
  readonly #state: SymmetricState;

  private constructor(
    identity: HandshakeIdentity,
    message: Uint8Array,
    remoteKey: Uint8Array,
    state: SymmetricState,
  ) {
    this.#identity = identity;
    this.#remoteEphemeral = message.subarray(0, KEY_BYTES);
    this.#encryptedPayload = message.subarray(KEY_BYTES + ENCRYPTED_KEY_BYTES);
    this.remoteKey = remoteKey;
    this.#state = state;
  }

  /**
   * Reads who sent message 1.
   *
   * @returns undefined if it was not made for this node's static key and prologue
   */
  static read(identity: HandshakeIdentity, message: Uint8Array): ResponderHandshake | undefined {
    if (message.length < INITIATION_OVERHEAD_BYTES) return undefined;
    const { crypto, staticKeys } = identity;
    const state = begin(identity, staticKeys.publicKey);
    const remoteEphemeral = message.subarray(0, KEY_BYTES);
    state.mixHash(remoteEphemeral);
    if (!mixDh(state, crypto, staticKeys.privateKey, remoteEphemeral)) return undefined;
    const encryptedKey = message.subarray(KEY_BYTES, KEY_BYTES + ENCRYPTED_KEY_BYTES);
    const remoteKey = state.decryptAndHash(encryptedKey);
    if (remoteKey === undefined) return undefined;
    return new ResponderHandshake(identity, message, remoteKey, state);
  }

  /** Proves that the sender owns {@link ResponderHandshake.remoteKey}; undefined if it does not. */
  openPayload(): Uint8Array | undefined {
    const { crypto, staticKeys } = this.#identity;
    if (!mixDh(this.#state, crypto, staticKeys.privateKey, this.remoteKey)) return undefined;
    return this.#state.decryptAndHash(this.#encryptedPayload);
  }

  /**
   * Makes message 2, after {@link ResponderHandshake.openPayload}.
   *
   * @returns undefined if the initiator's keys are keys that nobody can own
   */
  respond(
    ephemeral: KeyPair,
    payload: Uint8Array,
  ): { readonly message: Uint8Array; readonly keys: TransportKeys } | undefined {
    const { crypto } = this.#identity;
    const state = this.#state;
    state.mixHash(ephemeral.publicKey);
    if (!mixDh(state, crypto, ephemeral.privateKey, this.#remoteEphemeral)) return undefined;
    if (!mixDh(state, crypto, ephemeral.privateKey, this.remoteKey)) return undefined;
    const message = concatBytes(ephemeral.publicKey, state.encryptAndHash(payload));
    const [receiveKey, sendKey] = state.split();
    return { message, keys: { sendKey, receiveKey, handshakeHash: state.handshakeHash } };
  }
}
