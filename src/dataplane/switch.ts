import { GATEWAY_MAC } from '../core/address.ts';
import { AddressWords } from '../core/address-words.ts';
import {
  ETHERTYPE_ARP,
  isEchoRequest,
  Packet,
  type ParseFault,
  parseFrame,
  writeMac,
} from '../core/packet.ts';
import type { Mesh } from '../routing-mesh/mesh.ts';
import { writeEchoReply, writeTcpReset } from '../routing-mesh/replies.ts';
import { TOO_BIG_FRAME_BYTES_MAX, writeTooBig } from '../routing-mesh/too-big.ts';
import { HOST_SCOPE, type MeshDrop, Verdict, VtepOrigin } from '../routing-mesh/verdict.ts';
import type { Endpoint, Network } from '../vxlan/fdb.ts';
import { isNeighborDiscovery } from '../vxlan/nd.ts';
import { dropIndex } from './counters.ts';
import { Decision } from './decision.ts';
import { Neighbors } from './neighbors.ts';
import type { Peer, Peers } from './peers.ts';
import type { Port } from './port.ts';

/** In the first octet of a MAC: broadcast and multicast have it (IEEE 802-2014 section 8.2.2). */
const GROUP_BIT = 1;

const FAULT_DROPS: Readonly<Record<Exclude<ParseFault, 'none'>, number>> = {
  runt: dropIndex('runt'),
  'bad-ipv4': dropIndex('bad-ipv4'),
  'bad-ipv6': dropIndex('bad-ipv6'),
  'bad-l4': dropIndex('bad-l4'),
};
const MULTICAST = dropIndex('multicast');
const UNSUPPORTED_ETHERTYPE = dropIndex('unsupported-ethertype');
const SPOOFED = dropIndex('spoofed');
const SPOOFED_VTEP = dropIndex('spoofed-vtep');
const UNKNOWN_DESTINATION = dropIndex('unknown-destination');
const NO_ROUTE = dropIndex('no-route');
const NO_BACKEND = dropIndex('no-backend');
const NO_FLOW = dropIndex('no-flow');
const NOT_LOCAL = dropIndex('not-local');
const UNKNOWN_VTEP = dropIndex('unknown-vtep');
const TOO_BIG = dropIndex('too-big');
const MESH_DROPS: Readonly<Record<MeshDrop, number>> = {
  none: NO_BACKEND,
  'no-backend': NO_BACKEND,
  'backend-gone': dropIndex('backend-gone'),
  'fragment-without-first': dropIndex('fragment-without-first'),
  'unsupported-protocol': dropIndex('unsupported-protocol'),
  'no-flow': NO_FLOW,
  'no-port': dropIndex('no-port'),
};

/** The largest frame that {@link Switch} makes of its own. */
export const ANSWER_BYTES_MAX: number = TOO_BIG_FRAME_BYTES_MAX;

/** Capabilities and tables that the switch decides by. */
export interface SwitchDeps {
  readonly view: DataView;
  readonly mesh: Mesh;
  readonly peers: Peers;
  /** Room for a frame that is made here, ANSWER_BYTES_MAX long. 16 bytes in front of it must be free. */
  readonly scratch: number;
}

/**
 * The one place that decides where a frame goes: switch, router and load balancer. It rewrites headers
 * in the arena and sends nothing.
 */
export class Switch {
  /** Networks by VNI. BOUNDED by what the manager assigns. */
  readonly networks: Map<number, Network<Port, Peer>> = new Map();
  /** The host's own port, `weft0`. */
  hostPort: Port | undefined = undefined;
  /** The frame under decision, as parsed; rewritten by NAT. */
  readonly packet: Packet = new Packet();
  readonly decision: Decision = new Decision();
  /** The sender of what {@link Switch.fromVtep} decides about. */
  readonly origin: VtepOrigin = new VtepOrigin();
  readonly #deps: SwitchDeps;
  readonly #verdict = new Verdict();
  readonly #neighbors: Neighbors;
  readonly #address = new AddressWords();
  /** An answer that the mesh is asked about, and where it seems to come from. */
  readonly #answer = new Packet();
  readonly #answerOrigin = new VtepOrigin();

  constructor(deps: SwitchDeps) {
    this.#deps = deps;
    this.#neighbors = new Neighbors({ ...deps, networks: this.networks });
  }

  /**
   * Decides about a frame that a task or the host sent through `port`.
   *
   * @param needsChecksum - Its transport checksum is partial (a TAP left it to us).
   * @param nowMs - Wall-clock milliseconds: flows outlive a restart.
   */
  fromPort(
    port: Port,
    start: number,
    length: number,
    needsChecksum: boolean,
    nowMs: number,
  ): Decision {
    const { packet, decision } = this;
    const { view, mesh } = this.#deps;
    const fault = parseFrame(view, start, length, packet);
    if (fault !== 'none') return decision.toNowhere(FAULT_DROPS[fault]);
    if (packet.sourceMac !== port.mac) return decision.toNowhere(SPOOFED);
    if (packet.etherType === ETHERTYPE_ARP) {
      return this.#neighbors.arpFromPort(port, packet, nowMs, decision);
    }
    if (isNeighborDiscovery(packet)) {
      return this.#neighbors.ndFromPort(port, packet, nowMs, decision);
    }
    if (isToGroup(view, packet)) return decision.toNowhere(MULTICAST);
    if (packet.family === 0) return decision.toNowhere(UNSUPPORTED_ETHERTYPE);
    if (port.scope !== HOST_SCOPE && !this.#isOwnSource(port)) return decision.toNowhere(SPOOFED);
    const verdict = this.#verdict;
    mesh.fromLocal(packet, view, port.scope, needsChecksum, nowMs, verdict);
    if (verdict.kind === 'pass') return this.#switchFromPort(port);
    if (verdict.kind === 'viaVtep') return this.#viaVtep(port.scope);
    return this.#balanced(port.scope);
  }

  /** Decides about a frame that came from the VTEP of {@link Switch.origin} under `network`'s VNI. */
  fromVtep(
    network: Network<Port, Peer>,
    start: number,
    length: number,
    needsChecksum: boolean,
    nowMs: number,
  ): Decision {
    const { packet, decision, origin } = this;
    const { view, mesh } = this.#deps;
    const fault = parseFrame(view, start, length, packet);
    if (fault !== 'none') return decision.toNowhere(FAULT_DROPS[fault]);
    origin.scope = network.vni;
    origin.routed = packet.sourceMac === GATEWAY_MAC;
    if (!origin.routed && !this.#isBehindOrigin(network)) return decision.toNowhere(SPOOFED_VTEP);
    if (packet.etherType === ETHERTYPE_ARP) {
      return this.#neighbors.arpFromVtep(network, packet, decision);
    }
    if (isNeighborDiscovery(packet)) {
      return this.#neighbors.ndFromVtep(network, packet, decision);
    }
    if (isToGroup(view, packet)) return decision.toNowhere(MULTICAST);
    if (packet.family === 0) return decision.toNowhere(UNSUPPORTED_ETHERTYPE);
    const verdict = this.#verdict;
    mesh.fromVtep(packet, view, origin, needsChecksum, nowMs, verdict);
    if (verdict.kind !== 'pass') return this.#localOnly(this.#balanced(network.vni));
    if (packet.destinationMac === GATEWAY_MAC) return decision.toNowhere(NO_FLOW);
    const endpoint = network.byMacAt(view, start);
    if (endpoint?.port === undefined) return decision.toNowhere(NOT_LOCAL);
    return decision.toPort(endpoint.port);
  }

  /** Whether a task sends by its own address, and not by another one's. */
  #isOwnSource(port: Port): boolean {
    const { sourceStart, family } = this.packet;
    this.#address.read(this.#deps.view, sourceStart, family);
    return port.has(this.#address);
  }

  /**
   * Whether the frame's sender may be behind the VTEP that it came from. A MAC that no node has announced may
   * be anywhere: a kernel VTEP's own ones are.
   */
  #isBehindOrigin(network: Network<Port, Peer>): boolean {
    const sender = network.byMacAt(this.#deps.view, this.packet.start + 6);
    if (sender === undefined) return true;
    return sender.peer?.words.equals(this.origin.vtep) === true;
  }

  /**
   * Tells the sender of {@link Switch.packet}, for which the last decision was `vtep`, that it is too big
   * for the way. Where the mesh has rewritten the packet, it translates the answer back.
   *
   * @param port - Where the packet came from.
   * @param mtuBytes - The largest IP packet that passes.
   */
  tooBig(port: Port, mtuBytes: number, nowMs: number): Decision {
    const { view, mesh, scratch } = this.#deps;
    const { vni } = this.decision;
    const network = this.networks.get(vni);
    const gateway = network?.gatewayOf(this.packet.family === 6 ? 6 : 4);
    if (gateway === undefined || !port.errors.take(nowMs)) return this.decision.toNowhere(TOO_BIG);
    const bytes = writeTooBig(view, scratch, this.packet, gateway, mtuBytes);
    if (bytes === 0 || parseFrame(view, scratch, bytes, this.#answer) !== 'none') {
      return this.decision.toNowhere(TOO_BIG);
    }
    this.#answerOrigin.scope = vni;
    mesh.fromVtep(this.#answer, view, this.#answerOrigin, false, nowMs, this.#verdict);
    writeMac(view, scratch, port.mac);
    return this.decision.toSender('too-big', scratch, bytes);
  }

  /** A packet that is for no VIP and belongs to no flow: plain switching by MAC. */
  #switchFromPort(port: Port): Decision {
    const { packet } = this;
    const network = this.networks.get(port.scope);
    if (network === undefined) return this.decision.toNowhere(NO_ROUTE);
    if (packet.destinationMac !== GATEWAY_MAC) {
      const endpoint = network.byMacAt(this.#deps.view, packet.start);
      return endpoint === undefined
        ? this.decision.toNowhere(UNKNOWN_DESTINATION)
        : this.#toEndpoint(network.vni, endpoint, false);
    }
    this.#address.read(this.#deps.view, packet.destinationStart, packet.family);
    if (network.isGateway(this.#address)) {
      const isPing = isEchoRequest(packet) && !packet.isFragment;
      return isPing ? this.#echo() : this.decision.toNowhere(NO_ROUTE);
    }
    const endpoint = network.find(this.#address);
    if (endpoint === undefined) return this.decision.toNowhere(NO_ROUTE);
    return this.#toEndpoint(network.vni, endpoint, true);
  }

  /** Carries out a verdict other than `pass` and `viaVtep`. `scope` is where the packet came from. */
  #balanced(scope: number): Decision {
    const { packet } = this;
    const verdict = this.#verdict;
    switch (verdict.kind) {
      case 'echo':
        return this.#echo();
      case 'reset':
        return this.#reset();
      case 'forward':
        break;
      default:
        return this.decision.toNowhere(MESH_DROPS[verdict.dropReason]);
    }
    if (verdict.outScope === HOST_SCOPE) {
      if (this.hostPort === undefined) return this.decision.toNowhere(NO_ROUTE);
      writeMac(this.#deps.view, packet.start, this.hostPort.mac);
      this.#setGatewayAsSource();
      return this.decision.toPort(this.hostPort);
    }
    const network = this.networks.get(verdict.outScope);
    this.#address.read(this.#deps.view, packet.destinationStart, packet.family);
    const endpoint = network?.find(this.#address);
    if (endpoint === undefined) return this.decision.toNowhere(NO_BACKEND);
    // Between scopes the packet is routed: the receiver learns from the MAC that its client is outside.
    return this.#toEndpoint(verdict.outScope, endpoint, scope !== verdict.outScope);
  }

  /** What came from the underlay never goes back to it. */
  #localOnly(decision: Decision): Decision {
    return decision.action === 'vtep' ? decision.toNowhere(NOT_LOCAL) : decision;
  }

  #echo(): Decision {
    writeEchoReply(this.#deps.view, this.packet);
    return this.decision.toSender('echo', this.packet.start, this.packet.length);
  }

  #reset(): Decision {
    const { view, scratch } = this.#deps;
    const bytes = writeTcpReset(view, scratch, this.packet);
    if (bytes === 0) return this.decision.toNowhere(NO_BACKEND);
    return this.decision.toSender('reset', scratch, bytes);
  }

  /**
   * Hands the packet to `endpoint`. MACs are not passed from method to method: as arguments, numbers of
   * 48 bits would be allocated.
   *
   * @param routed - Whether the gateway becomes the sender; otherwise who sent it stays so.
   */
  #toEndpoint(vni: number, endpoint: Endpoint<Port, Peer>, routed: boolean): Decision {
    const { packet, decision } = this;
    if (packet.destinationMac !== endpoint.mac) {
      writeMac(this.#deps.view, packet.start, endpoint.mac);
    }
    if (routed) this.#setGatewayAsSource();
    if (endpoint.port !== undefined) return this.decision.toPort(endpoint.port);
    return decision.toPeer(vni, endpoint.peer);
  }

  /** Sends a reply back to the node that its client talks to, as a packet from gateway to gateway. */
  #viaVtep(vni: number): Decision {
    const { packet, decision } = this;
    const peer = this.#deps.peers.find(this.#verdict.vtep);
    if (peer === undefined) return this.decision.toNowhere(UNKNOWN_VTEP);
    writeMac(this.#deps.view, packet.start, GATEWAY_MAC);
    this.#setGatewayAsSource();
    return decision.toPeer(vni, peer);
  }

  #setGatewayAsSource(): void {
    const { packet } = this;
    if (packet.sourceMac !== GATEWAY_MAC) {
      writeMac(this.#deps.view, packet.start + 6, GATEWAY_MAC);
    }
  }
}

/** Whether the frame is for several: read from its first octet, as a MAC of 48 bits is boxed when passed. */
function isToGroup(view: DataView, { start }: Packet): boolean {
  return (view.getUint8(start) & GROUP_BIT) !== 0;
}
