import fc from 'fast-check';
import { test } from 'tap';
import { nextProbeBytes } from '../../src/vxlan/path-search.ts';

/** Runs the search on a path that carries `pathBytes`; returns what it found and the sizes it tried. */
function search(pathBytes: number, maxBytes: number): { found: number; tried: number[] } {
  let bracket = { passes: Math.min(1280, maxBytes), fails: maxBytes + 1 };
  const tried: number[] = [];
  for (;;) {
    const next = nextProbeBytes(bracket, maxBytes);
    if (next === undefined) return { found: bracket.passes, tried };
    tried.push(next);
    bracket = next <= pathBytes ? { ...bracket, passes: next } : { ...bracket, fails: next };
  }
}

for (const [pathBytes, maxBytes, found, tries] of [
  [1500, 1500, 1500, 1],
  [9000, 9000, 9000, 1],
  [1500, 9000, 1500, 11],
  [1492, 1500, 1492, 4],
  [1420, 1500, 1420, 6],
  [1280, 1500, 1280, 8],
  [1280, 1280, 1280, 0],
] as const) {
  test(`a path of ${pathBytes} behind a link of ${maxBytes} is found in ${tries} sizes`, (t) => {
    const result = search(pathBytes, maxBytes);
    t.equal(result.found, found);
    t.equal(result.tried.length, tries, result.tried.join(' '));
    t.end();
  });
}

test('the search ends for every path, at most 8 bytes below what it carries', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1280, max: 65_535 }),
      fc.integer({ min: 1280, max: 65_535 }),
      (a, b) => {
        const [pathBytes, maxBytes] = [Math.min(a, b), Math.max(a, b)];
        const { found, tried } = search(pathBytes, maxBytes);
        t.ok(found <= pathBytes && found >= pathBytes - 8, `${found} of ${pathBytes}`);
        t.equal(new Set(tried).size, tried.length, 'no size is tried twice');
        t.ok(tried.length <= 22, `${tried.length} sizes`);
      },
    ),
    { numRuns: 500 },
  );
  t.end();
});
