import { parentPort } from 'node:worker_threads';
import { SyscallError } from './ffi.ts';
import { openTapIn } from './tap.ts';

/** What the opener asks of its thread. */
export interface TapRequest {
  readonly id: number;
  readonly netnsPath: string;
  readonly device: string;
  readonly queues: number;
}

/** `fds`, or why there is none. */
export interface TapAnswer {
  readonly id: number;
  readonly fds?: readonly number[];
  readonly message?: string;
  readonly code?: string;
}

parentPort?.on('message', (request: TapRequest) => {
  parentPort?.postMessage(answer(request));
});

function answer({ id, netnsPath, device, queues }: TapRequest): TapAnswer {
  try {
    return { id, fds: openTapIn(netnsPath, device, queues) };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { id, message, ...(error instanceof SyscallError ? { code: error.code } : {}) };
  }
}
