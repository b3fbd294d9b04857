import type { Awareness } from './awareness.ts';
import type { GossipTuning } from './config.ts';
import type { Member } from './member.ts';
import type { MemberTable } from './member-table.ts';
import type { Ack, IndirectPing, Message, Nack, Ping, PingSource } from './messages.ts';
import type { PeerAddress } from './peer-address.ts';

/** Pings that this node does for others at once; one more is dropped. Our own bound. */
export const RELAYS_MAX = 1_024;
/** First protocol version that answers indirect pings with nacks, and TCP pings (net.go). */
const NACK_VERSION = 4;
const STREAM_PING_VERSION = 3;

/** What the prober wants done. `node` is the receiver's name if it is known, else empty. */
export type ProbeAction =
  | {
      readonly kind: 'send';
      readonly to: PeerAddress;
      readonly node: string;
      readonly messages: readonly Message[];
    }
  | {
      readonly kind: 'streamPing';
      readonly to: PeerAddress;
      readonly ping: Ping;
      readonly timeoutMs: number;
    }
  | { readonly kind: 'suspect'; readonly node: string; readonly incarnation: number };

/** The one probe under way. */
interface Probe {
  readonly sequence: number;
  readonly target: PeerAddress & { readonly name: string; readonly incarnation: number };
  readonly streamPing: boolean;
  /** When indirect pings start, and when the target becomes a suspect. */
  readonly directUntilMs: number;
  readonly untilMs: number;
  phase: 'direct' | 'indirect';
  /** Nacks asked for and received: those missing tell that this node itself is unwell. */
  nacksExpected: number;
  nacks: number;
}

/** A ping done for another node. */
interface Relay {
  readonly origin: PeerAddress & { readonly node: string };
  readonly sequence: number;
  readonly nackWanted: boolean;
  readonly untilMs: number;
}

/** What {@link Prober} needs of its surroundings. */
export interface ProberParts {
  readonly tuning: GossipTuning;
  readonly table: MemberTable;
  readonly awareness: Awareness;
  readonly self: PeerAddress & { readonly name: string };
  /** The first sequence number, hard to guess: an ack is only its number. */
  readonly firstSequence: number;
}

/**
 * SWIM's failure detector (section 3.1): one member per protocol period is pinged directly, then
 * through others, then suspected. Also does the pings that others ask for. memberlist `probeNode`
 * and `handleIndirectPing` with their waits turned into deadlines.
 */
export class Prober {
  readonly #parts: ProberParts;
  readonly #source: PingSource;
  #sequence: number;
  #probe: Probe | undefined;
  /** By the sequence of our ping. BOUNDED by {@link RELAYS_MAX}; each ends after a ping timeout. */
  readonly #relays = new Map<number, Relay>();

  constructor(parts: ProberParts) {
    this.#parts = parts;
    const { address, port, name: node } = parts.self;
    this.#source = { address, port, node };
    this.#sequence = parts.firstSequence;
  }

  /** Whether a probe is under way; another one must wait for its end. */
  get busy(): boolean {
    return this.#probe !== undefined;
  }

  /** Starts to probe the next member of the ring, if there is one. */
  begin(nowMs: number): ProbeAction[] {
    const { tuning, table, awareness, self } = this.#parts;
    const member = table.nextOnRing(
      ({ name, state }) => name !== self.name && (state === 'alive' || state === 'suspect'),
    );
    if (member === undefined) return [];
    const { name, address, port, incarnation, versions } = member;
    const sequence = this.#nextSequence();
    this.#probe = {
      sequence,
      target: { name, address, port, incarnation },
      streamPing: tuning.streamPings && (versions[1] ?? 0) >= STREAM_PING_VERSION,
      directUntilMs: nowMs + tuning.probeTimeoutMs,
      untilMs: nowMs + awareness.scale(tuning.probeIntervalMs),
      phase: 'direct',
      nacksExpected: 0,
      nacks: 0,
    };
    const messages: Message[] = [{ kind: 'ping', sequence, node: name, source: this.#source }];
    if (member.state === 'suspect' && tuning.buddySystem) {
      // The suspect must hear of it in time to refute.
      messages.push({ kind: 'suspect', incarnation, node: name, from: self.name });
    }
    return [{ kind: 'send', to: { address, port }, node: name, messages }];
  }

  /** Moves on what has waited long enough. */
  expire(nowMs: number): ProbeAction[] {
    const actions: ProbeAction[] = [];
    for (const [sequence, relay] of this.#relays) {
      if (relay.untilMs > nowMs) continue;
      this.#relays.delete(sequence);
      if (relay.nackWanted) actions.push(answer(relay, 'nack'));
    }
    const probe = this.#probe;
    if (probe?.phase === 'direct' && probe.directUntilMs <= nowMs) {
      actions.push(...this.#goIndirect(probe, nowMs));
    }
    if (probe !== undefined && probe.untilMs <= nowMs) actions.push(this.#fail(probe));
    return actions;
  }

  /** @returns what to do now that `ack` came: an answer to who asked for the ping, or nothing */
  ack({ sequence }: Ack): ProbeAction[] {
    if (this.#probe?.sequence === sequence) {
      this.#probe = undefined;
      this.#parts.awareness.apply(-1);
      return [];
    }
    const relay = this.#relays.get(sequence);
    this.#relays.delete(sequence);
    return relay === undefined ? [] : [answer(relay, 'ack')];
  }

  nack({ sequence }: Nack): void {
    const probe = this.#probe;
    if (probe?.sequence === sequence && probe.nacks < probe.nacksExpected) probe.nacks++;
  }

  /** Pings for another node; undefined if there are too many of these already. */
  relay(request: IndirectPing, from: PeerAddress, nowMs: number): ProbeAction[] | undefined {
    if (this.#relays.size >= RELAYS_MAX) return undefined;
    const sequence = this.#nextSequence();
    this.#relays.set(sequence, {
      origin: request.source ?? { ...from, node: '' },
      sequence: request.sequence,
      nackWanted: request.nackWanted,
      untilMs: nowMs + this.#parts.tuning.probeTimeoutMs,
    });
    const { node } = request;
    const ping: Ping = { kind: 'ping', sequence, node, source: this.#source };
    return [{ kind: 'send', to: request.target, node, messages: [ping] }];
  }

  /** When {@link expire} has something to do next; Infinity if nothing is pending. */
  nextDeadlineMs(): number {
    // Relays all wait equally long, so the first one in is the first one out.
    const [relay] = this.#relays.values();
    const relayMs = relay?.untilMs ?? Number.POSITIVE_INFINITY;
    if (this.#probe === undefined) return relayMs;
    const { phase, directUntilMs, untilMs } = this.#probe;
    return Math.min(relayMs, phase === 'direct' ? directUntilMs : untilMs);
  }

  #goIndirect(probe: Probe, nowMs: number): ProbeAction[] {
    probe.phase = 'indirect';
    const { tuning, table, self } = this.#parts;
    const { target, sequence } = probe;
    const helpers = table.pick(
      tuning.indirectChecks,
      ({ name, state }) => name !== self.name && name !== target.name && state === 'alive',
    );
    const actions = helpers.map((helper): ProbeAction => {
      const nackWanted = understands(helper, NACK_VERSION);
      if (nackWanted) probe.nacksExpected++;
      const request: IndirectPing = {
        ...{ kind: 'indirectPing', sequence, nackWanted, source: this.#source },
        ...{ node: target.name, target: { address: target.address, port: target.port } },
      };
      const to = { address: helper.address, port: helper.port };
      return { kind: 'send', to, node: helper.name, messages: [request] };
    });
    const timeoutMs = probe.untilMs - nowMs;
    if (probe.streamPing && timeoutMs > 0) {
      const ping: Ping = { kind: 'ping', sequence, node: target.name, source: this.#source };
      actions.push({ kind: 'streamPing', to: target, ping, timeoutMs });
    }
    return actions;
  }

  #fail(probe: Probe): ProbeAction {
    this.#probe = undefined;
    const missing = probe.nacksExpected - probe.nacks;
    // Without helpers that nack, any failure may be this node's own.
    this.#parts.awareness.apply(probe.nacksExpected > 0 ? missing : 1);
    return { kind: 'suspect', node: probe.target.name, incarnation: probe.target.incarnation };
  }

  #nextSequence(): number {
    this.#sequence = (this.#sequence + 1) >>> 0;
    return this.#sequence;
  }
}

function answer({ origin, sequence }: Relay, kind: 'ack' | 'nack'): ProbeAction {
  const { address, port, node } = origin;
  return { kind: 'send', to: { address, port }, node, messages: [{ kind, sequence }] };
}

function understands(member: Member, version: number): boolean {
  return (member.versions[1] ?? 0) >= version;
}
