import fc from 'fast-check';
import { test } from 'tap';
import { NameIndex } from '../../src/gossip/name-index.ts';

const names = fc.integer({ min: 0, max: 60 }).map((number) => `node-${number}`);
const steps = fc.array(fc.record({ add: fc.boolean(), name: names }), { maxLength: 400 });

test('NameIndex gives each name one slot, as a Map would, and reuses those of removed names', (t) => {
  fc.assert(
    fc.property(steps, (all) => {
      const index = new NameIndex();
      const oracle = new Map<string, number>();
      let most = 0;
      for (const { add, name } of all) {
        if (add) {
          const slot = index.add(name);
          if (oracle.has(name)) t.equal(slot, oracle.get(name));
          else if ([...oracle.values()].includes(slot)) t.fail(`slot ${slot} is taken`);
          oracle.set(name, slot);
        } else {
          t.equal(index.delete(name), oracle.get(name));
          oracle.delete(name);
        }
        most = Math.max(most, oracle.size);
      }
      t.equal(index.size, oracle.size);
      t.equal(index.limit, most, 'as many slots as there ever were names');
      for (let number = 0; number <= 60; number++) {
        const name = `node-${number}`;
        t.equal(index.get(name), oracle.get(name));
      }
      for (const [name, slot] of oracle) t.equal(index.nameOf(slot), name);
    }),
    { numRuns: 100 },
  );
  t.end();
});

test("a clone has the same slots, and what becomes of either is not the other's", (t) => {
  const index = new NameIndex();
  for (const name of ['a', 'b', 'c']) index.add(name);
  const copy = index.clone();
  copy.delete('b');
  t.equal(copy.add('d'), 1);
  t.equal(index.add('e'), 3);
  const slots = (one: NameIndex) => [...'abcde'].map((name) => one.get(name));
  t.same(slots(index), [0, 1, 2, undefined, 3]);
  t.same(slots(copy), [0, undefined, 2, 1, undefined]);
  t.same([index.size, copy.size], [4, 3]);
  t.end();
});
