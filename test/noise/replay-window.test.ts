import fc from 'fast-check';
import { test } from 'tap';
import { REPLAY_WINDOW, REPLAY_WINDOW_WORDS, ReplayWindow } from '../../src/noise/replay-window.ts';

/** What the window must do, kept as a set: every counter once, if it is not too far behind the newest. */
class SlowWindow {
  readonly #seen = new Set<bigint>();
  #newest = 0n;

  accept(counter: bigint): boolean {
    if (this.#newest - counter > BigInt(REPLAY_WINDOW) || this.#seen.has(counter)) return false;
    this.#seen.add(counter);
    if (counter > this.#newest) this.#newest = counter;
    return true;
  }
}

function makeWindow(): (counter: bigint) => boolean {
  const words = new Int32Array(new SharedArrayBuffer(4 * (REPLAY_WINDOW_WORDS + 2)));
  const window = new ReplayWindow(words, 1);
  return (counter) => {
    const high = Number(BigInt.asIntN(32, counter >> 32n));
    const isNew = window.accept(high, Number(BigInt.asIntN(32, counter)));
    if (words[0] !== 0 || words[REPLAY_WINDOW_WORDS + 1] !== 0) throw new Error('out of bounds');
    return isNew;
  };
}

const W = BigInt(REPLAY_WINDOW);
const TOP = 2n ** 64n - 1n;

test('the window holds at least the 2048 messages that it promises', (t) => {
  t.ok(REPLAY_WINDOW >= 2_048);
  t.end();
});

test('a numbered list of counters is taken or refused as in RFC 6479', (t) => {
  const accept = makeWindow();
  const steps: readonly (readonly [bigint, boolean])[] = [
    [0n, true],
    [0n, false],
    [1n, true],
    [1n, false],
    [9n, true],
    [8n, true],
    [7n, true],
    [7n, false],
    [W, true],
    [W - 1n, true],
    [W - 1n, false],
    [2n, true],
    [W + 16n, true],
    [3n, false], // left the window
    [W + 16n, false],
    [16n, true], // its last counter
    [15n, false],
    [W * 3n, true], // a jump past all of it
    [W * 2n, true],
    [W * 2n - 1n, false],
    [W * 2n + 1n, true],
    [2n ** 32n - 1n, true], // over the edge of the lower half
    [2n ** 32n, true],
    [2n ** 32n - 1n, false],
    [2n ** 32n - 2n, true],
    [2n ** 32n - W, true],
    [2n ** 32n - W - 1n, false],
    [TOP, true],
    [TOP, false],
    [TOP - W, true],
    [TOP - W - 1n, false],
    [0n, false],
  ];
  for (const [index, [counter, expected]] of steps.entries()) {
    t.equal(accept(counter), expected, `step ${index}: counter ${counter}`);
  }
  t.end();
});

test('the window agrees with a set of all counters seen', (t) => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.bigInt({ min: -40n, max: 40n }) },
    { weight: 2, arbitrary: fc.bigInt({ min: -W - 40n, max: W + 40n }) },
    { weight: 1, arbitrary: fc.bigInt({ min: -(2n ** 34n), max: 2n ** 34n }) },
  );
  const start = fc.constantFrom(0n, 2n ** 32n - 100n, 2n ** 31n, 2n ** 56n - 5n, 2n ** 63n);
  fc.assert(
    fc.property(start, fc.array(step, { maxLength: 300 }), (from, steps) => {
      const accept = makeWindow();
      const slow = new SlowWindow();
      let counter = from;
      for (const by of steps) {
        counter += by;
        if (counter < 0n) counter = 0n;
        if (counter > TOP) counter = TOP;
        if (accept(counter) !== slow.accept(counter)) return false;
      }
      return true;
    }),
    { numRuns: 300 },
  );
  t.end();
});
