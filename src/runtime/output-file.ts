import { type FileHandle, open, rm } from 'node:fs/promises';
import type { Log } from '../core/capabilities.ts';
import type { RunCommand } from '../io/process.ts';
import type { Credentials } from './supervisor.ts';

/** A longer line is cut into pieces of this size, as in Docker (16 KiB). */
const LINE_BYTES_MAX = 16 * 1024;

const READ_CHUNK_BYTES = 64 * 1024;

/** What has been read is given back to the file system in steps of this size: each is a process. */
const DISCARD_STEP_BYTES = 4 * 1024 * 1024;

/** A task that writes faster than it is read loses output past this backlog, not the disk. */
const BACKLOG_BYTES_MAX = 64 * 1024 * 1024;

/** Past this size the file starts anew: ext4 ends at 16 TiB, holes included. */
const FILE_BYTES_MAX = 1024 ** 4;

/** A line, or a piece of one. */
export interface OutputLine {
  readonly line: string;
  readonly partial: boolean;
  /** Where it ends in the file, newline included. */
  readonly endBytes: number;
}

/**
 * Opens the writing side. It belongs to the task's user, who may open /dev/stdout anew; undefined for
 * the agent's own.
 */
export async function openOutput(
  path: string,
  owner: Credentials | undefined,
): Promise<FileHandle> {
  const file = await open(path, 'a', 0o600);
  if (owner !== undefined) await file.chown(owner.uid, owner.gid);
  return file;
}

/**
 * The reading side of a file that a task appends to. What has been read is punched out of the file
 * (fallocate(2)), so the file takes little room although it only grows: unlike truncation, that loses
 * nothing that the task writes meanwhile. File systems without holes fall back to truncation.
 */
export class OutputFile {
  readonly #log: Log;
  readonly #run: RunCommand;
  readonly #path: string;
  #file: FileHandle | undefined;
  /** Where the next read starts; the bytes before it down to `recordedBytes` are in `#rest`. */
  #readBytes = 0;
  /** An unfinished line, less than LINE_BYTES_MAX. */
  #rest: Buffer = Buffer.alloc(0);
  #discardedBytes = 0;
  #canPunch = true;

  constructor(deps: { readonly log: Log; readonly run: RunCommand }, path: string) {
    this.#log = deps.log;
    this.#run = deps.run;
    this.#path = path;
  }

  /** How much of the file {@link OutputFile.read} has returned as lines. */
  get recordedBytes(): number {
    return this.#readBytes - this.#rest.length;
  }

  /** Goes on where an earlier agent stopped. */
  resumeAt(recordedBytes: number): void {
    this.#readBytes = recordedBytes;
    this.#discardedBytes = recordedBytes;
  }

  /**
   * Reads the next lines.
   *
   * @param isFinal - True when nobody writes any more: an unfinished line is a line then.
   * @returns undefined at the end of the file; an empty list when no line is complete yet
   */
  async read(isFinal: boolean): Promise<readonly OutputLine[] | undefined> {
    const file = await this.#open();
    if (file === undefined) return undefined;
    await this.#fitToSize(file);
    const chunk = Buffer.alloc(READ_CHUNK_BYTES);
    const { bytesRead } = await file.read(chunk, 0, chunk.length, this.#readBytes);
    if (bytesRead === 0) return isFinal ? this.#takeRest() : undefined;
    const start = this.recordedBytes;
    const bytes = Buffer.concat([this.#rest, chunk.subarray(0, bytesRead)]);
    const { lines, usedBytes } = splitLines(bytes, start);
    this.#readBytes += bytesRead;
    this.#rest = bytes.subarray(usedBytes);
    return lines;
  }

  /** Gives the room of what has been read back to the file system, now and then. */
  async discardRead(): Promise<void> {
    const file = this.#file;
    if (file === undefined || this.recordedBytes - this.#discardedBytes < DISCARD_STEP_BYTES)
      return;
    if (this.#canPunch && this.recordedBytes < FILE_BYTES_MAX) {
      const range = ['--offset', '0', '--length', String(this.recordedBytes)];
      try {
        await this.#run(['fallocate', '--punch-hole', ...range, this.#path]);
        this.#discardedBytes = this.recordedBytes;
        return;
      } catch (error) {
        this.#canPunch = false;
        const message = 'no holes in files here: output written during a truncation may be lost';
        this.#log.warn({ error, path: this.#path }, message);
      }
    }
    if ((await file.stat()).size === this.#readBytes) await this.#startAnew(file);
  }

  async #startAnew(file: FileHandle): Promise<void> {
    await file.truncate(0);
    this.#readBytes = 0;
    this.#discardedBytes = 0;
  }

  /** Deletes the file. */
  async remove(): Promise<void> {
    await this.close();
    await rm(this.#path, { force: true });
  }

  async close(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
  }

  async #open(): Promise<FileHandle | undefined> {
    this.#file ??= await open(this.#path, 'r+').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined; // not started, or finished
      throw error;
    });
    return this.#file;
  }

  async #fitToSize(file: FileHandle): Promise<void> {
    const { size } = await file.stat();
    if (size < this.#readBytes) {
      // The task itself truncated it, as `> /dev/stdout` does.
      this.#readBytes = 0;
      this.#discardedBytes = 0;
      this.#rest = Buffer.alloc(0);
    } else if (size - this.#readBytes > BACKLOG_BYTES_MAX) {
      const skippedBytes = size - READ_CHUNK_BYTES - this.#readBytes;
      this.#readBytes += skippedBytes;
      this.#rest = Buffer.alloc(0);
      this.#log.warn({ path: this.#path, skippedBytes }, 'the task writes faster than can be kept');
    }
  }

  #takeRest(): readonly OutputLine[] | undefined {
    if (this.#rest.length === 0) return undefined;
    const line = this.#rest.toString();
    this.#rest = Buffer.alloc(0);
    return [{ line, partial: false, endBytes: this.#readBytes }];
  }
}

/**
 * Cuts `bytes` at its newlines, and lines that are too long at {@link LINE_BYTES_MAX}.
 *
 * @param start - Where `bytes` starts in its file.
 * @returns the lines, and how many bytes they take: the rest is unfinished
 */
export function splitLines(
  bytes: Buffer,
  start: number,
): { readonly lines: readonly OutputLine[]; readonly usedBytes: number } {
  const lines: OutputLine[] = [];
  let at = 0;
  for (;;) {
    const newline = bytes.indexOf(10, at);
    const length = (newline < 0 ? bytes.length : newline) - at;
    const partial = length > LINE_BYTES_MAX || (newline < 0 && length === LINE_BYTES_MAX);
    if (newline < 0 && !partial) return { lines, usedBytes: at };
    const end = partial ? at + LINE_BYTES_MAX : newline;
    const next = partial ? end : newline + 1;
    lines.push({ line: bytes.toString('utf8', at, end), partial, endBytes: start + next });
    at = next;
  }
}
