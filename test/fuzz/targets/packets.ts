// What takes bytes from tasks and from the underlay.
import { GATEWAY_MAC, macOfIpv4, macWords, parseIpv4 } from '../../../src/core/address.ts';
import { writeIp16 } from '../../../src/core/ip.ts';
import {
  Packet,
  PROTO_ICMP,
  PROTO_ICMPV6,
  PROTO_TCP,
  PROTO_UDP,
  parseFrame,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
} from '../../../src/core/packet.ts';
import { Coalescer } from '../../../src/dataplane/coalesce.ts';
import { DROP_REASONS } from '../../../src/dataplane/counters.ts';
import type { Decision } from '../../../src/dataplane/decision.ts';
import { Offload, readOffload } from '../../../src/dataplane/offload.ts';
import { partialChecksumStart } from '../../../src/dataplane/partial-checksum.ts';
import {
  isIcmpError,
  QuotedPacket,
  readQuotedPacket,
} from '../../../src/routing-mesh/icmp-error.ts';
import { answerArp, arpSenderAt, arpTargetAt, isArpRequest } from '../../../src/vxlan/arp.ts';
import { NOT_VXLAN, readVxlanVni, writeVxlanHeader } from '../../../src/vxlan/header.ts';
import {
  answerProbe,
  PROBE_KIND,
  PROBE_REPLY_KIND,
  readProbeReply,
  writeProbe,
} from '../../../src/vxlan/path-probe.ts';
import {
  ethernetFrame,
  type FrameSpec,
  makePacketMemory,
  randomBytes,
  slowSegments,
  vxlanDatagram,
} from '../../dataplane/frames.ts';
import {
  arpRequest,
  BLUE,
  FAMILIES,
  frameIn,
  GATEWAY,
  inFamily,
  NOW_MS,
  toIpv6,
  VIPS,
  VTEP,
  World,
} from '../../dataplane/world.ts';
import { type FuzzTarget, type Outcome, require } from '../target.ts';

const ALICE = '240.0.1.11:5000';
const BOB = '240.0.1.12:80';
const REMOTE = '240.0.1.13:80';
const CLIENT = '192.0.2.7:7000';
const toGateway = { toMac: GATEWAY_MAC } as const;

/** Frames of every kind that the switch decides about. */
const SPECS: readonly FrameSpec[] = [
  { from: ALICE, to: BOB, payload: randomBytes(40, 1) },
  { from: ALICE, to: REMOTE, protocol: PROTO_UDP, payload: randomBytes(9, 2) },
  { from: ALICE, to: `${VIPS.bob}:80`, ...toGateway, tcpFlags: TCP_SYN },
  { from: ALICE, to: `${VIPS.remote}:80`, ...toGateway, tcpOptions: Uint8Array.of(1, 1, 1, 1) },
  { from: ALICE, to: `${VIPS.nobody}:80`, ...toGateway, tcpFlags: TCP_SYN },
  { from: ALICE, to: `${VIPS.bob}:53`, ...toGateway, protocol: PROTO_UDP, moreFragments: true },
  { from: ALICE, to: `${VIPS.bob}:53`, ...toGateway, protocol: PROTO_UDP, fragmentOffset: 64 },
  { from: ALICE, to: `${GATEWAY}:0`, ...toGateway, protocol: PROTO_ICMP, icmpType: 8 },
  { from: ALICE, to: `${VIPS.bob}:0`, ...toGateway, protocol: PROTO_ICMP, icmpType: 8 },
  { from: CLIENT, to: `${VIPS.publishedBob}:80`, ...toGateway, tcpFlags: TCP_SYN },
  { from: CLIENT, to: `${VIPS.publishedRemote}:80`, ...toGateway, tcpFlags: TCP_FIN },
  { from: CLIENT, to: BOB, fromMac: GATEWAY_MAC, tcpFlags: TCP_RST },
  { from: BOB, to: ALICE, ipOptions: 3 },
];

function soundFrames(): readonly Uint8Array[] {
  return [
    ...FAMILIES.flatMap((family) => SPECS.map((spec) => ethernetFrame(frameIn(family, spec)))),
    neighborSolicitation('240.0.1.11', '240.0.1.13'),
    neighborSolicitation('240.0.1.11', GATEWAY),
    arpRequest('240.0.1.11', '240.0.1.13'),
    arpRequest('240.0.1.13', GATEWAY),
    icmpError(),
  ];
}

/** Who has `target`? Asked by `sender`, both named in IPv4 (RFC 4861). */
function neighborSolicitation(sender: string, target: string): Uint8Array {
  const asked = new Uint8Array(24);
  writeIp16(new DataView(asked.buffer), 0, toIpv6(parseIpv4(target)));
  asked.set([1, 1], 16);
  asked.set(macBytes(macOfIpv4(parseIpv4(sender))), 18);
  const [from, to] = [inFamily(6, sender), inFamily(6, target)];
  const spec = { from, to, protocol: PROTO_ICMPV6, icmpType: 135, payload: asked };
  const bytes = ethernetFrame({
    ...spec,
    toMac: 0x3333_ff00_0000 + (parseIpv4(target) & 0xff_ffff),
  });
  bytes[21] = 255; // hop limit: not from another link
  return bytes;
}

/** "Destination unreachable" about a packet that went through a VIP. */
function icmpError(): Uint8Array {
  const quoted = ethernetFrame({ from: ALICE, to: BOB }).slice(14, 14 + 28);
  const about = { from: BOB, to: ALICE, protocol: PROTO_ICMP, icmpType: 3, payload: quoted };
  return ethernetFrame(about);
}

const DICTIONARY: readonly Uint8Array[] = [
  Uint8Array.of(0x08, 0x00),
  Uint8Array.of(0x08, 0x06),
  Uint8Array.of(0x86, 0xdd),
  Uint8Array.of(0x45, 0x00),
  Uint8Array.of(0x60, 0, 0, 0),
  Uint8Array.of(0x20, 0x00), // more fragments
  Uint8Array.of(0, 43, 44, 51, 58, 60), // IPv6 next headers
  ...[PROTO_ICMP, PROTO_TCP, PROTO_UDP].map((protocol) => Uint8Array.of(protocol)),
  ...[...Object.values(VIPS), '240.0.1.11', '240.0.1.12', GATEWAY].map(addressBytes),
  macBytes(GATEWAY_MAC),
  macBytes(macOfIpv4(parseIpv4('240.0.1.12'))),
];

function addressBytes(text: string): Uint8Array {
  return Uint8Array.from(text.split('.').map(Number));
}

function macBytes(mac: number): Uint8Array {
  return Uint8Array.from({ length: 6 }, (_, index) => Math.floor(mac / 256 ** (5 - index)) & 0xff);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function textOfFields(value: object): string {
  return JSON.stringify(value, (_, field: unknown) =>
    typeof field === 'bigint' ? String(field) : field,
  );
}

/** Those with ports or types; all others are alike. */
const PROTOCOLS: readonly number[] = [PROTO_ICMP, PROTO_TCP, PROTO_UDP, PROTO_ICMPV6];

export const parse: FuzzTarget = {
  name: 'parse-frame',
  bytesMax: 256,
  seeds: soundFrames,
  dictionary: DICTIONARY,
  run(input) {
    const packet = new Packet();
    const view = viewOf(input);
    const fault = parseFrame(view, 0, input.length, packet);
    if (fault !== 'none') return { kind: fault, detail: fault };
    const { l4Start, l4HeaderBytes, ipStart, ipTotalBytes, length } = packet;
    const end = ipStart + ipTotalBytes;
    if (packet.family !== 0) {
      require(end <= input.length && length <= input.length, 'the packet ends within its frame');
      require(l4Start >= ipStart &&
        l4Start + l4HeaderBytes <= end, 'headers end within the packet');
    }
    let kind = `${packet.family} ${PROTOCOLS.includes(packet.protocol) ? packet.protocol : ''}`;
    const quoted = new QuotedPacket();
    if (packet.family !== 0 && isIcmpError(packet)) {
      kind += readQuotedPacket(view, packet, quoted) ? ' quotes' : ' quotes nothing';
    }
    return { kind, detail: textOfFields({ packet, quoted }) };
  },
};

export const header: FuzzTarget = {
  name: 'vxlan-header',
  bytesMax: 32,
  seeds: () => [vxlanDatagram(BLUE, Uint8Array.of(1, 2, 3)), Uint8Array.of(8, 0, 0)],
  run(input) {
    const vni = readVxlanVni(viewOf(input), 0, input.length);
    if (vni === NOT_VXLAN) return { kind: 'not-vxlan', detail: '' };
    writeVxlanHeader(viewOf(input), 0, vni);
    require(readVxlanVni(viewOf(input), 0, input.length) ===
      vni, 'a written header reads the same');
    return { kind: 'vni', detail: String(vni) };
  },
};

const PROBE = { sizeBytes: 48, sequence: 7, nonce: 0x0123_4567_89ab_cdefn, sentUs: 1_000_000n };

/** Path probes, and the replies to them. */
export const probes: FuzzTarget = {
  name: 'path-probes',
  bytesMax: 128,
  dictionary: [Uint8Array.of(PROBE_KIND), Uint8Array.of(PROBE_REPLY_KIND)],
  seeds() {
    const probe = new Uint8Array(PROBE.sizeBytes);
    writeProbe(viewOf(probe), 0, PROBE);
    const reply = Uint8Array.from(probe);
    return [probe, reply.subarray(0, answerProbe(viewOf(reply), 0, reply.length))];
  },
  run(input) {
    const view = viewOf(input);
    const said = readProbeReply(view, 0, input.length);
    if (said !== undefined) return { kind: 'reply', detail: textOfFields(said) };
    const bytes = answerProbe(view, 0, input.length);
    require(bytes <= input.length, 'an answer is never larger than its question');
    const answer = Buffer.from(input.subarray(0, bytes)).toString('hex');
    if (bytes === 0) return { kind: 'neither', detail: '' };
    require(readProbeReply(view, 0, bytes)?.sizeBytes === input.length, 'it tells what arrived');
    return { kind: 'probe', detail: answer };
  },
};

export const arp: FuzzTarget = {
  name: 'arp',
  bytesMax: 64,
  seeds: () => [arpRequest('240.0.1.11', '240.0.1.13')],
  run(input) {
    const view = viewOf(input);
    if (!isArpRequest(view, 0, input.length)) return { kind: 'no request', detail: '' };
    const asker = view.getUint32(arpSenderAt(0));
    const asked = `${asker} asks for ${view.getUint32(arpTargetAt(0))}`;
    answerArp(view, 0, macWords(GATEWAY_MAC));
    require(!isArpRequest(view, 0, input.length), 'an answer is no request');
    return { kind: 'request', detail: `${asked} ${Buffer.from(input).toString('hex')}` };
  },
};

export const offload: FuzzTarget = {
  name: 'offload-header',
  bytesMax: 12,
  seeds: () => [Uint8Array.of(1, 1, 54, 0, 120, 5, 34, 0, 16, 0), new Uint8Array(10)],
  run(input) {
    if (input.length < 10) return { kind: 'short', detail: '' };
    const read = new Offload();
    readOffload(viewOf(input), 0, read);
    return { kind: String(read.needsChecksum), detail: JSON.stringify(read) };
  },
};

/** Where a frame of a scenario comes from. */
const ORIGINS = ['alice', 'bob', 'carol', 'host', 'underlay'] as const;
/** Before each frame of a scenario: origin and flags, then the frame's length, big-endian. */
const RECORD_HEADER_BYTES = 3;
const PARTIAL_CHECKSUM = 0x80;
const FRAME_BYTES_MAX = 512;
const GUARD_BYTES = 64;

interface ScenarioFrame {
  readonly origin: (typeof ORIGINS)[number];
  readonly isPartial: boolean;
  readonly bytes: Uint8Array;
}

function scenario(frames: readonly ScenarioFrame[]): Uint8Array {
  return Buffer.concat(
    frames.flatMap(({ origin, isPartial, bytes }) => {
      const first = ORIGINS.indexOf(origin) | (isPartial ? PARTIAL_CHECKSUM : 0);
      return [Uint8Array.of(first, bytes.length >>> 8, bytes.length & 0xff), bytes];
    }),
  );
}

function* framesOf(input: Uint8Array): Generator<ScenarioFrame> {
  for (let at = 0; at + RECORD_HEADER_BYTES <= input.length; ) {
    const [first = 0, high = 0, low = 0] = input.subarray(at, at + RECORD_HEADER_BYTES);
    const from = at + RECORD_HEADER_BYTES;
    const bytes = input.subarray(from, from + Math.min(FRAME_BYTES_MAX, high * 256 + low));
    const origin = ORIGINS[(first & ~PARTIAL_CHECKSUM) % ORIGINS.length] ?? 'alice';
    yield { origin, isPartial: (first & PARTIAL_CHECKSUM) !== 0, bytes };
    at = from + bytes.length;
  }
}

let world = makeWorld();
const newFlows = world.flows.slice();
/** Longer than a fragmented datagram is remembered. */
const BETWEEN_SCENARIOS_MS = 40_000;
/** Times in the tables go round after 248 days. */
const SCENARIOS_MAX = 500_000;
let scenarios = 0;

function makeWorld(): World {
  return new World(new DataView(new ArrayBuffer(1_024)));
}

/** Frames to one switch one after the other: from its ports, and from the underlay. */
export const frames: FuzzTarget = {
  name: 'frames',
  bytesMax: 1_024,
  dictionary: DICTIONARY,
  seeds() {
    const sound = soundFrames();
    const alone = sound.flatMap((bytes) =>
      (['alice', 'host', 'underlay'] as const).map((origin) =>
        scenario([{ origin, isPartial: false, bytes }]),
      ),
    );
    const request = ethernetFrame({ from: ALICE, to: `${VIPS.bob}:80`, ...toGateway });
    const reply = ethernetFrame({ from: BOB, to: ALICE });
    return [
      ...alone,
      scenario([
        { origin: 'alice', isPartial: false, bytes: request },
        { origin: 'bob', isPartial: true, bytes: reply },
        { origin: 'bob', isPartial: false, bytes: icmpError() },
      ]),
    ];
  },
  run(input) {
    const outside = behind(input);
    // A new world would take longer than all that happens in it: this one begins anew, later.
    scenarios = (scenarios + 1) % SCENARIOS_MAX;
    if (scenarios === 0) world = makeWorld();
    world.flows.set(newFlows);
    let nowMs = NOW_MS + scenarios * BETWEEN_SCENARIOS_MS;
    const kinds: string[] = [];
    const details: string[] = [];
    for (const frame of framesOf(input)) {
      const { kind, detail } = decideIn(frame, outside, nowMs);
      kinds.push(kind);
      details.push(detail);
      nowMs += 300;
    }
    return { kind: kinds.at(-1) ?? 'nothing', detail: details.join('\n') };
  },
};

/** What the engine put behind the input: 0 if nothing. */
function behind(input: Uint8Array): number {
  return new Uint8Array(input.buffer)[input.byteOffset + input.length] ?? 0;
}

function decideIn(
  { origin, isPartial, bytes }: ScenarioFrame,
  outside: number,
  nowMs: number,
): Outcome {
  const { decide, start, scratch } = world;
  world.bytes.fill(outside);
  world.bytes.set(bytes, start);
  const end = start + bytes.length;
  const decision = decideAbout(origin, bytes.length, isPartial, nowMs);
  const isUntouched =
    world.bytes.subarray(0, scratch).every((byte) => byte === outside) &&
    world.bytes.subarray(end, end + GUARD_BYTES).every((byte) => byte === outside);
  require(isUntouched, 'nothing is written outside of frame and scratch');
  const kind = kindOf(decision, bytes.length);
  const from = decision.action === 'back' ? decision.answerStart : start;
  const length = decision.action === 'back' ? decision.answerBytes : bytes.length;
  const said = Buffer.from(world.bytes.subarray(from, from + length)).toString('hex');
  require(decide.packet.length <= bytes.length || decision.action === 'back', 'no frame grows');
  return { kind, detail: `${kind} ${said}` };
}

function decideAbout(
  origin: ScenarioFrame['origin'],
  length: number,
  isPartial: boolean,
  nowMs: number,
): Decision {
  const { decide, ports, start } = world;
  if (origin !== 'underlay') {
    return decide.fromPort(ports[origin], start, length, isPartial, nowMs);
  }
  const network = decide.networks.get(BLUE);
  if (network === undefined) throw new Error('The world has a blue network');
  return decide.fromVtep(network, start, length, isPartial, nowMs);
}

/** The decision in a word, after a look at whether it can be. */
function kindOf(decision: Decision, length: number): string {
  const { action, port, peer, drop, answer, answerStart, answerBytes } = decision;
  switch (action) {
    case 'port': {
      const name = Object.entries(world.ports).find(([, one]) => one === port)?.[0];
      require(name !== undefined, 'a frame goes to a port that exists');
      return `port ${name}`;
    }
    case 'vtep':
      require(peer?.address === VTEP && decision.vni === BLUE, 'a frame goes to the peer');
      return 'vtep';
    case 'back': {
      const isOwn = answerStart === world.scratch && answerBytes <= world.start - world.scratch;
      require(isOwn || (answerStart === world.start && answerBytes <= length), 'an answer fits');
      return answer;
    }
    case 'drop':
      require(DROP_REASONS[drop] !== undefined, 'a drop has a reason');
      return `drop ${DROP_REASONS[drop]}`;
  }
}

const memory = makePacketMemory();
const coalescer = new Coalescer(memory.arena, memory.checksum);
const RUN_BYTES_MAX = 2_048;
const runAt = memory.arena.allocate(RUN_BYTES_MAX + 2 * GUARD_BYTES) + GUARD_BYTES;
/** In front of a run: the distance between datagrams, big-endian. */
const STRIDE_BYTES = 2;

function run(spec: FrameSpec, gsoBytes: number): Uint8Array {
  const datagrams = slowSegments(ethernetFrame(spec), gsoBytes).map((one) =>
    vxlanDatagram(BLUE, one),
  );
  const stride = datagrams[0]?.length ?? 0;
  return Buffer.concat([Uint8Array.of(stride >>> 8, stride & 0xff), ...datagrams]);
}

/** Datagrams of one receive: which of them are joined, and how. */
export const runs: FuzzTarget = {
  name: 'runs',
  bytesMax: RUN_BYTES_MAX,
  dictionary: DICTIONARY,
  seeds: () => [
    run({ from: CLIENT, to: BOB, payload: randomBytes(70, 9), sequence: 0xffff_fff0 }, 20),
    run({ from: CLIENT, to: BOB, payload: randomBytes(70, 9), protocol: PROTO_UDP }, 20),
    run({ from: '[fd00::1]:5000', to: '[fd00::2]:80', payload: randomBytes(64, 9) }, 20),
    run({ from: ALICE, to: BOB, payload: randomBytes(8, 9), ipOptions: 2 }, 20),
  ],
  run(input) {
    if (input.length < STRIDE_BYTES) return { kind: 'short', detail: '' };
    const stride = Math.max(1, viewOf(input).getUint16(0));
    const bytes = input.subarray(STRIDE_BYTES);
    const { arena, checksum } = memory;
    const end = runAt + bytes.length;
    arena.bytes.fill(behind(input), runAt - GUARD_BYTES, end + GUARD_BYTES);
    arena.bytes.set(bytes, runAt);
    coalescer.join(runAt, stride, end);
    const { segments, headerBytes, gsoBytes, payloadBytes, gsoType } = coalescer;
    const isWhole = arena.bytes
      .subarray(end, end + GUARD_BYTES)
      .every((at) => at === behind(input));
    require(isWhole, 'nothing is written behind the run');
    if (segments === 1) {
      const length = Math.min(stride, bytes.length) - 8;
      const partial =
        length > 0 ? partialChecksumStart(arena.view, checksum, runAt + 8, length) : 0;
      require(partial <= Math.max(0, length), 'a checksum starts within the frame');
      return { kind: partial === 0 ? 'single' : 'partial', detail: String(partial) };
    }
    requireVectors(runAt, end);
    const joined = arena.bytes.subarray(runAt, runAt + 8 + headerBytes);
    const shape = { segments, headerBytes, gsoBytes, payloadBytes, gsoType };
    const detail = `${JSON.stringify(shape)} ${Buffer.from(joined).toString('hex')}`;
    return { kind: `joined ${gsoType} ${Math.min(segments, 3)}`, detail };
  },
};

/** What is joined is a part of what was received, and all of the payload. */
function requireVectors(start: number, end: number): void {
  const { arena } = memory;
  const { segments, gsoBytes, payloadBytes, headerBytes, iovecs } = coalescer;
  let joined = gsoBytes;
  for (let index = 1; index < segments; index += 1) {
    const vector = iovecs + index * 16;
    const source = Number(arena.view.getBigUint64(vector, true)) - arena.base;
    const length = arena.view.getUint32(vector + 8, true);
    require(source >= start && source + length <= end, 'an iovec leads into the run');
    joined += length;
  }
  require(joined === payloadBytes, 'the segments are the payload');
  require(headerBytes - 14 + payloadBytes <= 65_535, 'the length has room in its field');
}
