import type {
  JoinRequest,
  JoinResponse,
  LogRecord,
  LogRefusal,
  SessionMessage,
  StatusReport,
  StatusResponse,
} from '../manager/session-protocol.ts';
import { HttpClient } from './http-client.ts';

/** How long a manager may take for an answer. */
const ANSWER_TIMEOUT_MS = 10_000;
/** A session line longer than this is not ours: 10,000 tasks with their specs stay below it. */
const LINE_CHARS_MAX = 64 * 1024 * 1024;

/** How a node proves who it is. */
export interface NodeCredentials {
  readonly nodeId: string;
  readonly nodeSecret: string;
}

/**
 * The agent's side of the session protocol, towards one manager. All methods throw
 * {@link file://./http-client.ts HttpError} when the manager refuses or cannot be reached.
 */
export class ManagerClient {
  readonly #http: HttpClient;

  /**
   * @param host - Name or address of the manager.
   * @param port - Its TCP port, 2377 by default.
   */
  constructor(host: string, port: number) {
    this.#http = new HttpClient(
      { kind: 'tcp', host, port },
      { peerName: 'the manager', timeoutMs: ANSWER_TIMEOUT_MS },
    );
  }

  /** Makes this machine a node of the manager's cluster. */
  async join(request: JoinRequest): Promise<JoinResponse> {
    return (await this.#http.json('POST', '/weft/v1/join', { body: request })) as JoinResponse;
  }

  /** Tells statuses; it is the node's heartbeat, too. */
  async report(credentials: NodeCredentials, report: StatusReport): Promise<StatusResponse> {
    return (await this.#http.json('POST', '/weft/v1/status', {
      body: report,
      headers: authorization(credentials),
    })) as StatusResponse;
  }

  /** Says that the node is gone for good. */
  async leave(credentials: NodeCredentials): Promise<void> {
    await this.#http.json('POST', '/weft/v1/leave', { headers: authorization(credentials) });
  }

  /**
   * Answers the manager's request for a log. Resolves when all of it has been read, or when the
   * manager wants no more.
   *
   * @param lines - Read at the manager's pace; an error that they throw breaks the answer off.
   * @param signal - Breaks the answer off, with its reason as the error.
   */
  async sendLog(
    credentials: NodeCredentials,
    requestId: string,
    lines: AsyncIterable<LogRecord | LogRefusal>,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#http.json('POST', `/weft/v1/logs/${requestId}`, {
      bodyStream: encodeLines(lines),
      headers: { ...authorization(credentials), 'content-type': 'application/x-ndjson' },
      signal,
    });
  }

  /** Answers the manager's request for a log that cannot be read. */
  async refuseLog(
    credentials: NodeCredentials,
    requestId: string,
    refusal: LogRefusal,
  ): Promise<void> {
    await this.#http.json('POST', `/weft/v1/logs/${requestId}/refusal`, {
      body: refusal,
      headers: authorization(credentials),
    });
  }

  /**
   * Opens the session and yields its messages until it ends.
   *
   * @param signal - Ends it, with its reason as the error.
   */
  async *session(
    credentials: NodeCredentials,
    signal: AbortSignal,
  ): AsyncGenerator<SessionMessage> {
    const chunks = await this.#http.stream('GET', '/weft/v1/session', {
      headers: authorization(credentials),
      signal,
    });
    const decoder = new TextDecoder();
    let pending = '';
    for await (const chunk of chunks) {
      pending += decoder.decode(chunk, { stream: true });
      if (pending.length > LINE_CHARS_MAX) throw new Error('The manager sent a line without end');
      const lines = pending.split('\n');
      pending = lines.pop() ?? '';
      for (const line of lines) if (line !== '') yield JSON.parse(line) as SessionMessage;
    }
  }
}

async function* encodeLines(lines: AsyncIterable<object>): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder();
  for await (const line of lines) yield encoder.encode(`${JSON.stringify(line)}\n`);
}

function authorization({ nodeId, nodeSecret }: NodeCredentials): Record<string, string> {
  return { authorization: `Bearer ${nodeId}.${nodeSecret}` };
}

/**
 * Splits `host:port`, with an IPv6 address in brackets if it has a port.
 *
 * @param defaultPort - Used when `text` has none.
 * @throws {RangeError} if the port is not one
 */
export function splitHostPort(text: string, defaultPort: number): { host: string; port: number } {
  const bracketed = /^\[([^\]]*)\](?::([^:]*))?$/.exec(text);
  const isBareIpv6 = text.indexOf(':') !== text.lastIndexOf(':');
  const plain = isBareIpv6 ? [text, text] : (/^(.*?)(?::([^:]*))?$/.exec(text) ?? []);
  const [, host = '', portText] = bracketed ?? plain;
  const port = portText === undefined ? defaultPort : Number(portText);
  if (host === '' || !Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new RangeError(
      `Cannot use ${JSON.stringify(text)} as an address: expected HOST:PORT or [IPV6]:PORT`,
    );
  }
  return { host, port };
}
