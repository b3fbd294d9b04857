import fc from 'fast-check';
import { test } from 'tap';
import { applyDelta, delta16 } from '../../src/core/checksum.ts';
import { TCP_ACK, TCP_SYN } from '../../src/core/packet.ts';
import { clampMss } from '../../src/routing-mesh/mss-clamp.ts';
import { ethernetFrame } from '../dataplane/frames.ts';
import { frame, parsed, wrongChecksums } from './packets.ts';

const CLIENT = '10.0.0.5:40000';
const SERVER = '10.0.0.6:80';
const TCP = 34;
const MSS_1460 = [2, 4, 0x05, 0xb4];

function syn(
  options: readonly number[],
  fields: { partial?: boolean; tcpFlags?: number } = {},
): DataView {
  const bytes = ethernetFrame({
    from: CLIENT,
    to: SERVER,
    tcpFlags: TCP_SYN,
    ...fields,
    tcpOptions: Uint8Array.from(options),
  });
  return new DataView(bytes.buffer);
}

function options(view: DataView): number[] {
  return [...new Uint8Array(view.buffer).subarray(TCP + 20)];
}

for (const [name, before, after] of [
  ['alone', MSS_1460, [2, 4, 0x04, 0xa6]],
  ['behind padding, at an odd place', [1, ...MSS_1460, 1, 1, 1], [1, 2, 4, 0x04, 0xa6, 1, 1, 1]],
  [
    'as Linux sends it, with SACK, timestamps and window scale',
    [...MSS_1460, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7],
    [2, 4, 0x04, 0xa6, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7],
  ],
  ['behind an option of odd length', [3, 3, 7, ...MSS_1460, 0], [3, 3, 7, 2, 4, 0x04, 0xa6, 0]],
] as const) {
  test(`clampMss() lowers an MSS that stands ${name}`, (t) => {
    for (const tcpFlags of [TCP_SYN, TCP_SYN | TCP_ACK]) {
      const view = syn(before, { tcpFlags });
      t.equal(clampMss(view, parsed(view), 1230, false), true);
      t.same(options(view), after);
      t.same(wrongChecksums(view), []);
    }
    t.end();
  });

  test(`clampMss() leaves a partial checksum alone: an MSS that stands ${name}`, (t) => {
    const view = syn(before, { partial: true });
    t.equal(clampMss(view, parsed(view), 1230, true), true);
    t.same(options(view), after);
    t.same(wrongChecksums(view, 0, true), []);
    t.end();
  });
}

for (const [name, given, mtu] of [
  ['it fits', MSS_1460, 1500],
  ['it is lower', [2, 4, 0x02, 0x18], 1230],
  ['there is none', [1, 1, 1, 1], 1230],
  ['there are no options', [], 1230],
  ['it is behind the end of the options', [0, 1, 1, 1, ...MSS_1460], 1230],
  ['it is cut off', [1, 1, 1, 2], 1230],
  ['it is longer than the header', [1, 1, 2, 4], 1230],
  ['it has another length', [2, 6, 0x05, 0xb4, 0, 0, 1, 1], 1230],
  ['an option in front has no length', [8, 0, ...MSS_1460, 1, 1], 1230],
  ['an option in front is longer than the header', [8, 40, ...MSS_1460, 1, 1], 1230],
  ['nothing would be left', MSS_1460, 40],
] as const) {
  test(`clampMss() leaves a SYN alone when ${name}`, (t) => {
    const view = syn(given);
    const before = Buffer.from(view.buffer).toString('hex');
    t.equal(clampMss(view, parsed(view), mtu, false), false);
    t.equal(Buffer.from(view.buffer).toString('hex'), before);
    t.end();
  });
}

test('clampMss() looks at SYNs only', (t) => {
  const plain = syn(MSS_1460, { tcpFlags: TCP_ACK });
  t.equal(clampMss(plain, parsed(plain), 1230, false), false);
  const fragment = syn(MSS_1460);
  fragment.setUint16(20, 0x2000);
  t.equal(clampMss(fragment, parsed(fragment), 1230, false), false);
  const udp = new DataView(ethernetFrame({ from: CLIENT, to: SERVER, protocol: 17 }).buffer);
  t.equal(clampMss(udp, parsed(udp), 1230, false), false);
  t.end();
});

test('clampMss() leaves 20 more bytes to the header of IPv6', (t) => {
  for (const ipOptions of [0, 2]) {
    const payload = Uint8Array.from(MSS_1460);
    const ends = { from: '[fd00::5]:40000', to: '[fd00::6]:80', ipOptions };
    const view = frame({ ...ends, tcpFlags: TCP_SYN, payload });
    // The payload becomes an option: the header is a word longer, and says so.
    const { l4Start } = parsed(view);
    view.setUint8(l4Start + 12, 6 << 4);
    const checksum = view.getUint16(l4Start + 16);
    view.setUint16(l4Start + 16, applyDelta(checksum, delta16(5 << 12, 6 << 12)));
    t.same(wrongChecksums(view), []);

    t.equal(clampMss(view, parsed(view), 1430, false), true);
    t.equal(view.getUint16(l4Start + 22), 1370, `${ipOptions} units of extension headers`);
    t.same(wrongChecksums(view), []);
  }
  t.end();
});

test('clampMss() writes nothing but the MSS and the checksum, and keeps the sum right', (t) => {
  const piece = fc.oneof(
    fc.constantFrom([1], [3, 3, 7], [4, 2], [2, 4, 0xff, 0xff], MSS_1460),
    fc.array(fc.integer({ min: 0, max: 255 }), { maxLength: 4 }),
  );
  const given = fc.array(piece, { maxLength: 8 }).map((pieces) => {
    const list = pieces.flat().slice(0, 40);
    return [...list, ...Array(-list.length & 3).fill(1)];
  });
  let changed = 0;
  fc.assert(
    fc.property(given, fc.integer({ min: 68, max: 9000 }), (list, mtu) => {
      const view = syn(list);
      const before = new Uint8Array(view.buffer.slice(0));
      const isChanged = clampMss(view, parsed(view), mtu, false);
      changed += isChanged ? 1 : 0;
      const differs = [...new Uint8Array(view.buffer)].flatMap((byte, at) =>
        byte === before[at] ? [] : [at],
      );
      t.same(wrongChecksums(view), []);
      t.ok(isChanged || differs.length === 0);
      t.ok(differs.every((at) => at === TCP + 16 || at === TCP + 17 || at >= TCP + 22));
      t.ok(differs.filter((at) => at >= TCP + 20).length <= 2);
    }),
    { numRuns: 3000, seed: 7 },
  );
  t.ok(changed > 300, `${changed} of them were lowered`);
  t.end();
});
