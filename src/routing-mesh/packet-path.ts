import {
  ETHERTYPE_IPV4,
  Packet,
  PROTO_ICMP,
  PROTO_TCP,
  PROTO_UDP,
  TCP_RST,
} from '../core/packet.ts';
import { Balancer, OPEN_NO_BACKEND } from './balancer.ts';
import {
  ACTION_FORWARD,
  ACTION_RETURN,
  type FlowEntries,
  FlowKey,
  NO_SLOT,
  packOwner,
  packPorts,
} from './flow-entry.ts';
import type { FlowTable } from './flow-table.ts';
import { FragmentTable } from './fragment-table.ts';
import { isIcmpError, QuotedPacket, readQuotedPacket, rewriteIcmpError } from './icmp-error.ts';
import { Rewrite, rewritePacket } from './nat.ts';
import { ReturnFlows } from './return-flows.ts';
import type { Service, ServiceTable } from './services.ts';
import {
  FLOW_CLOSING,
  FLOW_STALE_TICKS,
  FLOW_SYN_SENT,
  MARK_GONE,
  opensConnection,
} from './tcp-tracking.ts';
import { ticksBetween, toTicks } from './ticks.ts';
import { type MeshDrop, Verdict, type VtepOrigin } from './verdict.ts';

/**
 * A SYN that comes again so long after its backend was picked is a retransmission (the first one is due
 * after 1 s: RFC 6298 section 2) and not a duplicate made by the network.
 */
const SYN_RETRY_TICKS: number = toTicks(500);
const ICMP_ECHO_REQUEST = 8;
/** "The flow keeps its backend", where else there is an attempt. */
const KEEP_BACKEND = -1;

/**
 * The path of a packet through the tables. Works on one packet at a time and holds it in fields, so that
 * its steps need not hand six values on; between packets only the tables matter.
 */
export class PacketPath {
  readonly #services: ServiceTable;
  readonly #flows: FlowTable;
  readonly #fragments: FragmentTable;
  readonly #balancer: Balancer;
  readonly #returns: ReturnFlows;
  readonly #key = new FlowKey();
  readonly #rewrite = new Rewrite();
  readonly #quoted = new QuotedPacket();
  #packet: Packet = new Packet();
  #view: DataView = new DataView(new ArrayBuffer(0));
  #scope = 0;
  #partialChecksum = false;
  /** Whether a packet may go to another node: not if it has just come from one. */
  #mayLeave = false;
  #verdict: Verdict = new Verdict();

  /** @param hashKey - As for the flow table. */
  constructor(services: ServiceTable, flows: FlowTable, hashKey: Uint8Array) {
    this.#services = services;
    this.#flows = flows;
    this.#fragments = new FragmentTable(hashKey);
    this.#balancer = new Balancer(flows);
    this.#returns = new ReturnFlows(flows);
  }

  /** See `Mesh.fromLocal`. */
  fromLocal(
    packet: Packet,
    view: DataView,
    scope: number,
    partialChecksum: boolean,
    nowMs: number,
    verdict: Verdict,
  ): void {
    this.#begin(packet, view, partialChecksum, nowMs, verdict);
    this.#scope = scope;
    this.#mayLeave = true;
    if (packet.etherType !== ETHERTYPE_IPV4) return;
    const source = packet.source | 0;
    const destination = packet.destination | 0;
    const isFollowed = this.#follow();
    if (!isFollowed) {
      const service = this.#services.find(scope, destination);
      if (service === undefined) return;
      this.#meetService(service);
    }
    if (packet.isFragment) this.#rememberFragment(source, destination);
  }

  /** See `Mesh.fromVtep`. */
  fromVtep(
    packet: Packet,
    view: DataView,
    origin: VtepOrigin,
    partialChecksum: boolean,
    nowMs: number,
    verdict: Verdict,
  ): void {
    this.#begin(packet, view, partialChecksum, nowMs, verdict);
    this.#scope = origin.scope;
    this.#mayLeave = false;
    if (packet.etherType !== ETHERTYPE_IPV4) return;
    const source = packet.source | 0;
    const destination = packet.destination | 0;
    const isFollowed = this.#follow();
    if (!isFollowed && origin.routed && !packet.isLaterFragment) {
      this.#returns.record(packet, origin);
    }
    if (packet.isFragment) this.#rememberFragment(source, destination);
  }

  #begin(
    packet: Packet,
    view: DataView,
    partialChecksum: boolean,
    nowMs: number,
    verdict: Verdict,
  ): void {
    this.#packet = packet;
    this.#view = view;
    this.#partialChecksum = partialChecksum;
    this.#flows.now = toTicks(nowMs);
    this.#verdict = verdict;
    verdict.kind = 'pass';
    verdict.dropReason = 'none';
    verdict.outScope = 0;
    verdict.vtep = 0;
    verdict.vtepPort = 0;
    verdict.changed = false;
  }

  /** Does to the packet what a table says; false if none knows it. */
  #follow(): boolean {
    if (this.#packet.isLaterFragment) return this.#followFragment();
    if (isIcmpError(this.#packet)) return this.#followIcmpError();
    const { protocol, source, destination, sourcePort, destinationPort } = this.#packet;
    const ports = packPorts(sourcePort, destinationPort);
    this.#key.set(packOwner(this.#scope, protocol), source | 0, destination | 0, ports);
    const slot = this.#flows.find(this.#key);
    if (slot === NO_SLOT) return false;
    const { entries } = this.#flows;
    if (entries.action(slot) === ACTION_FORWARD) {
      this.#followForward(slot);
    } else {
      if (this.#mayLeave || entries.action(slot) !== ACTION_RETURN) {
        this.#flows.observe(slot, this.#packet, false);
      }
      this.#carryOut(entries, slot);
    }
    return true;
  }

  #followForward(slot: number): void {
    const { entries } = this.#flows;
    const attempt = this.#attemptOf(slot);
    const isGone = ((entries.status(slot) >>> 8) & MARK_GONE) !== 0;
    const destination = this.#packet.destination | 0;
    const service =
      attempt === KEEP_BACKEND ? undefined : this.#services.find(this.#scope, destination);
    if (service !== undefined) {
      this.#flows.remove(slot);
      this.#openFlow(service, attempt);
    } else if (isGone) {
      this.#flows.remove(slot);
      this.#refuse('backend-gone');
    } else {
      this.#flows.observe(slot, this.#packet, true);
      this.#carryOut(entries, slot);
    }
  }

  /** Which attempt to find a backend this packet of the forward flow `slot` starts, or KEEP_BACKEND. */
  #attemptOf(slot: number): number {
    const { entries } = this.#flows;
    const status = entries.status(slot);
    const isGone = ((status >>> 8) & MARK_GONE) !== 0;
    if (this.#packet.protocol !== PROTO_TCP) return isGone ? 0 : KEEP_BACKEND;
    if (!opensConnection(this.#packet.tcpFlags)) return KEEP_BACKEND;
    const state = status & 0xff;
    if (isGone || state === FLOW_CLOSING || this.#flows.idleTicks(slot) >= FLOW_STALE_TICKS)
      return 0;
    if (state !== FLOW_SYN_SENT) return KEEP_BACKEND;
    const waited = ticksBetween(entries.made(slot), this.#flows.now);
    return waited >= SYN_RETRY_TICKS ? (entries.attempt(slot) + 1) & 0xff : KEEP_BACKEND;
  }

  /** Decides about a packet to a VIP that no table knows. */
  #meetService(service: Service): void {
    const { protocol, icmpType, isLaterFragment } = this.#packet;
    if (protocol === PROTO_ICMP) {
      // A fragmented ping is answered fragment by fragment.
      if (isLaterFragment || icmpType === ICMP_ECHO_REQUEST) this.#verdict.kind = 'echo';
      else this.#drop(isIcmpError(this.#packet) ? 'no-flow' : 'unsupported-protocol');
    } else if (protocol !== PROTO_TCP && protocol !== PROTO_UDP) {
      this.#drop('unsupported-protocol');
    } else if (isLaterFragment) {
      this.#drop('fragment-without-first');
    } else {
      this.#openFlow(service, 0);
    }
  }

  #openFlow(service: Service, attempt: number): void {
    const slot = this.#balancer.open(this.#packet, this.#scope, service, attempt);
    if (slot >= 0) this.#carryOut(this.#flows.entries, slot);
    else this.#refuse(slot === OPEN_NO_BACKEND ? 'no-backend' : 'no-port');
  }

  #followFragment(): boolean {
    const slot = this.#fragments.find(this.#packet, this.#scope, this.#flows.now);
    if (slot === NO_SLOT) return false;
    this.#carryOut(this.#fragments.entries, slot);
    return true;
  }

  /** An ICMP error belongs to the flow of the packet that it quotes, which went the other way. */
  #followIcmpError(): boolean {
    const quoted = this.#quoted;
    if (!readQuotedPacket(this.#view, this.#packet, quoted)) return false;
    const { protocol, source, destination, sourcePort, destinationPort } = quoted;
    const ports = packPorts(destinationPort, sourcePort);
    this.#key.set(packOwner(this.#scope, protocol), destination, source, ports);
    const slot = this.#flows.find(this.#key);
    if (slot === NO_SLOT) return false;
    const { entries } = this.#flows;
    if (entries.action(slot) === ACTION_RETURN) {
      this.#carryOut(entries, slot);
      return true;
    }
    entries.readRewrite(slot, this.#rewrite);
    rewriteIcmpError(this.#view, this.#packet, quoted, this.#rewrite);
    this.#setForward(entries.outScope(slot));
    return true;
  }

  /** Rewrites the packet as an entry says, or sends it back where the entry says. */
  #carryOut(entries: FlowEntries, slot: number): void {
    if (entries.action(slot) !== ACTION_RETURN) {
      entries.readRewrite(slot, this.#rewrite);
      rewritePacket(this.#view, this.#packet, this.#rewrite, this.#partialChecksum);
      this.#setForward(entries.outScope(slot));
    } else if (this.#mayLeave) {
      this.#verdict.kind = 'viaVtep';
      this.#verdict.outScope = this.#scope;
      this.#verdict.vtep = entries.vtep(slot) >>> 0;
      this.#verdict.vtepPort = entries.vtepPort(slot);
    }
  }

  /** If the packet is a first fragment: keeps its verdict for the later ones. */
  #rememberFragment(source: number, destination: number): void {
    if (this.#packet.isLaterFragment) return;
    const { now } = this.#flows;
    this.#fragments.remember(this.#packet, this.#scope, source, destination, this.#verdict, now);
  }

  #setForward(outScope: number): void {
    this.#verdict.kind = 'forward';
    this.#verdict.outScope = outScope;
    this.#verdict.changed = true;
  }

  /** Drops the packet and tells its sender where TCP can: a reset is never answered with a reset. */
  #refuse(reason: MeshDrop): void {
    const { protocol, tcpFlags } = this.#packet;
    this.#drop(reason);
    if (protocol === PROTO_TCP && (tcpFlags & TCP_RST) === 0) this.#verdict.kind = 'reset';
  }

  #drop(reason: MeshDrop): void {
    this.#verdict.kind = 'drop';
    this.#verdict.dropReason = reason;
  }
}
