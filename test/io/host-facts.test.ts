import { test } from 'tap';
import { findUnderlay, hostRoutes } from '../../src/io/host-facts.ts';
import { IpCommand } from '../../src/io/linux/ip-command.ts';

type Link = readonly [name: string, ...addresses: string[]];

/** An `ip` that knows these interfaces, and these lines of JSON per family for `route show`. */
function ipWith(
  links: readonly Link[],
  routes: { readonly [arguments_: string]: readonly object[] } = {},
): IpCommand {
  const addresses = links.map(([ifname, ...texts]) => ({
    ifname,
    mtu: 1500,
    flags: ['UP'],
    addr_info: texts.map((local) => ({
      family: local.includes(':') ? 'inet6' : 'inet',
      local,
      prefixlen: 64,
      scope: local.startsWith('fe80:') ? 'link' : 'global',
    })),
  }));
  return new IpCommand(async (command) => {
    const line = command.join(' ');
    if (line === 'ip -j addr show') return JSON.stringify(addresses);
    const found = routes[line.replace(/^ip -j /, '')];
    return found === undefined ? '' : JSON.stringify(found);
  });
}

const BOTH: Link = ['eth0', 'fd00::1', '192.0.2.1'];
const ONLY_V6: Link = ['eth1', 'fe80::5', 'fd00:1::1'];
const DEFAULT_V4 = { '-4 route show default': [{ dev: 'eth0' }] };
const DEFAULT_V6 = { '-6 route show default': [{ dev: 'eth1' }] };

for (const [title, links, routes, wanted, expected] of [
  ['the default route’s', [ONLY_V6, BOTH], DEFAULT_V4, undefined, '192.0.2.1'],
  ['that of IPv6 without one of IPv4', [BOTH, ONLY_V6], DEFAULT_V6, undefined, 'fd00:1::1'],
  ['the only one there is', [['lo', '::1'], ONLY_V6], {}, undefined, 'fd00:1::1'],
  ['that of an interface, IPv4 first', [BOTH], {}, 'eth0', '192.0.2.1'],
  ['IPv6 of an interface without IPv4', [ONLY_V6], {}, 'eth1', 'fd00:1::1'],
  ['an IPv6 address in any form', [BOTH], {}, 'FD00:0::1', 'fd00::1'],
] as const satisfies readonly (readonly [
  string,
  readonly Link[],
  Parameters<typeof ipWith>[1],
  string | undefined,
  string,
])[]) {
  test(`findUnderlay() advertises ${title}`, async (t) => {
    t.match(await findUnderlay(ipWith(links, routes), wanted), { address: expected });
  });
}

test('findUnderlay() names what there is when it cannot tell', async (t) => {
  await t.rejects(findUnderlay(ipWith([BOTH, ONLY_V6]), undefined), {
    message: /--advertise-addr one of eth0 \(192.0.2.1\), eth1 \(fd00:1::1\)/,
  });
  for (const wanted of ['fd00::9', 'fe80::5', 'fd00:::', 'eth7']) {
    await t.rejects(findUnderlay(ipWith([ONLY_V6, ['eth2']]), wanted), {
      message:
        /expected an IP address or interface of this host, which has eth1 \(fd00:1::1\), eth2 \(no address\)/,
    });
  }
});

test('hostRoutes() gives the routes of both families, link-local ones apart', async (t) => {
  const ip = ipWith([], {
    '-4 route show': [
      { dst: 'default' },
      { dst: '192.0.2.0/24', dev: 'eth0' },
      { dst: '10.0.0.1' },
    ],
    '-6 route show': [
      { dst: 'fd00:8::/64', dev: 'weft0' },
      { dst: 'fe80::/64', dev: 'eth0' },
      { dst: 'fd00:9::1', dev: 'eth0' },
      { dst: 'fd00:a::/48', dev: 'eth0' },
    ],
  });
  t.same(await hostRoutes(ip, 'weft0'), [
    { destination: '192.0.2.0/24', holder: 'this host (eth0)' },
    { destination: '10.0.0.1/32', holder: 'this host (a route)' },
    { destination: 'fd00:9::1/128', holder: 'this host (eth0)' },
    { destination: 'fd00:a::/48', holder: 'this host (eth0)' },
  ]);
});

for (const [name, routes, mtuBytes] of [
  ['that says nothing', [{ dst: '192.0.2.0/24' }], 1500],
  [
    'with a smaller MTU',
    [{ dst: 'default', metrics: [{ mtu: 1400 }] }, { dst: '192.0.2.0/24' }],
    1400,
  ],
  ['with a larger MTU', [{ dst: 'default', metrics: [{ mtu: 9000 }] }], 1500],
  ['with other metrics', [{ dst: 'default', metrics: [{ advmss: 900 }] }], 1500],
] as const) {
  test(`findUnderlay() heeds a route ${name}`, async (t) => {
    for (const [address, family] of [
      ['192.0.2.1', '-4'],
      ['fd00::1', '-6'],
    ] as const) {
      const ip = ipWith([['eth0', address]], {
        ...DEFAULT_V4,
        [`${family} route show dev eth0`]: routes,
      });
      for (const wanted of [undefined, 'eth0', address]) {
        const expected = { device: 'eth0', address, mtuBytes };
        t.same(await findUnderlay(ip, wanted), expected, wanted ?? 'the default');
      }
    }
  });
}
