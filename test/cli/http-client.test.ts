import type { ServerResponse } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { test } from 'tap';
import { formatHttpAddress, HttpClient, HttpError } from '../../src/io/http-client.ts';
import { Refusal, startFakeAgent } from './fake-agent.ts';

function clientOf(agent: { readonly socket: string }, timeoutMs?: number): HttpClient {
  return new HttpClient(
    { kind: 'unix', path: agent.socket },
    {
      peerName: 'the peer',
      headers: { 'x-all': '1' },
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    },
  );
}

async function failure(promise: Promise<unknown>): Promise<HttpError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof HttpError)) throw new Error('expected an HttpError', { cause: error });
  return error;
}

test('HttpClient sends JSON and query, and reads JSON', async (t) => {
  const agent = await startFakeAgent(t, {
    'POST /echo': { text: 'ünïcode' },
    'GET /empty': undefined,
  });
  const client = clientOf(agent);
  const query = { a: 'x&y', b: 2, left: undefined };
  t.same(await client.json('POST', '/echo', { body: { ü: 1 }, query }), { text: 'ünïcode' });
  t.same(agent.requests[0], {
    request: 'POST /echo',
    query: { a: 'x&y', b: '2' },
    body: { ü: 1 },
  });
  t.equal(await client.json('GET', '/empty'), undefined);
});

test('HttpClient tells refusals, nonsense and silence apart', async (t) => {
  const agent = await startFakeAgent(t, {
    'GET /refused': new Refusal(409, 'no: it is in use'),
    'GET /plain': (_: number, response: ServerResponse) => {
      response.writeHead(500).end('it broke\n');
    },
    'GET /bare': (_: number, response: ServerResponse) => {
      response.writeHead(502).end();
    },
    'GET /html': (_: number, response: ServerResponse) => response.end('<html>'),
    'GET /cut': (_: number, response: ServerResponse) => {
      response.writeHead(200, { 'content-length': 100 }).write('{');
      response.destroy();
    },
    'GET /silent': (_: number, response: ServerResponse) => response.flushHeaders(),
  });
  const client = clientOf(agent);
  const refused = await failure(client.json('GET', '/refused'));
  t.same([refused.detail, refused.message], [{ code: 'STATUS', status: 409 }, 'no: it is in use']);
  t.equal((await failure(client.json('GET', '/plain'))).message, 'it broke');
  t.equal(
    (await failure(client.json('GET', '/bare'))).message,
    'The peer answered with HTTP status 502',
  );
  const html = await failure(client.json('GET', '/html'));
  t.equal(html.detail.code, 'BAD_REPLY');
  t.match(html.message, `at ${agent.socket}: expected JSON, received "<html>"`);
  t.equal((await failure(client.json('GET', '/cut'))).detail.code, 'UNREACHABLE');
  const silent = await failure(clientOf(agent, 20).json('GET', '/silent'));
  t.same(silent.detail, { code: 'TIMED_OUT', timeoutMs: 20 });
});

test('HttpClient says why a server cannot be reached', async (t) => {
  const agent = await startFakeAgent(t, {});
  const gone = await failure(clientOf({ socket: `${agent.socket}.gone` }).json('GET', '/'));
  t.same(gone.detail, { code: 'UNREACHABLE', systemCode: 'ENOENT' });
  t.equal(gone.message, `Cannot reach the peer at ${agent.socket}.gone: there is no such socket`);
  const closed = createTcpServer();
  await new Promise<void>((fulfil) => closed.listen(0, '127.0.0.1', fulfil));
  const { port } = closed.address() as { port: number };
  await new Promise((fulfil) => closed.close(fulfil));
  const tcp = new HttpClient({ kind: 'tcp', host: '127.0.0.1', port }, { peerName: 'the peer' });
  t.equal(
    (await failure(tcp.json('GET', '/'))).message,
    `Cannot reach the peer at 127.0.0.1:${port}: the connection was refused`,
  );
  t.equal(formatHttpAddress({ kind: 'tcp', host: '::1', port: 1 }), '[::1]:1');
});

test('HttpClient streams, and stops when told to', async (t) => {
  const agent = await startFakeAgent(t, {
    'GET /stream': (_: number, response: ServerResponse) => {
      response.write('one');
    },
    'GET /broken': (_: number, response: ServerResponse) => {
      response.write('one');
      response.destroy();
    },
  });
  const client = clientOf(agent);
  const abort = new AbortController();
  const reason = new Error('enough');
  const read = async () => {
    const chunks = await client.stream('GET', '/stream', { signal: abort.signal });
    for await (const chunk of chunks) {
      t.equal(new TextDecoder().decode(chunk), 'one');
      abort.abort(reason);
    }
  };
  await t.rejects(read(), reason);
  await t.rejects(client.json('GET', '/stream', { signal: abort.signal }), reason);
  const drain = async () => {
    for await (const chunk of await client.stream('GET', '/broken')) t.ok(chunk.length);
  };
  t.equal((await failure(drain())).detail.code, 'UNREACHABLE');
});
