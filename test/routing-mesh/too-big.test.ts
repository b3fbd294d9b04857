import fc from 'fast-check';
import { test } from 'tap';
import { GATEWAY_MAC, parseIpv4 } from '../../src/core/address.ts';
import { AddressWords } from '../../src/core/address-words.ts';
import { sum16BigEndian } from '../../src/core/checksum.ts';
import { parseIpv6, writeIp16 } from '../../src/core/ip.ts';
import {
  type Packet,
  PROTO_ICMP,
  PROTO_ICMPV6,
  PROTO_UDP,
  readMac,
} from '../../src/core/packet.ts';
import { QuotedPacket, readQuotedPacket } from '../../src/routing-mesh/icmp-error.ts';
import { TOO_BIG_FRAME_BYTES_MAX, writeTooBig } from '../../src/routing-mesh/too-big.ts';
import { frame, type PacketSpec, parsed, wrongChecksums } from './packets.ts';

const GATEWAY = AddressWords.of(parseIpv4('10.0.0.1'));
const GATEWAY6 = AddressWords.of(parseIpv6('fd00::1'));
const SENDER6 = parseIpv6('fd00::5');
const GUARD = 0xee;

/** Writes the answer to `packet` behind it; returns the answer alone. */
function answer(view: DataView, packet: Packet, from: AddressWords, mtu: number): DataView {
  const bytes = new Uint8Array(view.byteLength + TOO_BIG_FRAME_BYTES_MAX + 8).fill(GUARD);
  bytes.set(new Uint8Array(view.buffer));
  const written = writeTooBig(new DataView(bytes.buffer), view.byteLength, packet, from, mtu);
  const tail = bytes.subarray(view.byteLength + written);
  if (!tail.every((byte) => byte === GUARD)) throw new Error('The answer is longer than it says');
  return new DataView(bytes.buffer.slice(view.byteLength, view.byteLength + written));
}

function answer4(spec: Partial<PacketSpec>, mtu: number): DataView {
  const view = frame({ from: '10.0.0.5:4000', to: '10.0.0.6:80', protocol: PROTO_UDP, ...spec });
  return answer(view, parsed(view), GATEWAY, mtu);
}

test('writeTooBig() tells an IPv4 sender the next hop MTU, as the gateway', (t) => {
  const reply = answer4({ payload: new Uint8Array(1400).fill(7) }, 1230);
  const packet = parsed(reply);
  t.match(packet, {
    source: parseIpv4('10.0.0.1'),
    destination: parseIpv4('10.0.0.5'),
    protocol: PROTO_ICMP,
    icmpType: 3,
    sourceMac: GATEWAY_MAC,
    isFragment: false,
  });
  t.equal(packet.destinationMac, 0x0242_0a00_0001, 'the MAC that the packet came from');
  t.equal(reply.getUint8(packet.l4Start + 1), 4, 'fragmentation needed and DF set');
  t.equal(reply.getUint16(packet.l4Start + 6), 1230, 'RFC 1191 section 4');
  t.equal(packet.ipTotalBytes, 576, 'RFC 1812 section 4.3.2.3');
  t.same(wrongChecksums(reply), []);
  t.end();
});

test('writeTooBig() quotes what the sender needs to find its socket', (t) => {
  const reply = answer4({ payload: new Uint8Array(1400) }, 1230);
  const quoted = new QuotedPacket();
  t.equal(readQuotedPacket(reply, parsed(reply), quoted), true);
  t.match(quoted, {
    protocol: PROTO_UDP,
    source: AddressWords.of(parseIpv4('10.0.0.5')),
    destination: AddressWords.of(parseIpv4('10.0.0.6')),
    sourcePort: 4000,
    destinationPort: 80,
  });
  t.end();
});

test('writeTooBig() quotes a short packet whole', (t) => {
  for (const length of [0, 1, 100, 519, 520, 521]) {
    const view = frame({
      from: '10.0.0.5:1',
      to: '10.0.0.6:2',
      protocol: PROTO_UDP,
      payload: new Uint8Array(length).fill(9),
    });
    const reply = answer(view, parsed(view), GATEWAY, 100);
    const quote = new Uint8Array(reply.buffer).subarray(14 + 28);
    const original = new Uint8Array(view.buffer).subarray(14);
    t.equal(quote.length, Math.min(original.length, 576 - 28));
    t.same(quote, original.subarray(0, quote.length));
    t.same(wrongChecksums(reply), []);
  }
  t.end();
});

for (const [name, spec] of [
  ['a later fragment', { fragmentOffset: 1480 }],
  ['an ICMP error', { protocol: PROTO_ICMP, icmpType: 3 }],
  ['an ICMP redirect', { protocol: PROTO_ICMP, icmpType: 5 }],
] as const) {
  test(`writeTooBig() does not answer ${name}`, (t) => {
    t.equal(answer4({ ...spec, payload: new Uint8Array(1400) }, 1230).byteLength, 0);
    t.end();
  });
}

test('writeTooBig() answers a ping and a first fragment', (t) => {
  for (const spec of [{ protocol: PROTO_ICMP, icmpType: 8 }, { moreFragments: true }]) {
    const reply = answer4({ ...spec, payload: new Uint8Array(1400) }, 1230);
    t.same(wrongChecksums(reply), []);
    t.ok(reply.byteLength > 0);
  }
  t.end();
});

test('writeTooBig() answers nothing but IP', (t) => {
  const view = new DataView(new ArrayBuffer(60));
  view.setUint16(12, 0x0806);
  t.equal(answer(view, parsed(view), GATEWAY, 1230).byteLength, 0);
  t.end();
});

function packet6(protocol: number, payloadBytes: number, icmpType = 128): [DataView, Packet] {
  const payload = Uint8Array.from({ length: payloadBytes - 8 }, (_, at) => at & 0xff);
  const view = frame({ from: '[fd00::5]:4000', to: '[fd00::6]:80', protocol, payload, icmpType });
  return [view, parsed(view)];
}

for (const [payloadBytes, mtu, told, quoted] of [
  [1400, 1430, 1430, 1232],
  [1400, 1230, 1280, 1232],
  [60_000, 1430, 1430, 1232],
  [1193, 1280, 1280, 1232],
  [1191, 1280, 1280, 1231],
  [30, 1280, 1280, 70],
] as const) {
  test(`writeTooBig() answers ${payloadBytes} bytes over IPv6 that must fit ${mtu}`, (t) => {
    const [view, packet] = packet6(PROTO_UDP, payloadBytes);
    const reply = answer(view, packet, GATEWAY6, mtu);
    const bytes = new Uint8Array(reply.buffer);
    t.equal(reply.byteLength, 14 + 40 + 8 + quoted, 'RFC 4443 section 2.4 (c)');
    t.equal(readMac(reply, 0), packet.sourceMac);
    t.equal(readMac(reply, 6), GATEWAY_MAC);
    t.equal(reply.getUint16(18), 8 + quoted);
    t.same([...bytes.subarray(20, 22)], [PROTO_ICMPV6, 64]);
    const addresses = new DataView(new ArrayBuffer(32));
    writeIp16(addresses, 0, parseIpv6('fd00::1'));
    writeIp16(addresses, 16, SENDER6);
    t.same(bytes.subarray(22, 54), new Uint8Array(addresses.buffer));
    t.equal(reply.getUint16(54), 0x0200);
    t.equal(reply.getUint32(58), told);
    t.same(bytes.subarray(62), new Uint8Array(view.buffer).subarray(14, 14 + quoted));
    const sum = sum16BigEndian(reply, 22, 32 + 8 + quoted) + 8 + quoted + PROTO_ICMPV6;
    t.equal(sum % 0xffff, 0, 'the checksum, pseudo-header included');
    t.end();
  });
}

test('writeTooBig() never answers an ICMPv6 error', (t) => {
  for (const [type, isAnswered] of [
    [1, false],
    [2, false],
    [127, false],
    [128, true],
    [129, true],
  ] as const) {
    const [view, packet] = packet6(PROTO_ICMPV6, 1400, type);
    t.equal(answer(view, packet, GATEWAY6, 1280).byteLength > 0, isAnswered, `type ${type}`);
  }
  t.end();
});

test('an answer to any packet is sound', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 3000 }),
      fc.integer({ min: 68, max: 65_535 }),
      fc.nat({ max: 10 }),
      (length, mtu, ipOptions) => {
        const payload = new Uint8Array(length).fill(0xa5);
        const reply = answer4({ payload, ipOptions }, mtu);
        t.same(wrongChecksums(reply), []);
        t.equal(reply.getUint16(14 + 26), mtu);
      },
    ),
  );
  t.end();
});
