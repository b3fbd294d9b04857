import { setImmediate as turn } from 'node:timers/promises';
import { type Test, test } from 'tap';
import {
  CaptureRingReader,
  CaptureRingWriter,
  makeCaptureRing,
} from '../../src/dataplane/capture-ring.ts';
import {
  CAPTURES_MAX,
  type CaptureFilter,
  CROSSING_PEER_OUT,
  CROSSING_PORT_IN,
} from '../../src/dataplane/capture-taps.ts';
import {
  type CaptureNames,
  type CaptureRequest,
  captureFilter,
  captureInterface,
} from '../../src/node/capture-target.ts';
import { Captures } from '../../src/node/captures.ts';
import { readPcapng } from '../support/pcapng-reader.ts';

const EPOCH_MS = 1_790_000_000_000;
const SNAPLEN = 262_144;
const NAMES: CaptureNames = {
  networks: [
    { id: 'net-i', name: 'ingress', vni: 4096, ingress: true },
    { id: 'net-web', name: 'web', vni: 4097, ingress: false },
    { id: 'net-db', name: 'db', vni: 4098, ingress: false },
  ],
  ports: [
    { id: 'aaa1', name: 'web.1', portId: 2, networkId: 'net-web', address: '10.0.1.5' },
    { id: 'aaa1', name: 'web.1', portId: 3, networkId: 'net-db', address: '10.0.2.5' },
    { id: 'aab2', name: 'web.2', portId: 4, networkId: 'net-web', address: '10.0.1.6' },
  ].map((port) => ({ ...port, aliases: [`${port.name}.${port.id}`] })),
  hostPortId: 1,
  peers: [
    { id: 'node-b', name: 'host2', address: '192.0.2.2', aliases: ['192.0.2.2'], slot: 1 },
    { id: 'node-c', name: 'host3', address: '192.0.2.3', aliases: ['192.0.2.3'], slot: 0 },
  ],
};

for (const [name, request, expected] of [
  ['a network by name', { network: 'web' }, { scopes: [4097] }],
  ['a network by id', { network: 'net-db' }, { scopes: [4098] }],
  ['a network by the start of its id', { network: 'net-d' }, { scopes: [4098] }],
  ['the ingress network, with the host', { network: 'ingress' }, { scopes: [4096, 0] }],
  ['a task', { network: 'web', task: 'web.1' }, { scopes: [4097], port: 2 }],
  ['a task on its other network', { network: 'db', task: 'web.1' }, { scopes: [4098], port: 3 }],
  ['a task by its full name', { network: 'web', task: 'web.2.aab2' }, { scopes: [4097], port: 4 }],
  ['a task by the start of its id', { network: 'web', task: 'aab' }, { scopes: [4097], port: 4 }],
  ['a peer by name', { network: 'web', peer: 'host2' }, { scopes: [4097], peer: 1 }],
  ['a peer by address', { network: 'web', peer: '192.0.2.2' }, { scopes: [4097], peer: 1 }],
  ['a peer by id', { network: 'web', peer: 'node-b' }, { scopes: [4097], peer: 1 }],
] as const) {
  test(`captureFilter() of ${name}`, (t) => {
    const filter = captureFilter({ snaplen: 96, ...request }, NAMES);
    t.strictSame(filter, { ...expected, snaplen: 96 });
    t.end();
  });
}

for (const [name, request, status, message] of [
  [
    'an unknown network',
    { network: 'wbe' },
    404,
    'Cannot find "wbe" among the networks: expected ingress, web or db',
  ],
  [
    'an ambiguous network',
    { network: 'net-' },
    400,
    'Cannot tell "net-" among the networks: it may be net-i (ingress), net-web (web) or net-db (db)',
  ],
  [
    'a task of another network',
    { network: 'db', task: 'web.2' },
    404,
    'Cannot find "web.2" among the tasks of this node on the network db: expected web.1',
  ],
  [
    'a task where there are none',
    { network: 'ingress', task: 'web.2' },
    404,
    'Cannot find "web.2" among the tasks of this node on the network ingress: there are none',
  ],
  [
    'an ambiguous task',
    { network: 'web', task: 'aa' },
    400,
    'Cannot tell "aa" among the tasks of this node on the network web: it may be aaa1 (web.1) or aab2 (web.2)',
  ],
  [
    'an unknown peer',
    { network: 'web', peer: '192.0.2.9' },
    404,
    'Cannot find "192.0.2.9" among the peers: expected host2 or host3',
  ],
  [
    'a peer that is not told apart',
    { network: 'web', peer: 'host3' },
    409,
    'Cannot capture the peer host3 alone: this node has too many peers to tell them apart',
  ],
  [
    'task and peer',
    { network: 'web', peer: 'host2', task: 'web.1' },
    400,
    'Cannot capture by task and by peer: expected one of them',
  ],
] as const) {
  test(`captureFilter() refuses ${name}`, (t) => {
    const throwing = () => captureFilter({ snaplen: 96, ...request }, NAMES);
    t.throws(throwing, { name: 'LocalApiError', status, message });
    t.end();
  });
}

test('captureInterface() names what it can', (t) => {
  for (const [crossing, point, name, description] of [
    [CROSSING_PORT_IN, 1, 'weft0', "the host's own interface, with published ports"],
    [CROSSING_PORT_IN, 3, 'web.1', 'task aaa1, 10.0.2.5 on db'],
    [CROSSING_PORT_IN, 9, 'port 9', 'a task that has ended'],
    [CROSSING_PEER_OUT, 1, 'peer host2', 'node node-b at 192.0.2.2'],
    [CROSSING_PEER_OUT, 9, 'peer 9', 'another node'],
    [CROSSING_PEER_OUT, 0, 'peer 0', 'another node'],
  ] as const) {
    t.same(captureInterface(crossing, point, NAMES), { name, description });
  }
  t.end();
});

/** A data plane made of rings, and time that tests move. */
class FakeDataPlane {
  readonly captures: Captures;
  readonly filters: CaptureFilter[] = [];
  readonly writers: CaptureRingWriter[] = [];
  stopped = 0;
  nowMs = 0;
  readonly #capacity: number | undefined;

  constructor(capacity?: number) {
    this.#capacity = capacity;
    this.captures = new Captures({
      clock: { nowMs: () => this.nowMs, epochMs: () => EPOCH_MS + this.nowMs },
      capture: async (filter) => {
        this.filters.push(filter);
        const ring = makeCaptureRing(this.#capacity);
        this.writers.push(new CaptureRingWriter(ring));
        let runs = true;
        const stop = async (): Promise<void> => {
          if (runs) this.stopped += 1;
          runs = false;
        };
        return { ring: new CaptureRingReader(ring), stop };
      },
      names: () => NAMES,
      application: 'weft test',
    });
  }

  /** Captures a frame of `bytes` bytes that says its number. */
  write(number: number, crossing: number = CROSSING_PORT_IN, bytes = 60): void {
    const writer = this.writers[0]!;
    const point = crossing === CROSSING_PORT_IN ? 2 : 1;
    if (!writer.begin(point, crossing, bytes, bytes + 1, EPOCH_MS * 1_000 + number)) return;
    writer.append(new DataView(new Uint8Array(bytes).fill(number).buffer), 0, bytes);
    writer.commit();
  }
}

/** All that a stream gives until its end. */
async function readAll(stream: ReadableStream<Uint8Array>) {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return readPcapng(Buffer.concat(chunks));
}

function start(plane: FakeDataPlane, more: Partial<CaptureRequest> = {}, id = 'one') {
  return plane.captures.start(id, { network: 'web', snaplen: SNAPLEN, ...more });
}

test('a capture ends by its count, with exactly that many frames', async (t) => {
  const plane = new FakeDataPlane();
  const stream = await start(plane, { count: 3 });
  t.same(plane.filters, [{ scopes: [4097], snaplen: SNAPLEN }]);
  for (let number = 1; number <= 5; number++) {
    plane.write(number, number === 2 ? CROSSING_PEER_OUT : CROSSING_PORT_IN);
  }
  const { application, packets } = await readAll(stream);
  t.equal(application, 'weft test');
  t.same(
    packets.map(({ interface: { name, received, dropped, snaplen }, ...packet }) => [
      ...[name, received, dropped, snaplen],
      ...[packet.direction, packet.bytes[0], packet.bytes.length, packet.originalBytes],
      packet.timeUs - EPOCH_MS * 1_000,
    ]),
    [
      ['web.1', 2, 0, SNAPLEN, 'in', 1, 60, 61, 1],
      ['peer host2', 1, 0, SNAPLEN, 'out', 2, 60, 61, 2],
      ['web.1', 2, 0, SNAPLEN, 'in', 3, 60, 61, 3],
    ],
  );
  t.equal(plane.stopped, 1);
  t.notOk(plane.captures.end('one'), 'it runs no more');
});

test('a capture ends by its duration, with what came until then', async (t) => {
  const plane = new FakeDataPlane();
  const reading = start(plane, { durationMs: 1_000 }).then(readAll);
  await turn();
  plane.write(1);
  plane.nowMs = 1_000;
  t.equal((await reading).packets.length, 1);
  t.equal(plane.stopped, 1);
});

test('a capture ends by command, and its stream has the rest', async (t) => {
  const plane = new FakeDataPlane();
  const stream = await start(plane);
  plane.write(1);
  plane.write(2);
  t.ok(plane.captures.end('one'));
  const { packets } = await readAll(stream);
  t.equal(packets.length, 2);
  t.same(
    packets.map(({ interface: { received } }) => received),
    [2, 2],
  );
});

test('a capture ends when nobody reads it any more', async (t) => {
  const plane = new FakeDataPlane();
  const reader = (await start(plane)).getReader();
  await reader.read();
  await reader.cancel();
  t.equal(plane.stopped, 1);
  t.notOk(plane.captures.end('one'));
  const unread = await start(plane, {}, 'two');
  await unread.cancel();
  t.equal(plane.stopped, 2, 'also if nobody has begun to read it');
});

test('frames that found no room are counted, the last ones too', async (t) => {
  const plane = new FakeDataPlane(1024);
  const stream = await start(plane);
  const reader = stream.getReader();
  const chunks = [(await reader.read()).value!];
  for (let number = 1; number <= 30; number++) plane.write(number);
  chunks.push((await reader.read()).value!);
  for (let number = 31; number <= 60; number++) plane.write(number);
  plane.captures.end('one');
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    chunks.push(value);
  }
  const { packets, interfaces } = readPcapng(Buffer.concat(chunks));
  const lost = packets.reduce((sum, packet) => sum + packet.lost, 0);
  t.ok(lost > 0 && packets.length < 60 - lost, 'some were lost before a frame, and some after all');
  t.same(
    interfaces.map(({ received, dropped }) => [received, dropped]),
    [[60, 60 - packets.length]],
  );
});

test('captures run side by side, up to a bound', async (t) => {
  const plane = new FakeDataPlane();
  for (let number = 0; number < CAPTURES_MAX; number++) await start(plane, {}, `id${number}`);
  await refusesStart(
    t,
    plane,
    'more',
    `Cannot start a capture: ${CAPTURES_MAX} run on this node already, end one of them first`,
  );
  await refusesStart(t, plane, 'id0', 'Cannot start a capture: one with the id id0 runs');
  plane.captures.close();
  t.ok(plane.captures.end('id0'), 'an ended one runs until its stream has been read');
});

async function refusesStart(
  t: Test,
  plane: FakeDataPlane,
  id: string,
  message: string,
): Promise<void> {
  await t.rejects(start(plane, {}, id), { name: 'LocalApiError', status: 409, message });
}

test('a capture that the data plane refuses leaves nothing behind', async (t) => {
  const captures = new Captures({
    clock: { nowMs: () => 0, epochMs: () => 0 },
    capture: () => Promise.reject(new Error('The packet thread is gone')),
    names: () => NAMES,
    application: 'weft test',
  });
  for (let turns = 0; turns <= CAPTURES_MAX; turns++) {
    const message = 'The packet thread is gone';
    await t.rejects(captures.start('one', { network: 'web', snaplen: 60 }), { message });
  }
});
