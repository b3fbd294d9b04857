import { test } from 'tap';
import { ApplyTimes } from '../../src/node/apply-times.ts';

test('what was heard before it is applied counts once it is, from when it was heard', async (t) => {
  let nowMs = 1_000;
  const times = new ApplyTimes(() => nowMs);
  times.heard();
  nowMs += 500;
  times.heard();
  await times.during(async () => {
    nowMs += 1_000;
    times.heard();
    t.equal(times.seconds.count, 0, 'not before');
  });
  t.same([times.seconds.count, times.seconds.sum], [2, 2.5]);
  await t.rejects(times.during(() => Promise.reject(new Error('refused'))));
  t.equal(times.seconds.count, 2, 'what fails never was');
  await times.during(async () => {});
  t.equal(times.seconds.count, 2, 'and what was counted is not counted again');
});
