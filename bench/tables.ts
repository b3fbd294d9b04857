import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseIpv4 } from '../src/core/address.ts';
import { SILENT_LOG } from '../src/core/capabilities.ts';
import type { DataPlaneCommand } from '../src/dataplane/commands.ts';
import { DataPlane } from '../src/dataplane/data-plane.ts';
import { Peers } from '../src/dataplane/peers.ts';
import { Switch } from '../src/dataplane/switch.ts';
import { type TableCommand, Tables } from '../src/dataplane/tables.ts';
import { openSharedPort } from '../src/io/linux/shared-port.ts';
import { collectGarbage } from '../src/io/resting-heap.ts';
import { SYSTEM_RANDOM } from '../src/io/system.ts';
import { DesiredTables } from '../src/node/desired-tables.ts';
import { EndpointView, type PlacedVtep, type VisibleEntry } from '../src/node/endpoint-view.ts';
import { TableSync } from '../src/node/table-sync.ts';
import { flowTableBytes } from '../src/routing-mesh/flow-table.ts';
import { Mesh } from '../src/routing-mesh/mesh.ts';
import { makePacketMemory } from '../test/dataplane/frames.ts';
import { secureSessions } from '../test/dataplane/secure.ts';
import { placedEndpoints, vtepRecords } from '../test/node/slow/gossip-view.ts';
import {
  desiredTables,
  type DesiredTables as SlowTables,
  tableChanges,
} from '../test/node/slow/tables.ts';
import { type BenchOptions, type Row, row } from './rows.ts';
import { entriesOf, firstChanges, networks, oneChange, SIZE, services } from './table-load.ts';

/** Changes whose times the rows are of; of the rebuild, which takes longer by far, fewer. */
const CHANGES = 1_000;
const REBUILDS = 5;
/** Not a factor of the endpoints: changes go to all networks. */
const STRIDE = 7_919;

/** What is measured, and what it is measured beside. */
const ROWS = [
  'fill-seconds',
  'fill-batch-max',
  'change-cpu-p50',
  'change-cpu-p99',
  'change-applied-p50',
  'change-applied-p99',
  'control-heap',
  'packet-heap',
] as const;
const PEER = 'rebuild';

/** Names of all rows, in their order. */
export function tableRows(): string[] {
  return [...ROWS];
}

/** Names of all that the tables are measured beside. */
export function tablePeers(): string[] {
  return [PEER];
}

/**
 * Tables of 100,000 endpoints in 100 networks, 1,000 services and 200 nodes: how long a real packet thread
 * takes to have them all, and a change of one, what that costs the control thread, and the memory on both.
 * The peer makes all tables anew for each change. Nothing is sent.
 */
export async function* benchTables({ only }: BenchOptions): AsyncGenerator<Row> {
  const rows = [...(await measure())];
  for (const one of rows) if (only?.includes(one.name) ?? true) yield one;
}

async function measure(): Promise<Row[]> {
  const changes = firstChanges();
  const ours = await onDataPlane((plane) => ofChanges(plane, () => changes));
  const entries = entriesOf(changes);
  const peer = await onDataPlane((plane) => ofRebuilds(plane, entries));
  const packetHeap = packetThreadMegabytes();
  const pair = (name: (typeof ROWS)[number], unit: string, mine: number, its: number): Row =>
    row(name, unit, [mine], PEER, [its]);
  return [
    pair('fill-seconds', 's', ours.fillMs / 1_000, peer.fillMs / 1_000),
    pair('fill-batch-max', 'ms', ours.batchMaxMs, peer.batchMaxMs),
    pair('change-cpu-p50', 'ms', at(ours.cpuMs, 0.5), at(peer.cpuMs, 0.5)),
    pair('change-cpu-p99', 'ms', at(ours.cpuMs, 0.99), at(peer.cpuMs, 0.99)),
    pair('change-applied-p50', 'ms', at(ours.appliedMs, 0.5), at(peer.appliedMs, 0.5)),
    pair('change-applied-p99', 'ms', at(ours.appliedMs, 0.99), at(peer.appliedMs, 0.99)),
    pair('control-heap', 'MB', ours.heapMegabytes, peer.heapMegabytes),
    row('packet-heap', 'MB', [packetHeap], 'control-heap', [ours.heapMegabytes]),
  ];
}

interface Figures {
  readonly fillMs: number;
  /** How long the packet thread worked at most before it could serve packets again. */
  readonly batchMaxMs: number;
  /** Of the control thread, for each change. */
  readonly cpuMs: readonly number[];
  /** From each change until the packet thread has it. */
  readonly appliedMs: readonly number[];
  readonly heapMegabytes: number;
}

/** A packet thread, and the longest that it took for one request. */
interface Plane {
  readonly isServing: true;
  readonly apply: (commands: readonly DataPlaneCommand[]) => Promise<void>;
  readonly longestMs: () => number;
}

async function onDataPlane(measured: (plane: Plane) => Promise<Figures>): Promise<Figures> {
  const directory = mkdtempSync(join(tmpdir(), 'weft-bench-'));
  const vtepAddress = parseIpv4('127.0.0.1');
  const dataPlane = await DataPlane.start(SYSTEM_RANDOM, {
    vtepAddress,
    sockets: openSharedPort(vtepAddress, 0, 1),
    linkMtuBytes: 1_500,
    flowFile: join(directory, 'flows'),
    onPortGone: () => {},
    onPath: () => {},
    onSecureEvent: () => {},
    onFailure: (error) => {
      throw error;
    },
  });
  let longestMs = 0;
  const apply = async (commands: readonly DataPlaneCommand[]): Promise<void> => {
    const startMs = performance.now();
    await dataPlane.apply(commands);
    longestMs = Math.max(longestMs, performance.now() - startMs);
  };
  try {
    return await measured({ isServing: true, apply, longestMs: () => longestMs });
  } finally {
    await dataPlane.close();
    rmSync(directory, { recursive: true });
  }
}

/** What the agent does. */
async function ofChanges(
  plane: Plane,
  first: () => ReturnType<typeof firstChanges>,
): Promise<Figures> {
  const before = heapMegabytes();
  const view = new EndpointView('self');
  const desired = new DesiredTables(view, placed);
  const sync = new TableSync(plane, SILENT_LOG, () => desired.changes());
  const startMs = performance.now();
  desired.define({ networks: networks(), services: services() });
  for (const change of first()) view.change(change);
  await sync.sync();
  const fillMs = performance.now() - startMs;
  const batchMaxMs = plane.longestMs();
  const heap = heapMegabytes() - before;
  const figures = await timed(CHANGES, async (index, isBack) => {
    view.change(oneChange(index, isBack ? 'active' : 'draining'));
    await sync.sync();
  });
  return { fillMs, batchMaxMs, heapMegabytes: heap, ...figures };
}

/** All from all, for each change. */
async function ofRebuilds(plane: Plane, entries: readonly VisibleEntry[]): Promise<Figures> {
  const before = heapMegabytes();
  const visible = new Map(entries.map((entry) => [`${entry.node} ${entry.key}`, entry]));
  const held = heapMegabytes() - before; // as gossip has it anyway
  const definitions = { networks: networks(), services: services() };
  let applied: SlowTables = new Map();
  const rebuild = async (): Promise<void> => {
    const all = [...visible.values()];
    const endpoints = placedEndpoints(all, 'self', new Set());
    const wanted = desiredTables({
      ...definitions,
      endpoints,
      vteps: placed(vtepRecords(all, 'self')),
    });
    await plane.apply(tableChanges(applied, wanted));
    applied = wanted;
  };
  const startMs = performance.now();
  await rebuild();
  const fillMs = performance.now() - startMs;
  const batchMaxMs = plane.longestMs();
  const heap = heapMegabytes() - before - held;
  const figures = await timed(REBUILDS, async (index, isBack) => {
    const [entry] = entriesOf([oneChange(index, isBack ? 'active' : 'draining')]);
    if (entry !== undefined) visible.set(`${entry.node} ${entry.key}`, entry);
    await rebuild();
  });
  return { fillMs, batchMaxMs, heapMegabytes: heap, ...figures };
}

/** Changes one endpoint after the other, each to and fro, and takes the times. */
async function timed(
  count: number,
  change: (index: number, isBack: boolean) => Promise<void>,
): Promise<Pick<Figures, 'cpuMs' | 'appliedMs'>> {
  const cpuMs: number[] = [];
  const appliedMs: number[] = [];
  for (let turn = 0; turn < count; turn += 1) {
    const index = (Math.floor(turn / 2) * STRIDE) % SIZE.endpoints;
    const startMs = performance.now();
    const cpu = threadCpuMs();
    await change(index, turn % 2 === 1);
    cpuMs.push(threadCpuMs() - cpu);
    appliedMs.push(performance.now() - startMs);
  }
  return { cpuMs, appliedMs };
}

/** What the tables take of a packet thread's heap: here they are made on this one. */
function packetThreadMegabytes(): number {
  const flows = new Uint8Array(flowTableBytes(64));
  const mesh = new Mesh({ memory: flows, capacity: 64, hashKey: new Uint8Array(8) });
  const peers = new Peers();
  const decide = new Switch({
    view: new DataView(new ArrayBuffer(2_048)),
    mesh,
    peers,
    scratch: 34,
  });
  const { arena, counters, taps } = makePacketMemory();
  const tables = new Tables({
    ...{ decide, mesh, peers, secure: secureSessions(arena, counters, peers), taps },
    listener: { added: () => {}, removed: () => {} },
    probes: { send: () => {} },
    place: { index: 0, count: 1 },
  });
  const before = heapMegabytes();
  fill(tables);
  const after = heapMegabytes();
  if (tables.status().endpoints !== SIZE.endpoints) throw new Error('the tables were not filled');
  return after - before;
}

/** Everything but the tables is garbage when it returns. Commands come as copies, as from another thread. */
function fill(tables: Tables): void {
  const view = new EndpointView('self');
  const desired = new DesiredTables(view, placed);
  desired.define({ networks: networks(), services: services() });
  for (const change of firstChanges()) view.change(change);
  for (const command of desired.changes()) tables.apply(structuredClone(command) as TableCommand);
}

function placed(vteps: readonly PlacedVtep[]): (PlacedVtep & { slot: number })[] {
  return vteps.map((vtep, index) => ({ ...vtep, slot: index + 1 }));
}

function threadCpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
}

function heapMegabytes(): number {
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return (heapUsed + arrayBuffers) / 1e6;
}

/** The value that `share` of all do not exceed. */
function at(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}
