// An agent's API made of canned answers, on a unix socket; and a command line run against it.
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import type { RunAgent } from '../../src/cli/agent-command.ts';
import { main } from '../../src/cli/main.ts';
import type { Terminal } from '../../src/cli/terminal.ts';

/** What a request was, as tests compare it. */
export interface Recorded {
  readonly request: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

/** An answer: a JSON value, or a function of the request's number that may do anything. */
type Handler = (times: number, response: ServerResponse) => unknown;
export type Routes = Readonly<Record<string, unknown>>;

/** A refusal in Docker's shape. */
export class Refusal {
  readonly status: number;
  readonly message: string;

  constructor(status: number, message: string) {
    this.status = status;
    this.message = message;
  }
}

export interface FakeAgent {
  readonly socket: string;
  readonly host: string;
  readonly requests: Recorded[];
}

interface Owner {
  readonly teardown: (undo: () => void | Promise<void>) => void;
}

/** Serves `routes` (`GET /nodes`) until the test ends; everything else is 404. */
export async function startFakeAgent(t: Owner, routes: Routes): Promise<FakeAgent> {
  const directory = mkdtempSync(join(tmpdir(), 'weft-cli-'));
  const socket = join(directory, 'agent.sock');
  const requests: Recorded[] = [];
  const times = new Map<string, number>();
  const server = createServer((request, response) => {
    void (async () => {
      const recorded = await record(request);
      requests.push(recorded);
      const count = (times.get(recorded.request) ?? 0) + 1;
      times.set(recorded.request, count);
      const route =
        recorded.request in routes
          ? routes[recorded.request]
          : new Refusal(404, `${recorded.request} not found`);
      const answer = typeof route === 'function' ? (route as Handler)(count, response) : route;
      if (response.headersSent || response.destroyed) return;
      if (answer instanceof Refusal) {
        response.writeHead(answer.status, { 'content-type': 'application/json' });
        response.end(JSON.stringify({ message: answer.message }));
      } else {
        response.end(answer === undefined ? undefined : JSON.stringify(answer));
      }
    })();
  });
  await new Promise<void>((fulfil) => server.listen(socket, fulfil));
  t.teardown(async () => {
    await new Promise((fulfil) => {
      server.close(fulfil);
      server.closeAllConnections();
    });
    rmSync(directory, { recursive: true });
  });
  return { socket, host: `unix://${socket}`, requests };
}

async function record(request: IncomingMessage): Promise<Recorded> {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += chunk;
  const url = new URL(request.url ?? '/', 'http://agent');
  const query = Object.fromEntries(url.searchParams);
  return {
    request: `${request.method} ${url.pathname}`,
    ...(Object.keys(query).length === 0 ? {} : { query }),
    ...(text === '' ? {} : { body: JSON.parse(text) }),
  };
}

/** 2026-01-01T00:00:00Z, the time that every run of {@link weft} shows. */
export const NOW_MS: number = Date.UTC(2026, 0, 1);

/** RFC 3339 of `seconds` before {@link NOW_MS}. */
export function secondsAgo(seconds: number): string {
  return new Date(NOW_MS - seconds * 1_000).toISOString();
}

export interface WeftOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly isInteractive?: boolean;
  /** Press Ctrl-C during this many-th pause. */
  readonly interruptAt?: number;
  /** Given what goes to standard output as bytes. */
  readonly onBytes?: (bytes: Uint8Array) => void;
  /** Given what a press of Ctrl-C calls. */
  readonly onInterrupt?: (interrupt: () => void) => void;
  readonly runAgent?: RunAgent;
}

export interface WeftResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** How often it paused. */
  readonly sleeps: number;
}

/** Runs one command line in this process; time stands still and pauses take none. */
export async function weft(
  agent: FakeAgent | undefined,
  argv: readonly string[],
  options: WeftOptions = {},
): Promise<WeftResult> {
  let stdout = '';
  let stderr = '';
  let sleeps = 0;
  let interrupt: (() => void) | undefined;
  const terminal: Terminal = {
    write: (text) => {
      stdout += text;
    },
    writeBytes: (bytes) => {
      options.onBytes?.(Uint8Array.from(bytes));
    },
    writeError: (text) => {
      stderr += text;
    },
    drained: () => Promise.resolve(),
    isInteractive: options.isInteractive === true,
    env: { ...(agent === undefined ? {} : { WEFT_HOST: agent.host }), ...options.env },
    hostname: 'this-host',
    epochMs: () => NOW_MS,
    sleep: async () => {
      sleeps += 1;
      if (sleeps === options.interruptAt) interrupt?.();
      await turn();
    },
    onInterrupt: (listener) => {
      interrupt = listener;
      options.onInterrupt?.(listener);
      return () => {
        interrupt = undefined;
      };
    },
  };
  const code = await main(argv, terminal, options.runAgent);
  return { code, stdout, stderr, sleeps };
}

/** Text of several lines, written with the margin that the source has. */
export function lines(...texts: readonly string[]): string {
  return texts.map((text) => `${text}\n`).join('');
}
