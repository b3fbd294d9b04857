import { Worker } from 'node:worker_threads';
import { workerUrl } from '../worker-url.ts';
import type { FdKeeper } from './fd-keeper.ts';
import { mallocTrim } from './ffi.ts';
import { adoptTap, closeTap } from './tap.ts';
import type { TapAnswer, TapRequest } from './tap-opener-worker.ts';

interface Waiting {
  readonly resolve: (fds: readonly number[]) => void;
  readonly reject: (error: Error) => void;
}

/** A thread that has had nothing to do for so long ends. Tasks often start a few at a time. */
const IDLE_MS = 3_000;

/** An open TAP. */
export interface OpenedTap {
  /** One per queue: as many as were wanted, or one. Valid on every thread of this process. */
  readonly fds: readonly number[];
  /** Whether the last agent had it open, and it stayed so: its interface is set up and in use. */
  readonly isKept: boolean;
}

/**
 * Opens TAPs in other network namespaces, on a thread that exists for nothing else: `setns` changes
 * the namespace of the whole thread, and neither the control nor the packet thread may ever be
 * elsewhere. The thread takes some 10 MB: it starts with a request, and ends when it is idle. A TAP that
 * the last agent's keeper still has open is taken from there: it never lost its carrier, and what its
 * task sent meanwhile waits in it.
 */
export class TapOpener {
  readonly #idleMs: number;
  #worker: Worker | undefined;
  #idle: NodeJS.Timeout | undefined;
  #nextId = 1;
  /** BOUNDED by the callers: one entry per attachment being made. */
  readonly #waiting = new Map<number, Waiting>();
  readonly #keeper: FdKeeper | undefined;
  /** What open TAPs are kept as, by their first descriptor. BOUNDED by the callers: one entry per port. */
  readonly #kept = new Map<number, string>();

  /**
   * @param keeper - Keeps what is opened, for the next agent.
   * @param idleMs - How long the thread outlives the last request, in milliseconds.
   */
  constructor(keeper?: FdKeeper, idleMs: number = IDLE_MS) {
    this.#keeper = keeper;
    this.#idleMs = idleMs;
  }

  /**
   * Opens (or makes) the persistent TAP `device` in the namespace at `netnsPath`.
   *
   * @param queues - How many are wanted: one per packet thread. A device has one for good, or any number.
   * @throws {Error} if the namespace or the device cannot be opened, saying which and why
   */
  async open(netnsPath: string, device: string, queues: number): Promise<OpenedTap> {
    const name = `tap ${device} in ${netnsPath}`;
    const { fds: kept, hasOneQueue } = this.#adopt(name, device, queues);
    const isKept = kept.length > 0;
    if (hasOneQueue || kept.length === queues) return this.#opened(name, kept, isKept);
    try {
      const fds = [...kept, ...(await this.#open(netnsPath, device, queues - kept.length))];
      this.#keeper?.keepGroup(name, fds, kept.length);
      return this.#opened(name, fds, isKept);
    } catch (error) {
      closeTap(kept);
      this.#keeper?.dropGroup(name, 0, kept.length);
      throw error;
    }
  }

  /** Closes a TAP for good: it is not kept for the next agent. The device itself stays. */
  discard(fds: readonly number[]): void {
    const [first = -1] = fds;
    const name = this.#kept.get(first);
    this.#kept.delete(first);
    closeTap(fds);
    if (name !== undefined) this.#keeper?.dropGroup(name, 0, fds.length);
  }

  #opened(name: string, fds: readonly number[], isKept: boolean): OpenedTap {
    const [first] = fds;
    if (first !== undefined) this.#kept.set(first, name);
    return { fds, isKept };
  }

  /** Takes up to `queues` queues of the device over from the last agent. */
  #adopt(
    name: string,
    device: string,
    queues: number,
  ): { readonly fds: readonly number[]; readonly hasOneQueue: boolean } {
    const fds = this.#keeper?.takeGroup(name, queues) ?? [];
    const kinds = fds.map((fd) => adoptTap(fd, device));
    if (!kinds.includes(undefined)) return { fds, hasOneQueue: kinds.includes('single-queue') };
    closeTap(fds); // of a device that is gone
    this.#keeper?.dropGroup(name, 0, fds.length);
    return { fds: [], hasOneQueue: false };
  }

  #open(netnsPath: string, device: string, queues: number): Promise<readonly number[]> {
    const worker = this.#start();
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      worker.postMessage({ id, netnsPath, device, queues } satisfies TapRequest);
    });
  }

  /** Ends the thread. Requests under way are refused. */
  async close(): Promise<void> {
    await this.#end();
    this.#fail(new Error('Cannot open a TAP: the opener was closed'));
  }

  async #end(): Promise<void> {
    clearTimeout(this.#idle);
    const worker = this.#worker;
    this.#worker = undefined; // the next request has a thread of its own
    await worker?.terminate();
    mallocTrim(0); // what the thread had allocated is free, and nobody else would ask for it
  }

  #start(): Worker {
    clearTimeout(this.#idle);
    if (this.#worker !== undefined) return this.#worker;
    const worker = new Worker(workerUrl(import.meta.url, './tap-opener-worker'));
    worker.unref();
    worker.on('message', (answer: TapAnswer) => {
      const waiting = this.#waiting.get(answer.id);
      this.#waiting.delete(answer.id);
      if (answer.fds !== undefined) waiting?.resolve(answer.fds);
      else waiting?.reject(Object.assign(new Error(answer.message), { code: answer.code }));
      if (this.#waiting.size > 0) return;
      this.#idle = setTimeout(() => void this.#end(), this.#idleMs).unref();
    });
    worker.on('error', (error: Error) => {
      if (this.#worker !== worker) return;
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
