import fc from 'fast-check';
import { test } from 'tap';
import { cidrsOverlap, parseCidr } from '../../src/core/address.ts';
import { ipCidrsOverlap, parseIpCidr } from '../../src/core/cidr.ts';
import type { Json } from '../../src/core/store.ts';
import {
  type AddressPool,
  type AddressSpaceState,
  allocateSubnet,
  allocateVni,
  checkAddressPools,
  DEFAULT_ADDRESS_POOLS,
  EMPTY_ADDRESS_SPACE,
  type HostRoute,
  releaseSubnet,
  releaseVni,
  VNI_MAX,
  VNI_MIN,
} from '../../src/ipam/address-space.ts';
import { IpamError, type IpamErrorDetail } from '../../src/ipam/errors.ts';

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

interface Options {
  readonly pools?: readonly AddressPool[];
  readonly hostRoutes?: readonly HostRoute[];
}

/** Gives each of `networks` (an id, or an id and the subnet it asks for) a subnet. */
function subnetsOf(
  networks: readonly (string | readonly [id: string, subnet: string])[],
  options: Options = {},
  from: AddressSpaceState = EMPTY_ADDRESS_SPACE,
): { space: AddressSpaceState; subnets: string[] } {
  const { pools = DEFAULT_ADDRESS_POOLS, hostRoutes = [] } = options;
  let space = from;
  const subnets: string[] = [];
  for (const network of networks) {
    const [networkId, subnet] = typeof network === 'string' ? [network] : network;
    const wanted = subnet === undefined ? {} : { subnet };
    const given = allocateSubnet(space, { networkId, ...wanted, pools, hostRoutes });
    space = given.space;
    subnets.push(given.subnet);
  }
  return { space, subnets };
}

const route = (destination: string): HostRoute => ({ destination, holder: 'node alpha (eth0)' });

for (const [name, networks, options, expected] of [
  [
    'cuts the default pool into /24, ingress first',
    ['ingress', 'a', 'b'],
    {},
    ['10.0.0.0/24', '10.0.1.0/24', '10.0.2.0/24'],
  ],
  [
    'goes around subnets that were asked for',
    [['big', '10.0.0.0/22'], ['small', '10.0.4.128/25'], 'a', 'b'],
    {},
    ['10.0.0.0/22', '10.0.4.128/25', '10.0.5.0/24', '10.0.6.0/24'],
  ],
  [
    'goes around routes of hosts, smaller and larger than a subnet',
    ['a', 'b'],
    { hostRoutes: [route('10.0.2.0/23'), route('10.0.0.7/32'), route('10.0.1.0/28')] },
    ['10.0.4.0/24', '10.0.5.0/24'],
  ],
  [
    'takes a default route, whole or in halves, for no obstacle',
    ['a'],
    { hostRoutes: [route('0.0.0.0/0'), route('0.0.0.0/1'), route('128.0.0.0/1')] },
    ['10.0.0.0/24'],
  ],
  [
    'goes on in the next pool when one is full',
    ['a', 'b', 'c', 'd'],
    {
      pools: [
        { base: '10.9.0.0/23', subnetPrefix: 24 },
        { base: '172.30.0.0/16', subnetPrefix: 29 },
      ],
    },
    ['10.9.0.0/24', '10.9.1.0/24', '172.30.0.0/29', '172.30.0.8/29'],
  ],
  [
    'skips a pool that a route covers',
    ['a'],
    {
      pools: [...DEFAULT_ADDRESS_POOLS, { base: '192.168.0.0/16', subnetPrefix: 20 }],
      hostRoutes: [route('10.0.0.0/8')],
    },
    ['192.168.0.0/20'],
  ],
  [
    'cuts an IPv6 pool into /64, clear of networks and routes of either family',
    [['v4', '10.0.0.0/24'], ['asked', 'fd12:0:0:1::/64'], 'a', 'b'],
    {
      pools: [{ base: 'fd12::/48', subnetPrefix: 64 }],
      hostRoutes: [
        route('fd12:0:0:2::5/128'),
        route('10.1.0.0/16'),
        route('::/0'),
        route('2000::/3'),
        route('8000::/1'),
      ],
    },
    ['10.0.0.0/24', 'fd12:0:0:1::/64', 'fd12::/64', 'fd12:0:0:3::/64'],
  ],
] as const satisfies readonly (readonly [
  string,
  readonly (string | readonly [string, string])[],
  Options,
  readonly string[],
])[]) {
  test(`allocateSubnet() ${name}`, async (t) => {
    t.same(subnetsOf(networks, options).subnets, expected);
  });
}

test('allocateSubnet() refuses what overlaps, and says whose it is', async (t) => {
  const { space } = subnetsOf(['net1']);
  const hostRoutes = [route('192.168.0.0/16'), route('fd00:1::/56')];
  for (const [subnet, expected] of [
    ['10.0.0.0/24', { with: '10.0.0.0/24', holder: 'network net1' }],
    ['10.0.0.0/8', { with: '10.0.0.0/24', holder: 'network net1' }],
    ['10.0.0.64/26', { with: '10.0.0.0/24', holder: 'network net1' }],
    ['192.168.7.0/24', { with: '192.168.0.0/16', holder: 'node alpha (eth0)' }],
    ['fd00:1::/64', { with: 'fd00:1::/56', holder: 'node alpha (eth0)' }],
    ['fd00::/16', { with: 'fd00:1::/56', holder: 'node alpha (eth0)' }],
  ] as const) {
    t.same(
      refusal(() => subnetsOf([['net2', subnet]], { hostRoutes }, space)),
      {
        code: 'SUBNET_OVERLAP',
        subnet,
        ...expected,
      },
    );
  }
  t.match(
    refusal(() => subnetsOf([['net2', '10.0.0.1/24']])),
    { code: 'SUBNET_INVALID' },
  );
  t.throws(() => subnetsOf(['net2'], { hostRoutes: [route('eth0')] }), RangeError);
});

test('allocateSubnet() says so when the pools are used up', async (t) => {
  const pools = [{ base: '10.9.0.0/28', subnetPrefix: 29 }];
  const { space } = subnetsOf(['a', 'b'], { pools });
  t.same(
    refusal(() => subnetsOf(['c'], { pools }, space)),
    {
      code: 'ADDRESS_SPACE_EXHAUSTED',
      pools: ['10.9.0.0/28'],
    },
  );
  const released = releaseSubnet(space, 'a');
  t.same(subnetsOf(['c'], { pools }, released).subnets, ['10.9.0.0/29']);
  t.equal(releaseSubnet(released, 'a'), released, 'nothing to release: the same state');
});

test('checkAddressPools() refuses pools that cannot be cut as they say', async (t) => {
  checkAddressPools(DEFAULT_ADDRESS_POOLS);
  checkAddressPools([{ base: '10.0.0.0/24', subnetPrefix: 24 }]);
  checkAddressPools([{ base: 'fd00:1::/64', subnetPrefix: 64 }]);
  for (const [base, subnetPrefix, reason] of [
    ['ten', 24, /a\.b\.c\.d\/n/],
    ['10.1.2.3/8', 24, /did you mean 10\.0\.0\.0\/8/],
    ['127.0.0.0/8', 24, /loopback/],
    ['10.0.0.0/24', 23, /cannot be cut into \/23/],
    ['10.0.0.0/24', 30, /at most 29/],
    ['10.0.0.0/24', 24.5, /cannot be cut/],
    ['fd00::/48', 65, /at most 64/],
    ['fd00::/72', 64, /cannot be cut into \/64/],
    ['fe80::/10', 64, /link-local/],
    ['fd00::1/48', 64, /did you mean fd00::\/48/],
  ] as const) {
    t.match(
      refusal(() => checkAddressPools([...DEFAULT_ADDRESS_POOLS, { base, subnetPrefix }])),
      { code: 'ADDRESS_POOL_INVALID', base, reason },
      `${base} into /${subnetPrefix}`,
    );
  }
});

test('allocateVni() counts up from 4096 and does not reuse what was released', async (t) => {
  let space = EMPTY_ADDRESS_SPACE;
  const next = (networkId: string, vni?: number): number => {
    const given = allocateVni(space, vni === undefined ? { networkId } : { networkId, vni });
    space = given.space;
    return given.vni;
  };
  t.same([next('ingress'), next('a'), next('b')], [4096, 4097, 4098]);
  space = releaseVni(space, 'b');
  t.equal(next('c'), 4099);
  t.equal(next('custom', 4101), 4101);
  t.same([next('d'), next('e')], [4100, 4102], 'the one that was asked for is passed over');
  t.equal(next('last', VNI_MAX), VNI_MAX);
  for (const [vni, expected] of [
    [4101, { code: 'VNI_IN_USE', vni: 4101, networkId: 'custom' }],
    [VNI_MIN - 1, { code: 'VNI_OUT_OF_RANGE', vni: 4095, min: 4096, max: 16_777_215 }],
    [VNI_MAX + 1, { code: 'VNI_OUT_OF_RANGE' }],
    [4200.5, { code: 'VNI_OUT_OF_RANGE' }],
    [Number.NaN, { code: 'VNI_OUT_OF_RANGE' }],
  ] as const) {
    t.match(
      refusal(() => next('x', vni)),
      expected,
      String(vni),
    );
  }
  space = { ...space, vniCursor: VNI_MAX };
  t.equal(next('wrapped'), 4098, 'past the end, the search begins anew');
  t.equal(releaseVni(space, 'nobody'), space, 'nothing to release: the same state');
});

const operations = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('default' as const), network: fc.nat(12) }),
    fc.record({
      kind: fc.constant('custom' as const),
      network: fc.nat(12),
      offset: fc.nat(63),
      prefix: fc.integer({ min: 24, max: 30 }),
    }),
    fc.record({ kind: fc.constant('release' as const), network: fc.nat(12) }),
  ),
  { maxLength: 60 },
);

test('any sequence keeps subnets and VNIs apart, and finds a subnet if there is one', async (t) => {
  const pools = [
    { base: '10.9.0.0/24', subnetPrefix: 27 },
    { base: '10.8.0.0/26', subnetPrefix: 28 },
  ];
  const hostRoutes = [route('10.9.0.70/32'), route('10.8.0.32/27')];
  // Every block that the pools can be cut into, for a search the slow way.
  const blocks = [0, 32, 64, 96, 128, 160, 192, 224]
    .map((host) => `10.9.0.${host}/27`)
    .concat([0, 16, 32, 48].map((host) => `10.8.0.${host}/28`));
  fc.assert(
    fc.property(operations, (sequence) => {
      let space = EMPTY_ADDRESS_SPACE;
      for (const step of sequence) {
        space = JSON.parse(JSON.stringify(space satisfies Json)) as AddressSpaceState;
        const networkId = `n${step.network}`;
        if (step.kind === 'release') {
          space = releaseVni(releaseSubnet(space, networkId), networkId);
          continue;
        }
        const taken = [...space.subnets.map(([subnet]) => subnet), '10.9.0.70/32', '10.8.0.32/27'];
        const isFree = (block: string): boolean =>
          taken.every((other) => !cidrsOverlap(parseCidr(other), parseCidr(block)));
        const size = step.kind === 'custom' ? 2 ** (32 - step.prefix) : 1;
        const wanted =
          step.kind === 'custom'
            ? { subnet: `10.9.0.${Math.floor((step.offset * 4) / size) * size}/${step.prefix}` }
            : {};
        const expected = wanted.subnet === undefined ? blocks.find(isFree) : wanted.subnet;
        const request = { networkId, ...wanted, pools, hostRoutes };
        if (expected === undefined || !isFree(expected)) {
          refusal(() => allocateSubnet(space, request));
          continue;
        }
        const given = allocateSubnet(space, request);
        if (given.subnet !== expected) throw new Error(`Gave ${given.subnet}, not ${expected}`);
        space = allocateVni(given.space, { networkId }).space;
        const vnis = space.vnis.map(([vni]) => vni);
        if (new Set(vnis).size !== vnis.length) throw new Error('A VNI was given twice');
      }
    }),
    { numRuns: 300 },
  );
  t.pass('the space and the slow search agree');
});

test('any sequence of IPv6 networks finds the first block that the slow search finds', async (t) => {
  const pools = [{ base: 'fd12::/61', subnetPrefix: 64 }];
  const hostRoutes = [route('fd12:0:0:2::5/128')];
  const blocks = [0, 1, 2, 3, 4, 5, 6, 7].map((index) =>
    index === 0 ? 'fd12::/64' : `fd12:0:0:${index}::/64`,
  );
  const asked: Readonly<Record<string, string>> = {
    pair: 'fd12:0:0:6::/63',
    part: 'fd12:0:0:3:8000::/65',
  };
  const steps = fc.array(
    fc.record({ network: fc.nat(9), wish: fc.constantFrom('first', 'pair', 'part', 'release') }),
    { maxLength: 40 },
  );
  fc.assert(
    fc.property(steps, (sequence) => {
      let space = EMPTY_ADDRESS_SPACE;
      for (const { network, wish } of sequence) {
        space = JSON.parse(JSON.stringify(space satisfies Json)) as AddressSpaceState;
        const networkId = `n${network}`;
        if (wish === 'release') {
          space = releaseSubnet(space, networkId);
          continue;
        }
        const taken = [...space.subnets.map(([subnet]) => subnet), 'fd12:0:0:2::5/128'];
        const isFree = (block: string): boolean =>
          taken.every((other) => !ipCidrsOverlap(parseIpCidr(other), parseIpCidr(block)));
        const subnet = asked[wish];
        const expected = subnet ?? blocks.find(isFree);
        const request = { networkId, ...(subnet && { subnet }), pools, hostRoutes };
        if (expected === undefined || !isFree(expected)) {
          refusal(() => allocateSubnet(space, request));
          continue;
        }
        const given = allocateSubnet(space, request);
        if (given.subnet !== expected) throw new Error(`Gave ${given.subnet}, not ${expected}`);
        space = given.space;
      }
    }),
    { numRuns: 300 },
  );
  t.pass('the space and the slow search agree');
});
