import { test } from 'tap';
import { findUnderlay } from '../../src/io/host-facts.ts';
import { IpCommand } from '../../src/io/linux/ip-command.ts';

const LINKS = [
  {
    ifname: 'eth0',
    address: '02:00:00:00:00:01',
    mtu: 1500,
    flags: ['UP'],
    addr_info: [{ family: 'inet', local: '192.0.2.1', prefixlen: 24 }],
  },
];

/** `ip` of a host whose routes through eth0 are these. */
function ipOf(routes: readonly unknown[]): IpCommand {
  return new IpCommand(async (command) => {
    if (command.includes('addr')) return JSON.stringify(LINKS);
    if (command.includes('default')) return JSON.stringify([{ dst: 'default', dev: 'eth0' }]);
    if (command.slice(-2).join(' ') === 'dev eth0') return JSON.stringify(routes);
    throw new Error(`Nobody answers ${command.join(' ')}`);
  });
}

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
    for (const wanted of [undefined, 'eth0', '192.0.2.1']) {
      const expected = { device: 'eth0', address: '192.0.2.1', mtuBytes };
      t.same(await findUnderlay(ipOf(routes), wanted), expected, wanted ?? 'the default');
    }
  });
}
