/** Why a command ended without doing what it was asked for. */
export type CliErrorDetail =
  /** The command line cannot be right. `command` is the command whose help explains it. */
  | { readonly code: 'USAGE'; readonly command?: string }
  /** What was asked for is not there, or not in a state that allows it. */
  | { readonly code: 'REFUSED' }
  /** Several targets, some of which failed: the message has a line for each. */
  | { readonly code: 'TARGETS' };

/** A failure that the user can do something about: its message is all that is shown. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly detail: CliErrorDetail;

  constructor(detail: CliErrorDetail, message: string, options?: ErrorOptions) {
    super(message, options);
    this.detail = detail;
  }
}

/**
 * A command line that cannot be right.
 *
 * @param message - What was refused, what was given, what is expected.
 */
export function usageError(message: string): CliError {
  return new CliError({ code: 'USAGE' }, message);
}

/** Something asked for that cannot be done. */
export function refused(message: string, options?: ErrorOptions): CliError {
  return new CliError({ code: 'REFUSED' }, message, options);
}

/**
 * What standard error says about a failure: its message, and what to do next.
 *
 * @param running - Full name of the command that was running; absent if none was reached.
 */
export function describeFailure(error: ExpectedError, running: string | undefined): string {
  const lines = `${error.message}${adviceFor(error)}`.split('\n').map((line) => `weft: ${line}`);
  if (error.detail.code === 'USAGE') {
    lines.push(`See '${error.detail.command ?? running ?? 'weft'} --help'`);
  }
  return lines.map((line) => `${line}\n`).join('');
}

/** By name: loading the client for its class would cost every `--help` some milliseconds. */
function adviceFor(error: ExpectedError): string {
  if (error.name !== 'HttpError' || error.detail.code !== 'UNREACHABLE') return '';
  return error.detail.systemCode === 'EACCES' || error.detail.systemCode === 'EPERM'
    ? "; the agent's socket is root's alone, use sudo"
    : '; is it running? Start it with "weft agent"';
}

/** An error with a typed detail. */
export type ExpectedError = Error & {
  readonly detail: {
    readonly code: string;
    readonly command?: string;
    readonly systemCode?: string;
  };
};

/**
 * Whether `error` is one that the user can act on: all of weft's own have a `detail.code`. Others
 * are bugs and show a stack trace.
 */
export function isExpected(error: unknown): error is ExpectedError {
  if (!(error instanceof Error) || !('detail' in error)) return false;
  const { detail } = error;
  return typeof detail === 'object' && detail !== null && 'code' in detail;
}
