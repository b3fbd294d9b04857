/**
 * Threads that may send by one session. Each counts in a lane of its own, the first byte of the counter;
 * the receiver has a replay window per lane.
 */
export const SESSION_LANES_MAX = 8;

/** The keys of one session, as both threads need them. Plain values: it crosses by structured clone. */
export interface Keypair {
  /** What the peer writes into its data messages: never 0, at most 31 bits, unique on this node. */
  readonly localIndex: number;
  /** What this node writes into its own, an unsigned 32-bit number. */
  readonly remoteIndex: number;
  /** AES-256 keys. */
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  readonly isInitiator: boolean;
  /** On the control thread's monotonic clock, in milliseconds. */
  readonly createdAtMs: number;
}

/**
 * The sessions of one peer: data is sent by `current` and accepted under all three, so that a renewal
 * loses nothing. A responder's new session waits as `next` until a message under it has shown that the
 * initiator has it too (wireguard-go `Keypairs`, `BeginSymmetricSession`).
 */
export class Keypairs {
  #previous: Keypair | undefined;
  #current: Keypair | undefined;
  #next: Keypair | undefined;

  get current(): Keypair | undefined {
    return this.#current;
  }

  get next(): Keypair | undefined {
    return this.#next;
  }

  /** Those that exist. */
  all(): Keypair[] {
    return [this.#previous, this.#current, this.#next].filter((pair) => pair !== undefined);
  }

  find(localIndex: number): Keypair | undefined {
    return this.all().find((pair) => pair.localIndex === localIndex);
  }

  /** Takes up the session of a handshake that this node began. @returns those that ended by it */
  addInitiated(pair: Keypair): Keypair[] {
    const ended = [this.#previous];
    if (this.#next === undefined) {
      this.#previous = this.#current;
    } else {
      // The peer is about to send by `next`: it has more of a future than `current`.
      ended.push(this.#current);
      this.#previous = this.#next;
      this.#next = undefined;
    }
    this.#current = pair;
    return ended.filter((each) => each !== undefined);
  }

  /** Takes up the session of a handshake that the peer began. @returns those that ended by it */
  addAnswered(pair: Keypair): Keypair[] {
    const ended = [this.#previous, this.#next];
    this.#previous = undefined;
    this.#next = pair;
    return ended.filter((each) => each !== undefined);
  }

  /** The peer has shown that it has `next`: it is used from now on. @returns those that ended by it */
  confirmNext(): Keypair[] {
    if (this.#next === undefined) return [];
    const ended = [this.#previous];
    this.#previous = this.#current;
    this.#current = this.#next;
    this.#next = undefined;
    return ended.filter((each) => each !== undefined);
  }

  /** Takes those out that `isOver` says. @returns them */
  end(isOver: (pair: Keypair) => boolean): Keypair[] {
    const ended = this.all().filter(isOver);
    const keep = (pair: Keypair | undefined): Keypair | undefined =>
      pair === undefined || ended.includes(pair) ? undefined : pair;
    this.#previous = keep(this.#previous);
    this.#current = keep(this.#current);
    this.#next = keep(this.#next);
    return ended;
  }
}
