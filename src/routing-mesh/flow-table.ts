import { type Packet, PROTO_TCP } from '../core/packet.ts';
import {
  ACTION_FORWARD,
  ACTION_RETURN,
  ACTION_REVERSE,
  FLOW_ENTRY_BYTES,
  FlowEntries,
  FlowKey,
  NO_SLOT,
} from './flow-entry.ts';
import { type FlowHashKey, keyedFlowHash } from './flow-hash.ts';
import { FLOW_ICMP, FLOW_SYN_SENT, flowIdleLimit, nextTcpStatus } from './tcp-tracking.ts';
import { ticksBetween } from './ticks.ts';

// The memory of a table: a header, a tag per slot (0: free, else 8 bits of the key's hash), the entries.
// Tags lie apart so that a packet without a flow costs one cache line and not eight.
const MAGIC = 0x77_65_66_74; // 'weft'
/** Raise it with every change of the layout or of the numbers stored in entries. */
const FLOW_TABLE_VERSION = 1;
const HEADER_BYTES = 64;
const HEADER_MAGIC = 0;
const HEADER_VERSION = 4;
const HEADER_CAPACITY = 8;
const HEADER_HASH_KEY = 12;

/** Slots per set: a flow lies in any slot of the set that its hash names. */
export const FLOW_WAYS = 8;
/** A table of this size takes a gigabyte. */
const CAPACITY_MAX = 0x100_0000;
/** Length of the hash key, in bytes. */
export const FLOW_HASH_KEY_BYTES = 8;

/** Bytes of memory that a table of `capacity` slots needs. */
export function flowTableBytes(capacity: number): number {
  return HEADER_BYTES + capacity * (1 + FLOW_ENTRY_BYTES);
}

/** What a {@link FlowTable} is made of. */
export interface FlowTableOptions {
  /** At least {@link flowTableBytes}. A table found in it is taken over. Other writers: none. */
  readonly memory: Uint8Array;
  /** Slots: a power of two in [8, 2^24]. A balanced flow takes two, a return flow one. */
  readonly capacity: number;
  /** 8 unpredictable bytes for a new table; one that is taken over keeps its own. */
  readonly hashKey: Uint8Array;
}

/**
 * Which flows exist: a set-associative table over memory of the caller's. BOUNDED by its capacity: in a
 * full set the flow nearest to its expiry makes room, so a flood of half-open connections
 * evicts itself before it reaches an idle established one.
 *
 * A slot stays valid until the next `find`, `insert`, `remove` or `sweep`. Nothing here allocates but
 * the constructor.
 */
export class FlowTable {
  readonly capacity: number;
  /** The fields of the flows, by slot. */
  readonly entries: FlowEntries;
  /** Whether the memory held a table of the same shape, whose flows live on. */
  readonly attached: boolean;
  /** The time of what follows, in ticks of the wall clock; its owner sets it. */
  now = 0;
  #evictions = 0;
  readonly #tags: Uint8Array;
  readonly #setMask: number;
  readonly #hashKey: FlowHashKey;
  /** Forward and return entries by IP protocol. */
  readonly #flowsByProtocol = new Uint32Array(256);
  #sweepCursor = 0;

  /** @throws {RangeError} if the capacity, the memory's size or the key's length is none */
  constructor(options: FlowTableOptions) {
    const { memory, capacity, hashKey } = options;
    const isPowerOfTwo = Number.isInteger(capacity) && (capacity & (capacity - 1)) === 0;
    if (!isPowerOfTwo || capacity < FLOW_WAYS || capacity > CAPACITY_MAX) {
      throw new RangeError(
        `Cannot make a flow table of ${capacity} slots: expected a power of two in [${FLOW_WAYS}, ${CAPACITY_MAX}]`,
      );
    }
    const bytes = flowTableBytes(capacity);
    if (memory.byteLength < bytes) {
      throw new RangeError(
        `Cannot make a flow table in ${memory.byteLength} bytes: expected at least ${bytes}`,
      );
    }
    if (hashKey.byteLength !== FLOW_HASH_KEY_BYTES) {
      throw new RangeError(
        `Cannot use a hash key of ${hashKey.byteLength} bytes: expected ${FLOW_HASH_KEY_BYTES}`,
      );
    }
    const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
    this.capacity = capacity;
    this.#setMask = capacity / FLOW_WAYS - 1;
    this.#tags = memory.subarray(HEADER_BYTES, HEADER_BYTES + capacity);
    this.entries = new FlowEntries(view, HEADER_BYTES + capacity);
    this.attached = hasShape(view, capacity);
    if (!this.attached) {
      this.#tags.fill(0);
      writeHeader(view, capacity, hashKey);
    }
    this.#hashKey = {
      low: view.getInt32(HEADER_HASH_KEY, true),
      high: view.getInt32(HEADER_HASH_KEY + 4, true),
    };
    if (this.attached) this.#discardDamaged();
  }

  /** Flows that had to make room for others before their time. */
  get evictions(): number {
    return this.#evictions;
  }

  /** Flows of an IP protocol; the two directions of a balanced flow count once. */
  activeFlows(protocol: number): number {
    return this.#flowsByProtocol[protocol] ?? 0;
  }

  /** The slot of the flow with `key`, or {@link NO_SLOT}. If it has expired it is removed instead. */
  find(key: FlowKey): number {
    const hash = this.#hash(key);
    const tag = tagOf(hash);
    const first = this.#firstOf(hash);
    for (let slot = first; slot < first + FLOW_WAYS; slot++) {
      if (this.#tags[slot] !== tag || !this.entries.hasKey(slot, key)) continue;
      if (!this.#hasExpired(slot)) return slot;
      this.remove(slot);
      return NO_SLOT;
    }
    return NO_SLOT;
  }

  /**
   * Adds a flow that {@link find} did not find, seen now. The caller sets its status at once.
   *
   * @param action - One of the `ACTION_` constants.
   * @param keep - A slot that must not make room: the other half of a pair that is being made.
   * @returns its slot
   */
  insert(key: FlowKey, action: number, keep: number): number {
    const hash = this.#hash(key);
    const slot = this.#vacate(this.#firstOf(hash), keep);
    this.entries.write(slot, key, action, this.now);
    this.#tags[slot] = tagOf(hash); // last: what a killed agent leaves half-written is a free slot
    this.#count(slot, 1);
    return slot;
  }

  /** Removes the flow in `slot`, both directions. */
  remove(slot: number): void {
    const pair = this.entries.pair(slot);
    this.#free(slot);
    if (pair !== NO_SLOT) this.#free(pair);
  }

  /** Marks the flow as seen now: that keeps both directions. */
  touch(slot: number): void {
    this.entries.setLastSeen(slot, this.now);
  }

  /**
   * Follows the flow by one packet: seen now, and for TCP perhaps in another state.
   *
   * @param fromClient - Whether the side that opened the flow sent it.
   */
  observe(slot: number, packet: Packet, fromClient: boolean): void {
    this.touch(slot);
    if (packet.protocol !== PROTO_TCP) return;
    const status = this.entries.status(slot);
    const next = nextTcpStatus(status, packet.tcpFlags, fromClient);
    if (next !== status) this.entries.setStatus(slot, next);
  }

  /** How long neither direction has been seen, in ticks; negative if the clock was set back. */
  idleTicks(slot: number): number {
    const pair = this.entries.pair(slot);
    const own = ticksBetween(this.entries.lastSeen(slot), this.now);
    if (pair === NO_SLOT) return own;
    return Math.min(own, ticksBetween(this.entries.lastSeen(pair), this.now));
  }

  /** Whether `slot` holds an entry, expired or not. */
  isUsed(slot: number): boolean {
    return this.#tags[slot] !== 0;
  }

  /**
   * Removes what has expired in the next `budget` slots; called again and again it goes round.
   *
   * @returns entries removed
   */
  sweep(budget: number): number {
    let removed = 0;
    for (let step = Math.min(budget, this.capacity); step > 0; step--) {
      const slot = this.#sweepCursor;
      this.#sweepCursor = (slot + 1) & (this.capacity - 1);
      if (this.#tags[slot] === 0) continue;
      // After the wall clock was set back, a time in the future would keep a dead flow that much longer.
      if (ticksBetween(this.entries.lastSeen(slot), this.now) < 0) this.touch(slot);
      if (!this.#hasExpired(slot)) continue;
      removed += this.entries.pair(slot) === NO_SLOT ? 1 : 2;
      this.remove(slot);
    }
    return removed;
  }

  #hash(key: FlowKey): number {
    return keyedFlowHash(this.#hashKey, key.owner, key.source, key.destination, key.ports);
  }

  #firstOf(hash: number): number {
    return (hash & this.#setMask) * FLOW_WAYS;
  }

  #hasExpired(slot: number): boolean {
    const limit = flowIdleLimit(this.entries.status(slot) & 0xff);
    // The other direction lies in another cache line: looked at only when this one says "expired".
    if (ticksBetween(this.entries.lastSeen(slot), this.now) <= limit) return false;
    return this.idleTicks(slot) > limit;
  }

  /** A free slot of the set that starts at `first`, made by an eviction if need be. */
  #vacate(first: number, keep: number): number {
    let victim = NO_SLOT;
    let shortest = Number.POSITIVE_INFINITY;
    for (let slot = first; slot < first + FLOW_WAYS; slot++) {
      if (this.#tags[slot] === 0) return slot;
      if (slot === keep) continue;
      const left = flowIdleLimit(this.entries.status(slot) & 0xff) - this.idleTicks(slot);
      if (left >= shortest) continue;
      victim = slot;
      shortest = left;
    }
    if (shortest >= 0) this.#evictions += 1;
    this.remove(victim);
    return victim;
  }

  #free(slot: number): void {
    this.#count(slot, -1);
    this.#tags[slot] = 0;
  }

  #count(slot: number, change: number): void {
    if (this.entries.action(slot) === ACTION_REVERSE) return;
    const protocol = this.entries.protocol(slot);
    this.#flowsByProtocol[protocol] = this.activeFlows(protocol) + change;
  }

  /** Frees what a killed agent left half-made and what a damaged file holds; counts the rest. */
  #discardDamaged(): void {
    for (let slot = 0; slot < this.capacity; slot++) {
      if (!this.isUsed(slot)) continue;
      if (this.#isWhole(slot) && this.#hasItsPair(slot)) this.#count(slot, 1);
      else this.#tags[slot] = 0;
    }
  }

  #hasItsPair(slot: number): boolean {
    const { entries } = this;
    const action = entries.action(slot);
    const pair = entries.pair(slot);
    if (action === ACTION_RETURN) return pair === NO_SLOT;
    const opposite = action === ACTION_FORWARD ? ACTION_REVERSE : ACTION_FORWARD;
    return this.#isWhole(pair) && entries.action(pair) === opposite && entries.pair(pair) === slot;
  }

  #isWhole(slot: number): boolean {
    if (slot < 0 || slot >= this.capacity) return false;
    const { entries } = this;
    const key = new FlowKey();
    entries.readKey(slot, key);
    const hash = this.#hash(key);
    const state = entries.status(slot) & 0xff;
    const action = entries.action(slot);
    return (
      this.#tags[slot] === tagOf(hash) &&
      this.#firstOf(hash) === slot - (slot % FLOW_WAYS) &&
      state >= FLOW_SYN_SENT &&
      state <= FLOW_ICMP &&
      action >= ACTION_FORWARD &&
      action <= ACTION_RETURN
    );
  }
}

/** Eight bits of the hash that do not choose the set; never 0. */
function tagOf(hash: number): number {
  return hash >>> 24 || 1;
}

function hasShape(view: DataView, capacity: number): boolean {
  return (
    view.getUint32(HEADER_MAGIC, true) === MAGIC &&
    view.getUint32(HEADER_VERSION, true) === FLOW_TABLE_VERSION &&
    view.getUint32(HEADER_CAPACITY, true) === capacity
  );
}

function writeHeader(view: DataView, capacity: number, hashKey: Uint8Array): void {
  view.setUint32(HEADER_VERSION, FLOW_TABLE_VERSION, true);
  view.setUint32(HEADER_CAPACITY, capacity, true);
  for (const [index, byte] of hashKey.entries()) view.setUint8(HEADER_HASH_KEY + index, byte);
  view.setUint32(HEADER_MAGIC, MAGIC, true); // last: until then it is no table
}
