import type { ChildProcess } from 'node:child_process';
import { formatMac, macOfIpv4, parseIpv4 } from '../src/core/address.ts';
import type { HostTables } from '../test/support/data-plane-host.ts';
import type { Lab, LabHost } from '../test/support/lab.ts';
import { Lines } from '../test/support/lines.ts';

const VNI = 4097;
const KERNEL_VNI = 4098;
/** A port that VXLAN of the agents does not use: both run on the same hosts. */
const KERNEL_PORT = 8472;

/** Two ends that can talk, and by which address the second one is reached. */
export interface Path {
  readonly from: string | LabHost;
  readonly to: string | LabHost;
  readonly address: string;
}

/** What an agent's process says of itself. */
export interface HostCounters {
  readonly traffic: Readonly<Record<string, number>>;
  readonly drops: Readonly<Record<string, number>>;
  readonly rss: number;
  readonly cpuSeconds: number;
}

/** The paths that the data-plane bench compares, all over the same two hosts. */
export interface Overlay {
  /** Task to task, through two agents. */
  readonly weft: Path;
  /** Task to task on one host, through one agent. */
  readonly weftLocal: Path;
  /** Host to host, without an overlay. */
  readonly veth: Path;
  /** Namespace to namespace, through two kernel VXLAN devices. */
  readonly kernelVxlan: Path;
  /** Asks both agents. */
  readonly counters: () => Promise<readonly HostCounters[]>;
}

/** Builds all paths in `lab`. */
export async function buildOverlay(lab: Lab): Promise<Overlay> {
  const hosts = [lab.addHost('a'), lab.addHost('b')] as const;
  const tasks = ['10.9.0.11', '10.9.0.12', '10.9.0.13'].map((address, index) => ({
    netns: `${lab.prefix}t${index}`,
    address,
    host: index === 2 ? 0 : index,
  }));
  for (const { netns } of tasks) {
    lab.ip([`netns add ${netns}`]);
    lab.ip(['link set lo up'], netns);
  }
  const agents: { readonly child: ChildProcess; readonly lines: Lines }[] = [];
  for (const [index, host] of hosts.entries()) {
    const peer = hosts[1 - index] ?? host;
    const tables: HostTables = {
      vtep: host.address,
      vni: VNI,
      subnet: '10.9.0.0/24',
      gateway: '10.9.0.1',
      ports: tasks.filter((task) => task.host === index),
      peers: [peer.address],
      endpoints: tasks
        .filter((task) => task.host !== index)
        .map(({ address }) => ({ address, vtep: peer.address })),
      flowFile: `${lab.folder}/flows-${index}`,
    };
    const script = new URL('../test/support/data-plane-host.ts', import.meta.url).pathname;
    const child = lab.spawn(host, [process.execPath, script, JSON.stringify(tables)]);
    const lines = new Lines(child);
    await lines.until(/^ready$/);
    agents.push({ child, lines });
  }
  const [first, second, third] = tasks.map(({ netns }) => netns);
  return {
    weft: { from: first ?? '', to: second ?? '', address: '10.9.0.12' },
    weftLocal: { from: first ?? '', to: third ?? '', address: '10.9.0.13' },
    veth: { from: hosts[0], to: hosts[1], address: hosts[1].address },
    kernelVxlan: buildKernelVxlan(lab, hosts),
    counters: async () => {
      const answers = [];
      for (const { child, lines } of agents) {
        child.stdin?.write('\n');
        answers.push(JSON.parse(await lines.next()) as HostCounters);
      }
      return answers;
    },
  };
}

/** Kernel VXLAN devices on the same hosts, each moved into a namespace of its own as a task's would be. */
function buildKernelVxlan(lab: Lab, hosts: readonly [LabHost, LabHost]): Path {
  const addresses = ['10.8.0.11', '10.8.0.12'];
  const macs = addresses.map((address) => formatMac(macOfIpv4(parseIpv4(address))));
  const ends = hosts.map((host, index) => {
    const netns = `${lab.prefix}k${index}`;
    const peer = hosts[1 - index] ?? host;
    lab.ip([`netns add ${netns}`]);
    lab.ip(
      [
        `link add vx0 type vxlan id ${KERNEL_VNI} local ${host.address} dstport ${KERNEL_PORT} nolearning`,
        `link set vx0 address ${macs[index]} mtu 1450`,
        `link set vx0 netns ${netns}`,
      ],
      host,
    );
    lab.ip(
      [
        'link set lo up',
        'link set vx0 up',
        `addr add ${addresses[index]}/24 dev vx0`,
        `neigh add ${addresses[1 - index]} lladdr ${macs[1 - index]} dev vx0 nud permanent`,
      ],
      netns,
    );
    return {
      netns,
      fdb: ['fdb', 'append', `${macs[1 - index]}`, 'dev', 'vx0', 'dst', peer.address],
    };
  });
  for (const { netns, fdb } of ends) lab.bridge(netns, fdb);
  return { from: ends[0]?.netns ?? '', to: ends[1]?.netns ?? '', address: addresses[1] ?? '' };
}
