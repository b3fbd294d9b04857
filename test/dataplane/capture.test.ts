import assert from 'node:assert/strict';
import { once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { test } from 'tap';
import { MergedCapture } from '../../src/dataplane/capture-merge.ts';
import {
  CaptureRingReader,
  CaptureRingWriter,
  makeCaptureRing,
} from '../../src/dataplane/capture-ring.ts';
import {
  CAPTURES_MAX,
  type CaptureFilter,
  CaptureTaps,
  CROSSING_PEER_IN,
  CROSSING_PEER_OUT,
  CROSSING_PORT_IN,
  CROSSING_PORT_OUT,
  directionOf,
  isPeerCrossing,
} from '../../src/dataplane/capture-taps.ts';
import { Arena, IOVEC_BYTES } from '../../src/io/linux/arena.ts';
import { makeRandom, randomBytes } from './frames.ts';

const CAPACITY = 4096;
/** Header of a record, which its room includes. */
const RECORD_HEADER_BYTES = 32;

interface Written {
  readonly point: number;
  readonly crossing: number;
  readonly original: number;
  readonly timeUs: number;
  readonly bytes: Uint8Array;
}

function write(writer: CaptureRingWriter, record: Written, pieces = 1): boolean {
  const { point, crossing, original, timeUs, bytes } = record;
  if (!writer.begin(point, crossing, bytes.length, original, timeUs)) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const step = Math.max(1, Math.ceil(bytes.length / pieces));
  for (let at = 0; at < bytes.length; at += step) {
    writer.append(view, at, Math.min(step, bytes.length - at));
  }
  writer.commit();
  return true;
}

function read(reader: CaptureRingReader): Written & { readonly lost: number } {
  const { point, crossing, originalBytes: original, timeUs, lostBefore: lost } = reader;
  return { point, crossing, original, timeUs, lost, bytes: Uint8Array.from(reader.frame) };
}

/** A ring whose positions start at `position`, as after so many bytes. */
function ringAt(position: number): SharedArrayBuffer {
  const memory = makeCaptureRing(CAPACITY);
  const header = new Int32Array(memory);
  header[0] = position;
  header[16] = position;
  return memory;
}

test('what is written to a ring is read from it in order, and what finds no room is counted', (t) => {
  const record = fc.record({
    point: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
    crossing: fc.constantFrom(1, 2, 5, 6),
    original: fc.nat(70_000),
    timeUs: fc.maxSafeNat(),
    bytes: fc.uint8Array({ maxLength: 1500, size: 'max' }),
    pieces: fc.integer({ min: 1, max: 9 }),
  });
  const step = fc.oneof({ arbitrary: record, weight: 3 }, fc.nat(5)); // a record, or how many to read
  const start = fc.constantFrom(0, 2 ** 31 - CAPACITY, -CAPACITY, 2 ** 31 - 8).map((at) => at | 0);
  let refused = 0;
  fc.assert(
    fc.property(start, fc.array(step, { maxLength: 120, size: 'max' }), (position, steps) => {
      const memory = ringAt(position);
      const writer = new CaptureRingWriter(memory);
      const reader = new CaptureRingReader(memory);
      const queue: (Written & { readonly lost: number })[] = [];
      let lost = 0;
      let lostInAll = 0;
      const readOne = (): void => {
        assert.equal(reader.next(), queue.length > 0);
        if (queue.length > 0) assert.deepEqual(read(reader), queue.shift());
      };
      for (const one of steps) {
        if (typeof one === 'number') {
          for (let count = 0; count < one; count++) readOne();
          reader.release();
          continue;
        }
        const { pieces, ...written } = one;
        if (write(writer, written, pieces)) {
          queue.push({ ...written, lost });
          lost = 0;
        } else {
          const waiting = queue.reduce(
            (sum, { bytes }) => sum + RECORD_HEADER_BYTES + bytes.length,
            0,
          );
          assert.ok(
            waiting + 2 * (RECORD_HEADER_BYTES + 1500) > CAPACITY,
            'lost with room to spare',
          );
          lost += 1;
          lostInAll += 1;
        }
      }
      while (queue.length > 0) readOne();
      readOne();
      assert.equal(reader.lost, lostInAll);
      refused += lostInAll;
    }),
    { numRuns: 300 },
  );
  t.ok(refused > 100, `${refused} records found the ring full`);
  t.end();
});

test('a record larger than the ring is lost, and the next one says so', (t) => {
  const memory = makeCaptureRing(64);
  const writer = new CaptureRingWriter(memory);
  const reader = new CaptureRingReader(memory);
  const one = { point: 1, crossing: 1, original: 40, timeUs: 1 };
  t.notOk(write(writer, { ...one, bytes: new Uint8Array(40) }));
  t.notOk(reader.next());
  t.ok(write(writer, { ...one, bytes: new Uint8Array(32) }));
  t.ok(reader.next());
  t.equal(reader.lostBefore, 1);
  t.end();
});

test('the rings of several threads are read as one, the oldest frame first', (t) => {
  const rings = [0, 1, 2].map(() => makeCaptureRing(1024));
  const writers = rings.map((ring) => new CaptureRingWriter(ring));
  const merged = new MergedCapture(rings.map((ring) => new CaptureRingReader(ring)));
  const seen: number[] = [];
  let timeUs = 0;
  const add = (thread: number): void => {
    timeUs += 1;
    const bytes = new Uint8Array(40).fill(timeUs);
    const record = { point: timeUs, crossing: thread, original: 40, timeUs, bytes };
    t.ok(write(writers[thread]!, record));
  };
  const take = (count: number): void => {
    for (let taken = 0; taken < count; taken += 1) {
      t.ok(merged.next());
      const { frame, point, timeUs: at, originalBytes, lostBefore } = merged;
      t.match({ at, originalBytes, lostBefore }, { at: point, originalBytes: 40, lostBefore: 0 });
      t.ok(frame.length === 40 && frame.every((byte) => byte === (point & 255)), 'it is whole');
      seen.push(point);
    }
    merged.release();
  };
  t.notOk(merged.next());
  for (let round = 0; round < 100; round += 1) {
    for (const thread of [0, 0, 2, 1, 2, 1]) add(thread);
    take(6 - (round % 2)); // every other time one is left, whose bytes must stay
    if (round % 2 === 1) take(1);
  }
  t.notOk(merged.next());
  t.same(
    seen,
    [...seen].sort((a, b) => a - b),
  );
  t.equal(seen.length, 600);
  t.equal(merged.lost, 0, 'all room was given back');
  while (
    write(writers[1]!, { point: 0, crossing: 1, original: 0, timeUs, bytes: new Uint8Array(9) })
  );
  t.equal(merged.lost, 1);
  t.end();
});

test('two threads share a ring', async (t) => {
  const ring = makeCaptureRing(64 * 1024);
  const frames = 100_000;
  const bytesMax = 300;
  const producer = new Worker(new URL('./capture-producer.ts', import.meta.url), {
    workerData: { ring, frames, bytesMax },
  });
  let isDone = false;
  const ended = once(producer, 'exit').then(() => {
    isDone = true;
  });
  const reader = new CaptureRingReader(ring);
  let seen = 0;
  let accounted = 0;
  for (;;) {
    const wasDone = isDone; // before the last look: what was written before the end is there
    while (reader.next()) {
      const { frame, point, lostBefore } = reader;
      accounted += lostBefore;
      if (point !== accounted) throw new Error(`Frame ${point} came as number ${accounted}`);
      const first = new DataView(frame.buffer, frame.byteOffset).getInt32(0);
      if (first !== point || frame.at(-1) !== (point & 255))
        throw new Error(`Frame ${point} is torn`);
      accounted += 1;
      seen += 1;
      reader.release();
    }
    if (wasDone) break;
    await turn();
  }
  await ended;
  t.equal(seen + reader.lost, frames, 'every frame was seen or counted');
  t.ok(seen > 100, `${seen} of ${frames} frames were seen`);
});

/** What the wall clock shows when the other one shows zero. */
const EPOCH_MS = 1_790_000_000_000;
const BLUE = 4096;
const RED = 4097;

/** Taps over an arena in which one frame lies at {@link FakeThread.start}. */
class FakeThread {
  readonly arena = new Arena(256 * 1024);
  readonly start: number = this.arena.allocate(70_000) + 2;
  readonly taps: CaptureTaps;
  nowMs = 1_000;

  constructor() {
    this.taps = new CaptureTaps(this.arena, {
      nowMs: () => this.nowMs,
      epochMs: () => this.nowMs + EPOCH_MS,
    });
  }

  /** Starts a capture and gives what reads it. */
  capture(id: number, filter: Partial<CaptureFilter>): CaptureRingReader {
    const ring = makeCaptureRing();
    this.taps.set(id, { scopes: [BLUE], snaplen: 262_144, ...filter }, ring);
    return new CaptureRingReader(ring);
  }

  /** Offers a frame at each crossing of two networks, two ports and two peers. */
  offerEverywhere(): void {
    for (const scope of [BLUE, RED]) {
      for (const crossing of CROSSINGS) {
        for (const point of [1, 2]) this.taps.frame(crossing, scope, point, this.start, 60);
      }
    }
  }
}

const CROSSINGS = [CROSSING_PORT_IN, CROSSING_PORT_OUT, CROSSING_PEER_IN, CROSSING_PEER_OUT];

/** All that a reader has, as `port 1 in`. */
function crossings(reader: CaptureRingReader): string[] {
  const seen: string[] = [];
  while (reader.next()) {
    const { crossing, point } = reader;
    const direction = ['', 'in', 'out'][directionOf(crossing)];
    seen.push(`${isPeerCrossing(crossing) ? 'peer' : 'port'} ${point} ${direction}`);
  }
  return seen;
}

for (const [name, filter, expected] of [
  [
    'a network',
    {},
    [
      ...['port 1 in', 'port 2 in', 'port 1 out', 'port 2 out'],
      ...['peer 1 in', 'peer 2 in', 'peer 1 out', 'peer 2 out'],
    ],
  ],
  ['a port', { port: 2 }, ['port 2 in', 'port 2 out']],
  ['a peer', { peer: 1 }, ['peer 1 in', 'peer 1 out']],
  ['a port of another network', { port: 9 }, []],
  ['no network', { scopes: [] }, []],
  [
    'a port under two networks',
    { port: 1, scopes: [RED, BLUE] },
    ['port 1 in', 'port 1 out', 'port 1 in', 'port 1 out'],
  ],
] as const) {
  test(`a capture of ${name} takes what crosses there and nothing else`, (t) => {
    const thread = new FakeThread();
    const reader = thread.capture(1, filter);
    thread.offerEverywhere();
    t.same(crossings(reader), expected);
    t.end();
  });
}

test('a frame is kept up to the snaplen, wherever it starts, with its length and time', (t) => {
  const thread = new FakeThread();
  const whole = randomBytes(60_000, 7);
  for (const offset of [0, 1, 2, 3]) {
    const start = thread.start + offset;
    for (const bytes of [0, 1, 14, 59, 60, 61, 1500, 60_000]) {
      for (const snaplen of [16, 60, 262_144]) {
        thread.arena.bytes.set(whole.subarray(0, bytes), start);
        const reader = thread.capture(1, { snaplen });
        thread.nowMs += 0.25;
        thread.taps.frame(CROSSING_PORT_IN, BLUE, 3, start, bytes);
        assert.ok(reader.next());
        assert.deepEqual(Uint8Array.from(reader.frame), whole.slice(0, Math.min(snaplen, bytes)));
        assert.deepEqual(
          [reader.originalBytes, reader.timeUs],
          [bytes, (EPOCH_MS + thread.nowMs) * 1_000],
        );
      }
    }
  }
  t.end();
});

test('a frame in pieces is kept without what stands in front of it', (t) => {
  const thread = new FakeThread();
  const { arena } = thread;
  const random = makeRandom(3);
  const iovecs = arena.allocate(64 * IOVEC_BYTES);
  for (let round = 0; round < 300; round++) {
    const front = random(20);
    const pieces = Array.from({ length: 1 + random(20) }, () => random(1500));
    const bytes = pieces.reduce((sum, length) => sum + length, 0);
    const whole = randomBytes(bytes, round);
    let at = thread.start;
    let done = 0;
    for (const [index, length] of pieces.entries()) {
      at += random(9); // between them lies what is not the frame's
      const header = index === 0 ? front : 0;
      arena.setIovec(iovecs + index * IOVEC_BYTES, at, header + length);
      arena.bytes.set(whole.subarray(done, done + length), at + header);
      at += header + length;
      done += length;
    }
    const snaplen = random(2) === 0 ? 262_144 : 16 + random(3000);
    const reader = thread.capture(1, { snaplen });
    thread.taps.vectors(CROSSING_PEER_OUT, BLUE, 3, iovecs, pieces.length, bytes);
    assert.ok(reader.next());
    assert.deepEqual(Uint8Array.from(reader.frame), whole.slice(0, Math.min(snaplen, bytes)));
    assert.equal(reader.originalBytes, bytes);
  }
  t.end();
});

test('captures run side by side, up to a bound, and end one by one', (t) => {
  const thread = new FakeThread();
  const { taps } = thread;
  t.equal(taps.active, false);
  const readers = Array.from({ length: CAPTURES_MAX }, (_, id) => thread.capture(id, { port: 1 }));
  t.throws(() => thread.capture(CAPTURES_MAX, {}), {
    name: 'RangeError',
    message: `Cannot start capture ${CAPTURES_MAX}: ${CAPTURES_MAX} run already`,
  });
  thread.offerEverywhere();
  for (const reader of readers) t.same(crossings(reader), ['port 1 in', 'port 1 out']);
  taps.clear(0);
  taps.clear(0);
  thread.offerEverywhere();
  t.same(
    readers.map((reader) => crossings(reader).length),
    [0, ...readers.slice(1).map(() => 2)],
  );
  t.ok(taps.active);
  for (const id of readers.keys()) taps.clear(id);
  t.equal(taps.active, false);
  t.end();
});
