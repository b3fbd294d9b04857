// The client of the system tests: takes one command per line of JSON, answers each with a line of JSON.
// See `TestClient` in services.ts, which runs it in a namespace.
import { createHash, randomBytes } from 'node:crypto';
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect, isIPv6, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { check, socket as openSocket, setsockopt } from '../../src/io/linux/ffi.ts';

/** After it a request has failed: twice a SYN's first retransmission, and some. */
const TIMEOUT_MS = 5_000;
const CONCURRENCY = 10;
/** A connection that says nothing for so long is lost: many retransmissions have been made by then. */
const SILENCE_MS = 20_000;

// linux/socket.h, linux/net.h
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
// linux/in6.h: options that the kernel puts into a header of their own, in front of UDP's.
const IPPROTO_IPV6 = 41;
const IPV6_DSTOPTS = 59;
/** RFC 8200 sections 4.2 and 4.6: next header (the kernel's), no further 8 bytes, PadN of 4 bytes. */
const DESTINATION_OPTIONS = Uint8Array.of(0, 0, 1, 4, 0, 0, 0, 0);

interface Reply {
  readonly ok: boolean;
  readonly task?: string;
  readonly client?: string;
  readonly error?: string;
}

/** What a command may say; each uses some of it. */
interface Command {
  readonly do: string;
  readonly urls?: readonly string[];
  readonly count?: number;
  readonly url?: string;
  readonly bytes?: number;
  readonly host?: string;
  readonly port?: number;
  readonly sizes?: readonly number[];
  readonly destinationOptions?: boolean;
  readonly id?: string;
  readonly text?: string;
}

/** Connections that stay open between commands. */
const connections = new Map<
  string,
  { readonly socket: Socket; readonly lines: AsyncIterator<string> }
>();

function exchange(
  url: string,
  body?: Uint8Array,
): Promise<{ response: IncomingMessage; data: Buffer }> {
  return new Promise((resolve, reject) => {
    const method = body === undefined ? 'GET' : 'POST';
    const call = httpRequest(url, { method, agent: false, timeout: TIMEOUT_MS }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => resolve({ response, data: Buffer.concat(chunks) }));
    });
    call.on('timeout', () => call.destroy(new Error('timed out')));
    call.on('error', reject);
    call.end(body);
  });
}

async function get(url: string): Promise<Reply> {
  try {
    const { response, data } = await exchange(url);
    return { ok: response.statusCode === 200, ...JSON.parse(data.toString()) };
  } catch (error) {
    return { ok: false, error: String(error) };
  }
}

async function getMany(urls: readonly string[], count: number): Promise<Reply[]> {
  const replies: Reply[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      const url = urls[next % urls.length] ?? '';
      next += 1;
      replies.push(await get(url));
    }
  };
  await Promise.all(Array.from({ length: Math.min(CONCURRENCY, count) }, worker));
  return replies;
}

function sha256(data: Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}

async function upload(url: string, bytes: number): Promise<{ sent: string; received: string }> {
  const body = randomBytes(bytes);
  const { data } = await exchange(url, body);
  return { sent: sha256(body), received: data.toString() };
}

async function download(url: string): Promise<{ sent: string; received: string; bytes: number }> {
  const { response, data } = await exchange(url);
  return {
    sent: String(response.headers['x-sha256']),
    received: sha256(data),
    bytes: data.length,
  };
}

/** Asks every 50 ms on a new connection. @returns milliseconds until the first answer came */
async function firstAnswer(url: string): Promise<number> {
  const startedAt = performance.now();
  return await new Promise((resolve) => {
    const timer = setInterval(async () => {
      const { ok } = await get(url);
      if (!ok) return;
      clearInterval(timer);
      resolve(performance.now() - startedAt);
    }, 50);
  });
}

/** Sends one datagram and waits for the answer, which is tried again: UDP may lose it. */
async function ask(
  host: string,
  port: number,
  payload: Uint8Array,
  destinationOptions = false,
): Promise<Buffer | undefined> {
  const plain = () => createSocket(isIPv6(host) ? 'udp6' : 'udp4');
  const socket = destinationOptions ? await socketWithOptions() : plain();
  try {
    for (let attempt = 0; attempt < 3; attempt += 1) {
      const answered = once(socket, 'message', { signal: AbortSignal.timeout(1_000) });
      socket.send(payload, port, host);
      const answer = await answered.catch(() => undefined);
      if (answer !== undefined) return answer[0] as Buffer;
    }
    return undefined;
  } finally {
    socket.close();
  }
}

/** A socket with an extension header in all that it sends. Node has no such option, but takes a socket. */
async function socketWithOptions(): Promise<UdpSocket> {
  const fd = check(openSocket(AF_INET6, SOCK_DGRAM, 0), 'socket', 'AF_INET6');
  const { length } = DESTINATION_OPTIONS;
  const result = setsockopt(fd, IPPROTO_IPV6, IPV6_DSTOPTS, DESTINATION_OPTIONS, length);
  check(result, 'setsockopt', 'IPV6_DSTOPTS');
  const socket = createSocket('udp6');
  const isListening = once(socket, 'listening');
  socket.bind({ fd });
  await isListening;
  return socket;
}

/** Payload sizes that came back as they were sent. */
async function echoed(command: Command): Promise<number[]> {
  const { host = '', port = 0, sizes = [], destinationOptions } = command;
  const good: number[] = [];
  for (const size of sizes) {
    const payload = randomBytes(size);
    const answer = await ask(host, port, payload, destinationOptions);
    if (answer?.equals(payload)) good.push(size);
  }
  return good;
}

async function who(host: string, port: number): Promise<Reply> {
  const answer = await ask(host, port, Buffer.from('who'));
  return answer === undefined ? { ok: false } : { ok: true, ...JSON.parse(answer.toString()) };
}

async function open(id: string, host: string, port: number): Promise<boolean> {
  const socket = connect({ host, port, noDelay: true });
  await once(socket, 'connect', { signal: AbortSignal.timeout(TIMEOUT_MS) });
  socket.on('error', () => socket.destroy());
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  connections.set(id, { socket, lines });
  return true;
}

/** Says a line on an open connection; the reply is `TASK LINE`, null if the connection is lost. */
async function say(id: string, text: string): Promise<string | null> {
  const connection = connections.get(id);
  if (connection === undefined || connection.socket.destroyed) return null;
  connection.socket.write(`${text}\n`);
  const silence = new Promise<null>((resolve) => {
    setTimeout(() => resolve(null), SILENCE_MS).unref();
  });
  // A reset ends the lines, or throws what the socket says.
  const line = connection.lines.next().then(
    ({ value, done }) => (done === true ? null : value),
    () => null,
  );
  return await Promise.race([line, silence]);
}

/** Between two datagrams of a heartbeat: a TAP's queue of 500 frames holds those of five seconds. */
const BEAT_MS = 10;
/** After the last datagram was sent, its answer is late. */
const LAST_ANSWER_MS = 2_000;

/** Datagrams at a steady pace, and which of them were answered when. */
class Heartbeat {
  readonly #socket = createSocket('udp4');
  readonly #timer: NodeJS.Timeout;
  #lastMs = performance.now();
  #longestMs = 0;
  #sent = 0;
  #answers = 0;
  #onAnswer: () => void = () => {};

  constructor(host: string, port: number) {
    this.#socket.on('message', () => {
      this.#answers += 1;
      this.#note();
      this.#onAnswer();
    });
    // A host that refuses for a moment is no different from one that is silent.
    this.#socket.on('error', () => {});
    this.#timer = setInterval(() => {
      this.#sent += 1;
      this.#socket.send('beat', port, host);
    }, BEAT_MS);
  }

  /** Stops, and waits for the answers that are under way. */
  async end(): Promise<{ longestMs: number; sent: number; answers: number }> {
    clearInterval(this.#timer);
    this.#note();
    const late = AbortSignal.timeout(LAST_ANSWER_MS);
    await new Promise<void>((resolve) => {
      const check = (): void => {
        if (this.#answers >= this.#sent || late.aborted) resolve();
      };
      this.#onAnswer = check;
      late.addEventListener('abort', check);
      check();
    });
    this.#socket.close();
    return { longestMs: this.#longestMs, sent: this.#sent, answers: this.#answers };
  }

  #note(): void {
    const nowMs = performance.now();
    this.#longestMs = Math.max(this.#longestMs, nowMs - this.#lastMs);
    this.#lastMs = nowMs;
  }
}

const heartbeats = new Map<string, Heartbeat>();

async function endHeartbeat(id: string) {
  const ended = await heartbeats.get(id)?.end();
  heartbeats.delete(id);
  return ended;
}

async function perform(command: Command): Promise<unknown> {
  const { url = '', host = '', port = 0, id = '' } = command;
  switch (command.do) {
    case 'get':
      return await getMany(command.urls ?? [], command.count ?? 1);
    case 'firstAnswer':
      return await firstAnswer(url);
    case 'upload':
      return await upload(url, command.bytes ?? 0);
    case 'download':
      return await download(url);
    case 'echo':
      return await echoed(command);
    case 'who':
      return await Promise.all(Array.from({ length: command.count ?? 1 }, () => who(host, port)));
    case 'open':
      return await open(id, host, port);
    case 'say':
      return await say(id, command.text ?? '');
    case 'beat':
      heartbeats.set(id, new Heartbeat(host, port));
      return true;
    case 'endBeat':
      return await endHeartbeat(id);
    default:
      throw new Error(`Cannot perform ${JSON.stringify(command.do)}: no such command`);
  }
}

console.log('ready');
for await (const line of createInterface({ input: process.stdin })) {
  const answer = await perform(JSON.parse(line) as Command).then(
    (result) => ({ result }),
    (error: unknown) => ({ error: String(error) }),
  );
  console.log(JSON.stringify(answer));
}
for (const { socket } of connections.values()) socket.destroy();
