import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads';
import type { Random } from '../core/capabilities.ts';
import type { Ip } from '../core/ip.ts';
import { WakeUp } from '../io/linux/epoll.ts';
import { CaptureRingReader, makeCaptureRing } from './capture-ring.ts';
import type { CaptureFilter } from './capture-taps.ts';
import type {
  DataPlaneCommand,
  DataPlaneEvent,
  DataPlaneRequest,
  DataPlaneStatus,
  DataPlaneWorkerData,
  PathEvent,
  SecureEvent,
} from './commands.ts';
import { Counters } from './counters.ts';
import { PacketThread } from './packet-thread.ts';
import { PeerCounters } from './peer-counters.ts';

/** Flows that a node tracks at most; past it the quietest of a set goes. 64 bytes each. */
export const FLOW_CAPACITY = 262_144;

/** How a data plane is set up. */
export interface DataPlaneOptions {
  /** This node's VTEP address: source of all VXLAN, and what other nodes send to. */
  readonly vtepAddress: Ip;
  /** UDP socket on which VXLAN arrives, bound. It is the data plane's from now on, which closes it. */
  readonly socket: number;
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
  /** Told what the packet thread learns about paths to other nodes. */
  readonly onPath: (event: PathEvent) => void;
  /** Told what the packet thread says about encrypted channels. */
  readonly onSecureEvent: (event: SecureEvent) => void;
  /** Told when the packet thread has died: a bug, after which nothing works. */
  readonly onFailure: (error: Error) => void;
}

/** A capture that runs. */
export interface RunningCapture {
  /** Where its frames come. */
  readonly ring: CaptureRingReader;
  /** Ends it; what is in the ring can still be read. */
  readonly stop: () => Promise<void>;
}

interface Waiting {
  readonly resolve: (status: DataPlaneStatus | undefined) => void;
  readonly reject: (error: Error) => void;
}

/** A request without its number. */
type Body = DataPlaneRequest extends infer Each
  ? Each extends DataPlaneRequest
    ? Omit<Each, 'sequence'>
    : never
  : never;

/** The control thread's handle of the packet thread. */
export class DataPlane {
  readonly counters: Counters = new Counters();
  readonly peerCounters: PeerCounters = new PeerCounters();
  readonly #options: DataPlaneOptions;
  readonly #worker: Worker;
  readonly #channel: MessagePort;
  readonly #wakeUp = new WakeUp();
  /** BOUNDED by the callers, who wait for each answer. */
  readonly #waiting = new Map<number, Waiting>();
  #nextSequence = 1;
  #nextCapture = 1;
  #started = false;
  #stopping = false;
  /** Why the packet thread is gone; nothing is asked of it any more. */
  #failure: Error | undefined;

  private constructor(random: Random, options: DataPlaneOptions, thread: PacketThread) {
    this.#options = options;
    const { port1, port2 } = new MessageChannel();
    const data: DataPlaneWorkerData = {
      vtepAddress: options.vtepAddress,
      socket: options.socket,
      held: options.held ?? false,
      linkMtuBytes: options.linkMtuBytes,
      wakeFd: this.#wakeUp.fd,
      counters: this.counters.shared,
      peerCounters: this.peerCounters.shared,
      hashKey: random.bytes(8),
      flowCapacity: FLOW_CAPACITY,
      flowFile: options.flowFile,
    };
    this.#channel = port1;
    this.#worker = thread.take();
    this.#channel.on('message', (event: DataPlaneEvent) => this.#receive(event));
    this.#worker.on('error', (error: Error) => this.#fail(error));
    this.#worker.on('exit', () => {
      this.#fail(new Error('The packet thread ended by itself'));
    });
    this.#worker.postMessage({ ...data, channel: port2 }, [port2]);
  }

  /**
   * Starts a packet thread and waits until it serves its UDP socket.
   *
   * @param thread - One that has been made before, and is this data plane's from now on.
   * @throws {Error} if the kernel refuses what it needs, saying what
   */
  static async start(
    random: Random,
    options: DataPlaneOptions,
    thread: PacketThread = new PacketThread(),
  ): Promise<DataPlane> {
    const dataPlane = new DataPlane(random, options, thread);
    try {
      await dataPlane.#begin();
      return dataPlane;
    } catch (error) {
      await dataPlane.#abandon();
      throw error;
    }
  }

  /**
   * Changes tables. All commands take effect together.
   *
   * @throws {Error} if a command names something that does not exist; those before it are in effect
   */
  async apply(commands: readonly DataPlaneCommand[]): Promise<void> {
    if (commands.length > 0) await this.#request({ kind: 'apply', commands });
  }

  /** Starts to take packets, if that was held back. */
  async serve(): Promise<void> {
    await this.#request({ kind: 'serve' });
  }

  /** Gauges, read on the packet thread. */
  async status(): Promise<DataPlaneStatus> {
    const status = await this.#request({ kind: 'status' });
    if (status === undefined) throw new Error('The packet thread gave no status');
    return status;
  }

  /**
   * Starts to capture frames.
   *
   * @throws {Error} if `CAPTURES_MAX` others run
   */
  async capture(filter: CaptureFilter): Promise<RunningCapture> {
    const id = this.#nextCapture++;
    const memory = makeCaptureRing();
    await this.apply([{ kind: 'setCapture', id, filter, ring: memory }]);
    const stop = async (): Promise<void> => {
      // With the packet thread its captures have ended, too.
      if (this.#failure === undefined && !this.#stopping) {
        await this.apply([{ kind: 'clearCapture', id }]);
      }
    };
    return { ring: new CaptureRingReader(memory), stop };
  }

  /** Ends the packet thread. TAPs stay as they are. */
  async close(): Promise<void> {
    if (this.#failure !== undefined || this.#stopping) return;
    this.#stopping = true;
    const ended = new Promise((resolve) => this.#worker.once('exit', resolve));
    await this.#request({ kind: 'stop' });
    await ended;
    this.#channel.close();
    this.#wakeUp.close();
  }

  async #begin(): Promise<void> {
    await this.status();
    this.#started = true;
  }

  async #abandon(): Promise<void> {
    this.#stopping = true;
    await this.#worker.terminate();
    this.#channel.close();
    this.#wakeUp.close();
  }

  #request(body: Body): Promise<DataPlaneStatus | undefined> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const sequence = this.#nextSequence++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(sequence, { resolve, reject });
      this.#channel.postMessage({ ...body, sequence } as DataPlaneRequest);
      this.#wakeUp.signal();
    });
  }

  #receive(event: DataPlaneEvent): void {
    if (event.kind === 'portGone') {
      this.#options.onPortGone(event.id);
      return;
    }
    if (event.kind === 'probeReply' || event.kind === 'pathTooBig') {
      this.#options.onPath(event);
      return;
    }
    if (event.kind !== 'done' && event.kind !== 'refused') {
      this.#options.onSecureEvent(event);
      return;
    }
    const waiting = this.#waiting.get(event.sequence);
    this.#waiting.delete(event.sequence);
    if (event.kind === 'done') waiting?.resolve(event.status);
    else waiting?.reject(new Error(event.message));
  }

  #fail(error: Error): void {
    if (this.#stopping || this.#failure !== undefined) return;
    this.#failure = error;
    const isStarting = !this.#started;
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
    if (!isStarting) this.#options.onFailure(error);
  }
}
