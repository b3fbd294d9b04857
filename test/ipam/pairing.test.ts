import fc from 'fast-check';
import { test } from 'tap';
import { formatIpv4, parseCidr, parseIpv4 } from '../../src/core/address.ts';
import { ipCidrContains, parseIpCidr } from '../../src/core/cidr.ts';
import { formatIp, parseIp, parseIpv6 } from '../../src/core/ip.ts';
import type { Json } from '../../src/core/store.ts';
import { IpamError, type IpamErrorDetail } from '../../src/ipam/errors.ts';
import { createPairing, type Ipv6Config, pairedIpv4 } from '../../src/ipam/pairing.ts';
import {
  allocateAddress,
  createPool,
  type PoolConfig,
  type PoolState,
  releaseHolder,
  usage,
} from '../../src/ipam/pool.ts';
import { uniqueLocalPrefix } from '../../src/ipam/unique-local.ts';

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

/** What `count` holders are given, until nothing is left. */
function pairsOf(pool: PoolState, count: number): { address: string; address6?: string }[] {
  const pairs: { address: string; address6?: string }[] = [];
  let state = pool;
  for (let index = 0; index < count; index += 1) {
    const { pool: next, ...pair } = allocateAddress(state, { holder: `t${index}`, kind: 'task' });
    state = next;
    pairs.push(pair);
  }
  return pairs;
}

test('an endpoint of a dual-stack network has one host number in both families', async (t) => {
  const pool = createPool({ subnet: '10.1.2.0/24', ipv6: { subnet: 'FD00:1:0::/64' } });
  t.same(pool.ipv6, { subnet: 'fd00:1::/64', gateway: 'fd00:1::1', ipRange: 'fd00:1::/64' });
  t.same(pairsOf(pool, 2), [
    { address: '10.1.2.2', address6: 'fd00:1::2' },
    { address: '10.1.2.3', address6: 'fd00:1::3' },
  ]);
  t.same(usage(pool), { capacity: 253, used: 0 }, 'the gateways are beside each other');
  const last = { holder: 'x', kind: 'task', address: '10.1.2.254' } as const;
  t.equal(allocateAddress(pool, last).address6, 'fd00:1::fe', 'by value, too');
  const single = createPool({ subnet: '10.1.2.0/24' });
  t.same(pairsOf(single, 1), [{ address: '10.1.2.2' }], 'without IPv6 there is none');
});

test('what has an IPv6 address takes the IPv4 address beside it', async (t) => {
  const pool = createPool({
    subnet: '10.1.2.0/28',
    gateway: '10.1.2.14',
    auxAddresses: { nas: '10.1.2.3' },
    ipv6: {
      subnet: 'fd00:1::/64',
      gateway: 'fd00:1::2',
      auxAddresses: { nas: 'fd00:1::3', far: 'fd00:1::1:0', edge: 'fd00:1::f' },
    },
  });
  const given = pairsOf(pool, usage(pool).capacity);
  t.same(
    given.map(({ address }) => address),
    [1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13].map((host) => `10.1.2.${host}`),
  );
  t.equal(given[0]?.address6, 'fd00:1::1', 'the first address is free if it is no gateway');
});

test('an IP range moves the addresses, not the gateway', async (t) => {
  const pool = createPool({
    subnet: '10.1.2.0/24',
    ipv6: { subnet: 'fd00:1::/64', ipRange: 'fd00:1::ab:0/112' },
  });
  t.equal(pool.ipv6?.gateway, 'fd00:1::1');
  t.equal(pairsOf(pool, 1)[0]?.address6, 'fd00:1::ab:2');
});

for (const [name, config, expected] of [
  ['no CIDR', { subnet: 'fd00::' }, { code: 'SUBNET_INVALID', reason: /n in \[0, 128\]/ }],
  ['IPv4', { subnet: '10.9.0.0/24' }, { code: 'SUBNET_INVALID', reason: /eight groups/ }],
  ['host bits', { subnet: 'fd00::1/64' }, { reason: /did you mean fd00::\/64/ }],
  ['link-local', { subnet: 'fe80::/64' }, { code: 'SUBNET_INVALID', reason: /link-local/ }],
  ['multicast', { subnet: 'ff05::/64' }, { code: 'SUBNET_INVALID', reason: /multicast/ }],
  ['mapped', { subnet: '::ffff:0:0/96' }, { code: 'SUBNET_INVALID', reason: /reserved/ }],
  ['one address', { subnet: 'fd00::/127' }, { code: 'SUBNET_INVALID', reason: /\/126 or larger/ }],
  [
    'fewer addresses than IPv4',
    { subnet: 'fd00::/121' },
    { code: 'SUBNET_INVALID', reason: /fewer addresses than 10.1.2.0\/24, expected \/120/ },
  ],
  ['gateway: text', { gateway: 'first' }, { code: 'GATEWAY_INVALID', reason: /eight groups/ }],
  ['gateway: outside', { gateway: 'fd00:2::1' }, { code: 'GATEWAY_INVALID' }],
  ['gateway: all routers', { gateway: 'fd00:1::' }, { code: 'GATEWAY_INVALID' }],
  ['range: outside', { ipRange: 'fd00:2::/96' }, { code: 'IP_RANGE_INVALID' }],
  ['range: small', { ipRange: 'fd00:1::/124' }, { code: 'IP_RANGE_INVALID', reason: /\/120/ }],
  ['range: text', { ipRange: 'fd00:1::1-9' }, { code: 'IP_RANGE_INVALID' }],
  [
    'aux: is the gateway',
    { auxAddresses: { a: 'fd00:1:0::1' } },
    { code: 'AUX_ADDRESS_INVALID', name: 'a', reason: 'the gateway has it' },
  ],
  [
    'aux: twice',
    { auxAddresses: { a: 'fd00:1::9', b: 'fd00:1::9' } },
    { name: 'b', reason: 'auxiliary address "a" has it' },
  ],
] as const satisfies readonly (readonly [string, Partial<Ipv6Config>, object])[]) {
  test(`createPool() refuses an IPv6 configuration: ${name}`, async (t) => {
    const ipv6 = { subnet: 'fd00:1::/64', ...config };
    t.match(
      refusal(() => createPool({ subnet: '10.1.2.0/24', ipv6 })),
      expected,
    );
  });
}

const hosts = fc.integer({ min: 1, max: 14 });
/** Dual-stack networks of 16 addresses, with gateways and reservations anywhere. */
const configs: fc.Arbitrary<PoolConfig> = fc
  .record({
    gateway: fc.option(hosts),
    gateway6: fc.option(fc.integer({ min: 1, max: 40 })),
    aux6: fc.uniqueArray(fc.integer({ min: 1, max: 40 }), { maxLength: 4 }),
    ipRange6: fc.constantFrom(undefined, 'fd00:1::/124', 'fd00:1::10/124', 'fd00:1::/120'),
    subnet6: fc.constantFrom('fd00:1::/64', 'fd00:1::/112'),
  })
  .map(({ gateway, gateway6, aux6, ipRange6, subnet6 }): PoolConfig => {
    const address6 = (host: number): string => `fd00:1::${host.toString(16)}`;
    const free = aux6.filter((host) => host !== (gateway6 ?? 1));
    return {
      subnet: '10.1.2.0/28',
      ...(gateway === null ? {} : { gateway: `10.1.2.${gateway}` }),
      ipv6: {
        subnet: subnet6,
        ...(gateway6 === null ? {} : { gateway: address6(gateway6) }),
        ...(ipRange6 === undefined ? {} : { ipRange: ipRange6 }),
        auxAddresses: Object.fromEntries(free.map((host) => [`aux${host}`, address6(host)])),
      },
    };
  });

test('whatever is taken and released, no IPv6 address is held twice or reserved', async (t) => {
  const steps = fc.array(fc.record({ release: fc.boolean(), holder: fc.nat(5) }), {
    maxLength: 60,
  });
  fc.assert(
    fc.property(configs, steps, (config, sequence) => {
      let pool = createPool(config);
      const ipv6 = pool.ipv6!;
      const aux = Object.values(config.ipv6?.auxAddresses ?? {})
        .map(parseIp)
        .map(formatIp);
      const reserved = new Set([ipv6.gateway, ...aux]);
      const held = new Map<string, string>();
      for (const { release, holder } of sequence) {
        // As when an agent restarts: nothing may live outside of the document.
        pool = JSON.parse(JSON.stringify(pool satisfies Json)) as PoolState;
        if (release) {
          pool = releaseHolder(pool, `h${holder}`);
          for (const [address, owner] of held) if (owner === `h${holder}`) held.delete(address);
          continue;
        }
        if (held.size === usage(pool).capacity) {
          const request = { holder: 'x', kind: 'task' } as const;
          t.equal(refusal(() => allocateAddress(pool, request)).code, 'POOL_EXHAUSTED');
          continue;
        }
        const given = allocateAddress(pool, { holder: `h${holder}`, kind: 'task' });
        const address6 = parseIpv6(given.address6 ?? '');
        if (held.has(address6) || reserved.has(address6)) throw new Error(`${address6} is taken`);
        for (const range of [ipv6.subnet, ipv6.ipRange]) {
          if (!ipCidrContains(parseIpCidr(range), address6)) throw new Error(`${address6} is out`);
        }
        held.set(address6, `h${holder}`);
        pool = given.pool;
      }
    }),
    { numRuns: 400 },
  );
  t.pass('each address has one holder');
});

test('pairedIpv4() undoes the pairing, and knows what is beside nothing', async (t) => {
  const subnet = parseCidr('10.1.0.0/16');
  const { pairing } = createPairing({ subnet: 'fd00:1::/64' }, subnet);
  fc.assert(
    fc.property(fc.nat(0xffff), (host) => {
      const address6 = parseIpv6(`fd00:1::${host.toString(16)}`);
      return pairedIpv4(pairing, subnet, address6) === parseIpv4('10.1.0.0') + host;
    }),
  );
  t.equal(formatIpv4(pairedIpv4(pairing, subnet, parseIpv6('fd00:1::ffff'))!), '10.1.255.255');
  for (const outside of ['fd00:1::1:0', 'fd00::ffff', 'fd00:1:0:1::']) {
    t.equal(pairedIpv4(pairing, subnet, parseIpv6(outside)), undefined, outside);
  }
});

test('uniqueLocalPrefix() puts 40 bits of chance behind fd00::/8', async (t) => {
  t.equal(uniqueLocalPrefix(Uint8Array.of(0x12, 0x34, 0x56, 0x78, 0x9a)), 'fd12:3456:789a::/48');
  t.equal(uniqueLocalPrefix(new Uint8Array(5)), 'fd00::/48');
  t.equal(uniqueLocalPrefix(new Uint8Array(5).fill(255)), 'fdff:ffff:ffff::/48');
});
