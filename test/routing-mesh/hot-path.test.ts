import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { test } from 'tap';
import { parseIpv4 } from '../../src/core/address.ts';
import { Packet, PROTO_ICMP, PROTO_UDP, parseFrame, TCP_SYN } from '../../src/core/packet.ts';
import { flowTableBytes } from '../../src/routing-mesh/flow-table.ts';
import { Mesh } from '../../src/routing-mesh/mesh.ts';
import {
  TCP_RESET_FRAME_BYTES,
  writeEchoReply,
  writeTcpReset,
} from '../../src/routing-mesh/replies.ts';
import { Verdict, VtepOrigin } from '../../src/routing-mesh/verdict.ts';
import { frame, type PacketSpec } from './packets.ts';

setFlagsFromString('--expose-gc');
const gc: () => void = runInNewContext('gc');

const NET = 4096;
const NOW_MS = 1_790_000_000_000;
const HASH_KEY = Uint8Array.of(1, 9, 2, 8, 3, 7, 4, 6);

// Addresses above 128.0.0.0 do not fit V8's small integers: those would show an allocation.
function makeMesh(capacity = 4096): Mesh {
  const memory = new Uint8Array(flowTableBytes(capacity));
  const mesh = new Mesh({ memory, capacity, hashKey: HASH_KEY });
  const backends = [11, 12, 13].map((last) => ({
    id: `task-${last}`,
    address: parseIpv4(`172.31.1.${last}`),
    scope: NET,
    weight: 1,
    state: 'active' as const,
  }));
  for (const [scope, vip] of [
    [NET, '172.31.1.254'],
    [0, '172.31.255.9'],
  ] as const) {
    mesh.setService({ scope, vip: parseIpv4(vip), gateway: parseIpv4('172.31.1.1'), backends });
  }
  return mesh;
}

/** A packet and where it comes in. */
interface Case extends PacketSpec {
  readonly scope?: number;
  readonly routed?: boolean;
}

const CLIENT = '192.0.2.7:5000';
const CASES: Record<string, Case> = {
  'a flow hit': { from: CLIENT, to: '172.31.255.9:80', scope: 0 },
  'a flow hit over UDP': { from: CLIENT, to: '172.31.255.9:80', scope: 0, protocol: PROTO_UDP },
  'a packet for no VIP': { from: '172.31.1.5:5000', to: '172.31.1.11:80' },
  'a routed packet': { from: '203.0.113.9:6000', to: '172.31.1.11:80', routed: true },
  'a reply to a routed packet': { from: '172.31.1.11:80', to: '203.0.113.9:6000' },
  'a ping of a VIP': { from: '172.31.1.5:7', to: '172.31.1.254', protocol: PROTO_ICMP },
  'a fragment of a flow': {
    from: CLIENT,
    to: '172.31.255.9:80',
    scope: 0,
    protocol: PROTO_UDP,
    moreFragments: true,
    noChecksum: true,
    payload: new Uint8Array(8),
  },
  'a SYN of a new flow each time': { from: CLIENT, to: '172.31.1.254:80', tcpFlags: TCP_SYN },
  'an ICMP error about a flow': {
    from: '172.31.1.5',
    to: '172.31.255.9',
    scope: 0,
    protocol: PROTO_ICMP,
    icmpType: 3,
    payload: new Uint8Array(
      frame({ from: '172.31.255.9:80', to: CLIENT }).buffer.slice(14, 14 + 28),
    ),
  },
};

/** A round of the hot path over one frame: restore its bytes, parse, decide. */
function looper(mesh: Mesh, spec: Case): { round: (count: number) => void; verdict: Verdict } {
  const bytes = new Uint8Array(frame(spec).buffer);
  const arena = new Uint8Array(2048);
  const view = new DataView(arena.buffer);
  const packet = new Packet();
  const verdict = new Verdict();
  const origin = Object.assign(new VtepOrigin(), {
    scope: NET,
    vtep: parseIpv4('198.51.100.2'),
    vtepPort: 4789,
    routed: true,
  });
  const scope = spec.scope ?? NET;
  const isNew = spec.tcpFlags === TCP_SYN;
  let port = 0;
  const round = (count: number): void => {
    for (let call = 0; call < count; call++) {
      arena.set(bytes);
      port = (port + 1) & 0xffff;
      if (isNew) view.setUint16(34, port);
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
  'a SYN of a new flow each time': 'forward',
  'an ICMP error about a flow': 'forward',
};

const CALLS = 10_000;
/** Heap bytes per call that are noise: the smallest object, a boxed number, takes 16. */
const NOISE_BYTES = 1;

test('deciding about a packet allocates nothing', (t) => {
  const mesh = makeMesh();
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
    t.equal(verdict.kind, KINDS[name as keyof typeof KINDS], name);
  }
  t.end();
});

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
  const origin = Object.assign(new VtepOrigin(), { scope: NET, vtep: 1, vtepPort: 4789 });
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
        if (written !== TCP_RESET_FRAME_BYTES) t.fail(`A reset of ${written} bytes`);
        arena.fill(0xee, 400);
      }
      if (packet.etherType === 0x0800 && verdict.kind === 'forward') {
        const isWritten =
          view.getUint32(26) === packet.source && view.getUint32(30) === packet.destination;
        if (!isWritten) t.fail('The parsed packet differs from the bytes');
      }
    }
    const outcome = fault === 'none' ? verdict.kind : fault;
    seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
    if (!guard.every((byte, at) => arena[length + at] === byte))
      t.fail(`Packet ${number} wrote behind its end`);
    if (number % 5000 === 0) {
      mesh.sweep(64, nowMs);
      const backendsLeft =
        number % 10_000 === 0 ? [] : mesh.backends(NET, parseIpv4('172.31.1.254'));
      mesh.setService({
        scope: 0,
        vip: parseIpv4('172.31.255.9'),
        gateway: 1,
        backends: backendsLeft,
      });
    }
  }
  const kinds = [
    'bad-ipv4',
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
