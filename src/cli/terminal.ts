import { setTimeout as delay } from 'node:timers/promises';

/** Everything that a command touches besides the agent: an argument, so that tests can be one. */
export interface Terminal {
  /** Writes `text` as it is to standard output. */
  write(text: string): void;
  /** Writes `bytes` as they are to standard output. */
  writeBytes(bytes: Uint8Array): void;
  /** Writes `text` as it is to standard error. */
  writeError(text: string): void;
  /** Resolves when what was written is taken: long output must not pile up in memory. */
  drained(): Promise<void>;
  /** Whether standard output can redraw lines. */
  readonly isInteractive: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** This machine's name. */
  readonly hostname: string;
  /** Wall-clock time in milliseconds since the Unix epoch. */
  epochMs(): number;
  /** Resolves after `ms`, or at once when `signal` is aborted. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
  /** Calls `listener` instead of ending the process on Ctrl-C. @returns what undoes it */
  onInterrupt(listener: () => void): () => void;
}

/**
 * The terminal of this process.
 *
 * @param env - Its environment variables.
 * @param hostname - This machine's name.
 */
export function processTerminal(
  env: Readonly<Record<string, string | undefined>>,
  hostname: string,
): Terminal {
  const { stdout, stderr } = process;
  // `weft service ls | head -1` closes the pipe: nobody is left to write for, and that is no error.
  stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit(0);
  });
  return {
    write: (text) => void stdout.write(text),
    writeBytes: (bytes) => void stdout.write(bytes),
    writeError: (text) => void stderr.write(text),
    drained: () =>
      stdout.writableNeedDrain
        ? new Promise((fulfil) => stdout.once('drain', fulfil))
        : Promise.resolve(),
    isInteractive: stdout.isTTY === true,
    env,
    hostname,
    epochMs: Date.now,
    sleep: (ms, signal) => delay(ms, undefined, { signal }).catch(() => {}),
    onInterrupt: (listener) => {
      process.on('SIGINT', listener);
      return () => process.off('SIGINT', listener);
    },
  };
}
