import { Worker } from 'node:worker_threads';
import { workerUrl } from '../worker-url.ts';
import type { TapAnswer, TapRequest } from './tap-opener-worker.ts';

interface Waiting {
  readonly resolve: (fd: number) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Opens TAPs in other network namespaces, on a thread that exists for nothing else: `setns` changes
 * the namespace of the whole thread, and neither the control nor the packet thread may ever be
 * elsewhere. The thread starts with the first request.
 */
export class TapOpener {
  #worker: Worker | undefined;
  #nextId = 1;
  /** BOUNDED by the callers: one entry per attachment being made. */
  readonly #waiting = new Map<number, Waiting>();

  /**
   * Opens (or makes) the persistent TAP `device` in the namespace at `netnsPath`.
   *
   * @returns a descriptor that is valid on every thread of this process
   * @throws {Error} if the namespace or the device cannot be opened, saying which and why
   */
  open(netnsPath: string, device: string): Promise<number> {
    const worker = this.#start();
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      worker.postMessage({ id, netnsPath, device } satisfies TapRequest);
    });
  }

  /** Ends the thread. Requests under way are refused. */
  async close(): Promise<void> {
    await this.#worker?.terminate();
    this.#fail(new Error('Cannot open a TAP: the opener was closed'));
  }

  #start(): Worker {
    if (this.#worker !== undefined) return this.#worker;
    const worker = new Worker(workerUrl(import.meta.url, './tap-opener-worker'));
    worker.unref();
    worker.on('message', (answer: TapAnswer) => {
      const waiting = this.#waiting.get(answer.id);
      this.#waiting.delete(answer.id);
      if (answer.fd !== undefined) waiting?.resolve(answer.fd);
      else waiting?.reject(Object.assign(new Error(answer.message), { code: answer.code }));
    });
    worker.on('error', (error: Error) => {
      this.#worker = undefined;
      this.#fail(error);
    });
    this.#worker = worker;
    return worker;
  }

  #fail(error: Error): void {
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
  }
}
