// The demo's client: makes HTTP requests, each on a connection of its own, and prints one line of JSON about them.
//   client.ts --total N URL…        N requests, the URLs in turn
//   client.ts --until-stdin-ends URL…  one after the other, every 50 ms, until its standard input ends
import { get } from 'node:http';

/** What one request came to. */
interface Result {
  readonly atMs: number;
  readonly tookMs: number;
  readonly ok: boolean;
  readonly task?: string;
  readonly client?: string;
}

/** A request that is not answered by then has failed: twice a lost SYN's retransmission, and some. */
const TIMEOUT_MS = 5_000;
const PACE_MS = 50;
const CONCURRENCY = 10;

function request(url: string): Promise<Result> {
  const atMs = Date.now();
  return new Promise((resolve) => {
    const finish = (ok: boolean, body?: { task: string; client: string }): void =>
      resolve({ atMs, tookMs: Date.now() - atMs, ok, ...body });
    const call = get(url, { agent: false, timeout: TIMEOUT_MS }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => finish(response.statusCode === 200, JSON.parse(text)));
    });
    call.on('timeout', () => call.destroy(new Error('timed out')));
    call.on('error', () => finish(false));
  });
}

async function total(count: number, urls: readonly string[]): Promise<Result[]> {
  const results: Result[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      const url = urls[next % urls.length] ?? '';
      next += 1;
      results.push(await request(url));
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  return results;
}

async function untilStdinEnds(urls: readonly string[]): Promise<Result[]> {
  const results: Promise<Result>[] = [];
  let ended = false;
  process.stdin.on('end', () => {
    ended = true;
  });
  process.stdin.resume();
  for (let index = 0; !ended; index += 1) {
    results.push(request(urls[index % urls.length] ?? ''));
    await new Promise((resolve) => setTimeout(resolve, PACE_MS));
  }
  return await Promise.all(results);
}

const [mode, ...rest] = process.argv.slice(2);
const results =
  mode === '--total' ? await total(Number(rest[0]), rest.slice(1)) : await untilStdinEnds(rest);
console.log(JSON.stringify(results));
