import { GATEWAY_MAC, type MacWords, macWords } from '../core/address.ts';
import { AddressWords } from '../core/address-words.ts';
import { type Packet, readMac } from '../core/packet.ts';
import type { Mesh } from '../routing-mesh/mesh.ts';
import { HOST_SCOPE } from '../routing-mesh/verdict.ts';
import {
  ARP_FRAME_BYTES,
  answerArp,
  arpSenderAt,
  arpTargetAt,
  isArpRequest,
} from '../vxlan/arp.ts';
import type { Network } from '../vxlan/fdb.ts';
import {
  isAddressProbe,
  isNeighborSolicitation,
  NEIGHBOR_ADVERTISEMENT_FRAME_BYTES,
  readSolicitedTarget,
  writeNeighborAdvertisement,
} from '../vxlan/nd.ts';
import { dropIndex } from './counters.ts';
import type { Decision } from './decision.ts';
import type { Peer } from './peers.ts';
import type { Port } from './port.ts';

const ARP_MALFORMED = dropIndex('arp-malformed');
const ARP_UNKNOWN = dropIndex('arp-unknown');
const ND_MALFORMED = dropIndex('nd-malformed');
const ND_UNKNOWN = dropIndex('nd-unknown');
const SPOOFED = dropIndex('spoofed');
const LIMITED = dropIndex('neighbor-limited');

const GATEWAY: MacWords = macWords(GATEWAY_MAC);

/** What {@link Neighbors} answers from. */
export interface NeighborsDeps {
  readonly view: DataView;
  readonly mesh: Mesh;
  readonly networks: ReadonlyMap<number, Network<Port, Peer>>;
  /** Room for a frame that is made here. */
  readonly scratch: number;
}

/**
 * Tells who has an address: answers ARP and Neighbor Discovery instead of their owners. Nothing of either is
 * passed on, so no task can speak for another one's address.
 */
export class Neighbors {
  readonly #deps: NeighborsDeps;
  readonly #target = new AddressWords();
  readonly #sender = new AddressWords();

  constructor(deps: NeighborsDeps) {
    this.#deps = deps;
  }

  /** An ARP frame of a port's, whose source MAC is the port's. */
  arpFromPort(port: Port, packet: Packet, nowMs: number, decision: Decision): Decision {
    const { view } = this.#deps;
    const { start, length } = packet;
    if (!isArpRequest(view, start, length)) return decision.toNowhere(ARP_MALFORMED);
    const target = this.#target;
    const sender = this.#sender;
    target.read(view, arpTargetAt(start), 4);
    sender.read(view, arpSenderAt(start), 4);
    if (readMac(view, arpSenderAt(start) - 6) !== port.mac) return decision.toNowhere(SPOOFED);
    const mayBe = port.scope === HOST_SCOPE || sender.w3 === 0 || port.has(sender);
    if (!mayBe) return decision.toNowhere(SPOOFED);
    // An address that its owner asks for is a probe for duplicates (RFC 5227): silence says "free".
    if (target.equals(sender) || port.has(target)) return decision.toNowhere(ARP_UNKNOWN);
    const owner = this.#ownerFor(port.scope);
    if (owner === undefined) return decision.toNowhere(ARP_UNKNOWN);
    if (!port.neighborAnswers.take(nowMs)) return decision.toNowhere(LIMITED);
    return this.#answerArp(packet, owner, decision);
  }

  /** A kernel VTEP asks by unicast or by its default destination: answered for our own endpoints. */
  arpFromVtep(network: Network<Port, Peer>, packet: Packet, decision: Decision): Decision {
    const { view } = this.#deps;
    const { start, length } = packet;
    if (!isArpRequest(view, start, length)) return decision.toNowhere(ARP_MALFORMED);
    this.#target.read(view, arpTargetAt(start), 4);
    const endpoint = network.find(this.#target);
    if (endpoint?.port === undefined) return decision.toNowhere(ARP_UNKNOWN);
    return this.#answerArp(packet, endpoint, decision);
  }

  /** A message of Neighbor Discovery of a port's, whose source MAC is the port's. */
  ndFromPort(port: Port, packet: Packet, nowMs: number, decision: Decision): Decision {
    const { view } = this.#deps;
    if (!isNeighborSolicitation(view, packet)) return decision.toNowhere(ND_MALFORMED);
    const isHost = port.scope === HOST_SCOPE;
    const isProbe = isAddressProbe(view, packet);
    this.#sender.read(view, packet.sourceStart, 6);
    if (!isHost && !isProbe && !port.has(this.#sender)) return decision.toNowhere(SPOOFED);
    readSolicitedTarget(view, packet, this.#target);
    // Silence tells a probe that the address is free (RFC 4862 section 5.4), and the host's always are.
    if (port.has(this.#target) || (isHost && isProbe)) return decision.toNowhere(ND_UNKNOWN);
    const owner = this.#ownerFor(port.scope);
    if (owner === undefined) return decision.toNowhere(ND_UNKNOWN);
    if (!port.neighborAnswers.take(nowMs)) return decision.toNowhere(LIMITED);
    return this.#advertise(packet, owner, decision);
  }

  /** The same from a kernel VTEP, for our own endpoints. */
  ndFromVtep(network: Network<Port, Peer>, packet: Packet, decision: Decision): Decision {
    const { view } = this.#deps;
    if (!isNeighborSolicitation(view, packet)) return decision.toNowhere(ND_MALFORMED);
    readSolicitedTarget(view, packet, this.#target);
    const endpoint = network.find(this.#target);
    if (endpoint?.port === undefined) return decision.toNowhere(ND_UNKNOWN);
    return this.#advertise(packet, endpoint, decision);
  }

  /** Who has the target, for one who asks in `scope`. */
  #ownerFor(scope: number): MacWords | undefined {
    const target = this.#target;
    if (scope === HOST_SCOPE || this.#deps.mesh.isVip(scope, target)) return GATEWAY;
    const network = this.#deps.networks.get(scope);
    return network?.isGateway(target) === true ? GATEWAY : network?.find(target);
  }

  #answerArp(packet: Packet, owner: MacWords, decision: Decision): Decision {
    answerArp(this.#deps.view, packet.start, owner);
    return decision.toSender('arp', packet.start, ARP_FRAME_BYTES);
  }

  #advertise(packet: Packet, owner: MacWords, decision: Decision): Decision {
    const { view, scratch } = this.#deps;
    writeNeighborAdvertisement(view, scratch, packet, owner, owner === GATEWAY);
    return decision.toSender('nd', scratch, NEIGHBOR_ADVERTISEMENT_FRAME_BYTES);
  }
}
