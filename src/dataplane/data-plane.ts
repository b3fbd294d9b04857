import type { Random } from '../core/capabilities.ts';
import { invariant } from '../core/invariant.ts';
import type { Ip } from '../core/ip.ts';
import { close } from '../io/linux/ffi.ts';
import { FRAGMENT_TABLE_BYTES } from '../routing-mesh/fragment-table.ts';
import { MergedCapture } from './capture-merge.ts';
import { type CaptureRecords, CaptureRingReader, makeCaptureRing } from './capture-ring.ts';
import type { CaptureFilter } from './capture-taps.ts';
import type {
  DataPlaneCommand,
  DataPlaneStatus,
  DataPlaneWorkerData,
  PathEvent,
  SecureEvent,
} from './commands.ts';
import { Counters, makeCounterMemory } from './counters.ts';
import { PacketThread } from './packet-thread.ts';
import { makePeerCounterMemory, PeerCounters } from './peer-counters.ts';

/** Flows that a node tracks at most; past it the quietest of a set goes. 128 bytes each. */
export const FLOW_CAPACITY = 262_144;

/** How a data plane is set up. */
export interface DataPlaneOptions {
  /** This node's VTEP address: source of all VXLAN, and what other nodes send to. */
  readonly vtepAddress: Ip;
  /**
   * Sockets on which VXLAN arrives, as `openSharedPort` opens them, in the family of the VTEP address: one
   * per packet thread. They are the data plane's from now on, which closes them.
   */
  readonly sockets: readonly number[];
  /**
   * Whether packets wait in the kernel until {@link DataPlane.serve}: what a restarted agent finds in
   * its queues would be lost to tables that are not complete yet. Default false.
   */
  readonly held?: boolean;
  /** MTU of the route to the other nodes, in bytes: what a path carries until more is known. */
  readonly linkMtuBytes: number;
  /** Where the flow table lives: on a tmpfs, so that flows survive the process but not the machine. */
  readonly flowFile: string;
  /** Told when the TAP of a port has vanished. */
  readonly onPortGone: (portId: number) => void;
  /** Told what a packet thread learns about paths to other nodes. */
  readonly onPath: (event: PathEvent) => void;
  /** Told what a packet thread says about encrypted channels. */
  readonly onSecureEvent: (event: SecureEvent) => void;
  /** Told when a packet thread has died: a bug, after which nothing works. */
  readonly onFailure: (error: Error) => void;
}

/** What all packet threads are started with. */
type SharedData = Omit<DataPlaneWorkerData, 'place' | 'socket' | 'wakeFd'>;

/** A capture that runs. */
export interface RunningCapture {
  /** Where its frames come. */
  readonly ring: CaptureRecords;
  /** Ends it; what is in the ring can still be read. */
  readonly stop: () => Promise<void>;
}

/** The control thread's handle of the packet threads, all of which have the same tables. */
export class DataPlane {
  /** Of all threads together. */
  readonly counters: Counters;
  readonly peerCounters: PeerCounters;
  readonly #options: DataPlaneOptions;
  readonly #threads: readonly PacketThread[];
  #nextCapture = 1;
  /** Changes of tables are made one after the other, so that all threads see them in one order. */
  #applied: Promise<void> = Promise.resolve();
  #started = false;
  #isServing: boolean;
  #closed = false;
  #hasFailed = false;

  private constructor(
    options: DataPlaneOptions,
    shared: SharedData,
    threads: readonly PacketThread[],
  ) {
    invariant(threads.length === options.sockets.length, 'each packet thread has a socket');
    this.#options = options;
    this.#threads = threads;
    this.#isServing = options.held !== true;
    this.counters = new Counters(shared.counters);
    this.peerCounters = new PeerCounters(shared.peerCounters);
  }

  /**
   * Starts the packet threads and waits until they serve their sockets.
   *
   * @param threads - As many as there are sockets, made before: they are this data plane's from now on.
   * @throws {Error} if the kernel refuses what they need, saying what
   */
  static async start(
    random: Random,
    options: DataPlaneOptions,
    threads: readonly PacketThread[] = options.sockets.map(() => new PacketThread()),
  ): Promise<DataPlane> {
    const { vtepAddress, linkMtuBytes, sockets, flowFile, held = false } = options;
    const shared: SharedData = {
      vtepAddress,
      held,
      linkMtuBytes,
      counters: makeCounterMemory(sockets.length),
      peerCounters: makePeerCounterMemory(sockets.length),
      hashKey: random.bytes(8),
      flowCapacity: FLOW_CAPACITY,
      flowFile,
      fragments: new SharedArrayBuffer(FRAGMENT_TABLE_BYTES),
    };
    const dataPlane = new DataPlane(options, shared, threads);
    try {
      await dataPlane.#begin(shared);
      return dataPlane;
    } catch (error) {
      await dataPlane.close();
      throw error;
    }
  }

  /** How many packet threads there are. */
  get threads(): number {
    return this.#threads.length;
  }

  /**
   * Changes tables. On each thread all commands take effect together; when this returns, on all of them. The
   * first thread comes last: it sends what one of them must send, and what other nodes answer to that may
   * reach any thread.
   *
   * @throws {Error} if a command names something that does not exist; those before it are in effect
   */
  apply(commands: readonly DataPlaneCommand[]): Promise<void> {
    if (commands.length === 0) return Promise.resolve();
    const applied = this.#applied.then(() => this.#applyToAll(commands));
    this.#applied = applied.catch(() => {});
    return applied;
  }

  /** Whether packets are taken: until then it does not matter how long a change takes. */
  get isServing(): boolean {
    return this.#isServing;
  }

  /** Starts to take packets, if that was held back. */
  async serve(): Promise<void> {
    this.#isServing = true;
    await Promise.all(this.#threads.map((thread) => thread.request({ kind: 'serve' })));
  }

  /** Gauges, read on the packet threads. */
  async status(): Promise<DataPlaneStatus> {
    const answers = await Promise.all(
      this.#threads.map((thread) => thread.request({ kind: 'status' })),
    );
    // All have the same tables, and share the flows.
    const first = answers.find((status) => status !== undefined);
    if (first === undefined) throw new Error('The packet threads gave no status');
    return first;
  }

  /**
   * Starts to capture frames.
   *
   * @throws {Error} if `CAPTURES_MAX` others run
   */
  async capture(filter: CaptureFilter): Promise<RunningCapture> {
    const id = this.#nextCapture++;
    const rings = this.#threads.map(() => makeCaptureRing());
    await this.apply([{ kind: 'setCapture', id, filter, rings }]);
    const stop = async (): Promise<void> => {
      // With the packet threads their captures have ended, too.
      if (!this.#hasFailed && !this.#closed) await this.apply([{ kind: 'clearCapture', id }]);
    };
    return { ring: new MergedCapture(rings.map((ring) => new CaptureRingReader(ring))), stop };
  }

  /** Ends the packet threads. TAPs stay as they are. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#applied;
    await Promise.all(this.#threads.map((thread) => thread.stop()));
    this.#closeSockets();
  }

  /** The first thread makes the tables that all share, so it goes ahead. */
  async #begin(shared: SharedData): Promise<void> {
    const { sockets, onPortGone, onPath, onSecureEvent } = this.#options;
    const onFailure = (error: Error): void => {
      const isFirst = !this.#hasFailed;
      this.#hasFailed = true;
      if (this.#started && isFirst) this.#options.onFailure(error);
    };
    const events = { onPortGone, onPath, onSecureEvent, onFailure };
    for (const [index, thread] of this.#threads.entries()) {
      const place = { index, count: sockets.length };
      thread.start(events, { ...shared, place, socket: sockets[index] ?? -1 });
      if (index === 0) await thread.request({ kind: 'status' });
    }
    await this.status();
    this.#started = true;
  }

  async #applyToAll(commands: readonly DataPlaneCommand[]): Promise<void> {
    const [first, ...others] = this.#threads.map(
      (thread) => () => thread.request({ kind: 'apply', commands }),
    );
    const answers = await Promise.allSettled(others.map((apply) => apply()));
    await first?.();
    for (const answer of answers) if (answer.status === 'rejected') throw answer.reason;
  }

  #closeSockets(): void {
    for (const socket of this.#options.sockets) close(socket);
  }
}
