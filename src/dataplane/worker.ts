import { type MessagePort, workerData } from 'node:worker_threads';
import type { DataPlaneWorkerData } from './commands.ts';
import { PacketLoop } from './packet-loop.ts';

const data = workerData as DataPlaneWorkerData & { readonly channel: MessagePort };

new PacketLoop(data, data.channel).run();
