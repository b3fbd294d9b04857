import type { ServerResponse } from 'node:http';
import { test } from 'tap';
import { shortDuration } from '../../src/cli/durations.ts';
import { PcapngWriter } from '../../src/node/pcapng.ts';
import { readPcapng } from '../support/pcapng-reader.ts';
import {
  type FakeAgent,
  lines,
  Refusal,
  startFakeAgent,
  type WeftOptions,
  type WeftResult,
  weft,
} from './fake-agent.ts';

/** A capture of `frames` frames, of which two interfaces lost some. */
function captured(frames: number): Uint8Array {
  const writer = new PcapngWriter();
  writer.section('weft', 'Linux');
  for (const name of ['a', 'b']) writer.interface({ name, description: '', snaplen: 96 });
  for (let number = 0; number < frames; number++) {
    const bytes = new Uint8Array(60 + number);
    const direction = 1;
    writer.packet({ interfaceId: 0, timeUs: number, direction, bytes, originalBytes: 99, lost: 0 });
  }
  writer.statistics({ interfaceId: 0, timeUs: 9, received: frames + 3, dropped: 3 });
  writer.statistics({ interfaceId: 1, timeUs: 9, received: 4, dropped: 4 });
  return writer.take();
}

/** Runs `weft capture` and keeps what it writes. */
async function capture(
  agent: FakeAgent,
  argv: readonly string[],
  options: WeftOptions = {},
): Promise<WeftResult & { readonly bytes: Uint8Array }> {
  const written: Uint8Array[] = [];
  const onBytes = (bytes: Uint8Array) => void written.push(bytes);
  const result = await weft(agent, ['capture', ...argv], { ...options, onBytes });
  return { ...result, bytes: Buffer.concat(written) };
}

/** Answers with `bytes`, cut in pieces of `step`. */
function inPieces(bytes: Uint8Array, step: number) {
  return (_times: number, response: ServerResponse): void => {
    for (let at = 0; at < bytes.length; at += step) response.write(bytes.subarray(at, at + step));
    response.end();
  };
}

test('`capture` writes what the agent sends, and says how much that was', async (t) => {
  const bytes = captured(5);
  for (const step of [1, 7, 64, 10_000]) {
    const agent = await startFakeAgent(t, { 'GET /weft/capture': inPieces(bytes, step) });
    const result = await capture(agent, ['web']);
    t.equal(result.code, 0);
    t.same(result.bytes, Buffer.from(bytes));
    t.equal(result.stdout, '');
    t.equal(result.stderr, '5 frames captured, 7 dropped\n');
    const { id, ...query } = agent.requests[0]?.query ?? {};
    t.match(id, /^[\w-]{36}$/);
    t.same(query, { network: 'web' });
  }
});

test('`capture` passes on what is to be captured', async (t) => {
  const agent = await startFakeAgent(t, { 'GET /weft/capture': inPieces(captured(1), 99) });
  await capture(agent, ['web', '--task', 'web.1', '-s', '96', '-c', '5', '--duration', '1.5s']);
  await capture(agent, ['web', '--peer', '192.0.2.2']);
  t.same(
    agent.requests.map(({ query: { id: _, ...query } = {} }) => query),
    [
      { network: 'web', task: 'web.1', snaplen: '96', count: '5', durationMs: '1500' },
      { network: 'web', peer: '192.0.2.2' },
    ],
  );
});

test('`capture` that breaks off leaves whole blocks only, and fails', async (t) => {
  const bytes = captured(5);
  const agent = await startFakeAgent(t, {
    'GET /weft/capture': (_times: number, response: ServerResponse) =>
      new Promise((resolve) => {
        response.write(bytes.subarray(0, 500), () => resolve(response.destroy()));
      }),
  });
  const result = await capture(agent, ['web']);
  t.equal(result.code, 1);
  t.match(result.stderr, 'the connection was closed before the answer was complete');
  t.ok(result.bytes.length < 500);
  t.equal(readPcapng(result.bytes).packets.length, 3);
});

test('Ctrl-C ends a capture in good order', async (t) => {
  const bytes = captured(2);
  const routes: Record<string, unknown> = {};
  const agent = await startFakeAgent(t, routes);
  routes['GET /weft/capture'] = (_times: number, response: ServerResponse): void => {
    response.write(bytes.subarray(0, 40));
    const end = `POST /weft/capture/${agent.requests[0]?.query?.id}/end`;
    routes[end] = () => void response.end(bytes.subarray(40));
  };
  const result = await capture(agent, ['web'], {
    onInterrupt: (interrupt) => setImmediate(interrupt),
  });
  t.equal(result.code, 0);
  t.equal(agent.requests.length, 2);
  t.same(result.bytes, Buffer.from(bytes));
});

test('`capture` refuses what cannot be right', async (t) => {
  const agent = await startFakeAgent(t, {
    'GET /weft/capture': new Refusal(404, 'Cannot find "wbe" among the networks: expected web'),
  });
  for (const [argv, message] of [
    [['wbe'], 'Cannot find "wbe" among the networks: expected web'],
    [
      ['web', '--peer', 'a', '--task', 'b'],
      'Cannot use --peer together with --task: expected one of them',
    ],
    [['web', '--duration', '0'], 'Cannot use --duration 0: expected a longer time'],
    [
      ['web', '--snaplen', '13'],
      /--snaplen <bytes>' argument '13'.*expected a whole number from 14 to 262144/,
    ],
    [[], /Missing required argument 'network'/],
  ] as const) {
    const result = await capture(agent, argv);
    t.equal(result.code, 1);
    t.match(result.stderr, message);
    t.equal(result.bytes.length, 0);
  }
});

test('`capture` does not write to a terminal', async (t) => {
  const agent = await startFakeAgent(t, {});
  const result = await capture(agent, ['web'], { isInteractive: true });
  t.equal(result.code, 1);
  t.equal(
    result.stderr,
    'weft: Cannot write a capture to a terminal: send it to a program, as in "weft capture web | wireshark -k -i -", or to a file\n',
  );
  t.same(agent.requests, []);
});

const FLOWS = [
  {
    way: 'vip',
    protocol: 'tcp',
    client: '10.0.1.5:40000',
    vip: '10.0.1.2:80',
    service: 'web',
    backend: '10.0.1.6:8080',
    taskId: 'bbbbbbbbbbbbbbbbbbbbbbbbb',
    network: 'app',
    state: 'established',
    gone: true,
    ageMs: 65_000,
    idleMs: 500,
  },
  {
    way: 'return',
    protocol: 'udp',
    client: '198.51.100.2:7',
    backend: '10.0.1.5:53',
    via: '192.0.2.2:4789',
    taskId: 'aaaaaaaaaaaaaaaaaaaaaaaaa',
    task: 'web.1',
    network: 'app',
    state: 'datagram',
    gone: false,
    ageMs: 4_000,
    idleMs: 3_000,
  },
];

test('`flows` shows a line for each', async (t) => {
  const agent = await startFakeAgent(t, { 'GET /weft/flows': { flows: FLOWS } });
  const table = await weft(agent, [
    'flows',
    '--network',
    'app',
    '--task',
    'web.1',
    '--service',
    'web',
  ]);
  t.equal(
    table.stdout,
    lines(
      'PROTOCOL   CLIENT           VIP           BACKEND         STATE                AGE       IDLE      NETWORK   SERVICE   TASK           WAY',
      'tcp        10.0.1.5:40000   10.0.1.2:80   10.0.1.6:8080   established (gone)   1m05s     0s        app       web       bbbbbbbbbbbb   vip',
      'udp        198.51.100.2:7                 10.0.1.5:53     datagram             4s        3s        app                 web.1          return via 192.0.2.2:4789',
    ),
  );
  t.same(agent.requests[0]?.query, {
    network: 'app',
    task: 'web.1',
    service: 'web',
    limit: '1000',
    cursor: '0',
  });
  for (const flags of [['--json'], ['--format', 'json']]) {
    const json = await weft(agent, ['flows', ...flags]);
    t.same(
      json.stdout
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
      FLOWS,
    );
  }
});

test('`flows` reads page after page, up to its limit', async (t) => {
  const agent = await startFakeAgent(t, {
    'GET /weft/flows': (times: number) => ({
      flows: times % 4 === 2 ? [] : FLOWS,
      ...(times % 4 === 0 ? {} : { next: times * 100 }),
    }),
  });
  const all = await weft(agent, ['flows', '--json']);
  t.equal(all.stdout.split('\n').length, 7);
  t.equal(all.stderr, '');
  t.same(
    agent.requests.map(({ query }) => [query?.cursor, query?.limit]),
    [
      ['0', '1000'],
      ['100', '999'],
      ['200', '999'],
      ['300', '997'],
    ],
  );
  const some = await weft(agent, ['flows', '--json', '--limit', '3']);
  t.equal(some.stdout.split('\n').length, 4);
  t.equal(some.stderr, 'There are more than 3 flows: see --limit, or ask for fewer\n');
});

test('shortDuration() has one or two units', (t) => {
  for (const [seconds, text] of [
    [-5, '0s'],
    [0, '0s'],
    [59.9, '59s'],
    [60, '1m00s'],
    [3_599, '59m59s'],
    [3_600, '1h00m'],
    [86_399, '23h59m'],
    [86_400, '1d00h'],
    [5 * 86_400 + 3_600, '5d01h'],
  ] as const) {
    t.equal(shortDuration(seconds * 1_000), text);
  }
  t.end();
});
