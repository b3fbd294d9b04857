// One of several threads that work on the same flow table: see shared-table.test.ts.
import { parentPort, workerData } from 'node:worker_threads';
import { hammer } from './shared-table.ts';

parentPort?.postMessage(hammer(workerData));
