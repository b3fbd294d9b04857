import fc from 'fast-check';
import { test } from 'tap';
import { macOfIpv4, parseCidr, parseIpv4, parseMac } from '../../src/core/address.ts';
import { writeMac } from '../../src/core/packet.ts';
import { Endpoint, Network } from '../../src/vxlan/fdb.ts';

const SUBNET = parseCidr('240.0.0.0/24');
const GATEWAY = parseIpv4('240.0.0.1');
const PEER = { peer: '198.51.100.2' };

function makeNetwork(): Network<string, string> {
  return new Network<string, string>(4096, SUBNET, GATEWAY);
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
  const here = new Endpoint(address, mac, { port: 'tap' });
  t.match(here, { address, mac, port: 'tap', peer: undefined });
  t.match(new Endpoint(address, mac, PEER), { port: undefined, ...PEER });
  t.end();
});

test('a MAC that shares only its low 32 bits with a known one is unknown', (t) => {
  const network = makeNetwork();
  const address = parseIpv4('240.0.0.2');
  network.set(new Endpoint(address, parseMac('02:42:f0:00:00:02'), { port: 'a' }));
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
        ({ address, mac }) =>
          address !== endpoint.address && mac % 2 ** 32 !== endpoint.mac % 2 ** 32,
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
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ address, mac, port: fc.constantFrom('a', undefined) }) },
    { weight: 1, arbitrary: fc.record({ address }) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), fc.array(mac), (steps, probes) => {
      const network = makeNetwork();
      const slow = new SlowFdb();
      for (const one of steps) {
        if ('mac' in one) {
          const where = one.port === undefined ? PEER : { port: one.port };
          const endpoint = new Endpoint<string, string>(one.address, one.mac, where);
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
