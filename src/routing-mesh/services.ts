import { AddressMap } from '../core/address-map.ts';
import { AddressWords } from '../core/address-words.ts';
import { formatIp, type Ip, isIpv6 } from '../core/ip.ts';
import { buildMaglevTable, MAGLEV_NONE, MAGLEV_SLOTS } from './maglev.ts';

/** One endpoint behind a VIP. */
export interface MeshBackend {
  /** Unique in its service, and the same on every node: the task's ID. */
  readonly id: string;
  readonly address: Ip;
  /** VNI of the network that `address` is on. */
  readonly scope: number;
  /** Share of new flows in proportion to the others' weights. Finite, not negative. */
  readonly weight: number;
  /** A draining backend keeps its flows and gets no new ones. */
  readonly state: 'active' | 'draining';
}

/** A VIP and what is behind it: all addresses are of one family, so a service with both has two of these. */
export interface MeshService {
  /** Where the VIP is valid: the VNI of its network, or HOST_SCOPE for the ingress VIP. */
  readonly scope: number;
  readonly vip: Ip;
  /** The backends' gateway: the source that a task gets when it calls its own VIP and meets itself. */
  readonly gateway: Ip;
  readonly backends: readonly MeshBackend[];
}

/** Where a flow goes. */
export interface BackendTarget {
  readonly id: string;
  readonly scope: number;
  readonly address: AddressWords;
}

/** A backend and what it got, for people and metrics. */
export interface BackendStatus extends MeshBackend {
  /** Flows that it was picked for since it joined the service here. */
  readonly newFlows: number;
}

/** Indexes of backends are 16 bits wide, and one value means "none". */
const BACKENDS_MAX = MAGLEV_NONE;

/** One service with its lookup table. */
export class Service {
  readonly scope: number;
  readonly vip: Ip;
  readonly gateway: Ip;
  /** {@link Service.gateway} for the hot path. */
  readonly gatewayWords: AddressWords;
  /** Sorted by ID. */
  readonly backends: readonly MeshBackend[];
  readonly #table: Uint16Array;
  /** Indexes of the backends that take new flows, and the place of each backend in it. */
  readonly #eligible: Uint16Array;
  readonly #places: Uint16Array;
  readonly #newFlows: Float64Array;
  /** Where each of the backends is. */
  readonly #targets: readonly BackendTarget[];

  /**
   * @param previous - The service that this one replaces, and whose table it takes: its counters go on.
   * @throws {RangeError} naming the backend or gateway that is wrong
   */
  constructor(spec: MeshService, previous: Service | undefined) {
    this.scope = spec.scope;
    this.vip = spec.vip;
    this.gateway = spec.gateway;
    checkFamilies(spec);
    this.gatewayWords = AddressWords.of(spec.gateway);
    this.backends = sortedById(spec);
    const weights = this.backends.map(({ id, weight, state }) => ({
      id,
      weight: state === 'active' ? weight : 0,
    }));
    this.#table = previous === undefined ? new Uint16Array(MAGLEV_SLOTS) : previous.#table;
    buildMaglevTable(weights, this.#table);
    const eligible = [...weights.keys()].filter((index) => weights[index]?.weight !== 0);
    this.#eligible = Uint16Array.from(eligible);
    this.#places = new Uint16Array(this.backends.length);
    for (const [place, index] of eligible.entries()) this.#places[index] = place;
    const counts = new Map(previous?.status().map(({ id, newFlows }) => [id, newFlows]));
    this.#newFlows = Float64Array.from(this.backends, ({ id }) => counts.get(id) ?? 0);
    this.#targets = this.backends.map(({ id, scope, address }) => ({
      id,
      scope,
      address: AddressWords.of(address),
    }));
  }

  /**
   * Picks a backend for a new flow and counts it. Allocates nothing.
   *
   * @param hash - Of the client, 32 bits: equal hashes get equal backends on every node.
   * @param attempt - How many backends were given up on: 0 asks the Maglev table; later ones go through all
   *   others, from a place that depends on the client, so that a dead backend's load spreads.
   */
  pick(hash: number, attempt: number): BackendTarget | undefined {
    const count = this.#eligible.length;
    if (count === 0) return undefined;
    let index = this.#table[(hash >>> 0) % MAGLEV_SLOTS] ?? 0;
    const round = attempt % count;
    if (round !== 0) {
      const step = 1 + (((hash >>> 16) + round - 1) % (count - 1));
      index = this.#eligible[((this.#places[index] ?? 0) + step) % count] ?? 0;
    }
    this.#newFlows[index] = (this.#newFlows[index] ?? 0) + 1;
    return this.#targets[index];
  }

  /** Whether its backends, draining ones included, are at the same addresses as those of `other`. */
  hasSameAddresses(other: Service): boolean {
    if (this.backends.length !== other.backends.length) return false;
    // Both are sorted by ID. One that has another address, or is another one, is reason enough to look.
    return this.backends.every(({ scope, address }, index) => {
      const before = other.backends[index];
      return before?.scope === scope && before.address === address;
    });
  }

  /** Where its backends are, draining ones included: addresses by scope. */
  addresses(): ReadonlyMap<number, AddressMap<true>> {
    const byScope = new Map<number, AddressMap<true>>();
    for (const { scope, address } of this.backends) {
      const addresses = byScope.get(scope) ?? new AddressMap();
      addresses.set(address, true);
      byScope.set(scope, addresses);
    }
    return byScope;
  }

  /** The backends and what they got. */
  status(): BackendStatus[] {
    return this.backends.map((backend, index) => ({
      ...backend,
      newFlows: this.#newFlows[index] ?? 0,
    }));
  }
}

/**
 * Services by scope and VIP. BOUNDED by what the managers assign: one service per VIP, each with a table
 * of 32 KiB.
 */
export class ServiceTable {
  readonly #byScope = new Map<number, AddressMap<Service>>();
  #size = 0;

  /** How many there are. */
  get size(): number {
    return this.#size;
  }

  /** The service whose VIP `address` is. Allocates nothing. */
  find(scope: number, address: AddressWords): Service | undefined {
    return this.#byScope.get(scope)?.find(address);
  }

  /** The same for control code. */
  get(scope: number, vip: Ip): Service | undefined {
    return this.#byScope.get(scope)?.get(vip);
  }

  /**
   * Adds a service, in place of the one with the same scope and VIP.
   *
   * @throws {RangeError} if a backend or the gateway is wrong; the table is as it was
   */
  set(spec: MeshService): Service {
    const previous = this.get(spec.scope, spec.vip);
    const service = new Service(spec, previous);
    if (previous === undefined) this.#size += 1;
    const services = this.#byScope.get(spec.scope) ?? new AddressMap<Service>();
    services.set(spec.vip, service);
    this.#byScope.set(spec.scope, services);
    return service;
  }

  /** @returns whether there was such a service */
  delete(scope: number, vip: Ip): boolean {
    const services = this.#byScope.get(scope);
    const existed = services?.delete(vip) === true;
    if (services?.size === 0) this.#byScope.delete(scope);
    if (existed) this.#size -= 1;
    return existed;
  }

  /** All services, in no particular order. */
  *values(): Generator<Service> {
    for (const services of this.#byScope.values()) yield* services.values();
  }
}

function nameOf(spec: MeshService): string {
  return `service ${formatIp(spec.vip)} of scope ${spec.scope}`;
}

/** A packet keeps its family: what it becomes must be of the VIP's. */
function checkFamilies(spec: MeshService): void {
  const family = isIpv6(spec.vip) ? 'IPv6' : 'IPv4';
  const ends = spec.backends.map(({ id, address }) => ({ what: `backend ${id}`, address }));
  for (const { what, address } of [{ what: 'the gateway', address: spec.gateway }, ...ends]) {
    if (isIpv6(address) === isIpv6(spec.vip)) continue;
    throw new RangeError(
      `Cannot give ${what} of ${nameOf(spec)} the address ${formatIp(address)}: expected an ${family} address`,
    );
  }
}

/** Checks the backends, and sorts them as every node does: by UTF-16 code units, whatever the locale. */
function sortedById(spec: MeshService): MeshBackend[] {
  const name = nameOf(spec);
  if (spec.backends.length > BACKENDS_MAX) {
    throw new RangeError(
      `Cannot balance ${name} over ${spec.backends.length} backends: expected ${BACKENDS_MAX} at most`,
    );
  }
  const sorted = [...spec.backends].sort((a, b) => (a.id < b.id ? -1 : 1));
  for (const [index, { id, weight }] of sorted.entries()) {
    if (!(Number.isFinite(weight) && weight >= 0)) {
      throw new RangeError(
        `Cannot give backend ${id} of ${name} the weight ${weight}: expected a finite number, 0 or more`,
      );
    }
    if (sorted[index + 1]?.id === id) {
      throw new RangeError(`Cannot add backend ${id} to ${name} twice: expected unique IDs`);
    }
  }
  return sorted;
}
