import { chmod, mkdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createConnection, type Server } from 'node:net';
import { dirname } from 'node:path';
import { getRequestListener } from '@hono/node-server';
import { formatHostPort } from '../core/ip.ts';

/** Handles one request; what hono's `app.fetch` is. */
export type FetchHandler = (request: Request) => Response | Promise<Response>;

/** Where to serve. */
export type ListenAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

/** A listening HTTP server. */
export interface HttpServer {
  /** The port in use; 0 for a unix socket. */
  readonly port: number;
  /** Stops listening and ends all connections, streams included. */
  close(): Promise<void>;
}

/**
 * Serves a handler. A unix socket is made for root only (0600); one that a dead process left behind is
 * replaced, one that somebody serves is not.
 *
 * @throws {Error} if the address is in use, or may not be used
 */
export async function serveHttp(
  handler: FetchHandler,
  address: ListenAddress,
): Promise<HttpServer> {
  const server = createServer(getRequestListener(handler));
  server.requestTimeout = 0; // sessions and followed logs last as long as they like
  server.keepAliveTimeout = 5_000;
  if (address.kind === 'unix') await makeRoom(address.path);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      reject(new Error(`Cannot listen on ${describe(address)}: ${reasonOf(cause)}`, { cause }));
    });
    const done = () => resolve();
    if (address.kind === 'unix') server.listen(address.path, done);
    else server.listen(address.port, address.host, done);
  });
  if (address.kind === 'unix') await chmod(address.path, 0o600);
  return {
    port: portOf(server),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function makeRoom(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  const isServed = await new Promise<boolean>((resolve) => {
    const probe = createConnection(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
  if (isServed) {
    throw new Error(`Cannot listen on ${path}: another agent serves it, stop that one first`);
  }
  await rm(path, { force: true });
}

function portOf(server: Server): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

function describe(address: ListenAddress): string {
  return address.kind === 'unix' ? address.path : formatHostPort(address.host, address.port);
}

function reasonOf(error: NodeJS.ErrnoException): string {
  if (error.code === 'EADDRINUSE') return 'another process uses it';
  if (error.code === 'EADDRNOTAVAIL') return 'this host does not have that address';
  return error.code ?? error.message;
}
