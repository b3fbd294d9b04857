import fc from 'fast-check';
import { test } from 'tap';
import {
  cidrContains,
  cidrsOverlap,
  formatCidr,
  formatIpv4,
  formatMac,
  type Ipv4Cidr,
  macOfIpv4,
  netmask,
  parseCidr,
  parseIpv4,
  parseMac,
} from '../../src/core/address.ts';

const addresses = fc.nat({ max: 0xffff_ffff });
const cidrs = fc
  .tuple(addresses, fc.integer({ min: 0, max: 32 }))
  .map(([address, prefix]): Ipv4Cidr => ({ address: (address & netmask(prefix)) >>> 0, prefix }));

test('parseIpv4() reads exactly four decimal octets', (t) => {
  for (const [text, value] of [
    ['0.0.0.0', 0],
    ['10.0.0.1', 0x0a00_0001],
    ['255.255.255.255', 0xffff_ffff],
  ] as const) {
    t.equal(parseIpv4(text), value, text);
  }
  for (const text of [
    '',
    '10.0.0',
    '10.0.0.0.1',
    '256.0.0.1',
    '010.0.0.1',
    '1.2.3.x',
    '1.2.3.-4',
    ' 1.2.3.4',
    '1..3.4',
    '1e1.0.0.0',
  ]) {
    t.throws(() => parseIpv4(text), { name: 'RangeError', message: /expected a\.b\.c\.d/ }, text);
  }
  t.end();
});

test('addresses, subnets and MACs survive being written and read', (t) => {
  fc.assert(fc.property(addresses, (address) => parseIpv4(formatIpv4(address)) === address));
  fc.assert(
    fc.property(
      cidrs,
      (cidr) => JSON.stringify(parseCidr(formatCidr(cidr))) === JSON.stringify(cidr),
    ),
  );
  fc.assert(fc.property(fc.nat({ max: 2 ** 48 - 1 }), (mac) => parseMac(formatMac(mac)) === mac));
  t.end();
});

test('parseCidr() refuses what is no subnet, and says what it might have been', (t) => {
  t.throws(() => parseCidr('10.5.0.1/24'), {
    message: /host bits are set, did you mean 10\.5\.0\.0\/24/,
  });
  for (const text of [
    '10.0.0.0',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/8/8',
    '10.0.0.0/',
    'x/8',
  ]) {
    t.throws(() => parseCidr(text), { name: 'RangeError' }, text);
  }
  t.end();
});

test('cidrContains() and cidrsOverlap() agree with counting addresses', (t) => {
  const end = ({ address, prefix }: Ipv4Cidr): number => address + 2 ** (32 - prefix) - 1;
  fc.assert(
    fc.property(
      cidrs,
      addresses,
      (cidr, address) =>
        cidrContains(cidr, address) === (address >= cidr.address && address <= end(cidr)),
    ),
  );
  fc.assert(
    fc.property(
      cidrs,
      cidrs,
      (a, b) => cidrsOverlap(a, b) === (a.address <= end(b) && b.address <= end(a)),
    ),
  );
  t.end();
});

test('macOfIpv4() is 02:42 and the address, as Docker makes it', (t) => {
  t.equal(formatMac(macOfIpv4(parseIpv4('10.5.0.255'))), '02:42:0a:05:00:ff');
  for (const text of [
    '',
    '02:42',
    '02-42-0a-05-00-ff',
    '02:42:0a:05:00:fg',
    '02:42:0a:05:00:ff:01',
  ]) {
    t.throws(() => parseMac(text), { name: 'RangeError' }, text);
  }
  t.end();
});
