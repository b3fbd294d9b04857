import { test } from 'tap';
import { GATEWAY_MAC, macWords, parseMac } from '../../src/core/address.ts';
import { AddressWords } from '../../src/core/address-words.ts';
import { formatIp } from '../../src/core/ip.ts';
import { Packet, parseFrame } from '../../src/core/packet.ts';
import {
  isAddressProbe,
  isNeighborDiscovery,
  isNeighborSolicitation,
  NEIGHBOR_ADVERTISEMENT_FRAME_BYTES,
  readSolicitedTarget,
  writeNeighborAdvertisement,
} from '../../src/vxlan/nd.ts';
import { parsed, wrongChecksums } from '../routing-mesh/packets.ts';
import { type SolicitationSpec, solicitation } from './solicitation.ts';

const ALICE = 'fd00::a00:2';
const BOB = 'fd00::a00:3';
// fd00::a00:2 at 02:42:0a:00:00:02 asks for fd00::a00:3, byte by byte. The checksum is left out: see wrongChecksums().
const REQUEST =
  '3333ff000003 02420a000002 86dd 60123456 0020 3a ff ' +
  'fd00000000000000000000000a000002 ff0200000000000000000001ff000003 ' +
  '87 00 0000 00000000 fd00000000000000000000000a000003 01 01 02420a000002';
// What 02:42:0a:00:00:03 says to that.
const ANSWER =
  '02420a000002 02420a000003 86dd 60000000 0020 3a ff ' +
  'fd00000000000000000000000a000003 fd00000000000000000000000a000002 ' +
  '88 00 0000 60000000 fd00000000000000000000000a000003 02 01 02420a000003';

function bytesOf(hex: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
}

function read(bytes: Uint8Array): { readonly view: DataView; readonly packet: Packet } {
  const view = new DataView(bytes.slice().buffer);
  const packet = new Packet();
  parseFrame(view, 0, bytes.length, packet);
  return { view, packet };
}

/** Answers the solicitation in `bytes`, in memory that is garbage before. */
function answered(bytes: Uint8Array, mac: number, isRouter: boolean): DataView {
  const memory = new Uint8Array(bytes.length + NEIGHBOR_ADVERTISEMENT_FRAME_BYTES + 8).fill(0xa5);
  memory.set(bytes);
  const view = new DataView(memory.buffer);
  const packet = parsed(view, bytes.length);
  writeNeighborAdvertisement(view, bytes.length, packet, macWords(mac), isRouter);
  const end = bytes.length + NEIGHBOR_ADVERTISEMENT_FRAME_BYTES;
  if (memory.subarray(end).some((byte) => byte !== 0xa5)) throw new Error('Wrote behind its end');
  return new DataView(memory.buffer.slice(bytes.length, end));
}

test('a solicitation is read', (t) => {
  const bytes = solicitation({ from: ALICE, target: BOB });
  const golden = bytesOf(REQUEST);
  new DataView(golden.buffer).setUint16(56, new DataView(bytes.buffer).getUint16(56));
  t.same(bytes, golden, 'the test makes what the RFC shows');
  const { view, packet } = read(bytes);
  t.same(wrongChecksums(view), []);
  t.ok(isNeighborDiscovery(packet));
  t.ok(isNeighborSolicitation(view, packet));
  t.notOk(isAddressProbe(view, packet));
  const target = new AddressWords();
  readSolicitedTarget(view, packet, target);
  t.equal(formatIp(target.toIp()), BOB);
  t.end();
});

const PROBE: SolicitationSpec = { from: '::', target: BOB, fromMac: 0x0242_0a00_0002 };
for (const [name, spec, isSound] of [
  ['to one host', { from: ALICE, target: BOB, to: BOB }, true],
  ['without options', { from: ALICE, target: BOB, options: new Uint8Array(0) }, true],
  [
    'with an unknown option',
    { from: ALICE, target: BOB, options: bytesOf('0e01aabbccddeeff') },
    true,
  ],
  ['that probes', PROBE, true],
  [
    'that probes, with a nonce (RFC 7527)',
    { ...PROBE, options: bytesOf('0e01aabbccddeeff') },
    true,
  ],
  ['that probes one host', { ...PROBE, to: BOB }, false],
  ['that probes and names its MAC', { ...PROBE, options: bytesOf('010102420a000002') }, false],
  ['that a router passed on', { from: ALICE, target: BOB, hopLimit: 254 }, false],
  ['for a group', { from: ALICE, target: 'ff02::1' }, false],
  [
    'with an option of no length',
    { from: ALICE, target: BOB, options: bytesOf('0100aabbccddeeff') },
    false,
  ],
  [
    'with an option beyond its end',
    { from: ALICE, target: BOB, options: bytesOf('0102aabbccddeeff') },
    false,
  ],
  ['with half an option', { from: ALICE, target: BOB, options: bytesOf('01') }, false],
  ['in fragments', { from: ALICE, target: BOB, ip: { moreFragments: true } }, false],
  ['behind options of the packet', { from: ALICE, target: BOB, ip: { ipOptions: 2 } }, true],
  ['that is an advertisement', { from: ALICE, target: BOB, type: 136 }, false],
  ['that is a redirect', { from: ALICE, target: BOB, type: 137 }, false],
  ['that is of a router', { from: ALICE, target: BOB, type: 134 }, false],
] as const satisfies readonly (readonly [string, SolicitationSpec, boolean])[]) {
  test(`isNeighborSolicitation() ${isSound ? 'accepts' : 'refuses'} one ${name}`, (t) => {
    const { view, packet } = read(solicitation(spec));
    t.ok(isNeighborDiscovery(packet));
    t.equal(isNeighborSolicitation(view, packet), isSound);
    t.end();
  });
}

for (const [name, at, value] of [
  ['a code', 55, 1],
  ['a wrong checksum', 57, 0xee],
  ['a changed target', 77, 0xee],
] as const) {
  test(`isNeighborSolicitation() refuses one with ${name}`, (t) => {
    const { view, packet } = read(solicitation({ from: ALICE, target: BOB }));
    view.setUint8(at, value);
    t.notOk(isNeighborSolicitation(view, packet));
    t.end();
  });
}

test('isNeighborSolicitation() refuses every truncation', (t) => {
  const bytes = solicitation({ from: ALICE, target: BOB });
  for (let payload = 8; payload < 24; payload++) {
    const cut = bytes.slice(0, 54 + payload);
    new DataView(cut.buffer).setUint16(18, payload);
    const { view, packet } = read(cut);
    if (isNeighborSolicitation(view, packet)) t.fail(`${payload} bytes are no solicitation`);
  }
  t.end();
});

test('isNeighborDiscovery() knows four of its messages', (t) => {
  for (const [type, expected] of [
    [133, false],
    [134, true],
    [137, true],
    [138, false],
  ] as const) {
    t.equal(
      isNeighborDiscovery(read(solicitation({ from: ALICE, target: BOB, type })).packet),
      expected,
    );
  }
  t.end();
});

test('writeNeighborAdvertisement() answers who asked', (t) => {
  const request = solicitation({ from: ALICE, target: BOB });
  const answer = answered(request, parseMac('02:42:0a:00:00:03'), false);
  t.same(wrongChecksums(answer), []);
  answer.setUint16(56, 0);
  t.same(new Uint8Array(answer.buffer), bytesOf(ANSWER));
  const gateway = answered(request, GATEWAY_MAC, true);
  t.same(wrongChecksums(gateway), []);
  t.equal(gateway.getUint32(58), 0xe000_0000, 'router, solicited, override');
  t.end();
});

test('writeNeighborAdvertisement() answers a probe to all', (t) => {
  const answer = answered(solicitation(PROBE), parseMac('02:42:0a:00:00:03'), false);
  t.same(wrongChecksums(answer), []);
  const packet = parsed(answer);
  t.match(packet, { destinationMac: parseMac('33:33:00:00:00:01'), icmpType: 136 });
  const destination = new AddressWords();
  destination.read(answer, packet.destinationStart, 6);
  t.equal(formatIp(destination.toIp()), 'ff02::1');
  t.equal(answer.getUint32(58), 0x2000_0000, 'override, and nobody in particular asked');
  t.end();
});
