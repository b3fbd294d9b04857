// The demo's service: answers each HTTP request with its task's name and the client's address as it sees it.
import { createServer } from 'node:http';
import { hostname } from 'node:os';

const port = Number(process.argv[2] ?? '80');
const task = process.env.WEFT_TASK_NAME ?? hostname();

const server = createServer((request, response) => {
  const client = request.socket.remoteAddress?.replace(/^::ffff:/, '');
  response.setHeader('content-type', 'application/json');
  response.end(`${JSON.stringify({ task, client })}\n`);
});
server.listen(port, () => console.log(`serving on port ${port}`));
process.once('SIGTERM', () => {
  server.close();
  server.closeIdleConnections();
});
