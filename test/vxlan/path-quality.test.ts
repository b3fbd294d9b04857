import { test } from 'tap';
import { LOSS_WINDOW_PROBES, PathQuality } from '../../src/vxlan/path-quality.ts';

test('PathQuality knows nothing before the first probe', (t) => {
  const quality = new PathQuality();
  t.equal(quality.roundTrips, undefined);
  t.equal(quality.lossRatio, undefined);
  t.equal(quality.timeoutMs, 1000, 'RFC 6298 section 2.1');
  t.end();
});

// RFC 6298 section 2: RTTVAR = 3/4 RTTVAR + 1/4 |SRTT - R|, then SRTT = 7/8 SRTT + 1/8 R
test('PathQuality smooths round trips as RFC 6298 does', (t) => {
  const quality = new PathQuality();
  for (const [rttUs, smoothedUs, timeoutMs] of [
    [400_000, 400_000, 400 + 4 * 200],
    [400_000, 400_000, 400 + 4 * 150],
    [800_000, 450_000, 450 + 4 * 212.5],
    [450_000, 450_000, 450 + 4 * 159.375],
  ] as const) {
    quality.measured(rttUs);
    t.equal(quality.roundTrips?.smoothedUs, smoothedUs);
    t.equal(quality.timeoutMs, timeoutMs);
  }
  t.match(quality.roundTrips, { minUs: 400_000, lastUs: 450_000 });
  t.end();
});

test('PathQuality waits neither too briefly nor too long', (t) => {
  const near = new PathQuality();
  near.measured(50);
  t.equal(near.timeoutMs, 200);
  const far = new PathQuality();
  far.measured(9_000_000);
  t.equal(far.timeoutMs, 3000);
  t.end();
});

test('PathQuality tells the loss from the last 32 probes', (t) => {
  const quality = new PathQuality();
  quality.decided(true);
  t.equal(quality.lossRatio, 1);
  quality.decided(false);
  t.equal(quality.lossRatio, 1 / 2);
  for (let probe = 2; probe < LOSS_WINDOW_PROBES; probe += 1) quality.decided(true);
  t.equal(quality.lossRatio, 31 / 32);
  for (let probe = 0; probe < LOSS_WINDOW_PROBES; probe += 1) quality.decided(probe % 4 === 0);
  t.equal(quality.lossRatio, 1 / 4);
  for (let probe = 0; probe < LOSS_WINDOW_PROBES; probe += 1) quality.decided(false);
  t.equal(quality.lossRatio, 0);
  t.end();
});
