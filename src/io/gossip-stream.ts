import type { Socket } from 'node:net';
import type { StreamDrop, StreamMessage, StreamReader } from '../gossip/push-pull.ts';

/** Unparsed bytes of all gossip streams of one transport together. */
const STREAMS_BYTES_MAX = 128 * 1_024 * 1_024;

/** Why no message came: the reader's reasons, or the connection's. One counter per value. */
export type StreamFault = StreamDrop | 'closed' | 'timeout' | 'no-memory';

/** Memory that the streams of one transport share. */
export class StreamBudget {
  #bytes = 0;

  /** @returns false, and takes nothing, if `bytes` more would be too many */
  take(bytes: number): boolean {
    if (this.#bytes + bytes > STREAMS_BYTES_MAX) return false;
    this.#bytes += bytes;
    return true;
  }

  giveBack(bytes: number): void {
    this.#bytes -= bytes;
  }
}

/** How {@link readStream} reads. */
export interface StreamReading {
  /** Fresh: it reads one message. */
  readonly reader: StreamReader;
  /** Bound on the whole, however the bytes drip. */
  readonly timeoutMs: number;
  readonly budget: StreamBudget;
  /** Whether the socket stays open after a drop, for an answer. */
  readonly keepRefused?: (reason: StreamFault) => boolean;
}

/**
 * Reads the one message that a peer sends on `socket`. The socket stays open if there is one, and
 * is destroyed if not.
 *
 * @returns the message, or why there is none; never rejects
 */
export function readStream(
  socket: Socket,
  { reader, timeoutMs, budget, keepRefused }: StreamReading,
): Promise<StreamMessage | StreamFault> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => finish('timeout'), timeoutMs);
    const onClose = (): void => finish('closed');
    const onData = (chunk: Uint8Array): void => {
      if (!budget.take(chunk.length)) {
        finish('no-memory');
        return;
      }
      taken += chunk.length;
      const result = reader.push(chunk);
      if (result.kind === 'message') finish(result.message);
      else if (result.kind === 'drop') finish(result.reason);
    };
    let taken = 0;
    const finish = (outcome: StreamMessage | StreamFault): void => {
      clearTimeout(timer);
      socket.off('data', onData).off('end', onClose).off('close', onClose);
      budget.giveBack(taken);
      if (typeof outcome === 'string' && keepRefused?.(outcome) !== true) socket.destroy();
      resolve(outcome);
    };
    socket.on('data', onData).on('end', onClose).on('close', onClose);
  });
}
