import { test } from 'tap';
import { formatHostPort } from '../../src/core/ip.ts';
import { splitHostPort } from '../../src/io/manager-client.ts';

for (const [text, host, port] of [
  ['192.0.2.1', '192.0.2.1', 2377],
  ['192.0.2.1:99', '192.0.2.1', 99],
  ['alpha', 'alpha', 2377],
  ['alpha:99', 'alpha', 99],
  ['fd00::1', 'fd00::1', 2377],
  ['[fd00::1]', 'fd00::1', 2377],
  ['[fd00::1]:99', 'fd00::1', 99],
] as const) {
  test(`splitHostPort() reads ${text}`, async (t) => {
    t.same(splitHostPort(text, 2377), { host, port });
    t.same(splitHostPort(formatHostPort(host, port), 1), { host, port }, 'and what is made of it');
  });
}

for (const text of [
  '',
  ':99',
  'alpha:',
  'alpha:x',
  'alpha:0',
  'alpha:65536',
  '[]:99',
  '[fd00::1]:',
]) {
  test(`splitHostPort() refuses ${JSON.stringify(text)}`, async (t) => {
    t.throws(() => splitHostPort(text, 2377), {
      name: 'RangeError',
      message: /expected HOST:PORT or \[IPV6\]:PORT/,
    });
  });
}
