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
  /** Different for each thread. */
  readonly seed: number;
  readonly rounds: number;
  /** Flows that the threads fight for. */
  readonly flows: number;
  /** Flows of this thread's own, which it alone makes and removes. */
  readonly ownFlows: number;
  /** How much the table's clock goes on with each round. */
  readonly ticksPerRound: number;
}

/** What one thread saw. */
export interface HammerResult {
  readonly found: number;
  readonly made: number;
  readonly removed: number;
  /** Copies of entries whose fields were not of one flow. */
  readonly torn: number;
  /** Own flows that were not there though they should be, or the other way round. */
  readonly wrong: number;
}

/** Where the numbers of the first thread's own flows start, and the distance to the next one's. */
const OWN_FLOWS = 1_000;

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

/** One thread that works on a shared table at random, and checks every copy that it gets. */
class Hammer {
  readonly #task: HammerTask;
  readonly #table: FlowTable;
  readonly #copy = new Flow();
  readonly #own = new Set<number>();
  #found = 0;
  #made = 0;
  #removed = 0;
  #torn = 0;
  #wrong = 0;

  constructor(task: HammerTask) {
    this.#task = task;
    const { memory, capacity, sharing } = task;
    const bytes = new Uint8Array(memory);
    this.#table = new FlowTable({ memory: bytes, capacity, hashKey: new Uint8Array(8), sharing });
  }

  run(): HammerResult {
    const { seed, rounds, flows, ownFlows, ticksPerRound } = this.#task;
    let state = seed;
    for (let round = 0; round < rounds; round++) {
      state = Math.imul(state ^ (state >>> 15), 0x2c1b_3c6d) + round;
      this.#table.now += ticksPerRound;
      const number = state >>> 4;
      const action = (state >>> 3) & 1 ? ACTION_FORWARD : ACTION_REVERSE;
      if ((state & 7) === 7) this.#table.sweep(16);
      else if (ownFlows > 0 && (state & 7) > 4) this.#useOwn(number % ownFlows, action);
      else this.#use(number % flows, action, (state & 7) === 0);
    }
    return {
      found: this.#found,
      made: this.#made,
      removed: this.#removed,
      torn: this.#torn,
      wrong: this.#wrong,
    };
  }

  #use(flow: number, action: number, removes: boolean): void {
    const key = keyOf(flow, action);
    if (!this.#read(flow, key)) {
      if (make(this.#table, flow, rewriteOf(flow))) this.#made += 1;
    } else if (removes) {
      remove(this.#table, key);
      this.#removed += 1;
    }
  }

  /** What nobody else touches is there from when it is made until it is removed. */
  #useOwn(number: number, action: number): void {
    const flow = this.#task.seed * OWN_FLOWS + number;
    const key = keyOf(flow, action);
    if (this.#read(flow, key) !== this.#own.has(flow)) this.#wrong += 1;
    if (this.#own.delete(flow)) {
      remove(this.#table, key);
    } else {
      this.#own.add(flow);
      make(this.#table, flow, rewriteOf(flow));
    }
  }

  #read(flow: number, key: FlowKey): boolean {
    const copy = this.#copy;
    if (!this.#table.read(key, copy)) return false;
    this.#found += 1;
    if (!isOf(flow, copy, rewriteOf(flow))) this.#torn += 1;
    this.#table.touch(copy.slot);
    return true;
  }
}

/** Does what `task` says, and tells what came of it. */
export function hammer(task: HammerTask): HammerResult {
  return new Hammer(task).run();
}
