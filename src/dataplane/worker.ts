import { flushCompileCache } from 'node:module';
import { type MessagePort, parentPort } from 'node:worker_threads';
import { collectGarbage } from '../io/resting-heap.ts';
import type { DataPlaneWorkerData } from './commands.ts';
import { PacketLoop } from './packet-loop.ts';

type Start = DataPlaneWorkerData & { readonly channel: MessagePort };

// What to serve, or null to end without having served.
parentPort?.once('message', (start: Start | null) => {
  parentPort?.close(); // the loop has its own channel, and never returns here before it ends
  if (start !== null) new PacketLoop(start, start.channel).run();
});

// The loop never ends and makes no garbage: what remains of loading it would stay for good.
flushCompileCache();
collectGarbage();
