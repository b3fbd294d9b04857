// One process of the measurements in gossip-table.ts, started by `fork`: some nodes of gossip on loopback,
// as agents have them. Its argument says which; then it answers requests.

import { connect, createServer } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { SILENT_LOG } from '../src/core/capabilities.ts';
import type { GossipEvent } from '../src/gossip/effects.ts';
import type { Gossip } from '../src/gossip/gossip.ts';
import { GossipTransport } from '../src/io/gossip-transport.ts';
import { collectGarbage } from '../src/io/resting-heap.ts';
import { SYSTEM_CLOCK } from '../src/io/system.ts';
import type { Meter, NodeRequest, NodeSetup } from './gossip-table.ts';
import { changeOf, knowingNodes, newNode, ownerAddress, ownersOf } from './gossip-table-load.ts';

/** Chunks that a raw copy is written in. */
const CHUNK_BYTES = 65_536;
const BLOCK_RESOLUTION_MS = 1;

const setup = JSON.parse(process.argv[2] ?? '') as NodeSetup;
const delay = monitorEventLoopDelay({ resolution: BLOCK_RESOLUTION_MS });
let cpuBefore = process.cpuUsage();
let bytesSent = 0;
let heardCpuMicroseconds = 0;
let heardUpdates = 0;
let visible = 0;
/** Of the next update. */
let turn = 0;
let onVisible = (): void => {};

const nodes = makeNodes();
const transports = nodes.map(
  (gossip) => new GossipTransport({ gossip, clock: SYSTEM_CLOCK, log: SILENT_LOG }, { onEvent }),
);
for (const gossip of nodes) metered(gossip);
for (const transport of transports) await transport.start();
delay.enable();
process.on('message', (request: NodeRequest) => {
  void answer(request).then((result) => process.send?.({ result }));
});
process.on('disconnect', () => process.exit());
process.send?.({ result: 'ready' });

/** The nodes of this process. */
function makeNodes(): Gossip[] {
  const { role, name, address, port } = setup;
  const key = Buffer.from(setup.key, 'hex');
  if (role === 'fresh') return [newNode({ name, address, port }, key)];
  const owners = ownersOf(setup.perNode).map((owner, index) => {
    return { ...owner, address: ownerAddress(index), port };
  });
  const first = owners[0]?.name;
  return knowingNodes(owners, key, (owner) => (owner.name === first) === (role === 'serve'));
}

/** Counts what a node sends, and what CPU a packet takes that brings news of endpoints. */
function metered(gossip: Gossip): void {
  const { wire } = gossip;
  const { sealPacket, sealStream } = wire;
  const counted = (bytes: Uint8Array): Uint8Array => {
    bytesSent += bytes.length;
    return bytes;
  };
  wire.sealPacket = (...args) => counted(sealPacket.apply(wire, args));
  wire.sealStream = (...args) => counted(sealStream.apply(wire, args));
  const { packet } = gossip;
  gossip.packet = (...args) => {
    const before = cpuMicroseconds();
    const effects = packet.apply(gossip, args);
    if (effects.some((effect) => effect.kind === 'event' && effect.event.kind === 'endpoints')) {
      heardCpuMicroseconds += cpuMicroseconds() - before;
      heardUpdates += 1;
    }
    return effects;
  };
}

function onEvent(event: GossipEvent): void {
  if (event.kind !== 'endpoints') return;
  visible += event.added.length - event.removed.length;
  onVisible();
}

async function answer(request: NodeRequest): Promise<unknown> {
  switch (request.kind) {
    case 'join':
      return await join(request.address, request.entries);
    case 'leave':
      await transports[0]?.leave();
      return undefined;
    case 'meter':
      return meter();
    case 'update':
      return await update(request.count, request.everyMs);
    case 'summary':
      return nodes[0]?.table.summary();
    case 'memory':
      collectGarbage();
      collectGarbage();
      return process.memoryUsage.rss() / 1e6;
    case 'offer':
      return await offer(request.bytes);
    case 'copy':
      return await copy(request.port, request.bytes);
  }
}

/** @returns milliseconds until all endpoints of the others are visible */
async function join(address: string, entries: number): Promise<number> {
  const startMs = performance.now();
  transports[0]?.join([{ address, port: setup.port }]);
  await new Promise<void>((resolve) => {
    onVisible = () => visible >= entries && resolve();
  });
  return performance.now() - startMs;
}

/** What was measured since the last call. */
function meter(): Meter {
  const cpu = process.cpuUsage(cpuBefore);
  const measured = {
    bytesSent,
    blockMs: Math.max(0, delay.max / 1e6 - BLOCK_RESOLUTION_MS),
    cpuMs: (cpu.user + cpu.system) / 1_000,
    heardCpuMicroseconds,
    heardUpdates,
  };
  cpuBefore = process.cpuUsage();
  delay.reset();
  bytesSent = 0;
  heardCpuMicroseconds = 0;
  heardUpdates = 0;
  return measured;
}

/** Changes one endpoint after the other. @returns microseconds of CPU for each */
async function update(count: number, everyMs: number): Promise<number> {
  const [owner] = ownersOf(setup.perNode);
  if (owner === undefined) throw new RangeError('there are owners');
  let used = 0;
  for (let done = 0; done < count; done += 1, turn += 1) {
    const { key, value } = changeOf(owner, turn);
    const before = cpuMicroseconds();
    nodes[0]?.table.setLocal(key, value);
    transports[0]?.announce();
    used += cpuMicroseconds() - before;
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
  return used / count;
}

function cpuMicroseconds(): number {
  const { user, system } = process.threadCpuUsage();
  return user + system;
}

/** Gives `bytes` to whoever connects. @returns the port */
async function offer(bytes: number): Promise<number> {
  const chunk = new Uint8Array(CHUNK_BYTES);
  const server = createServer((socket) => {
    let left = bytes;
    const write = (): void => {
      while (left > 0) {
        const size = Math.min(left, CHUNK_BYTES);
        left -= size;
        if (!socket.write(chunk.subarray(0, size))) return void socket.once('drain', write);
      }
      socket.end();
    };
    write();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** @returns milliseconds until `bytes` have come from `port` */
async function copy(port: number, bytes: number): Promise<number> {
  const startMs = performance.now();
  const socket = connect({ host: '127.0.0.1', port });
  let length = 0;
  for await (const chunk of socket) length += (chunk as Uint8Array).length;
  if (length !== bytes) throw new Error(`Copied ${length} of ${bytes} bytes`);
  return performance.now() - startMs;
}
