import { test } from 'tap';
import {
  formatIpv4,
  formatMac,
  GATEWAY_MAC,
  type Mac,
  macOfIpv4,
  parseCidr,
  parseIpv4,
} from '../../src/core/address.ts';
import {
  PROTO_ICMP,
  PROTO_TCP,
  PROTO_UDP,
  readMac,
  TCP_RST,
  TCP_SYN,
} from '../../src/core/packet.ts';
import { DROP_REASONS } from '../../src/dataplane/counters.ts';
import { Port } from '../../src/dataplane/port.ts';
import { type Decision, Switch } from '../../src/dataplane/switch.ts';
import { flowTableBytes } from '../../src/routing-mesh/flow-table.ts';
import { Mesh } from '../../src/routing-mesh/mesh.ts';
import { HOST_SCOPE } from '../../src/routing-mesh/verdict.ts';
import { Endpoint, Network } from '../../src/vxlan/fdb.ts';
import type { PacketSpec } from '../routing-mesh/packets.ts';
import { wrongChecksums } from '../routing-mesh/packets.ts';
import { heapBytesPerCall } from '../support/allocation.ts';
import { seededRandom } from '../support/gossip-sim.ts';
import { arpRequest, hostileFrames, overlayFrame } from '../support/hostile.ts';

const SEED = Number(process.env.WEFT_SEED ?? 1);
const FUZZ_FRAMES = 100_000;
const NOW_MS = 1_790_000_000_000;
const VNI = 4_097;
const OTHER_VNI = 4_098;

// Addresses above 128.0.0.0 do not fit V8's small integers: those would show an allocation.
const TASK = '172.31.1.10';
const LOCAL = '172.31.1.11';
const REMOTE = '172.31.1.20';
const UNKNOWN = '172.31.1.99';
const GATEWAY = '172.31.1.1';
const VIP = '172.31.1.254';
const EMPTY_VIP = '172.31.1.253';
const REMOTE_VIP = '172.31.1.252';
const HOST = '172.31.255.2';
const INGRESS_VIP = '172.31.255.9';
const CLIENT = '192.0.2.7';
const VTEP = '198.51.100.2';
const VTEP_PORT = 4789;

const FRAME = 256;
const SCRATCH = 80_000;
const ARENA_BYTES = 90_000;
/** The switch may write the frame, what it makes at its scratch place, and nothing else. */
const GUARD_BYTES = 128;

interface Host {
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly decide: Switch;
  readonly task: Port;
  readonly local: Port;
  readonly host: Port;
  readonly network: Network<Port>;
}

function mac(address: string): Mac {
  return macOfIpv4(parseIpv4(address));
}

function makePort(id: number, scope: number, address: string): Port {
  return new Port({ id, fd: -1, scope, address: parseIpv4(address), mac: mac(address) });
}

function makeHost(): Host {
  const bytes = new Uint8Array(ARENA_BYTES);
  const view = new DataView(bytes.buffer);
  const capacity = 4_096;
  const memory = new Uint8Array(flowTableBytes(capacity));
  const mesh = new Mesh({ memory, capacity, hashKey: Uint8Array.of(1, 9, 2, 8, 3, 7, 4, 6) });
  const service = (scope: number, vip: string, addresses: readonly string[]): void => {
    const backends = addresses.map((address) => ({
      ...{ id: `task-${address}`, address: parseIpv4(address), scope: VNI },
      ...{ weight: 1, state: 'active' as const },
    }));
    mesh.setService({ scope, vip: parseIpv4(vip), gateway: parseIpv4(GATEWAY), backends });
  };
  service(VNI, VIP, [LOCAL]);
  service(VNI, EMPTY_VIP, []);
  service(VNI, REMOTE_VIP, [REMOTE]);
  service(HOST_SCOPE, INGRESS_VIP, [TASK]);
  const decide = new Switch({ view, mesh, scratch: SCRATCH });
  const network = new Network<Port>(VNI, parseCidr('172.31.1.0/24'), parseIpv4(GATEWAY));
  const [task, local] = [makePort(1, VNI, TASK), makePort(2, VNI, LOCAL)];
  for (const port of [task, local]) network.set(new Endpoint(port.address, port.mac, { port }));
  const remote = { vtep: parseIpv4(VTEP), vtepPort: VTEP_PORT };
  network.set(new Endpoint<Port>(parseIpv4(REMOTE), mac(REMOTE), remote));
  decide.networks.set(VNI, network);
  const host = makePort(3, HOST_SCOPE, HOST);
  decide.hostPort = host;
  decide.origin.vtep = parseIpv4(VTEP);
  decide.origin.vtepPort = VTEP_PORT;
  return { view, bytes, decide, task, local, host, network };
}

/** A decision as the tables below write it, with the MACs that the frame has now. */
function told(host: Host, decision: Decision): string {
  switch (decision.action) {
    case 'port':
      return `port ${decision.port?.id} ${macs(host)}`;
    case 'vtep':
      return `vtep ${formatIpv4(decision.vtep)}:${decision.vtepPort} vni ${decision.vni} ${macs(host)}`;
    case 'back':
      return `back ${decision.answer} ${decision.answerBytes}`;
    case 'drop':
      return `drop ${DROP_REASONS[decision.drop]}`;
  }
}

const MAC_NAMES = new Map([
  [GATEWAY_MAC, 'gateway'],
  [mac(TASK), 'task'],
  [mac(LOCAL), 'local'],
  [mac(REMOTE), 'remote'],
  [mac(HOST), 'host'],
]);

function macs({ view }: Host): string {
  const [to, from] = [readMac(view, FRAME), readMac(view, FRAME + 6)];
  return `${MAC_NAMES.get(from) ?? formatMac(from)}>${MAC_NAMES.get(to) ?? formatMac(to)}`;
}

type Way = 'task' | 'host' | 'vtep' | 'routed vtep';

function decideOn(host: Host, way: Way, frame: Uint8Array): Decision {
  host.bytes.set(frame, FRAME);
  if (way === 'routed vtep') host.bytes.set(macBytes(GATEWAY_MAC), FRAME + 6);
  const { decide, network } = host;
  if (way === 'task' || way === 'host') {
    return decide.fromPort(host[way], FRAME, frame.length, false, NOW_MS);
  }
  return decide.fromVtep(network, FRAME, frame.length, false, NOW_MS);
}

function macBytes(value: Mac): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
  return bytes.subarray(2);
}

function packet(
  protocol: number,
  from: string,
  to: string,
  destinationMac: Mac,
  rest: Partial<PacketSpec> = {},
): Uint8Array {
  return overlayFrame({ protocol, from, to, ...rest }, destinationMac);
}

function retyped(frame: Uint8Array, etherType: number): Uint8Array {
  const copy = Uint8Array.from(frame);
  new DataView(copy.buffer).setUint16(12, etherType);
  return copy;
}

/** `frame` with the byte at `at` set. */
function patched(frame: Uint8Array, at: number, value: number): Uint8Array {
  const copy = Uint8Array.from(frame);
  copy[at] = value;
  return copy;
}

const PLAIN = packet(PROTO_TCP, `${TASK}:4000`, `${LOCAL}:80`, mac(LOCAL));
const BROADCAST = 0xffff_ffff_ffff;
const SYN = { tcpFlags: TCP_SYN };

const DECISIONS: readonly (readonly [what: string, way: Way, frame: Uint8Array, says: string])[] = [
  // switching
  ['a neighbour on this node', 'task', PLAIN, 'port 2 task>local'],
  [
    'a neighbour on another node',
    'task',
    packet(PROTO_TCP, `${TASK}:4000`, `${REMOTE}:80`, mac(REMOTE)),
    `vtep ${VTEP}:4789 vni ${VNI} task>remote`,
  ],
  [
    'a neighbour by way of the gateway',
    'task',
    packet(PROTO_TCP, `${TASK}:4000`, `${LOCAL}:80`, GATEWAY_MAC),
    'port 2 gateway>local',
  ],
  [
    'one on another node by way of the gateway',
    'task',
    packet(PROTO_UDP, `${TASK}:4000`, `${REMOTE}:80`, GATEWAY_MAC),
    `vtep ${VTEP}:4789 vni ${VNI} gateway>remote`,
  ],
  [
    'an unknown MAC',
    'task',
    packet(PROTO_TCP, TASK, UNKNOWN, mac(UNKNOWN)),
    'drop unknown-destination',
  ],
  ['an unknown address', 'task', packet(PROTO_TCP, TASK, UNKNOWN, GATEWAY_MAC), 'drop no-route'],
  ['broadcast', 'task', packet(PROTO_UDP, TASK, '172.31.1.255', BROADCAST), 'drop multicast'],
  ['IPv6', 'task', retyped(PLAIN, 0x86dd), 'drop unsupported-ethertype'],
  ['a runt', 'task', PLAIN.subarray(0, 13), 'drop runt'],
  ['an empty frame', 'task', PLAIN.subarray(0, 0), 'drop runt'],
  ['no room for an IPv4 header', 'task', PLAIN.subarray(0, 33), 'drop bad-ipv4'],
  ['another IP version', 'task', patched(PLAIN, 14, 0x65), 'drop bad-ipv4'],
  ['a length beyond the frame', 'task', patched(PLAIN, 16, 0xff), 'drop bad-ipv4'],
  ['a TCP header of 16 bytes', 'task', patched(PLAIN, 46, 0x40), 'drop bad-l4'],
  // the gateway and ARP
  ['a ping of the gateway', 'task', packet(PROTO_ICMP, TASK, GATEWAY, GATEWAY_MAC), 'back echo 42'],
  ['TCP to the gateway', 'task', packet(PROTO_TCP, TASK, GATEWAY, GATEWAY_MAC), 'drop no-route'],
  ['ARP for a neighbour', 'task', arpRequest(TASK, LOCAL), 'back arp 42'],
  ['ARP for one on another node', 'task', arpRequest(TASK, REMOTE), 'back arp 42'],
  ['ARP for the gateway', 'task', arpRequest(TASK, GATEWAY), 'back arp 42'],
  ['ARP for a VIP', 'task', arpRequest(TASK, VIP), 'back arp 42'],
  ['ARP for nobody', 'task', arpRequest(TASK, UNKNOWN), 'drop arp-unknown'],
  ['ARP for itself', 'task', arpRequest(TASK, TASK), 'drop arp-unknown'],
  ['a probe of its own address', 'task', arpRequest('0.0.0.0', TASK), 'drop arp-unknown'],
  ['an ARP reply', 'task', patched(arpRequest(TASK, LOCAL), 21, 2), 'drop arp-malformed'],
  ['short ARP', 'task', arpRequest(TASK, LOCAL).subarray(0, 41), 'drop arp-malformed'],
  ['ARP of the host', 'host', arpRequest(HOST, INGRESS_VIP), 'back arp 42'],
  ['ARP from another node for ours', 'vtep', arpRequest(REMOTE, TASK), 'back arp 42'],
  ['ARP from another node for its own', 'vtep', arpRequest(UNKNOWN, REMOTE), 'drop arp-unknown'],
  // services
  [
    'a VIP with its backend here',
    'task',
    packet(PROTO_TCP, `${TASK}:4001`, `${VIP}:80`, GATEWAY_MAC, SYN),
    'port 2 task>local',
  ],
  [
    'a VIP with its backend elsewhere',
    'task',
    packet(PROTO_UDP, `${TASK}:4001`, `${REMOTE_VIP}:80`, GATEWAY_MAC),
    `vtep ${VTEP}:4789 vni ${VNI} task>remote`,
  ],
  [
    'a VIP without backends',
    'task',
    packet(PROTO_TCP, `${TASK}:4001`, `${EMPTY_VIP}:80`, GATEWAY_MAC, SYN),
    'back reset 54',
  ],
  [
    'by UDP',
    'task',
    packet(PROTO_UDP, `${TASK}:4001`, `${EMPTY_VIP}:80`, GATEWAY_MAC),
    'drop no-backend',
  ],
  [
    'a reset to it',
    'task',
    packet(PROTO_TCP, `${TASK}:4001`, `${EMPTY_VIP}:80`, GATEWAY_MAC, { tcpFlags: TCP_RST }),
    'drop no-backend',
  ],
  ['a ping of a VIP', 'task', packet(PROTO_ICMP, TASK, VIP, GATEWAY_MAC), 'back echo 42'],
  ['GRE to a VIP', 'task', packet(47, TASK, VIP, GATEWAY_MAC), 'drop unsupported-protocol'],
  [
    'a fragment without its first',
    'task',
    packet(PROTO_UDP, TASK, VIP, GATEWAY_MAC, {
      fragmentOffset: 1_480,
      payload: new Uint8Array(8),
    }),
    'drop fragment-without-first',
  ],
  [
    'a published port',
    'host',
    packet(PROTO_TCP, `${CLIENT}:5000`, `${INGRESS_VIP}:80`, GATEWAY_MAC, SYN),
    'port 1 gateway>task',
  ],
  ['the host to a task', 'host', packet(PROTO_TCP, HOST, LOCAL, GATEWAY_MAC), 'drop no-route'],
  // the underlay
  [
    'a packet for a task here',
    'vtep',
    packet(PROTO_TCP, `${REMOTE}:4000`, `${TASK}:80`, mac(TASK)),
    'port 1 remote>task',
  ],
  [
    'a routed packet',
    'routed vtep',
    packet(PROTO_TCP, `${CLIENT}:5001`, `${TASK}:80`, mac(TASK), SYN),
    'port 1 gateway>task',
  ],
  [
    'one that belongs elsewhere',
    'vtep',
    packet(PROTO_TCP, `${UNKNOWN}:4000`, `${REMOTE}:80`, mac(REMOTE)),
    'drop not-local',
  ],
  ['one for our gateway', 'vtep', packet(PROTO_TCP, REMOTE, TASK, GATEWAY_MAC), 'drop no-flow'],
  [
    'broadcast from the underlay',
    'vtep',
    packet(PROTO_UDP, REMOTE, TASK, BROADCAST),
    'drop multicast',
  ],
  ['IPv6 from the underlay', 'vtep', retyped(PLAIN, 0x86dd), 'drop unsupported-ethertype'],
  ['a runt from the underlay', 'vtep', PLAIN.subarray(0, 5), 'drop runt'],
];

for (const [what, way, frame, says] of DECISIONS) {
  test(`Switch: ${what} (from ${way})`, (t) => {
    const host = makeHost();
    const decision = decideOn(host, way, frame);
    t.equal(told(host, decision), says);
    const isAnswer = decision.action === 'back' && decision.answer !== 'arp';
    if (decision.action === 'port' || decision.action === 'vtep') {
      t.same(wrongChecksums(host.view, FRAME), [], 'checksums are right');
    } else if (isAnswer) {
      t.same(wrongChecksums(host.view, decision.answerStart), [], 'those of the answer, too');
    }
    t.end();
  });
}

test('Switch: a flow and its replies', (t) => {
  const host = makeHost();
  const there = packet(PROTO_TCP, `${TASK}:4001`, `${VIP}:80`, GATEWAY_MAC, SYN);
  t.equal(told(host, decideOn(host, 'task', there)), 'port 2 task>local');
  t.equal(host.view.getUint32(FRAME + 30), parseIpv4(LOCAL), 'to the backend');
  const reply = packet(PROTO_TCP, `${LOCAL}:80`, `${TASK}:4001`, mac(TASK));
  host.bytes.set(reply, FRAME);
  const back = host.decide.fromPort(host.local, FRAME, reply.length, false, NOW_MS);
  t.equal(told(host, back), 'port 1 local>task');
  t.equal(host.view.getUint32(FRAME + 26), parseIpv4(VIP), 'from the VIP');
  t.end();
});

test('Switch: the reply to a published port leaves by the host', (t) => {
  const host = makeHost();
  const request = packet(PROTO_TCP, `${CLIENT}:5000`, `${INGRESS_VIP}:80`, GATEWAY_MAC, SYN);
  t.equal(told(host, decideOn(host, 'host', request)), 'port 1 gateway>task');
  t.equal(host.view.getUint32(FRAME + 26), parseIpv4(CLIENT), 'the task sees the client');
  const reply = packet(PROTO_TCP, `${TASK}:80`, `${CLIENT}:5000`, GATEWAY_MAC);
  t.equal(told(host, decideOn(host, 'task', reply)), 'port 3 gateway>host');
  t.equal(host.view.getUint32(FRAME + 26), parseIpv4(INGRESS_VIP), 'the client sees the VIP');
  host.decide.hostPort = undefined;
  t.equal(told(host, decideOn(host, 'task', reply)), 'drop no-route', 'without a host port');
  t.end();
});

test('Switch: the reply to a routed packet goes back to its node', (t) => {
  const host = makeHost();
  const request = packet(PROTO_TCP, `${CLIENT}:5001`, `${TASK}:80`, mac(TASK), SYN);
  t.equal(told(host, decideOn(host, 'routed vtep', request)), 'port 1 gateway>task');
  const reply = packet(PROTO_TCP, `${TASK}:80`, `${CLIENT}:5001`, GATEWAY_MAC);
  const says = `vtep ${VTEP}:4789 vni ${VNI} gateway>gateway`;
  t.equal(told(host, decideOn(host, 'task', reply)), says);
  t.end();
});

test('Switch: a reply that comes back from the underlay goes to the client outside', (t) => {
  const host = makeHost();
  host.decide.networks.get(VNI)?.delete(parseIpv4(TASK));
  const away = { vtep: parseIpv4(VTEP), vtepPort: VTEP_PORT };
  host.network.set(new Endpoint<Port>(parseIpv4(TASK), mac(TASK), away));
  const request = packet(PROTO_TCP, `${CLIENT}:5000`, `${INGRESS_VIP}:80`, GATEWAY_MAC, SYN);
  t.equal(told(host, decideOn(host, 'host', request)), `vtep ${VTEP}:4789 vni ${VNI} gateway>task`);
  const reply = packet(PROTO_TCP, `${TASK}:80`, `${CLIENT}:5000`, GATEWAY_MAC);
  t.equal(told(host, decideOn(host, 'routed vtep', reply)), 'port 3 gateway>host');
  t.end();
});

test('Switch: a port of no network', (t) => {
  const host = makeHost();
  const stray = makePort(9, OTHER_VNI, TASK);
  host.bytes.set(PLAIN, FRAME);
  const decision = host.decide.fromPort(stray, FRAME, PLAIN.length, false, NOW_MS);
  t.equal(told(host, decision), 'drop no-route');
  t.end();
});

test(`Switch: ${FUZZ_FRAMES} mutated frames, seed ${SEED}`, (t) => {
  const host = makeHost();
  const random = seededRandom(SEED);
  const addresses = { sender: TASK, vip: VIP, gateway: GATEWAY, task: REMOTE };
  const fromTask = hostileFrames(addresses, random);
  const fromVtep = hostileFrames({ ...addresses, sender: REMOTE, task: TASK }, random);
  const ways: readonly Way[] = ['task', 'host', 'vtep', 'routed vtep'];
  const seen = new Set<string>();
  const guarded = (length: number): string =>
    [
      host.bytes.subarray(FRAME - GUARD_BYTES, FRAME),
      host.bytes.subarray(FRAME + length, FRAME + length + GUARD_BYTES),
      host.bytes.subarray(SCRATCH - GUARD_BYTES, SCRATCH),
      host.bytes.subarray(SCRATCH + 54, SCRATCH + 54 + GUARD_BYTES),
    ].join('|');
  let outside = 0;
  for (let index = 0; index < FUZZ_FRAMES; index += 1) {
    const way = ways[index % ways.length]!;
    const frame = index % ways.length < 2 ? fromTask() : fromVtep();
    // Every 20th is watched for writes beside it: the rest is for what they do to the tables.
    const watched = index % 20 === 0;
    if (watched) host.bytes.fill(0xa5, FRAME - GUARD_BYTES, FRAME + frame.length + GUARD_BYTES);
    if (watched && way === 'routed vtep' && frame.length < 12) continue;
    host.bytes.set(frame, FRAME);
    const before = watched ? guarded(frame.length) : '';
    const decision = decideOn(host, way, frame);
    if (watched && guarded(frame.length) !== before) outside += 1;
    seen.add(decision.action === 'drop' ? `drop ${DROP_REASONS[decision.drop]}` : decision.action);
    if (decision.action === 'vtep' && (way === 'vtep' || way === 'routed vtep')) outside += 1;
  }
  t.equal(outside, 0, 'nothing is written beside the frame, nothing is sent back to the underlay');
  const actions = ['port', 'vtep', 'back'];
  const drops = ['runt', 'bad-ipv4', 'bad-l4', 'multicast', 'arp-malformed', 'arp-unknown'];
  const expected = [...actions, ...drops.map((reason) => `drop ${reason}`), 'drop no-flow'];
  t.same(
    expected.filter((action) => !seen.has(action)),
    [],
    'every kind of decision was met',
  );
  t.end();
});

const HOT: readonly (readonly [what: string, way: Way, frame: Uint8Array])[] = [
  ['switching', 'task', PLAIN],
  ['to a VTEP', 'task', packet(PROTO_TCP, `${TASK}:4000`, `${REMOTE}:80`, mac(REMOTE))],
  ['to a VIP', 'task', packet(PROTO_TCP, `${TASK}:4001`, `${VIP}:80`, GATEWAY_MAC)],
  [
    'by a published port',
    'host',
    packet(PROTO_UDP, `${CLIENT}:5000`, `${INGRESS_VIP}:80`, GATEWAY_MAC),
  ],
  ['from a VTEP', 'vtep', packet(PROTO_TCP, `${REMOTE}:4000`, `${TASK}:80`, mac(TASK))],
  [
    'routed, from a VTEP',
    'routed vtep',
    packet(PROTO_TCP, `${CLIENT}:5001`, `${TASK}:80`, mac(TASK)),
  ],
  ['a ping', 'task', packet(PROTO_ICMP, TASK, VIP, GATEWAY_MAC)],
  ['ARP', 'task', arpRequest(TASK, LOCAL)],
  ['a reset', 'task', packet(PROTO_TCP, `${TASK}:4001`, `${EMPTY_VIP}:80`, GATEWAY_MAC)],
  ['a drop', 'task', packet(PROTO_TCP, TASK, UNKNOWN, GATEWAY_MAC)],
];

for (const [what, way, frame] of HOT) {
  test(`Switch: ${what} allocates nothing`, (t) => {
    const host = makeHost();
    const gateway = macBytes(GATEWAY_MAC);
    const { decide, network, bytes } = host;
    const port = way === 'host' ? host.host : host.task;
    const bytesPerCall = heapBytesPerCall((calls) => {
      for (let call = 0; call < calls; call += 1) {
        bytes.set(frame, FRAME);
        if (way === 'routed vtep') bytes.set(gateway, FRAME + 6);
        if (way === 'task' || way === 'host') {
          decide.fromPort(port, FRAME, frame.length, false, NOW_MS);
        } else decide.fromVtep(network, FRAME, frame.length, false, NOW_MS);
      }
    });
    t.ok(bytesPerCall < 1, `${bytesPerCall.toFixed(2)} bytes per frame`);
    t.end();
  });
}
