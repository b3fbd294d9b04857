// Runs in a task's namespace: says when a service first answers there. For each line of standard input,
// `ROUND ADDRESS`, it sends datagrams to a port of the address on which nothing listens, says `ROUND probing`,
// and `ROUND MS`, in milliseconds since the epoch, when a task's kernel has refused the first of them. As long
// as a service has no backend, its datagrams are dropped without a word.
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

const PORT = 9;
const INTERVAL_MS = 4;

for await (const line of createInterface({ input: process.stdin })) {
  const [round = '', address = ''] = line.split(' ');
  const atMs = firstRefusalMs(address);
  console.log(`${round} probing`);
  console.log(`${round} ${await atMs}`);
}

/** Each round has a socket, and so a flow, of its own. */
async function firstRefusalMs(address: string): Promise<number> {
  const socket = createSocket('udp4');
  const refused = Promise.withResolvers<number>();
  const end = (error: Error & { readonly code?: string }): void => {
    if (error.code === 'ECONNREFUSED') refused.resolve(Date.now());
    else refused.reject(error);
  };
  socket.on('error', end);
  socket.connect(PORT, address);
  await once(socket, 'connect');
  const sending = setInterval(() => {
    socket.send('?', (error) => {
      if (error !== null) end(error);
    });
  }, INTERVAL_MS);
  const atMs = await refused.promise;
  clearInterval(sending);
  socket.close();
  return atMs;
}
