import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { test } from 'tap';
import { utf8Bytes } from '../../src/gossip/bytes.ts';
import { crc32 } from '../../src/gossip/crc32.ts';
import { lzwCompress, lzwDecompress } from '../../src/gossip/lzw.ts';

const go: {
  readonly text: Readonly<Record<string, string>>;
  readonly rows: readonly (readonly [number, number, number, string])[];
} = JSON.parse(readFileSync(new URL('./vectors/lzw.json', import.meta.url), 'utf8'));

/** The generator that the vectors' provenance describes. */
function generated(mask: number, length: number): Uint8Array {
  let x = 1;
  return Uint8Array.from({ length }, () => {
    x = (Math.imul(x, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return (x >>> 16) & mask;
  });
}

/** Codes of 9 bits and more as a writer without any cleverness would write them. */
function codes(list: readonly (readonly [code: number, width: number])[]): Uint8Array {
  let bits = '';
  for (const [code, width] of list) bits = code.toString(2).padStart(width, '0') + bits;
  bits = bits.padStart(Math.ceil(bits.length / 8) * 8, '0');
  return Uint8Array.from(bits.match(/.{8}/g) ?? [], (byte) => Number.parseInt(byte, 2)).reverse();
}

test('lzwCompress() writes what Go writes, around each change of the code width and each restart', (t) => {
  for (const [text, hex] of Object.entries(go.text)) {
    t.equal(Buffer.from(lzwCompress(utf8Bytes(text)) ?? []).toString('hex'), hex, text);
  }
  for (const [mask, length, outLength, crc] of go.rows) {
    const input = generated(mask, length);
    const output = lzwCompress(input) ?? new Uint8Array();
    t.same(
      [output.length, crc32(output)],
      [outLength, Number.parseInt(crc, 16)],
      `${mask} ${length}`,
    );
    const back = lzwDecompress(output, length);
    t.ok(typeof back !== 'string' && Buffer.compare(back, input) === 0, 'and it is read again');
    t.equal(lzwCompress(input, outLength - 1), undefined, 'a smaller output is not to be had');
    t.equal(lzwCompress(input, outLength)?.length, outLength);
    t.equal(lzwDecompress(output, length - 1), 'too-large');
    t.equal(lzwDecompress(output.subarray(0, -1), length), 'truncated');
  }
  t.end();
});

test('lzwDecompress() undoes lzwCompress()', (t) => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 2_000 }),
    fc.array(fc.constantFrom(0, 1, 255), { maxLength: 8_000 }).map((list) => Uint8Array.from(list)),
    fc
      .tuple(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.integer({ min: 1, max: 400 }))
      .map(([part, count]) =>
        Uint8Array.from(
          Array(count)
            .fill([...part])
            .flat(),
        ),
      ),
  );
  fc.assert(
    fc.property(bytes, fc.uint8Array({ maxLength: 3 }), (input, behind) => {
      const output = lzwCompress(input) ?? new Uint8Array();
      const back = lzwDecompress(Uint8Array.of(...output, ...behind), input.length);
      t.ok(typeof back !== 'string' && Buffer.compare(back, input) === 0);
    }),
    { numRuns: 200 },
  );
  t.end();
});

test('lzwDecompress() reads all that Go reads, and gives a reason for the rest', (t) => {
  const clear: readonly [number, number] = [256, 9];
  const end: readonly [number, number] = [257, 9];
  for (const [name, list, expected] of [
    ['no clear in front', [[65, 9], [66, 9], end], 'AB'],
    ['a clear at any time', [clear, [65, 9], clear, clear, [66, 9], end], 'AB'],
    ['the entry that is being made', [clear, [65, 9], [258, 9], [259, 9], end], 'AAAAAA'],
    [
      'an entry made before a clear',
      [clear, [65, 9], [66, 9], clear, [258, 9], end],
      'invalid-code',
    ],
    ['an entry first', [clear, [258, 9], end], 'invalid-code'],
    ['an entry beyond the next', [clear, [65, 9], [259, 9], end], 'invalid-code'],
    ['no end', [clear, [65, 9]], 'truncated'],
    ['the end only', [end], ''],
  ] as const) {
    const output = lzwDecompress(codes(list), 100);
    t.equal(typeof output === 'string' ? output : Buffer.from(output).toString(), expected, name);
  }
  t.equal(lzwDecompress(new Uint8Array(), 100), 'truncated');
  t.end();
});

test('lzwDecompress() goes on with a full table until it is told to clear', (t) => {
  // A writer that never clears: 4,096 - 258 literals fill the table, further codes make no entries.
  const width = (index: number): number => Math.min(12, Math.max(9, 32 - Math.clz32(index + 257)));
  const literals = Array.from({ length: 5_000 }, (_, index): [number, number] => [
    index & 255,
    width(index),
  ]);
  const list = [...literals, [4_095, 12], [4_095, 12], [300, 12], [257, 12]] as const;
  const output = lzwDecompress(codes(list), 10_000);
  if (typeof output === 'string') throw new Error(output);
  // Entry 258 + n is what literals n and n + 1 stand for.
  const entry = (code: number): number[] => [(code - 258) & 255, (code - 257) & 255];
  const expected = [...literals.map(([byte]) => byte), ...entry(4_095), ...entry(4_095)];
  t.same([...output], [...expected, ...entry(300)]);
  t.end();
});
