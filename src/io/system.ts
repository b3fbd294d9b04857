import { createHash, randomBytes } from 'node:crypto';
import { pino } from 'pino';
import type { Clock, Log, Random } from '../core/capabilities.ts';

/** The machine's clocks. */
export const SYSTEM_CLOCK: Clock = {
  nowMs: () => performance.now(),
  epochMs: () => Date.now(),
};

/** Unpredictable randomness. */
export const SYSTEM_RANDOM: Random = {
  next: () => Math.random(),
  bytes: (length) => new Uint8Array(randomBytes(length)),
};

/** SHA-256 of some bytes. */
export function sha256(data: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(data).digest());
}

/**
 * A log of JSON lines on standard error: standard output belongs to commands.
 *
 * @param level - Lines below it are not made: debug, info, warn or error.
 */
export function systemLog(level: string): Log {
  return pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ dest: 2, sync: true }),
  );
}
