import fc from 'fast-check';
import { test } from 'tap';
import { AddressWords } from '../../src/core/address-words.ts';
import { formatIp, ipFromWords, parseIp } from '../../src/core/ip.ts';
import {
  Packet,
  PROTO_ICMP,
  PROTO_TCP,
  PROTO_UDP,
  TCP_ACK,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
} from '../../src/core/packet.ts';
import {
  ACTION_FORWARD,
  ACTION_RETURN,
  ACTION_REVERSE,
  Flow,
  NO_SLOT,
} from '../../src/routing-mesh/flow-entry.ts';
import { FlowKey, packOwner, packPorts } from '../../src/routing-mesh/flow-key.ts';
import { type FlowRecord, listFlows } from '../../src/routing-mesh/flow-listing.ts';
import { FLOW_WAYS, FlowTable, flowTableBytes } from '../../src/routing-mesh/flow-table.ts';
import {
  FLOW_CLOSING,
  FLOW_DATAGRAM,
  FLOW_ESTABLISHED,
  FLOW_ICMP,
  FLOW_STATE_NAMES,
  FLOW_SYN_SENT,
  type FlowStateName,
  flowIdleLimit,
  nextTcpStatus,
} from '../../src/routing-mesh/tcp-tracking.ts';
import { TICK_MS, toTicks } from '../../src/routing-mesh/ticks.ts';

const HASH_KEY = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
const START_MS = 1_790_000_000_000;

function makeTable(
  capacity: number,
  memory: Uint8Array = new Uint8Array(flowTableBytes(capacity)),
): FlowTable {
  const table = new FlowTable({ memory, capacity, hashKey: HASH_KEY });
  table.now = toTicks(START_MS);
  return table;
}

const addresses = {
  source: AddressWords.of(parseIp('255.255.255.240')),
  source6: AddressWords.of(parseIp('2001:db8::ffff:fff0')),
};

/** The key of flow number `index`: 0 and 2 differ in the family only, and neighbours in one field each. */
function keyOf(index: number): FlowKey {
  const key = new FlowKey();
  const protocol = index % 2 === 0 ? PROTO_TCP : PROTO_UDP;
  const ports = packPorts(40_000 + (index >> 2), 65_535);
  const isV6 = (index & 2) !== 0;
  const low = 0x0a00_0001 + (index >> 3);
  const destination = AddressWords.of(isV6 ? ipFromWords(1, 0, 0, low) : low);
  const owner = packOwner(0xff_ff00 + ((index >> 2) % 3), protocol);
  key.set(owner, isV6 ? addresses.source6 : addresses.source, destination, ports);
  return key;
}

interface ModelFlow {
  readonly keys: readonly number[];
  readonly state: number;
  lastSeenMs: number;
}

/** The table as one would write it with a Map and all the time in the world. */
class Model {
  readonly flows: Map<number, ModelFlow> = new Map();
  nowMs: number = START_MS;

  remainingMs(flow: ModelFlow): number {
    return flowIdleLimit(flow.state) * TICK_MS - (this.nowMs - flow.lastSeenMs);
  }

  find(key: number): ModelFlow | undefined {
    const flow = this.flows.get(key);
    if (flow === undefined || this.remainingMs(flow) >= 0) return flow;
    this.remove(flow);
    return undefined;
  }

  remove(flow: ModelFlow): void {
    for (const key of flow.keys) this.flows.delete(key);
  }
}

type Command =
  | { readonly op: 'pair'; readonly key: number; readonly other: number; readonly state: number }
  | { readonly op: 'return'; readonly key: number; readonly state: number }
  | { readonly op: 'touch' | 'remove'; readonly key: number }
  | { readonly op: 'advance'; readonly ms: number }
  | { readonly op: 'sweep'; readonly budget: number };

const KEYS = 24;
const key = fc.nat({ max: KEYS - 1 });
const state = fc.constantFrom(
  FLOW_SYN_SENT,
  FLOW_ESTABLISHED,
  FLOW_CLOSING,
  FLOW_DATAGRAM,
  FLOW_ICMP,
);
const commands: fc.Arbitrary<Command[]> = fc.array(
  fc.oneof(
    fc.record({ op: fc.constant('pair' as const), key, other: key, state }),
    fc.record({ op: fc.constant('return' as const), key, state }),
    fc.record({ op: fc.constantFrom('touch' as const, 'remove' as const), key }),
    fc.record({
      op: fc.constant('advance' as const),
      ms: fc.constantFrom(10, 20_000, 59_990, 130_000),
    }),
    fc.record({ op: fc.constant('sweep' as const), budget: fc.constantFrom(3, 64, 512) }),
  ),
  { maxLength: 120 },
);

/** Adds to both; checks that what made room, if anything, was nearest to its expiry. */
function insert(
  table: FlowTable,
  model: Model,
  number: number,
  keep: number,
  action: number,
): number {
  const evicted = table.evictions;
  const slot = table.insert(keyOf(number), action, keep);
  if (keep !== NO_SLOT && !table.isUsed(keep)) throw new Error('The half that was to stay is gone');
  const gone = missing(table, model);
  const shortest = Math.min(...[...model.flows.values()].map((flow) => model.remainingMs(flow)));
  for (const flow of gone) {
    const remaining = model.remainingMs(flow);
    if (remaining !== shortest) throw new Error(`Evicted ${remaining} ms, shortest ${shortest} ms`);
    if (remaining >= 0 && table.evictions !== evicted + 1) throw new Error('Not counted');
    model.remove(flow);
  }
  if (gone.size > 1) throw new Error(`${gone.size} flows made room for one`);
  return slot;
}

/** The flows that only the model has. */
function missing(table: FlowTable, model: Model): Set<ModelFlow> {
  const present = new Set([...listFlows(table)].map((flow) => flowName(flow)));
  const absent = [...model.flows].filter(([number]) => !present.has(nameOf(number)));
  return new Set(absent.map(([, flow]) => flow));
}

function nameOf(number: number): string {
  const { owner, source, destination, ports } = keyOf(number);
  const ends = [source, destination].map((address) => formatIp(address.toIp()));
  return [owner & 0xff_ffff, owner >>> 24, ...ends, ports >>> 16, ports & 0xffff].join();
}

function flowName(flow: FlowRecord): string {
  const { scope, protocol, source, destination, sourcePort, destinationPort } = flow;
  const ends = [formatIp(source), formatIp(destination)];
  return [scope, protocol, ...ends, sourcePort, destinationPort].join();
}

function run(table: FlowTable, model: Model, command: Command): void {
  switch (command.op) {
    case 'pair': {
      const { key: one, other } = command;
      if (one === other || model.find(one) || model.find(other)) return;
      table.find(keyOf(one));
      table.find(keyOf(other));
      const reverse = insert(table, model, one, NO_SLOT, ACTION_REVERSE);
      const forward = insert(table, model, other, reverse, ACTION_FORWARD);
      table.entries.link(forward, reverse);
      table.entries.setStatus(forward, command.state);
      const flow = { keys: [one, other], state: command.state, lastSeenMs: model.nowMs };
      for (const k of flow.keys) model.flows.set(k, flow);
      return;
    }
    case 'return': {
      if (model.find(command.key)) return;
      table.find(keyOf(command.key));
      const slot = insert(table, model, command.key, NO_SLOT, ACTION_RETURN);
      table.entries.setStatus(slot, command.state);
      model.flows.set(command.key, {
        keys: [command.key],
        state: command.state,
        lastSeenMs: model.nowMs,
      });
      return;
    }
    case 'touch': {
      const slot = table.find(keyOf(command.key));
      const flow = model.find(command.key);
      if ((slot === NO_SLOT) !== (flow === undefined)) throw new Error(`find(${command.key})`);
      if (flow === undefined) return;
      table.touch(slot);
      flow.lastSeenMs = model.nowMs;
      return;
    }
    case 'remove': {
      const slot = table.find(keyOf(command.key));
      const flow = model.find(command.key);
      if (flow === undefined) return;
      table.remove(slot);
      model.remove(flow);
      return;
    }
    case 'advance':
      model.nowMs += command.ms;
      table.now = toTicks(model.nowMs);
      return;
    case 'sweep':
      table.sweep(command.budget);
      for (const flow of missing(table, model)) {
        if (model.remainingMs(flow) >= 0) throw new Error('Swept before its time');
        model.remove(flow);
      }
      return;
  }
}

function checkSame(table: FlowTable, model: Model): void {
  for (let number = 0; number < KEYS; number++) {
    const slot = table.find(keyOf(number));
    const flow = model.find(number);
    if ((slot === NO_SLOT) !== (flow === undefined)) throw new Error(`Flow ${number} differs`);
    if (flow === undefined) continue;
    if (table.entries.status(slot) !== flow.state) throw new Error(`State of ${number} differs`);
    if (table.idleTicks(slot) * TICK_MS !== model.nowMs - flow.lastSeenMs)
      throw new Error('Idle time differs');
  }
  const flows = new Set(model.flows.values());
  const expected = [PROTO_TCP, PROTO_UDP].map(
    (protocol) => [...flows].filter(({ keys }) => protocolOf(keys.at(-1)!) === protocol).length,
  );
  const active = [PROTO_TCP, PROTO_UDP].map((protocol) => table.activeFlows(protocol));
  if (expected.join() !== active.join()) throw new Error(`Counts ${active}, expected ${expected}`);
  if ([...listFlows(table)].length !== model.flows.size) throw new Error('Entries without a flow');
}

function protocolOf(number: number): number {
  return keyOf(number).owner >>> 24;
}

/** A table that fills what it gives back: whoever reads it after all gets nonsense. */
function makeReleasingTable(capacity: number): FlowTable {
  const memory = new Uint8Array(flowTableBytes(capacity));
  const release = (offset: number, bytes: number): void => {
    memory.fill(0xee, offset, offset + bytes);
  };
  const table = new FlowTable({ memory, capacity, hashKey: HASH_KEY, release });
  table.now = toTicks(START_MS);
  return table;
}

// One set shows every eviction to the model; many sets show the hashing, and have pages to give back.
for (const capacity of [FLOW_WAYS, 512]) {
  test(`a table of ${capacity} slots does what a Map would`, (t) => {
    fc.assert(
      fc.property(commands, (list) => {
        const table = makeReleasingTable(capacity);
        const model = new Model();
        for (const command of list) run(table, model, command);
        checkSame(table, model);
      }),
      { numRuns: 300 },
    );
    t.end();
  });
}

// Idle limits: the state, how long it was quiet in seconds, whether it is still there.
for (const [name, quietS, isThere] of [
  ['syn-sent', 60, true],
  ['syn-sent', 61, false],
  ['established', 5 * 86_400, true],
  ['established', 5 * 86_400 + 1, false],
  ['closing', 120, true],
  ['closing', 121, false],
  ['datagram', 180, true],
  ['datagram', 181, false],
  ['icmp', 30, true],
  ['icmp', 31, false],
  ['fragments', 30, true],
  ['fragments', 31, false],
] as const) {
  test(`a flow in ${name} ${isThere ? 'survives' : 'does not survive'} ${quietS} quiet seconds`, (t) => {
    for (const how of ['find', 'sweep']) {
      const table = makeTable(64);
      const slot = table.insert(keyOf(1), ACTION_RETURN, NO_SLOT);
      table.entries.setStatus(slot, FLOW_STATE_NAMES.indexOf(name));
      table.now += toTicks(quietS * 1000);
      if (how === 'find') t.equal(table.find(keyOf(1)) !== NO_SLOT, isThere);
      else t.equal(table.sweep(64), isThere ? 0 : 1);
      t.equal(table.isUsed(slot), isThere);
    }
    t.end();
  });
}

test('nextUsed() finds every used slot, and no other', (t) => {
  const table = makeTable(64);
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(40)), (numbers) => {
      for (let slot = 0; slot < 64; slot++) if (table.isUsed(slot)) table.remove(slot);
      for (const number of numbers) table.insert(keyOf(number), ACTION_RETURN, NO_SLOT);
      const found: number[] = [];
      for (let slot = table.nextUsed(0); slot < 64; slot = table.nextUsed(slot + 1)) {
        found.push(slot);
      }
      const used = Array.from({ length: 64 }, (_, slot) => slot).filter((s) => table.isUsed(s));
      return JSON.stringify(found) === JSON.stringify(used) && table.nextUsed(64) === 64;
    }),
  );
  t.end();
});

test('a flood of half-open flows does not evict an idle established one', (t) => {
  const table = makeTable(64);
  const established = table.insert(keyOf(0), ACTION_RETURN, NO_SLOT);
  table.entries.setStatus(established, FLOW_ESTABLISHED);
  table.now += toTicks(4 * 86_400_000);
  for (let number = 1; number < 5000; number++) {
    const slot = table.insert(keyOf(number), ACTION_RETURN, NO_SLOT);
    table.entries.setStatus(slot, FLOW_SYN_SENT);
  }
  t.not(table.find(keyOf(0)), NO_SLOT);
  t.equal(table.evictions, 5000 - 64);
  t.end();
});

test('a wall clock set back does not keep dead flows', (t) => {
  const table = makeTable(64);
  const slot = table.insert(keyOf(0), ACTION_RETURN, NO_SLOT);
  table.entries.setStatus(slot, FLOW_DATAGRAM);
  table.now -= toTicks(200 * 86_400_000);
  t.equal(table.sweep(64), 0);
  table.now += toTicks(181_000);
  t.equal(table.sweep(64), 1);
  t.end();
});

// status before (state and who has sent a FIN), segment, who sent it, status after
for (const [before, flags, side, after] of [
  ['syn-sent', TCP_SYN, 'client', 'syn-sent'],
  ['syn-sent', TCP_SYN | TCP_ACK, 'server', 'established'],
  ['syn-sent', TCP_ACK, 'client', 'established'], // the SYN-ACK took another way
  ['syn-sent', TCP_RST | TCP_ACK, 'server', 'closing'],
  ['established', TCP_ACK, 'client', 'established'],
  ['established', TCP_SYN | TCP_ACK, 'server', 'established'],
  ['established', TCP_FIN | TCP_ACK, 'client', 'established client-fin'],
  ['established', TCP_FIN | TCP_ACK, 'server', 'established server-fin'],
  ['established client-fin', TCP_FIN | TCP_ACK, 'client', 'established client-fin'],
  ['established client-fin', TCP_FIN | TCP_ACK, 'server', 'closing client-fin server-fin'],
  ['established server-fin', TCP_ACK, 'server', 'established server-fin'], // half-closed may last for days
  ['established gone', TCP_FIN | TCP_ACK, 'server', 'established server-fin gone'],
  ['established', TCP_RST, 'client', 'closing'],
  ['closing', TCP_ACK, 'server', 'closing'],
  ['closing', TCP_SYN | TCP_ACK, 'server', 'closing'],
] as const) {
  const names = Object.entries({ SYN: TCP_SYN, FIN: TCP_FIN, RST: TCP_RST, ACK: TCP_ACK });
  const segment = names
    .filter(([, bit]) => (flags & bit) !== 0)
    .map(([name]) => name)
    .join('-');
  test(`nextTcpStatus() maps ${before} + ${segment} from the ${side} to ${after}`, (t) => {
    t.equal(nextTcpStatus(statusOf(before), flags, side === 'client'), statusOf(after));
    t.end();
  });
}

function statusOf(text: string): number {
  const [stateName = '', ...marks] = text.split(' ');
  const bits = marks.map((mark) => ({ 'client-fin': 1, 'server-fin': 2, gone: 4 })[mark] ?? 0);
  const stateNumber = FLOW_STATE_NAMES.indexOf(stateName as FlowStateName);
  return stateNumber | (bits.reduce((sum, bit) => sum | bit, 0) << 8);
}

/** Where a table of 64 slots has its tags and entries. */
const SETS = 2048;
const ENTRIES = SETS + (64 / FLOW_WAYS) * 16;
const ENTRY_BYTES = 128;

function tagAt(slot: number): number {
  return SETS + Math.floor(slot / FLOW_WAYS) * 16 + 8 + (slot % FLOW_WAYS);
}

/** A table with a pair and a return flow, as a stopped agent leaves it. */
function leftBehind(): { memory: Uint8Array; slots: number[] } {
  const memory = new Uint8Array(flowTableBytes(64));
  const table = makeTable(64, memory);
  const reverse = table.insert(keyOf(0), ACTION_REVERSE, NO_SLOT);
  const forward = table.insert(keyOf(2), ACTION_FORWARD, reverse);
  table.entries.link(forward, reverse);
  table.entries.setStatus(forward, FLOW_ESTABLISHED);
  const back = table.insert(keyOf(3), ACTION_RETURN, NO_SLOT);
  table.entries.setStatus(back, FLOW_DATAGRAM);
  const packet = new Packet();
  packet.protocol = PROTO_TCP;
  packet.tcpFlags = TCP_FIN;
  const flow = new Flow();
  table.read(keyOf(2), flow);
  table.observe(keyOf(2), flow, packet, true);
  return { memory, slots: [forward, reverse, back] };
}

test('a table found in memory goes on, with the hash key that it was made with', (t) => {
  const { memory, slots } = leftBehind();
  const table = new FlowTable({ memory, capacity: 64, hashKey: new Uint8Array(8) });
  table.now = toTicks(START_MS + 1000);
  t.equal(table.attached, true);
  t.same(
    [2, 0, 3].map((number) => table.find(keyOf(number))),
    slots,
  );
  t.equal(table.entries.status(slots[1]!), statusOf('established client-fin'));
  t.same(
    [PROTO_TCP, PROTO_UDP, PROTO_ICMP].map((protocol) => table.activeFlows(protocol)),
    [1, 1, 0],
  );
  t.end();
});

test('memory of another shape is made a new table', (t) => {
  for (const damage of [0, 4, 8]) {
    const { memory } = leftBehind();
    memory[damage]! ^= 0xff;
    const table = makeTable(64, memory);
    t.equal(table.attached, false);
    t.same([...listFlows(table)], []);
  }
  t.equal(makeTable(32, leftBehind().memory).attached, false, 'another capacity');
  t.end();
});

test('no damage to the entries makes a table that breaks', (t) => {
  const { memory } = leftBehind();
  const damage = fc.array(
    fc.tuple(fc.integer({ min: 64, max: memory.length - 1 }), fc.nat({ max: 255 })),
    { maxLength: 40 },
  );
  const intoUsed = fc.array(
    fc.tuple(fc.nat({ max: 2 }), fc.nat({ max: ENTRY_BYTES - 1 }), fc.nat({ max: 255 })),
    { maxLength: 8 },
  );
  fc.assert(
    fc.property(damage, intoUsed, commands, (anywhere, used, list) => {
      const { memory: damaged, slots } = leftBehind();
      for (const [at, byte] of anywhere) damaged[at] = byte;
      for (const [which, at, byte] of used)
        damaged[ENTRIES + slots[which]! * ENTRY_BYTES + at] = byte;
      const table = makeTable(64, damaged);
      for (const { kind } of listFlows(table))
        t.ok(['forward', 'reverse', 'return'].includes(kind));
      for (let slot = 0; slot < 64; slot++) if (table.isUsed(slot)) table.remove(slot);
      t.same([...listFlows(table)], []);
      t.same(
        [PROTO_TCP, PROTO_UDP].map((protocol) => table.activeFlows(protocol)),
        [0, 0],
      );
      const model = new Model();
      for (const command of list) if (command.op !== 'pair') run(table, model, command);
    }),
    { numRuns: 200 },
  );
  t.end();
});

test('a pair with one bad half is dropped whole', (t) => {
  for (const which of [0, 1]) {
    for (const damage of ['no tag', 'no pair', 'a return flow']) {
      const { memory, slots } = leftBehind();
      const slot = slots[which]!;
      if (damage === 'no tag') memory[tagAt(slot)] = 0;
      if (damage === 'no pair') memory[ENTRIES + slot * ENTRY_BYTES + 44] = slots[2]!;
      if (damage === 'a return flow') memory[ENTRIES + slot * ENTRY_BYTES + 18] = ACTION_RETURN;
      const table = makeTable(64, memory);
      t.equal(table.attached, true);
      t.same(
        slots.map((each) => table.isUsed(each)),
        [false, false, true],
        `half ${which} has ${damage}`,
      );
      t.equal(table.activeFlows(PROTO_TCP), 0);
    }
  }
  t.end();
});

test('one direction keeps the other', (t) => {
  const table = makeTable(64);
  const reverse = table.insert(keyOf(1), ACTION_REVERSE, NO_SLOT);
  const forward = table.insert(keyOf(3), ACTION_FORWARD, reverse);
  table.entries.link(forward, reverse);
  table.entries.setStatus(forward, FLOW_DATAGRAM);
  for (const [seen, quiet] of [
    [reverse, 3],
    [forward, 1],
  ] as const) {
    table.now += toTicks(170_000);
    table.touch(seen);
    table.now += toTicks(170_000);
    t.not(table.find(keyOf(quiet)), NO_SLOT);
    table.touch(seen);
  }
  t.end();
});

for (const [what, options, message] of [
  ['a capacity that is no power of two', { capacity: 96 }, /of 96 slots: expected a power of two/],
  ['a capacity below one set', { capacity: 4 }, /of 4 slots/],
  ['a fractional capacity', { capacity: 64.5 }, /of 64\.5 slots/],
  ['too little memory', { capacity: 128 }, /in 10368 bytes: expected at least 18688/],
  [
    'memory at an odd place',
    { memory: new Uint8Array(20_000).subarray(2) },
    /offset 2: expected a multiple of 4/,
  ],
  ['a short hash key', { hashKey: new Uint8Array(7) }, /hash key of 7 bytes: expected 8/],
] as const) {
  test(`a flow table refuses ${what}`, (t) => {
    const good = { memory: new Uint8Array(flowTableBytes(64)), capacity: 64, hashKey: HASH_KEY };
    t.throws(() => new FlowTable({ ...good, ...options }), { message });
    t.end();
  });
}
