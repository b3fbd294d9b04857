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

/** Node's longest timer; a longer one would fire at once. 24 days. */
const TIMER_MS_MAX = 0x7fff_ffff;

/**
 * Runs `task` once at `atMs` of {@link SYSTEM_CLOCK}'s monotonic clock, or soon after.
 *
 * @returns a function that takes it back
 */
export function systemSchedule(atMs: number, task: () => void): () => void {
  let timer: NodeJS.Timeout;
  const arm = (): void => {
    const leftMs = Math.max(0, atMs - SYSTEM_CLOCK.nowMs());
    timer = setTimeout(
      () => (SYSTEM_CLOCK.nowMs() >= atMs ? task() : arm()),
      Math.min(TIMER_MS_MAX, Math.ceil(leftMs)),
    );
  };
  arm();
  return () => clearTimeout(timer);
}
