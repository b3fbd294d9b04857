import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { type Test, test } from 'tap';
import { waitUntilListening } from '../../src/node/readiness.ts';

const NEVER = new AbortController().signal;

async function listen(t: Test, host: string, port = 0): Promise<Server> {
  const server = createServer();
  server.listen(port, host);
  await once(server, 'listening');
  t.teardown(() => server.close());
  return server;
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

test('a task that listens on all its ports is ready, on IPv4 or IPv6', async (t) => {
  const four = await listen(t, '127.0.0.1');
  t.equal(await waitUntilListening(process.pid, [portOf(four)], NEVER), true);
  // A host without IPv6 has nothing else to show.
  const six = await listen(t, '::1').catch(() => four);
  t.equal(await waitUntilListening(process.pid, [portOf(six), portOf(four)], NEVER), true);
});

test('a task that publishes nothing is ready at once', async (t) => {
  t.equal(await waitUntilListening(process.pid, [], NEVER), true);
});

test('a task becomes ready when the last of its ports listens', async (t) => {
  const first = await listen(t, '127.0.0.1');
  const closed = await listen(t, '127.0.0.1');
  const port = portOf(closed);
  closed.close();
  await once(closed, 'close');
  let isReady = false;
  const ready = waitUntilListening(process.pid, [portOf(first), port], NEVER).then((value) => {
    isReady = true;
    return value;
  });
  // A wait that started later has had its look: so has the first one.
  t.equal(await waitUntilListening(process.pid, [portOf(first)], NEVER), true);
  t.equal(isReady, false, 'not with the first one only');
  await listen(t, '127.0.0.1', port);
  t.equal(await ready, true);
});

test('the wait ends with its signal', async (t) => {
  const closed = await listen(t, '127.0.0.1');
  const port = portOf(closed);
  closed.close();
  await once(closed, 'close');
  const controller = new AbortController();
  const ready = waitUntilListening(process.pid, [port], controller.signal);
  controller.abort();
  t.equal(await ready, false);
  t.equal(await waitUntilListening(process.pid, [port], AbortSignal.abort()), false);
});

test('a task that has ended is not ready', async (t) => {
  const child = spawn(process.execPath, ['--version'], { stdio: 'ignore' });
  const { pid } = child;
  await once(child, 'exit');
  t.equal(await waitUntilListening(pid ?? 0, [80], NEVER), false);
});
