import { test } from 'tap';
import { collectGarbage, RestingHeap } from '../../src/io/resting-heap.ts';

const MB = 1_000_000;

test('a heap is collected when its thread rests and the heap has grown enough', (t) => {
  for (const { left, busyShare, heap, expected, why } of [
    { left: 0, busyShare: 0.02, heap: 40 * MB, expected: true, why: 'a start has left garbage' },
    { left: 0, busyShare: 0.1, heap: 40 * MB, expected: false, why: 'the thread is at work' },
    { left: 0, busyShare: 1, heap: 40 * MB, expected: false, why: 'the thread has no pause' },
    { left: 20 * MB, busyShare: 0, heap: 20 * MB, expected: false, why: 'nothing has grown' },
    { left: 20 * MB, busyShare: 0, heap: 12 * MB, expected: false, why: 'it has shrunk' },
    { left: 20 * MB, busyShare: 0, heap: 23 * MB - 1, expected: false, why: 'just below 3 MB' },
    { left: 20 * MB, busyShare: 0, heap: 23 * MB, expected: true, why: '3 MB' },
    { left: 200 * MB, busyShare: 0, heap: 210 * MB, expected: false, why: 'a pause of 200 ms' },
    { left: 200 * MB, busyShare: 0, heap: 220 * MB, expected: true, why: 'a tenth' },
  ]) {
    const watched = new RestingHeap();
    watched.collected(left);
    t.equal(watched.look(busyShare, heap), expected, why);
  }
  t.end();
});

test('a second collection follows at rest, and no third one', (t) => {
  const heap = new RestingHeap();
  const looks = [0, 0, 0.5, 0, 0, 0, 0].map((busyShare) => {
    const isDue = heap.look(busyShare, 20 * MB);
    if (isDue) heap.collected(20 * MB);
    return isDue;
  });
  t.same(looks, [true, false, false, false, true, false, false], 'a look at work does not count');
  t.equal(heap.look(0, 25 * MB), true, 'until the heap grows again');
  t.end();
});

test('collectGarbage() leaves nothing that is out of reach, and what is not', async (t) => {
  const kept = { bytes: new Uint8Array(1_000) };
  const reachable = new WeakRef(kept);
  const unreachable = new WeakRef({ bytes: new Uint8Array(1_000) });
  await new Promise((resolve) => setImmediate(resolve)); // what a WeakRef was made of lives until here
  collectGarbage();
  t.equal(unreachable.deref(), undefined);
  t.equal(reachable.deref(), kept);
});
