import fc from 'fast-check';
import { test } from 'tap';
import { parseIpv4 } from '../../src/core/address.ts';
import {
  formatIp,
  formatIpPort,
  ipFromWords,
  ipWords,
  isIpv6,
  parseIp,
  parseIpv6,
  writeIp16,
} from '../../src/core/ip.ts';

test('an IPv6 address has one text form', async (t) => {
  for (const [text, canonical] of [
    ['FD00:0:0:0:0:0:0:1', 'fd00::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['0::0', '::'],
    ['1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7:8'],
  ] as const) {
    t.equal(parseIpv6(text), canonical);
  }
});

test('what is no IPv6 address is refused', async (t) => {
  for (const text of [
    '',
    'fe80::1%eth0',
    'fd00::/64',
    '1::2::3',
    '12345::',
    '1.2.3.4',
    ' ::1',
    '1:2:3',
  ]) {
    t.throws(() => parseIpv6(text), { name: 'RangeError', message: JSON.stringify(text) }, text);
  }
});

test('either family is read and written', async (t) => {
  t.equal(parseIp('10.0.0.1'), 0x0a000001);
  t.equal(formatIp(parseIp('10.0.0.1')), '10.0.0.1');
  t.equal(formatIp(parseIp('FD00::A')), 'fd00::a');
  t.equal(formatIpPort(parseIp('10.0.0.1'), 4789), '10.0.0.1:4789');
  t.equal(formatIpPort(parseIp('fd00::1'), 4789), '[fd00::1]:4789');
  t.notOk(isIpv6(parseIp('10.0.0.1')));
  t.ok(isIpv6(parseIp('::1')));
});

test('an IPv4 address has the words of its IPv4-mapped one', async (t) => {
  t.same(ipWords(parseIpv4('10.1.2.3')), [0, 0, 0xffff, 0x0a010203]);
  t.same(ipWords(parseIpv6('::ffff:10.1.2.3')), [0, 0, 0xffff, 0x0a010203]);
  t.equal(ipFromWords(0, 0, 0xffff, 0xc0a80001 | 0), parseIpv4('192.168.0.1'));
});

test('words and bytes lead back to the address', async (t) => {
  const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
  fc.assert(
    fc.property(word, word, word, word, (...words) => {
      const ip = ipFromWords(...words);
      const view = new DataView(new ArrayBuffer(16));
      writeIp16(view, 0, ip);
      const read = [0, 4, 8, 12].map((offset) => view.getInt32(offset));
      t.same(ipWords(ip), words);
      t.same(read, words);
      t.equal(parseIp(formatIp(ip)), ip);
    }),
    { numRuns: 200 },
  );
});
