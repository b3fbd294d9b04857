import type { Packet } from '../core/packet.ts';
import {
  ACTION_FORWARD,
  ACTION_RETURN,
  type FlowEntries,
  FlowKey,
  NO_SLOT,
  packOwner,
} from './flow-entry.ts';
import { FlowTable, flowTableBytes } from './flow-table.ts';
import { Rewrite } from './nat.ts';
import { FLOW_FRAGMENTS } from './tcp-tracking.ts';
import type { Verdict } from './verdict.ts';

/** Fragmented datagrams under way at once. */
const DATAGRAMS_MAX = 1024;

/**
 * What became of first fragments, for the later ones, which carry no ports. A flow table whose keys hold the
 * datagram's identification in place of ports. BOUNDED by {@link DATAGRAMS_MAX}: the one that
 * was quiet for longest makes room. Lives as long as the agent; after the constructor it allocates nothing.
 */
export class FragmentTable {
  readonly #table: FlowTable;
  readonly #key = new FlowKey();
  readonly #rewrite = new Rewrite();

  /** @param hashKey - As for {@link FlowTable}. */
  constructor(hashKey: Uint8Array) {
    const memory = new Uint8Array(flowTableBytes(DATAGRAMS_MAX));
    this.#table = new FlowTable({ memory, capacity: DATAGRAMS_MAX, hashKey });
  }

  /** The fields of what {@link find} found: a forward or a return entry. */
  get entries(): FlowEntries {
    return this.#table.entries;
  }

  /** The slot of the datagram that the later fragment `packet` belongs to, or {@link NO_SLOT}; `now` in ticks. */
  find(packet: Packet, scope: number, now: number): number {
    this.#table.now = now;
    this.#setKey(packet, scope, packet.source | 0, packet.destination | 0);
    return this.#table.find(this.#key);
  }

  /**
   * Keeps the fate of the first fragment `packet`, if it went on by the mesh's decision.
   *
   * @param source - Its source before NAT, as a signed integer.
   * @param destination - Its destination before NAT, as a signed integer.
   * @param now - In ticks.
   */
  remember(
    packet: Packet,
    scope: number,
    source: number,
    destination: number,
    verdict: Verdict,
    now: number,
  ): void {
    if (verdict.kind !== 'forward' && verdict.kind !== 'viaVtep') return;
    const table = this.#table;
    table.now = now;
    this.#setKey(packet, scope, source, destination);
    const known = table.find(this.#key);
    if (known !== NO_SLOT) table.remove(known);
    const action = verdict.kind === 'forward' ? ACTION_FORWARD : ACTION_RETURN;
    const slot = table.insert(this.#key, action, NO_SLOT);
    table.entries.setStatus(slot, FLOW_FRAGMENTS);
    table.entries.setVtep(slot, verdict.vtep | 0, verdict.vtepPort);
    this.#rewrite.source = packet.source | 0;
    this.#rewrite.destination = packet.destination | 0;
    table.entries.setRewrite(slot, this.#rewrite, verdict.outScope);
  }

  #setKey(packet: Packet, scope: number, source: number, destination: number): void {
    const owner = packOwner(scope, packet.protocol);
    this.#key.set(owner, source, destination, packet.identification);
  }
}
