/** Takes back what was scheduled; harmless once it has run. */
export type CancelSchedule = () => void;

/**
 * Runs `task` once, at `atMs` or soon after, never before and never within the call itself: timers as
 * an argument.
 *
 * @param atMs - On the monotonic clock (`Clock.nowMs`).
 */
export type Schedule = (atMs: number, task: () => void) => CancelSchedule;
