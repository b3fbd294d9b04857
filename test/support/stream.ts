// Moves pseudo-random bytes over TCP and says what arrived; run by tests in two namespaces.
//   stream.ts serve PORT            accepts one connection; prints "listening", then "BYTES SHA256"
//   stream.ts send HOST PORT BYTES  sends, waits for the other end to close, prints "BYTES SHA256"
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

const [mode, ...args] = process.argv.slice(2);

if (mode === 'serve') {
  const server = createServer({ allowHalfOpen: true });
  server.listen(Number(args[0]), () => console.log('listening'));
  const [socket] = await once(server, 'connection');
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of socket) {
    hash.update(chunk);
    bytes += chunk.length;
  }
  console.log(`${bytes} ${hash.digest('hex')}`);
  socket.end();
  server.close();
} else {
  const [host = '', port = '', total = ''] = args;
  const socket = connect(Number(port), host);
  await once(socket, 'connect');
  const hash = createHash('sha256');
  let bytes = 0;
  while (bytes < Number(total)) {
    // A length that fits no segment: boundaries fall everywhere.
    const chunk = randomBytes(Math.min(65_521, Number(total) - bytes));
    hash.update(chunk);
    bytes += chunk.length;
    if (!socket.write(chunk)) await once(socket, 'drain');
  }
  socket.end();
  socket.resume();
  await once(socket, 'close');
  console.log(`${bytes} ${hash.digest('hex')}`);
}
