import type { Random } from '../core/capabilities.ts';
import { outerHeaderBytes } from './overhead.ts';
import { PROBE_HEADER_BYTES } from './path-probe.ts';
import { PathQuality } from './path-quality.ts';
import { nextProbeBytes } from './path-search.ts';

// RFC 8899: datagram packetization layer path MTU discovery. Sizes are outer IP packets, in bytes.

/** Where the search starts (BASE_PLPMTU): every IPv6 path carries it, and nearly every IPv4 path. */
const BASE_MTU_BYTES = 1280;
/** What remains when the base does not pass: every IPv4 host takes 576 bytes (RFC 1122), IPv6 has no less. */
const FLOOR_MTU_IPV4_BYTES = 576;
/** The largest IP packet that a probe can ask about. */
const IP_PACKET_BYTES_MAX = 65_535;
/** How often a size is tried before it counts as too large, and a peer before it counts as silent. */
const MAX_PROBES = 3;
/** When larger sizes are tried again (PMTU_RAISE_TIMER). */
const RAISE_MS = 600_000;
/** Between attempts while the search runs; while the peer is silent at first. */
const SEARCH_INTERVAL_MS = 1_000;
/** Between confirmations of what was found; between calls to a peer that does not answer. */
const CONFIRM_INTERVAL_MS = 7_500;
const SILENT_INTERVAL_MS = 10_000;
/** Intervals vary by this share, so that a thousand peers are not probed in step. */
const JITTER = 1 / 3;
/** Pulses whose answers, even late ones, tell a round-trip time. */
const PULSES_KEPT = 4;

/**
 * What a path's prober does:
 * - `unanswered`: the peer has answered nothing lately, or never could: an old node, a kernel VTEP
 * - `confirming`: tries the MTU in use, in quick succession
 * - `searching`: tries larger sizes
 * - `complete`: nothing larger passes; what was found is confirmed now and then
 * - `error`: even the base size does not pass (IPv4 only)
 */
export type PathState = 'unanswered' | 'confirming' | 'searching' | 'complete' | 'error';

/** A probe to send. */
export interface ProbeOrder {
  readonly sequence: number;
  readonly nonce: bigint;
  /** UDP payload of the probe, in bytes. */
  readonly sizeBytes: number;
}

/** What a path's prober is set up with. */
export interface PathMtuOptions {
  /** MTU of the route to the peer, in bytes. */
  readonly linkMtuBytes: number;
  /** Whether the underlay is IPv6. */
  readonly ipv6: boolean;
}

/** A probe under way. */
interface Sent {
  readonly nonce: bigint;
  readonly sizeBytes: number;
  isAnswered: boolean;
}

/**
 * One attempt: a probe of the size in question, and right behind it a pulse, a probe of the smallest
 * size. Without an answer to the pulse the peer, not the size, is in doubt.
 */
interface Attempt {
  readonly startedMs: number;
  deadlineMs: number;
  readonly pulse: Sent;
  readonly target: Sent | undefined;
}

/**
 * Finds out how large packets to one peer may be, and notices when that changes, without needing ICMP: a
 * state machine after RFC 8899. It sends nothing: {@link PathMtu.tick} says what to send.
 *
 * Until the peer answers its path is taken to carry what the link does.
 */
export class PathMtu {
  readonly quality: PathQuality = new PathQuality();
  readonly #random: Random;
  readonly #maxBytes: number;
  readonly #baseBytes: number;
  readonly #floorBytes: number;
  readonly #headerBytes: number;
  #state: PathState = 'unanswered';
  #mtuBytes: number;
  /** The smallest size that is known to be too large. */
  #failsBytes: number;
  /** The size under search. */
  #candidateBytes = 0;
  /** Attempts of one size that failed, and attempts in a row that brought no answer at all. */
  #failures = 0;
  #silences = 0;
  #attempt: Attempt | undefined;
  #nextMs: number;
  #raiseMs = Number.POSITIVE_INFINITY;
  #sequence = 0;
  /** The last pulses, the latest first. BOUNDED by {@link PULSES_KEPT}. */
  #pulses: readonly Sent[] = [];

  /** @param nowMs - On the clock of all other calls; the first probe is due then. */
  constructor(random: Random, options: PathMtuOptions, nowMs: number) {
    this.#random = random;
    this.#maxBytes = Math.min(options.linkMtuBytes, IP_PACKET_BYTES_MAX);
    this.#baseBytes = Math.min(BASE_MTU_BYTES, this.#maxBytes);
    this.#floorBytes = options.ipv6
      ? this.#baseBytes
      : Math.min(FLOOR_MTU_IPV4_BYTES, this.#maxBytes);
    this.#headerBytes = outerHeaderBytes(options.ipv6);
    this.#mtuBytes = this.#maxBytes;
    this.#failsBytes = this.#maxBytes + 1;
    this.#nextMs = nowMs;
  }

  /** The largest outer packet to send to the peer. */
  get mtuBytes(): number {
    return this.#mtuBytes;
  }

  get state(): PathState {
    return this.#state;
  }

  /** When {@link PathMtu.tick} has something to do next. */
  get dueMs(): number {
    return this.#attempt?.deadlineMs ?? this.#nextMs;
  }

  /** Lets time pass: judges an attempt that is over, and starts the next one when it is due. */
  tick(nowMs: number): ProbeOrder[] {
    if (this.#attempt !== undefined && nowMs >= this.#attempt.deadlineMs) this.#judge(nowMs);
    if (this.#attempt !== undefined || nowMs < this.#nextMs) return [];
    return this.#begin(nowMs);
  }

  /**
   * The peer has answered a probe. Whatever was not asked for is ignored.
   *
   * @param sizeBytes - UDP payload that the peer says to have received.
   * @param rttUs - Microseconds from the probe to its answer.
   */
  answered(nonce: bigint, sizeBytes: number, rttUs: number, nowMs: number): void {
    const pulse = this.#pulses.find((sent) => sent.nonce === nonce && !sent.isAnswered);
    if (pulse !== undefined) this.#pulseAnswered(pulse, rttUs, nowMs);
    const target = this.#attempt?.target;
    if (target?.nonce === nonce && target.sizeBytes === sizeBytes) target.isAnswered = true;
    const { target: asked, pulse: called } = this.#attempt ?? {};
    if (called?.isAnswered && (asked === undefined || asked.isAnswered)) this.#judge(nowMs);
  }

  /**
   * The kernel has refused a packet as too large, or an ICMP error has said so (RFC 8899 section 4.6.2).
   *
   * @param limitBytes - The largest packet that is said to pass, if that was said.
   */
  tooBig(limitBytes: number | undefined, nowMs: number): void {
    const isNews = limitBytes !== undefined && limitBytes < this.#mtuBytes;
    if (isNews) {
      this.#mtuBytes = Math.max(limitBytes, this.#floorBytes);
      this.#failsBytes = this.#mtuBytes + 1;
      this.#raiseMs = nowMs + RAISE_MS;
    }
    if (this.#state === 'unanswered') return;
    if (isNews || this.#state !== 'confirming') this.#confirm(nowMs);
  }

  #begin(nowMs: number): ProbeOrder[] {
    if (nowMs >= this.#raiseMs) this.#raise(nowMs);
    const size = this.#state === 'searching' ? this.#candidateBytes : this.#mtuBytes;
    const target =
      this.#state === 'unanswered' ? undefined : this.#makeProbe(size - this.#headerBytes);
    const pulse = this.#makeProbe(PROBE_HEADER_BYTES);
    this.#pulses = [pulse, ...this.#pulses].slice(0, PULSES_KEPT);
    const deadlineMs = nowMs + this.quality.timeoutMs;
    this.#attempt = { startedMs: nowMs, deadlineMs, pulse, target };
    const probes = target === undefined ? [pulse] : [target, pulse];
    return probes.map(({ nonce, sizeBytes }) => {
      this.#sequence = (this.#sequence + 1) >>> 0;
      return { sequence: this.#sequence, nonce, sizeBytes };
    });
  }

  #makeProbe(sizeBytes: number): Sent {
    const bytes = this.#random.bytes(8);
    const nonce = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0);
    return { nonce, sizeBytes, isAnswered: false };
  }

  #pulseAnswered(pulse: Sent, rttUs: number, nowMs: number): void {
    pulse.isAnswered = true;
    this.quality.measured(rttUs);
    const attempt = this.#attempt;
    if (attempt?.pulse === pulse) {
      // The target left before the pulse: its answer has no reason to take much longer.
      const soon = attempt.startedMs + this.quality.timeoutMs;
      attempt.deadlineMs = Math.max(nowMs, Math.min(attempt.deadlineMs, soon));
    } else if (this.#state === 'unanswered') {
      this.#confirm(nowMs); // late, but there
    }
  }

  /** What an attempt has shown, all answered or its time over. */
  #judge(nowMs: number): void {
    const attempt = this.#attempt;
    if (attempt === undefined) return;
    this.#attempt = undefined;
    const { pulse, target } = attempt;
    this.quality.decided(!pulse.isAnswered);
    if (target?.isAnswered) this.#passed(nowMs, attempt.startedMs);
    else if (!pulse.isAnswered) this.#unheard(nowMs, attempt.startedMs);
    else if (target === undefined) this.#confirm(nowMs);
    else this.#failed(nowMs, attempt.startedMs);
  }

  #passed(nowMs: number, startedMs: number): void {
    this.#silences = 0;
    this.#failures = 0;
    if (this.#state === 'searching') this.#mtuBytes = this.#candidateBytes;
    if (this.#state === 'complete') this.#nextMs = startedMs + this.#jittered(CONFIRM_INTERVAL_MS);
    else this.#search(nowMs, startedMs);
  }

  /** Goes on with the next size, or rests. */
  #search(nowMs: number, startedMs: number): void {
    const bracket = { passes: this.#mtuBytes, fails: this.#failsBytes };
    const next = nextProbeBytes(bracket, this.#maxBytes);
    if (next !== undefined) {
      const wait = this.#state === 'searching' ? this.#jittered(SEARCH_INTERVAL_MS) : 0;
      this.#state = 'searching';
      this.#candidateBytes = next;
      this.#nextMs = startedMs + wait;
      return;
    }
    this.#state = 'complete';
    this.#raiseMs = this.#mtuBytes < this.#maxBytes ? nowMs + RAISE_MS : Number.POSITIVE_INFINITY;
    this.#nextMs = startedMs + this.#jittered(CONFIRM_INTERVAL_MS);
  }

  /** The peer is there, but a packet of this size did not reach it. */
  #failed(nowMs: number, startedMs: number): void {
    this.#silences = 0;
    this.#failures += 1;
    if (this.#state === 'searching') {
      this.#nextMs = startedMs + this.#jittered(SEARCH_INTERVAL_MS);
      if (this.#failures < MAX_PROBES) return;
      this.#failures = 0;
      this.#failsBytes = this.#candidateBytes;
      this.#search(nowMs, startedMs);
      return;
    }
    this.#nextMs = nowMs;
    if (this.#state === 'complete') this.#state = 'confirming';
    if (this.#failures < MAX_PROBES) return;
    this.#failures = 0;
    this.#shrink(startedMs);
  }

  /** What was in use does not pass any more: a black hole (RFC 8899 section 4.3). */
  #shrink(startedMs: number): void {
    this.#failsBytes = this.#mtuBytes;
    if (this.#mtuBytes > this.#baseBytes) {
      this.#mtuBytes = this.#baseBytes;
      return;
    }
    if (this.#mtuBytes === this.#floorBytes) {
      this.#nextMs = startedMs + this.#jittered(CONFIRM_INTERVAL_MS);
    }
    this.#mtuBytes = this.#floorBytes;
    this.#state = 'error';
  }

  /** No answer to anything: says nothing about sizes. */
  #unheard(nowMs: number, startedMs: number): void {
    this.#silences += 1;
    const isSilent = this.#silences >= MAX_PROBES;
    if (isSilent) this.#state = 'unanswered';
    if (this.#state === 'confirming' || this.#state === 'complete') this.#nextMs = nowMs;
    else {
      const interval = isSilent ? SILENT_INTERVAL_MS : SEARCH_INTERVAL_MS;
      this.#nextMs = startedMs + this.#jittered(interval);
    }
  }

  /** Tries the MTU in use, now. */
  #confirm(nowMs: number): void {
    this.#state = 'confirming';
    this.#attempt = undefined;
    this.#failures = 0;
    this.#silences = 0;
    this.#nextMs = nowMs;
  }

  /** Larger sizes may pass again: routes change. */
  #raise(nowMs: number): void {
    this.#raiseMs = Number.POSITIVE_INFINITY;
    this.#failsBytes = this.#maxBytes + 1;
    // Nobody answers probes there: only the link and ICMP say what passes.
    if (this.#state === 'unanswered') this.#mtuBytes = this.#maxBytes;
    else if (this.#state === 'complete') this.#search(nowMs, nowMs);
  }

  #jittered(intervalMs: number): number {
    return intervalMs * (1 + JITTER * (2 * this.#random.next() - 1));
  }
}
