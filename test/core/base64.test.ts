import fc from 'fast-check';
import { test } from 'tap';
import { parseBase64, toBase64 } from '../../src/core/base64.ts';

test('base64 is what Node makes of the same bytes, and reads back', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      const text = toBase64(bytes);
      t.equal(text, Buffer.from(bytes).toString('base64'));
      t.same(parseBase64(text), bytes);
    }),
    { numRuns: 200 },
  );
  t.end();
});

test('what is not base64, or not in its one form, is refused', (t) => {
  for (const text of [
    'A',
    'AA',
    'AA=',
    'AAA',
    'AB==',
    'AAB=',
    'A A=',
    'AAA=\n',
    '-_8=',
    'AAAAA===',
  ]) {
    t.equal(parseBase64(text), undefined, JSON.stringify(text));
  }
  t.same(parseBase64(''), new Uint8Array());
  t.end();
});
