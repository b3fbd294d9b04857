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
/** Doubles of one thread: whole cache lines, so that no two threads write to the same one. */
const STRIDE = Math.ceil(COUNTERS / 8) * 8;

/** Memory for the counters of `threads` packet threads. */
export function makeCounterMemory(threads: number): SharedArrayBuffer {
  return new SharedArrayBuffer(threads * STRIDE * 8);
}

/** Numeric index of a drop reason, so that the packet loop handles small integers only. */
export function dropIndex(reason: DropReason): number {
  return DROP_REASONS.indexOf(reason);
}

/** Numeric index of a traffic counter. */
export function trafficIndex(counter: TrafficCounter): number {
  return TRAFFIC_COUNTERS.indexOf(counter);
}

/**
 * The data plane's counters in memory that packet threads write and the control thread reads. Doubles hold
 * integers exactly up to 2^53 and are written whole; each thread has its own, so there are no atomics.
 */
export class Counters {
  /** This thread's. */
  readonly #own: Float64Array;
  /** Those of all threads. */
  readonly #all: Float64Array;

  /**
   * @param memory - From {@link makeCounterMemory}.
   * @param thread - Which thread's counters this object changes.
   */
  constructor(memory: SharedArrayBuffer = makeCounterMemory(1), thread = 0) {
    this.#all = new Float64Array(memory);
    this.#own = this.#all.subarray(thread * STRIDE, (thread + 1) * STRIDE);
  }

  /** Adds to the counter with {@link trafficIndex} `index`. */
  add(index: number, amount: number): void {
    this.#own[index] = (this.#own[index] ?? 0) + amount;
  }

  /** Sets a counter that is counted elsewhere. */
  set(index: number, value: number): void {
    this.#own[index] = value;
  }

  /** Counts one drop with {@link dropIndex} `index`. */
  drop(index: number): void {
    this.add(TRAFFIC_COUNTERS.length + index, 1);
  }

  /** Counts drops of several datagrams at once. */
  dropMany(index: number, drops: number): void {
    this.add(TRAFFIC_COUNTERS.length + index, drops);
  }

  /** All traffic counters by name, of all threads together. */
  traffic(): Record<TrafficCounter, number> {
    return this.#sums(TRAFFIC_COUNTERS, 0);
  }

  /** All drop counters by reason, of all threads together. */
  drops(): Record<DropReason, number> {
    return this.#sums(DROP_REASONS, TRAFFIC_COUNTERS.length);
  }

  /** One traffic counter, thread by thread. */
  byThread(counter: TrafficCounter): readonly number[] {
    const rows: number[] = [];
    for (let at = trafficIndex(counter); at < this.#all.length; at += STRIDE) {
      rows.push(this.#all[at] ?? 0);
    }
    return rows;
  }

  #sums<Name extends string>(names: readonly Name[], offset: number): Record<Name, number> {
    const sums = Object.fromEntries(names.map((name) => [name, 0])) as Record<Name, number>;
    for (let row = 0; row < this.#all.length; row += STRIDE) {
      for (const [index, name] of names.entries()) {
        sums[name] += this.#all[row + offset + index] ?? 0;
      }
    }
    return sums;
  }
}
