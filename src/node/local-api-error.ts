/** A refusal with the HTTP status that fits it. The message is for the operator. */
export class LocalApiError extends Error {
  override readonly name = 'LocalApiError';
  readonly status: 400 | 404 | 409 | 503;

  constructor(status: 400 | 404 | 409 | 503, message: string, options?: ErrorOptions) {
    super(message, options);
    this.status = status;
  }
}
