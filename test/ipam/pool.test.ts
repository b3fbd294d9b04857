import fc from 'fast-check';
import { test } from 'tap';
import { formatIpv4, parseIpv4 } from '../../src/core/address.ts';
import type { Json } from '../../src/core/store.ts';
import { IpamError, type IpamErrorDetail } from '../../src/ipam/errors.ts';
import {
  allocateAddress,
  createPool,
  type PoolConfig,
  type PoolState,
  RECENTLY_RELEASED_MAX,
  releaseAddress,
  releaseHolder,
  usage,
} from '../../src/ipam/pool.ts';

/** The detail of the IpamError that `action` throws; fails on any other outcome. */
function refusal(action: () => unknown): IpamErrorDetail {
  try {
    action();
  } catch (error) {
    if (error instanceof IpamError) return error.detail;
    throw error;
  }
  throw new Error('Nothing was refused');
}

/** Takes `count` addresses, each for a holder of its own named after `prefix`. */
function take(
  pool: PoolState,
  count: number,
  prefix: string,
): { pool: PoolState; addresses: string[] } {
  const addresses: string[] = [];
  let state = pool;
  for (let i = 0; i < count; i += 1) {
    const taken = allocateAddress(state, { holder: `${prefix}${i}`, kind: 'task' });
    state = taken.pool;
    addresses.push(taken.address);
  }
  return { pool: state, addresses };
}

test('createPool() takes the first address as gateway, the second is given first', async (t) => {
  const pool = createPool({ subnet: '10.0.1.0/24' });
  t.equal(pool.gateway, '10.0.1.1');
  t.equal(pool.ipRange, '10.0.1.0/24');
  t.same(usage(pool), { capacity: 253, used: 0 });
  const vip = allocateAddress(pool, { holder: 'web', kind: 'vip' });
  t.equal(vip.address, '10.0.1.2');
  const task = allocateAddress(vip.pool, { holder: 'web.1', kind: 'task' });
  t.equal(task.address, '10.0.1.3', 'VIPs and tasks share the subnet, as in Swarm');
  t.same(usage(task.pool), { capacity: 253, used: 2 });
  t.same(usage(pool), { capacity: 253, used: 0 }, 'the state that went in is unchanged');
});

test('createPool() keeps gateway, IP range and auxiliary addresses apart', async (t) => {
  const pool = createPool({
    subnet: '10.1.0.0/16',
    gateway: '10.1.5.1',
    ipRange: '10.1.5.0/29',
    auxAddresses: { router: '10.1.5.2', far: '10.1.9.9' },
  });
  t.same(usage(pool), { capacity: 6, used: 0 }, '8 of the range, less the gateway and the router');
  const { addresses, pool: full } = take(pool, 6, 'task');
  t.same(
    addresses,
    [0, 3, 4, 5, 6, 7].map((host) => `10.1.5.${host}`),
    'the edges of a range inside the subnet are host addresses',
  );
  t.same(
    refusal(() => take(full, 1, 'more')),
    {
      code: 'POOL_EXHAUSTED',
      subnet: '10.1.0.0/16',
      capacity: 6,
    },
  );
  const fixed = allocateAddress(full, { holder: 'db', kind: 'task', address: '10.1.200.7' });
  t.equal(fixed.address, '10.1.200.7', 'by value, the whole subnet is open');
  t.same(usage(fixed.pool), { capacity: 6, used: 6 });
  const back = releaseAddress(fixed.pool, '10.1.200.7');
  t.equal(
    refusal(() => take(back, 1, 'more')).code,
    'POOL_EXHAUSTED',
    'an address outside of the range is not given unasked',
  );
});

for (const [name, config, expected] of [
  ['no CIDR', { subnet: '10.0.0.0' }, { code: 'SUBNET_INVALID', subnet: '10.0.0.0' }],
  ['host bits', { subnet: '10.0.1.5/24' }, { reason: /did you mean 10\.0\.1\.0\/24/ }],
  ['no room', { subnet: '10.0.1.0/31' }, { code: 'SUBNET_INVALID', reason: /\/30 or larger/ }],
  ['loopback', { subnet: '127.1.0.0/16' }, { code: 'SUBNET_INVALID', reason: /loopback/ }],
  ['multicast', { subnet: '192.0.0.0/2' }, { code: 'SUBNET_INVALID', reason: /multicast/ }],
  ['gateway: text', { gateway: 'first' }, { code: 'GATEWAY_INVALID', reason: /a\.b\.c\.d/ }],
  ['gateway: outside', { gateway: '10.0.2.1' }, { code: 'GATEWAY_INVALID' }],
  ['gateway: network', { gateway: '10.0.1.0' }, { code: 'GATEWAY_INVALID' }],
  ['gateway: broadcast', { gateway: '10.0.1.255' }, { code: 'GATEWAY_INVALID' }],
  ['range: text', { ipRange: '10.0.1.4-9' }, { code: 'IP_RANGE_INVALID' }],
  ['range: larger', { ipRange: '10.0.0.0/16' }, { code: 'IP_RANGE_INVALID', reason: /part of/ }],
  ['range: outside', { ipRange: '10.0.2.0/25' }, { code: 'IP_RANGE_INVALID' }],
  [
    'aux: is the gateway',
    { auxAddresses: { a: '10.0.1.1' } },
    { code: 'AUX_ADDRESS_INVALID', name: 'a', reason: 'the gateway has it' },
  ],
  [
    'aux: twice',
    { auxAddresses: { a: '10.0.1.9', b: '10.0.1.9' } },
    { name: 'b', reason: 'auxiliary address "a" has it' },
  ],
  ['aux: broadcast', { auxAddresses: { a: '10.0.1.255' } }, { code: 'AUX_ADDRESS_INVALID' }],
  ['aux: text', { auxAddresses: { a: '10.0.1.09' } }, { code: 'AUX_ADDRESS_INVALID' }],
] as const satisfies readonly (readonly [string, Partial<PoolConfig>, object])[]) {
  test(`createPool() refuses a configuration: ${name}`, async (t) => {
    t.match(
      refusal(() => createPool({ subnet: '10.0.1.0/24', ...config })),
      expected,
    );
  });
}

test('allocateAddress() by value refuses what is taken or no host address', async (t) => {
  const empty = createPool({ subnet: '10.0.1.0/24', auxAddresses: { nas: '10.0.1.7' } });
  const asked = { holder: 't1', kind: 'task', address: '10.0.1.50' } as const;
  const { pool } = allocateAddress(empty, asked);
  for (const [address, expected] of [
    ['10.0.1.50', { code: 'ADDRESS_IN_USE', address: '10.0.1.50', holder: 'task t1' }],
    ['10.0.1.1', { code: 'ADDRESS_IN_USE', address: '10.0.1.1', holder: 'the gateway' }],
    ['10.0.1.7', { code: 'ADDRESS_IN_USE', holder: 'auxiliary address "nas"' }],
    ['10.0.1.0', { code: 'ADDRESS_OUT_OF_RANGE', subnet: '10.0.1.0/24' }],
    ['10.0.1.255', { code: 'ADDRESS_OUT_OF_RANGE' }],
    ['10.0.2.5', { code: 'ADDRESS_OUT_OF_RANGE' }],
    ['10.0.1.256', { code: 'ADDRESS_INVALID', address: '10.0.1.256' }],
  ] as const) {
    t.match(
      refusal(() => allocateAddress(pool, { holder: 't2', kind: 'task', address })),
      expected,
      address,
    );
  }
  const next = allocateAddress(pool, { holder: 't2', kind: 'task' });
  t.equal(next.address, '10.0.1.2', 'an address by value does not move the search');
});

test('releaseAddress() refuses what has no holder', async (t) => {
  const pool = createPool({ subnet: '10.0.1.0/24', auxAddresses: { nas: '10.0.1.7' } });
  for (const address of ['10.0.1.1', '10.0.1.7', '10.0.1.8', '10.9.9.9']) {
    t.same(
      refusal(() => releaseAddress(pool, address)),
      {
        code: 'ADDRESS_NOT_ALLOCATED',
        address,
        subnet: '10.0.1.0/24',
      },
    );
  }
  t.throws(() => releaseAddress(pool, 'web'), RangeError);
});

test('releaseHolder() releases all that a holder has, and nothing that is reserved', async (t) => {
  let pool = createPool({ subnet: '10.0.1.0/24', auxAddresses: { web: '10.0.1.7' } });
  for (const holder of ['web', 'db', 'web']) {
    pool = allocateAddress(pool, { holder, kind: 'task' }).pool;
  }
  const released = releaseHolder(pool, 'web');
  t.same(
    released.allocations.map(([address, kind, holder]) => [formatIpv4(address), kind, holder]),
    [
      ['10.0.1.1', 'gateway', ''],
      ['10.0.1.3', 'task', 'db'],
      ['10.0.1.7', 'aux', 'web'],
    ],
  );
  t.equal(releaseHolder(released, 'web'), released, 'nothing to release: the same state');
  t.equal(releaseHolder(released, ''), released, 'the gateway has no holder');
});

test('a released address is the last resort, oldest release first', async (t) => {
  const { pool: full } = take(createPool({ subnet: '10.0.1.0/28' }), 13, 'old');
  const released = ['10.0.1.9', '10.0.1.3', '10.0.1.12'].reduce(releaseAddress, full);
  t.same(take(released, 3, 'new').addresses, ['10.0.1.9', '10.0.1.3', '10.0.1.12']);

  // Next-fit alone would give an address at once that is released just where the search stands.
  const held = allocateAddress(createPool({ subnet: '10.0.1.0/28' }), {
    holder: 'fixed',
    kind: 'task',
    address: '10.0.1.5',
  });
  const ahead = releaseHolder(take(held.pool, 3, 'task').pool, 'fixed');
  t.equal(ahead.cursor, parseIpv4('10.0.1.5'));
  t.same(take(ahead, 2, 'new').addresses, ['10.0.1.6', '10.0.1.7']);
  const asked = allocateAddress(ahead, { holder: 'x', kind: 'task', address: '10.0.1.5' });
  t.same(asked.pool.recentlyReleased, [], 'by value it is given at once');
});

test('a released address stays unused for RECENTLY_RELEASED_MAX releases', async (t) => {
  let { pool } = take(createPool({ subnet: '10.0.0.0/16' }), 1_000, 'task');
  pool = releaseAddress(pool, '10.0.0.5');
  for (let i = 0; i < RECENTLY_RELEASED_MAX - 1; i += 1)
    pool = releaseHolder(pool, `task${i + 10}`);
  t.equal(pool.recentlyReleased.length, RECENTLY_RELEASED_MAX);
  t.equal(pool.recentlyReleased[0], parseIpv4('10.0.0.5'));
  pool = releaseHolder(pool, 'task999');
  t.equal(pool.recentlyReleased.length, RECENTLY_RELEASED_MAX, 'the list is bounded');
  t.notOk(pool.recentlyReleased.includes(parseIpv4('10.0.0.5')));
});

type Step =
  | { readonly kind: 'take'; readonly holder: number; readonly host: number | undefined }
  | { readonly kind: 'release'; readonly pick: number }
  | { readonly kind: 'releaseHolder'; readonly holder: number };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant('take' as const),
        holder: fc.nat(9),
        host: fc.option(fc.nat(31), { nil: undefined, freq: 6 }),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant('release' as const), pick: fc.nat(99) }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('releaseHolder' as const), holder: fc.nat(9) }),
    },
  ),
  { maxLength: 120 },
);

const configs: fc.Arbitrary<PoolConfig> = fc.constantFrom<PoolConfig>(
  { subnet: '10.7.0.0/28' },
  { subnet: '10.7.0.0/30' },
  { subnet: '10.7.0.0/27', ipRange: '10.7.0.0/29' },
  {
    subnet: '10.7.0.0/27',
    ipRange: '10.7.0.24/29',
    auxAddresses: { a: '10.7.0.25', b: '10.7.0.2' },
  },
  { subnet: '10.7.0.0/28', gateway: '10.7.0.14', auxAddresses: { a: '10.7.0.1' } },
);

/** The rules, kept the slow way: a set of what may be given, and a map of what is. */
class Oracle {
  readonly held = new Map<string, string>();
  readonly hosts = new Set<string>();
  readonly range = new Set<string>();
  readonly reserved: Set<string>;

  constructor(config: PoolConfig, gateway: string) {
    this.reserved = new Set([gateway, ...Object.values(config.auxAddresses ?? {})]);
    const blockOf = (cidr: string): string[] => {
      const [base = '', prefix] = cidr.split('/');
      const size = 2 ** (32 - Number(prefix));
      return Array.from({ length: size }, (_, i) => formatIpv4(parseIpv4(base) + i));
    };
    for (const host of blockOf(config.subnet).slice(1, -1)) this.hosts.add(host);
    for (const host of blockOf(config.ipRange ?? config.subnet)) {
      if (this.hosts.has(host)) this.range.add(host);
    }
  }

  isFree(address: string): boolean {
    return this.hosts.has(address) && !this.held.has(address) && !this.reserved.has(address);
  }

  free(): string[] {
    return [...this.range].filter((address) => this.isFree(address));
  }
}

/** Applies one step to both, and throws where they differ. */
function applyStep(pool: PoolState, oracle: Oracle, step: Step): PoolState {
  if (step.kind === 'releaseHolder') {
    for (const [address, holder] of oracle.held) {
      if (holder === `h${step.holder}`) oracle.held.delete(address);
    }
    return releaseHolder(pool, `h${step.holder}`);
  }
  if (step.kind === 'release') {
    const address = [...oracle.held.keys()][step.pick % Math.max(1, oracle.held.size)];
    if (address === undefined) return pool;
    oracle.held.delete(address);
    return releaseAddress(pool, address);
  }
  const holder = `h${step.holder}`;
  const wanted =
    step.host === undefined ? undefined : formatIpv4(parseIpv4('10.7.0.0') + step.host);
  const free = oracle.free();
  const possible = wanted === undefined ? free.length > 0 : oracle.isFree(wanted);
  const request = {
    holder,
    kind: 'task',
    ...(wanted === undefined ? {} : { address: wanted }),
  } as const;
  if (!possible) {
    const { code } = refusal(() => allocateAddress(pool, request));
    const expected =
      wanted === undefined
        ? 'POOL_EXHAUSTED'
        : oracle.hosts.has(wanted)
          ? 'ADDRESS_IN_USE'
          : 'ADDRESS_OUT_OF_RANGE';
    if (code !== expected) throw new Error(`Expected ${expected}, got ${code}`);
    return pool;
  }
  const given = allocateAddress(pool, request);
  if (wanted === undefined ? !free.includes(given.address) : given.address !== wanted) {
    throw new Error(`Gave ${given.address}, which was not free`);
  }
  oracle.held.set(given.address, holder);
  return given.pool;
}

test('any sequence gives each address once, none that is reserved, and all of them', async (t) => {
  fc.assert(
    fc.property(configs, steps, (config, sequence) => {
      let pool = createPool(config);
      const oracle = new Oracle(config, pool.gateway);
      for (const step of sequence) {
        pool = applyStep(pool, oracle, step);
        const used = [...oracle.held.keys()].filter((address) => oracle.range.has(address)).length;
        const capacity = [...oracle.range].filter(
          (address) => !oracle.reserved.has(address),
        ).length;
        const seen = usage(pool);
        if (seen.used !== used || seen.capacity !== capacity) {
          throw new Error(`Usage ${JSON.stringify(seen)}, expected ${used} of ${capacity}`);
        }
      }
    }),
    { numRuns: 400 },
  );
  t.pass('the pool and the oracle agree');
});

test('a pool read back from JSON behaves like the one that was written', async (t) => {
  fc.assert(
    fc.property(configs, steps, steps, (config, before, after) => {
      const oracle = new Oracle(config, createPool(config).gateway);
      const run = (pool: PoolState, sequence: Step[], using: Oracle): PoolState =>
        sequence.reduce((state, step) => applyStep(state, using, step), pool);
      const written = run(createPool(config), before, oracle);
      const read = JSON.parse(JSON.stringify(written satisfies Json)) as PoolState;
      const copy = new Oracle(config, read.gateway);
      for (const [address, holder] of oracle.held) copy.held.set(address, holder);
      const expected = run(written, after, oracle);
      return JSON.stringify(run(read, after, copy)) === JSON.stringify(expected);
    }),
    { numRuns: 100 },
  );
  t.pass('no state lives outside of the document');
});

test('a /16 takes ten thousand holders, turnover and all', async (t) => {
  const { pool, addresses } = take(createPool({ subnet: '10.20.0.0/16' }), 10_000, 'task');
  t.equal(new Set(addresses).size, 10_000);
  t.equal(pool.allocations.length, 10_001);
  let state = pool;
  for (let i = 0; i < 1_000; i += 1) {
    state = allocateAddress(releaseHolder(state, `task${i}`), {
      holder: `n${i}`,
      kind: 'task',
    }).pool;
  }
  t.same(usage(state), { capacity: 65_533, used: 10_000 });
  t.equal(
    state.allocations.every(
      ([address], i) => i === 0 || address > (state.allocations[i - 1]?.[0] ?? 0),
    ),
    true,
    'the document stays sorted',
  );
});
