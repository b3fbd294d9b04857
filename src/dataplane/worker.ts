import { flushCompileCache } from 'node:module';
import { type MessagePort, workerData } from 'node:worker_threads';
import { collectGarbage } from '../io/resting-heap.ts';
import type { DataPlaneWorkerData } from './commands.ts';
import { PacketLoop } from './packet-loop.ts';

const data = workerData as DataPlaneWorkerData & { readonly channel: MessagePort };

// The loop never ends and makes no garbage: what remains of loading it would stay for good.
flushCompileCache();
collectGarbage();
new PacketLoop(data, data.channel).run();
