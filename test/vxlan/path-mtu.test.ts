import fc from 'fast-check';
import { test } from 'tap';
import type { Random } from '../../src/core/capabilities.ts';
import { PathMtu, type PathState } from '../../src/vxlan/path-mtu.ts';

const START_MS = 5_000;
const OUTER_IPV4_BYTES = 28;
const OUTER_IPV6_BYTES = 48;

/** mulberry32: a seed replays a run. */
function seeded(seed: number): Random {
  let state = seed;
  const next = (): number => {
    state = (state + 0x6d2b_79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { next, bytes: (length) => Uint8Array.from({ length }, () => next() * 256) };
}

/** A path and its far end, as a test sets them up; may change while time passes. */
interface Path {
  carriesBytes: number;
  rttMs: number;
  /** Share of probes that vanish, whatever their size. */
  loss: number;
  answers: boolean;
}

interface Answer {
  readonly atMs: number;
  readonly nonce: bigint;
  readonly sizeBytes: number;
}

/** One prober on a simulated path, in virtual time. */
class Simulation {
  readonly path: Path;
  readonly prober: PathMtu;
  nowMs = START_MS;
  /** Sizes of all probes sent, as outer packets, with their times. */
  readonly sent: { readonly atMs: number; readonly bytes: number }[] = [];
  readonly #headerBytes: number;
  readonly #chance: Random;
  #answers: Answer[] = [];

  constructor(
    path: Partial<Path> = {},
    options: { link?: number; ipv6?: boolean; seed?: number } = {},
  ) {
    this.path = { carriesBytes: 1500, rttMs: 1, loss: 0, answers: true, ...path };
    const ipv6 = options.ipv6 ?? false;
    this.#headerBytes = ipv6 ? OUTER_IPV6_BYTES : OUTER_IPV4_BYTES;
    const random = seeded(options.seed ?? 1);
    this.#chance = seeded((options.seed ?? 1) + 77);
    this.prober = new PathMtu(random, { linkMtuBytes: options.link ?? 1500, ipv6 }, this.nowMs);
  }

  get mtu(): number {
    return this.prober.mtuBytes;
  }

  get state(): PathState {
    return this.prober.state;
  }

  /** Lets `ms` pass, event by event. */
  run(ms: number): this {
    const endMs = this.nowMs + ms;
    for (;;) {
      const nextMs = Math.min(
        this.prober.dueMs,
        this.#answers[0]?.atMs ?? Number.POSITIVE_INFINITY,
      );
      if (nextMs > endMs) break;
      this.nowMs = Math.max(this.nowMs, nextMs);
      this.#deliver();
      this.#send();
    }
    this.nowMs = endMs;
    return this;
  }

  /** Lets time pass until `isDone`; returns how long that took. */
  until(isDone: () => boolean, maxMs = 120_000): number {
    const startMs = this.nowMs;
    while (!isDone() && this.nowMs - startMs < maxMs) this.run(10);
    if (!isDone()) throw new Error(`Still ${this.state} at ${this.mtu} after ${maxMs} ms`);
    return this.nowMs - startMs;
  }

  #deliver(): void {
    const due = this.#answers.filter(({ atMs }) => atMs <= this.nowMs);
    this.#answers = this.#answers.filter(({ atMs }) => atMs > this.nowMs);
    for (const { nonce, sizeBytes, atMs } of due) {
      this.prober.answered(nonce, sizeBytes, this.path.rttMs * 1000, atMs);
    }
  }

  #send(): void {
    const { carriesBytes, rttMs, loss, answers } = this.path;
    for (const { nonce, sizeBytes } of this.prober.tick(this.nowMs)) {
      const bytes = sizeBytes + this.#headerBytes;
      this.sent.push({ atMs: this.nowMs, bytes });
      const isLost = this.#chance.next() < loss || bytes > carriesBytes || !answers;
      if (!isLost) this.#answers.push({ atMs: this.nowMs + rttMs, nonce, sizeBytes });
    }
  }
}

test('a path that carries what the link does is confirmed at once', (t) => {
  const simulation = new Simulation();
  t.equal(simulation.mtu, 1500, 'before any answer the link is believed');
  t.equal(simulation.state, 'unanswered');
  simulation.run(10);
  t.equal(simulation.state, 'complete');
  t.equal(simulation.mtu, 1500);
  t.same(simulation.prober.quality.roundTrips, { smoothedUs: 1000, minUs: 1000, lastUs: 1000 });
  t.equal(simulation.prober.quality.lossRatio, 0);
  t.end();
});

for (const [carries, ipv6] of [
  [1280, false],
  [1280, true],
  [1372, false],
  [1420, true],
  [1492, false],
] as const) {
  const family = ipv6 ? 'IPv6' : 'IPv4';
  test(`a path of ${carries} behind a link of 1500 is found without ICMP, over ${family}`, (t) => {
    const simulation = new Simulation({ carriesBytes: carries, rttMs: 20 }, { ipv6 });
    const holeMs = simulation.until(() => simulation.mtu <= carries);
    t.ok(holeMs <= 1000, `nothing larger is sent after ${holeMs} ms`);
    t.equal(simulation.mtu, 1280, 'the base is what every path carries');
    const searchMs = simulation.until(() => simulation.state === 'complete');
    t.ok(simulation.mtu <= carries && simulation.mtu > carries - 8, `found ${simulation.mtu}`);
    t.ok(searchMs < 40_000, `search took ${searchMs} ms`);
    t.end();
  });
}

test('while a search runs, at most one attempt a second is made', (t) => {
  const simulation = new Simulation({ carriesBytes: 1300 });
  simulation.until(() => simulation.state === 'searching');
  const before = simulation.sent.length;
  const tookMs = simulation.until(() => simulation.state === 'complete');
  const attempts = (simulation.sent.length - before) / 2;
  t.ok(attempts <= tookMs / 600, `${attempts} attempts in ${tookMs} ms`);
  t.end();
});

test('a complete path is confirmed every 5 to 10 seconds', (t) => {
  const simulation = new Simulation();
  simulation.run(1000);
  simulation.sent.length = 0;
  simulation.run(300_000);
  t.same(new Set(simulation.sent.map(({ bytes }) => bytes)), new Set([1500, 52]));
  const times = simulation.sent.filter(({ bytes }) => bytes === 1500).map(({ atMs }) => atMs);
  const gaps = times.slice(1).map((atMs, index) => atMs - (times[index] ?? 0));
  t.ok(gaps.length >= 30);
  t.ok(
    gaps.every((gap) => gap >= 5_000 && gap <= 10_000),
    gaps.map(Math.round).join(' '),
  );
  t.ok(new Set(gaps.map(Math.round)).size > 10, 'with jitter');
  t.end();
});

test('a black hole that appears later is noticed, and its end too', (t) => {
  const simulation = new Simulation();
  simulation.run(30_000);
  t.equal(simulation.mtu, 1500);
  simulation.path.carriesBytes = 1400;
  const noticedMs = simulation.until(() => simulation.mtu < 1500);
  t.ok(noticedMs < 11_000, `noticed after ${noticedMs} ms`);
  t.equal(simulation.mtu, 1280);
  simulation.until(() => simulation.state === 'complete');
  t.equal(simulation.mtu, 1400);
  simulation.path.carriesBytes = 1500;
  simulation.run(590_000);
  t.equal(simulation.mtu, 1400, 'larger sizes wait for the raise timer');
  simulation.run(30_000);
  t.equal(simulation.mtu, 1500);
  t.end();
});

test('a peer that answers no probe keeps the MTU of the link, and gets small probes only', (t) => {
  const simulation = new Simulation({ answers: false }, { link: 9000 });
  simulation.run(1_000_000);
  t.equal(simulation.mtu, 9000);
  t.equal(simulation.state, 'unanswered');
  t.same(new Set(simulation.sent.map(({ bytes }) => bytes)), new Set([52]));
  t.ok(simulation.sent.length < 170, `${simulation.sent.length} probes in 1000 s`);
  t.equal(simulation.prober.quality.lossRatio, 1);
  t.equal(simulation.prober.quality.roundTrips, undefined);
  t.end();
});

test('a peer that falls silent keeps what was found, and is confirmed when it is back', (t) => {
  const simulation = new Simulation({ carriesBytes: 1400 });
  simulation.until(() => simulation.state === 'complete');
  simulation.path.answers = false;
  simulation.until(() => simulation.state === 'unanswered');
  simulation.run(60_000);
  t.equal(simulation.mtu, 1400);
  simulation.path.answers = true;
  simulation.path.carriesBytes = 1380;
  const noticedMs = simulation.until(() => simulation.mtu <= 1380);
  t.ok(noticedMs < 15_000, `noticed after ${noticedMs} ms`);
  simulation.until(() => simulation.state === 'complete');
  t.equal(simulation.mtu, 1380);
  t.end();
});

test('an IPv4 path that does not carry the base goes down to 576 and up again', (t) => {
  const simulation = new Simulation({ carriesBytes: 1006 });
  simulation.until(() => simulation.mtu === 576);
  simulation.until(() => simulation.state === 'complete');
  t.equal(simulation.mtu, 1006);
  t.end();
});

test('an IPv4 path that carries nothing but pulses stays at 576 and is tried on', (t) => {
  const simulation = new Simulation({ carriesBytes: 100 });
  simulation.run(60_000);
  t.equal(simulation.state, 'error');
  t.equal(simulation.mtu, 576);
  simulation.path.carriesBytes = 1500;
  simulation.until(() => simulation.mtu === 1500, 700_000);
  t.end();
});

test('an IPv6 path is never taken for less than 1280', (t) => {
  const simulation = new Simulation({ carriesBytes: 1000 }, { ipv6: true });
  simulation.run(60_000);
  t.equal(simulation.mtu, 1280);
  t.end();
});

test('a jumbo link with a jumbo path is used whole', (t) => {
  const simulation = new Simulation({ carriesBytes: 9000 }, { link: 9000 }).run(10);
  t.equal(simulation.mtu, 9000);
  t.equal(simulation.state, 'complete');
  t.end();
});

test('no probe is larger than a datagram, whatever the link carries', (t) => {
  const simulation = new Simulation({ carriesBytes: 70_000 }, { link: 65_536 }).run(1000);
  t.equal(Math.max(...simulation.sent.map(({ bytes }) => bytes)), 65_535);
  t.equal(simulation.mtu, 65_535);
  t.end();
});

test('tooBig() shrinks at once to what the kernel says, and larger sizes are tried after 10 minutes', (t) => {
  const simulation = new Simulation();
  simulation.run(1000);
  simulation.path.carriesBytes = 1420;
  simulation.prober.tooBig(1420, simulation.nowMs);
  t.equal(simulation.mtu, 1420);
  simulation.until(() => simulation.state === 'complete');
  t.equal(simulation.mtu, 1420);
  simulation.path.carriesBytes = 1500;
  simulation.run(590_000);
  t.equal(simulation.mtu, 1420);
  simulation.run(30_000);
  t.equal(simulation.mtu, 1500);
  t.end();
});

test('tooBig() without a size tries what is in use, at once', (t) => {
  const simulation = new Simulation();
  simulation.run(1000);
  simulation.path.carriesBytes = 1300;
  simulation.prober.tooBig(undefined, simulation.nowMs);
  t.equal(simulation.mtu, 1500);
  const noticedMs = simulation.until(() => simulation.mtu === 1280);
  t.ok(noticedMs < 1000, `noticed after ${noticedMs} ms`);
  t.end();
});

test('tooBig() again and again does not keep the prober from its work', (t) => {
  const simulation = new Simulation({ carriesBytes: 1300 });
  simulation.run(5);
  for (let round = 0; round < 100 && simulation.mtu > 1280; round += 1) {
    simulation.prober.tooBig(undefined, simulation.nowMs);
    simulation.run(20);
  }
  t.equal(simulation.mtu, 1280);
  t.end();
});

test('tooBig() about a silent peer holds for 10 minutes', (t) => {
  const simulation = new Simulation({ answers: false });
  simulation.run(20_000);
  simulation.prober.tooBig(1400, simulation.nowMs);
  simulation.run(590_000);
  t.equal(simulation.mtu, 1400);
  simulation.run(30_000);
  t.equal(simulation.mtu, 1500);
  t.end();
});

test('tooBig() with a size out of this world is bounded', (t) => {
  const simulation = new Simulation();
  simulation.run(1000);
  simulation.prober.tooBig(0, simulation.nowMs);
  t.equal(simulation.mtu, 576);
  const six = new Simulation({}, { ipv6: true });
  six.prober.tooBig(68, six.nowMs);
  t.equal(six.mtu, 1280);
  six.prober.tooBig(100_000, six.nowMs);
  t.equal(six.mtu, 1280);
  t.end();
});

test('answers that nobody asked for change nothing', (t) => {
  const simulation = new Simulation({ answers: false });
  const [pulse] = simulation.prober.tick(simulation.nowMs);
  simulation.prober.answered((pulse?.nonce ?? 0n) ^ 1n, 24, 5, simulation.nowMs);
  t.equal(simulation.state, 'unanswered');
  t.equal(simulation.prober.quality.roundTrips, undefined);
  simulation.prober.answered(pulse?.nonce ?? 0n, 24, 5, simulation.nowMs);
  t.equal(simulation.state, 'confirming');
  const [target] = simulation.prober.tick(simulation.nowMs);
  simulation.prober.answered(target?.nonce ?? 0n, 24, 5, simulation.nowMs);
  t.equal(simulation.state, 'confirming', 'nor do those that arrived smaller than they were sent');
  t.end();
});

test('a path slower than the first timeout is measured all the same', (t) => {
  const simulation = new Simulation({ rttMs: 1_700, carriesBytes: 1400 });
  simulation.until(() => simulation.state === 'complete', 300_000);
  t.equal(simulation.mtu, 1400);
  t.equal(simulation.prober.quality.roundTrips?.minUs, 1_700_000);
  t.end();
});

test('what is found is right on lossy paths of any size', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1280, max: 1500 }),
      fc.integer({ min: 0, max: 8 }),
      fc.integer({ min: 1, max: 300 }),
      fc.boolean(),
      fc.integer(),
      (carriesBytes, lossPercent, rttMs, ipv6, seed) => {
        const loss = lossPercent / 100;
        const simulation = new Simulation({ carriesBytes, loss, rttMs }, { ipv6, seed });
        simulation.run(1_800_000);
        t.ok(simulation.mtu <= carriesBytes, `${simulation.mtu} of ${carriesBytes}`);
        t.ok(simulation.mtu > carriesBytes - 8 || loss > 0, `${simulation.mtu} of ${carriesBytes}`);
        const measured = simulation.prober.quality.lossRatio ?? 1;
        t.ok(measured <= 4 * loss + 0.2, `loss ${measured} on a path that loses ${loss}`);
        t.ok(simulation.sent.length < 1_000, `${simulation.sent.length} probes in half an hour`);
      },
    ),
    { numRuns: 60 },
  );
  t.end();
});
