import { appendFile, mkdtemp, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { type Test, test } from 'tap';
import { SILENT_LOG } from '../../src/core/capabilities.ts';
import { CommandError, runCommand } from '../../src/io/process.ts';
import { splitLines } from '../../src/runtime/output-file.ts';
import { DEFAULT_LOG_LIMITS, type LogLimits, TaskLog } from '../../src/runtime/task-log.ts';
import type { LogOptions, LogRecord } from '../../src/runtime/task-runtime.ts';

const CLOCK = { nowMs: () => 0, epochMs: () => 1_700_000_000_000 };

async function directory(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'weft-test-'));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

async function openLog(
  path: string,
  limits: LogLimits = DEFAULT_LOG_LIMITS,
  run = runCommand,
): Promise<TaskLog> {
  const log = new TaskLog({ clock: CLOCK, log: SILENT_LOG, run }, path, limits);
  await log.recover();
  return log;
}

async function collect(source: AsyncIterable<LogRecord>): Promise<LogRecord[]> {
  const records: LogRecord[] = [];
  for await (const record of source) records.push(record);
  return records;
}

function read(log: TaskLog, options: LogOptions = { follow: false }): Promise<LogRecord[]> {
  return collect(log.read(options));
}

const text = (records: readonly LogRecord[]): string[] => records.map(({ line }) => line);

test('splitLines() keeps every byte, in pieces of at most 16 KiB, however the input is cut', (t) => {
  const line = fc.oneof(
    fc.string({ unit: 'binary-ascii', maxLength: 20 }),
    fc.nat(40_000).map((length) => 'x'.repeat(length)),
  );
  fc.assert(
    fc.property(fc.array(line), fc.array(fc.integer({ min: 1, max: 20_000 })), (lines, cuts) => {
      const whole = Buffer.from(lines.map((each) => `${each}\n`).join(''));
      let rebuilt = '';
      let at = 0;
      let rest = Buffer.alloc(0);
      for (const size of [...cuts, whole.length]) {
        const bytes = Buffer.concat([rest, whole.subarray(at, at + size)]);
        const start = at - rest.length;
        at = Math.min(whole.length, at + size);
        const split = splitLines(bytes, start);
        for (const { line: piece, partial, endBytes } of split.lines) {
          rebuilt += partial ? piece : `${piece}\n`;
          if (Buffer.byteLength(piece) > 16_384) return false;
          if (endBytes !== Buffer.byteLength(rebuilt)) return false;
        }
        rest = bytes.subarray(split.usedBytes);
      }
      return rebuilt === whole.toString() && rest.length === 0;
    }),
  );
  t.equal(splitLines(Buffer.alloc(16_384, 'a'), 0).lines[0]?.partial, true);
  t.same(splitLines(Buffer.from(`${'a'.repeat(16_384)}\n`), 0).lines.length, 1);
  t.end();
});

test('records carry stream and time; an unfinished line waits for its end', async (t) => {
  const path = await directory(t);
  const log = await openLog(path);
  t.teardown(() => log.close());
  t.same(await read(log), [], 'a task that wrote nothing has an empty log');
  await writeFile(join(path, 'stdout'), 'one\ntwo "quoted" \u{1f600}\nunfin');
  await writeFile(join(path, 'stderr'), 'oops\n');
  const timestampMs = CLOCK.epochMs();
  const expected = [
    { timestampMs, stream: 'stdout', line: 'one', partial: false },
    { timestampMs, stream: 'stdout', line: 'two "quoted" \u{1f600}', partial: false },
    { timestampMs, stream: 'stderr', line: 'oops', partial: false },
  ];
  t.same(await read(log), expected);
  await appendFile(join(path, 'stdout'), 'ished');
  t.same(await read(log), expected);
  await log.finish();
  t.same((await read(log)).at(-1), { ...expected[0], line: 'unfinished' });
  t.same(await readdir(path), ['log.1.jsonl'], 'finish() deletes the output files');
});

test('a killed agent loses and repeats nothing', async (t) => {
  const path = await directory(t);
  const first = await openLog(path);
  await writeFile(join(path, 'stdout'), 'a\nb\npart');
  await writeFile(join(path, 'stderr'), 'x\n');
  await first.pump(); // and no close(), as after SIGKILL
  await appendFile(join(path, 'log.1.jsonl'), '{"timestampMs":1,"stream":"std'); // cut off
  await appendFile(join(path, 'stdout'), 'ial\nc\n');
  await appendFile(join(path, 'stderr'), 'y\n');
  const second = await openLog(path);
  t.teardown(() => Promise.all([first.close(), second.close()]));
  t.same(text(await read(second)), ['a', 'b', 'x', 'partial', 'c', 'y']);
});

test('the log is bounded in segments, and `tail` counts from the end across them', async (t) => {
  const path = await directory(t);
  const log = await openLog(path, { segmentBytesMax: 1_000, segmentsMax: 2 });
  t.teardown(() => log.close());
  for (let line = 0; line < 100; line += 1) {
    await appendFile(join(path, 'stdout'), `line ${line}\n`);
    await log.pump();
  }
  const segments = (await readdir(path)).filter((name) => name.startsWith('log.'));
  t.equal(segments.length, 2);
  for (const name of segments) t.ok((await stat(join(path, name))).size < 1_200);
  const kept = text(await read(log));
  const expected = Array.from({ length: kept.length }, (_, i) => `line ${100 - kept.length + i}`);
  t.same(kept, expected, 'the newest records are kept, in order');
  for (const tail of [0, 1, 5, kept.length - 1, kept.length, 1_000]) {
    const tailed = text(await read(log, { follow: false, tail }));
    t.same(tailed, tail === 0 ? [] : kept.slice(-tail), `tail ${tail}`);
  }
});

test('what was read is punched out of the output file while the task goes on writing', async (t) => {
  const path = await directory(t);
  const log = await openLog(path);
  t.teardown(() => log.close());
  const stdout = join(path, 'stdout');
  const megabyte = `${'y'.repeat(1023)}\n`.repeat(1024);
  for (let round = 0; round < 6; round += 1) {
    await appendFile(stdout, megabyte);
    await log.pump();
  }
  const stats = await stat(stdout);
  t.equal(stats.size, 6 * megabyte.length);
  t.ok(stats.blocks * 512 < 3 * megabyte.length, `${stats.blocks * 512} bytes are in use`);
  await appendFile(stdout, 'last\n');
  t.same(text(await read(log, { follow: false, tail: 1 })), ['last']);
});

test('a file system without holes, and a task that truncates its output', async (t) => {
  const path = await directory(t);
  const refuse = () => {
    const detail = { code: 'COMMAND_FAILED', exitCode: 1, stderr: 'not supported' } as const;
    return Promise.reject(new CommandError('fallocate', detail, undefined));
  };
  const log = await openLog(path, DEFAULT_LOG_LIMITS, refuse);
  t.teardown(() => log.close());
  const stdout = join(path, 'stdout');
  await writeFile(stdout, `${'z'.repeat(1023)}\n`.repeat(5 * 1024));
  await log.pump();
  t.equal((await stat(stdout)).size, 0, 'the file starts anew');
  await appendFile(stdout, 'after\nmore');
  t.same(text(await read(log, { follow: false, tail: 1 })), ['after']);
  await truncate(stdout, 0);
  await appendFile(stdout, 'anew\n');
  t.same(text(await read(log, { follow: false, tail: 1 })), ['anew']);
});

test('a backlog that is too long is skipped up to its newest output', async (t) => {
  const path = await directory(t);
  const log = await openLog(path);
  t.teardown(() => log.close());
  const stdout = join(path, 'stdout');
  await writeFile(stdout, 'old\n');
  await truncate(stdout, 80 * 1024 * 1024); // a hole: costs neither time nor room
  await appendFile(stdout, '\nnew\n');
  const lines = text(await read(log));
  t.equal(lines.at(-1), 'new');
  t.notOk(lines.includes('old'));
  t.ok(lines.length < 10, `${lines.length} records`);
});

test('followers see every record across segments, and end with the task or their signal', async (t) => {
  const path = await directory(t);
  const log = await openLog(path, { segmentBytesMax: 200, segmentsMax: 50 });
  t.teardown(() => log.close());
  await writeFile(join(path, 'stdout'), '0\n1\n');
  await log.pump();
  const whole = read(log, { follow: true });
  const fromEnd = log.read({ follow: true, tail: 1 });
  t.match(await fromEnd.next(), { value: { line: '1' } });
  const abort = new AbortController();
  const aborted = (async () => {
    const seen: string[] = [];
    for await (const { line } of log.read({ follow: true, signal: abort.signal })) {
      seen.push(line);
      if (line === '3') abort.abort();
    }
    return seen;
  })();
  const poked = fromEnd.next(); // waits
  for (let line = 2; line < 30; line += 1) {
    await appendFile(join(path, 'stdout'), `${line}\n`);
    if (line === 2) {
      log.poke();
      t.match(await poked, { value: { line: '2' } }, 'poke() has it read');
    } else {
      await log.pump();
    }
  }
  await log.finish();
  const lines = Array.from({ length: 30 }, (_, line) => String(line));
  t.same(text(await whole), lines);
  t.same(text(await collect(fromEnd)), lines.slice(3));
  t.same(await aborted, lines.slice(0, 4));
});
