import fc from 'fast-check';
import { test } from 'tap';
import {
  applyDelta,
  delta16,
  delta32,
  fold16,
  loadChecksumKernel,
  sum16BigEndian,
  swap16,
} from '../../src/core/checksum.ts';

/** RFC 1071 word by word, with none of the code under test. */
function slowSum(bytes: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) {
    sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

/** Zero has two forms in one's complement. */
function sameSum(a: number, b: number): boolean {
  return a % 0xffff === b % 0xffff;
}

const memory = new WebAssembly.Memory({ initial: 2, maximum: 2 });
const arena = new Uint8Array(memory.buffer);
const kernel = loadChecksumKernel(memory);

test('the example of RFC 1071 section 3', (t) => {
  const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
  arena.set(bytes, 64);
  t.equal(swap16(kernel.sum16(64, bytes.length)), 0xddf2);
  t.equal(sum16BigEndian(new DataView(bytes.buffer), 0, bytes.length), 0xddf2);
  t.end();
});

test('the kernel sums like the slow oracle, at every alignment and length', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 3_000 }), fc.nat({ max: 67 }), (bytes, start) => {
      arena.fill(0xff);
      arena.set(bytes, start);
      return sameSum(swap16(kernel.sum16(start, bytes.length)), slowSum(bytes));
    }),
    { numRuns: 500 },
  );
  arena.fill(0xff);
  t.ok(
    sameSum(swap16(kernel.sum16(0, 65_535)), slowSum(arena.subarray(0, 65_535))),
    'all ones, 64 KiB',
  );
  t.end();
});

test('sum16BigEndian() sums like the slow oracle', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) =>
      sameSum(sum16BigEndian(new DataView(bytes.buffer), 0, bytes.length), slowSum(bytes)),
    ),
  );
  t.end();
});

test('applyDelta() changes a checksum as recomputing it would (RFC 1624)', (t) => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 20, maxLength: 60 }).filter((bytes) => bytes.length % 2 === 0),
      fc.nat({ max: 8 }).map((word) => word * 2),
      fc.nat({ max: 0xffff_ffff }),
      (bytes, at, value) => {
        const view = new DataView(bytes.buffer);
        const before = ~slowSum(bytes) & 0xffff;
        const old32 = view.getUint32(at);
        const expected16 = applyDelta(before, delta16(old32 >>> 16, value >>> 16));
        const expected32 = applyDelta(before, delta32(old32, value));
        view.setUint16(at, value >>> 16);
        const after16 = slowSum(bytes);
        view.setUint32(at, value);
        return (
          sameSum(fold16(after16 + expected16), 0xffff) &&
          sameSum(fold16(slowSum(bytes) + expected32), 0xffff)
        );
      },
    ),
  );
  t.end();
});
