// A data plane without agent, gossip and manager: run in a lab host with its tables in argv[2] as JSON.
// Prints "ready", then answers each line on stdin with its counters, and ends with stdin.
import { createInterface } from 'node:readline';
import { macOfIpv4, parseCidr, parseIpv4, parseMac } from '../../src/core/address.ts';
import { SILENT_LOG } from '../../src/core/capabilities.ts';
import type { DataPlaneCommand } from '../../src/dataplane/commands.ts';
import { DataPlane } from '../../src/dataplane/data-plane.ts';
import { configureInterface } from '../../src/io/linux/netns.ts';
import { openSharedPort } from '../../src/io/linux/shared-port.ts';
import { TapOpener } from '../../src/io/linux/tap-opener.ts';
import { SYSTEM_CLOCK, SYSTEM_RANDOM, systemSchedule } from '../../src/io/system.ts';
import { Encryption } from '../../src/node/encryption.ts';
import { PathMonitor } from '../../src/node/path-monitor.ts';
import { VXLAN_PORT } from '../../src/vxlan/header.ts';

/** Tables of a data plane under test. Addresses are text. */
export interface HostTables {
  readonly vtep: string;
  readonly vni: number;
  readonly subnet: string;
  readonly gateway: string;
  /** TAPs to make, each as `eth0` of a namespace. */
  readonly ports: readonly { readonly netns: string; readonly address: string }[];
  readonly peers: readonly string[];
  readonly endpoints: readonly {
    readonly address: string;
    readonly vtep: string;
    readonly mac?: string;
  }[];
  readonly flowFile: string;
  /** Of the TAPs; 1450 unless given. */
  readonly mtuBytes?: number;
  /** Makes the network an encrypted one: this host's private key, and the keys of its peers in their order. */
  readonly encryption?: { readonly privateKey: string; readonly publicKeys: readonly string[] };
  /** Of the underlay; 1500 unless given. */
  readonly linkMtuBytes?: number;
  /** Packet threads; 1 unless given. */
  readonly threads?: number;
}

const tables = JSON.parse(process.argv[2] ?? '') as HostTables;
const { linkMtuBytes = 1500, threads = 1 } = tables;
const dataPlane = await DataPlane.start(SYSTEM_RANDOM, {
  vtepAddress: parseIpv4(tables.vtep),
  sockets: openSharedPort(0, VXLAN_PORT, threads),
  linkMtuBytes,
  flowFile: tables.flowFile,
  onPath: (event) => paths.hear(event),
  onSecureEvent: (event) => encryption?.receive(event),
  onPortGone: (id) => console.error(`port ${id} is gone`),
  onFailure: (error) => {
    throw error;
  },
});
const paths = new PathMonitor(
  {
    clock: SYSTEM_CLOCK,
    random: SYSTEM_RANDOM,
    schedule: systemSchedule,
    apply: (commands) => void dataPlane.apply(commands),
  },
  { linkMtuBytes, ipv6: false },
);
const encryption = makeEncryption();
const subnet = parseCidr(tables.subnet);
const gateway = parseIpv4(tables.gateway);
const { vni } = tables;
await dataPlane.apply([
  { kind: 'setNetwork', vni, subnet, gateway, encrypted: tables.encryption !== undefined },
  ...tables.peers.map(
    (peer): DataPlaneCommand => ({ kind: 'setVtep', address: parseIpv4(peer), port: VXLAN_PORT }),
  ),
  ...tables.endpoints.map(({ address, vtep, mac }): DataPlaneCommand => {
    const number = parseIpv4(address);
    return {
      kind: 'setEndpoint',
      vni,
      address: number,
      mac: mac === undefined ? macOfIpv4(number) : parseMac(mac),
      vtep: parseIpv4(vtep),
    };
  }),
]);
paths.follow(tables.peers.map((peer) => ({ address: parseIpv4(peer), port: VXLAN_PORT })));
const opener = new TapOpener();
for (const [index, port] of tables.ports.entries()) {
  const { fds } = await opener.open(`/run/netns/${port.netns}`, 'eth0', threads);
  const address = parseIpv4(port.address);
  const mac = macOfIpv4(address);
  await configureInterface(port.netns, {
    name: 'eth0',
    address,
    prefix: subnet.prefix,
    mac,
    mtuBytes: tables.mtuBytes ?? 1450,
    gsoMaxBytes: 60_000,
    hasManyQueues: fds.length > 1,
    gateway,
  });
  await dataPlane.apply([{ kind: 'addPort', id: index, fds, vni, address, mac }]);
}
console.log('ready');
for await (const _line of createInterface({ input: process.stdin })) {
  const { rss } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  const { counters } = dataPlane;
  const framesByThread = counters.byThread('port-frames-in');
  const counted = { traffic: counters.traffic(), drops: counters.drops(), framesByThread };
  console.log(JSON.stringify({ ...counted, rss, cpuSeconds: (user + system) / 1e6 }));
}
paths.close();
encryption?.close();
await opener.close();
await dataPlane.close();

function makeEncryption(): Encryption | undefined {
  if (tables.encryption === undefined) return undefined;
  const { privateKey, publicKeys } = tables.encryption;
  const made = new Encryption(
    {
      clock: SYSTEM_CLOCK,
      random: SYSTEM_RANDOM,
      log: SILENT_LOG,
      schedule: systemSchedule,
      apply: (commands) => dataPlane.apply(commands),
    },
    { privateKey: Buffer.from(privateKey, 'base64'), clusterId: 'lab', generation: Date.now() },
  );
  made.setPeers(
    tables.peers.map((peer, index) => ({
      nodeId: peer,
      publicKey: Buffer.from(publicKeys[index] ?? '', 'base64'),
      vtep: parseIpv4(peer),
      port: VXLAN_PORT,
    })),
  );
  return made;
}
