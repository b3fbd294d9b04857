import { AddressWords } from '../core/address-words.ts';
import type { FlowKey } from './flow-key.ts';
import { Rewrite } from './nat.ts';

/**
 * One entry of the flow table, two cache lines, little-endian. The first line is all that an IPv4 flow
 * needs: addresses have their last words there and the upper ones in the second line. The memory may be a
 * file that outlives the agent: whoever changes an offset or the meaning of a number raises
 * `FLOW_TABLE_VERSION`.
 */
export const FLOW_ENTRY_BYTES = 128;

// Key: what packets of this direction carry.
/** Scope in the low 24 bits, IP protocol in the high 8. */
const OWNER = 0;
const SOURCE = 4;
const DESTINATION = 8;
/** Source port in the high 16 bits, destination port in the low ones. */
const PORTS = 12;
// Value.
/** State in the low byte, marks in the next one. */
const STATUS = 16;
const ACTION = 18;
const ATTEMPT = 19;
const OUT_SCOPE = 20;
const NEW_SOURCE = 24;
const NEW_DESTINATION = 28;
const NEW_PORTS = 32;
const VTEP = 36;
const VTEP_PORT = 40;
/** IP version of the packets: part of the key. */
const FAMILY = 42;
/** Slot of the opposite direction's entry, or {@link NO_SLOT}. */
const PAIR = 44;
/** In ticks of the wall clock, so that they mean something after a restart. */
const LAST_SEEN = 48;
const MADE = 52;
const FIRST_LINE_BYTES = 64;
// The upper three words of addresses: of an IPv6 flow's four, and of a return flow's VTEP in any case.
const SOURCE_UPPER = 64;
const DESTINATION_UPPER = 76;
const NEW_SOURCE_UPPER = 88;
const NEW_DESTINATION_UPPER = 100;
const VTEP_UPPER = 112;

/** "No such slot", as an answer and as the pair of an entry without one. */
export const NO_SLOT = -1;

// What becomes of a packet that matches an entry. Stored in the table: never renumber.
/** Client to VIP: destination NAT to the backend. */
export const ACTION_FORWARD = 1;
/** Backend to client: un-NAT. Paired with a forward entry. */
export const ACTION_REVERSE = 2;
/** Backend to a client outside the overlay: back to the node that it came in by. Has no pair. */
export const ACTION_RETURN = 3;

/** Names of the actions, by number. */
export const FLOW_ACTION_NAMES = ['none', 'forward', 'reverse', 'return'] as const;
export type FlowActionName = (typeof FLOW_ACTION_NAMES)[number];

/** What an entry said at one moment. A reused object. */
export class Flow {
  /** Where it lay, or {@link NO_SLOT}: then the rest means nothing. */
  slot: number = NO_SLOT;
  /** One of the `ACTION_` constants. */
  action = 0;
  /** State in the low byte, marks in the next one. */
  status = 0;
  /** How many backends were given up on before the present one. */
  attempt = 0;
  /** When its backend was picked, in ticks. */
  made = 0;
  /** The scope in which rewritten packets go on. */
  outScope = 0;
  /** What packets become; of a return flow all zero. */
  readonly rewrite: Rewrite = new Rewrite();
  /** Where packets of a return flow go; of others it means nothing. */
  readonly vtep: AddressWords = new AddressWords();
  vtepPort = 0;
}

/**
 * The fields of entries, by slot. Every number in and out is a signed 32-bit integer: V8 boxes others when
 * they cross a function. Allocates nothing and checks nothing: a slot is what the table that owns
 * the memory has given out.
 */
export class FlowEntries {
  readonly #view: DataView;
  readonly #start: number;

  /** @param start - Offset of slot 0 in `view`, in bytes. */
  constructor(view: DataView, start: number) {
    this.#view = view;
    this.#start = start;
  }

  /** Makes a slot an entry with everything but key, action and times zero, and without a pair. */
  write(slot: number, key: FlowKey, action: number, now: number): void {
    const view = this.#view;
    const at = this.#at(slot);
    const { isIpv4 } = key.source;
    const bytes = isIpv4 ? FIRST_LINE_BYTES : FLOW_ENTRY_BYTES;
    for (let offset = 0; offset < bytes; offset += 4) view.setInt32(at + offset, 0, true);
    view.setInt32(at + OWNER, key.owner, true);
    view.setInt32(at + SOURCE, key.source.w3, true);
    view.setInt32(at + DESTINATION, key.destination.w3, true);
    view.setInt32(at + PORTS, key.ports, true);
    view.setUint8(at + FAMILY, isIpv4 ? 4 : 6);
    view.setUint8(at + ACTION, action);
    view.setInt32(at + PAIR, NO_SLOT, true);
    view.setInt32(at + LAST_SEEN, now, true);
    view.setInt32(at + MADE, now, true);
    if (isIpv4) return;
    this.#writeUpper(at + SOURCE_UPPER, key.source);
    this.#writeUpper(at + DESTINATION_UPPER, key.destination);
  }

  hasKey(slot: number, key: FlowKey): boolean {
    const view = this.#view;
    const at = this.#at(slot);
    const isAlike =
      view.getInt32(at + PORTS, true) === key.ports &&
      view.getInt32(at + SOURCE, true) === key.source.w3 &&
      view.getInt32(at + DESTINATION, true) === key.destination.w3 &&
      view.getInt32(at + OWNER, true) === key.owner;
    if (!isAlike) return false;
    const { isIpv4 } = key.source;
    if (isIpv4 || this.#isIpv4(at)) return isIpv4 === this.#isIpv4(at);
    return (
      this.#hasUpper(at + SOURCE_UPPER, key.source) &&
      this.#hasUpper(at + DESTINATION_UPPER, key.destination)
    );
  }

  readKey(slot: number, key: FlowKey): void {
    const at = this.#at(slot);
    key.owner = this.#view.getInt32(at + OWNER, true);
    key.ports = this.#view.getInt32(at + PORTS, true);
    this.#readAddress(at, SOURCE, SOURCE_UPPER, key.source);
    this.#readAddress(at, DESTINATION, DESTINATION_UPPER, key.destination);
  }

  /** Copies what the entry says of its packets. */
  read(slot: number, flow: Flow): void {
    const view = this.#view;
    const at = this.#at(slot);
    flow.slot = slot;
    flow.action = view.getUint8(at + ACTION);
    flow.status = view.getUint16(at + STATUS, true);
    flow.attempt = view.getUint8(at + ATTEMPT);
    flow.made = view.getInt32(at + MADE, true);
    flow.outScope = view.getInt32(at + OUT_SCOPE, true);
    const { rewrite } = flow;
    rewrite.sourcePort = view.getUint16(at + NEW_PORTS, true);
    rewrite.destinationPort = view.getUint16(at + NEW_PORTS + 2, true);
    this.#readAddress(at, NEW_SOURCE, NEW_SOURCE_UPPER, rewrite.source);
    this.#readAddress(at, NEW_DESTINATION, NEW_DESTINATION_UPPER, rewrite.destination);
    if (flow.action !== ACTION_RETURN) return;
    this.#readUpper(at + VTEP_UPPER, flow.vtep);
    flow.vtep.w3 = view.getInt32(at + VTEP, true);
    flow.vtepPort = view.getUint16(at + VTEP_PORT, true);
  }

  protocol(slot: number): number {
    return this.#view.getUint8(this.#at(slot) + OWNER + 3);
  }

  action(slot: number): number {
    return this.#view.getUint8(this.#at(slot) + ACTION);
  }

  /** State in the low byte, marks in the next one. */
  status(slot: number): number {
    return this.#view.getUint16(this.#at(slot) + STATUS, true);
  }

  /** Sets the status of both directions. */
  setStatus(slot: number, status: number): void {
    this.#view.setUint16(this.#at(slot) + STATUS, status, true);
    const pair = this.pair(slot);
    if (pair !== NO_SLOT) this.#view.setUint16(this.#at(pair) + STATUS, status, true);
  }

  /** The entry of the opposite direction, or {@link NO_SLOT}. */
  pair(slot: number): number {
    return this.#view.getInt32(this.#at(slot) + PAIR, true);
  }

  /** Makes two entries the two directions of one flow: they are kept and removed together. */
  link(slot: number, other: number): void {
    this.#view.setInt32(this.#at(slot) + PAIR, other, true);
    this.#view.setInt32(this.#at(other) + PAIR, slot, true);
  }

  setAttempt(slot: number, attempt: number): void {
    this.#view.setUint8(this.#at(slot) + ATTEMPT, attempt);
  }

  /** When a packet of this direction was last seen, in ticks. */
  lastSeen(slot: number): number {
    return this.#view.getInt32(this.#at(slot) + LAST_SEEN, true);
  }

  setLastSeen(slot: number, time: number): void {
    this.#view.setInt32(this.#at(slot) + LAST_SEEN, time, true);
  }

  /** Sets the VTEP that a return flow goes back to. */
  setVtep(slot: number, vtep: AddressWords, vtepPort: number): void {
    const at = this.#at(slot);
    this.#view.setInt32(at + VTEP, vtep.w3, true);
    this.#view.setUint16(at + VTEP_PORT, vtepPort, true);
    this.#writeUpper(at + VTEP_UPPER, vtep);
  }

  /** Sets what packets of the flow become, and the scope in which they go on. */
  setRewrite(slot: number, rewrite: Rewrite, outScope: number): void {
    const at = this.#at(slot);
    this.#view.setInt32(at + NEW_SOURCE, rewrite.source.w3, true);
    this.#view.setInt32(at + NEW_DESTINATION, rewrite.destination.w3, true);
    this.#view.setUint16(at + NEW_PORTS, rewrite.sourcePort, true);
    this.#view.setUint16(at + NEW_PORTS + 2, rewrite.destinationPort, true);
    this.#view.setInt32(at + OUT_SCOPE, outScope, true);
    if (this.#isIpv4(at)) return;
    this.#writeUpper(at + NEW_SOURCE_UPPER, rewrite.source);
    this.#writeUpper(at + NEW_DESTINATION_UPPER, rewrite.destination);
  }

  #isIpv4(at: number): boolean {
    return this.#view.getUint8(at + FAMILY) !== 6;
  }

  #readAddress(at: number, low: number, upper: number, address: AddressWords): void {
    const w3 = this.#view.getInt32(at + low, true);
    if (this.#isIpv4(at)) {
      address.setIpv4(w3);
      return;
    }
    this.#readUpper(at + upper, address);
    address.w3 = w3;
  }

  #readUpper(at: number, address: AddressWords): void {
    address.w0 = this.#view.getInt32(at, true);
    address.w1 = this.#view.getInt32(at + 4, true);
    address.w2 = this.#view.getInt32(at + 8, true);
  }

  #hasUpper(at: number, address: AddressWords): boolean {
    return (
      this.#view.getInt32(at + 8, true) === address.w2 &&
      this.#view.getInt32(at + 4, true) === address.w1 &&
      this.#view.getInt32(at, true) === address.w0
    );
  }

  #writeUpper(at: number, address: AddressWords): void {
    this.#view.setInt32(at, address.w0, true);
    this.#view.setInt32(at + 4, address.w1, true);
    this.#view.setInt32(at + 8, address.w2, true);
  }

  #at(slot: number): number {
    return this.#start + slot * FLOW_ENTRY_BYTES;
  }
}
