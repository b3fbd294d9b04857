import { Worker } from 'node:worker_threads';
import { workerUrl } from '../io/worker-url.ts';

/**
 * A thread that loads the packet loop's code and then waits to be told what to serve. Made early, it
 * is ready when the rest of the agent is.
 */
export class PacketThread {
  #worker: Worker | undefined = new Worker(workerUrl(import.meta.url, './worker'));

  /** The thread, which is the caller's from now on. Call it once, and not after {@link close}. */
  take(): Worker {
    const worker = this.#worker;
    if (worker === undefined) throw new Error('Cannot take a packet thread twice');
    this.#worker = undefined;
    return worker;
  }

  /**
   * Ends a thread that nobody took: it is let go as soon as it is loaded, because to terminate a thread
   * that loads native code is fatal. Does nothing the second time.
   */
  async close(): Promise<void> {
    const worker = this.#worker;
    if (worker === undefined) return;
    this.#worker = undefined;
    const ended = new Promise((resolve) => worker.once('exit', resolve));
    worker.postMessage(null);
    await ended;
  }
}
