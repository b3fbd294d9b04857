import { enableCompileCache, flushCompileCache } from 'node:module';
import { type MessagePort, parentPort } from 'node:worker_threads';
import type { DataPlaneWorkerData } from './commands.ts';

// A thread has no share in the cache of the one that started it, and an agent that restarts must be
// quick: what follows is loaded from the cache, so it cannot be a static import.
enableCompileCache();
const { PacketLoop } = await import('./packet-loop.ts');
const { collectGarbage } = await import('../io/resting-heap.ts');

type Start = DataPlaneWorkerData & { readonly channel: MessagePort };

// What to serve, or null to end without having served.
parentPort?.once('message', (start: Start | null) => {
  parentPort?.close(); // the loop has its own channel, and never returns here before it ends
  if (start !== null) new PacketLoop(start, start.channel).run();
});

// The loop never ends and makes no garbage: what remains of loading it would stay for good.
flushCompileCache();
collectGarbage();
