// Nodes of gossip that are no agents and announce 100,000 endpoints on one network. Joins once a line comes.
import { once } from 'node:events';
import { SILENT_LOG } from '../src/core/capabilities.ts';
import { GossipTransport } from '../src/io/gossip-transport.ts';
import { SYSTEM_CLOCK } from '../src/io/system.ts';
import { knowingNodes, onNetwork, ownersOf } from './gossip-table-load.ts';

/** Of the first; each other node has the next one. */
const GOSSIP_PORT = 17_946;

const [address = '', seed = '', key = '', networkId = '', first = '', perNode = ''] =
  process.argv.slice(2);
const owners = onNetwork(ownersOf(Number(perNode)), networkId, first).map((owner, index) => {
  return { ...owner, address, port: GOSSIP_PORT + index };
});
const nodes = knowingNodes(owners, Buffer.from(key, 'base64'), () => true);
const transports = nodes.map(
  (gossip) =>
    new GossipTransport({ gossip, clock: SYSTEM_CLOCK, log: SILENT_LOG }, { onEvent: () => {} }),
);
for (const transport of transports) await transport.start();
console.log('ready');
await once(process.stdin, 'data');
transports[0]?.join([{ address: seed, port: 7_946 }]);
