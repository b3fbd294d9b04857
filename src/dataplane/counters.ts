/** Why the data plane dropped a frame or datagram. One counter each; the order is the wire format. */
export const DROP_REASONS = [
  // frames from ports and VTEPs
  'runt',
  'bad-ipv4',
  'bad-ipv6',
  'bad-l4',
  'bad-offload',
  'multicast',
  'unsupported-ethertype',
  'arp-malformed',
  'arp-unknown',
  'nd-malformed',
  'nd-unknown',
  'neighbor-limited',
  'spoofed',
  'spoofed-vtep',
  'unknown-destination',
  'no-route',
  // the mesh
  'no-backend',
  'backend-gone',
  'fragment-without-first',
  'unsupported-protocol',
  'no-flow',
  'no-port',
  // the underlay
  'unknown-vtep',
  'not-vxlan',
  'unknown-vni',
  'not-local',
  'send-failed',
  'too-big',
  // encrypted networks
  'no-session',
  'queue-full',
  'not-encrypted',
  'unknown-session',
  'bad-auth',
  'replay',
  'handshake-flood',
  // ports
  'port-down',
  'port-write-failed',
] as const;
export type DropReason = (typeof DROP_REASONS)[number];

/** What the data plane counts besides drops. "Frames" may be superframes; "datagrams" are on the wire. */
export const TRAFFIC_COUNTERS = [
  'port-frames-in',
  'port-bytes-in',
  'port-frames-out',
  'port-bytes-out',
  'underlay-datagrams-in',
  'underlay-bytes-in',
  'underlay-datagrams-out',
  'underlay-bytes-out',
  'underlay-receives',
  'underlay-sends',
  'arp-replies',
  'nd-replies',
  'echo-replies',
  'tcp-resets',
  'too-big-answers',
  'flows-evicted',
  'wakeups',
] as const;
export type TrafficCounter = (typeof TRAFFIC_COUNTERS)[number];

const COUNTERS = TRAFFIC_COUNTERS.length + DROP_REASONS.length;

/** Numeric index of a drop reason, so that the packet loop handles small integers only. */
export function dropIndex(reason: DropReason): number {
  return DROP_REASONS.indexOf(reason);
}

/** Numeric index of a traffic counter. */
export function trafficIndex(counter: TrafficCounter): number {
  return TRAFFIC_COUNTERS.indexOf(counter);
}

/**
 * The data plane's counters in memory that the packet thread writes and the control thread reads. Doubles
 * hold integers exactly up to 2^53 and are written whole; there is one writer, so no atomics.
 */
export class Counters {
  readonly shared: SharedArrayBuffer;
  readonly #values: Float64Array;

  /** @param shared - Another thread's {@link Counters.shared}; a new one when absent. */
  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(COUNTERS * 8)) {
    this.shared = shared;
    this.#values = new Float64Array(shared);
  }

  /** Adds to the counter with {@link trafficIndex} `index`. */
  add(index: number, amount: number): void {
    this.#values[index] = (this.#values[index] ?? 0) + amount;
  }

  /** Sets a counter that is counted elsewhere. */
  set(index: number, value: number): void {
    this.#values[index] = value;
  }

  /** Counts one drop with {@link dropIndex} `index`. */
  drop(index: number): void {
    this.add(TRAFFIC_COUNTERS.length + index, 1);
  }

  /** Counts drops of several datagrams at once. */
  dropMany(index: number, drops: number): void {
    this.add(TRAFFIC_COUNTERS.length + index, drops);
  }

  /** All traffic counters by name. */
  traffic(): Record<TrafficCounter, number> {
    return named(TRAFFIC_COUNTERS, this.#values, 0);
  }

  /** All drop counters by reason. */
  drops(): Record<DropReason, number> {
    return named(DROP_REASONS, this.#values, TRAFFIC_COUNTERS.length);
  }
}

function named<Name extends string>(
  names: readonly Name[],
  values: Float64Array,
  offset: number,
): Record<Name, number> {
  return Object.fromEntries(
    names.map((name, index) => [name, values[offset + index] ?? 0]),
  ) as Record<Name, number>;
}
