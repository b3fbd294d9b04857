import { GATEWAY_MAC, type Ipv4, type Mac } from '../core/address.ts';
import { AddressWords } from '../core/address-words.ts';
import {
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  Packet,
  type ParseFault,
  PROTO_ICMP,
  parseFrame,
  writeMac,
} from '../core/packet.ts';
import type { Mesh } from '../routing-mesh/mesh.ts';
import { writeEchoReply, writeTcpReset } from '../routing-mesh/replies.ts';
import { TOO_BIG_FRAME_BYTES_MAX, writeTooBig } from '../routing-mesh/too-big.ts';
import { HOST_SCOPE, type MeshDrop, Verdict, VtepOrigin } from '../routing-mesh/verdict.ts';
import { ARP_FRAME_BYTES, answerArp, arpSender, arpTarget, isArpRequest } from '../vxlan/arp.ts';
import type { Endpoint, Network } from '../vxlan/fdb.ts';
import { dropIndex } from './counters.ts';
import type { Peer, Peers } from './peers.ts';
import type { Port } from './port.ts';

const ICMP_ECHO_REQUEST = 8;
/** The group bit of a MAC: multicast and broadcast. */
const GROUP_BIT = 0x0100_0000_0000;

const FAULT_DROPS: Readonly<Record<Exclude<ParseFault, 'none'>, number>> = {
  runt: dropIndex('runt'),
  'bad-ipv4': dropIndex('bad-ipv4'),
  'bad-ipv6': dropIndex('bad-ipv6'),
  'bad-l4': dropIndex('bad-l4'),
};
const MULTICAST = dropIndex('multicast');
const UNSUPPORTED_ETHERTYPE = dropIndex('unsupported-ethertype');
const ARP_MALFORMED = dropIndex('arp-malformed');
const ARP_UNKNOWN = dropIndex('arp-unknown');
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

/**
 * Where a frame goes:
 * - `port`: to {@link Decision.port}
 * - `vtep`: to {@link Decision.peer}, under {@link Decision.vni}
 * - `back`: the frame has become the answer to its sender (see {@link Decision.answer})
 * - `drop`: nowhere, for {@link Decision.drop}
 */
export type Action = 'port' | 'vtep' | 'back' | 'drop';

/** What the agent answers itself. */
export type Answer = 'arp' | 'echo' | 'reset' | 'too-big';

/** What to do with a frame. Reused: each decision overwrites the last one. */
export class Decision {
  action: Action = 'drop';
  port: Port | undefined = undefined;
  vni = 0;
  peer: Peer | undefined = undefined;
  /** Index for {@link Counters.drop}. */
  drop = 0;
  /** What the answer is, when the action is `back`. */
  answer: Answer = 'arp';
  /** Start and length of the answer: it may lie elsewhere than the frame that it answers. */
  answerStart = 0;
  answerBytes = 0;
}

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
  readonly #target = new AddressWords();
  /** An answer that the mesh is asked about, and where it seems to come from. */
  readonly #answer = new Packet();
  readonly #answerOrigin = new VtepOrigin();

  constructor(deps: SwitchDeps) {
    this.#deps = deps;
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
    const { packet } = this;
    const { view, mesh } = this.#deps;
    const fault = parseFrame(view, start, length, packet);
    if (fault !== 'none') return this.#drop(FAULT_DROPS[fault]);
    if (packet.etherType === ETHERTYPE_ARP) return this.#arpFromPort(port);
    if (isGroup(packet.destinationMac)) return this.#drop(MULTICAST);
    if (packet.etherType !== ETHERTYPE_IPV4) return this.#drop(UNSUPPORTED_ETHERTYPE);
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
    const { packet } = this;
    const { view, mesh } = this.#deps;
    const fault = parseFrame(view, start, length, packet);
    if (fault !== 'none') return this.#drop(FAULT_DROPS[fault]);
    if (packet.etherType === ETHERTYPE_ARP) return this.#arpFromVtep(network);
    if (isGroup(packet.destinationMac)) return this.#drop(MULTICAST);
    if (packet.etherType !== ETHERTYPE_IPV4) return this.#drop(UNSUPPORTED_ETHERTYPE);
    const verdict = this.#verdict;
    const { origin } = this;
    origin.scope = network.vni;
    origin.routed = packet.sourceMac === GATEWAY_MAC;
    mesh.fromVtep(packet, view, origin, needsChecksum, nowMs, verdict);
    if (verdict.kind !== 'pass') return this.#localOnly(this.#balanced(network.vni));
    if (packet.destinationMac === GATEWAY_MAC) return this.#drop(NO_FLOW);
    const endpoint = network.byMacAt(view, start);
    if (endpoint?.port === undefined) return this.#drop(NOT_LOCAL);
    return this.#toPort(endpoint.port);
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
    if (network === undefined || !port.errors.take(nowMs)) return this.#drop(TOO_BIG);
    // For IPv4 the gateway speaks; for IPv6 it is said on behalf of the far end.
    const { family, destinationStart } = this.packet;
    if (family === 6) this.#target.read(view, destinationStart, family);
    else this.#target.setIpv4(network.gateway | 0);
    const bytes = writeTooBig(view, scratch, this.packet, this.#target, mtuBytes);
    if (bytes === 0 || parseFrame(view, scratch, bytes, this.#answer) !== 'none') {
      return this.#drop(TOO_BIG);
    }
    this.#answerOrigin.scope = vni;
    mesh.fromVtep(this.#answer, view, this.#answerOrigin, false, nowMs, this.#verdict);
    writeMac(view, scratch, port.mac);
    return this.#back('too-big', scratch, bytes);
  }

  /** A packet that is for no VIP and belongs to no flow: plain switching by MAC. */
  #switchFromPort(port: Port): Decision {
    const { packet } = this;
    const network = this.networks.get(port.scope);
    if (network === undefined) return this.#drop(NO_ROUTE);
    if (packet.destinationMac !== GATEWAY_MAC) {
      const endpoint = network.byMacAt(this.#deps.view, packet.start);
      return endpoint === undefined
        ? this.#drop(UNKNOWN_DESTINATION)
        : this.#toEndpoint(network.vni, endpoint, false);
    }
    if (packet.destination === network.gateway) {
      const isEcho = packet.protocol === PROTO_ICMP && packet.icmpType === ICMP_ECHO_REQUEST;
      return isEcho && !packet.isFragment ? this.#echo() : this.#drop(NO_ROUTE);
    }
    const endpoint = network.byAddress(packet.destination | 0);
    if (endpoint === undefined) return this.#drop(NO_ROUTE);
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
        return this.#drop(MESH_DROPS[verdict.dropReason]);
    }
    if (verdict.outScope === HOST_SCOPE) {
      if (this.hostPort === undefined) return this.#drop(NO_ROUTE);
      writeMac(this.#deps.view, packet.start, this.hostPort.mac);
      this.#setGatewayAsSource();
      return this.#toPort(this.hostPort);
    }
    const network = this.networks.get(verdict.outScope);
    const endpoint = network?.byAddress(packet.destination | 0);
    if (endpoint === undefined) return this.#drop(NO_BACKEND);
    // Between scopes the packet is routed: the receiver learns from the MAC that its client is outside.
    return this.#toEndpoint(verdict.outScope, endpoint, scope !== verdict.outScope);
  }

  /** What came from the underlay never goes back to it. */
  #localOnly(decision: Decision): Decision {
    return decision.action === 'vtep' ? this.#drop(NOT_LOCAL) : decision;
  }

  #arpFromPort(port: Port): Decision {
    const { view } = this.#deps;
    const { start, length } = this.packet;
    if (!isArpRequest(view, start, length)) return this.#drop(ARP_MALFORMED);
    const target = arpTarget(view, start);
    // An address that its owner asks for is a probe for duplicates (RFC 5227): silence says "free".
    if (target === arpSender(view, start) || target === port.address)
      return this.#drop(ARP_UNKNOWN);
    const mac = this.#macFor(port.scope, target);
    return mac === undefined ? this.#drop(ARP_UNKNOWN) : this.#arpReply(mac);
  }

  #macFor(scope: number, target: Ipv4): Mac | undefined {
    if (scope === HOST_SCOPE || this.#isVip(scope, target)) return GATEWAY_MAC;
    const network = this.networks.get(scope);
    if (network?.gateway === target) return GATEWAY_MAC;
    return network?.byAddress(target)?.mac;
  }

  #isVip(scope: number, target: Ipv4): boolean {
    this.#target.setIpv4(target | 0);
    return this.#deps.mesh.isVip(scope, this.#target);
  }

  /** A kernel VTEP asks by unicast or by its default destination: answered for our own endpoints. */
  #arpFromVtep(network: Network<Port, Peer>): Decision {
    const { view } = this.#deps;
    const { start, length } = this.packet;
    if (!isArpRequest(view, start, length)) return this.#drop(ARP_MALFORMED);
    const endpoint = network.byAddress(arpTarget(view, start));
    return endpoint?.port === undefined ? this.#drop(ARP_UNKNOWN) : this.#arpReply(endpoint.mac);
  }

  #arpReply(mac: Mac): Decision {
    answerArp(this.#deps.view, this.packet.start, mac);
    return this.#back('arp', this.packet.start, ARP_FRAME_BYTES);
  }

  #echo(): Decision {
    writeEchoReply(this.#deps.view, this.packet);
    return this.#back('echo', this.packet.start, this.packet.length);
  }

  #reset(): Decision {
    const { view, scratch } = this.#deps;
    const bytes = writeTcpReset(view, scratch, this.packet);
    return bytes === 0 ? this.#drop(NO_BACKEND) : this.#back('reset', scratch, bytes);
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
    if (endpoint.port !== undefined) return this.#toPort(endpoint.port);
    decision.action = 'vtep';
    decision.vni = vni;
    decision.peer = endpoint.peer;
    return decision;
  }

  /** Sends a reply back to the node that its client talks to, as a packet from gateway to gateway. */
  #viaVtep(vni: number): Decision {
    const { packet, decision } = this;
    const peer = this.#deps.peers.find(this.#verdict.vtep);
    if (peer === undefined) return this.#drop(UNKNOWN_VTEP);
    writeMac(this.#deps.view, packet.start, GATEWAY_MAC);
    this.#setGatewayAsSource();
    decision.action = 'vtep';
    decision.vni = vni;
    decision.peer = peer;
    return decision;
  }

  #setGatewayAsSource(): void {
    const { packet } = this;
    if (packet.sourceMac !== GATEWAY_MAC) {
      writeMac(this.#deps.view, packet.start + 6, GATEWAY_MAC);
    }
  }

  #toPort(port: Port): Decision {
    this.decision.action = 'port';
    this.decision.port = port;
    return this.decision;
  }

  #back(answer: Answer, start: number, bytes: number): Decision {
    this.decision.action = 'back';
    this.decision.answer = answer;
    this.decision.answerStart = start;
    this.decision.answerBytes = bytes;
    return this.decision;
  }

  #drop(reason: number): Decision {
    this.decision.action = 'drop';
    this.decision.drop = reason;
    return this.decision;
  }
}

function isGroup(mac: Mac): boolean {
  return Math.floor(mac / GROUP_BIT) % 2 === 1;
}
