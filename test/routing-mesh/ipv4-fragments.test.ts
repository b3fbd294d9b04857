import fc from 'fast-check';
import { test } from 'tap';
import { sum16BigEndian } from '../../src/core/checksum.ts';
import { PROTO_UDP } from '../../src/core/packet.ts';
import {
  fragmentPayloadBytes,
  mustNotFragment,
  writeIpv4FragmentHeaders,
} from '../../src/routing-mesh/ipv4-fragments.ts';
import { frame, type PacketSpec, parsed, wrongChecksums } from './packets.ts';

const ETHERNET = 14;

function datagram(length: number, spec: Partial<PacketSpec> = {}): DataView {
  const payload = Uint8Array.from({ length }, (_, at) => (at * 7) & 0xff);
  return frame({ from: '10.0.0.5:4000', to: '10.0.0.6:80', protocol: PROTO_UDP, payload, ...spec });
}

/** Cuts the frame in `view` into whole frames for `mtu`, if it does not fit. */
function cut(view: DataView, mtu: number): Uint8Array[] {
  const packet = parsed(view);
  if (packet.ipTotalBytes <= mtu) return [new Uint8Array(view.buffer)];
  const room = fragmentPayloadBytes(packet, mtu);
  const payload = new Uint8Array(view.buffer, ETHERNET + packet.ipHeaderBytes);
  const fragments: Uint8Array[] = [];
  for (let done = 0; done < packet.ipTotalBytes - packet.ipHeaderBytes; done += room) {
    const part = payload.slice(done, done + room);
    const bytes = new Uint8Array(view.byteLength + 80 + part.length);
    bytes.set(new Uint8Array(view.buffer));
    const at = new DataView(bytes.buffer);
    const slot = view.byteLength;
    const headerBytes = writeIpv4FragmentHeaders(at, slot, packet, done, part.length);
    bytes.set(part, slot + headerBytes);
    fragments.push(bytes.slice(slot, slot + headerBytes + part.length));
  }
  return fragments;
}

/** Puts fragments together by their offsets, in whatever order: RFC 791's reassembly, slowly. */
function reassemble(fragments: readonly Uint8Array[]): Uint8Array {
  const views = fragments.map((bytes) => new DataView(bytes.buffer));
  const first = views.find((view) => (view.getUint16(20) & 0x1fff) === 0);
  const last = views.find((view) => (view.getUint16(20) & 0x2000) === 0);
  if (first === undefined || last === undefined) throw new Error('First or last one is missing');
  const headerBytes = ETHERNET + (first.getUint8(14) & 15) * 4;
  const partBytes = (view: DataView): number => view.getUint16(16) + ETHERNET - headerBytes;
  const offsetOf = (view: DataView): number => (view.getUint16(20) & 0x1fff) * 8;
  const whole = new Uint8Array(headerBytes + offsetOf(last) + partBytes(last));
  whole.set(new Uint8Array(first.buffer).subarray(0, headerBytes));
  for (const view of views) {
    const part = new Uint8Array(view.buffer).subarray(headerBytes, headerBytes + partBytes(view));
    whole.set(part, headerBytes + offsetOf(view));
  }
  const view = new DataView(whole.buffer);
  view.setUint16(16, whole.length - ETHERNET);
  view.setUint16(20, 0);
  view.setUint16(24, 0);
  view.setUint16(24, ~sum16BigEndian(view, 14, headerBytes - ETHERNET) & 0xffff);
  return whole;
}

test('fragments of any datagram fit, are sound, and make the datagram again', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 4000 }),
      fc.integer({ min: 100, max: 1500 }),
      fc.nat({ max: 10 }),
      (length, mtu, ipOptions) => {
        const view = datagram(length, { ipOptions, identification: 0xbeef });
        const fragments = cut(view, mtu);
        for (const [index, bytes] of fragments.entries()) {
          const fragment = new DataView(bytes.buffer);
          t.ok(bytes.length - ETHERNET <= mtu, `${bytes.length} bytes for ${mtu}`);
          t.same(wrongChecksums(fragment), [], `fragment ${index}`);
          t.match(parsed(fragment), { identification: 0xbeef, protocol: PROTO_UDP });
        }
        t.same(reassemble(fragments.toReversed()), new Uint8Array(view.buffer));
        const isCut = view.byteLength - ETHERNET > mtu;
        t.equal(fragments.length > 1, isCut);
      },
    ),
  );
  t.end();
});

test('a fragment is cut again', (t) => {
  const view = datagram(4000);
  const coarse = cut(view, 1500);
  t.equal(coarse.length, 3);
  const fine = coarse.flatMap((bytes) => cut(new DataView(bytes.buffer), 600));
  t.equal(fine.length, 3 + 3 + 2);
  t.same(reassemble(fine), new Uint8Array(view.buffer));
  const unfinished = fine.filter(
    (bytes) => (new DataView(bytes.buffer).getUint16(20) & 0x2000) !== 0,
  );
  t.equal(unfinished.length, fine.length - 1, 'all but the last say that more follows');
  t.end();
});

test('only options that ask for it are in every fragment', (t) => {
  const timestamp = [0x44, 4, 5, 0]; // RFC 781: not copied
  const looseRoute = [0x83, 7, 4, 10, 0, 0, 9]; // copied
  const list = [...timestamp, ...looseRoute, 0];
  const view = datagram(100, { ipOptions: list.length / 4 });
  new Uint8Array(view.buffer).set(list, 34);
  const [first, ...later] = cut(view, 72);
  t.same([...(first ?? []).slice(34, 46)], list);
  t.equal(later.length, 2);
  for (const bytes of later) {
    t.same([...bytes.slice(34, 46)], [1, 1, 1, 1, ...looseRoute, 0]);
    t.same(wrongChecksums(new DataView(bytes.buffer)), []);
  }
  t.end();
});

for (const [name, list] of [
  ['no length', [0x44, 0, 1, 1]],
  ['a length behind the header', [0x44, 9, 1, 1]],
  ['no room for a length', [1, 1, 1, 0x44]],
] as const) {
  test(`an option with ${name} ends the walk`, (t) => {
    const view = datagram(100, { ipOptions: 1 });
    new Uint8Array(view.buffer).set(list, 34);
    for (const bytes of cut(view, 96)) t.same([...bytes.slice(34, 38)], list);
    t.end();
  });
}

for (const [ipOptions, mtu, expected] of [
  [0, 1230, 1208],
  [0, 28, 8],
  [0, 27, 0],
  [0, 20, 0],
  [10, 60, 0],
  [10, 68, 8],
] as const) {
  test(`a header of ${20 + 4 * ipOptions} bytes leaves ${expected} of ${mtu}`, (t) => {
    t.equal(fragmentPayloadBytes(parsed(datagram(10, { ipOptions })), mtu), expected);
    t.end();
  });
}

test('mustNotFragment() reads the DF flag', (t) => {
  const view = datagram(10);
  t.equal(mustNotFragment(view, parsed(view)), false);
  view.setUint16(20, 0x4000);
  t.equal(mustNotFragment(view, parsed(view)), true);
  view.setUint16(20, 0x2000);
  t.equal(mustNotFragment(view, parsed(view)), false);
  t.end();
});
