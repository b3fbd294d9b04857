import { AddressMap } from '../core/address-map.ts';
import type { AddressWords } from '../core/address-words.ts';
import type { Ip } from '../core/ip.ts';
import type { Packet } from '../core/packet.ts';
import { ACTION_FORWARD, Flow } from './flow-entry.ts';
import { FlowKey, scopeOf } from './flow-key.ts';
import { type FlowRecord, listFlows } from './flow-listing.ts';
import { FlowTable, type FlowTableOptions } from './flow-table.ts';
import { FRAGMENT_TABLE_BYTES, FragmentTable } from './fragment-table.ts';
import { PacketPath } from './packet-path.ts';
import {
  type BackendStatus,
  type MeshBackend,
  type MeshService,
  ServiceTable,
} from './services.ts';
import { MARK_GONE } from './tcp-tracking.ts';
import { toTicks } from './ticks.ts';
import type { Verdict, VtepOrigin } from './verdict.ts';

/** Where the backends of a service are: addresses by scope. */
type BackendAddresses = ReadonlyMap<number, AddressMap<true>>;

/** What a {@link Mesh} is made of. */
export interface MeshOptions extends FlowTableOptions {
  /**
   * {@link FRAGMENT_TABLE_BYTES}, zero at first, for what threads that share the flow table know of fragmented
   * datagrams. Absent: memory of this mesh's own.
   */
  readonly fragments?: Uint8Array;
}

/**
 * The routing mesh: which backend gets a packet that is for a VIP, and how the reply finds its client. The
 * data plane asks once per frame or superframe and carries out the {@link Verdict}. Nothing here
 * sends or waits; nothing throws or allocates per packet.
 */
export class Mesh {
  readonly #services = new ServiceTable();
  readonly #flows: FlowTable;
  readonly #path: PacketPath;
  /** VIPs whose flows are yet to be looked at: by scope. BOUNDED by the changes of one batch. */
  #unmarked = new Map<number, AddressMap<BackendAddresses>>();
  #isBatch = false;

  /**
   * @param options - Memory of the flow table: flows that it holds from an earlier run go on. Threads that
   *   share it have a mesh each, with services and counters of its own.
   * @throws {RangeError} if the capacity, the memory's size or place or the key's length is none
   * @throws {Error} if it is to be a further mesh over the memory, and there is no first one
   */
  constructor(options: MeshOptions) {
    this.#flows = new FlowTable(options);
    const { fragments: memory, hashKey, sharing } = options;
    const fragments =
      memory === undefined
        ? new FragmentTable({ memory: new Uint8Array(FRAGMENT_TABLE_BYTES), hashKey })
        : new FragmentTable({ memory, hashKey, ...(sharing && { sharing }) });
    this.#path = new PacketPath(this.#services, this.#flows, fragments);
  }

  /**
   * Adds a service or replaces it. Flows whose backend is no longer listed are marked: the client's next
   * TCP packet is refused, its next UDP packet gets another backend. Listed again before that,
   * the backend keeps them. Scans the flow table if the backends' addresses are not the same.
   *
   * @throws {RangeError} if a backend or the gateway is wrong; the service is as it was
   */
  setService(spec: MeshService): void {
    const { scope, vip } = spec;
    const before = this.#services.get(scope, vip);
    const service = this.#services.set(spec);
    if (before === undefined || !service.hasSameAddresses(before)) this.#changed(scope, vip);
  }

  /** Removes a service. Its flows fare as if all its backends had left. Scans the flow table. */
  removeService(scope: number, vip: Ip): void {
    if (this.#services.delete(scope, vip)) this.#changed(scope, vip);
  }

  /** Makes changes of services together: the flow table is scanned once, at their end. */
  together(change: () => void): void {
    this.#isBatch = true;
    try {
      change();
    } finally {
      this.#isBatch = false;
      this.#markFlows();
    }
  }

  /** Whether `address` is a VIP of `scope`. Allocates nothing. */
  isVip(scope: number, address: AddressWords): boolean {
    return this.#services.find(scope, address) !== undefined;
  }

  /** The backends of a service, sorted by ID; none if there is no such service. */
  backends(scope: number, vip: Ip): readonly MeshBackend[] {
    return this.#services.get(scope, vip)?.backends ?? [];
  }

  /** The backends of a service with their counters; none if there is no such service. */
  backendStatus(scope: number, vip: Ip): readonly BackendStatus[] {
    return this.#services.get(scope, vip)?.status() ?? [];
  }

  /** How many services there are. */
  get size(): number {
    return this.#services.size;
  }

  /** Every service, as it was set last. */
  *services(): Generator<MeshService> {
    for (const { scope, vip, gateway, backends } of this.#services.values()) {
      yield { scope, vip, gateway, backends };
    }
  }

  /** Whether the flow table's memory held the flows of an earlier run. */
  get attached(): boolean {
    return this.#flows.attached;
  }

  /** Flows that had to make room, before their time, for others made by this mesh. */
  get evictions(): number {
    return this.#flows.evictions;
  }

  /** Flows of an IP protocol, whichever thread made them; the two directions of a balanced flow count once. */
  activeFlows(protocol: number): number {
    return this.#flows.activeFlows(protocol);
  }

  /** Copies of all entries of the flow table. Not for the packet loop. */
  flows(nowMs: number): Generator<FlowRecord> {
    this.#flows.now = toTicks(nowMs);
    return listFlows(this.#flows);
  }

  /**
   * Removes what has expired in the next `budget` slots of the flow table; called now and then it goes round.
   *
   * @param nowMs - Wall-clock milliseconds since the epoch.
   * @returns entries removed
   */
  sweep(budget: number, nowMs: number): number {
    this.#flows.now = toTicks(nowMs);
    return this.#flows.sweep(budget);
  }

  /**
   * Decides about a packet from a port of this node, and rewrites it.
   *
   * @param packet - As parsed from `view`; its addresses and ports are kept equal to the bytes.
   * @param scope - The VNI of the task's network, or HOST_SCOPE for the host port.
   * @param partialChecksum - The frame carries `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
   * @param nowMs - Wall-clock milliseconds since the epoch.
   * @param verdict - Overwritten.
   */
  fromLocal(
    packet: Packet,
    view: DataView,
    scope: number,
    partialChecksum: boolean,
    nowMs: number,
    verdict: Verdict,
  ): void {
    this.#path.fromLocal(packet, view, scope, partialChecksum, nowMs, verdict);
  }

  /**
   * Decides about a packet that another node sent, and rewrites it. A routed packet that belongs to no flow
   * leaves its way back in the table: the reply must leave by the node that the client talks to.
   *
   * @param packet - As parsed from `view`; its addresses and ports are kept equal to the bytes.
   * @param partialChecksum - Its segments were coalesced, and their transport checksum is partial.
   * @param nowMs - Wall-clock milliseconds since the epoch.
   * @param verdict - Overwritten. Never `viaVtep`: what came from the underlay does not go back there.
   */
  fromVtep(
    packet: Packet,
    view: DataView,
    origin: VtepOrigin,
    partialChecksum: boolean,
    nowMs: number,
    verdict: Verdict,
  ): void {
    this.#path.fromVtep(packet, view, origin, partialChecksum, nowMs, verdict);
  }

  #changed(scope: number, vip: Ip): void {
    const vips = this.#unmarked.get(scope) ?? new AddressMap();
    this.#unmarked.set(scope, vips);
    vips.set(vip, this.#services.get(scope, vip)?.addresses() ?? new Map());
    if (!this.#isBatch) this.#markFlows();
  }

  /** Marks the flows to changed VIPs whose backend is not listed, and takes the mark off the others. */
  #markFlows(): void {
    const changed = this.#unmarked;
    if (changed.size === 0) return;
    this.#unmarked = new Map();
    const flows = this.#flows;
    const key = new FlowKey();
    const flow = new Flow();
    for (let slot = flows.nextUsed(0); slot < flows.capacity; slot = flows.nextUsed(slot + 1)) {
      if (!flows.readSlot(slot, key, flow) || flow.action !== ACTION_FORWARD) continue;
      const listed = changed.get(scopeOf(key.owner))?.find(key.destination);
      if (listed === undefined) continue;
      const isListed = listed.get(flow.outScope)?.find(flow.rewrite.destination) === true;
      const isMarked = ((flow.status >>> 8) & MARK_GONE) !== 0;
      if (isListed === isMarked) flows.mark(key, slot, MARK_GONE, !isListed);
    }
  }
}
