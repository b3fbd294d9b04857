// The engine finds what is wrong with targets that have known faults.
import { test } from 'tap';
import { makeRandom } from '../dataplane/frames.ts';
import { Coverage } from './coverage.ts';
import { check, distil, FuzzFailure, fuzz, shrink } from './engine.ts';
import { bytesOf, type FuzzTarget, type Outcome, textOf } from './target.ts';

const FINE: Outcome = { kind: 'fine', detail: '' };
const RUNS = 60_000;

function target(run: (input: Uint8Array) => Outcome): FuzzTarget {
  return { name: 'planted', bytesMax: 32, seeds: () => [bytesOf('seed')], run };
}

/** Each letter that is right leads to another block; mutation alone would need 2^32 inputs. */
function deep(input: Uint8Array): Outcome {
  if (input[0] === 0xf1) {
    if (input[1] === 0x7e) {
      if (input[2] === 0x03) {
        if (input[3] === 0xa9) throw new Error('the fault');
        return FINE;
      }
      return FINE;
    }
    return FINE;
  }
  return FINE;
}

function failureOf(run: () => unknown): FuzzFailure | undefined {
  try {
    run();
    return undefined;
  } catch (error) {
    if (error instanceof FuzzFailure) return error;
    throw error;
  }
}

test('coverage leads to a fault that chance does not meet', (t) => {
  const isOver = (runs: number): boolean => runs >= RUNS;
  const seeds = [bytesOf('seed')];
  const coverage = new Coverage(/engine\.test\.ts$/);
  t.teardown(() => coverage.close());
  const failure = failureOf(() => fuzz(target(deep), seeds, makeRandom(1), isOver, coverage));
  t.match(failure?.message, /planted: Error: the fault/);
  t.same([...(failure?.input ?? [])].slice(0, 4), [0xf1, 0x7e, 0x03, 0xa9]);
  const blind = failureOf(() => fuzz(target(deep), seeds, makeRandom(1), isOver));
  t.equal(blind, undefined, 'the same without it');
  t.end();
});

test('reading behind the input, and writing there, is found', (t) => {
  const view = (input: Uint8Array) =>
    new DataView(input.buffer, input.byteOffset, input.byteLength);
  for (const [name, run, expected] of [
    [
      'a read past the end',
      (input) => String(view(input).getUint8(input.length)),
      /outside the bounds/,
    ],
    [
      'a read of the memory behind',
      (input) => String(new Uint8Array(input.buffer)[input.byteOffset + input.length] ?? 0),
      /depends on bytes behind/,
    ],
    [
      'a write in front',
      (input) => {
        if (input.byteOffset > 0) new Uint8Array(input.buffer)[input.byteOffset - 1] = 7;
        return '';
      },
      /wrote outside/,
    ],
  ] as const satisfies [string, (input: Uint8Array) => string, RegExp][]) {
    const planted = target((input) => ({ kind: 'fine', detail: run(input) }));
    t.match(failureOf(() => check(planted, bytesOf('x')))?.message, expected, name);
  }
  t.end();
});

test('a failing input is made small, and inputs that add nothing are left out', (t) => {
  const planted = target((input) => {
    if (textOf(input).includes('bad')) throw new Error('bad');
    return { kind: String(input.length > 4), detail: '' };
  });
  t.equal(textOf(shrink(planted, bytesOf('all is well but the bad is in it'))), 'bad');
  const coverage = new Coverage(/engine\.test\.ts$/);
  t.teardown(() => coverage.close());
  const kept = distil(planted, ['a', 'longer', 'ab', 'longest'].map(bytesOf), coverage);
  t.same(kept.map(textOf), ['a', 'longer'], 'the shortest of each kind');
  t.end();
});
