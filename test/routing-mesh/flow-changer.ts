// A thread that makes and removes flows as fast as it can. All fields of a flow follow from one number, so
// that a torn one shows.
import { workerData } from 'node:worker_threads';
import { AddressWords } from '../../src/core/address-words.ts';
import { ACTION_RETURN, NO_SLOT } from '../../src/routing-mesh/flow-entry.ts';
import { FlowKey, packPorts } from '../../src/routing-mesh/flow-key.ts';
import { FlowTable, type FlowTableOptions } from '../../src/routing-mesh/flow-table.ts';
import { Rewrite } from '../../src/routing-mesh/nat.ts';
import { FLOW_DATAGRAM } from '../../src/routing-mesh/tcp-tracking.ts';

const { memory, capacity, sharing, stop } = workerData as {
  readonly memory: SharedArrayBuffer;
  readonly capacity: number;
  readonly sharing: NonNullable<FlowTableOptions['sharing']>;
  readonly stop: Int32Array;
};
const table = new FlowTable({
  memory: new Uint8Array(memory),
  capacity,
  hashKey: Uint8Array.of(8, 7, 6, 5, 4, 3, 2, 1),
  sharing,
});
const key = new FlowKey();
const rewrite = new Rewrite();
const address = new AddressWords();
for (let number = 1; Atomics.load(stop, 0) === 0; number = (number % 0xffff) + 1) {
  if (number % 2 === 0) address.setIpv4(number);
  else address.set(number, number, number, number);
  key.set(number, address, address, packPorts(number, number));
  rewrite.source.copy(address);
  rewrite.destination.copy(address);
  rewrite.sourcePort = number;
  rewrite.destinationPort = number;
  table.lock();
  const slot = table.insert(key, ACTION_RETURN, NO_SLOT);
  table.entries.setRewrite(slot, rewrite, number);
  table.entries.setVtep(slot, address, number);
  table.entries.setStatus(slot, FLOW_DATAGRAM);
  table.unlock();
}
