import fc from 'fast-check';
import { test } from 'tap';
import { readLines } from '../../src/manager/json-lines.ts';
import { LogRelay } from '../../src/manager/log-relay.ts';
import type { NodeRecord } from '../../src/manager/records.ts';
import { Session } from '../../src/manager/session.ts';
import type { LogSessionMessage } from '../../src/manager/session-protocol.ts';
import { FakeTime, seededRandom } from '../support/manager-lab.ts';

const NODE = { id: 'n1', state: 'ready', description: { hostname: 'alpha' } } as NodeRecord;

function startRelay(): { relay: LogRelay; time: FakeTime; told: LogSessionMessage[] } {
  const time = new FakeTime();
  const told: LogSessionMessage[] = [];
  const relay = new LogRelay({
    clock: time,
    random: seededRandom(1),
    schedule: time.schedule,
    tell: (_, message) => {
      told.push(message);
      return true;
    },
  });
  return { relay, time, told };
}

function body(...lines: readonly string[]): ReadableStream<Uint8Array> {
  return new Blob(lines.map((line) => `${line}\n`)).stream();
}

async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of source) items.push(item);
  return items;
}

test('logs that are read at one time are limited, and an abort makes room', async (t) => {
  const { relay, told } = startRelay();
  const aborts = Array.from({ length: 500 }, () => new AbortController());
  const opening = aborts.map(({ signal }) => relay.open(NODE, 't', { follow: false, signal }));
  const ended = Promise.allSettled(opening);
  const { signal } = new AbortController();
  const options = { follow: true, tail: 7, signal };
  await t.rejects(relay.open(NODE, 'x', options), {
    detail: { code: 'LOG_UNAVAILABLE' },
    message: 'node alpha is not asked: 500 logs are being read already',
  });
  t.equal(new Set(told.map(({ requestId }) => requestId)).size, 500, 'ids do not repeat');
  aborts[3]!.abort();
  const opened = relay.open(NODE, 'x', options);
  t.same(told[500], { kind: 'endLogs', requestId: told[3]!.requestId });
  t.match(told[501], { kind: 'logs', taskId: 'x', follow: true, tail: 7 });
  const { requestId } = told[501]!;
  const accepted = relay.accept(
    'n1',
    requestId,
    body('{"timestampMs":1,"stream":"stdout","line":"a","more":1}', ''),
  );
  const records = await all(await opened);
  await accepted;
  t.same(records, [{ timestampMs: 1, stream: 'stdout', line: 'a' }]);
  relay.sessionEnded('n1');
  t.match(
    (await ended).map(({ status }) => status),
    Array(500).fill('rejected'),
  );
  t.equal(told.length, 502, 'a node that ended its answer, or is gone, is told nothing');
  const gone = AbortSignal.abort();
  await t.rejects(relay.open(NODE, 'x', { follow: false, signal: gone }), { name: 'ManagerError' });
  t.equal(told.length, 502);
});

test('an answer that is no log ends with a reason, and the node is told', async (t) => {
  for (const [line, reason] of [
    ['no json', /^node alpha broke off its answer: .*JSON/],
    ['{"timestampMs":1,"stream":"stdout"}', /expected a log record, received \{"timestampMs"/],
    ['{"timestampMs":1e300,"stream":"stdout","line":""}', /expected a log record/],
    ['{"timestampMs":1,"stream":"other","line":""}', /expected a log record/],
    ['x'.repeat(200_000), /a line is too long: expected 131072 characters at most/],
  ] as const) {
    const { relay, told } = startRelay();
    const { signal } = new AbortController();
    const opened = relay.open(NODE, 't', { follow: false, signal });
    const { requestId } = told[0]!;
    const accepted = relay.accept('n1', requestId, body(line));
    await t.rejects(all(await opened), { message: reason });
    await accepted;
    t.same(told[1], { kind: 'endLogs', requestId });
    await t.rejects(relay.accept('n1', requestId, body()), { message: /log request .* not found/ });
  }
});

test('a session queues messages about logs up to a limit', async (t) => {
  let ends = 0;
  const session = new Session({
    node: { id: 'n1', ingressAddress: '' } as NodeRecord,
    clusterId: 'c',
    assignments: () => ({
      networks: new Map(),
      services: new Map(),
      tasks: new Map(),
      nodes: new Map(),
      managers: [],
      gossipSeeds: [],
      gossip: undefined,
      gossipKeys: undefined,
    }),
    onEnd: () => {
      ends += 1;
    },
  });
  let taken = 0;
  while (session.tell({ kind: 'endLogs', requestId: String(taken) })) taken += 1;
  t.equal(taken, 503, 'the first message and 500 past the mark of 4');
  session.end();
  t.notOk(session.tell({ kind: 'endLogs', requestId: 'late' }));
  session.end();
  t.equal(ends, 1);
  const lines = (await new Response(session.stream).text()).trimEnd().split('\n');
  t.equal(lines.length, 504, 'and what it took is sent');
});

test('lines are the same however their bytes are cut', async (t) => {
  const line = fc.string({ unit: 'grapheme', maxLength: 20 }).map((text) => text.replace('\n', ''));
  await fc.assert(
    fc.asyncProperty(fc.array(line), fc.array(fc.nat(7), { minLength: 1 }), async (lines, cuts) => {
      const bytes = new TextEncoder().encode(lines.join('\n'));
      const chunks: Uint8Array[] = [];
      for (let at = 0, cut = 0; at < bytes.length; cut += 1) {
        const length = 1 + cuts[cut % cuts.length]!;
        chunks.push(bytes.slice(at, at + length));
        at += length;
      }
      const reader = ReadableStream.from<Uint8Array>(chunks).getReader();
      const read = await all(readLines(reader, 100));
      return read.join('\n') === lines.filter((text) => text !== '').join('\n');
    }),
  );
  const endless = ReadableStream.from<Uint8Array>([new Uint8Array(101).fill(65)]).getReader();
  await t.rejects(all(readLines(endless, 100)), RangeError);
});
