import { type Packet, PROTO_TCP } from '../core/packet.ts';
import {
  ACTION_FORWARD,
  ACTION_RETURN,
  ACTION_REVERSE,
  FLOW_ENTRY_BYTES,
  type Flow,
  FlowEntries,
  NO_SLOT,
} from './flow-entry.ts';
import { type FlowHashKey, keyedAddressHash, keyedFlowHash } from './flow-hash.ts';
import { FlowKey } from './flow-key.ts';
import { FlowLock } from './flow-lock.ts';
import { FreePages, type ReleaseMemory } from './free-pages.ts';
import { FLOW_ICMP, FLOW_SYN_SENT, flowIdleLimit, nextTcpStatus } from './tcp-tracking.ts';
import { ticksBetween } from './ticks.ts';

// The memory of a table: a header; 16 bytes per set, with its version and a tag per slot (0: free, else 8
// bits of the key's hash); the entries. Tags lie apart from them so that a packet without a flow costs
// one cache line and not eight.
const MAGIC = 0x77_65_66_74; // 'weft'
/** Raise it with every change of the layout or of the numbers stored in entries. */
const FLOW_TABLE_VERSION = 2;
const HEADER_BYTES = 2048;
const HEADER_MAGIC = 0;
const HEADER_VERSION = 4;
const HEADER_CAPACITY = 8;
const HEADER_HASH_KEY = 12;
/** The word that whoever changes the table holds. In a cache line of its own. */
const HEADER_LOCK = 64;
/** Forward and return entries by IP protocol: 256 words. */
const HEADER_COUNTS = 128;
const PROTOCOLS = 256;

/** Slots per set: a flow lies in any slot of the set that its hash names. */
export const FLOW_WAYS = 8;
const SET_BYTES = 16;
const SET_TAGS = 8;
/** A table of this size takes a gigabyte. */
const CAPACITY_MAX = 0x80_0000;
/** Length of the hash key, in bytes. */
export const FLOW_HASH_KEY_BYTES = 8;

/** Bytes of memory that a table of `capacity` slots needs. */
export function flowTableBytes(capacity: number): number {
  return HEADER_BYTES + (capacity / FLOW_WAYS) * SET_BYTES + capacity * FLOW_ENTRY_BYTES;
}

/**
 * Who else works on the memory of a table:
 * - `alone`: nobody; nothing is locked
 * - `first`: further threads of this process will, when this table is made; it takes the memory over from
 *   what was there before, and frees what a killed process left locked
 * - `further`: the first one does, and maybe more
 */
export type FlowSharing = 'alone' | 'first' | 'further';

/** What a {@link FlowTable} is made of. */
export interface FlowTableOptions {
  /** At least {@link flowTableBytes}, at a multiple of 4 bytes. A table found in it is taken over. */
  readonly memory: Uint8Array;
  /** Slots: a power of two in [8, 2^23]. A balanced flow takes two, a return flow one. */
  readonly capacity: number;
  /** 8 unpredictable bytes for a new table; one that is taken over keeps its own. */
  readonly hashKey: Uint8Array;
  /** 'alone' when absent. */
  readonly sharing?: FlowSharing;
  /** Gives back memory that {@link FlowTable.sweep} finds without flows; all stays when absent. */
  readonly release?: ReleaseMemory;
}

/**
 * Which flows exist: a set-associative table over memory of the caller's. BOUNDED by its capacity: in a
 * full set the flow nearest to its expiry makes room, so a flood of half-open connections
 * evicts itself before it reaches an idle established one.
 *
 * Several threads may share the memory. Packets of known flows take no lock: {@link FlowTable.read} copies
 * an entry and reads it anew if its set changed meanwhile (a sequence lock per set). Whoever adds or removes
 * holds the one lock of the table from {@link FlowTable.lock} to {@link FlowTable.unlock}. A thread that
 * is killed with the lock takes its process along, and the next one frees it. The copy relies on loads
 * that stay in order, as x86-64's do.
 *
 * Nothing here allocates but the constructor.
 */
export class FlowTable {
  readonly capacity: number;
  /** The fields of the flows, by slot. Whoever changes more than a time holds the lock. */
  readonly entries: FlowEntries;
  /** Whether the memory held a table of the same shape, whose flows live on. */
  readonly attached: boolean;
  /** The time of what follows, in ticks of the wall clock; its owner sets it. */
  now = 0;
  #evictions = 0;
  /** The sets' headers by byte, for tags. */
  readonly #tags: Uint8Array;
  /** The same four bytes at a time. */
  readonly #tagWords: Int32Array;
  readonly #setMask: number;
  readonly #hashKey: FlowHashKey;
  readonly #counts: Int32Array;
  readonly #lock: FlowLock;
  readonly #freePages: FreePages | undefined;
  #sweepCursor = 0;

  /**
   * @throws {RangeError} if the capacity, the memory's size or place or the key's length is none
   * @throws {Error} if it is to be a further table, and there is no first one
   */
  constructor(options: FlowTableOptions) {
    checkOptions(options);
    const { memory, capacity, hashKey, sharing = 'alone', release } = options;
    const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
    const setBytes = (capacity / FLOW_WAYS) * SET_BYTES;
    this.capacity = capacity;
    this.#setMask = capacity / FLOW_WAYS - 1;
    this.#tags = memory.subarray(HEADER_BYTES, HEADER_BYTES + setBytes);
    this.#counts = new Int32Array(memory.buffer, memory.byteOffset + HEADER_COUNTS, PROTOCOLS);
    this.entries = new FlowEntries(view, HEADER_BYTES + setBytes);
    this.attached = hasShape(view, capacity);
    if (sharing === 'further' && !this.attached) {
      throw new Error('Cannot join a flow table: expected that its first thread has made it');
    }
    if (!this.attached) {
      this.#tags.fill(0);
      writeHeader(view, capacity, hashKey);
    }
    this.#hashKey = {
      low: view.getInt32(HEADER_HASH_KEY, true),
      high: view.getInt32(HEADER_HASH_KEY + 4, true),
    };
    const words = new Int32Array(memory.buffer, memory.byteOffset, (HEADER_BYTES + setBytes) / 4);
    this.#tagWords = words.subarray(HEADER_BYTES / 4);
    this.#lock = new FlowLock({
      words,
      lock: HEADER_LOCK / 4,
      versions: HEADER_BYTES / 4,
      stride: SET_BYTES / 4,
      isShared: sharing !== 'alone',
    });
    if (sharing !== 'further') this.#takeOver();
    const entriesAt = HEADER_BYTES + setBytes;
    this.#freePages = release && new FreePages(this, entriesAt, FLOW_ENTRY_BYTES, release);
  }

  /** Flows that this table had to make room with, before their time. */
  get evictions(): number {
    return this.#evictions;
  }

  /** Flows of an IP protocol; the two directions of a balanced flow count once. */
  activeFlows(protocol: number): number {
    return this.#counts[protocol] ?? 0;
  }

  /** Waits until no other thread changes the table. What follows until {@link FlowTable.unlock} is one change. */
  lock(): void {
    this.#lock.acquire();
  }

  unlock(): void {
    this.#lock.release();
  }

  /**
   * Copies the flow with `key`, as it was at one moment. If it has expired it is removed instead. Takes the
   * lock if need be, so the caller must not hold it.
   *
   * @returns whether there is such a flow
   */
  read(key: FlowKey, flow: Flow): boolean {
    const hash = this.#hash(key);
    const set = hash & this.#setMask;
    let version: number;
    do {
      version = this.#lock.version(set);
      flow.slot = this.#search(key, hash);
      if (flow.slot !== NO_SLOT) this.entries.read(flow.slot, flow);
    } while (!this.#lock.isAt(set, version));
    if (flow.slot === NO_SLOT) return false;
    if (!this.#hasExpired(flow.slot)) return true;
    this.lock();
    this.find(key); // it may have been used meanwhile
    this.unlock();
    flow.slot = NO_SLOT;
    return false;
  }

  /**
   * Copies what lies in `slot`, as it was at one moment. The caller must not hold the lock.
   *
   * @returns whether there is a flow
   */
  readSlot(slot: number, key: FlowKey, flow: Flow): boolean {
    const set = (slot / FLOW_WAYS) | 0;
    let version: number;
    let isUsed: boolean;
    do {
      version = this.#lock.version(set);
      isUsed = this.isUsed(slot);
      if (!isUsed) continue; // a look at a free one would take memory for it
      this.entries.readKey(slot, key);
      this.entries.read(slot, flow);
    } while (!this.#lock.isAt(set, version));
    return isUsed;
  }

  /**
   * The slot of the flow with `key`, or {@link NO_SLOT}. If it has expired it is removed instead. The lock
   * must be held; until it is released the slot is valid, or until the next `find`, `insert` or `remove`.
   */
  find(key: FlowKey): number {
    const slot = this.#search(key, this.#hash(key));
    if (slot === NO_SLOT || !this.#hasExpired(slot)) return slot;
    this.remove(slot);
    return NO_SLOT;
  }

  /**
   * Adds a flow that {@link find} did not find, seen now. The caller sets its status at once. The lock must be
   * held.
   *
   * @param action - One of the `ACTION_` constants.
   * @param keep - A slot that must not make room: the other half of a pair that is being made.
   * @returns its slot
   */
  insert(key: FlowKey, action: number, keep: number): number {
    const hash = this.#hash(key);
    const set = hash & this.#setMask;
    const slot = this.#vacate(set * FLOW_WAYS, keep);
    this.#lock.open(set);
    this.entries.write(slot, key, action, this.now);
    this.#tags[tagAt(slot)] = tagOf(hash); // last: what a killed agent leaves half-written is a free slot
    this.#count(slot, 1);
    return slot;
  }

  /** Removes the flow in `slot`, both directions. The lock must be held. */
  remove(slot: number): void {
    const pair = this.entries.pair(slot);
    this.#free(slot);
    if (pair !== NO_SLOT) this.#free(pair);
  }

  /** Says that more of `slot` than its times and status is about to be changed. The lock must be held. */
  change(slot: number): void {
    this.#lock.open((slot / FLOW_WAYS) | 0);
  }

  /** Marks the flow as seen now: that keeps both directions. Without the lock it may be another one by now. */
  touch(slot: number): void {
    this.entries.setLastSeen(slot, this.now);
  }

  /**
   * Follows a flow by one packet: seen now, and for TCP perhaps in another state. Takes the lock if need be,
   * so the caller must not hold it.
   *
   * @param key - Of the direction that `flow` is.
   * @param fromClient - Whether the side that opened the flow sent the packet.
   */
  observe(key: FlowKey, flow: Flow, packet: Packet, fromClient: boolean): void {
    this.touch(flow.slot);
    if (packet.protocol !== PROTO_TCP) return;
    if (nextTcpStatus(flow.status, packet.tcpFlags, fromClient) === flow.status) return;
    this.lock();
    this.follow(key, flow.slot, packet, fromClient);
    this.unlock();
  }

  /** Puts the TCP flow with `key` into its next state, if it still lies in `slot`. The lock must be held. */
  follow(key: FlowKey, slot: number, packet: Packet, fromClient: boolean): void {
    const { entries } = this;
    if (!this.isUsed(slot) || !entries.hasKey(slot, key)) return;
    entries.setStatus(slot, nextTcpStatus(entries.status(slot), packet.tcpFlags, fromClient));
  }

  /**
   * Sets or takes off `marks` of the flow with `key`, if it still lies in `slot`. Takes the lock, so the caller
   * must not hold it.
   */
  mark(key: FlowKey, slot: number, marks: number, isSet: boolean): void {
    const { entries } = this;
    this.lock();
    if (this.isUsed(slot) && entries.hasKey(slot, key)) {
      const status = entries.status(slot);
      entries.setStatus(slot, isSet ? status | (marks << 8) : status & ~(marks << 8));
    }
    this.unlock();
  }

  /** How long neither direction has been seen, in ticks; negative if the clock was set back. */
  idleTicks(slot: number): number {
    const pair = this.entries.pair(slot);
    const own = ticksBetween(this.entries.lastSeen(slot), this.now);
    // NO_SLOT, or what a thread without the lock saw of a number that was being written byte by byte.
    if (pair < 0 || pair >= this.capacity) return own;
    return Math.min(own, ticksBetween(this.entries.lastSeen(pair), this.now));
  }

  /** Whether `slot` holds an entry, expired or not. */
  isUsed(slot: number): boolean {
    return this.#tags[tagAt(slot)] !== 0;
  }

  /** The first slot from `slot` on that is used, or the capacity. Free sets are passed over whole. */
  nextUsed(slot: number): number {
    const words = this.#tagWords;
    let next = slot;
    while (next < this.capacity) {
      const word = ((next / FLOW_WAYS) | 0) * (SET_BYTES / 4) + SET_TAGS / 4;
      if (next % FLOW_WAYS === 0 && words[word] === 0 && words[word + 1] === 0) next += FLOW_WAYS;
      else if (this.isUsed(next)) return next;
      else next += 1;
    }
    return this.capacity;
  }

  /** Whether `count` slots from `first` on are all free. */
  areFree(first: number, count: number): boolean {
    for (let slot = first; slot < first + count; slot++) {
      if (this.isUsed(slot)) return false;
    }
    return true;
  }

  /**
   * Removes what has expired in the next `budget` slots, and gives back memory that has no flows; called
   * again and again it goes round. One of several threads is enough to do it. The lock must not be held.
   *
   * @returns entries removed
   */
  sweep(budget: number): number {
    const first = this.#sweepCursor;
    const removed = this.#removeAllExpired(budget);
    this.#freePages?.look(first, Math.min(budget, this.capacity - first));
    return removed;
  }

  #removeAllExpired(budget: number): number {
    let removed = 0;
    for (let step = Math.min(budget, this.capacity); step > 0; step--) {
      const slot = this.#sweepCursor;
      this.#sweepCursor = (slot + 1) & (this.capacity - 1);
      if (!this.isUsed(slot)) continue;
      // After the wall clock was set back, a time in the future would keep a dead flow that much longer.
      if (ticksBetween(this.entries.lastSeen(slot), this.now) < 0) this.touch(slot);
      if (this.#hasExpired(slot)) removed += this.#removeExpired(slot);
    }
    return removed;
  }

  #removeExpired(slot: number): number {
    let removed = 0;
    this.lock();
    if (this.isUsed(slot) && this.#hasExpired(slot)) {
      removed = this.entries.pair(slot) === NO_SLOT ? 1 : 2;
      this.remove(slot);
    }
    this.unlock();
    return removed;
  }

  #hash({ owner, source, destination, ports }: FlowKey): number {
    const hashKey = this.#hashKey;
    if (source.isIpv4) return keyedFlowHash(hashKey, owner, source.w3, destination.w3, ports);
    const from = keyedAddressHash(hashKey, source);
    return keyedFlowHash(hashKey, owner, from, keyedAddressHash(hashKey, destination), ports);
  }

  /** The slot with `key`, whose hash is `hash`, expired or not; or {@link NO_SLOT}. */
  #search(key: FlowKey, hash: number): number {
    const tag = tagOf(hash);
    const set = hash & this.#setMask;
    const tags = set * SET_BYTES + SET_TAGS;
    for (let way = 0; way < FLOW_WAYS; way++) {
      if (this.#tags[tags + way] !== tag) continue;
      const slot = set * FLOW_WAYS + way;
      if (this.entries.hasKey(slot, key)) return slot;
    }
    return NO_SLOT;
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
      if (!this.isUsed(slot)) return slot;
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
    this.change(slot);
    this.#count(slot, -1);
    this.#tags[tagAt(slot)] = 0;
  }

  #count(slot: number, change: number): void {
    if (this.entries.action(slot) === ACTION_REVERSE) return;
    const protocol = this.entries.protocol(slot);
    this.#counts[protocol] = this.activeFlows(protocol) + change;
  }

  /** Frees what a killed process held, left half-made or damaged; counts the rest. */
  #takeOver(): void {
    this.#lock.reset(this.#setMask + 1);
    this.#counts.fill(0);
    for (let slot = 0; slot < this.capacity; slot++) {
      if (!this.isUsed(slot)) continue;
      if (this.#isWhole(slot) && this.#hasItsPair(slot)) this.#count(slot, 1);
      else this.#tags[tagAt(slot)] = 0;
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
      this.#tags[tagAt(slot)] === tagOf(hash) &&
      (hash & this.#setMask) === ((slot / FLOW_WAYS) | 0) &&
      state >= FLOW_SYN_SENT &&
      state <= FLOW_ICMP &&
      action >= ACTION_FORWARD &&
      action <= ACTION_RETURN
    );
  }
}

/** Where the tag of `slot` is among the sets' headers. */
function tagAt(slot: number): number {
  const way = slot & (FLOW_WAYS - 1);
  return ((slot - way) / FLOW_WAYS) * SET_BYTES + SET_TAGS + way;
}

/** Eight bits of the hash that do not choose the set; never 0. */
function tagOf(hash: number): number {
  return hash >>> 24 || 1;
}

function checkOptions({ memory, capacity, hashKey }: FlowTableOptions): void {
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
  if (memory.byteOffset % 4 !== 0) {
    throw new RangeError(
      `Cannot make a flow table at offset ${memory.byteOffset}: expected a multiple of 4`,
    );
  }
  if (hashKey.byteLength !== FLOW_HASH_KEY_BYTES) {
    throw new RangeError(
      `Cannot use a hash key of ${hashKey.byteLength} bytes: expected ${FLOW_HASH_KEY_BYTES}`,
    );
  }
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
