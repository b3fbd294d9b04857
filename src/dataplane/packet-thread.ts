import { MessageChannel, Worker } from 'node:worker_threads';
import { WakeUp } from '../io/linux/epoll.ts';
import { workerUrl } from '../io/worker-url.ts';
import type {
  DataPlaneEvent,
  DataPlaneRequest,
  DataPlaneStatus,
  DataPlaneWorkerData,
  PathEvent,
  SecureEvent,
} from './commands.ts';

interface Waiting {
  readonly resolve: (status: DataPlaneStatus | undefined) => void;
  readonly reject: (error: Error) => void;
}

/** A request without its number. */
export type DataPlaneRequestBody = DataPlaneRequest extends infer Each
  ? Each extends DataPlaneRequest
    ? Omit<Each, 'sequence'>
    : never
  : never;

/** What a {@link PacketThread} tells. */
export interface PacketThreadEvents {
  readonly onPortGone: (portId: number) => void;
  readonly onPath: (event: PathEvent) => void;
  readonly onSecureEvent: (event: SecureEvent) => void;
  /** The thread has died: a bug, after which it does nothing. */
  readonly onFailure: (error: Error) => void;
}

/**
 * The control thread's end of a packet thread, which loads its code and then waits to be told what to serve.
 * Made early, it is ready when the rest of the agent is.
 */
export class PacketThread {
  readonly #worker = new Worker(workerUrl(import.meta.url, './worker'));
  readonly #channel = new MessageChannel();
  readonly #wakeUp = new WakeUp();
  /** BOUNDED by the callers, who wait for each answer. */
  readonly #waiting = new Map<number, Waiting>();
  #events: PacketThreadEvents | undefined;
  #nextSequence = 1;
  #hasEnded = false;
  /** Why the thread is gone; nothing is asked of it any more. */
  #failure: Error | undefined;

  /** Tells the thread what to serve; it has taken that when it answers its first request. Call it once. */
  start(events: PacketThreadEvents, data: Omit<DataPlaneWorkerData, 'wakeFd'>): void {
    this.#events = events;
    const { port1, port2 } = this.#channel;
    port1.on('message', (event: DataPlaneEvent) => this.#receive(event, events));
    this.#worker.on('error', (error: Error) => this.#fail(error));
    this.#worker.on('exit', () => {
      this.#fail(new Error('The packet thread ended by itself'));
    });
    const start = { ...data, wakeFd: this.#wakeUp.fd, channel: port2 };
    this.#worker.postMessage(start, [port2]);
  }

  /**
   * Asks the thread for something, once it was started.
   *
   * @returns its status, if that was asked for
   * @throws {Error} if it refuses or has died
   */
  request(body: DataPlaneRequestBody): Promise<DataPlaneStatus | undefined> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const sequence = this.#nextSequence++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(sequence, { resolve, reject });
      this.#channel.port1.postMessage({ ...body, sequence } as DataPlaneRequest);
      this.#wakeUp.signal();
    });
  }

  /** Ends a thread that was not started; does nothing to one that was. */
  async close(): Promise<void> {
    if (this.#events === undefined) await this.stop();
  }

  /** Ends the thread, once it has done what was asked of it before. Does nothing the second time. */
  async stop(): Promise<void> {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    if (this.#failure === undefined) {
      const ended = new Promise((resolve) => this.#worker.once('exit', resolve));
      // It is let go as soon as it is loaded: to terminate a thread that loads native code is fatal.
      if (this.#events === undefined) this.#worker.postMessage(null);
      else void this.request({ kind: 'stop' });
      await ended;
    }
    this.#channel.port1.close();
    this.#wakeUp.close();
  }

  #receive(event: DataPlaneEvent, events: PacketThreadEvents): void {
    if (event.kind === 'portGone') {
      events.onPortGone(event.id);
      return;
    }
    if (event.kind === 'probeReply' || event.kind === 'pathTooBig') {
      events.onPath(event);
      return;
    }
    if (event.kind !== 'done' && event.kind !== 'refused') {
      events.onSecureEvent(event);
      return;
    }
    const waiting = this.#waiting.get(event.sequence);
    this.#waiting.delete(event.sequence);
    if (event.kind === 'done') waiting?.resolve(event.status);
    else waiting?.reject(new Error(event.message));
  }

  #fail(error: Error): void {
    if (this.#hasEnded || this.#failure !== undefined) return;
    this.#failure = error;
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
    this.#events?.onFailure(error);
  }
}
