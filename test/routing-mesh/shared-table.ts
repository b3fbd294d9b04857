import { AddressWords } from '../../src/core/address-words.ts';
import { ipFromWords } from '../../src/core/ip.ts';
import { PROTO_TCP, PROTO_UDP } from '../../src/core/packet.ts';
import {
  ACTION_FORWARD,
  ACTION_REVERSE,
  Flow,
  NO_SLOT,
} from '../../src/routing-mesh/flow-entry.ts';
import { FlowKey, packOwner, packPorts } from '../../src/routing-mesh/flow-key.ts';
import { type FlowSharing, FlowTable } from '../../src/routing-mesh/flow-table.ts';
import { Rewrite } from '../../src/routing-mesh/nat.ts';
import { FLOW_DATAGRAM } from '../../src/routing-mesh/tcp-tracking.ts';

/** What one thread is told. */
export interface HammerTask {
  readonly memory: SharedArrayBuffer;
  readonly capacity: number;
  readonly sharing: FlowSharing;
  readonly seed: number;
  readonly rounds: number;
}

/** What one thread saw. */
export interface HammerResult {
  readonly found: number;
  readonly made: number;
  readonly removed: number;
  /** Copies of entries whose fields were not of one flow. */
  readonly torn: number;
}

/** Flows that the threads fight for: many more than the table has room for. */
const FLOWS = 400;

/** Direction `action` of flow number `flow`: all fields follow from the number. */
function keyOf(flow: number, action: number): FlowKey {
  const key = new FlowKey();
  const protocol = flow % 2 === 0 ? PROTO_TCP : PROTO_UDP;
  const source = AddressWords.of(flow % 4 < 2 ? flow : ipFromWords(flow, flow, 1, flow));
  const destination = new AddressWords();
  destination.copy(source);
  destination.w3 = flow + 1000;
  key.set(packOwner(4096 + action, protocol), source, destination, packPorts(flow, flow + 1));
  return key;
}

function rewriteOf(flow: number): Rewrite {
  const rewrite = new Rewrite();
  rewrite.source.copy(keyOf(flow, ACTION_FORWARD).destination);
  rewrite.destination.copy(keyOf(flow, ACTION_FORWARD).source);
  return Object.assign(rewrite, { sourcePort: flow, destinationPort: flow + 7 });
}

function isOf(flow: number, copy: Flow, rewrite: Rewrite): boolean {
  return (
    copy.outScope === flow &&
    copy.attempt === flow % 251 &&
    copy.rewrite.sourcePort === rewrite.sourcePort &&
    copy.rewrite.destinationPort === rewrite.destinationPort &&
    copy.rewrite.source.equals(rewrite.source) &&
    copy.rewrite.destination.equals(rewrite.destination)
  );
}

/** Makes both directions of `flow`, as the balancer does. */
function make(table: FlowTable, flow: number, rewrite: Rewrite): boolean {
  const { entries } = table;
  const forwardKey = keyOf(flow, ACTION_FORWARD);
  table.lock();
  const isNew = table.find(forwardKey) === NO_SLOT;
  if (isNew) {
    const reverse = table.insert(keyOf(flow, ACTION_REVERSE), ACTION_REVERSE, NO_SLOT);
    const forward = table.insert(forwardKey, ACTION_FORWARD, reverse);
    entries.link(forward, reverse);
    entries.setStatus(forward, FLOW_DATAGRAM);
    for (const slot of [forward, reverse]) {
      entries.setAttempt(slot, flow % 251);
      entries.setRewrite(slot, rewrite, flow);
    }
  }
  table.unlock();
  return isNew;
}

function remove(table: FlowTable, key: FlowKey): void {
  table.lock();
  const slot = table.find(key);
  if (slot !== NO_SLOT) table.remove(slot);
  table.unlock();
}

/** Reads, makes and removes flows of a shared table at random, and checks every copy that it gets. */
export function hammer({ memory, capacity, sharing, seed, rounds }: HammerTask): HammerResult {
  const bytes = new Uint8Array(memory);
  const table = new FlowTable({ memory: bytes, capacity, hashKey: new Uint8Array(8), sharing });
  const copy = new Flow();
  const seen = { found: 0, made: 0, removed: 0, torn: 0 };
  let state = seed;
  for (let round = 0; round < rounds; round++) {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b_3c6d) + round;
    const flow = (state >>> 4) % FLOWS;
    const rewrite = rewriteOf(flow);
    const key = keyOf(flow, (state >>> 3) & 1 ? ACTION_FORWARD : ACTION_REVERSE);
    if (!table.read(key, copy)) {
      if (make(table, flow, rewrite)) seen.made += 1;
      continue;
    }
    seen.found += 1;
    if (!isOf(flow, copy, rewrite)) seen.torn += 1;
    table.touch(copy.slot);
    if ((state & 7) !== 0) continue;
    remove(table, key);
    seen.removed += 1;
  }
  return seen;
}
