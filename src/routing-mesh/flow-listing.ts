import type { Ipv4 } from '../core/address.ts';
import { FLOW_ACTION_NAMES, type FlowActionName, FlowKey, scopeOf } from './flow-entry.ts';
import type { FlowTable } from './flow-table.ts';
import { Rewrite } from './nat.ts';
import { FLOW_STATE_NAMES, type FlowStateName, MARK_GONE } from './tcp-tracking.ts';
import { TICK_MS } from './ticks.ts';

/** One entry of the flow table, for people and tests. A balanced flow has a `forward` and a `reverse` one. */
export interface FlowRecord {
  readonly kind: FlowActionName;
  readonly state: FlowStateName;
  /** Whether its backend has left the service. */
  readonly gone: boolean;
  /** What its packets carry: where they come in, and from whom to whom. */
  readonly scope: number;
  readonly protocol: number;
  readonly source: Ipv4;
  readonly destination: Ipv4;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** What they become. All zero for a `return` entry. */
  readonly outScope: number;
  readonly newSource: Ipv4;
  readonly newDestination: Ipv4;
  readonly newSourcePort: number;
  readonly newDestinationPort: number;
  /** Where packets of a `return` entry go. */
  readonly vtep: Ipv4;
  readonly vtepPort: number;
  /** Backends given up on before this one. */
  readonly attempt: number;
  /** How long neither direction was seen, in milliseconds. */
  readonly idleMs: number;
}

/** Copies of all entries, in slot order. Allocates; the table must not change meanwhile. */
export function* listFlows(table: FlowTable): Generator<FlowRecord> {
  const key = new FlowKey();
  const rewrite = new Rewrite();
  const { entries } = table;
  for (let slot = 0; slot < table.capacity; slot++) {
    if (!table.isUsed(slot)) continue;
    entries.readKey(slot, key);
    entries.readRewrite(slot, rewrite);
    const status = entries.status(slot);
    yield {
      kind: FLOW_ACTION_NAMES[entries.action(slot)] ?? 'none',
      state: FLOW_STATE_NAMES[status & 0xff] ?? 'free',
      gone: ((status >>> 8) & MARK_GONE) !== 0,
      scope: scopeOf(key.owner),
      protocol: key.owner >>> 24,
      source: key.source >>> 0,
      destination: key.destination >>> 0,
      sourcePort: key.ports >>> 16,
      destinationPort: key.ports & 0xffff,
      outScope: entries.outScope(slot),
      newSource: rewrite.source >>> 0,
      newDestination: rewrite.destination >>> 0,
      newSourcePort: rewrite.sourcePort,
      newDestinationPort: rewrite.destinationPort,
      vtep: entries.vtep(slot) >>> 0,
      vtepPort: entries.vtepPort(slot),
      attempt: entries.attempt(slot),
      idleMs: table.idleTicks(slot) * TICK_MS,
    };
  }
}
