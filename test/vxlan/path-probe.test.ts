import fc from 'fast-check';
import { test } from 'tap';
import { NOT_VXLAN, readVxlanVni } from '../../src/vxlan/header.ts';
import {
  answerProbe,
  PROBE_BYTES_MAX,
  PROBE_HEADER_BYTES,
  readProbeReply,
  writeProbe,
} from '../../src/vxlan/path-probe.ts';

const PROBE = {
  sizeBytes: 32,
  sequence: 0x0102_0304,
  nonce: 0xdead_beef_0bad_cafen,
  sentUs: 0x0005_0006_0007_0008n,
};

test('writeProbe() writes the header that is documented, and zeros behind it', (t) => {
  const bytes = new Uint8Array(40).fill(0xee);
  writeProbe(new DataView(bytes.buffer), 4, PROBE);
  t.equal(
    Buffer.from(bytes).toString('hex'),
    `eeeeeeee${'05010020'}${'01020304'}${'deadbeef0badcafe'}${'0005000600070008'}${'00'.repeat(8)}eeeeeeee`,
  );
  t.equal(
    readVxlanVni(new DataView(bytes.buffer, 4), 0, 32),
    NOT_VXLAN,
    'to others it is no VXLAN',
  );
  t.end();
});

test('writeProbe() refuses a size that no probe has', (t) => {
  const view = new DataView(new ArrayBuffer(64));
  for (const sizeBytes of [0, PROBE_HEADER_BYTES - 1, PROBE_BYTES_MAX + 1, Number.NaN]) {
    t.throws(
      () => writeProbe(view, 0, { ...PROBE, sizeBytes }),
      new RangeError(`Cannot write a path probe of ${sizeBytes} bytes: expected 24 to 65507`),
    );
  }
  t.end();
});

test('a reply carries back what the probe said, and the size that arrived', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: PROBE_HEADER_BYTES, max: 2000 }),
      fc.integer({ min: 0, max: 0xffff_ffff }),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.nat({ max: 16 }),
      (sizeBytes, sequence, nonce, sentUs, offset) => {
        const view = new DataView(new ArrayBuffer(offset + sizeBytes));
        const probe = { sizeBytes, sequence, nonce, sentUs };
        writeProbe(view, offset, probe);
        t.equal(answerProbe(view, offset, sizeBytes), PROBE_HEADER_BYTES);
        t.same(readProbeReply(view, offset, PROBE_HEADER_BYTES), probe);
      },
    ),
  );
  t.end();
});

for (const [name, edit, length] of [
  ['cut short', () => {}, 31],
  ['longer than it says', () => {}, 33],
  ['shorter than a header', () => {}, 23],
  ['empty', () => {}, 0],
  ['of another version', (view: DataView) => view.setUint8(1, 2), 32],
  ['of another kind', (view: DataView) => view.setUint8(0, 4), 32],
  ['a reply', (view: DataView) => view.setUint8(0, 6), 32],
] as const) {
  test(`answerProbe() does not answer a probe that is ${name}`, (t) => {
    const view = new DataView(new ArrayBuffer(40));
    writeProbe(view, 0, PROBE);
    edit(view);
    const before = Buffer.from(view.buffer).toString('hex');
    t.equal(answerProbe(view, 0, length), 0);
    t.equal(Buffer.from(view.buffer).toString('hex'), before, 'and leaves it alone');
    t.end();
  });
}

test('readProbeReply() takes nothing but a reply', (t) => {
  const view = new DataView(new ArrayBuffer(40));
  writeProbe(view, 0, PROBE);
  t.equal(readProbeReply(view, 0, PROBE_HEADER_BYTES), undefined, 'a probe');
  answerProbe(view, 0, 32);
  for (const length of [0, 23, 25, 32]) t.equal(readProbeReply(view, 0, length), undefined);
  view.setUint8(1, 2);
  t.equal(readProbeReply(view, 0, PROBE_HEADER_BYTES), undefined, 'another version');
  t.end();
});

test('whatever arrives is read without an exception or a look behind its end', (t) => {
  const kinds = fc.constantFrom(0, 1, 4, 5, 6, 8, 255);
  fc.assert(
    fc.property(kinds, fc.uint8Array({ maxLength: 64 }), (kind, bytes) => {
      if (bytes.length > 0) bytes[0] = kind;
      if (bytes.length > 4) bytes.set([1, 0, bytes.length], 1);
      const exact = new DataView(bytes.slice().buffer);
      const padded = new DataView(Uint8Array.of(...bytes, ...new Uint8Array(64).fill(0x5a)).buffer);
      t.same(readProbeReply(padded, 0, bytes.length), readProbeReply(exact, 0, bytes.length));
      t.equal(answerProbe(padded, 0, bytes.length), answerProbe(exact, 0, bytes.length));
    }),
    { numRuns: 2000 },
  );
  t.end();
});
