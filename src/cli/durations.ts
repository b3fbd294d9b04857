/** Nanoseconds per unit of Go's `time.ParseDuration`, which Docker's flags use. */
const UNIT_NS: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3_600e9,
};
const TERM = /(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/g;

/**
 * Reads a duration as Go writes it: `10s`, `1m30s`, `500ms`, `1.5h`, `0`.
 *
 * @returns whole nanoseconds, the API's unit; undefined if `text` is none, or too long to be exact
 *   (over 104 days)
 */
export function parseDurationNs(text: string): number | undefined {
  if (text === '0') return 0;
  if (text === '' || text.replaceAll(TERM, '') !== '') return undefined;
  let ns = 0;
  for (const [, number, unit = ''] of text.matchAll(TERM)) {
    ns += Number(number) * (UNIT_NS[unit] ?? Number.NaN);
  }
  return Number.isSafeInteger(Math.round(ns)) ? Math.round(ns) : undefined;
}

const SECONDS_PER_HOUR = 3_600;

/**
 * A duration in one or two units, for a column of them: `7s`, `2m05s`, `3h20m`, `4d12h`.
 *
 * @param ms - Milliseconds; less than none is none.
 */
export function shortDuration(ms: number): string {
  const seconds = Math.max(0, Math.trunc(ms / 1_000));
  const two = (count: number): string => String(count).padStart(2, '0');
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.trunc(seconds / 60);
  if (minutes < 60) return `${minutes}m${two(seconds % 60)}s`;
  const hours = Math.trunc(minutes / 60);
  if (hours < 24) return `${hours}h${two(minutes % 60)}m`;
  return `${Math.trunc(hours / 24)}d${two(hours % 24)}h`;
}

/**
 * A duration as Docker shows it: `5 seconds`, `about a minute` (go-units `HumanDuration`).
 *
 * @param ms - Milliseconds.
 */
export function humanDuration(ms: number): string {
  const seconds = Math.trunc(ms / 1_000);
  if (seconds < 1) return 'less than a second';
  if (seconds < 60) return seconds === 1 ? '1 second' : `${seconds} seconds`;
  const minutes = Math.trunc(seconds / 60);
  if (minutes < 60) return minutes === 1 ? 'about a minute' : `${minutes} minutes`;
  const hours = Math.trunc(seconds / SECONDS_PER_HOUR + 0.5);
  if (hours < 48) return hours === 1 ? 'about an hour' : `${hours} hours`;
  const days = Math.trunc(hours / 24);
  if (days < 14) return `${days} days`;
  if (days < 60) return `${Math.trunc(days / 7)} weeks`;
  if (days < 730) return `${Math.trunc(days / 30)} months`;
  return `${Math.trunc(days / 365)} years`;
}
