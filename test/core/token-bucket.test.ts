import { test } from 'tap';
import { TokenBucket } from '../../src/core/token-bucket.ts';

//  ms    0    0    0    0   100  100  150  200  5000 5000 5000 5000
//  take  yes  yes  yes  no  yes  no   no   yes  yes  yes  yes  no
test('TokenBucket lets a burst of 3 pass, then 10 a second', (t) => {
  const bucket = new TokenBucket(10, 3);
  for (const [nowMs, passes] of [
    [0, true],
    [0, true],
    [0, true],
    [0, false],
    [100, true],
    [100, false],
    [150, false],
    [200, true],
    [5000, true],
    [5000, true],
    [5000, true],
    [5000, false],
  ] as const) {
    t.equal(bucket.take(nowMs), passes, `at ${nowMs} ms`);
  }
  t.end();
});

test('TokenBucket gives nothing for a clock that goes back', (t) => {
  const bucket = new TokenBucket(1000, 1);
  t.equal(bucket.take(10_000), true);
  t.equal(bucket.take(5_000), false);
  t.equal(bucket.take(5_001), true, 'and goes on from there');
  t.end();
});
