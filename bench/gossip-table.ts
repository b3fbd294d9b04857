import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { AGENT_PEERS, AGENT_ROWS, agentRows } from './gossip-table-agent.ts';
import { OWNERS, ownerAddress, ownersOf, textBytes } from './gossip-table-load.ts';
import { type BenchOptions, type Row, row } from './rows.ts';

/** Endpoints of each owner: in the table that is measured, and in the one beside it. */
const PER_NODE = 1_000;
const PER_NODE_SMALL = 1;
const PREFIX = `table-${PER_NODE * OWNERS}`;
const SMALL = `table-${PER_NODE_SMALL * OWNERS}`;
const GOSSIP_PORT = 17_946;
/** Nodes that come new, one after the other, so that a median is one. */
const FRESH_MAX = 3;
/** How long nodes that have nothing to say are listened to. */
const REST_MS = 10_000;
/** Entries that change, one after the other. */
const UPDATES = 100;
const UPDATE_EVERY_MS = 200;
/** Until rumours of the last thing have died out. */
const SETTLE_MS = 5_000;
const EQUAL_MS_MAX = 60_000;

const ROWS = [
  'memory',
  'sync',
  'sync-cpu',
  'sync-longest-block',
  'update-cpu-owner',
  'update-cpu-receiver',
  'traffic',
  'update-traffic',
] as const;
const PEERS = ['json-text', 'tcp-copy', 'serving-node', 'fresh-node', SMALL];

/** What a process of nodes is to be: see gossip-table-node.ts. */
export interface NodeSetup {
  /** The first owner; all others; a node that knows nothing. */
  readonly role: 'serve' | 'others' | 'fresh';
  /** Of a fresh node. */
  readonly name: string;
  readonly address: string;
  readonly port: number;
  /** Hexadecimal. */
  readonly key: string;
  readonly perNode: number;
}

/** What is asked of a process of nodes. */
export type NodeRequest =
  | { readonly kind: 'join'; readonly address: string; readonly entries: number }
  | { readonly kind: 'update'; readonly count: number; readonly everyMs: number }
  | { readonly kind: 'offer'; readonly bytes: number }
  | { readonly kind: 'copy'; readonly port: number; readonly bytes: number }
  | { readonly kind: 'leave' | 'meter' | 'summary' | 'memory' };

/** What a process of nodes measured since it was last asked. */
export interface Meter {
  /** By packets and streams, of all nodes of the process. */
  readonly bytesSent: number;
  /** The longest that its event loop was late. */
  readonly blockMs: number;
  /** CPU time of the process, all of its threads. */
  readonly cpuMs: number;
  /** CPU time of packets that changed the table, and their number. */
  readonly heardCpuMicroseconds: number;
  readonly heardUpdates: number;
}

/** Names of all rows, in their order. */
export function gossipTableRows(): string[] {
  return [...ROWS.map((name) => `${PREFIX}-${name}`), ...AGENT_ROWS];
}

/** Names of all that the table is measured beside. */
export function gossipTablePeers(): string[] {
  return [...PEERS, ...AGENT_PEERS];
}

/**
 * A table of 100,000 endpoints, 1,000 of each of 100 nodes, in gossip as agents have it: encrypted and
 * compressed, on loopback. One process is the first owner, another one the 99 others, and nodes that know
 * nothing join by the first. Then the same with two agents in namespaces: see gossip-table-agent.ts.
 */
export async function* benchGossipTable({ only, peers, runs }: BenchOptions): AsyncGenerator<Row> {
  const isWanted = (name: string): boolean => only?.includes(name) ?? true;
  const rows: Row[] = [];
  if (ROWS.some((name) => isWanted(`${PREFIX}-${name}`))) rows.push(...(await tableRows(runs)));
  if (AGENT_ROWS.some(isWanted)) rows.push(...(await agentRows()));
  for (const one of rows) {
    if (isWanted(one.name) && (peers?.includes(one.peer) ?? true)) yield one;
  }
}

async function tableRows(runs: number): Promise<Row[]> {
  const large = await measure(PER_NODE, Math.min(runs, FRESH_MAX));
  const small = await measure(PER_NODE_SMALL, 1);
  const bytes = textBytes(ownersOf(PER_NODE));
  const pair = (name: (typeof ROWS)[number], unit: string, of: (figures: Figures) => number): Row =>
    row(`${PREFIX}-${name}`, unit, [of(large)], SMALL, [of(small)]);
  return [
    row(`${PREFIX}-memory`, 'MB', large.megabytes, 'json-text', [bytes / 1e6]),
    row(`${PREFIX}-sync`, 'ms', large.syncMs, 'tcp-copy', large.copyMs),
    row(`${PREFIX}-sync-cpu`, 'ms', large.cpuMs, 'serving-node', large.servingCpuMs),
    row(`${PREFIX}-sync-longest-block`, 'ms', large.servingBlockMs, 'fresh-node', large.blockMs),
    pair('update-cpu-owner', 'us', ({ ownerCpu }) => ownerCpu),
    pair('update-cpu-receiver', 'us', ({ receiverCpu }) => receiverCpu),
    pair('traffic', 'bytes/s', ({ restBytes }) => restBytes),
    pair('update-traffic', 'bytes', ({ updateBytes }) => updateBytes),
  ];
}

interface Figures {
  /** Of each node that came new, above what it took before. */
  readonly megabytes: readonly number[];
  readonly syncMs: readonly number[];
  readonly copyMs: readonly number[];
  readonly cpuMs: readonly number[];
  readonly servingCpuMs: readonly number[];
  readonly servingBlockMs: readonly number[];
  readonly blockMs: readonly number[];
  readonly ownerCpu: number;
  readonly receiverCpu: number;
  /** That a node sends in a second when nothing happens. */
  readonly restBytes: number;
  /** That a node sends because of one update, in the mean of all. */
  readonly updateBytes: number;
}

async function measure(perNode: number, runs: number): Promise<Figures> {
  const setup = {
    name: '',
    address: '',
    port: GOSSIP_PORT,
    perNode,
    key: randomBytes(32).toString('hex'),
  };
  const started: NodeProcess[] = [];
  const start = (change: Partial<NodeSetup> & Pick<NodeSetup, 'role'>): NodeProcess => {
    const process = new NodeProcess({ ...setup, ...change });
    started.push(process);
    return process;
  };
  try {
    const [serving, others] = [start({ role: 'serve' }), start({ role: 'others' })];
    await Promise.all([serving.ready, others.ready]);
    await delay(SETTLE_MS);
    const joins: Joined[] = [];
    let fresh: NodeProcess | undefined;
    for (let run = 0; run < runs; run += 1) {
      await fresh?.ask({ kind: 'leave' });
      fresh?.end();
      fresh = start({ role: 'fresh', name: `fresh-${run}`, address: `127.77.1.${run + 1}` });
      await fresh.ready;
      joins.push(await joined(fresh, serving, perNode));
    }
    if (fresh === undefined) throw new RangeError('Cannot measure without a run');
    return { ...gathered(joins), ...(await atWork(serving, fresh, others)) };
  } finally {
    for (const process of started) process.end();
  }
}

interface Joined {
  readonly megabytes: number;
  readonly syncMs: number;
  readonly copyMs: number;
  readonly cpuMs: number;
  readonly servingCpuMs: number;
  readonly servingBlockMs: number;
  readonly blockMs: number;
}

function gathered(joins: readonly Joined[]) {
  return {
    megabytes: joins.map(({ megabytes }) => megabytes),
    syncMs: joins.map(({ syncMs }) => syncMs),
    copyMs: joins.map(({ copyMs }) => copyMs),
    cpuMs: joins.map(({ cpuMs }) => cpuMs),
    servingCpuMs: joins.map(({ servingCpuMs }) => servingCpuMs),
    servingBlockMs: joins.map(({ servingBlockMs }) => servingBlockMs),
    blockMs: joins.map(({ blockMs }) => blockMs),
  };
}

/** A node that knows nothing gets all. */
async function joined(fresh: NodeProcess, serving: NodeProcess, perNode: number): Promise<Joined> {
  const empty = await fresh.ask<number>({ kind: 'memory' });
  const entries = OWNERS * (perNode + 1);
  await Promise.all([fresh, serving].map((process) => process.ask({ kind: 'meter' })));
  const syncMs = await fresh.ask<number>({ kind: 'join', address: ownerAddress(0), entries });
  const own = await fresh.ask<Meter>({ kind: 'meter' });
  const its = await serving.ask<Meter>({ kind: 'meter' });
  await areEqual(fresh, serving);
  const full = await fresh.ask<number>({ kind: 'memory' });
  const bytes = textBytes(ownersOf(perNode));
  const port = await serving.ask<number>({ kind: 'offer', bytes });
  const copyMs = await fresh.ask<number>({ kind: 'copy', port, bytes });
  return {
    ...{ megabytes: full - empty, syncMs, copyMs },
    ...{ cpuMs: own.cpuMs, servingCpuMs: its.cpuMs },
    ...{ blockMs: own.blockMs, servingBlockMs: its.blockMs },
  };
}

/** @throws {Error} if the tables of two nodes do not become equal */
async function areEqual(one: NodeProcess, other: NodeProcess): Promise<void> {
  const deadline = performance.now() + EQUAL_MS_MAX;
  const summaries = () =>
    Promise.all([one, other].map((process) => process.ask({ kind: 'summary' })));
  for (;;) {
    const [a, b] = await summaries();
    if (a === b) return;
    if (performance.now() > deadline)
      throw new Error('The tables of two nodes did not become equal');
    await delay(50);
  }
}

/** What all nodes send, at rest and for updates, and what updates cost. */
async function atWork(serving: NodeProcess, fresh: NodeProcess, others: NodeProcess) {
  const all = [serving, fresh, others];
  const nodes = OWNERS + 1;
  const meters = () => Promise.all(all.map((process) => process.ask<Meter>({ kind: 'meter' })));
  const sent = (measured: readonly Meter[]): number =>
    measured.reduce((sum, { bytesSent }) => sum + bytesSent, 0);
  const update = (count: number): Promise<number> =>
    serving.ask<number>({ kind: 'update', count, everyMs: UPDATE_EVERY_MS });
  await update(UPDATES); // until code is optimized
  await delay(SETTLE_MS);
  await meters();
  await delay(REST_MS);
  const restBytes = sent(await meters()) / nodes / (REST_MS / 1_000);
  const startMs = performance.now();
  const ownerCpu = await update(UPDATES);
  await delay(SETTLE_MS);
  const seconds = (performance.now() - startMs) / 1_000;
  const measured = await meters();
  const receiver = measured[1];
  if (receiver === undefined || receiver.heardUpdates === 0) throw new Error('No update was heard');
  return {
    ownerCpu,
    receiverCpu: receiver.heardCpuMicroseconds / receiver.heardUpdates,
    restBytes,
    updateBytes: (sent(measured) / nodes - restBytes * seconds) / UPDATES,
  };
}

/** A process of nodes, which answers one request at a time. */
class NodeProcess {
  readonly ready: Promise<unknown>;
  readonly #child: ChildProcess;
  #waiting: PromiseWithResolvers<unknown>;

  constructor(setup: NodeSetup) {
    const script = new URL('gossip-table-node.ts', import.meta.url).pathname;
    this.#waiting = Promise.withResolvers();
    this.ready = this.#waiting.promise;
    this.#child = fork(script, [JSON.stringify(setup)]);
    this.#child.on('message', (message: { readonly result: unknown }) => {
      this.#waiting.resolve(message.result);
    });
    this.#child.on('exit', () => {
      this.#waiting.reject(new Error(`The process of nodes "${setup.role}" ended`));
    });
  }

  async ask<Result>(request: NodeRequest): Promise<Result> {
    this.#waiting = Promise.withResolvers();
    this.#child.send(request);
    return (await this.#waiting.promise) as Result;
  }

  end(): void {
    this.#waiting.promise.catch(() => {});
    this.#child.kill('SIGKILL');
  }
}
