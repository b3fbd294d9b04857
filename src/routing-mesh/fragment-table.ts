import { PROTO_IPV6_FRAGMENT } from '../core/ipv6-headers.ts';
import type { Packet } from '../core/packet.ts';
import { ACTION_FORWARD, ACTION_RETURN, type Flow, NO_SLOT } from './flow-entry.ts';
import { FlowKey, packOwner, scopeOf } from './flow-key.ts';
import { FlowTable, type FlowTableOptions, flowTableBytes } from './flow-table.ts';
import type { Rewrite } from './nat.ts';
import { FLOW_FRAGMENTS } from './tcp-tracking.ts';
import type { Verdict } from './verdict.ts';

/** Fragmented datagrams under way at once. */
const DATAGRAMS_MAX = 1024;
/** Bytes of memory that a {@link FragmentTable} needs, all zero for a new one. */
export const FRAGMENT_TABLE_BYTES: number = flowTableBytes(DATAGRAMS_MAX);

/**
 * What became of first fragments, for the later ones, which carry no ports. A flow table whose keys hold the
 * datagram's identification in place of ports. BOUNDED by {@link DATAGRAMS_MAX}: the one that
 * was quiet for longest makes room. Threads that share its memory find each other's datagrams. Lives as long
 * as the agent; after the constructor it allocates nothing.
 */
export class FragmentTable {
  readonly #table: FlowTable;
  readonly #key = new FlowKey();

  /** @param options - As for {@link FlowTable}; {@link FRAGMENT_TABLE_BYTES} of memory. */
  constructor(options: Omit<FlowTableOptions, 'capacity'>) {
    this.#table = new FlowTable({ ...options, capacity: DATAGRAMS_MAX });
  }

  /**
   * Copies what became of the datagram that the later fragment `packet` belongs to: a forward or a return
   * entry.
   *
   * @param key - The key of the packet.
   * @param now - In ticks.
   * @returns whether its first fragment was seen
   */
  read(packet: Packet, key: FlowKey, now: number, flow: Flow): boolean {
    this.#table.now = now;
    this.#setKey(packet, key);
    return this.#table.read(this.#key, flow);
  }

  /**
   * Keeps the fate of the first fragment `packet`, if it went on by the mesh's decision.
   *
   * @param packet - As it goes on.
   * @param key - The key of the packet as it came.
   * @param rewritten - What it became, if it was rewritten.
   * @param now - In ticks.
   */
  remember(packet: Packet, key: FlowKey, rewritten: Rewrite, verdict: Verdict, now: number): void {
    if (verdict.kind !== 'forward' && verdict.kind !== 'viaVtep') return;
    const table = this.#table;
    table.now = now;
    this.#setKey(packet, key);
    table.lock();
    const known = table.find(this.#key);
    if (known !== NO_SLOT) table.remove(known);
    const action = verdict.kind === 'forward' ? ACTION_FORWARD : ACTION_RETURN;
    const slot = table.insert(this.#key, action, NO_SLOT);
    table.entries.setStatus(slot, FLOW_FRAGMENTS);
    if (action === ACTION_FORWARD) table.entries.setRewrite(slot, rewritten, verdict.outScope);
    else table.entries.setVtep(slot, verdict.vtep, verdict.vtepPort);
    table.unlock();
  }

  /** IPv6 knows a datagram by addresses and identification alone (RFC 8200 section 4.5). */
  #setKey(packet: Packet, key: FlowKey): void {
    const protocol = packet.family === 6 ? PROTO_IPV6_FRAGMENT : packet.protocol;
    const owner = packOwner(scopeOf(key.owner), protocol);
    this.#key.set(owner, key.source, key.destination, packet.identification);
  }
}
