import fc from 'fast-check';
import { test } from 'tap';
import { AddressWords } from '../../src/core/address-words.ts';
import { ipFromWords, ipWords, isIpv6, parseIp } from '../../src/core/ip.ts';
import {
  hashString,
  keyedAddressHash,
  keyedFlowHash,
  pickHash,
} from '../../src/routing-mesh/flow-hash.ts';
import {
  buildMaglevTable,
  MAGLEV_NONE,
  MAGLEV_SLOTS,
  type MaglevBackend,
} from '../../src/routing-mesh/maglev.ts';
import { Service } from '../../src/routing-mesh/services.ts';

function build(backends: readonly MaglevBackend[]): Uint16Array {
  const table = new Uint16Array(MAGLEV_SLOTS);
  buildMaglevTable(backends, table);
  return table;
}

function equals(count: number): MaglevBackend[] {
  return Array.from({ length: count }, (_, index) => ({
    id: `task-${String(index).padStart(3, '0')}`,
    weight: 1,
  }));
}

function slotsPerBackend(table: Uint16Array, count: number): number[] {
  const slots = new Array<number>(count).fill(0);
  for (const index of table) slots[index]! += 1;
  return slots;
}

test('keyedFlowHash() is HalfSipHash-1-3', (t) => {
  // The 16-byte vector of Linux's lib/siphash_kunit.c (32-bit): key 00..07, message 00..0f.
  const key = { low: 0x03020100, high: 0x07060504 };
  const hash = keyedFlowHash(key, 0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c);
  t.equal(hash >>> 0, 0x8b31d501);
  const address = new AddressWords();
  address.set(0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c);
  t.equal(keyedAddressHash(key, address), hash);
  const other = { low: 0x03020101, high: 0x07060504 };
  t.not(keyedFlowHash(other, 0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c), hash);
  t.end();
});

/** MurmurHash3_x86_32 as its author wrote it: over bytes, with exact 32-bit products. */
function murmur3(bytes: Uint8Array): number {
  const multiply = (a: number, b: number): number => Number((BigInt(a) * BigInt(b)) % 2n ** 32n);
  const rotate = (a: number, by: number): number => ((a << by) | (a >>> (32 - by))) >>> 0;
  let hash = 0;
  for (let at = 0; at < bytes.length; at += 4) {
    const word = new DataView(bytes.buffer).getUint32(at, true);
    const k = multiply(rotate(multiply(word, 0xcc9e2d51), 15), 0x1b873593);
    hash = (multiply(rotate((hash ^ k) >>> 0, 13), 5) + 0xe6546b64) % 2 ** 32;
  }
  hash = (hash ^ bytes.length) >>> 0;
  hash = multiply((hash ^ (hash >>> 16)) >>> 0, 0x85ebca6b);
  hash = multiply((hash ^ (hash >>> 13)) >>> 0, 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

test('pickHash() is MurmurHash3 of little-endian words: three of IPv4, nine of IPv6', (t) => {
  // "test", seed 0, from the reference implementation: the oracle is right, too.
  t.equal(murmur3(new TextEncoder().encode('test')), 0xba6bd213);
  const word = fc.integer({ min: 0, max: 0xffff_ffff });
  const ipv6 = fc.tuple(word, word, word, word).map((words) => ipFromWords(...words));
  const ends = fc.oneof(fc.tuple(word, word), fc.tuple(ipv6, ipv6));
  fc.assert(
    fc.property(ends, word, ([client, vip], portAndProtocol) => {
      const words = [client, vip].flatMap((ip) => (isIpv6(ip) ? ipWords(ip) : [ip]));
      const bytes = new Uint8Array(Int32Array.from([...words, portAndProtocol]).buffer);
      const hash = pickHash(AddressWords.of(client), AddressWords.of(vip), portAndProtocol | 0);
      return hash === (murmur3(bytes) | 0);
    }),
  );
  t.end();
});

test('hashString() tells seeds and strings apart', (t) => {
  const hashes = new Set<number>();
  for (const { id } of equals(1000)) hashes.add(hashString(id, 0)).add(hashString(id, 1));
  t.ok(hashes.size >= 1999, `${hashes.size} of 2000 hashes are distinct`);
  t.end();
});

test('a hundred equal backends differ by one slot at most', (t) => {
  const slots = slotsPerBackend(build(equals(100)), 100);
  t.ok(Math.max(...slots) - Math.min(...slots) <= 1);
  t.equal(
    slots.reduce((sum, count) => sum + count),
    MAGLEV_SLOTS,
  );
  t.end();
});

test('when one of ten leaves, few slots of the others move', (t) => {
  const before = equals(10);
  const full = build(before);
  for (const [gone, { id }] of before.entries()) {
    const after = before.filter((_, index) => index !== gone);
    const reduced = build(after);
    let moved = 0;
    for (let slot = 0; slot < MAGLEV_SLOTS; slot++) {
      const owner = before[full[slot]!]!.id;
      if (owner !== id && owner !== after[reduced[slot]!]!.id) moved += 1;
    }
    t.ok(moved / MAGLEV_SLOTS < 0.02, `${moved} slots moved when ${id} left`);
  }
  t.end();
});

test('slots are in proportion to weights, and every slot has an owner', (t) => {
  const weights = fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(weights, (list) => {
      const total = list.reduce((sum, weight) => sum + weight, 0);
      const backends = list.map((weight, index) => ({
        id: `b${String(index).padStart(2, '0')}`,
        weight,
      }));
      const table = build(backends);
      if (total === 0) return table.every((index) => index === MAGLEV_NONE);
      const slots = slotsPerBackend(table, list.length);
      return list.every((weight, index) => {
        const fair = (MAGLEV_SLOTS * weight) / total;
        return Math.abs(slots[index]! - fair) <= 1 + list.length;
      });
    }),
    { numRuns: 40 },
  );
  t.end();
});

test('nodes that learn the same set in any order build the same table', (t) => {
  const backends = equals(20).map(({ id, weight }, index) => ({
    id,
    weight,
    address: 0x0a000002 + index,
    scope: 4096,
    state: 'active' as const,
  }));
  const spec = { scope: 4096, vip: 0x0a0000fe, gateway: 0x0a000001, backends };
  const one = new Service(spec, undefined);
  const other = new Service({ ...spec, backends: [...backends].reverse() }, undefined);
  for (let hash = 0; hash < MAGLEV_SLOTS; hash++) {
    if (one.pick(hash, 0)?.id !== other.pick(hash, 0)?.id) t.fail(`slot ${hash} differs`);
  }
  t.equal(
    one.status().reduce((sum, { newFlows }) => sum + newFlows, 0),
    MAGLEV_SLOTS,
  );
  // Golden: what this version picks, the next one must pick as well, or a rolling upgrade cuts flows.
  t.same(
    [0, 1, 2, 8_190, 16_380].map((hash) => one.pick(hash, 0)?.id),
    ['task-016', 'task-009', 'task-017', 'task-019', 'task-016'],
  );
  t.end();
});

test('successive attempts go through every backend once', (t) => {
  const backends = equals(7).map(({ id, weight }, index) => ({
    id,
    weight,
    address: index + 1,
    scope: 4096,
    state: index === 3 ? ('draining' as const) : ('active' as const),
  }));
  const service = new Service({ scope: 4096, vip: 9, gateway: 8, backends }, undefined);
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0xffff_ffff }), (hash) => {
      const picked = [0, 1, 2, 3, 4, 5].map((attempt) => service.pick(hash, attempt)?.id);
      const again = service.pick(hash, 6)?.id;
      return new Set(picked).size === 6 && !picked.includes('task-003') && again === picked[0];
    }),
  );
  t.end();
});

for (const [what, change, message] of [
  ['twice the same ID', { id: 'b' }, /Cannot add backend b to service 10\.0\.0\.254 .* twice/],
  ['a negative weight', { weight: -1 }, /Cannot give backend a .* the weight -1/],
  [
    'a backend of another family',
    { address: parseIp('fd00::1') },
    /Cannot give backend a .* the address fd00::1: expected an IPv4 address/,
  ],
  ['an infinite weight', { weight: Number.POSITIVE_INFINITY }, /the weight Infinity/],
] as const) {
  test(`a service refuses ${what}`, (t) => {
    const good = { id: 'a', address: 1, scope: 1, weight: 1, state: 'active' as const };
    const backends = [
      { ...good, ...change },
      { ...good, id: 'b' },
    ];
    const spec = { scope: 1, vip: 0x0a0000fe, gateway: 2, backends };
    t.throws(() => new Service(spec, undefined), { message });
    t.end();
  });
}

test('a service refuses a gateway of another family', (t) => {
  const spec = { scope: 1, vip: parseIp('fd00::fe'), gateway: parseIp('10.0.0.1'), backends: [] };
  const message =
    /the gateway of service fd00::fe .* address 10\.0\.0\.1: expected an IPv6 address/;
  t.throws(() => new Service(spec, undefined), { message });
  t.end();
});
