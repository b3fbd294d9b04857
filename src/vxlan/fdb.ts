import type { Ipv4, Ipv4Cidr, Mac } from '../core/address.ts';

/** Where an address of a network is: at a port of this node, or behind another node's VTEP. */
export class Endpoint<Port> {
  readonly address: Ipv4;
  readonly mac: Mac;
  /** Set for an endpoint of this node. */
  readonly port: Port | undefined;
  /** The VTEP of the node that holds it; meaningless for a local endpoint. */
  readonly vtep: Ipv4;
  /** UDP port of that VTEP. */
  readonly vtepPort: number;

  constructor(
    address: Ipv4,
    mac: Mac,
    where: { readonly port: Port } | { readonly vtep: Ipv4; readonly vtepPort: number },
  ) {
    this.address = address;
    this.mac = mac;
    this.port = 'port' in where ? where.port : undefined;
    this.vtep = 'port' in where ? 0 : where.vtep;
    this.vtepPort = 'port' in where ? 0 : where.vtepPort;
  }
}

/**
 * One overlay segment: its forwarding database, by MAC and by IPv4 address. Filled only by what nodes
 * announce of themselves; nothing is learned from packets.
 *
 * BOUNDED by the size of the subnet: an address has one endpoint.
 */
export class Network<Port> {
  readonly vni: number;
  readonly subnet: Ipv4Cidr;
  readonly gateway: Ipv4;
  // Keys are `| 0`: small integers in V8, so that a lookup allocates nothing.
  readonly #byAddress = new Map<number, Endpoint<Port>>();
  readonly #byMac = new Map<number, Endpoint<Port>>();

  constructor(vni: number, subnet: Ipv4Cidr, gateway: Ipv4) {
    this.vni = vni;
    this.subnet = subnet;
    this.gateway = gateway;
  }

  /** How many addresses are known. */
  get size(): number {
    return this.#byAddress.size;
  }

  endpoints(): IterableIterator<Endpoint<Port>> {
    return this.#byAddress.values();
  }

  /**
   * The endpoint at `address`, wherever it is. Allocates nothing if the caller passes `address | 0`,
   * which is the same address here: a number above 2^31 may be allocated to be passed.
   */
  byAddress(address: Ipv4): Endpoint<Port> | undefined {
    return this.#byAddress.get(address | 0);
  }

  /**
   * The endpoint with the MAC that stands at `offset`. Allocates nothing: 48 bits are no small integer, so
   * a MAC that is passed as a number may become a heap object per call.
   */
  byMacAt(view: DataView, offset: number): Endpoint<Port> | undefined {
    const found = this.#byMac.get(view.getInt32(offset + 2));
    if (found === undefined) return undefined;
    const high = Math.floor(found.mac / 0x1_0000_0000);
    return high === view.getUint16(offset) ? found : undefined;
  }

  /** What {@link Network.set} would remove to make room for an endpoint at `address` with `mac`. */
  rivals(address: Ipv4, mac: Mac): Endpoint<Port>[] {
    const rivals = [this.#byAddress.get(address | 0), this.#byMac.get(macKey(mac))];
    return rivals.filter((endpoint) => endpoint !== undefined);
  }

  /** Adds `endpoint`, in place of what had its address or its MAC. */
  set(endpoint: Endpoint<Port>): void {
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
