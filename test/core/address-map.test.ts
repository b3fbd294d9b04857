import fc from 'fast-check';
import { test } from 'tap';
import { AddressMap } from '../../src/core/address-map.ts';
import { AddressWords } from '../../src/core/address-words.ts';
import { type Ip, ipFromWords, isIpv6, parseIp, writeIp16 } from '../../src/core/ip.ts';

const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const anyIp: fc.Arbitrary<Ip> = fc.oneof(
  fc.integer({ min: 0, max: 0xffff_ffff }),
  fc.tuple(word, word, word, word).map((words) => ipFromWords(...words)),
);
// Few addresses, some of which share their last word or even their hash: they keep meeting.
const knownIp: fc.Arbitrary<Ip> = fc
  .constantFrom('10.0.0.1', '240.0.0.1', '::1', 'fd00::1', 'fd00:1::1', '::2:9e37:79b1', '::a00:1')
  .map(parseIp);

test('AddressMap does what a Map of texts does', (t) => {
  const step = fc.record({ ip: knownIp, value: fc.option(fc.nat()) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const map = new AddressMap<number>();
      const oracle = new Map<Ip, number>();
      for (const { ip, value } of steps) {
        if (value !== null) {
          map.set(ip, value);
          oracle.set(ip, value);
        } else if (map.delete(ip) !== oracle.delete(ip)) {
          return false;
        }
        const same = map.get(ip) === oracle.get(ip) && map.size === oracle.size;
        if (!same) return false;
      }
      const sorted = (values: Iterable<number>): number[] => [...values].sort((a, b) => a - b);
      return sorted(map.values()).join() === sorted(oracle.values()).join();
    }),
    { numRuns: 300 },
  );
  t.end();
});

test('AddressMap keeps addresses apart whose hashes are equal', (t) => {
  // The upper words enter by multiplication: these two sums are one.
  const [one, other] = [ipFromWords(0, 0, 1, 0), ipFromWords(0, 0, 0, 0xc2b2_ae3d | 0)];
  const map = new AddressMap<string>();
  map.set(one, 'one');
  map.set(other, 'other');
  t.same([map.get(one), map.get(other), map.size], ['one', 'other', 2]);
  t.equal(map.delete(one), true);
  t.equal(map.delete(one), false);
  t.same([map.get(one), map.get(other), map.size], [undefined, 'other', 1]);
  map.set(one, 'again');
  map.delete(other);
  t.same([map.get(one), map.get(other), [...map.values()]], ['again', undefined, ['again']]);
  t.end();
});

test('AddressWords read from a packet what was written there', (t) => {
  fc.assert(
    fc.property(anyIp, anyIp, (ip, before) => {
      const family = isIpv6(ip) ? 6 : 4;
      const view = new DataView(new ArrayBuffer(24));
      writeIp16(view, 1, before);
      const words = AddressWords.of(ip);
      const copy = new AddressWords();
      words.replaceAt(view, 3, family);
      copy.read(view, 3, family);
      const isSame = copy.equals(words) && copy.toIp() === ip;
      return isSame && words.isIpv4 === (family === 4) && copy.isIpv4 === (family === 4);
    }),
  );
  t.end();
});

test('AddressWords tell addresses apart that differ in one word', (t) => {
  for (const at of [0, 1, 2, 3]) {
    const words = new AddressWords();
    words.set(1, 2, 3, 4);
    const view = new DataView(new ArrayBuffer(16));
    for (const [index, value] of [1, 2, 3, 4].entries()) view.setInt32(index * 4, value);
    view.setInt32(at * 4, 99);
    const other = new AddressWords();
    other.read(view, 0, 6);
    t.notOk(words.equals(other), `word ${at}`);
  }
  t.end();
});
