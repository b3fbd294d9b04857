import fc from 'fast-check';
import { test } from 'tap';
import {
  cidrContains,
  cidrsOverlap,
  type Ipv4Cidr,
  netmask,
  parseIpv4,
} from '../../src/core/address.ts';
import {
  cidrOfBits,
  compareIpCidrs,
  formatIpCidr,
  hostBitsOf,
  type IpCidr,
  ipBits,
  ipCidrContains,
  ipCidrsOverlap,
  ipOfBits,
  lastBitsOf,
  parseIpCidr,
  parseIpv6Cidr,
} from '../../src/core/cidr.ts';
import { parseIp, parseIpv6 } from '../../src/core/ip.ts';

test('parseIpCidr() reads networks of both families into one text form', async (t) => {
  for (const [text, expected] of [
    ['10.0.0.0/8', '10.0.0.0/8'],
    ['FD00:1:0:0::/64', 'fd00:1::/64'],
    ['::/0', '::/0'],
    ['fd00::5/128', 'fd00::5/128'],
  ] as const) {
    t.equal(formatIpCidr(parseIpCidr(text)), expected);
  }
});

for (const [text, message] of [
  ['fd00::', 'expected an IPv6 address and /n with n in [0, 128]'],
  ['fd00::/129', 'n in [0, 128]'],
  ['fd00::/-1', 'n in [0, 128]'],
  ['fd00::/64/64', 'n in [0, 128]'],
  ['fd00:::/64', 'Cannot read "fd00:::"'],
  ['fd00::1/64', 'host bits are set, did you mean fd00::/64?'],
  ['10.0.0.1/24', 'did you mean 10.0.0.0/24?'],
  ['fe80::%eth0/64', 'Cannot read "fe80::%eth0"'],
] as const) {
  test(`parseIpCidr() refuses ${text}`, async (t) => {
    t.throws(() => parseIpCidr(text), { name: 'RangeError', message });
  });
}

const bits128 = fc.bigInt({ min: 0n, max: (1n << 128n) - 1n });
const networks6 = fc
  .tuple(bits128, fc.integer({ min: 0, max: 128 }))
  .map(([bits, prefix]): IpCidr => {
    const hostBits = BigInt(128 - prefix);
    return { address: ipOfBits((bits >> hostBits) << hostBits, parseIpv6('::')), prefix };
  });
const networks4 = fc
  .tuple(fc.integer({ min: 0, max: 0xffff_ffff }), fc.integer({ min: 0, max: 32 }))
  .map(([bits, prefix]): Ipv4Cidr => ({ address: (bits & netmask(prefix)) >>> 0, prefix }));

test('a network survives its text and its bits', async (t) => {
  fc.assert(
    fc.property(fc.oneof(networks4, networks6), (cidr) => {
      t.same(parseIpCidr(formatIpCidr(cidr)), cidr);
      t.same(cidrOfBits(ipBits(cidr.address), cidr.prefix, cidr), cidr);
      t.equal(compareIpCidrs(cidr, cidr), 0);
    }),
    { numRuns: 200 },
  );
  t.throws(() => ipOfBits(1n << 32n, parseIpv4('10.0.0.1')), RangeError);
  t.throws(() => ipOfBits(-1n, parseIpv6('::')), RangeError);
});

test('IPv4 networks contain and overlap as the 32-bit arithmetic says', async (t) => {
  fc.assert(
    fc.property(networks4, networks4, (a, b) => {
      t.equal(ipCidrContains(a, b.address), cidrContains(a, b.address));
      t.equal(ipCidrsOverlap(a, b), cidrsOverlap(a, b));
    }),
    { numRuns: 300 },
  );
});

test('networks overlap if their ranges do, and never across families', async (t) => {
  fc.assert(
    fc.property(networks6, networks6, networks4, (a, b, other) => {
      const [firstA, firstB] = [ipBits(a.address), ipBits(b.address)];
      const overlap = firstA <= lastBitsOf(b) && firstB <= lastBitsOf(a);
      t.equal(ipCidrsOverlap(a, b), overlap);
      t.equal(ipCidrsOverlap(b, a), overlap);
      t.equal(ipCidrsOverlap(a, other), false);
      t.ok(compareIpCidrs(a, other) > 0 && compareIpCidrs(other, a) < 0, 'IPv4 comes first');
    }),
    { numRuns: 300 },
  );
  t.equal(hostBitsOf(parseIpv6Cidr('fd00::/64')), 64);
  t.notOk(ipCidrContains(parseIpCidr('::/0'), parseIp('10.0.0.1')));
});
