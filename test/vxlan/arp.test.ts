import fc from 'fast-check';
import { test } from 'tap';
import { macWords, parseIpv4, parseMac } from '../../src/core/address.ts';
import {
  ARP_FRAME_BYTES,
  answerArp,
  arpSenderAt,
  arpTargetAt,
  isArpRequest,
} from '../../src/vxlan/arp.ts';

// 10.0.0.2 at 02:42:0a:00:00:02 asks everyone for 10.0.0.3 (RFC 826, byte by byte).
const REQUEST =
  'ffffffffffff 02420a000002 0806 0001 0800 06 04 0001 ' +
  '02420a000002 0a000002 000000000000 0a000003';
// What 02:42:0a:00:00:03 says to that: sender and target have changed sides.
const REPLY =
  '02420a000002 02420a000003 0806 0001 0800 06 04 0002 ' +
  '02420a000003 0a000003 02420a000002 0a000002';
const START = 2;

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
}

/** `hex` at an odd place in a larger buffer. */
function placed(hex: string): { readonly bytes: Uint8Array; readonly view: DataView } {
  const frame = bytesOf(hex);
  const bytes = new Uint8Array(frame.length + 24).fill(0xee);
  bytes.set(frame, START);
  return { bytes, view: new DataView(bytes.buffer) };
}

test('a request is read', (t) => {
  const { view } = placed(REQUEST);
  t.equal(ARP_FRAME_BYTES, bytesOf(REQUEST).length);
  t.ok(isArpRequest(view, START, ARP_FRAME_BYTES));
  t.ok(isArpRequest(view, START, 60), 'padded to the least Ethernet frame');
  t.equal(view.getUint32(arpSenderAt(START)), parseIpv4('10.0.0.2'));
  t.equal(view.getUint32(arpTargetAt(START)), parseIpv4('10.0.0.3'));
  t.end();
});

for (const [name, at, hex] of [
  ['hardware other than Ethernet', 14, '0006'],
  ['a protocol other than IPv4', 16, '86dd'],
  ['another hardware address length', 18, '08'],
  ['another protocol address length', 19, '10'],
  ['a reply', 20, '0002'],
  ['a reverse request (RFC 903)', 20, '0003'],
] as const) {
  test(`isArpRequest() refuses ${name}`, (t) => {
    const { bytes, view } = placed(REQUEST);
    bytes.set(bytesOf(hex), START + at);
    t.notOk(isArpRequest(view, START, ARP_FRAME_BYTES));
    t.end();
  });
}

test('isArpRequest() refuses every truncation', (t) => {
  const { view } = placed(REQUEST);
  for (let length = 0; length < ARP_FRAME_BYTES; length++) {
    if (isArpRequest(view, START, length)) t.fail(`${length} bytes are no request`);
  }
  t.end();
});

test('answerArp() makes the reply and touches nothing else', (t) => {
  const { bytes, view } = placed(REQUEST);
  answerArp(view, START, macWords(parseMac('02:42:0a:00:00:03')));
  const expected = placed(REPLY).bytes;
  t.same(bytes, expected);
  t.end();
});

test('answering twice gives the asker back', (t) => {
  const mac = fc.nat({ max: 2 ** 48 - 1 });
  const address = fc.nat({ max: 0xffff_ffff });
  fc.assert(
    fc.property(mac, address, mac, address, (asker, askerAddress, owner, target) => {
      const { view } = placed(REQUEST);
      writeMac(view, START + 6, asker);
      writeMac(view, START + 22, asker);
      view.setUint32(START + 28, askerAddress);
      view.setUint32(START + 38, target);
      answerArp(view, START, macWords(owner));
      const isReply = view.getUint16(START + 20) === 2;
      const claims =
        readMac(view, START + 22) === owner && view.getUint32(arpSenderAt(START)) === target;
      const isToAsker = readMac(view, START) === asker && readMac(view, START + 32) === asker;
      return isReply && claims && isToAsker && view.getUint32(arpTargetAt(START)) === askerAddress;
    }),
  );
  t.end();
});

function readMac(view: DataView, at: number): number {
  return view.getUint16(at) * 2 ** 32 + view.getUint32(at + 2);
}

function writeMac(view: DataView, at: number, mac: number): void {
  view.setUint16(at, Math.floor(mac / 2 ** 32));
  view.setUint32(at + 2, mac % 2 ** 32);
}
