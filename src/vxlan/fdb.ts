import { type Ipv4, type Ipv4Cidr, type Mac, type MacWords, macWords } from '../core/address.ts';
import { AddressMap } from '../core/address-map.ts';
import { AddressWords, isLinkLocalOf, linkLocalOf } from '../core/address-words.ts';
import type { Ipv6 } from '../core/ip.ts';

/** What names an endpoint on its network. */
export interface EndpointNames {
  readonly address: Ipv4;
  /** Set on a network with both families. */
  readonly address6?: Ipv6;
  readonly mac: Mac;
}

/** Where the addresses of an endpoint are: at a port of this node, or behind another node's VTEP. */
export class Endpoint<Port, Peer> implements EndpointNames, MacWords {
  readonly address: Ipv4;
  readonly address6?: Ipv6;
  readonly macHigh: number;
  readonly macLow: number;
  /** Set for an endpoint of this node. */
  readonly port: Port | undefined;
  /** Set for an endpoint of another node: its VTEP. */
  readonly peer: Peer | undefined;

  constructor(names: EndpointNames, where: { readonly port: Port } | { readonly peer: Peer }) {
    this.address = names.address;
    if (names.address6 !== undefined) this.address6 = names.address6;
    const { macHigh, macLow } = macWords(names.mac);
    this.macHigh = macHigh;
    this.macLow = macLow;
    this.port = 'port' in where ? where.port : undefined;
    this.peer = 'peer' in where ? where.peer : undefined;
  }

  /** For control code: a number of 48 bits takes memory of its own, and there are many endpoints. */
  get mac(): Mac {
    return this.macHigh * 0x1_0000_0000 + (this.macLow >>> 0);
  }

  /** The IPv6 address that its interface makes of the MAC. For control code. */
  get linkLocal(): AddressWords {
    return linkLocalOf(this.mac);
  }
}

/** A network's own addresses. */
export interface NetworkAddresses {
  readonly subnet: Ipv4Cidr;
  readonly gateway: Ipv4;
  /** Set on a network with both families. */
  readonly gateway6?: Ipv6;
}

/**
 * One overlay segment: its forwarding database, by MAC and by address of either family. Filled only by
 * what nodes announce of themselves; nothing is learned from packets.
 *
 * BOUNDED by the size of the subnet: an address has one endpoint.
 */
export class Network<Port, Peer> {
  readonly vni: number;
  readonly subnet: Ipv4Cidr;
  readonly gateway: Ipv4;
  readonly #gateways: readonly AddressWords[];
  readonly #byAddress = new AddressMap<Endpoint<Port, Peer>>();
  // By the low 32 bits: unique for MACs made from addresses; two others that share them exclude each other.
  readonly #byMac = new Map<number, Endpoint<Port, Peer>>();

  constructor(vni: number, { subnet, gateway, gateway6 }: NetworkAddresses) {
    this.vni = vni;
    this.subnet = subnet;
    this.gateway = gateway;
    const gateways = gateway6 === undefined ? [gateway] : [gateway, gateway6];
    this.#gateways = gateways.map((address) => AddressWords.of(address));
  }

  /** How many endpoints are known. */
  get size(): number {
    return this.#byMac.size;
  }

  endpoints(): IterableIterator<Endpoint<Port, Peer>> {
    return this.#byMac.values();
  }

  /** The gateway's address in `family`, if the network has that. */
  gatewayOf(family: 4 | 6): AddressWords | undefined {
    return this.#gateways[family === 4 ? 0 : 1];
  }

  /** Whether `address` is the gateway's, in its family. Allocates nothing. */
  isGateway(address: AddressWords): boolean {
    return this.gatewayOf(address.isIpv4 ? 4 : 6)?.equals(address) === true;
  }

  /** The endpoint with the IPv4 address `address`. For control code. */
  byAddress(address: Ipv4): Endpoint<Port, Peer> | undefined {
    return this.#byAddress.get(address);
  }

  /** The endpoint with `address`, its link-local one included. Allocates nothing. */
  find(address: AddressWords): Endpoint<Port, Peer> | undefined {
    return this.#byAddress.find(address) ?? this.#byLinkLocal(address);
  }

  /**
   * The endpoint with the MAC that stands at `offset`. Allocates nothing: 48 bits are no small integer, so
   * a MAC that is passed as a number may become a heap object per call.
   */
  byMacAt(view: DataView, offset: number): Endpoint<Port, Peer> | undefined {
    const found = this.#byMac.get(view.getInt32(offset + 2));
    return found?.macHigh === view.getUint16(offset) ? found : undefined;
  }

  /** What {@link Network.set} would remove to make room for an endpoint with `names`. */
  rivals({ address, address6, mac }: EndpointNames): Set<Endpoint<Port, Peer>> {
    const rivals = [
      this.#byAddress.get(address),
      address6 === undefined ? undefined : this.#byAddress.get(address6),
      this.#byMac.get(mac | 0),
    ];
    return new Set(rivals.filter((endpoint) => endpoint !== undefined));
  }

  /** Adds `endpoint`, in place of what had one of its addresses or its MAC. */
  set(endpoint: Endpoint<Port, Peer>): void {
    for (const { address } of this.rivals(endpoint)) this.delete(address);
    this.#byAddress.set(endpoint.address, endpoint);
    if (endpoint.address6 !== undefined) this.#byAddress.set(endpoint.address6, endpoint);
    this.#byMac.set(endpoint.macLow, endpoint);
  }

  /** Forgets the endpoint at `address`, with all its names. */
  delete(address: Ipv4): void {
    const known = this.#byAddress.get(address);
    if (known === undefined) return;
    this.#byAddress.delete(address);
    if (known.address6 !== undefined) this.#byAddress.delete(known.address6);
    this.#byMac.delete(known.macLow);
  }

  /** A link-local address made of a MAC has the MAC's low 32 bits around `fffe` (RFC 4291 appendix A). */
  #byLinkLocal(address: AddressWords): Endpoint<Port, Peer> | undefined {
    const low = ((address.w2 << 16) & 0xff00_0000) | (address.w3 & 0x00ff_ffff);
    const found = this.#byMac.get(low);
    return found !== undefined && isLinkLocalOf(found, address) ? found : undefined;
  }
}
