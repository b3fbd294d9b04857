// The kept corpus of every target, and some new inputs: grow the corpus with fuzz.ts.
import { test } from 'tap';
import { makeRandom } from '../dataplane/frames.ts';
import { Corpus } from './corpus.ts';
import { check, fuzz } from './engine.ts';
import { TARGETS } from './targets.ts';

/** Decides which new inputs are tried; the default is the same each time. */
const SEED = Number(process.env.FUZZ_SEED ?? 1);
/** New inputs of each target. */
const RUNS = Number(process.env.FUZZ_RUNS ?? 500);
/** Files of all targets together. */
const CORPUS_BYTES_MAX = 1_000_000;

let corpusBytes = 0;

for (const target of TARGETS) {
  test(`${target.name}: its corpus and ${RUNS} mutations, seed ${SEED}`, (t) => {
    const corpus = new Corpus(target.name).load();
    t.ok(corpus.size > 0, `${corpus.size} inputs are kept`);
    for (const [name, input] of corpus) {
      corpusBytes += input.length;
      t.doesNotThrow(() => check(target, input), name);
    }
    const inputs = [...target.seeds(), ...corpus.values()];
    t.doesNotThrow(() => fuzz(target, inputs, makeRandom(SEED), (runs) => runs >= RUNS));
    t.end();
  });
}

test('the corpus stays small, and belongs to targets that exist', (t) => {
  t.ok(corpusBytes < CORPUS_BYTES_MAX, `${corpusBytes} bytes`);
  t.equal(new Set(TARGETS.map(({ name }) => name)).size, TARGETS.length, 'a name for each');
  t.end();
});
