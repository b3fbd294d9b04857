import fc from 'fast-check';
import { test } from 'tap';
import { LogDemultiplexer, parseLogLine } from '../../src/cli/log-frames.ts';
import { lines, startFakeAgent, weft } from './fake-agent.ts';

const ID = 'svcsvcsvcsvcsvcsvcsvcsvcs';
const TASK = 'tasktasktasktasktasktaskt';
const NODE = 'nodenodenodenodenodenoden';

function frame(stream: number, text: string): Uint8Array {
  const payload = new TextEncoder().encode(text);
  const bytes = new Uint8Array(8 + payload.length);
  bytes[0] = stream;
  new DataView(bytes.buffer).setUint32(4, payload.length);
  bytes.set(payload, 8);
  return bytes;
}

const CONTEXT = `com.docker.swarm.node.id=${NODE},com.docker.swarm.service.id=${ID},com.docker.swarm.task.id=${TASK}`;
const LOG = Buffer.concat([
  frame(1, `${CONTEXT} hello world\n`),
  frame(2, `${CONTEXT} oh no\n`),
  frame(1, `${CONTEXT.replace(TASK, 'reaped')} \n`),
  frame(1, 'no context at all'),
]);

const ROUTES = {
  'GET /services/web': { ID },
  'GET /nodes': [{ ID: NODE, Description: { Hostname: 'host1' } }],
  'GET /services': [{ ID, Spec: { Name: 'web' } }],
  [`GET /tasks/${TASK}`]: { ID: TASK, ServiceID: ID, Slot: 2, NodeID: NODE },
};

function logging(bytes: Uint8Array) {
  return (_: number, response: import('node:http').ServerResponse) => {
    // In two writes that cut the first frame's header.
    response.write(bytes.subarray(0, 5));
    response.end(bytes.subarray(5));
  };
}

test('`service logs` prefixes each line with its task and node', async (t) => {
  const agent = await startFakeAgent(t, {
    ...ROUTES,
    [`GET /services/${ID}/logs`]: logging(LOG),
  });
  const result = await weft(agent, ['service', 'logs', 'web']);
  t.same(result, {
    code: 0,
    stdout: lines(
      'web.2.tasktasktask@host1    | hello world',
      'reaped@host1    | ',
      'no context at all',
    ),
    stderr: 'web.2.tasktasktask@host1    | oh no\n',
    sleeps: 0,
  });
  const request = agent.requests.find((each) => each.request.endsWith('/logs'));
  t.same(request?.query, { tail: 'all', stdout: '1', stderr: '1', details: '1' });
  for (const [flags, prefix] of [
    [['--no-task-ids'], 'web.2@host1    | '],
    [['--no-trunc'], `web.2.${TASK}@host1    | `],
    [['--no-resolve'], `${ID}.2.tasktasktask@${NODE}    | `],
    [['--raw'], ''],
  ] as const) {
    const { stdout } = await weft(agent, ['service', 'logs', ...flags, 'web']);
    t.ok(stdout.startsWith(`${prefix}hello world\n`), flags.join(' '));
  }
});

test('`service logs` passes its flags on, and finds tasks', async (t) => {
  const stamped = Buffer.from(frame(1, `2026-01-01T00:00:00.123456789Z ${CONTEXT} hi\n`));
  const agent = await startFakeAgent(t, {
    ...ROUTES,
    [`GET /tasks/${TASK}/logs`]: logging(stamped),
  });
  const flags = ['-f', '-t', '--tail', '5', '--since', '10m'];
  const { stdout } = await weft(agent, ['service', 'logs', ...flags, TASK]);
  t.equal(stdout, '2026-01-01T00:00:00.123456789Z web.2.tasktasktask@host1    | hi\n');
  t.same(agent.requests.find((each) => each.request.endsWith('/logs'))?.query, {
    follow: '1',
    timestamps: '1',
    tail: '5',
    since: String(Date.UTC(2025, 11, 31, 23, 50) / 1_000),
    stdout: '1',
    stderr: '1',
    details: '1',
  });
  t.match(await weft(agent, ['service', 'logs', 'gone']), {
    code: 1,
    stderr: 'weft: Cannot show the logs of gone: there is no such service or task\n',
  });
});

test('a log that ends early or is none is an error', async (t) => {
  for (const [bytes, message] of [
    [LOG.subarray(0, 30), 'it ended in the middle of a frame'],
    [Buffer.from('<html>nonsense</html>'), 'expected a frame of stream 0 to 2'],
  ] as const) {
    const agent = await startFakeAgent(t, {
      ...ROUTES,
      [`GET /services/${ID}/logs`]: logging(bytes),
    });
    t.match(await weft(agent, ['service', 'logs', 'web']), { code: 1, stderr: message });
  }
});

test('frames come out the same however the stream is cut', (t) => {
  const frames = fc.array(fc.tuple(fc.constantFrom(1, 2), fc.string({ unit: 'grapheme' })));
  fc.assert(
    fc.property(frames, fc.array(fc.nat(40)), (written, sizes) => {
      const bytes = Buffer.concat(written.map(([stream, text]) => frame(stream, text)));
      const demultiplexer = new LogDemultiplexer();
      const read = [];
      let offset = 0;
      for (const size of [...sizes, bytes.length]) {
        read.push(...demultiplexer.push(bytes.subarray(offset, offset + size)));
        offset += size;
      }
      demultiplexer.end();
      t.same(
        read,
        written.map(([stream, text]) => ({ stream: stream === 1 ? 'stdout' : 'stderr', text })),
      );
    }),
    { numRuns: 50 },
  );
  t.end();
});

test('parseLogLine() takes the context off, escapes and odd spaces included', (t) => {
  const details = 'com.docker.swarm.task.id=t,com.docker.swarm.node.id=n,a%3Db=c+d%';
  t.same(parseLogLine(`${details}  two  spaces `, false), {
    timestamp: '',
    taskId: 't',
    nodeId: 'n',
    message: ' two  spaces ',
  });
  t.match(parseLogLine(`T ${details} m`, true), { timestamp: 'T', message: 'm' });
  for (const text of ['', 'word', 'two words', 'a=b c', ' ']) {
    t.equal(parseLogLine(text, false), undefined);
    t.equal(parseLogLine(text, true), undefined);
  }
  t.end();
});
