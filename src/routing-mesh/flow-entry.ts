import type { Rewrite } from './nat.ts';

/**
 * One entry of the flow table, 64 bytes (a cache line), little-endian. The memory may be a file that
 * outlives the agent: whoever changes an offset or the meaning of a number raises
 * `FLOW_TABLE_VERSION`.
 */
export const FLOW_ENTRY_BYTES = 64;

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
/** Slot of the opposite direction's entry, or {@link NO_SLOT}. */
const PAIR = 44;
/** In ticks of the wall clock, so that they mean something after a restart. */
const LAST_SEEN = 48;
const MADE = 52;

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

/** Scope and protocol as one signed 32-bit integer: part of a flow's key. */
export function packOwner(scope: number, protocol: number): number {
  return scope | (protocol << 24);
}

/** The scope of an owner. */
export function scopeOf(owner: number): number {
  return owner & 0xff_ffff;
}

/** Two ports as one signed 32-bit integer: part of a flow's key. */
export function packPorts(source: number, destination: number): number {
  return (source << 16) | destination;
}

/**
 * What names one direction of a flow, as signed 32-bit integers. A reused object.
 */
export class FlowKey {
  /** Scope in the low 24 bits, IP protocol in the high 8. */
  owner = 0;
  source = 0;
  destination = 0;
  /** Source port in the high 16 bits, destination port in the low ones; ICMP echo has its identifier twice. */
  ports = 0;

  /** Takes the key of packets from `source` to `destination`: any 32-bit integers, best signed ones. */
  set(owner: number, source: number, destination: number, ports: number): void {
    this.owner = owner;
    this.source = source | 0;
    this.destination = destination | 0;
    this.ports = ports;
  }
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
    for (let offset = 0; offset < FLOW_ENTRY_BYTES; offset += 4) {
      view.setInt32(at + offset, 0, true);
    }
    view.setInt32(at + OWNER, key.owner, true);
    view.setInt32(at + SOURCE, key.source, true);
    view.setInt32(at + DESTINATION, key.destination, true);
    view.setInt32(at + PORTS, key.ports, true);
    view.setUint8(at + ACTION, action);
    view.setInt32(at + PAIR, NO_SLOT, true);
    view.setInt32(at + LAST_SEEN, now, true);
    view.setInt32(at + MADE, now, true);
  }

  hasKey(slot: number, key: FlowKey): boolean {
    const view = this.#view;
    const at = this.#at(slot);
    return (
      view.getInt32(at + PORTS, true) === key.ports &&
      view.getInt32(at + SOURCE, true) === key.source &&
      view.getInt32(at + DESTINATION, true) === key.destination &&
      view.getInt32(at + OWNER, true) === key.owner
    );
  }

  readKey(slot: number, key: FlowKey): void {
    const at = this.#at(slot);
    key.owner = this.#view.getInt32(at + OWNER, true);
    key.source = this.#view.getInt32(at + SOURCE, true);
    key.destination = this.#view.getInt32(at + DESTINATION, true);
    key.ports = this.#view.getInt32(at + PORTS, true);
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

  /** How many backends were given up on before the present one. */
  attempt(slot: number): number {
    return this.#view.getUint8(this.#at(slot) + ATTEMPT);
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

  /** When the entry was made, and so its backend picked, in ticks. */
  made(slot: number): number {
    return this.#view.getInt32(this.#at(slot) + MADE, true);
  }

  /** The VTEP that a return flow goes back to, as a signed integer. */
  vtep(slot: number): number {
    return this.#view.getInt32(this.#at(slot) + VTEP, true);
  }

  vtepPort(slot: number): number {
    return this.#view.getUint16(this.#at(slot) + VTEP_PORT, true);
  }

  setVtep(slot: number, vtep: number, vtepPort: number): void {
    this.#view.setInt32(this.#at(slot) + VTEP, vtep, true);
    this.#view.setUint16(this.#at(slot) + VTEP_PORT, vtepPort, true);
  }

  /** The scope in which rewritten packets go on. */
  outScope(slot: number): number {
    return this.#view.getInt32(this.#at(slot) + OUT_SCOPE, true);
  }

  /** What packets of the flow become, into `rewrite`. */
  readRewrite(slot: number, rewrite: Rewrite): void {
    const at = this.#at(slot);
    rewrite.source = this.#view.getInt32(at + NEW_SOURCE, true);
    rewrite.destination = this.#view.getInt32(at + NEW_DESTINATION, true);
    rewrite.sourcePort = this.#view.getUint16(at + NEW_PORTS, true);
    rewrite.destinationPort = this.#view.getUint16(at + NEW_PORTS + 2, true);
  }

  /** Sets what packets of the flow become, and the scope in which they go on. */
  setRewrite(slot: number, rewrite: Rewrite, outScope: number): void {
    const at = this.#at(slot);
    this.#view.setInt32(at + NEW_SOURCE, rewrite.source, true);
    this.#view.setInt32(at + NEW_DESTINATION, rewrite.destination, true);
    this.#view.setUint16(at + NEW_PORTS, rewrite.sourcePort, true);
    this.#view.setUint16(at + NEW_PORTS + 2, rewrite.destinationPort, true);
    this.#view.setInt32(at + OUT_SCOPE, outScope, true);
  }

  #at(slot: number): number {
    return this.#start + slot * FLOW_ENTRY_BYTES;
  }
}
