import type { AeadProvider, RecordOpener, RecordSealer } from '../io/aead/aead.ts';
import type { Arena } from '../io/linux/arena.ts';
import type { Destination } from '../io/linux/datagram-queue.ts';
import { type Keypair, SESSION_LANES_MAX } from '../noise/keypairs.ts';
import {
  DATA_COUNTER_OFFSET,
  DATA_HEADER_BYTES,
  DATA_OVERHEAD_BYTES,
  dataHeader,
} from '../noise/messages.ts';
import { REPLAY_WINDOW_WORDS, ReplayWindow } from '../noise/replay-window.ts';
import type { Peer } from './peers.ts';

/** What {@link SecureSession.open} returns for a message that is forged or damaged. */
export const OPEN_FORGED = -1;
/** What {@link SecureSession.open} returns for a message that was seen before, or is too old to tell. */
export const OPEN_REPLAYED = -2;

/** Where a session's keys are used. */
export interface SecureSessionDeps {
  readonly arena: Arena;
  readonly aead: AeadProvider;
  /** The packet thread's number: threads that send by one session count in lanes of their own. */
  readonly lane: number;
}

/** One session with a peer, on one packet thread: seals and opens data messages in the arena. */
export class SecureSession {
  readonly peer: Peer;
  readonly localIndex: number;
  /** Whether the peer is known to have the keys: data is sent only then. */
  isConfirmed: boolean;
  /** When it was installed here, on the monotonic clock. */
  readonly installedAtMs: number;
  // Messages since the last report, with content and without.
  sent = 0;
  received = 0;
  keepalivesSent = 0;
  keepalivesReceived = 0;
  readonly #arena: Arena;
  readonly #sealer: RecordSealer;
  readonly #opener: RecordOpener;
  readonly #windows: readonly ReplayWindow[];
  readonly #header0: number;
  readonly #header4: number;

  /**
   * @param replayWords - Of {@link SESSION_LANES_MAX} windows, which all packet threads share.
   * @param installedAtMs - On the monotonic clock.
   */
  constructor(
    deps: SecureSessionDeps,
    peer: Peer,
    keypair: Keypair,
    replayWords: Int32Array,
    isConfirmed: boolean,
    installedAtMs: number,
  ) {
    const { arena, aead, lane } = deps;
    const { localIndex, remoteIndex, sendKey, receiveKey } = keypair;
    const header = dataHeader(remoteIndex);
    const view = new DataView(header.buffer);
    this.peer = peer;
    this.localIndex = localIndex;
    this.isConfirmed = isConfirmed;
    this.installedAtMs = installedAtMs;
    this.#arena = arena;
    this.#header0 = view.getInt32(0);
    this.#header4 = view.getInt32(4);
    this.#sealer = aead.sealer(sendKey, header, lane);
    this.#opener = aead.opener(receiveKey, dataHeader(localIndex));
    this.#windows = Array.from(
      { length: SESSION_LANES_MAX },
      (_, index) => new ReplayWindow(replayWords, index * REPLAY_WINDOW_WORDS),
    );
  }

  /** Where data goes. */
  get destination(): Destination {
    return this.peer.sealedTo ?? this.peer;
  }

  /**
   * Makes a data message of what lies {@link DATA_HEADER_BYTES} behind its start; the tag follows it.
   *
   * @param message - Offset in the arena.
   * @param length - Of the plaintext in bytes; 0 is a keepalive.
   */
  seal(message: number, length: number): void {
    const { view } = this.#arena;
    view.setInt32(message, this.#header0);
    view.setInt32(message + 4, this.#header4);
    this.#sealer.seal(message + DATA_COUNTER_OFFSET, length);
    if (length === 0) this.keepalivesSent += 1;
    else this.sent += 1;
  }

  /**
   * Decrypts a data message of this session in place.
   *
   * @param message - Offset in the arena.
   * @param bytes - Of the whole message, at least {@link DATA_OVERHEAD_BYTES}.
   * @returns the plaintext's length; or {@link OPEN_FORGED} or {@link OPEN_REPLAYED}
   */
  open(message: number, bytes: number): number {
    const { view } = this.#arena;
    const counter = message + DATA_COUNTER_OFFSET;
    const length = bytes - DATA_OVERHEAD_BYTES;
    const high = view.getInt32(counter);
    const low = view.getInt32(counter + 4);
    const window = this.#windows[high >>> 24];
    if (window === undefined || !this.#opener.open(counter, length)) return OPEN_FORGED;
    if (!window.accept(high, low)) return OPEN_REPLAYED;
    if (length === 0) this.keepalivesReceived += 1;
    else this.received += 1;
    return length;
  }

  /** Lets go of the keys. */
  close(): void {
    this.#sealer.close();
    this.#opener.close();
  }
}
