import { type FileHandle, open, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock, Log } from '../core/capabilities.ts';
import type { RunCommand } from '../io/process.ts';
import { OutputFile, type OutputLine } from './output-file.ts';
import type { LogOptions, LogRecord } from './task-runtime.ts';

/** What a task's log may take on disk: this many segments of this size. */
export interface LogLimits {
  readonly segmentBytesMax: number;
  readonly segmentsMax: number;
}

/** 20 MB per task, as Docker's `local` driver bounds its own (20 MB x 5). */
export const DEFAULT_LOG_LIMITS: LogLimits = { segmentBytesMax: 10_000_000, segmentsMax: 2 };

/** Output is collected this long before it is read: a chatty task costs 50 reads a second. */
const PUMP_DELAY_MS = 20;

/** Enough for the longest record: 16 KiB of text, six characters each when escaped. */
const LAST_RECORD_BYTES_MAX = 128 * 1024;

const READ_CHUNK_BYTES = 256 * 1024;

const STREAMS = ['stdout', 'stderr'] as const;

/** A record on disk. `read` says how far both output files had been read, to go on from there. */
interface StoredRecord extends LogRecord {
  readonly read: readonly [stdoutBytes: number, stderrBytes: number];
}

/** A place between two records. Segments are numbered from 1 and never reused. */
interface Position {
  segment: number;
  offset: number;
}

/**
 * A task's log. The task writes into two plain files, so it needs nobody to read them: an agent that
 * is away loses nothing and blocks nothing. The agent moves what was written into numbered segments of
 * JSON lines, each record with its time and stream, and deletes the oldest segment when there are too
 * many. What has been moved is punched out of the output files. A record names how far its files had
 * been read, so a killed agent's successor neither loses nor repeats a line.
 */
export class TaskLog {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #directory: string;
  readonly #limits: LogLimits;
  readonly #outputs: { readonly stdout: OutputFile; readonly stderr: OutputFile };
  #segment = 1;
  #segmentBytes = 0;
  #file: FileHandle | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** The pump under way, and everything that waits for it. */
  #tail: Promise<void> = Promise.resolve();
  /** Nothing will come any more: closed, or the task has ended. */
  #isOver = false;
  #isClosed = false;
  /** Wakes the followers. BOUNDED by the open log requests; emptied at every wake. */
  #followers: (() => void)[] = [];

  constructor(
    deps: { readonly clock: Clock; readonly log: Log; readonly run: RunCommand },
    directory: string,
    limits: LogLimits,
  ) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#directory = directory;
    this.#limits = limits;
    this.#outputs = {
      stdout: new OutputFile(deps, join(directory, 'stdout')),
      stderr: new OutputFile(deps, join(directory, 'stderr')),
    };
  }

  /** Finds out how far an earlier agent came. Call it first. */
  async recover(): Promise<void> {
    this.#segment = (await this.#segments()).at(-1) ?? 1;
    const path = this.#path(this.#segment);
    const file = await open(path, 'a+');
    try {
      const { size } = await file.stat();
      const start = Math.max(0, size - LAST_RECORD_BYTES_MAX);
      const bytes = Buffer.alloc(size - start);
      await file.read(bytes, 0, bytes.length, start);
      const end = bytes.lastIndexOf(10) + 1; // what follows was cut off by a crash
      if (end < bytes.length) await file.truncate(start + end);
      this.#segmentBytes = start + end;
      const [stdoutBytes, stderrBytes] = parseRecords(bytes.subarray(0, end)).at(-1)?.read ?? [
        0, 0,
      ];
      this.#outputs.stdout.resumeAt(stdoutBytes);
      this.#outputs.stderr.resumeAt(stderrBytes);
    } finally {
      await file.close();
    }
  }

  /** Tells that the task wrote something. Cheap; call it as often as that happens. */
  poke(): void {
    if (this.#timer !== undefined || this.#isClosed) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.pump().catch((error: unknown) => {
        this.#log.error({ error, directory: this.#directory }, 'output of a task cannot be kept');
      });
    }, PUMP_DELAY_MS);
  }

  /** Moves all that the task has written so far; an unfinished line stays. */
  pump(): Promise<void> {
    return this.#serially(() => this.#pumpAll(false));
  }

  /** Moves the rest of an ended task's output, deletes the output files and ends the followers. */
  finish(): Promise<void> {
    return this.#serially(async () => {
      await this.#pumpAll(true);
      for (const stream of STREAMS) await this.#outputs[stream].remove();
      this.#isOver = true;
      this.#wakeFollowers();
    });
  }

  /** Stops moving and ends all followers. What is not moved yet waits for the next agent. */
  close(): Promise<void> {
    clearTimeout(this.#timer);
    return this.#serially(async () => {
      this.#isClosed = true;
      this.#isOver = true;
      this.#wakeFollowers();
      for (const stream of STREAMS) await this.#outputs[stream].close();
      await this.#file?.close();
      this.#file = undefined;
    });
  }

  /** The records, oldest first, as {@link LogOptions} asks. */
  async *read(options: LogOptions): AsyncGenerator<LogRecord, void, undefined> {
    await this.pump();
    const at =
      options.tail === undefined
        ? { segment: (await this.#segments())[0] ?? 1, offset: 0 }
        : await this.#startOfTail(options.tail);
    const wake = () => this.#wakeFollowers();
    options.signal?.addEventListener('abort', wake);
    try {
      while (options.signal?.aborted !== true) {
        // Both before reading: a record that comes meanwhile must not be slept through.
        const change = new Promise<void>((resolve) => this.#followers.push(resolve));
        const wasOver = this.#isOver;
        yield* this.#readFrom(at, options.signal);
        if (!options.follow || wasOver) return;
        await change;
      }
    } finally {
      options.signal?.removeEventListener('abort', wake);
    }
  }

  #serially(step: () => Promise<void>): Promise<void> {
    const done = this.#tail.then(step);
    this.#tail = done.catch(() => {}); // its caller is told, the next step is not held up
    return done;
  }

  async #pumpAll(isFinal: boolean): Promise<void> {
    if (this.#isClosed) return;
    for (const stream of STREAMS) {
      const output = this.#outputs[stream];
      for (;;) {
        const lines = await output.read(isFinal);
        if (lines === undefined) break;
        await this.#append(stream, lines);
        await output.discardRead();
      }
    }
  }

  async #append(stream: 'stdout' | 'stderr', lines: readonly OutputLine[]): Promise<void> {
    if (lines.length === 0) return;
    const timestampMs = this.#clock.epochMs();
    const { stdout, stderr } = this.#outputs;
    const read: [number, number] = [stdout.recordedBytes, stderr.recordedBytes];
    let text = '';
    for (const { line, partial, endBytes } of lines) {
      read[stream === 'stdout' ? 0 : 1] = endBytes;
      const record: StoredRecord = { timestampMs, stream, line, partial, read };
      text += `${JSON.stringify(record)}\n`;
    }
    if (this.#segmentBytes >= this.#limits.segmentBytesMax) await this.#startSegment();
    this.#file ??= await open(this.#path(this.#segment), 'a');
    const bytes = Buffer.from(text);
    await this.#file.appendFile(bytes);
    this.#segmentBytes += bytes.length;
    this.#wakeFollowers();
  }

  async #startSegment(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
    this.#segment += 1;
    this.#segmentBytes = 0;
    for (const segment of await this.#segments()) {
      if (segment > this.#segment - this.#limits.segmentsMax) continue;
      await rm(this.#path(segment), { force: true });
    }
  }

  async #segments(): Promise<readonly number[]> {
    const names = await readdir(this.#directory).catch(() => []); // gone with its task
    return names
      .flatMap((name) => /^log\.(\d+)\.jsonl$/.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => a - b);
  }

  #path(segment: number): string {
    return join(this.#directory, `log.${segment}.jsonl`);
  }

  async #startOfTail(records: number): Promise<Position> {
    let wanted = records;
    const segments = await this.#segments();
    for (const segment of segments.toReversed()) {
      const bytes = await readFile(this.#path(segment)).catch(() => Buffer.alloc(0));
      let offset = bytes.lastIndexOf(10) + 1;
      for (; offset > 0 && wanted > 0; wanted -= 1) {
        offset = offset < 2 ? 0 : bytes.lastIndexOf(10, offset - 2) + 1;
      }
      if (wanted === 0) return { segment, offset };
    }
    return { segment: segments[0] ?? 1, offset: 0 };
  }

  /** Yields the records from `at` to the end, and moves `at` there. */
  async *#readFrom(at: Position, signal: AbortSignal | undefined): AsyncGenerator<LogRecord> {
    for (;;) {
      const isLast = at.segment >= this.#segment;
      // A segment that was deleted meanwhile is skipped: its records are past keeping.
      const file = await open(this.#path(at.segment), 'r').catch(() => undefined);
      try {
        let records = await readRecords(file, at);
        for (; records.length > 0; records = await readRecords(file, at)) {
          for (const record of records) {
            if (signal?.aborted === true) return;
            yield record;
          }
        }
      } finally {
        await file?.close();
      }
      if (isLast) return;
      at.segment += 1;
      at.offset = 0;
    }
  }

  #wakeFollowers(): void {
    const followers = this.#followers;
    this.#followers = [];
    for (const wake of followers) wake();
  }
}

/** Reads the whole records in the next chunk, and moves `at` behind them. */
async function readRecords(
  file: FileHandle | undefined,
  at: Position,
): Promise<readonly LogRecord[]> {
  if (file === undefined) return [];
  const buffer = Buffer.alloc(READ_CHUNK_BYTES);
  const { bytesRead } = await file.read(buffer, 0, buffer.length, at.offset);
  const end = buffer.subarray(0, bytesRead).lastIndexOf(10) + 1;
  at.offset += end;
  return parseRecords(buffer.subarray(0, end)).map(({ timestampMs, stream, line, partial }) => ({
    timestampMs,
    stream,
    line,
    partial,
  }));
}

/** Parses whole lines. One that a full disk cut short is skipped. */
function parseRecords(bytes: Buffer): readonly StoredRecord[] {
  const lines = bytes.toString().split('\n').slice(0, -1);
  return lines.flatMap((text) => {
    try {
      return [JSON.parse(text) as StoredRecord];
    } catch {
      return [];
    }
  });
}
