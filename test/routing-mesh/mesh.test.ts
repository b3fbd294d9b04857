import { test } from 'tap';
import { formatIpv4, parseIpv4 } from '../../src/core/address.ts';
import {
  ETHERTYPE_ARP,
  PROTO_ICMP,
  PROTO_TCP,
  PROTO_UDP,
  TCP_ACK,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
} from '../../src/core/packet.ts';
import { flowTableBytes } from '../../src/routing-mesh/flow-table.ts';
import { Mesh } from '../../src/routing-mesh/mesh.ts';
import type { MeshBackend, MeshService } from '../../src/routing-mesh/services.ts';
import { HOST_SCOPE, Verdict, VtepOrigin } from '../../src/routing-mesh/verdict.ts';
import { endpoint, frame, type PacketSpec, parsed, wrongChecksums } from './packets.ts';

const NET = 4096;
const GATEWAY = '10.0.1.1';
const VIP = '10.0.1.254';
const INGRESS_VIP = '10.255.0.9';
const CAPACITY = 4096;
const HASH_KEY = Uint8Array.of(8, 7, 6, 5, 4, 3, 2, 1);
const START_MS = 1_790_000_000_000;

function backend(last: number, change: Partial<MeshBackend> = {}): MeshBackend {
  const address = parseIpv4(`10.0.1.${last}`);
  return { id: `task-${last}`, address, scope: NET, weight: 1, state: 'active', ...change };
}

function service(change: Partial<MeshService> = {}): MeshService {
  const gateway = parseIpv4(GATEWAY);
  return { scope: NET, vip: parseIpv4(VIP), gateway, backends: [backend(11)], ...change };
}

const INGRESS = { scope: HOST_SCOPE, vip: parseIpv4(INGRESS_VIP) };

/** One node's mesh, spoken to in lines such as `4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80`. */
class Node {
  readonly memory: Uint8Array;
  readonly mesh: Mesh;
  readonly verdict: Verdict = new Verdict();
  nowMs: number = START_MS;

  constructor(services: readonly MeshService[], memory?: Uint8Array) {
    this.memory = memory ?? new Uint8Array(flowTableBytes(CAPACITY));
    this.mesh = new Mesh({ memory: this.memory, capacity: CAPACITY, hashKey: HASH_KEY });
    for (const spec of services) this.mesh.setService(spec);
  }

  /**
   * Sends one packet and tells what became of it. Checks every checksum on the way.
   *
   * @param line - Scope (`host` for the host port), the VTEP that it comes from (`via 172.16.0.2`, `routed`),
   *   protocol, TCP flags, source and destination.
   */
  send(line: string, change: Partial<PacketSpec> = {}): string {
    const view = frame({ ...read(line), ...change });
    const packet = parsed(view);
    const before = new Uint8Array(view.buffer.slice(0));
    const scope = line.startsWith('host') ? HOST_SCOPE : Number(line.split(' ')[0]);
    const origin = originOf(line, scope);
    const partial = change.partial === true;
    if (origin === undefined) {
      this.mesh.fromLocal(packet, view, scope, partial, this.nowMs, this.verdict);
    } else {
      this.mesh.fromVtep(packet, view, origin, partial, this.nowMs, this.verdict);
    }
    const wrong = wrongChecksums(view, 0, partial);
    if (wrong.length > 0) throw new Error(`Wrong checksums after "${line}": ${wrong}`);
    const isSame = new Uint8Array(view.buffer).every((byte, at) => byte === before[at]);
    if (isSame === this.verdict.changed) throw new Error(`"changed" is wrong after "${line}"`);
    return this.#tell(parsed(view));
  }

  #tell(packet: ReturnType<typeof parsed>): string {
    const { kind, dropReason, outScope, vtep, vtepPort } = this.verdict;
    if (kind === 'viaVtep') return `viaVtep ${outScope} ${formatIpv4(vtep)}:${vtepPort}`;
    if (kind !== 'forward') return dropReason === 'none' ? kind : `${kind} ${dropReason}`;
    const [from, to] = [
      [packet.source, packet.sourcePort],
      [packet.destination, packet.destinationPort],
    ].map(([address = 0, port]) => formatIpv4(address) + (port === 0 ? '' : `:${port}`));
    return `${outScope === HOST_SCOPE ? 'host' : outScope} ${from} > ${to}`;
  }

  /** `forward` entries by state, such as `1 established, 2 datagram`. */
  flows(): string {
    const counts = new Map<string, number>();
    for (const { kind, state, gone } of this.mesh.flows(this.nowMs)) {
      const name = `${kind} ${state}${gone ? ' gone' : ''}`;
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    return [...counts]
      .map(([name, count]) => `${count} ${name}`)
      .sort()
      .join(', ');
  }
}

const FLAGS: Record<string, number> = {
  S: TCP_SYN,
  SA: TCP_SYN | TCP_ACK,
  A: TCP_ACK,
  F: TCP_FIN | TCP_ACK,
  R: TCP_RST,
};

function read(line: string): PacketSpec {
  const words = line.split(' ');
  const arrow = words.indexOf('>');
  const flags = words[arrow - 2] ?? '';
  const protocol = words.includes('tcp')
    ? PROTO_TCP
    : words.includes('udp')
      ? PROTO_UDP
      : PROTO_ICMP;
  const spec = { protocol, from: words[arrow - 1] ?? '', to: words[arrow + 1] ?? '' };
  return protocol === PROTO_TCP ? { ...spec, tcpFlags: FLAGS[flags] ?? 0 } : spec;
}

function originOf(line: string, scope: number): VtepOrigin | undefined {
  const via = /(routed|via) (\S+)/.exec(line);
  if (via === null) return undefined;
  const origin = new VtepOrigin();
  const vtep = endpoint(via[2] ?? '');
  return Object.assign(origin, {
    scope,
    vtep: vtep.address,
    vtepPort: vtep.port,
    routed: via[1] === 'routed',
  });
}

type Step = readonly [line: string, outcome: string] | readonly [waitMs: number];

/** Scenarios against one node: what comes in, what goes out. */
const SCENARIOS: Record<string, { services: MeshService[]; steps: Step[]; flows: string }> = {
  'a task talks to a VIP, and the reply comes from the VIP': {
    services: [service()],
    steps: [
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
      ['4096 tcp SA 10.0.1.11:80 > 10.0.1.5:5000', '4096 10.0.1.254:80 > 10.0.1.5:5000'],
      ['4096 tcp A 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
    ],
    flows: '1 forward established, 1 reverse established',
  },
  'the reply may come from another node': {
    services: [service()],
    steps: [
      ['4096 udp 10.0.1.5:5000 > 10.0.1.254:53', '4096 10.0.1.5:5000 > 10.0.1.11:53'],
      [
        '4096 via 172.16.0.2:4789 udp 10.0.1.11:53 > 10.0.1.5:5000',
        '4096 10.0.1.254:53 > 10.0.1.5:5000',
      ],
    ],
    flows: '1 forward datagram, 1 reverse datagram',
  },
  'what is for no VIP is not touched': {
    services: [service()],
    steps: [
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.11:80', 'pass'],
      ['4097 tcp S 10.0.1.5:5000 > 10.0.1.254:80', 'pass'],
      ['host tcp S 10.0.1.5:5000 > 10.0.1.254:80', 'pass'],
      ['4096 via 172.16.0.2 tcp S 10.0.1.5:5000 > 10.0.1.11:80', 'pass'],
      ['4096 via 172.16.0.2 tcp S 10.0.1.5:5000 > 10.0.1.254:80', 'pass'],
      ['4096 icmp 10.0.1.5:7 > 10.0.1.11', 'pass'],
    ],
    flows: '',
  },
  'a task that meets itself behind its own VIP comes from the gateway': {
    services: [service()],
    steps: [
      ['4096 tcp S 10.0.1.11:5000 > 10.0.1.254:80', '4096 10.0.1.1:5000 > 10.0.1.11:80'],
      ['4096 tcp SA 10.0.1.11:80 > 10.0.1.1:5000', '4096 10.0.1.254:80 > 10.0.1.11:5000'],
    ],
    flows: '1 forward established, 1 reverse established',
  },
  'a published port: in by the host port, the client keeps its address, and out again': {
    services: [service(INGRESS)],
    steps: [
      ['host tcp S 192.0.2.7:5000 > 10.255.0.9:80', '4096 192.0.2.7:5000 > 10.0.1.11:80'],
      ['4096 tcp SA 10.0.1.11:80 > 192.0.2.7:5000', 'host 10.255.0.9:80 > 192.0.2.7:5000'],
      [
        '4096 routed 172.16.0.2:4789 tcp A 10.0.1.11:80 > 192.0.2.7:5000',
        'host 10.255.0.9:80 > 192.0.2.7:5000',
      ],
    ],
    flows: '1 forward established, 1 reverse established',
  },
  'the reply to a routed packet leaves by the node that it came in by': {
    services: [],
    steps: [
      ['4096 routed 172.16.0.2:4789 tcp S 192.0.2.7:5000 > 10.0.1.11:80', 'pass'],
      ['4096 tcp SA 10.0.1.11:80 > 192.0.2.7:5000', 'viaVtep 4096 172.16.0.2:4789'],
      ['4096 routed 172.16.0.3:4790 tcp A 192.0.2.7:5000 > 10.0.1.11:80', 'pass'], // it changed nodes
      ['4096 tcp A 10.0.1.11:80 > 192.0.2.7:5000', 'viaVtep 4096 172.16.0.3:4790'],
      ['4096 tcp A 10.0.1.11:80 > 192.0.2.7:5001', 'pass'],
      ['4096 via 172.16.0.3 tcp A 10.0.1.11:80 > 192.0.2.7:5000', 'pass'], // never back to the underlay
      ['4096 routed 172.16.0.2:4789 icmp 192.0.2.7:77 > 10.0.1.11', 'pass'],
      ['4096 icmp 10.0.1.11:77 > 192.0.2.7', 'viaVtep 4096 172.16.0.2:4789'],
    ],
    flows: '1 return established, 1 return icmp',
  },
  'a routed connection that reuses the ports of one that is over begins anew': {
    services: [],
    steps: [
      ['4096 routed 172.16.0.2:4789 tcp S 192.0.2.7:5000 > 10.0.1.11:80', 'pass'],
      ['4096 tcp R 10.0.1.11:80 > 192.0.2.7:5000', 'viaVtep 4096 172.16.0.2:4789'],
      ['4096 routed 172.16.0.3:4789 tcp S 192.0.2.7:5000 > 10.0.1.11:80', 'pass'],
      ['4096 routed 172.16.0.3:4789 tcp R 192.0.2.7:6000 > 10.0.1.11:80', 'pass'], // nothing to come back
    ],
    flows: '1 return syn-sent',
  },
  'a client that moves to this node takes its return flow over': {
    services: [service(INGRESS)],
    steps: [
      ['4096 routed 172.16.0.2:4789 tcp A 192.0.2.7:5000 > 10.0.1.11:80', 'pass'],
      ['host tcp A 192.0.2.7:5000 > 10.255.0.9:80', '4096 192.0.2.7:5000 > 10.0.1.11:80'],
      ['4096 tcp A 10.0.1.11:80 > 192.0.2.7:5000', 'host 10.255.0.9:80 > 192.0.2.7:5000'],
    ],
    flows: '1 forward established, 1 reverse established',
  },
  'a client that moves away from this node leaves a return flow': {
    services: [service(INGRESS)],
    steps: [
      ['host tcp A 192.0.2.7:5000 > 10.255.0.9:80', '4096 192.0.2.7:5000 > 10.0.1.11:80'],
      ['4096 routed 172.16.0.2:4789 tcp A 192.0.2.7:5000 > 10.0.1.11:80', 'pass'],
      ['4096 tcp A 10.0.1.11:80 > 192.0.2.7:5000', 'viaVtep 4096 172.16.0.2:4789'],
    ],
    flows: '1 return established',
  },
  "a SYN by another node does not cut this node's own connection with the same ports": {
    services: [service(INGRESS)],
    steps: [
      ['host tcp S 192.0.2.7:5000 > 10.255.0.9:80', '4096 192.0.2.7:5000 > 10.0.1.11:80'],
      ['4096 routed 172.16.0.2:4789 tcp S 192.0.2.7:5000 > 10.0.1.11:80', 'pass'],
      ['4096 routed 172.16.0.2:4789 tcp R 192.0.2.7:5000 > 10.0.1.11:80', 'pass'],
      ['4096 tcp SA 10.0.1.11:80 > 192.0.2.7:5000', 'host 10.255.0.9:80 > 192.0.2.7:5000'],
      ['4096 tcp R 10.0.1.11:80 > 192.0.2.7:5000', 'host 10.255.0.9:80 > 192.0.2.7:5000'],
      ['4096 routed 172.16.0.2:4789 tcp S 192.0.2.7:5000 > 10.0.1.11:80', 'pass'], // now it is over
      ['4096 tcp SA 10.0.1.11:80 > 192.0.2.7:5000', 'viaVtep 4096 172.16.0.2:4789'],
    ],
    flows: '1 return established',
  },
  'a TCP packet in mid-stream is picked up': {
    services: [service()],
    steps: [['4096 tcp A 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80']],
    flows: '1 forward established, 1 reverse established',
  },
  'a reset in mid-stream goes on, and the flow is not kept for days': {
    services: [service()],
    steps: [['4096 tcp R 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80']],
    flows: '1 forward closing, 1 reverse closing',
  },
  'a service without backends refuses': {
    services: [
      service({ backends: [] }),
      service({ vip: parseIpv4('10.0.1.253'), backends: [backend(11, { weight: 0 })] }),
    ],
    steps: [
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80', 'reset no-backend'],
      ['4096 tcp A 10.0.1.5:5000 > 10.0.1.253:80', 'reset no-backend'],
      ['4096 tcp R 10.0.1.5:5000 > 10.0.1.254:80', 'drop no-backend'],
      ['4096 udp 10.0.1.5:5000 > 10.0.1.254:80', 'drop no-backend'],
      ['4096 icmp 10.0.1.5:7 > 10.0.1.254', 'echo'],
    ],
    flows: '',
  },
  'a connection that is over gives its ports to the next one': {
    services: [service()],
    steps: [
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
      ['4096 tcp F 10.0.1.11:80 > 10.0.1.5:5000', '4096 10.0.1.254:80 > 10.0.1.5:5000'],
      ['4096 tcp F 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
    ],
    flows: '1 forward syn-sent, 1 reverse syn-sent',
  },
  'a SYN on a live connection goes where the connection goes': {
    services: [service()],
    steps: [
      ['4096 tcp A 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
      [119_990],
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
    ],
    flows: '1 forward established, 1 reverse established',
  },
  'a SYN on a connection quiet for two minutes opens another': {
    services: [service()],
    steps: [
      ['4096 tcp A 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
      [120_000],
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
    ],
    flows: '1 forward syn-sent, 1 reverse syn-sent',
  },
  'replies alone keep a flow': {
    services: [service()],
    steps: [
      ['4096 udp 10.0.1.5:5000 > 10.0.1.254:53', '4096 10.0.1.5:5000 > 10.0.1.11:53'],
      [170_000],
      ['4096 udp 10.0.1.11:53 > 10.0.1.5:5000', '4096 10.0.1.254:53 > 10.0.1.5:5000'],
      [170_000],
      ['4096 udp 10.0.1.11:53 > 10.0.1.5:5000', '4096 10.0.1.254:53 > 10.0.1.5:5000'],
      ['4096 udp 10.0.1.5:5000 > 10.0.1.254:53', '4096 10.0.1.5:5000 > 10.0.1.11:53'],
      [181_000],
      ['4096 udp 10.0.1.11:53 > 10.0.1.5:5000', 'pass'],
    ],
    flows: '',
  },
  'an idle connection lives for days': {
    services: [service()],
    steps: [
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
      ['4096 tcp SA 10.0.1.11:80 > 10.0.1.5:5000', '4096 10.0.1.254:80 > 10.0.1.5:5000'],
      [4 * 86_400_000],
      ['4096 tcp A 10.0.1.11:80 > 10.0.1.5:5000', '4096 10.0.1.254:80 > 10.0.1.5:5000'],
    ],
    flows: '1 forward established, 1 reverse established',
  },
  'what is neither TCP nor UDP nor a ping cannot be balanced': {
    services: [service()],
    steps: [['4096 icmp 10.0.1.5:7 > 10.0.1.254', 'echo']],
    flows: '',
  },
};

for (const [name, { services, steps, flows }] of Object.entries(SCENARIOS)) {
  test(name, (t) => {
    const node = new Node(services);
    for (const [what, outcome] of steps) {
      if (typeof what === 'number') node.nowMs += what;
      else t.equal(node.send(what), outcome, what);
    }
    t.equal(node.flows(), flows);
    t.end();
  });
}

const THREE = service({ backends: [backend(11), backend(12), backend(13)] });

/** Who got the packet: the destination without its port. */
function pickedBy(outcome: string): string {
  return /> ([\d.]+)/.exec(outcome)?.[1] ?? outcome;
}

function syn(port: number): string {
  return `4096 tcp S 10.0.1.5:${port} > ${VIP}:80`;
}

test("new flows spread evenly, and each backend's are counted", (t) => {
  const node = new Node([THREE]);
  for (let port = 1000; port < 1300; port++) node.send(syn(port));
  const counts = node.mesh.backendStatus(NET, THREE.vip).map(({ newFlows }) => newFlows);
  t.ok(Math.min(...counts) > 75, `${counts}`);
  t.equal(counts[0]! + counts[1]! + counts[2]!, 300);
  t.equal(node.mesh.activeFlows(PROTO_TCP), 300);
  node.mesh.setService({ ...THREE, backends: [backend(12), backend(13), backend(14)] });
  t.same(
    node.mesh.backendStatus(NET, THREE.vip).map(({ id, newFlows }) => [id, newFlows]),
    [
      ['task-12', counts[1]],
      ['task-13', counts[2]],
      ['task-14', 0],
    ],
  );
  t.end();
});

test('an unanswered SYN goes to another backend with each retransmission', (t) => {
  const node = new Node([THREE]);
  for (let port = 2000; port < 2050; port++) {
    const tried = [pickedBy(node.send(syn(port)))];
    node.nowMs += 100;
    t.equal(pickedBy(node.send(syn(port))), tried[0], 'a duplicate of the network changes nothing');
    for (const waitMs of [1000, 2000]) {
      node.nowMs += waitMs;
      tried.push(pickedBy(node.send(syn(port))));
    }
    t.equal(new Set(tried).size, 3, `${tried}`);
    const [first, , last] = tried;
    t.equal(
      node.send(`4096 tcp SA ${first}:80 > 10.0.1.5:${port}`),
      'pass',
      'the first one is out',
    );
    t.equal(
      node.send(`4096 tcp SA ${last}:80 > 10.0.1.5:${port}`),
      `4096 ${VIP}:80 > 10.0.1.5:${port}`,
    );
    node.nowMs += 4000;
    t.equal(
      pickedBy(node.send(syn(port))),
      last,
      'an answered SYN stays, although it is sent again',
    );
  }
  t.equal(node.flows(), '50 forward established, 50 reverse established');
  t.end();
});

test('every node and every run picks the same backend in mid-stream', (t) => {
  const [one, other] = [new Node([THREE]), new Node([THREE])];
  for (let port = 3000; port < 3100; port++) {
    t.equal(one.send(syn(port)), other.send(syn(port).replace('tcp S', 'tcp A')));
  }
  t.end();
});

test('a draining backend keeps its flows and gets no new ones', (t) => {
  const node = new Node([THREE]);
  const before = new Map<number, string>();
  for (let port = 4000; port < 4060; port++) before.set(port, pickedBy(node.send(syn(port))));
  const draining = backend(12, { state: 'draining' });
  node.mesh.setService({ ...THREE, backends: [backend(11), draining, backend(13)] });
  for (const [port, address] of before) {
    t.equal(pickedBy(node.send(`4096 tcp A 10.0.1.5:${port} > ${VIP}:80`)), address);
  }
  for (let port = 5000; port < 5060; port++) t.not(pickedBy(node.send(syn(port))), '10.0.1.12');
  node.mesh.setService({ ...THREE, backends: [draining] });
  t.equal(node.send(syn(6000)), 'reset no-backend');
  t.end();
});

test('when a backend is gone, TCP clients are told and UDP clients move', (t) => {
  const node = new Node([THREE]);
  const udp = (port: number): string => `4096 udp 10.0.1.5:${port} > ${VIP}:53`;
  const ports = Array.from({ length: 60 }, (_, index) => 7000 + index);
  const before = ports.map((port) => pickedBy(node.send(syn(port))));
  const beforeUdp = ports.map((port) => pickedBy(node.send(udp(port))));
  node.mesh.setService({ ...THREE, backends: [backend(11), backend(13)] });
  for (const [index, port] of ports.entries()) {
    const ack = `4096 tcp A 10.0.1.5:${port} > ${VIP}:80`;
    if (before[index] === '10.0.1.12') {
      t.equal(
        node.send(`4096 tcp A 10.0.1.12:80 > 10.0.1.5:${port}`),
        `4096 ${VIP}:80 > 10.0.1.5:${port}`,
        'its last words are heard',
      );
      if (index % 3 === 0) t.equal(node.send(ack), 'reset backend-gone');
      else if (index % 3 === 1)
        t.equal(node.send(ack.replace('tcp A', 'tcp R')), 'drop backend-gone');
      else t.not(pickedBy(node.send(syn(port))), '10.0.1.12', 'a new connection finds another one');
    } else {
      t.equal(pickedBy(node.send(ack)), before[index]);
    }
    const after = pickedBy(node.send(udp(port)));
    if (beforeUdp[index] === '10.0.1.12') t.not(after, '10.0.1.12');
    else t.equal(after, beforeUdp[index]);
  }
  t.notMatch(node.flows(), /gone/);
  t.end();
});

test('a backend that is back before the client has noticed keeps its flows', (t) => {
  const node = new Node([service()]);
  node.send(syn(8000));
  node.mesh.setService(service({ backends: [] }));
  t.match(node.flows(), /gone/);
  node.mesh.setService(service());
  t.notMatch(node.flows(), /gone/);
  t.equal(pickedBy(node.send(`4096 tcp A 10.0.1.5:8000 > ${VIP}:80`)), '10.0.1.11');
  t.end();
});

test('flows of a removed service are refused once, then their VIP is unknown', (t) => {
  const node = new Node([service(), service({ vip: parseIpv4('10.0.1.253') })]);
  node.send(syn(8000));
  node.send(`4096 udp 10.0.1.5:8000 > ${VIP}:53`);
  node.send('4096 tcp S 10.0.1.5:8001 > 10.0.1.253:80');
  t.ok(node.mesh.isVip(NET, service().vip));
  node.mesh.removeService(NET, service().vip);
  node.mesh.removeService(NET, service().vip);
  t.notOk(node.mesh.isVip(NET, service().vip));
  t.same(node.mesh.backends(NET, service().vip), []);
  t.same(
    [...node.mesh.services()].map(({ vip }) => formatIpv4(vip)),
    ['10.0.1.253'],
  );
  t.equal(node.send(`4096 tcp A 10.0.1.5:8000 > ${VIP}:80`), 'reset backend-gone');
  t.equal(node.send(`4096 tcp A 10.0.1.5:8000 > ${VIP}:80`), 'pass');
  t.equal(node.send(`4096 udp 10.0.1.5:8000 > ${VIP}:53`), 'drop backend-gone');
  t.equal(node.flows(), '1 forward syn-sent, 1 reverse syn-sent');
  t.end();
});

test('a service that is refused leaves the one before in place', (t) => {
  const node = new Node([service()]);
  t.throws(
    () => node.mesh.setService(service({ backends: [backend(12), backend(12)] })),
    RangeError,
  );
  t.equal(pickedBy(node.send(syn(8000))), '10.0.1.11');
  t.end();
});

test('two VIPs with one backend do not mix up a client that uses one port for both', (t) => {
  const other = '10.0.1.253';
  const node = new Node([service(), service({ vip: parseIpv4(other) })]);
  t.equal(node.send(`4096 udp 10.0.1.5:5000 > ${VIP}:53`), '4096 10.0.1.5:5000 > 10.0.1.11:53');
  const second = node.send(`4096 udp 10.0.1.5:5000 > ${other}:53`);
  const [, translated = ''] = /^4096 10\.0\.1\.5:(\d+) > 10\.0\.1\.11:53$/.exec(second) ?? [];
  t.not(translated, '5000');
  t.ok(Number(translated) >= 1024);
  t.equal(node.send(`4096 udp 10.0.1.5:5000 > ${other}:53`), second, 'it stays so');
  t.equal(node.send('4096 udp 10.0.1.11:53 > 10.0.1.5:5000'), `4096 ${VIP}:53 > 10.0.1.5:5000`);
  t.equal(
    node.send(`4096 udp 10.0.1.11:53 > 10.0.1.5:${translated}`),
    `4096 ${other}:53 > 10.0.1.5:5000`,
  );
  t.end();
});

test('a port is taken as long as its flow may get replies', (t) => {
  const other = service({ vip: parseIpv4('10.0.1.253') });
  const node = new Node([service(), other, service(INGRESS)]);
  node.send(`4096 udp 10.0.1.5:5000 > ${VIP}:53`);
  node.mesh.setService(service({ backends: [] }));
  const taken = node.send('4096 udp 10.0.1.5:5000 > 10.0.1.253:53');
  t.equal(taken, '4096 10.0.1.5:5000 > 10.0.1.11:53', 'the flow to a gone backend gives way');

  node.mesh.setService(service());
  node.send(`4096 tcp R 10.0.1.5:5000 > ${VIP}:80`);
  const after = node.send('4096 tcp S 10.0.1.5:5000 > 10.0.1.253:80');
  t.equal(after, '4096 10.0.1.5:5000 > 10.0.1.11:80', 'and so does one that is over');

  node.send('4096 routed 172.16.0.2:4789 tcp A 192.0.2.7:6000 > 10.0.1.11:80');
  const second = node.send(`host tcp S 192.0.2.7:6000 > ${INGRESS_VIP}:80`);
  t.match(second, /^4096 192\.0\.2\.7:\d+ > 10\.0\.1\.11:80$/);
  t.notMatch(second, /:6000/, 'a SYN leaves the way back of a connection through another node');
  t.equal(node.send('4096 tcp A 10.0.1.11:80 > 192.0.2.7:6000'), 'viaVtep 4096 172.16.0.2:4789');
  t.end();
});

test('a change of a service leaves flows to the same address in another scope alone', (t) => {
  const twin = service({ scope: 4097, backends: [backend(11, { scope: 4097 })] });
  const node = new Node([service(), twin]);
  node.send(`4096 udp 10.0.1.5:5000 > ${VIP}:53`);
  node.send(`4097 udp 10.0.1.5:5000 > ${VIP}:53`);
  node.mesh.removeService(4097, twin.vip);
  t.equal(
    node.flows(),
    '1 forward datagram, 1 forward datagram gone, 1 reverse datagram, 1 reverse datagram gone',
  );
  t.equal(node.send(`4096 udp 10.0.1.5:5000 > ${VIP}:53`), '4096 10.0.1.5:5000 > 10.0.1.11:53');
  t.end();
});

test('of routed ICMP only a ping expects something back', (t) => {
  const node = new Node([]);
  const line = '4096 routed 172.16.0.2:4789 icmp 192.0.2.7:77 > 10.0.1.11';
  for (const icmpType of [0, 3, 5, 13]) t.equal(node.send(line, { icmpType }), 'pass');
  t.equal(node.flows(), '');
  t.equal(node.send(line, { icmpType: 8 }), 'pass');
  t.equal(node.flows(), '1 return icmp');
  t.end();
});

test('superframes with a partial checksum keep it partial', (t) => {
  const node = new Node([service()]);
  const payload = new Uint8Array(40_000).fill(3);
  for (const protocol of ['tcp A', 'udp']) {
    const [there, back] = [
      `4096 ${protocol} 10.0.1.5:5000 > ${VIP}:80`,
      `4096 ${protocol} 10.0.1.11:80 > 10.0.1.5:5000`,
    ];
    t.equal(node.send(there, { partial: true, payload }), '4096 10.0.1.5:5000 > 10.0.1.11:80');
    t.equal(node.send(back, { partial: true, payload }), `4096 ${VIP}:80 > 10.0.1.5:5000`);
  }
  t.end();
});

test('later fragments follow the first one', (t) => {
  const payload = new Uint8Array(16).fill(1);
  const first = { payload, moreFragments: true, noChecksum: true };
  const later = { payload, fragmentOffset: 24 };
  const node = new Node([service(), service(INGRESS)]);
  const there = `4096 udp 10.0.1.5:5000 > ${VIP}:53`;
  t.equal(node.send(there, later), 'drop fragment-without-first');
  t.equal(node.send(there, first), '4096 10.0.1.5:5000 > 10.0.1.11:53');
  t.equal(node.send(there, later), '4096 10.0.1.5 > 10.0.1.11');
  t.equal(node.send(there, { ...later, identification: 2 }), 'drop fragment-without-first');
  t.equal(node.send('4096 udp 10.0.1.5:5000 > 10.0.1.77:53', later), 'pass');
  const back = '4096 via 172.16.0.2:4789 udp 10.0.1.11:53 > 10.0.1.5:5000';
  t.equal(node.send(back, later), 'pass');
  t.equal(node.send(back, first), `4096 ${VIP}:53 > 10.0.1.5:5000`);
  t.equal(node.send(back, later), `4096 ${VIP} > 10.0.1.5`);
  node.nowMs += 31_000;
  t.equal(node.send(there, later), 'drop fragment-without-first');

  // By a node that only sends back.
  const remote = new Node([]);
  t.equal(
    remote.send('4096 routed 172.16.0.2:4789 udp 192.0.2.7:5000 > 10.0.1.11:53', first),
    'pass',
  );
  t.equal(
    remote.send('4096 routed 172.16.0.2:4789 udp 192.0.2.7:5000 > 10.0.1.11:53', later),
    'pass',
  );
  t.equal(remote.send('4096 udp 10.0.1.11:53 > 192.0.2.7:5000', later), 'pass');
  t.equal(
    remote.send('4096 udp 10.0.1.11:53 > 192.0.2.7:5000', first),
    'viaVtep 4096 172.16.0.2:4789',
  );
  t.equal(
    remote.send('4096 udp 10.0.1.11:53 > 192.0.2.7:5000', later),
    'viaVtep 4096 172.16.0.2:4789',
  );
  // The client changes nodes, and identifications come round.
  remote.send('4096 routed 172.16.0.3:4789 udp 192.0.2.7:5000 > 10.0.1.11:53');
  remote.send('4096 udp 10.0.1.11:53 > 192.0.2.7:5000', first);
  t.equal(
    remote.send('4096 udp 10.0.1.11:53 > 192.0.2.7:5000', later),
    'viaVtep 4096 172.16.0.3:4789',
  );
  t.equal(remote.flows(), '1 return datagram');
  t.end();
});

test('pings of a VIP are answered, in fragments as well; other protocols are not', (t) => {
  const node = new Node([service()]);
  const ping = `4096 icmp 10.0.1.5:7 > ${VIP}`;
  const payload = new Uint8Array(16);
  t.equal(node.send(ping), 'echo');
  t.equal(node.send(ping, { payload, moreFragments: true }), 'echo');
  t.equal(node.send(ping, { payload, fragmentOffset: 24 }), 'echo');
  t.equal(node.send(ping, { icmpType: 0 }), 'drop unsupported-protocol');
  t.equal(node.send(ping, { icmpType: 13 }), 'drop unsupported-protocol');
  t.equal(node.send(ping, { protocol: 132 }), 'drop unsupported-protocol');
  t.equal(
    node.send(ping, { protocol: 132, payload, fragmentOffset: 24 }),
    'drop unsupported-protocol',
  );
  t.equal(node.flows(), '');
  t.end();
});

/** An ICMP error of `type` about the packet in `line`, as one more change to {@link Node.send}. */
function errorAbout(line: string, icmpType = 3): Partial<PacketSpec> {
  const quoted = frame(read(line));
  return { icmpType, payload: new Uint8Array(quoted.buffer.slice(14, 14 + 28)) };
}

test('ICMP errors reach the connection that they are about, in both directions', (t) => {
  const node = new Node([service(), service(INGRESS)]);
  node.send(`4096 udp 10.0.1.5:5000 > ${VIP}:53`);
  node.send(`host udp 192.0.2.7:6000 > ${INGRESS_VIP}:53`);
  node.send('4096 udp 10.0.1.11:5000 > 10.0.1.254:53'); // it meets itself

  // line in which the error comes, packet that it quotes, what becomes of it
  for (const [line, about, outcome] of [
    // The backend has no such port.
    [
      '4096 icmp 10.0.1.11 > 10.0.1.5',
      'udp 10.0.1.5:5000 > 10.0.1.11:53',
      `4096 ${VIP} > 10.0.1.5`,
    ],
    [
      '4096 via 172.16.0.2 icmp 10.0.1.11 > 10.0.1.5',
      'udp 10.0.1.5:5000 > 10.0.1.11:53',
      `4096 ${VIP} > 10.0.1.5`,
    ],
    [
      '4096 icmp 10.0.1.11 > 192.0.2.7',
      'udp 192.0.2.7:6000 > 10.0.1.11:53',
      `host ${INGRESS_VIP} > 192.0.2.7`,
    ],
    [
      '4096 icmp 10.0.1.11 > 10.0.1.1',
      'udp 10.0.1.1:5000 > 10.0.1.11:53',
      `4096 ${VIP} > 10.0.1.11`,
    ],
    // A router on the way to the backend: the client knows the VIP only.
    ['4096 icmp 10.0.1.1 > 10.0.1.5', 'udp 10.0.1.5:5000 > 10.0.1.11:53', `4096 ${VIP} > 10.0.1.5`],
    // The client closed its socket, or its router has a smaller MTU.
    [`4096 icmp 10.0.1.5 > ${VIP}`, `udp ${VIP}:53 > 10.0.1.5:5000`, '4096 10.0.1.5 > 10.0.1.11'],
    [
      `host icmp 192.0.2.1 > ${INGRESS_VIP}`,
      `udp ${INGRESS_VIP}:53 > 192.0.2.7:6000`,
      '4096 192.0.2.7 > 10.0.1.11',
    ],
    // No flow of ours.
    [`4096 icmp 10.0.1.5 > ${VIP}`, `udp ${VIP}:53 > 10.0.1.5:5001`, 'drop no-flow'],
    ['4096 icmp 10.0.1.11 > 10.0.1.5', 'udp 10.0.1.5:5001 > 10.0.1.11:53', 'pass'],
  ] as const) {
    for (const icmpType of [3, 11, 12]) {
      t.equal(node.send(line, errorAbout(about, icmpType)), outcome, `${line} (${about})`);
    }
  }
  t.equal(node.send(`4096 icmp 10.0.1.5 > ${VIP}`, { icmpType: 3 }), 'drop no-flow', 'no quote');

  const remote = new Node([]);
  remote.send('4096 routed 172.16.0.2:4789 udp 192.0.2.7:6000 > 10.0.1.11:53');
  const about = errorAbout('udp 192.0.2.7:6000 > 10.0.1.11:53');
  t.equal(remote.send('4096 icmp 10.0.1.11 > 192.0.2.7', about), 'viaVtep 4096 172.16.0.2:4789');
  t.equal(remote.send('4096 via 172.16.0.3 icmp 10.0.1.11 > 192.0.2.7', about), 'pass');
  t.end();
});

test('flows go on after a restart with the same memory, and services may come later', (t) => {
  const before = new Node([THREE]);
  const ports = Array.from({ length: 40 }, (_, index) => 9000 + index);
  const picked = ports.map((port) => before.send(syn(port)));
  for (const [index, port] of ports.entries()) {
    before.send(`4096 tcp SA ${pickedBy(picked[index]!)}:80 > 10.0.1.5:${port}`);
  }
  const after = new Node([], before.memory);
  after.nowMs = before.nowMs + 3_600_000;
  t.equal(after.mesh.attached, true);
  t.equal(before.mesh.attached, false);
  t.equal(after.mesh.activeFlows(PROTO_TCP), 40);
  for (const withService of [false, true]) {
    if (withService) after.mesh.setService(THREE);
    for (const [index, port] of ports.entries()) {
      t.equal(after.send(`4096 tcp A 10.0.1.5:${port} > ${VIP}:80`), picked[index]);
    }
  }
  t.equal(after.flows(), '40 forward established, 40 reverse established');
  t.end();
});

test('a full table evicts and goes on', (t) => {
  const node = new Node([service()]);
  const picked = new Set<string>();
  for (let port = 10_000; port < 20_000; port++) picked.add(pickedBy(node.send(syn(port))));
  t.same([...picked], ['10.0.1.11']);
  t.ok(node.mesh.evictions > 5000);
  t.ok(node.mesh.activeFlows(PROTO_TCP) <= CAPACITY / 2);
  node.nowMs += 61_000;
  let removed = 0;
  for (let round = 0; round < CAPACITY / 64; round++) removed += node.mesh.sweep(64, node.nowMs);
  t.ok(removed > 2000);
  t.equal(node.mesh.activeFlows(PROTO_TCP), 0);
  t.equal(node.flows(), '');
  t.end();
});

test('frames that are not IPv4 pass', (t) => {
  const node = new Node([service()]);
  const view = frame({ from: '10.0.1.5:1', to: `${VIP}:80` });
  view.setUint16(12, ETHERTYPE_ARP);
  const packet = parsed(view);
  node.mesh.fromLocal(packet, view, NET, false, START_MS, node.verdict);
  t.equal(node.verdict.kind, 'pass');
  node.mesh.fromVtep(packet, view, new VtepOrigin(), false, START_MS, node.verdict);
  t.equal(node.verdict.kind, 'pass');
  t.end();
});
