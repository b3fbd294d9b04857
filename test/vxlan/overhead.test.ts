import { test } from 'tap';
import { innerMtuBytes, tunnelOverheadBytes } from '../../src/vxlan/overhead.ts';

for (const [name, ipv6, encrypted, overhead] of [
  ['IPv4', false, false, 50],
  ['IPv4, encrypted', false, true, 82],
  ['IPv6', true, false, 70],
  ['IPv6, encrypted', true, true, 102],
] as const) {
  test(`a tunnel over ${name} takes ${overhead} bytes of a packet`, (t) => {
    t.equal(tunnelOverheadBytes({ ipv6, encrypted }), overhead);
    t.equal(innerMtuBytes(1500, { ipv6, encrypted }), 1500 - overhead);
    t.end();
  });
}
