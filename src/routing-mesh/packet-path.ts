import { isEchoRequest, Packet, PROTO_TCP, PROTO_UDP, TCP_RST } from '../core/packet.ts';
import { Balancer, OPEN_NO_BACKEND } from './balancer.ts';
import { ACTION_FORWARD, ACTION_RETURN, Flow, NO_SLOT } from './flow-entry.ts';
import { FlowKey, packOwner, packPorts } from './flow-key.ts';
import type { FlowTable } from './flow-table.ts';
import type { FragmentTable } from './fragment-table.ts';
import { isIcmpError, QuotedPacket, readQuotedPacket, rewriteIcmpError } from './icmp-error.ts';
import { rewritePacket } from './nat.ts';
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
  /** The key of the packet as it came. */
  readonly #key = new FlowKey();
  /** What a table says about it. */
  readonly #flow = new Flow();
  readonly #quoted = new QuotedPacket();
  readonly #quotedKey = new FlowKey();
  #packet: Packet = new Packet();
  #view: DataView = new DataView(new ArrayBuffer(0));
  #scope = 0;
  #partialChecksum = false;
  /** Whether a packet may go to another node: not if it has just come from one. */
  #mayLeave = false;
  #verdict: Verdict = new Verdict();

  constructor(services: ServiceTable, flows: FlowTable, fragments: FragmentTable) {
    this.#services = services;
    this.#flows = flows;
    this.#fragments = fragments;
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
    if (packet.family === 0) return;
    this.#mayLeave = true;
    this.#setKey(scope);
    const isFollowed = this.#follow();
    if (!isFollowed) {
      const service = this.#services.find(scope, this.#key.destination);
      if (service === undefined) return;
      this.#meetService(service);
    }
    if (packet.isFragment) this.#rememberFragment();
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
    if (packet.family === 0) return;
    this.#mayLeave = false;
    this.#setKey(origin.scope);
    const isFollowed = this.#follow();
    if (!isFollowed && origin.routed && !packet.isLaterFragment) {
      this.#returns.record(packet, this.#key, origin);
    }
    if (packet.isFragment) this.#rememberFragment();
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
    verdict.vtep.set(0, 0, 0, 0);
    verdict.vtepPort = 0;
    verdict.changed = false;
  }

  #setKey(scope: number): void {
    const { family, protocol, sourceStart, destinationStart, sourcePort, destinationPort } =
      this.#packet;
    const key = this.#key;
    this.#scope = scope;
    key.owner = packOwner(scope, protocol);
    key.source.read(this.#view, sourceStart, family);
    key.destination.read(this.#view, destinationStart, family);
    key.ports = packPorts(sourcePort, destinationPort);
  }

  /** Does to the packet what a table says; false if none knows it. */
  #follow(): boolean {
    if (this.#packet.isLaterFragment) return this.#followFragment();
    if (isIcmpError(this.#packet)) return this.#followIcmpError();
    const flow = this.#flow;
    if (!this.#flows.read(this.#key, flow)) return false;
    if (flow.action === ACTION_FORWARD) {
      this.#followForward();
    } else {
      if (this.#mayLeave || flow.action !== ACTION_RETURN) {
        this.#flows.observe(this.#key, flow, this.#packet, false);
      }
      this.#carryOut();
    }
    return true;
  }

  #followForward(): void {
    const flow = this.#flow;
    const attempt = this.#nextAttempt();
    const isGone = ((flow.status >>> 8) & MARK_GONE) !== 0;
    const service =
      attempt === KEEP_BACKEND
        ? undefined
        : this.#services.find(this.#scope, this.#key.destination);
    if (service !== undefined) {
      this.#openFlow(service, attempt);
    } else if (isGone) {
      this.#flows.lock();
      const slot = this.#flows.find(this.#key);
      if (slot !== NO_SLOT) this.#flows.remove(slot);
      this.#flows.unlock();
      this.#refuse('backend-gone');
    } else {
      this.#flows.observe(this.#key, flow, this.#packet, true);
      this.#carryOut();
    }
  }

  /** Which attempt to find a backend this packet of a forward flow starts, or KEEP_BACKEND. */
  #nextAttempt(): number {
    const { status, slot, made, attempt } = this.#flow;
    const isGone = ((status >>> 8) & MARK_GONE) !== 0;
    if (this.#packet.protocol !== PROTO_TCP) return isGone ? 0 : KEEP_BACKEND;
    if (!opensConnection(this.#packet.tcpFlags)) return KEEP_BACKEND;
    const state = status & 0xff;
    if (isGone || state === FLOW_CLOSING || this.#flows.idleTicks(slot) >= FLOW_STALE_TICKS)
      return 0;
    if (state !== FLOW_SYN_SENT) return KEEP_BACKEND;
    const waited = ticksBetween(made, this.#flows.now);
    return waited >= SYN_RETRY_TICKS ? (attempt + 1) & 0xff : KEEP_BACKEND;
  }

  /** Decides about a packet to a VIP that no table knows. */
  #meetService(service: Service): void {
    const { protocol, isIcmp, isLaterFragment } = this.#packet;
    if (isIcmp) {
      // A fragmented ping is answered fragment by fragment.
      if (isLaterFragment || isEchoRequest(this.#packet)) this.#verdict.kind = 'echo';
      else this.#drop(isIcmpError(this.#packet) ? 'no-flow' : 'unsupported-protocol');
    } else if (protocol !== PROTO_TCP && protocol !== PROTO_UDP) {
      this.#drop('unsupported-protocol');
    } else if (isLaterFragment) {
      this.#drop('fragment-without-first');
    } else {
      this.#openFlow(service, 0);
    }
  }

  /** Gives the packet a backend, in place of the one that its flow has. */
  #openFlow(service: Service, attempt: number): void {
    const flows = this.#flows;
    flows.lock();
    const known = flows.find(this.#key);
    if (known !== NO_SLOT) flows.remove(known);
    const slot = this.#balancer.open(this.#key, this.#packet.tcpFlags, service, attempt);
    if (slot >= 0) flows.entries.read(slot, this.#flow);
    flows.unlock();
    if (slot >= 0) this.#carryOut();
    else this.#refuse(slot === OPEN_NO_BACKEND ? 'no-backend' : 'no-port');
  }

  #followFragment(): boolean {
    const { now } = this.#flows;
    if (!this.#fragments.read(this.#packet, this.#key, now, this.#flow)) return false;
    this.#carryOut();
    return true;
  }

  /** An ICMP error belongs to the flow of the packet that it quotes, which went the other way. */
  #followIcmpError(): boolean {
    const quoted = this.#quoted;
    if (!readQuotedPacket(this.#view, this.#packet, quoted)) return false;
    const { protocol, source, destination, sourcePort, destinationPort } = quoted;
    const ports = packPorts(destinationPort, sourcePort);
    this.#quotedKey.set(packOwner(this.#scope, protocol), destination, source, ports);
    const flow = this.#flow;
    if (!this.#flows.read(this.#quotedKey, flow)) return false;
    if (flow.action === ACTION_RETURN) {
      this.#carryOut();
      return true;
    }
    rewriteIcmpError(this.#view, this.#packet, quoted, flow.rewrite);
    this.#setForward(flow.outScope);
    return true;
  }

  /** Rewrites the packet as its flow says, or sends it back where the flow says. */
  #carryOut(): void {
    const flow = this.#flow;
    if (flow.action !== ACTION_RETURN) {
      rewritePacket(this.#view, this.#packet, flow.rewrite, this.#partialChecksum);
      this.#setForward(flow.outScope);
    } else if (this.#mayLeave) {
      this.#verdict.kind = 'viaVtep';
      this.#verdict.outScope = this.#scope;
      this.#verdict.vtep.copy(flow.vtep);
      this.#verdict.vtepPort = flow.vtepPort;
    }
  }

  /** If the packet is a first fragment: keeps its verdict for the later ones. */
  #rememberFragment(): void {
    if (this.#packet.isLaterFragment) return;
    const { rewrite } = this.#flow;
    this.#fragments.remember(this.#packet, this.#key, rewrite, this.#verdict, this.#flows.now);
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
