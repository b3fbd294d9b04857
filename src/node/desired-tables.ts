import type { Ipv4 } from '../core/address.ts';
import type { Ip } from '../core/ip.ts';
import type { DataPlaneCommand } from '../dataplane/commands.ts';
import type { MeshService } from '../routing-mesh/services.ts';
import type { EndpointView, PlacedVtep, Touched } from './endpoint-view.ts';
import { isSameService, meshService } from './mesh-services.ts';
import {
  NO_DEFINITIONS,
  readDefinitions,
  type SetNetwork,
  type TableDefinitions,
  type TableSources,
  type VipDefinition,
} from './table-definitions.ts';

type SetEndpoint = Extract<DataPlaneCommand, { kind: 'setEndpoint' }>;
type SetVtep = Extract<DataPlaneCommand, { kind: 'setVtep' }>;

/** Gives each of the VTEPs of other nodes the slot where it is counted. */
export type PlaceVteps = (
  vteps: readonly PlacedVtep[],
) => readonly (PlacedVtep & { readonly slot: number })[];

/**
 * What the data plane's tables should hold, ports apart: it follows from what the manager says and what the
 * nodes announce. Tells the commands that lead there, and looks at nothing else than what has changed.
 *
 * BOUNDED by its view and by what the manager assigns.
 */
export class DesiredTables {
  readonly #view: EndpointView;
  readonly #place: PlaceVteps;
  #definitions: TableDefinitions = NO_DEFINITIONS;
  /** Keys of each service's VIPs. */
  #vipsOf: ReadonlyMap<string, readonly string[]> = new Map();
  /** What has to be looked at because the definitions have changed. */
  #networksChanged = false;
  readonly #changedVnis = new Set<number>();
  readonly #changedVips = new Set<string>();
  /** What the tables hold when all that was told has been done. */
  #networks: ReadonlyMap<number, SetNetwork> = new Map();
  #vteps: ReadonlyMap<Ip, SetVtep> = new Map();
  /** By VNI and address. */
  readonly #endpoints = new Map<number, Map<Ipv4, SetEndpoint>>();
  /** By key of their VIPs. */
  readonly #services = new Map<string, MeshService>();

  constructor(view: EndpointView, place: PlaceVteps) {
    this.#view = view;
    this.#place = place;
  }

  /**
   * Takes what the manager says now.
   *
   * @throws {RangeError} if an address or VNI is none; all is as it was then
   */
  define(sources: TableSources): void {
    const before = this.#definitions;
    const after = readDefinitions(sources);
    this.#definitions = after;
    this.#vipsOf = keysByService(after.vips.values());
    this.#networksChanged = true;
    for (const id of new Set([...before.networks.keys(), ...after.networks.keys()])) {
      const [was, is] = [before.networks.get(id)?.vni, after.networks.get(id)?.vni];
      if (was === is) continue;
      for (const vni of [was, is]) if (vni !== undefined) this.#changedVnis.add(vni);
      for (const service of this.#view.servicesOn(id)) this.#addVipsOf(service);
    }
    for (const key of new Set([...before.vips.keys(), ...after.vips.keys()])) {
      if (!isSameVip(before.vips.get(key), after.vips.get(key))) this.#changedVips.add(key);
    }
  }

  /**
   * The commands that turn the tables from what was told before into what they should hold: removals of what
   * is on a network before the network, and additions the other way round.
   */
  changes(): DataPlaneCommand[] {
    const touched = this.#view.takeTouched();
    const changes = new Changes();
    if (this.#networksChanged) this.#changeNetworks(changes);
    if (touched.vteps) this.#changeVteps(changes);
    this.#changeEndpoints(touched, changes);
    for (const service of touched.services) this.#addVipsOf(service);
    for (const key of this.#changedVips) this.#changeService(key, changes);
    this.#changedVips.clear();
    return changes.commands();
  }

  #addVipsOf(serviceId: string): void {
    for (const key of this.#vipsOf.get(serviceId) ?? []) this.#changedVips.add(key);
  }

  #changeNetworks(changes: Changes): void {
    this.#networksChanged = false;
    const before = this.#networks;
    const after = new Map([...this.#definitions.networks.values()].map((set) => [set.vni, set]));
    this.#networks = after;
    for (const vni of before.keys()) {
      if (!after.has(vni)) changes.remove({ kind: 'removeNetwork', vni });
    }
    for (const [vni, set] of after) {
      // A network is a few short fields, and there are few of them.
      if (JSON.stringify(before.get(vni)) !== JSON.stringify(set)) changes.set(set);
    }
  }

  /** All of them: they change seldom, and which is counted where depends on all. */
  #changeVteps(changes: Changes): void {
    const before = this.#vteps;
    const after = new Map<Ip, SetVtep>();
    const placed = [...this.#place([...this.#view.vteps()])];
    // Every node must know the same port, should two nodes claim one address.
    placed.sort((a, b) => (a.node < b.node ? -1 : 1));
    for (const { address, port, slot } of placed) {
      after.set(address, { kind: 'setVtep', address, port, slot });
    }
    this.#vteps = after;
    for (const address of before.keys()) {
      if (!after.has(address)) changes.remove({ kind: 'removeVtep', address });
    }
    for (const [address, set] of after) {
      const was = before.get(address);
      if (was?.port !== set.port || was.slot !== set.slot) changes.set(set);
    }
  }

  #changeEndpoints(touched: Touched, changes: Changes): void {
    for (const [networkId, addresses] of touched.addresses) {
      const network = this.#definitions.networks.get(networkId);
      if (network === undefined) continue;
      for (const address of addresses)
        this.#changeEndpoint(network.vni, networkId, address, changes);
    }
    if (this.#changedVnis.size === 0) return;
    const ids = new Map([...this.#definitions.networks].map(([id, { vni }]) => [vni, id]));
    for (const vni of this.#changedVnis) {
      const networkId = ids.get(vni);
      const held = this.#endpoints.get(vni)?.keys() ?? [];
      const announced = networkId === undefined ? [] : this.#view.addressesOf(networkId);
      for (const address of new Set([...held, ...announced])) {
        this.#changeEndpoint(vni, networkId, address, changes);
      }
    }
    this.#changedVnis.clear();
  }

  #changeEndpoint(
    vni: number,
    networkId: string | undefined,
    address: Ipv4,
    changes: Changes,
  ): void {
    const held = this.#endpoints.get(vni) ?? new Map<Ipv4, SetEndpoint>();
    const before = held.get(address);
    const after = networkId === undefined ? undefined : this.#endpoint(vni, networkId, address);
    if (after === undefined) {
      if (before === undefined) return;
      held.delete(address);
      if (held.size === 0) this.#endpoints.delete(vni);
      changes.remove({ kind: 'removeEndpoint', vni, address, vtep: before.vtep });
      return;
    }
    if (before !== undefined && isSameEndpoint(before, after)) return;
    held.set(address, after);
    this.#endpoints.set(vni, held);
    changes.set(after);
  }

  #endpoint(vni: number, networkId: string, address: Ipv4): SetEndpoint | undefined {
    const announced = this.#view.remoteAt(networkId, address);
    const vtep = announced?.by.vtep?.address;
    if (announced === undefined || vtep === undefined) return undefined;
    const { address6, mac } = announced.record;
    const ipv6 = address6 === undefined ? {} : { address6 };
    return { kind: 'setEndpoint', vni, address, ...ipv6, mac, vtep };
  }

  #changeService(key: string, changes: Changes): void {
    const before = this.#services.get(key);
    const definition = this.#definitions.vips.get(key);
    if (definition === undefined) {
      if (before === undefined) return;
      this.#services.delete(key);
      changes.remove({ kind: 'removeService', scope: before.scope, vip: before.vip });
      return;
    }
    const announced = this.#view.ofService(definition.serviceId);
    const service = meshService(definition, announced, this.#definitions.networks);
    if (before !== undefined && isSameService(before, service)) return;
    this.#services.set(key, service);
    changes.set({ kind: 'setService', service });
  }
}

/** Commands of one step, in the order in which they were found: networks, what is on them, services. */
class Changes {
  readonly #removals: DataPlaneCommand[] = [];
  readonly #additions: DataPlaneCommand[] = [];

  remove(command: DataPlaneCommand): void {
    this.#removals.push(command);
  }

  set(command: DataPlaneCommand): void {
    this.#additions.push(command);
  }

  commands(): DataPlaneCommand[] {
    return [...this.#removals.reverse(), ...this.#additions];
  }
}

function keysByService(vips: Iterable<VipDefinition>): Map<string, readonly string[]> {
  const groups = Map.groupBy(vips, ({ serviceId }) => serviceId);
  return new Map([...groups].map(([id, group]) => [id, group.map(({ key }) => key)]));
}

function isSameVip(a: VipDefinition | undefined, b: VipDefinition | undefined): boolean {
  return (
    a?.serviceId === b?.serviceId && a?.gateway === b?.gateway && a?.networkId === b?.networkId
  );
}

function isSameEndpoint(a: SetEndpoint, b: SetEndpoint): boolean {
  return a.mac === b.mac && a.vtep === b.vtep && a.address6 === b.address6;
}
