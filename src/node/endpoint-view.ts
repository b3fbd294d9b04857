import type { Ipv4 } from '../core/address.ts';
import type { Json } from '../core/store.ts';
import type { EndpointChange } from '../gossip/effects.ts';
import {
  type EndpointRecord,
  readEndpointRecord,
  readVtepRecord,
  VTEP_KEY,
  type VtepRecord,
  writeEndpointRecord,
  writeVtepRecord,
} from './endpoint-record.ts';

/** One entry of the gossip tables as it is visible now. */
export interface VisibleEntry {
  readonly node: string;
  readonly key: string;
  readonly value: Json;
}

/** A VTEP and the id of the node that has it. */
export type PlacedVtep = VtepRecord & { readonly node: string };

/** An endpoint and where it is; without a VTEP it is this node's own. */
export interface PlacedEndpoint {
  readonly record: EndpointRecord;
  readonly vtep?: VtepRecord;
  /** Whether its node does not answer just now: not dead yet, but no good address for a new flow. */
  readonly suspect?: boolean;
}

/** What one node announces. */
export interface Announcer {
  readonly node: string;
  readonly isSelf: boolean;
  /** Without one its endpoints cannot be reached. */
  readonly vtep: VtepRecord | undefined;
  /** Whether it does not answer just now. Never so of this node. */
  readonly isSuspect: boolean;
}

/** One endpoint and who announces it. Replaced when what it says changes; its announcer is not. */
export interface Announced {
  readonly by: Announcer;
  readonly key: string;
  readonly record: EndpointRecord;
}

/** What has changed in an {@link EndpointView} since somebody looked last. */
export interface Touched {
  /** Addresses by network id. */
  readonly addresses: ReadonlyMap<string, ReadonlySet<Ipv4>>;
  /** Ids of services of which an endpoint, or how it is reached, is different. */
  readonly services: ReadonlySet<string>;
  /** Whether a VTEP of another node is. */
  readonly vteps: boolean;
}

interface Owner extends Announcer {
  vtep: VtepRecord | undefined;
  isSuspect: boolean;
  /** By key. BOUNDED by what gossip takes of one node. */
  readonly endpoints: Map<string, Announced>;
}

/**
 * What the nodes announce, read once, with indexes by node, network and service. A change costs what it
 * changes, however much is known.
 *
 * BOUNDED by gossip's tables, which it mirrors.
 */
export class EndpointView {
  readonly #self: string;
  readonly #owners = new Map<string, Owner>();
  readonly #suspects = new Set<string>();
  /** By network id and address: as a rule one announces an address, and then there is no list. */
  readonly #byNetwork = new Map<string, Map<Ipv4, Announced | readonly Announced[]>>();
  readonly #byService = new Map<string, Set<Announced>>();
  #addresses = new Map<string, Set<Ipv4>>();
  #services = new Set<string>();
  #vtepsTouched = false;
  #vtepsVersion = 0;

  /** @param self - Id of this node. */
  constructor(self: string) {
    this.#self = self;
  }

  /** Another number after each change of the other nodes' VTEPs. */
  get vtepsVersion(): number {
    return this.#vtepsVersion;
  }

  /** Takes what has become different of one node's entries. What cannot be read is not there. */
  change({ node, added, changed, removed }: EndpointChange): void {
    const owner = this.#owners.get(node) ?? this.#newOwner(node);
    for (const { key, value } of added) this.#put(owner, key, value);
    for (const { key, value } of changed) this.#put(owner, key, value);
    for (const key of removed) this.#remove(owner, key);
    if (owner.vtep === undefined && owner.endpoints.size === 0) this.#owners.delete(node);
    else this.#owners.set(node, owner);
  }

  /** Forgets all that a node has announced. */
  drop(node: string): void {
    const owner = this.#owners.get(node);
    if (owner === undefined) return;
    this.change({ node, added: [], changed: [], removed: [VTEP_KEY, ...owner.endpoints.keys()] });
  }

  /** Says whether a node does not answer just now. */
  suspect(node: string, isSuspect: boolean): void {
    if (node === this.#self || isSuspect === this.#suspects.has(node)) return;
    if (isSuspect) this.#suspects.add(node);
    else this.#suspects.delete(node);
    const owner = this.#owners.get(node);
    if (owner === undefined) return;
    owner.isSuspect = isSuspect;
    for (const { record } of owner.endpoints.values()) this.#services.add(record.serviceId);
  }

  /** What has changed since the last call. */
  takeTouched(): Touched {
    const touched = {
      addresses: this.#addresses,
      services: this.#services,
      vteps: this.#vtepsTouched,
    };
    this.#addresses = new Map();
    this.#services = new Set();
    this.#vtepsTouched = false;
    return touched;
  }

  /** VTEPs of the other nodes, in the order in which they became known. */
  *vteps(): Generator<PlacedVtep> {
    for (const { node, isSelf, vtep } of this.#owners.values()) {
      if (!isSelf && vtep !== undefined) yield { node, ...vtep };
    }
  }

  /** The endpoints that can be reached: this node's, and those of nodes with a VTEP. */
  *endpoints(): Generator<PlacedEndpoint> {
    for (const { isSelf, vtep, isSuspect, endpoints } of this.#owners.values()) {
      if (!isSelf && vtep === undefined) continue;
      for (const { record } of endpoints.values()) {
        yield isSelf || vtep === undefined ? { record } : { record, vtep, suspect: isSuspect };
      }
    }
  }

  /** All endpoints that can be read, whether they can be reached or not. */
  *announced(): Generator<Announced> {
    for (const { endpoints } of this.#owners.values()) yield* endpoints.values();
  }

  /** What the other nodes announce, as far as it can be read, as entries. */
  *others(): Generator<VisibleEntry> {
    for (const { node, isSelf, vtep, endpoints } of this.#owners.values()) {
      if (isSelf) continue;
      if (vtep !== undefined) yield { node, key: VTEP_KEY, value: writeVtepRecord(vtep) };
      for (const { key, record } of endpoints.values()) {
        yield { node, key, value: writeEndpointRecord(record) };
      }
    }
  }

  /**
   * The other node's endpoint that has an address. Of several that can be reached it is the one that
   * {@link isAfter} all others: the same on every node. None if this node has the address itself.
   */
  remoteAt(networkId: string, address: Ipv4): Announced | undefined {
    let found: Announced | undefined;
    for (const announced of listOf(this.#byNetwork.get(networkId)?.get(address))) {
      if (announced.by.isSelf) return undefined;
      if (announced.by.vtep === undefined) continue;
      if (found === undefined || isAfter(announced, found)) found = announced;
    }
    return found;
  }

  /** Addresses that are announced on a network. */
  addressesOf(networkId: string): Iterable<Ipv4> {
    return this.#byNetwork.get(networkId)?.keys() ?? [];
  }

  /** Ids of the services that have endpoints on a network. */
  servicesOn(networkId: string): ReadonlySet<string> {
    const found = new Set<string>();
    for (const announced of this.#byNetwork.get(networkId)?.values() ?? []) {
      for (const { record } of listOf(announced)) found.add(record.serviceId);
    }
    return found;
  }

  /** All endpoints of a service, in no particular order. */
  ofService(serviceId: string): Iterable<Announced> {
    return this.#byService.get(serviceId) ?? [];
  }

  /** How many endpoints each service has that can be reached, by service id and state. */
  *counts(): Generator<{ serviceId: string; state: EndpointRecord['state']; count: number }> {
    for (const [serviceId, endpoints] of this.#byService) {
      const states = new Map<EndpointRecord['state'], number>();
      for (const { by, record } of endpoints) {
        if (!isReachable(by)) continue;
        states.set(record.state, (states.get(record.state) ?? 0) + 1);
      }
      for (const [state, count] of states) yield { serviceId, state, count };
    }
  }

  #newOwner(node: string): Owner {
    const isSelf = node === this.#self;
    const isSuspect = this.#suspects.has(node);
    return { node, isSelf, vtep: undefined, isSuspect, endpoints: new Map() };
  }

  #put(owner: Owner, key: string, value: Json): void {
    if (key === VTEP_KEY) {
      this.#setVtep(owner, readVtepRecord(value));
      return;
    }
    this.#remove(owner, key);
    const record = readEndpointRecord(value);
    if (record === undefined) return;
    const announced: Announced = { by: owner, key, record };
    owner.endpoints.set(key, announced);
    this.#index(announced);
    this.#touch(announced);
  }

  #remove(owner: Owner, key: string): void {
    if (key === VTEP_KEY) {
      this.#setVtep(owner, undefined);
      return;
    }
    const announced = owner.endpoints.get(key);
    if (announced === undefined) return;
    owner.endpoints.delete(key);
    this.#unindex(announced);
    this.#touch(announced);
  }

  #setVtep(owner: Owner, vtep: VtepRecord | undefined): void {
    const before = owner.vtep;
    owner.vtep = vtep;
    if (owner.isSelf) return;
    this.#vtepsTouched = true;
    this.#vtepsVersion += 1;
    if (before?.address === vtep?.address) return;
    for (const announced of owner.endpoints.values()) this.#touch(announced);
  }

  #index(announced: Announced): void {
    const { networkId, address, serviceId } = announced.record;
    const network = this.#byNetwork.get(networkId) ?? new Map();
    this.#byNetwork.set(networkId, network);
    const others = network.get(address);
    network.set(address, others === undefined ? announced : [...listOf(others), announced]);
    const service = this.#byService.get(serviceId) ?? new Set();
    this.#byService.set(serviceId, service);
    service.add(announced);
  }

  #unindex(announced: Announced): void {
    const { networkId, address, serviceId } = announced.record;
    const network = this.#byNetwork.get(networkId);
    const [first, ...rest] = listOf(network?.get(address)).filter((one) => one !== announced);
    if (first === undefined) network?.delete(address);
    else network?.set(address, rest.length === 0 ? first : [first, ...rest]);
    if (network?.size === 0) this.#byNetwork.delete(networkId);
    const service = this.#byService.get(serviceId);
    service?.delete(announced);
    if (service?.size === 0) this.#byService.delete(serviceId);
  }

  #touch({ record: { networkId, address, serviceId } }: Announced): void {
    const addresses = this.#addresses.get(networkId) ?? new Set();
    this.#addresses.set(networkId, addresses);
    addresses.add(address);
    this.#services.add(serviceId);
  }
}

/** Whether frames can be sent to what `announcer` announces. */
export function isReachable({ isSelf, vtep }: Announcer): boolean {
  return isSelf || vtep !== undefined;
}

/** An order of all that is announced that every node agrees on: by node, then by key. */
export function isAfter(a: Announced, b: Announced): boolean {
  return a.by.node === b.by.node ? a.key > b.key : a.by.node > b.by.node;
}

function listOf(announced: Announced | readonly Announced[] | undefined): readonly Announced[] {
  if (announced === undefined) return [];
  return 'length' in announced ? announced : [announced];
}
