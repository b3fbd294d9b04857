import type { Clock } from '../core/capabilities.ts';
import { type Arena, IOVEC_BYTES } from '../io/linux/arena.ts';
import { CaptureRingWriter } from './capture-ring.ts';

// Where a frame crosses the edge of the switch, and which way. The low two bits are pcapng's: 1 is
// inbound, 2 outbound, as seen from the switch.
/** A task or the host sent it. */
export const CROSSING_PORT_IN = 1;
/** A task or the host gets it. */
export const CROSSING_PORT_OUT = 2;
/** Another node sent it. */
export const CROSSING_PEER_IN = 5;
/** Another node gets it. */
export const CROSSING_PEER_OUT = 6;
const PEER_BIT = 4;
const DIRECTION_BITS = 3;

/** Whether `crossing` is that of a peer; else it is that of a port. */
export function isPeerCrossing(crossing: number): boolean {
  return (crossing & PEER_BIT) !== 0;
}

/** pcapng's direction of `crossing`: 1 inbound, 2 outbound. */
export function directionOf(crossing: number): number {
  return crossing & DIRECTION_BITS;
}

/** Captures that may run at a time: each has a ring of some megabytes. */
export const CAPTURES_MAX = 4;

/** Which frames a capture takes. */
export interface CaptureFilter {
  /** VNIs; HOST_SCOPE for what crosses the host's own port. */
  readonly scopes: readonly number[];
  /** Only what crosses the port with this id. */
  readonly port?: number;
  /** Only what crosses to or from the peer with this slot. */
  readonly peer?: number;
  /** Bytes to keep of each frame. */
  readonly snaplen: number;
}

interface Tap {
  readonly id: number;
  readonly scopes: Int32Array;
  /** {@link PEER_BIT}, 0, or ANY. */
  readonly kind: number;
  readonly point: number;
  readonly snaplen: number;
  readonly ring: CaptureRingWriter;
  /** What makes the monotonic clock the wall clock: read once, so that no step of time shows. */
  readonly clockOffsetMs: number;
}

const ANY = -1;

/**
 * The packet thread's end of all captures: copies frames that match into each capture's ring. While none runs,
 * {@link active} is all that a frame costs; while one does, a matching frame costs its copy and a
 * look at the clock. Nothing is waited for.
 */
export class CaptureTaps {
  /** Whether any capture runs. The packet loop asks this before it calls anything else. */
  active = false;
  readonly #arena: Arena;
  readonly #clock: Clock;
  /** BOUNDED by {@link CAPTURES_MAX}. */
  #taps: readonly Tap[] = [];

  constructor(arena: Arena, clock: Clock) {
    this.#arena = arena;
    this.#clock = clock;
  }

  /**
   * Starts a capture, in place of one with the same id.
   *
   * @param ring - From `makeCaptureRing`; nobody else writes to it.
   * @throws {RangeError} if {@link CAPTURES_MAX} others run
   */
  set(id: number, filter: CaptureFilter, ring: SharedArrayBuffer): void {
    const others = this.#taps.filter((tap) => tap.id !== id);
    if (others.length >= CAPTURES_MAX) {
      throw new RangeError(`Cannot start capture ${id}: ${CAPTURES_MAX} run already`);
    }
    const { scopes, port, peer, snaplen } = filter;
    const kind = port !== undefined ? 0 : peer !== undefined ? PEER_BIT : ANY;
    const tap: Tap = {
      id,
      scopes: Int32Array.from(scopes),
      kind,
      point: port ?? peer ?? 0,
      snaplen,
      ring: new CaptureRingWriter(ring),
      clockOffsetMs: this.#clock.epochMs() - this.#clock.nowMs(),
    };
    this.#taps = [...others, tap];
    this.active = true;
  }

  /** Ends a capture; one that does not run is none to end. */
  clear(id: number): void {
    this.#taps = this.#taps.filter((tap) => tap.id !== id);
    this.active = this.#taps.length > 0;
  }

  /**
   * Offers a frame that lies in one piece.
   *
   * @param crossing - One of the `CROSSING_` constants.
   * @param scope - The VNI that it crosses under; for a port, the port's scope.
   * @param point - The port's id or the peer's slot.
   * @param start - Offset of its Ethernet header in the arena.
   */
  frame(crossing: number, scope: number, point: number, start: number, bytes: number): void {
    const taps = this.#taps;
    for (let index = 0; index < taps.length; index++) {
      const tap = taps[index];
      if (tap === undefined || !matches(tap, crossing, scope, point)) continue;
      const captured = Math.min(bytes, tap.snaplen);
      if (!tap.ring.begin(point, crossing, captured, bytes, this.#timeUs(tap))) continue;
      tap.ring.append(this.#arena.view, start, captured);
      tap.ring.commit();
    }
  }

  /**
   * Offers a frame that `count` iovecs describe. What they have more than `bytes` stands in front of the
   * frame: the header of a TAP or a tunnel.
   *
   * @param iovecs - Offset in the arena of the first iovec; all point into the arena.
   */
  vectors(
    crossing: number,
    scope: number,
    point: number,
    iovecs: number,
    count: number,
    bytes: number,
  ): void {
    const taps = this.#taps;
    for (let index = 0; index < taps.length; index++) {
      const tap = taps[index];
      if (tap === undefined || !matches(tap, crossing, scope, point)) continue;
      const captured = Math.min(bytes, tap.snaplen);
      if (!tap.ring.begin(point, crossing, captured, bytes, this.#timeUs(tap))) continue;
      this.#gather(tap.ring, iovecs, count, bytes, captured);
      tap.ring.commit();
    }
  }

  #timeUs(tap: Tap): number {
    return (tap.clockOffsetMs + this.#clock.nowMs()) * 1_000;
  }

  #gather(
    ring: CaptureRingWriter,
    iovecs: number,
    count: number,
    bytes: number,
    captured: number,
  ): void {
    const { view } = this.#arena;
    const base = this.#arena.base | 0; // the low word: the arena is smaller than 2^32
    let skip = -bytes;
    for (let index = 0; index < count; index++) {
      skip += view.getInt32(iovecs + index * IOVEC_BYTES + 8, true);
    }
    let left = captured;
    for (let index = 0; index < count && left > 0; index++) {
      const at = iovecs + index * IOVEC_BYTES;
      const start = (view.getInt32(at, true) - base) | 0;
      const length = view.getInt32(at + 8, true);
      const skipped = Math.min(skip, length);
      const taken = Math.min(length - skipped, left);
      ring.append(view, start + skipped, taken);
      skip -= skipped;
      left -= taken;
    }
  }
}

function matches(tap: Tap, crossing: number, scope: number, point: number): boolean {
  if (tap.kind !== ANY && (tap.kind !== (crossing & PEER_BIT) || tap.point !== point)) return false;
  return tap.scopes.includes(scope);
}
