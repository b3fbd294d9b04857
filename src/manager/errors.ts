/** Why the manager refused something. `code` is for programs, the message for people. */
export type ManagerErrorDetail =
  /** The request cannot be right, whatever the state of the cluster. */
  | { readonly code: 'INVALID'; readonly field?: string }
  | { readonly code: 'NOT_FOUND'; readonly kind: ObjectKind; readonly reference: string }
  /** The reference is a prefix of several ids, or the name of several objects. */
  | { readonly code: 'AMBIGUOUS'; readonly kind: ObjectKind; readonly matches: number }
  /** An object with this name exists. */
  | { readonly code: 'NAME_CONFLICT'; readonly kind: ObjectKind; readonly name: string }
  /** The request is well-formed, and the state of the cluster does not allow it. */
  | { readonly code: 'PRECONDITION' }
  /** The object changed since the caller read it. */
  | { readonly code: 'OUT_OF_SEQUENCE'; readonly given: number; readonly current: number }
  | { readonly code: 'FORBIDDEN' }
  | { readonly code: 'UNAUTHENTICATED' }
  | { readonly code: 'NOT_SUPPORTED' }
  /** The node has no session: it must open one before it reports. */
  | { readonly code: 'NO_SESSION' }
  /** The store cannot be written now. */
  | { readonly code: 'UNAVAILABLE' }
  /** The node that has a log does not hand it out now. */
  | { readonly code: 'LOG_UNAVAILABLE' };

/** What a lookup was for, in the words of the API's messages. */
export type ObjectKind = 'node' | 'network' | 'service' | 'task' | 'log request' | 'gossip key';

/** The HTTP statuses of refusals. */
export type RefusalStatus = 400 | 401 | 403 | 404 | 409 | 501 | 503;

/** Statuses as Docker maps the same failures (moby `api/server/httpstatus`). */
const HTTP_STATUS: Readonly<Record<ManagerErrorDetail['code'], RefusalStatus>> = {
  INVALID: 400,
  NOT_FOUND: 404,
  AMBIGUOUS: 400,
  NAME_CONFLICT: 409,
  PRECONDITION: 400,
  OUT_OF_SEQUENCE: 409,
  FORBIDDEN: 403,
  UNAUTHENTICATED: 401,
  NOT_SUPPORTED: 501,
  NO_SESSION: 409,
  UNAVAILABLE: 503,
  LOG_UNAVAILABLE: 503,
};

/** A refusal that the caller is expected to handle. Match on `detail.code`, never on `message`. */
export class ManagerError extends Error {
  override readonly name = 'ManagerError';
  readonly detail: ManagerErrorDetail;

  constructor(detail: ManagerErrorDetail, message: string, options?: ErrorOptions) {
    super(message, options);
    this.detail = detail;
  }
}

/** The HTTP status that answers a request refused with `detail`. */
export function httpStatusOf(detail: ManagerErrorDetail): RefusalStatus {
  return HTTP_STATUS[detail.code];
}

/**
 * A refusal of one field of a request, or of the request as a whole.
 *
 * @param field - Its path, such as `IPAM.Config`; undefined for the whole.
 * @param cause - The error that tells more, if there is one.
 */
export function invalid(message: string, field?: string, cause?: unknown): ManagerError {
  return new ManagerError(
    { code: 'INVALID', ...(field === undefined ? {} : { field }) },
    message,
    cause === undefined ? {} : { cause },
  );
}

/** A refusal because of the state that the cluster is in. */
export function preconditionFailed(message: string): ManagerError {
  return new ManagerError({ code: 'PRECONDITION' }, message);
}

/** That a log cannot be read now, and why. */
export function logUnavailable(reason: string, options?: ErrorOptions): ManagerError {
  return new ManagerError({ code: 'LOG_UNAVAILABLE' }, reason, options);
}

/** Whether `error` is about one log only. */
export function isLogUnavailable(error: unknown): error is ManagerError {
  return error instanceof ManagerError && error.detail.code === 'LOG_UNAVAILABLE';
}

/** The refusal of a reference to nothing, in Docker's words. */
export function notFound(kind: ObjectKind, reference: string): ManagerError {
  return new ManagerError({ code: 'NOT_FOUND', kind, reference }, `${kind} ${reference} not found`);
}
