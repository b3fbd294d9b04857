import type { Ip } from '../core/ip.ts';
import { ACTION_RETURN, FLOW_ACTION_NAMES, Flow, type FlowActionName } from './flow-entry.ts';
import { FlowKey, protocolOf, scopeOf } from './flow-key.ts';
import type { FlowTable } from './flow-table.ts';
import { FLOW_STATE_NAMES, type FlowStateName, MARK_GONE } from './tcp-tracking.ts';
import { TICK_MS, ticksBetween } from './ticks.ts';

/** One entry of the flow table, for people and tests. A balanced flow has a `forward` and a `reverse` one. */
export interface FlowRecord {
  readonly kind: FlowActionName;
  readonly state: FlowStateName;
  /** Whether its backend has left the service. */
  readonly gone: boolean;
  /** What its packets carry: where they come in, and from whom to whom. */
  readonly scope: number;
  readonly protocol: number;
  readonly source: Ip;
  readonly destination: Ip;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** What they become. All zero for a `return` entry. */
  readonly outScope: number;
  readonly newSource: Ip;
  readonly newDestination: Ip;
  readonly newSourcePort: number;
  readonly newDestinationPort: number;
  /** Where packets of a `return` entry go; 0 for others. */
  readonly vtep: Ip;
  readonly vtepPort: number;
  /** Backends given up on before this one. */
  readonly attempt: number;
  /** How long ago the entry was made, and so its backend picked, in milliseconds. */
  readonly ageMs: number;
  /** How long neither direction was seen, in milliseconds. */
  readonly idleMs: number;
}

/** Copies of all entries, in slot order. Allocates; an entry that comes or goes meanwhile may be missed. */
export function* listFlows(table: FlowTable): Generator<FlowRecord> {
  for (let slot = 0; slot < table.capacity; slot++) {
    const flow = readFlow(table, slot);
    if (flow !== undefined) yield flow;
  }
}

/** A copy of the entry in `slot`, if there is one. */
export function readFlow(table: FlowTable, slot: number): FlowRecord | undefined {
  if (!table.isUsed(slot)) return undefined;
  const key = new FlowKey();
  const flow = new Flow();
  if (!table.readSlot(slot, key, flow)) return undefined;
  const { action, status, rewrite } = flow;
  const isReturn = action === ACTION_RETURN;
  return {
    kind: FLOW_ACTION_NAMES[action] ?? 'none',
    state: FLOW_STATE_NAMES[status & 0xff] ?? 'free',
    gone: ((status >>> 8) & MARK_GONE) !== 0,
    scope: scopeOf(key.owner),
    protocol: protocolOf(key.owner),
    source: key.source.toIp(),
    destination: key.destination.toIp(),
    sourcePort: key.ports >>> 16,
    destinationPort: key.ports & 0xffff,
    outScope: flow.outScope,
    newSource: rewrite.source.toIp(),
    newDestination: rewrite.destination.toIp(),
    newSourcePort: rewrite.sourcePort,
    newDestinationPort: rewrite.destinationPort,
    vtep: isReturn ? flow.vtep.toIp() : 0,
    vtepPort: isReturn ? flow.vtepPort : 0,
    attempt: flow.attempt,
    ageMs: ticksBetween(flow.made, table.now) * TICK_MS,
    idleMs: table.idleTicks(slot) * TICK_MS,
  };
}
