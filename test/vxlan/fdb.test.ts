import fc from 'fast-check';
import { test } from 'tap';
import { macOfIpv4, parseCidr, parseIpv4, parseMac } from '../../src/core/address.ts';
import { AddressWords, linkLocalOf } from '../../src/core/address-words.ts';
import { formatIp, parseIpv6 } from '../../src/core/ip.ts';
import { writeMac } from '../../src/core/packet.ts';
import { Endpoint, Network } from '../../src/vxlan/fdb.ts';

const SUBNET = parseCidr('240.0.0.0/24');
const GATEWAY = parseIpv4('240.0.0.1');
const GATEWAY6 = parseIpv6('fd00::1');
const PEER = { peer: '198.51.100.2' };

function makeNetwork(): Network<string, string> {
  return new Network<string, string>(4096, {
    subnet: SUBNET,
    gateway: GATEWAY,
    gateway6: GATEWAY6,
  });
}

/** The endpoint with `mac`, looked up as in a frame. */
function byMac(
  network: Network<string, string>,
  mac: number,
): Endpoint<string, string> | undefined {
  const view = new DataView(new ArrayBuffer(8));
  writeMac(view, 1, mac);
  return network.byMacAt(view, 1);
}

test('an endpoint is here or behind a PEER', (t) => {
  const address = parseIpv4('240.0.0.2');
  const mac = macOfIpv4(address);
  const here = new Endpoint({ address, mac }, { port: 'tap' });
  t.match(here, { address, mac, port: 'tap', peer: undefined });
  t.match(new Endpoint({ address, mac }, PEER), { port: undefined, ...PEER });
  t.end();
});

test('a MAC that shares only its low 32 bits with a known one is unknown', (t) => {
  const network = makeNetwork();
  const address = parseIpv4('240.0.0.2');
  network.set(new Endpoint({ address, mac: parseMac('02:42:f0:00:00:02') }, { port: 'a' }));
  t.equal(byMac(network, parseMac('02:42:f0:00:00:02'))?.port, 'a');
  t.equal(byMac(network, parseMac('06:42:f0:00:00:02')), undefined);
  t.end();
});

/** The forwarding database as a list: what {@link Network} does by hashing. */
class SlowFdb {
  #endpoints: Endpoint<string, string>[] = [];

  set(endpoint: Endpoint<string, string>): void {
    this.#endpoints = [
      ...this.#endpoints.filter(
        ({ address, address6, mac }) =>
          address !== endpoint.address &&
          (address6 === undefined || address6 !== endpoint.address6) &&
          mac % 2 ** 32 !== endpoint.mac % 2 ** 32,
      ),
      endpoint,
    ];
  }

  delete(address: number): void {
    this.#endpoints = this.#endpoints.filter((endpoint) => endpoint.address !== address);
  }

  all(): readonly Endpoint<string, string>[] {
    return this.#endpoints;
  }
}

test('the forwarding database is like a list searched from end to end', (t) => {
  // Few addresses and MACs, some of which differ above 32 bits only: they keep meeting.
  const address = fc.nat({ max: 5 }).map((last) => SUBNET.address + last);
  const mac = fc
    .tuple(fc.constantFrom(0x0242, 0x0642, 0xfe42), fc.nat({ max: 5 }))
    .map(([high, low]) => high * 2 ** 32 + SUBNET.address + low);
  const address6 = fc.nat({ max: 5 }).map((last) => parseIpv6(`fd00::${last + 2}`));
  const names = fc.record({ address, mac, address6 }, { requiredKeys: ['address', 'mac'] });
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ names, port: fc.constantFrom('a', undefined) }) },
    { weight: 1, arbitrary: fc.record({ address }) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), fc.array(mac), (steps, probes) => {
      const network = makeNetwork();
      const slow = new SlowFdb();
      for (const one of steps) {
        if ('names' in one) {
          const where = one.port === undefined ? PEER : { port: one.port };
          const endpoint = new Endpoint<string, string>(one.names, where);
          network.set(endpoint);
          slow.set(endpoint);
        } else {
          network.delete(one.address);
          slow.delete(one.address);
        }
      }
      const known = slow.all();
      return (
        network.size === known.length &&
        [...network.endpoints()].every((endpoint) => known.includes(endpoint)) &&
        known.every((endpoint) => network.byAddress(endpoint.address) === endpoint) &&
        known.every((endpoint) => network.find(endpoint.linkLocal) === endpoint) &&
        [0, 1, 2, 3, 4, 5].every((last) => {
          const ip = parseIpv6(`fd00::${last + 2}`);
          const expected = known.find((endpoint) => endpoint.address6 === ip);
          return network.find(AddressWords.of(ip)) === expected;
        }) &&
        known.every((endpoint) => byMac(network, endpoint.mac) === endpoint) &&
        probes.every(
          (probe) => byMac(network, probe) === known.find((endpoint) => endpoint.mac === probe),
        )
      );
    }),
    { numRuns: 300 },
  );
  t.end();
});

test('a network knows its gateway in either family', (t) => {
  const network = makeNetwork();
  const onlyIpv4 = new Network<string, string>(4096, { subnet: SUBNET, gateway: GATEWAY });
  for (const [ip, expected, withoutIpv6] of [
    [GATEWAY, true, true],
    [GATEWAY6, true, false],
    [parseIpv4('240.0.0.2'), false, false],
    [parseIpv6('fd00::2'), false, false],
  ] as const) {
    t.equal(network.isGateway(AddressWords.of(ip)), expected);
    t.equal(onlyIpv4.isGateway(AddressWords.of(ip)), withoutIpv6);
  }
  t.end();
});

test('an endpoint is found by the link-local address that its MAC makes, and by no other', (t) => {
  const mac = parseMac('02:42:f0:a1:b2:c3');
  t.equal(formatIp(linkLocalOf(mac).toIp()), 'fe80::42:f0ff:fea1:b2c3', 'RFC 4291 appendix A');
  t.equal(formatIp(linkLocalOf(parseMac('34:56:78:9a:bc:de')).toIp()), 'fe80::3656:78ff:fe9a:bcde');
  const network = makeNetwork();
  const endpoint = new Endpoint<string, string>({ address: parseIpv4('240.0.0.2'), mac }, PEER);
  network.set(endpoint);
  const find = (text: string): unknown => network.find(AddressWords.of(parseIpv6(text)));
  t.equal(find('fe80::42:f0ff:fea1:b2c3'), endpoint);
  for (const other of [
    'fe80::442:f0ff:fea1:b2c3',
    'fe80::42:f0ff:ffa1:b2c3',
    'fd00::42:f0ff:fea1:b2c3',
  ]) {
    t.equal(find(other), undefined, other);
  }
  t.end();
});
