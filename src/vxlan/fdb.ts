import type { Ipv4, Ipv4Cidr, Mac } from '../core/address.ts';

/** Where an address of a network is: at a port of this node, or behind another node's VTEP. */
export class Endpoint<Port, Peer> {
  readonly address: Ipv4;
  readonly mac: Mac;
  /** Set for an endpoint of this node. */
  readonly port: Port | undefined;
  /** Set for an endpoint of another node: its VTEP. */
  readonly peer: Peer | undefined;

  constructor(address: Ipv4, mac: Mac, where: { readonly port: Port } | { readonly peer: Peer }) {
    this.address = address;
    this.mac = mac;
    this.port = 'port' in where ? where.port : undefined;
    this.peer = 'peer' in where ? where.peer : undefined;
  }
}

/**
 * One overlay segment: its forwarding database, by MAC and by IPv4 address. Filled only by what nodes
 * announce of themselves; nothing is learned from packets.
 *
 * BOUNDED by the size of the subnet: an address has one endpoint.
 */
export class Network<Port, Peer> {
  readonly vni: number;
  readonly subnet: Ipv4Cidr;
  readonly gateway: Ipv4;
  // Keys are `| 0`: small integers in V8, so that a lookup allocates nothing.
  readonly #byAddress = new Map<number, Endpoint<Port, Peer>>();
  readonly #byMac = new Map<number, Endpoint<Port, Peer>>();

  constructor(vni: number, subnet: Ipv4Cidr, gateway: Ipv4) {
    this.vni = vni;
    this.subnet = subnet;
    this.gateway = gateway;
  }

  /** How many addresses are known. */
  get size(): number {
    return this.#byAddress.size;
  }

  endpoints(): IterableIterator<Endpoint<Port, Peer>> {
    return this.#byAddress.values();
  }

  /**
   * The endpoint at `address`, wherever it is. Allocates nothing if the caller passes `address | 0`,
   * which is the same address here: a number above 2^31 may be allocated to be passed.
   */
  byAddress(address: Ipv4): Endpoint<Port, Peer> | undefined {
    return this.#byAddress.get(address | 0);
  }

  /**
   * The endpoint with the MAC that stands at `offset`. Allocates nothing: 48 bits are no small integer, so
   * a MAC that is passed as a number may become a heap object per call.
   */
  byMacAt(view: DataView, offset: number): Endpoint<Port, Peer> | undefined {
    const found = this.#byMac.get(view.getInt32(offset + 2));
    if (found === undefined) return undefined;
    const high = Math.floor(found.mac / 0x1_0000_0000);
    return high === view.getUint16(offset) ? found : undefined;
  }

  /** What {@link Network.set} would remove to make room for an endpoint at `address` with `mac`. */
  rivals(address: Ipv4, mac: Mac): Endpoint<Port, Peer>[] {
    const rivals = [this.#byAddress.get(address | 0), this.#byMac.get(macKey(mac))];
    return rivals.filter((endpoint) => endpoint !== undefined);
  }

  /** Adds `endpoint`, in place of what had its address or its MAC. */
  set(endpoint: Endpoint<Port, Peer>): void {
    for (const { address } of this.rivals(endpoint.address, endpoint.mac)) this.delete(address);
    this.#byAddress.set(endpoint.address | 0, endpoint);
    this.#byMac.set(macKey(endpoint.mac), endpoint);
  }

  /** Forgets what is at `address`. */
  delete(address: Ipv4): void {
    const known = this.#byAddress.get(address | 0);
    if (known === undefined) return;
    this.#byAddress.delete(address | 0);
    this.#byMac.delete(macKey(known.mac));
  }
}

/** The low 32 bits: unique for MACs made from addresses; two others that share them exclude each other. */
function macKey(mac: Mac): number {
  return mac | 0;
}
