/** Linux signals by number, from 1 (signal(7), x86 and ARM). */
const SIGNAL_NAMES = [
  'HUP',
  'INT',
  'QUIT',
  'ILL',
  'TRAP',
  'ABRT',
  'BUS',
  'FPE',
  'KILL',
  'USR1',
  'SEGV',
  'USR2',
  'PIPE',
  'ALRM',
  'TERM',
  'STKFLT',
  'CHLD',
  'CONT',
  'STOP',
  'TSTP',
  'TTIN',
  'TTOU',
  'URG',
  'XCPU',
  'XFSZ',
  'VTALRM',
  'PROF',
  'WINCH',
  'IO',
  'PWR',
  'SYS',
] as const;

/**
 * The full name of a signal given as Docker takes it: `SIGTERM`, `TERM`, `term` or `15`.
 *
 * @returns a name such as SIGTERM, or undefined if there is no such signal
 */
export function parseSignal(text: string): string | undefined {
  const name = /^\d{1,2}$/.test(text)
    ? SIGNAL_NAMES[Number(text) - 1]
    : SIGNAL_NAMES.find((known) => known === text.toUpperCase().replace(/^SIG/, ''));
  return name === undefined ? undefined : `SIG${name}`;
}
