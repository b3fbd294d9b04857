import fc from 'fast-check';
import { test } from 'tap';
import { lowerBound, nextFree } from '../../src/ipam/next-fit.ts';

test('nextFree() finds what a look at every number in turn finds', async (t) => {
  const numbers = fc.uniqueArray(fc.nat(12), { maxLength: 13 });
  fc.assert(
    fc.property(numbers, numbers, fc.nat(12), fc.nat(12), fc.nat(14), (taken, not, a, b, from) => {
      const [first, last] = a < b ? [a, b] : [b, a];
      const allocations = taken.sort((x, y) => x - y).map((value) => [value, 'holder'] as const);
      const start = from >= first && from <= last ? from : first;
      const size = last - first + 1;
      const turn = Array.from({ length: size }, (_, i) => first + ((start - first + i) % size));
      const expected = turn.find((value) => !taken.includes(value) && !not.includes(value));
      const found = nextFree(allocations, { first, last, from, except: new Set(not) });
      const bound = taken.filter((value) => value < from).length;
      return found === expected && lowerBound(allocations, from) === bound;
    }),
    { numRuns: 2_000 },
  );
  t.equal(nextFree([], { first: 5, last: 4, from: 5 }), undefined, 'an empty range has no number');
});
