// Grows the corpus of a target: node test/fuzz/fuzz.ts TARGET [--seconds N] [--seed N]
import { parseArgs } from 'node:util';
import { makeRandom } from '../dataplane/frames.ts';
import { Corpus } from './corpus.ts';
import { Coverage } from './coverage.ts';
import { distil, FuzzFailure, fuzz, shrink } from './engine.ts';
import type { FuzzTarget } from './target.ts';

/** Runs between two looks at the clock. */
const CLOCK_RUNS = 64;

// Before the source is loaded: all of it is to be seen.
const coverage = new Coverage();
const { TARGETS } = await import('./targets.ts');

function grow(target: FuzzTarget, seconds: number, seed: number): void {
  const corpus = new Corpus(target.name);
  const until = performance.now() + seconds * 1_000;
  let isOver = false;
  try {
    const { inputs, runs } = fuzz(
      target,
      [...target.seeds(), ...corpus.load().values()],
      makeRandom(seed),
      (count) => {
        if (count % CLOCK_RUNS === 0) isOver = performance.now() > until;
        return isOver;
      },
      coverage,
    );
    const { size } = coverage;
    const kept = distil(target, inputs, coverage);
    corpus.replace(kept);
    console.log(`${target.name}: ${runs} runs, ${size} characters of code, ${kept.length} inputs`);
  } catch (error) {
    if (!(error instanceof FuzzFailure)) throw error;
    const small = shrink(target, error.input);
    console.error(`${error.message}\n  shrunk and kept: ${corpus.add(small)}\n  --seed ${seed}`);
    process.exitCode = 1;
  } finally {
    coverage.close();
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Date.now() % 0x7fff_ffff) },
  },
});
const wanted = TARGETS.filter(({ name }) => positionals.includes(name));
const [target] = wanted;
if (target === undefined || wanted.length !== 1) {
  const names = TARGETS.map(({ name }) => name).join(', ');
  console.error(
    `usage: node test/fuzz/fuzz.ts TARGET [--seconds N] [--seed N]\n  targets: ${names}`,
  );
  process.exitCode = 1;
} else {
  grow(target, Number(values.seconds), Number(values.seed));
}
