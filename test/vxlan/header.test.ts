import fc from 'fast-check';
import { test } from 'tap';
import {
  NOT_VXLAN,
  readVxlanVni,
  VXLAN_HEADER_BYTES,
  VXLAN_PORT,
  writeVxlanHeader,
} from '../../src/vxlan/header.ts';
import { toVni, VNI_MAX } from '../../src/vxlan/vni.ts';

function viewOf(hex: string): DataView {
  return new DataView(Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex')).buffer);
}

test('writeVxlanHeader() writes what RFC 7348 figure 1 shows', (t) => {
  t.equal(VXLAN_PORT, 4789, 'the port that IANA assigned');
  for (const [vni, expected] of [
    [1, '08000000 00000100'],
    [4096, '08000000 00100000'],
    [0x12_3456, '08000000 12345600'],
    [0x80_0000, '08000000 80000000'],
    [VNI_MAX, '08000000 ffffff00'],
  ] as const) {
    const bytes = new Uint8Array(VXLAN_HEADER_BYTES + 4).fill(0xee);
    writeVxlanHeader(new DataView(bytes.buffer), 3, vni);
    t.equal(Buffer.from(bytes).toString('hex'), `eeeeee${expected.replace(' ', '')}ee`);
  }
  t.end();
});

for (const [name, hex, vni] of [
  ['a plain header', '08000000 12345600', 0x12_3456],
  ['the highest VNI', '08000000 ffffff00', VNI_MAX],
  ['reserved bits, which a receiver ignores', 'ffabcdef 123456ff', 0x12_3456],
  ['no I flag', '00000000 12345600', NOT_VXLAN],
  ['every flag but I', 'f7ffffff 12345600', NOT_VXLAN],
  ['one byte too few', '08000000 123456', NOT_VXLAN],
  ['nothing', '', NOT_VXLAN],
] as const) {
  test(`readVxlanVni() of ${name}`, (t) => {
    const view = viewOf(hex);
    t.equal(readVxlanVni(view, 0, view.byteLength), vni);
    t.end();
  });
}

test('readVxlanVni() believes the length, not the buffer', (t) => {
  t.equal(readVxlanVni(viewOf('08000000 00000100'), 0, 7), NOT_VXLAN);
  t.end();
});

test('every VNI comes back, whatever the buffer held', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: VNI_MAX }),
      fc.uint8Array({ minLength: 24, maxLength: 24 }),
      fc.nat({ max: 16 }),
      (vni, bytes, offset) => {
        const before = bytes.slice();
        const view = new DataView(bytes.buffer);
        writeVxlanHeader(view, offset, vni);
        const around = bytes.every(
          (byte, at) => (at >= offset && at < offset + VXLAN_HEADER_BYTES) || byte === before[at],
        );
        return around && readVxlanVni(view, offset, VXLAN_HEADER_BYTES) === vni;
      },
    ),
  );
  t.end();
});

test('toVni() accepts 24 bits without the zero', (t) => {
  for (const value of [1, 4096, VNI_MAX]) t.equal(toVni(value), value);
  for (const value of [0, -1, 1.5, VNI_MAX + 1, Number.NaN, Number.POSITIVE_INFINITY]) {
    t.throws(
      () => toVni(value),
      new RangeError(`Cannot use ${value} as a VNI: expected an integer in [1, 16777215]`),
    );
  }
  t.end();
});
