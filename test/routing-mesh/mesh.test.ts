import fc from 'fast-check';
import { Address6 } from 'ip-address';
import { type Test, test } from 'tap';
import { AddressWords } from '../../src/core/address-words.ts';
import { formatIp, formatIpPort, type Ip, ipWords, parseIp, parseIpv6 } from '../../src/core/ip.ts';
import {
  ETHERTYPE_ARP,
  PROTO_ICMP,
  PROTO_ICMPV6,
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
import {
  endpoint,
  endpointText,
  frame,
  type PacketSpec,
  parsed,
  wrongChecksums,
} from './packets.ts';

const NET = 4096;
const GATEWAY = '10.0.1.1';
const VIP = '10.0.1.254';
const INGRESS_VIP = '10.255.0.9';
const CAPACITY = 4096;
const HASH_KEY = Uint8Array.of(8, 7, 6, 5, 4, 3, 2, 1);
const START_MS = 1_790_000_000_000;

// Tests are written in IPv4, and run in either family: every address has an IPv6 one with the same name.
type Family = 4 | 6;

/** `10.0.1.5` as `fd00::10:0:1:5`, with a port as `[fd00::10:0:1:5]:80`. */
function inFamily(family: Family, text: string): string {
  if (family === 4) return text;
  return text.replaceAll(/(\d+(?:\.\d+){3})(?::(\d+))?/g, (_, address: string, port = '0') =>
    endpointText(parseIpv6(`fd00::${address.replaceAll('.', ':')}`), Number(port)),
  );
}

/** The other way round. */
function inIpv4(family: Family, text: string): string {
  if (family === 4) return text;
  return text.replaceAll(/\[?(fd00:[:\d]*\d)\]?/g, (_, address: string) =>
    new Address6(address).parsedAddress
      .slice(4)
      .map((group) => Number(group))
      .join('.'),
  );
}

/** ICMP types by what they mean: pings, errors, and one that is neither. */
const ICMPV6_TYPES: Record<number, number> = {
  0: 129,
  3: 1,
  5: 130,
  8: 128,
  11: 3,
  12: 4,
  13: 139,
};

/** What tests are made of, in one family. */
function partsOf(family: Family) {
  const ip = (text: string): Ip => parseIp(inFamily(family, text));
  const backend = (last: number, change: Partial<MeshBackend> = {}): MeshBackend => {
    const address = ip(`10.0.1.${last}`);
    return { id: `task-${last}`, address, scope: NET, weight: 1, state: 'active', ...change };
  };
  const service = (change: Partial<MeshService> = {}): MeshService => ({
    scope: NET,
    vip: ip(VIP),
    gateway: ip(GATEWAY),
    backends: [backend(11)],
    ...change,
  });
  return {
    ip,
    backend,
    service,
    ingress: { scope: HOST_SCOPE, vip: ip(INGRESS_VIP) },
    three: service({ backends: [backend(11), backend(12), backend(13)] }),
    make: (services: readonly MeshService[], memory?: Uint8Array): Node =>
      new Node(family, services, memory),
    /** An ICMP error of `type` about the packet in `line`, as one more change to {@link Node.send}. */
    errorAbout: (line: string, icmpType = 3): Partial<PacketSpec> => {
      const quoted = frame(read(inFamily(family, line)));
      const payload = new Uint8Array(quoted.buffer.slice(14, parsed(quoted).l4Start + 8));
      return { icmpType, payload };
    },
    toText: (address: Ip): string => inIpv4(family, formatIp(address)),
  };
}
type Parts = ReturnType<typeof partsOf>;

function eachFamily(name: string, body: (t: Test, parts: Parts) => void): void {
  for (const family of [4, 6] as const) {
    test(`${name}, over IPv${family}`, (t) => body(t, partsOf(family)));
  }
}

/** One node's mesh, spoken to in lines such as `4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80`. */
class Node {
  readonly memory: Uint8Array;
  readonly mesh: Mesh;
  readonly verdict: Verdict = new Verdict();
  readonly #family: Family;
  nowMs: number = START_MS;

  constructor(family: Family, services: readonly MeshService[], memory?: Uint8Array) {
    this.#family = family;
    this.memory = memory ?? new Uint8Array(flowTableBytes(CAPACITY));
    this.mesh = new Mesh({ memory: this.memory, capacity: CAPACITY, hashKey: HASH_KEY });
    for (const spec of services) this.mesh.setService(spec);
  }

  /**
   * Sends one packet and tells what became of it. Checks every checksum on the way.
   *
   * @param line - Scope (`host` for the host port), the VTEP that it comes from (`via 172.16.0.2`, `routed`),
   *   protocol, TCP flags, source and destination; in IPv4, whatever the family.
   */
  send(line: string, change: Partial<PacketSpec> = {}): string {
    const family = this.#family;
    const { icmpType = 8 } = change;
    const type = family === 4 ? icmpType : ICMPV6_TYPES[icmpType];
    const spec = { ...read(inFamily(family, line)), ...change };
    const view = frame({ ...spec, ...(type === undefined ? {} : { icmpType: type }) });
    const packet = parsed(view);
    const before = new Uint8Array(view.buffer.slice(0));
    const scope = line.startsWith('host') ? HOST_SCOPE : Number(line.split(' ')[0]);
    const origin = originOf(inFamily(family, line), scope);
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
    return inIpv4(family, this.#tell(view));
  }

  #tell(view: DataView): string {
    const { kind, dropReason, outScope, vtep, vtepPort } = this.verdict;
    if (kind === 'viaVtep') return `viaVtep ${outScope} ${formatIpPort(vtep.toIp(), vtepPort)}`;
    if (kind !== 'forward') return dropReason === 'none' ? kind : `${kind} ${dropReason}`;
    const packet = parsed(view);
    const words = new AddressWords();
    const [from, to] = [
      [packet.sourceStart, packet.sourcePort] as const,
      [packet.destinationStart, packet.destinationPort] as const,
    ].map(([at, port]) => {
      words.read(view, at, packet.family);
      return endpointText(words.toIp(), port);
    });
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
  const from = words[arrow - 1] ?? '';
  const protocol = protocolOf(words, from.includes('::') ? PROTO_ICMPV6 : PROTO_ICMP);
  const spec = { protocol, from, to: words[arrow + 1] ?? '' };
  return protocol === PROTO_TCP ? { ...spec, tcpFlags: FLAGS[flags] ?? 0 } : spec;
}

function protocolOf(words: readonly string[], icmp: number): number {
  if (words.includes('tcp')) return PROTO_TCP;
  return words.includes('udp') ? PROTO_UDP : icmp;
}

function originOf(line: string, scope: number): VtepOrigin | undefined {
  const via = /(routed|via) (\S+)/.exec(line);
  if (via === null) return undefined;
  const origin = new VtepOrigin();
  const vtep = endpoint(via[2] ?? '');
  origin.vtep.set(...ipWords(vtep.address));
  return Object.assign(origin, { scope, vtepPort: vtep.port, routed: via[1] === 'routed' });
}

type Step = readonly [line: string, outcome: string] | readonly [waitMs: number];

/** Scenarios against one node: what comes in, what goes out. */
interface Scenario {
  readonly services?: (parts: Parts) => MeshService[];
  readonly steps: Step[];
  readonly flows: string;
}
const ONE = ({ service }: Parts): MeshService[] => [service()];
const SCENARIOS: Record<string, Scenario> = {
  'a task talks to a VIP, and the reply comes from the VIP': {
    services: ONE,
    steps: [
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
      ['4096 tcp SA 10.0.1.11:80 > 10.0.1.5:5000', '4096 10.0.1.254:80 > 10.0.1.5:5000'],
      ['4096 tcp A 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
    ],
    flows: '1 forward established, 1 reverse established',
  },
  'the reply may come from another node': {
    services: ONE,
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
    services: ONE,
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
    services: ONE,
    steps: [
      ['4096 tcp S 10.0.1.11:5000 > 10.0.1.254:80', '4096 10.0.1.1:5000 > 10.0.1.11:80'],
      ['4096 tcp SA 10.0.1.11:80 > 10.0.1.1:5000', '4096 10.0.1.254:80 > 10.0.1.11:5000'],
    ],
    flows: '1 forward established, 1 reverse established',
  },
  'a published port: in by the host port, the client keeps its address, and out again': {
    services: ({ service, ingress }) => [service(ingress)],
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
    steps: [
      ['4096 routed 172.16.0.2:4789 tcp S 192.0.2.7:5000 > 10.0.1.11:80', 'pass'],
      ['4096 tcp R 10.0.1.11:80 > 192.0.2.7:5000', 'viaVtep 4096 172.16.0.2:4789'],
      ['4096 routed 172.16.0.3:4789 tcp S 192.0.2.7:5000 > 10.0.1.11:80', 'pass'],
      ['4096 routed 172.16.0.3:4789 tcp R 192.0.2.7:6000 > 10.0.1.11:80', 'pass'], // nothing to come back
    ],
    flows: '1 return syn-sent',
  },
  'a client that moves to this node takes its return flow over': {
    services: ({ service, ingress }) => [service(ingress)],
    steps: [
      ['4096 routed 172.16.0.2:4789 tcp A 192.0.2.7:5000 > 10.0.1.11:80', 'pass'],
      ['host tcp A 192.0.2.7:5000 > 10.255.0.9:80', '4096 192.0.2.7:5000 > 10.0.1.11:80'],
      ['4096 tcp A 10.0.1.11:80 > 192.0.2.7:5000', 'host 10.255.0.9:80 > 192.0.2.7:5000'],
    ],
    flows: '1 forward established, 1 reverse established',
  },
  'a client that moves away from this node leaves a return flow': {
    services: ({ service, ingress }) => [service(ingress)],
    steps: [
      ['host tcp A 192.0.2.7:5000 > 10.255.0.9:80', '4096 192.0.2.7:5000 > 10.0.1.11:80'],
      ['4096 routed 172.16.0.2:4789 tcp A 192.0.2.7:5000 > 10.0.1.11:80', 'pass'],
      ['4096 tcp A 10.0.1.11:80 > 192.0.2.7:5000', 'viaVtep 4096 172.16.0.2:4789'],
    ],
    flows: '1 return established',
  },
  "a SYN by another node does not cut this node's own connection with the same ports": {
    services: ({ service, ingress }) => [service(ingress)],
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
    services: ONE,
    steps: [['4096 tcp A 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80']],
    flows: '1 forward established, 1 reverse established',
  },
  'a reset in mid-stream goes on, and the flow is not kept for days': {
    services: ONE,
    steps: [['4096 tcp R 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80']],
    flows: '1 forward closing, 1 reverse closing',
  },
  'a service without backends refuses': {
    services: ({ service, backend, ip }) => [
      service({ backends: [] }),
      service({ vip: ip('10.0.1.253'), backends: [backend(11, { weight: 0 })] }),
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
    services: ONE,
    steps: [
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
      ['4096 tcp F 10.0.1.11:80 > 10.0.1.5:5000', '4096 10.0.1.254:80 > 10.0.1.5:5000'],
      ['4096 tcp F 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
    ],
    flows: '1 forward syn-sent, 1 reverse syn-sent',
  },
  'a SYN on a live connection goes where the connection goes': {
    services: ONE,
    steps: [
      ['4096 tcp A 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
      [119_990],
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
    ],
    flows: '1 forward established, 1 reverse established',
  },
  'a SYN on a connection quiet for two minutes opens another': {
    services: ONE,
    steps: [
      ['4096 tcp A 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
      [120_000],
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
    ],
    flows: '1 forward syn-sent, 1 reverse syn-sent',
  },
  'replies alone keep a flow': {
    services: ONE,
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
    services: ONE,
    steps: [
      ['4096 tcp S 10.0.1.5:5000 > 10.0.1.254:80', '4096 10.0.1.5:5000 > 10.0.1.11:80'],
      ['4096 tcp SA 10.0.1.11:80 > 10.0.1.5:5000', '4096 10.0.1.254:80 > 10.0.1.5:5000'],
      [4 * 86_400_000],
      ['4096 tcp A 10.0.1.11:80 > 10.0.1.5:5000', '4096 10.0.1.254:80 > 10.0.1.5:5000'],
    ],
    flows: '1 forward established, 1 reverse established',
  },
  'what is neither TCP nor UDP nor a ping cannot be balanced': {
    services: ONE,
    steps: [['4096 icmp 10.0.1.5:7 > 10.0.1.254', 'echo']],
    flows: '',
  },
};

for (const [name, { services, steps, flows }] of Object.entries(SCENARIOS)) {
  eachFamily(name, (t, parts) => {
    const node = parts.make(services?.(parts) ?? []);
    for (const [what, outcome] of steps) {
      if (typeof what === 'number') node.nowMs += what;
      else t.equal(node.send(what), outcome, what);
    }
    t.equal(node.flows(), flows);
    t.end();
  });
}

/** Who got the packet: the destination without its port. */
function pickedBy(outcome: string): string {
  return /> ([\d.]+)/.exec(outcome)?.[1] ?? outcome;
}

function syn(port: number): string {
  return `4096 tcp S 10.0.1.5:${port} > ${VIP}:80`;
}

eachFamily(
  "new flows spread evenly, and each backend's are counted",
  (t, { make, backend, three }) => {
    const node = make([three]);
    for (let port = 1000; port < 1300; port++) node.send(syn(port));
    const counts = node.mesh.backendStatus(NET, three.vip).map(({ newFlows }) => newFlows);
    t.ok(Math.min(...counts) > 75, `${counts}`);
    t.equal(counts[0]! + counts[1]! + counts[2]!, 300);
    t.equal(node.mesh.activeFlows(PROTO_TCP), 300);
    node.mesh.setService({ ...three, backends: [backend(12), backend(13), backend(14)] });
    t.same(
      node.mesh.backendStatus(NET, three.vip).map(({ id, newFlows }) => [id, newFlows]),
      [
        ['task-12', counts[1]],
        ['task-13', counts[2]],
        ['task-14', 0],
      ],
    );
    t.end();
  },
);

eachFamily(
  'an unanswered SYN goes to another backend with each retransmission',
  (t, { make, three }) => {
    const node = make([three]);
    for (let port = 2000; port < 2050; port++) {
      const tried = [pickedBy(node.send(syn(port)))];
      node.nowMs += 100;
      t.equal(
        pickedBy(node.send(syn(port))),
        tried[0],
        'a duplicate of the network changes nothing',
      );
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
  },
);

eachFamily(
  'every node and every run picks the same backend in mid-stream',
  (t, { make, three }) => {
    const [one, other] = [make([three]), make([three])];
    for (let port = 3000; port < 3100; port++) {
      t.equal(one.send(syn(port)), other.send(syn(port).replace('tcp S', 'tcp A')));
    }
    t.end();
  },
);

eachFamily(
  'a draining backend keeps its flows and gets no new ones',
  (t, { make, backend, three }) => {
    const node = make([three]);
    const before = new Map<number, string>();
    for (let port = 4000; port < 4060; port++) before.set(port, pickedBy(node.send(syn(port))));
    const draining = backend(12, { state: 'draining' });
    node.mesh.setService({ ...three, backends: [backend(11), draining, backend(13)] });
    for (const [port, address] of before) {
      t.equal(pickedBy(node.send(`4096 tcp A 10.0.1.5:${port} > ${VIP}:80`)), address);
    }
    for (let port = 5000; port < 5060; port++) t.not(pickedBy(node.send(syn(port))), '10.0.1.12');
    node.mesh.setService({ ...three, backends: [draining] });
    t.equal(node.send(syn(6000)), 'reset no-backend');
    t.end();
  },
);

eachFamily(
  'when a backend is gone, TCP clients are told and UDP clients move',
  (t, { make, backend, three }) => {
    const node = make([three]);
    const udp = (port: number): string => `4096 udp 10.0.1.5:${port} > ${VIP}:53`;
    const ports = Array.from({ length: 60 }, (_, index) => 7000 + index);
    const before = ports.map((port) => pickedBy(node.send(syn(port))));
    const beforeUdp = ports.map((port) => pickedBy(node.send(udp(port))));
    node.mesh.setService({ ...three, backends: [backend(11), backend(13)] });
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
        else
          t.not(pickedBy(node.send(syn(port))), '10.0.1.12', 'a new connection finds another one');
      } else {
        t.equal(pickedBy(node.send(ack)), before[index]);
      }
      const after = pickedBy(node.send(udp(port)));
      if (beforeUdp[index] === '10.0.1.12') t.not(after, '10.0.1.12');
      else t.equal(after, beforeUdp[index]);
    }
    t.notMatch(node.flows(), /gone/);
    t.end();
  },
);

eachFamily(
  'a backend that is back before the client has noticed keeps its flows',
  (t, { make, service }) => {
    const node = make([service()]);
    node.send(syn(8000));
    node.mesh.setService(service({ backends: [] }));
    t.match(node.flows(), /gone/);
    node.mesh.setService(service());
    t.notMatch(node.flows(), /gone/);
    t.equal(pickedBy(node.send(`4096 tcp A 10.0.1.5:8000 > ${VIP}:80`)), '10.0.1.11');
    t.end();
  },
);

eachFamily(
  'flows of an earlier run whose backend has left meanwhile are told so',
  (t, { make, service, backend }) => {
    const before = make([service()]);
    before.send(syn(8000));
    const after = make([service({ backends: [backend(12)] })], before.memory);
    t.match(after.flows(), /gone/);
    t.equal(after.send(`4096 tcp A 10.0.1.5:8000 > ${VIP}:80`), 'reset backend-gone');
    t.end();
  },
);

eachFamily(
  'changes of services that are made together do to flows what each does by itself',
  (t, { make, service, backend, ip }) => {
    const vips = [VIP, '10.0.1.253'];
    const ids = fc.subarray([11, 12, 13]);
    const change = fc.record({
      vip: fc.constantFrom(...vips),
      ids: fc.option(ids, { nil: undefined }),
      state: fc.constantFrom('active' as const, 'draining' as const),
    });
    const steps = fc.array(fc.array(change, { maxLength: 4 }), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(steps, (batches) => {
        const [single, together] = [make([]), make([])];
        const apply = (node: Node, { vip, ids: on, state }: (typeof batches)[0][0]): void => {
          const backends = on?.map((last) => backend(last, { state }));
          if (backends === undefined) node.mesh.removeService(NET, ip(vip));
          else node.mesh.setService(service({ vip: ip(vip), backends }));
        };
        for (const [turn, changes] of batches.entries()) {
          for (const one of changes) apply(single, one);
          together.mesh.together(() => {
            for (const one of changes) apply(together, one);
          });
          for (const vip of vips) {
            for (const port of [8000, 8001, 8002, 8000 + 10 * turn]) {
              const line = `4096 udp 10.0.1.5:${port} > ${vip}:53`;
              if (together.send(line) !== single.send(line)) return false;
            }
          }
          if (together.flows() !== single.flows()) return false;
        }
        return true;
      }),
    );
    const node = make([service()]);
    node.send(syn(8000));
    t.throws(() =>
      node.mesh.together(() => {
        node.mesh.setService(service({ backends: [] }));
        throw new Error('the next command is refused');
      }),
    );
    t.match(node.flows(), /gone/, 'what was changed before a failure is in effect');
    t.equal(node.mesh.size, 1);
    t.end();
  },
);

eachFamily(
  'flows of a removed service are refused once, then their VIP is unknown',
  (t, { make, service, ip, toText }) => {
    const node = make([service(), service({ vip: ip('10.0.1.253') })]);
    node.send(syn(8000));
    node.send(`4096 udp 10.0.1.5:8000 > ${VIP}:53`);
    node.send('4096 tcp S 10.0.1.5:8001 > 10.0.1.253:80');
    t.ok(node.mesh.isVip(NET, AddressWords.of(service().vip)));
    node.mesh.removeService(NET, service().vip);
    node.mesh.removeService(NET, service().vip);
    t.notOk(node.mesh.isVip(NET, AddressWords.of(service().vip)));
    t.same(node.mesh.backends(NET, service().vip), []);
    t.same(
      [...node.mesh.services()].map(({ vip }) => toText(vip)),
      ['10.0.1.253'],
    );
    t.equal(node.send(`4096 tcp A 10.0.1.5:8000 > ${VIP}:80`), 'reset backend-gone');
    t.equal(node.send(`4096 tcp A 10.0.1.5:8000 > ${VIP}:80`), 'pass');
    t.equal(node.send(`4096 udp 10.0.1.5:8000 > ${VIP}:53`), 'drop backend-gone');
    t.equal(node.flows(), '1 forward syn-sent, 1 reverse syn-sent');
    t.end();
  },
);

eachFamily(
  'a service that is refused leaves the one before in place',
  (t, { make, service, backend }) => {
    const node = make([service()]);
    t.throws(
      () => node.mesh.setService(service({ backends: [backend(12), backend(12)] })),
      RangeError,
    );
    t.equal(pickedBy(node.send(syn(8000))), '10.0.1.11');
    t.end();
  },
);

eachFamily(
  'two VIPs with one backend do not mix up a client that uses one port for both',
  (t, { make, service, ip }) => {
    const other = '10.0.1.253';
    const node = make([service(), service({ vip: ip(other) })]);
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
  },
);

eachFamily(
  'a port is taken as long as its flow may get replies',
  (t, { make, service, ingress, ip }) => {
    const other = service({ vip: ip('10.0.1.253') });
    const node = make([service(), other, service(ingress)]);
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
  },
);

eachFamily(
  'a change of a service leaves flows to the same address in another scope alone',
  (t, { make, service, backend }) => {
    const twin = service({ scope: 4097, backends: [backend(11, { scope: 4097 })] });
    const node = make([service(), twin]);
    node.send(`4096 udp 10.0.1.5:5000 > ${VIP}:53`);
    node.send(`4097 udp 10.0.1.5:5000 > ${VIP}:53`);
    node.mesh.removeService(4097, twin.vip);
    t.equal(
      node.flows(),
      '1 forward datagram, 1 forward datagram gone, 1 reverse datagram, 1 reverse datagram gone',
    );
    t.equal(node.send(`4096 udp 10.0.1.5:5000 > ${VIP}:53`), '4096 10.0.1.5:5000 > 10.0.1.11:53');
    t.end();
  },
);

eachFamily('of routed ICMP only a ping expects something back', (t, { make }) => {
  const node = make([]);
  const line = '4096 routed 172.16.0.2:4789 icmp 192.0.2.7:77 > 10.0.1.11';
  for (const icmpType of [0, 3, 5, 13]) t.equal(node.send(line, { icmpType }), 'pass');
  t.equal(node.flows(), '');
  t.equal(node.send(line, { icmpType: 8 }), 'pass');
  t.equal(node.flows(), '1 return icmp');
  t.end();
});

eachFamily('superframes with a partial checksum keep it partial', (t, { make, service }) => {
  const node = make([service()]);
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

eachFamily('later fragments follow the first one', (t, { make, service, ingress }) => {
  const payload = new Uint8Array(16).fill(1);
  const first = { payload, moreFragments: true, noChecksum: true };
  const later = { payload, fragmentOffset: 24 };
  const node = make([service(), service(ingress)]);
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
  const remote = make([]);
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

eachFamily(
  'pings of a VIP are answered, in fragments as well; other protocols are not',
  (t, { make, service }) => {
    const node = make([service()]);
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
  },
);

eachFamily(
  'ICMP errors reach the connection that they are about, in both directions',
  (t, { make, service, ingress, errorAbout }) => {
    const node = make([service(), service(ingress)]);
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
      [
        '4096 icmp 10.0.1.1 > 10.0.1.5',
        'udp 10.0.1.5:5000 > 10.0.1.11:53',
        `4096 ${VIP} > 10.0.1.5`,
      ],
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

    const remote = make([]);
    remote.send('4096 routed 172.16.0.2:4789 udp 192.0.2.7:6000 > 10.0.1.11:53');
    const about = errorAbout('udp 192.0.2.7:6000 > 10.0.1.11:53');
    t.equal(remote.send('4096 icmp 10.0.1.11 > 192.0.2.7', about), 'viaVtep 4096 172.16.0.2:4789');
    t.equal(remote.send('4096 via 172.16.0.3 icmp 10.0.1.11 > 192.0.2.7', about), 'pass');
    t.end();
  },
);

eachFamily(
  'flows go on after a restart with the same memory, and services may come later',
  (t, { make, three }) => {
    const before = make([three]);
    const ports = Array.from({ length: 40 }, (_, index) => 9000 + index);
    const picked = ports.map((port) => before.send(syn(port)));
    for (const [index, port] of ports.entries()) {
      before.send(`4096 tcp SA ${pickedBy(picked[index]!)}:80 > 10.0.1.5:${port}`);
    }
    const after = make([], before.memory);
    after.nowMs = before.nowMs + 3_600_000;
    t.equal(after.mesh.attached, true);
    t.equal(before.mesh.attached, false);
    t.equal(after.mesh.activeFlows(PROTO_TCP), 40);
    for (const withService of [false, true]) {
      if (withService) after.mesh.setService(three);
      for (const [index, port] of ports.entries()) {
        t.equal(after.send(`4096 tcp A 10.0.1.5:${port} > ${VIP}:80`), picked[index]);
      }
    }
    t.equal(after.flows(), '40 forward established, 40 reverse established');
    t.end();
  },
);

eachFamily('a full table evicts and goes on', (t, { make, service }) => {
  const node = make([service()]);
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

eachFamily('frames that are not IP pass', (t, { make, service }) => {
  const node = make([service()]);
  const view = frame({ from: '10.0.1.5:1', to: `${VIP}:80` });
  view.setUint16(12, ETHERTYPE_ARP);
  const packet = parsed(view);
  node.mesh.fromLocal(packet, view, NET, false, START_MS, node.verdict);
  t.equal(node.verdict.kind, 'pass');
  node.mesh.fromVtep(packet, view, new VtepOrigin(), false, START_MS, node.verdict);
  t.equal(node.verdict.kind, 'pass');
  t.end();
});

test('flows of both families live side by side, and a way back may be of the other one', (t) => {
  const [ipv4, ipv6] = [partsOf(4), partsOf(6)];
  const node = ipv4.make([ipv4.service(), ipv6.service()]);
  const origin = new VtepOrigin();
  Object.assign(origin, { scope: NET, vtepPort: 4789, routed: true });
  for (const [vtep, from, to] of [
    ['fd00:5::2', '192.0.2.7:5000', '10.0.1.11:80'],
    ['172.16.0.2', '[2001:db8::c000:207]:5000', '[fd00::a00:10b]:80'], // the same last words
  ] as const) {
    origin.vtep.set(...ipWords(parseIp(vtep)));
    for (const [line, isReply] of [
      [{ from, to }, false],
      [{ from: to, to: from }, true],
    ] as const) {
      const view = frame(line);
      const packet = parsed(view);
      if (isReply) node.mesh.fromLocal(packet, view, NET, false, START_MS, node.verdict);
      else node.mesh.fromVtep(packet, view, origin, false, START_MS, node.verdict);
    }
    t.equal(node.verdict.kind, 'viaVtep');
    t.equal(formatIp(node.verdict.vtep.toIp()), vtep);
  }
  t.equal(node.flows(), '2 return established');
  const vteps = [...node.mesh.flows(START_MS)].map(({ vtep }) => formatIp(vtep)).sort();
  t.same(vteps, ['172.16.0.2', 'fd00:5::2']);
  t.end();
});
