import { parentPort } from 'node:worker_threads';
import { SyscallError } from './ffi.ts';
import { openTapIn } from './tap.ts';

/** What the opener asks of its thread. */
export interface TapRequest {
  readonly id: number;
  readonly netnsPath: string;
  readonly device: string;
}

/** `fd`, or why there is none. */
export interface TapAnswer {
  readonly id: number;
  readonly fd?: number;
  readonly message?: string;
  readonly code?: string;
}

parentPort?.on('message', ({ id, netnsPath, device }: TapRequest) => {
  parentPort?.postMessage(answer(id, netnsPath, device));
});

function answer(id: number, netnsPath: string, device: string): TapAnswer {
  try {
    return { id, fd: openTapIn(netnsPath, device) };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { id, message, ...(error instanceof SyscallError ? { code: error.code } : {}) };
  }
}
