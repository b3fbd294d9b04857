import {
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type RequestOptions,
} from 'node:http';
import { pipeline } from 'node:stream/promises';
import { formatHostPort } from '../core/ip.ts';

/** Where an HTTP server listens. */
export type HttpAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

/** Why a request got no usable answer. */
export type HttpErrorDetail =
  /** No connection, or it broke. `systemCode` is the operating system's word, such as ENOENT. */
  | { readonly code: 'UNREACHABLE'; readonly systemCode: string }
  /** Connected, and silent for `timeoutMs`. */
  | { readonly code: 'TIMED_OUT'; readonly timeoutMs: number }
  /** The server answered, and refused. */
  | { readonly code: 'STATUS'; readonly status: number }
  /** The answer is not what this protocol allows. */
  | { readonly code: 'BAD_REPLY' };

/** A request that failed. Match on `detail.code`, never on `message`. */
export class HttpError extends Error {
  override readonly name = 'HttpError';
  readonly detail: HttpErrorDetail;

  constructor(detail: HttpErrorDetail, message: string, options?: ErrorOptions) {
    super(message, options);
    this.detail = detail;
  }
}

export interface HttpClientOptions {
  /** What listens there, as messages should call it: `the weft agent`. */
  readonly peerName: string;
  /** Sent with every request. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Longest silence of a connection, in milliseconds. Streams have no limit. */
  readonly timeoutMs?: number;
}

export interface HttpRequestOptions {
  /** Appended to the path; undefined values are left out. */
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  /** Sent as JSON. */
  readonly body?: unknown;
  /**
   * Sent in place of `body` as it comes, however long that takes and no faster than the server reads.
   * If it throws, the request breaks off, so that the server does not take it for complete, and the
   * call rejects with that error. An answer that comes before its end ends the call, too.
   */
  readonly bodyStream?: AsyncIterable<Uint8Array>;
  readonly headers?: Readonly<Record<string, string>>;
  /** Aborting rejects the call (or ends the stream) with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Long enough for a join that waits for a manager, short enough to notice one that hangs. */
const TIMEOUT_MS_DEFAULT = 60_000;
/** A list of 10 000 tasks is about 20 MB; more than this is not an answer to our questions. */
const REPLY_BYTES_MAX = 256 * 1024 * 1024;
/** A refusal is a sentence: what comes after this is not read. */
const REFUSAL_BYTES_MAX = 64 * 1024;

/** Errors of connect(2) in words. Others are shown by their code. */
const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such socket',
  ECONNREFUSED: 'the connection was refused',
  ECONNRESET: 'the connection was closed before the answer was complete',
  ERR_STREAM_PREMATURE_CLOSE: 'the connection was closed before the answer was complete',
  EPIPE: 'the connection was closed before the answer was complete',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  ENOTFOUND: 'the host name is unknown',
  EHOSTUNREACH: 'there is no route to the host',
  ENETUNREACH: 'there is no route to the network',
  ETIMEDOUT: 'the connection timed out',
};

/**
 * JSON over HTTP/1.1 to one server, on a unix socket or on TCP. Every request has its own
 * connection: a server that restarts between two requests is never met on a dead one.
 */
export class HttpClient {
  readonly #address: HttpAddress;
  readonly #options: HttpClientOptions;

  constructor(address: HttpAddress, options: HttpClientOptions) {
    this.#address = address;
    this.#options = options;
  }

  /**
   * Sends one request and reads the whole answer.
   *
   * @param path - Absolute, without query.
   * @returns the JSON of the answer; undefined if it has no body
   * @throws {HttpError} if the server is unreachable, refuses, or answers with something else
   */
  async json(method: string, path: string, options: HttpRequestOptions = {}): Promise<unknown> {
    const response = await this.#send(method, path, options, false);
    const text = await this.#readText(response, REPLY_BYTES_MAX, options.signal);
    if (text.trim() === '') return undefined;
    try {
      return JSON.parse(text);
    } catch (error) {
      throw this.#badReply(`expected JSON, received ${JSON.stringify(text.slice(0, 80))}`, error);
    }
  }

  /**
   * Sends one request and hands out the answer's body as it comes, however long that takes. Leaving
   * the loop closes the connection; the peer closing it early is an error.
   *
   * @throws {HttpError} as {@link json} does, from the call or from the loop
   */
  async stream(
    method: string,
    path: string,
    options: HttpRequestOptions = {},
  ): Promise<AsyncIterable<Uint8Array>> {
    const response = await this.#send(method, path, options, true);
    return this.#chunks(response, options.signal);
  }

  async *#chunks(
    response: IncomingMessage,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of response) yield chunk;
    } catch (error) {
      signal?.throwIfAborted();
      throw this.#unreachable(error);
    }
  }

  #send(
    method: string,
    path: string,
    options: HttpRequestOptions,
    streaming: boolean,
  ): Promise<IncomingMessage> {
    const body = options.body === undefined ? undefined : JSON.stringify(options.body);
    const timeoutMs = this.#options.timeoutMs ?? TIMEOUT_MS_DEFAULT;
    const requestOptions: RequestOptions = {
      ...(this.#address.kind === 'unix'
        ? { socketPath: this.#address.path, host: 'localhost' }
        : { host: this.#address.host, port: this.#address.port }),
      method,
      path: path + formatQuery(options.query ?? {}),
      headers: {
        ...this.#options.headers,
        ...options.headers,
        ...(body === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
      },
      agent: false,
      timeout: timeoutMs,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    };
    return new Promise((fulfil, reject) => {
      const request = httpRequest(requestOptions);
      request.once('error', (error) => {
        if (options.signal?.aborted === true) reject(options.signal.reason);
        else reject(this.#unreachable(error));
      });
      let response: IncomingMessage | undefined;
      request.once('timeout', () => {
        // Whoever waits is told why: for the headers by the request, for the body by the response.
        response?.destroy(this.#timedOut(timeoutMs));
        request.destroy(this.#timedOut(timeoutMs));
      });
      request.once('response', (head) => {
        response = head;
        if (streaming) request.setTimeout(0);
        if (isSuccess(response.statusCode)) fulfil(response);
        else this.#refusal(response, options.signal).then(reject, reject);
      });
      if (options.bodyStream === undefined) request.end(body);
      else void sendStream(request, options.bodyStream, reject);
    });
  }

  /** Reads what the server says about its refusal: Docker's `{"message"}`, or plain text. */
  async #refusal(response: IncomingMessage, signal: AbortSignal | undefined): Promise<HttpError> {
    const status = response.statusCode ?? 0;
    const text = await this.#readText(response, REFUSAL_BYTES_MAX, signal);
    const message =
      messageOf(text) ??
      (text.trim() || `${capitalise(this.#options.peerName)} answered with HTTP status ${status}`);
    return new HttpError({ code: 'STATUS', status }, message);
  }

  async #readText(
    response: IncomingMessage,
    bytesMax: number,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const chunks: Uint8Array[] = []; // BOUNDED by `bytesMax`
    let bytes = 0;
    for await (const chunk of this.#chunks(response, signal)) {
      bytes += chunk.byteLength;
      if (bytes > bytesMax) {
        throw this.#badReply(`it is longer than ${bytesMax} bytes`);
      }
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString('utf8');
  }

  #badReply(reason: string, cause?: unknown): HttpError {
    return new HttpError(
      { code: 'BAD_REPLY' },
      `Cannot read the answer of ${this.#peer()}: ${reason}`,
      { cause },
    );
  }

  #unreachable(error: unknown): HttpError {
    if (error instanceof HttpError) return error;
    const systemCode = (error as NodeJS.ErrnoException).code ?? 'UNKNOWN';
    return new HttpError(
      { code: 'UNREACHABLE', systemCode },
      `Cannot reach ${this.#peer()}: ${REASONS[systemCode] ?? systemCode}`,
      { cause: error },
    );
  }

  #timedOut(timeoutMs: number): HttpError {
    return new HttpError(
      { code: 'TIMED_OUT', timeoutMs },
      `Cannot get an answer from ${this.#peer()}: it was silent for ${timeoutMs / 1_000} s`,
    );
  }

  #peer(): string {
    return `${this.#options.peerName} at ${formatHttpAddress(this.#address)}`;
  }
}

/** The address as people write it: a path, or `host:port`. */
export function formatHttpAddress(address: HttpAddress): string {
  if (address.kind === 'unix') return address.path;
  return formatHostPort(address.host, address.port);
}

/**
 * Sends a body as it comes. Failures of the connection are the request's own events.
 *
 * @param onFailure - Told what `chunks` threw, before the request breaks off.
 */
async function sendStream(
  request: ClientRequest,
  chunks: AsyncIterable<Uint8Array>,
  onFailure: (error: unknown) => void,
): Promise<void> {
  async function* watched(): AsyncGenerator<Uint8Array> {
    try {
      yield* chunks;
    } catch (error) {
      onFailure(error);
      throw error;
    }
  }
  // Once it is connected: until then silence means that nobody is there.
  request.once('socket', (socket) => socket.once('connect', () => request.setTimeout(0)));
  request.flushHeaders(); // the server is to see the request before there is anything to say
  await pipeline(watched(), request).catch(() => {}); // whoever cares has been told
}

function isSuccess(status: number | undefined): boolean {
  return status !== undefined && status >= 200 && status < 300;
}

function formatQuery(query: Readonly<Record<string, string | number | undefined>>): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) parameters.set(name, String(value));
  }
  return parameters.size === 0 ? '' : `?${parameters}`;
}

function messageOf(text: string): string | undefined {
  try {
    const message: unknown = JSON.parse(text)?.message;
    return typeof message === 'string' && message !== '' ? message : undefined;
  } catch {
    return undefined; // not JSON: the caller shows the text itself
  }
}

function capitalise(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
