// The service of the system tests; every answer names the task that gave it and the client it saw.
//   test-server.ts HTTP_PORT UDP_PORT ECHO_PORT
// HTTP: GET /, POST /upload (answers with the body's SHA-256), GET /download?bytes=N (SHA-256 in a header).
// UDP: a datagram "who" is answered with JSON, every other one with itself. ECHO_PORT: TCP, line by line.
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { hostname } from 'node:os';
import { createInterface } from 'node:readline';

const [httpPort, udpPort, echoPort] = process.argv.slice(2).map(Number);
const task = process.env.WEFT_TASK_NAME ?? hostname();

function identity(remoteAddress: string | undefined): string {
  return JSON.stringify({ task, client: remoteAddress?.replace(/^::ffff:/, '') });
}

createHttpServer(async (request, response) => {
  const url = new URL(request.url ?? '/', 'http://task');
  if (url.pathname === '/upload') {
    const hash = createHash('sha256');
    for await (const chunk of request) hash.update(chunk);
    response.end(hash.digest('hex'));
  } else if (url.pathname === '/download') {
    const bytes = randomBytes(Number(url.searchParams.get('bytes')));
    response.setHeader('x-sha256', createHash('sha256').update(bytes).digest('hex'));
    response.end(bytes);
  } else {
    response.setHeader('content-type', 'application/json');
    response.end(identity(request.socket.remoteAddress));
  }
}).listen(httpPort, () => console.log(`serving on port ${httpPort}`));

const udp = createSocket('udp6'); // takes IPv4 as well
udp.on('message', (message, peer) => {
  const answer = message.toString('latin1') === 'who' ? identity(peer.address) : message;
  udp.send(answer, peer.port, peer.address);
});
udp.bind(udpPort);

createTcpServer((socket) => {
  socket.on('error', () => socket.destroy());
  const lines = createInterface({ input: socket });
  lines.on('line', (line) => socket.write(`${task} ${line}\n`));
}).listen(echoPort);
