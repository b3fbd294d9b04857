/** Time as an argument: pure code and tests never read a clock of their own. */
export interface Clock {
  /** Milliseconds on a clock that never goes back; only differences mean anything. */
  nowMs(): number;
  /** Wall-clock time in milliseconds since the Unix epoch, for timestamps that people read. */
  epochMs(): number;
}

/** Chance as an argument, so that a seed replays a run. */
export interface Random {
  /** A number in [0, 1). */
  next(): number;
  /** `length` bytes; unpredictable in production, seeded in tests. */
  bytes(length: number): Uint8Array;
}

/** Fields of one log line: values, never interpolated into the message. */
export type LogFields = Readonly<Record<string, unknown>>;

/** A structured log. `child` adds fields to every line. */
export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  child(fields: LogFields): Log;
}

/** A log that keeps nothing: for tests and for library use. */
export const SILENT_LOG: Log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => SILENT_LOG,
};
