/** Frame header: stream type, three zeros, payload length big-endian (Engine API, "attach"). */
const FRAME_HEADER_BYTES = 8;
/** Docker's own frames hold a line of at most 16 KiB; a longer one is not a log stream. */
const FRAME_PAYLOAD_BYTES_MAX = 4 * 1024 * 1024;
const STREAMS: ReadonlyMap<number, LogStream> = new Map([
  [0, 'stdout'],
  [1, 'stdout'],
  [2, 'stderr'],
]);

export type LogStream = 'stdout' | 'stderr';

/** One write of a task. */
export interface LogFrame {
  readonly stream: LogStream;
  readonly text: string;
}

/** A byte stream that is not Docker's multiplexed format. */
export class LogFrameError extends Error {
  override readonly name = 'LogFrameError';
  readonly detail: { readonly code: 'BAD_LOG_FRAME' } = { code: 'BAD_LOG_FRAME' };
}

/** Takes frames out of a multiplexed stream, however its chunks are cut. */
export class LogDemultiplexer {
  /** What is not a whole frame yet. BOUNDED by one frame and one chunk. */
  #pending: Uint8Array = new Uint8Array();
  readonly #decoder = new TextDecoder();

  /**
   * Takes the next chunk.
   *
   * @returns the frames that it completes, in order
   * @throws {LogFrameError} if these bytes are no frames
   */
  push(chunk: Uint8Array): LogFrame[] {
    const bytes = concat(this.#pending, chunk);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const frames: LogFrame[] = [];
    let offset = 0;
    while (bytes.length - offset >= FRAME_HEADER_BYTES) {
      const stream = STREAMS.get(view.getUint8(offset));
      const length = view.getUint32(offset + 4);
      if (stream === undefined || length > FRAME_PAYLOAD_BYTES_MAX) {
        throw new LogFrameError(
          `Cannot read the log: expected a frame of stream 0 to 2 and up to ${FRAME_PAYLOAD_BYTES_MAX} ` +
            `bytes, received stream ${view.getUint8(offset)} and ${length} bytes`,
        );
      }
      const end = offset + FRAME_HEADER_BYTES + length;
      if (end > bytes.length) break;
      const payload = bytes.subarray(offset + FRAME_HEADER_BYTES, end);
      frames.push({ stream, text: this.#decoder.decode(payload) });
      offset = end;
    }
    this.#pending = bytes.slice(offset);
    return frames;
  }

  /**
   * Says that the stream has ended.
   *
   * @throws {LogFrameError} if that was in the middle of a frame
   */
  end(): void {
    if (this.#pending.length > 0) {
      throw new LogFrameError('Cannot read the log: it ended in the middle of a frame');
    }
  }
}

function concat(first: Uint8Array, second: Uint8Array): Uint8Array {
  if (first.length === 0) return second;
  const bytes = new Uint8Array(first.length + second.length);
  bytes.set(first);
  bytes.set(second, first.length);
  return bytes;
}

/** A line of a service's log, taken apart. */
export interface LogLine {
  /** RFC 3339; empty unless asked for. */
  readonly timestamp: string;
  readonly taskId: string;
  readonly nodeId: string;
  readonly message: string;
}

/**
 * Takes a line apart that was asked for with `details`: `[timestamp ]key=value,key=value message`.
 *
 * @returns undefined if it does not name a task
 */
export function parseLogLine(text: string, hasTimestamp: boolean): LogLine | undefined {
  const timestampLength = hasTimestamp ? text.indexOf(' ') : 0;
  const timestamp = text.slice(0, Math.max(0, timestampLength));
  const rest = hasTimestamp ? text.slice(timestampLength + 1) : text;
  const split = rest.indexOf(' ');
  const details = new Map(
    rest
      .slice(0, Math.max(0, split))
      .split(',')
      .map((field) => field.split('=', 2).map(decode))
      .map(([key = '', value = '']) => [key, value] as const),
  );
  const taskId = details.get('com.docker.swarm.task.id');
  if (taskId === undefined) return undefined;
  const nodeId = details.get('com.docker.swarm.node.id') ?? '';
  return { timestamp, taskId, nodeId, message: rest.slice(split + 1) };
}

/** Keys and values are query-escaped, as Docker's client reads them (`ParseLogDetails`). */
function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return text; // a stray % is itself
  }
}
