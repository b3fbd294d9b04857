import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { test } from 'tap';
import { parseIpv4 } from '../../src/core/address.ts';
import { formatIpPort, parseIp } from '../../src/core/ip.ts';
import {
  Packet,
  PROTO_ICMP,
  PROTO_ICMPV6,
  PROTO_UDP,
  parseFrame,
  TCP_SYN,
} from '../../src/core/packet.ts';
import { type FlowSharing, flowTableBytes } from '../../src/routing-mesh/flow-table.ts';
import { Mesh } from '../../src/routing-mesh/mesh.ts';
import {
  TCP_RESET_FRAME_BYTES_MAX,
  writeEchoReply,
  writeTcpReset,
} from '../../src/routing-mesh/replies.ts';
import { Verdict, VtepOrigin } from '../../src/routing-mesh/verdict.ts';
import { frame, type PacketSpec, parsed } from './packets.ts';

setFlagsFromString('--expose-gc');
const gc: () => void = runInNewContext('gc');

const NET = 4096;
const NOW_MS = 1_790_000_000_000;
const HASH_KEY = Uint8Array.of(1, 9, 2, 8, 3, 7, 4, 6);

// Addresses above 128.0.0.0 do not fit V8's small integers: those would show an allocation.
const SERVICES = [
  [NET, '172.31.1.254', '172.31.1.1', '172.31.1.1'],
  [0, '172.31.255.9', '172.31.1.1', '172.31.1.1'],
  [NET, 'fdff:ffff::1:fe', 'fdff:ffff::1:1', 'fdff:ffff::1:1'],
  [0, 'fdff:ffff::ff:9', 'fdff:ffff::1:1', 'fdff:ffff::1:1'],
] as const;

function makeMesh(capacity = 4096, sharing: FlowSharing = 'alone'): Mesh {
  const memory = new Uint8Array(flowTableBytes(capacity));
  const mesh = new Mesh({ memory, capacity, hashKey: HASH_KEY, sharing });
  for (const [scope, vip, gateway, network] of SERVICES) {
    const backends = [11, 12, 13].map((last) => ({
      id: `task-${last}`,
      address: parseIp(`${network}${last % 10}`),
      scope: NET,
      weight: 1,
      state: 'active' as const,
    }));
    mesh.setService({ scope, vip: parseIp(vip), gateway: parseIp(gateway), backends });
  }
  return mesh;
}

/** A packet and where it comes in. */
interface Case extends PacketSpec {
  readonly scope?: number;
  readonly routed?: boolean;
}

interface Ends {
  readonly name: string;
  readonly icmp: number;
  readonly unreachable: number;
  readonly client: string;
  readonly other: string;
  readonly ingressVip: string;
  readonly vip: string;
  readonly task: string;
  readonly backend: string;
}
const FAMILIES: readonly Ends[] = [
  {
    name: 'IPv4',
    icmp: PROTO_ICMP,
    unreachable: 3,
    client: '192.0.2.7',
    other: '203.0.113.9',
    ingressVip: '172.31.255.9',
    vip: '172.31.1.254',
    task: '172.31.1.5',
    backend: '172.31.1.11',
  },
  {
    name: 'IPv6',
    icmp: PROTO_ICMPV6,
    unreachable: 1,
    client: '2001:db8::c000:207',
    other: 'fe80::cb00:7109',
    ingressVip: 'fdff:ffff::ff:9',
    vip: 'fdff:ffff::1:fe',
    task: 'fdff:ffff::1:5',
    backend: 'fdff:ffff::1:11',
  },
];

function at(address: string, port: number): string {
  return formatIpPort(parseIp(address), port);
}

function casesOf(ends: Ends): Record<string, Case> {
  const { name, icmp, unreachable, ...hosts } = ends;
  const client = at(hosts.client, 5000);
  const published = { from: client, to: at(hosts.ingressVip, 80), scope: 0 };
  const quoted = frame({ from: at(hosts.ingressVip, 80), to: client });
  const quote = new Uint8Array(quoted.buffer.slice(14, parsed(quoted).l4Start + 8));
  const cases: Record<string, Case> = {
    'a flow hit': published,
    'a flow hit over UDP': { ...published, protocol: PROTO_UDP },
    'a packet for no VIP': { from: at(hosts.task, 5000), to: at(hosts.backend, 80) },
    'a routed packet': { from: at(hosts.other, 6000), to: at(hosts.backend, 80), routed: true },
    'a reply to a routed packet': { from: at(hosts.backend, 80), to: at(hosts.other, 6000) },
    'a ping of a VIP': { from: at(hosts.task, 7), to: hosts.vip, protocol: icmp },
    'a fragment of a flow': {
      ...published,
      protocol: PROTO_UDP,
      moreFragments: true,
      noChecksum: true,
      payload: new Uint8Array(8),
    },
    'a later fragment of a flow': {
      ...published,
      protocol: PROTO_UDP,
      fragmentOffset: 16,
      payload: new Uint8Array(8),
    },
    'a SYN of a new flow each time': { from: client, to: at(hosts.vip, 80), tcpFlags: TCP_SYN },
    'an ICMP error about a flow': {
      from: hosts.task,
      to: hosts.ingressVip,
      scope: 0,
      protocol: icmp,
      icmpType: unreachable,
      payload: quote,
    },
  };
  return Object.fromEntries(
    Object.entries(cases).map(([what, spec]) => [`${what}, ${name}`, spec]),
  );
}

const CASES: Record<string, Case> = Object.assign({}, ...FAMILIES.map(casesOf));

/** A round of the hot path over one frame: restore its bytes, parse, decide. */
function looper(mesh: Mesh, spec: Case): { round: (count: number) => void; verdict: Verdict } {
  const bytes = new Uint8Array(frame(spec).buffer);
  const arena = new Uint8Array(2048);
  const view = new DataView(arena.buffer);
  const packet = new Packet();
  const verdict = new Verdict();
  const origin = Object.assign(new VtepOrigin(), { scope: NET, vtepPort: 4789, routed: true });
  origin.vtep.setIpv4(parseIpv4('198.51.100.2') | 0);
  const scope = spec.scope ?? NET;
  const isNew = spec.tcpFlags === TCP_SYN;
  const portAt = parsed(frame(spec)).l4Start;
  let port = 0;
  const round = (count: number): void => {
    for (let call = 0; call < count; call++) {
      arena.set(bytes);
      port = (port + 1) & 0xffff;
      if (isNew) view.setUint16(portAt, port);
      parseFrame(view, 0, bytes.length, packet);
      if (spec.routed) mesh.fromVtep(packet, view, origin, false, NOW_MS, verdict);
      else mesh.fromLocal(packet, view, scope, false, NOW_MS, verdict);
    }
  };
  return { round, verdict };
}

const KINDS = {
  'a flow hit': 'forward',
  'a flow hit over UDP': 'forward',
  'a packet for no VIP': 'pass',
  'a routed packet': 'pass',
  'a reply to a routed packet': 'viaVtep',
  'a ping of a VIP': 'echo',
  'a fragment of a flow': 'forward',
  'a later fragment of a flow': 'forward',
  'a SYN of a new flow each time': 'forward',
  'an ICMP error about a flow': 'forward',
};

const CALLS = 10_000;
/** Heap bytes per call that are noise: the smallest object, a boxed number, takes 16. */
const NOISE_BYTES = 1;

for (const sharing of ['alone', 'first'] as const) {
  test(`deciding about a packet allocates nothing, ${sharing}`, (t) => {
    const mesh = makeMesh(4096, sharing);
    for (const [name, spec] of Object.entries(CASES)) {
      const { round, verdict } = looper(mesh, spec);
      round(3 * CALLS); // the optimising compiler has seen it
      let quietest = Number.POSITIVE_INFINITY;
      for (let attempt = 0; attempt < 5; attempt++) {
        gc();
        const before = process.memoryUsage().heapUsed;
        round(CALLS);
        quietest = Math.min(quietest, (process.memoryUsage().heapUsed - before) / CALLS);
      }
      t.ok(quietest < NOISE_BYTES, `${name}: ${quietest.toFixed(2)} bytes per call`);
      t.equal(verdict.kind, KINDS[name.replace(/, IPv.$/, '') as keyof typeof KINDS], name);
    }
    t.end();
  });
}

/** xorshift32: small, and a seed replays a run. */
function makeRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

test('100,000 mutated packets do no harm', (t) => {
  const random = makeRandom(0x5eed);
  const mesh = makeMesh(256);
  const seeds = Object.values(CASES).map((spec) => ({
    spec,
    bytes: new Uint8Array(frame(spec).buffer),
  }));
  const arena = new Uint8Array(512);
  const view = new DataView(arena.buffer);
  const packet = new Packet();
  const verdict = new Verdict();
  const origin = Object.assign(new VtepOrigin(), { scope: NET, vtepPort: 4789 });
  origin.vtep.setIpv4(1);
  const seen = new Map<string, number>();
  let nowMs = NOW_MS;
  for (let number = 0; number < 100_000; number++) {
    const { spec, bytes } = seeds[random(seeds.length)]!;
    arena.fill(0xee);
    arena.set(bytes);
    for (let edits = random(4); edits > 0; edits--)
      arena[12 + random(bytes.length - 12)] = random(256);
    const length = random(5) === 0 ? random(bytes.length + 1) : bytes.length;
    const guard = arena.slice(length);
    nowMs += random(200);
    const fault = parseFrame(view, 0, length, packet);
    if (fault === 'none') {
      origin.routed = random(2) === 0;
      const partial = random(4) === 0;
      if (random(3) === 0) mesh.fromVtep(packet, view, origin, partial, nowMs, verdict);
      else mesh.fromLocal(packet, view, spec.scope ?? NET, partial, nowMs, verdict);
      if (verdict.kind === 'echo') writeEchoReply(view, packet);
      if (verdict.kind === 'reset') {
        const written = writeTcpReset(view, 400, packet);
        if (written !== 54 && written !== TCP_RESET_FRAME_BYTES_MAX)
          t.fail(`A reset of ${written} bytes`);
        arena.fill(0xee, 400);
      }
      if (verdict.kind === 'forward') {
        const low = packet.family === 6 ? 12 : 0;
        const isWritten =
          view.getUint32(packet.sourceStart + low) === packet.source &&
          view.getUint32(packet.destinationStart + low) === packet.destination;
        if (!isWritten) t.fail('The parsed packet differs from the bytes');
      }
    }
    const outcome = fault === 'none' ? verdict.kind : fault;
    seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
    if (!guard.every((byte, at) => arena[length + at] === byte))
      t.fail(`Packet ${number} wrote behind its end`);
    if (number % 5000 === 0) {
      mesh.sweep(64, nowMs);
      for (const { ingressVip, vip, backend } of FAMILIES) {
        const backends = number % 10_000 === 0 ? [] : mesh.backends(NET, parseIp(vip));
        const gateway = parseIp(backend);
        mesh.setService({ scope: 0, vip: parseIp(ingressVip), gateway, backends });
      }
    }
  }
  const kinds = [
    'bad-ipv4',
    'bad-ipv6',
    'bad-l4',
    'drop',
    'echo',
    'forward',
    'pass',
    'reset',
    'runt',
    'viaVtep',
  ];
  t.same([...seen.keys()].sort(), kinds, 'every way out was taken');
  t.end();
});
