import fc from 'fast-check';
import { test } from 'tap';
import { AddressWords } from '../../src/core/address-words.ts';
import {
  formatIp,
  formatIpPort,
  type Ip,
  ipFromWords,
  ipWords,
  isIpv6,
  parseIp,
} from '../../src/core/ip.ts';
import {
  PROTO_ICMP,
  PROTO_ICMPV6,
  PROTO_TCP,
  PROTO_UDP,
  TCP_ACK,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
} from '../../src/core/packet.ts';
import {
  QuotedPacket,
  readQuotedPacket,
  rewriteIcmpError,
} from '../../src/routing-mesh/icmp-error.ts';
import { Rewrite, rewritePacket } from '../../src/routing-mesh/nat.ts';
import {
  TCP_RESET_FRAME_BYTES_MAX,
  writeEchoReply,
  writeTcpReset,
} from '../../src/routing-mesh/replies.ts';
import { frame, parsed, wrongChecksums } from './packets.ts';

const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const port = fc.integer({ min: 0, max: 0xffff });
const ipv4 = fc.integer({ min: 0, max: 0xffff_ffff });
const ipv6 = fc
  .tuple(word, word, word, word)
  .map((words) => ipFromWords(...words))
  .filter(isIpv6);

/** Who talks to whom. */
interface Ends {
  readonly source: Ip;
  readonly destination: Ip;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

function endsOf(address: fc.Arbitrary<Ip>): fc.Arbitrary<Ends> {
  const fields = { source: address, destination: address, sourcePort: port, destinationPort: port };
  return fc.record(fields);
}

/** The ends of a packet, what they become, and a third party; all of one family. */
const change = fc
  .constantFrom<fc.Arbitrary<Ip>>(ipv4, ipv6)
  .chain((address) => fc.record({ before: endsOf(address), to: endsOf(address), router: address }));

function rewriteTo({ source, destination, sourcePort, destinationPort }: Ends): Rewrite {
  const rewrite = new Rewrite();
  rewrite.source.set(...ipWords(source));
  rewrite.destination.set(...ipWords(destination));
  return Object.assign(rewrite, { sourcePort, destinationPort });
}

function from(ends: Ends): { from: string; to: string } {
  return {
    from: formatIpPort(ends.source, ends.sourcePort),
    to: formatIpPort(ends.destination, ends.destinationPort),
  };
}

/** The ends that the frame in `view` has, read back from its bytes. */
function endsIn(view: DataView): Ends {
  const packet = parsed(view);
  const words = new AddressWords();
  words.read(view, packet.sourceStart, packet.family);
  const source = words.toIp();
  words.read(view, packet.destinationStart, packet.family);
  const { sourcePort, destinationPort } = packet;
  return { source, destination: words.toIp(), sourcePort, destinationPort };
}

for (const [name, protocol, partial] of [
  ['TCP', PROTO_TCP, false],
  ['UDP', PROTO_UDP, false],
  ['TCP with a partial checksum', PROTO_TCP, true],
  ['UDP with a partial checksum', PROTO_UDP, true],
] as const) {
  test(`rewritePacket() keeps every checksum of ${name} right`, (t) => {
    fc.assert(
      fc.property(
        change,
        fc.uint8Array({ maxLength: 80 }),
        fc.nat({ max: 10 }),
        ({ before, to }, payload, ipOptions) => {
          const view = frame({ ...from(before), protocol, payload, partial, ipOptions });
          const packet = parsed(view);
          const length = view.byteLength;
          const bytesBefore = new Uint8Array(
            view.buffer.slice(packet.l4Start + packet.l4HeaderBytes),
          );
          rewritePacket(view, packet, rewriteTo(to), partial);
          t.same(wrongChecksums(view, 0, partial), []);
          t.same(parsed(view), packet);
          t.same(endsIn(view), to);
          t.same(new Uint8Array(view.buffer.slice(length - payload.length)), bytesBefore);
        },
      ),
      { numRuns: 150 },
    );
    t.end();
  });
}

test('rewritePacket() leaves a UDP checksum of 0 alone: it says "none"', (t) => {
  const ends = { from: '10.0.0.1:1', to: '10.0.0.2:2' };
  const view = frame({ ...ends, protocol: PROTO_UDP, noChecksum: true });
  rewritePacket(
    view,
    parsed(view),
    rewriteTo({ source: 1, destination: 2, sourcePort: 3, destinationPort: 4 }),
    false,
  );
  t.equal(view.getUint16(40), 0);
  t.same(wrongChecksums(view), []);
  t.end();
});

test('rewritePacket() sends a UDP sum of zero as all ones', (t) => {
  for (const ends of [
    { from: '10.0.0.1:1', to: '10.0.0.2:2' },
    { from: '[fd00::1]:1', to: '[fd00::2]:2' },
  ]) {
    const view = frame({ ...ends, protocol: PROTO_UDP });
    const packet = parsed(view);
    const checksumAt = packet.l4Start + 6;
    // The checksum is ~sum, so a port raised by the checksum brings the sum to all ones.
    const raised = { ...endsIn(view), destinationPort: 2 + view.getUint16(checksumAt) };
    rewritePacket(view, packet, rewriteTo(raised), false);
    t.equal(view.getUint16(checksumAt), 0xffff);
    t.same(wrongChecksums(view), []);
  }
  t.end();
});

test('rewritePacket() changes ports and transport checksum of a first fragment only', (t) => {
  const bytes = fc.uint8Array({ minLength: 24, maxLength: 64 });
  fc.assert(
    fc.property(change, bytes, ({ before, to }, data) => {
      const spec = { ...from(before), protocol: PROTO_UDP };
      const whole = frame({ ...spec, payload: data });
      const first = frame({ ...spec, payload: data.slice(0, 16), moreFragments: true });
      const later = frame({ ...spec, payload: data.slice(16), fragmentOffset: 24 });
      // The first fragment carries the checksum and length of the whole datagram.
      const l4 = { whole: parsed(whole).l4Start, first: parsed(first).l4Start };
      first.setUint32(l4.first + 4, whole.getUint32(l4.whole + 4));
      for (const view of [first, later]) rewritePacket(view, parsed(view), rewriteTo(to), false);
      t.same(wrongChecksums(first), []);
      t.same(wrongChecksums(later), []);
      // Reassembled, it is the datagram as NAT would have sent it whole.
      const parts = [first, later].map((view) => view.buffer.slice(parsed(view).l4Start));
      const joined = Buffer.concat(parts.map((part) => new Uint8Array(part)));
      rewritePacket(whole, parsed(whole), rewriteTo(to), false);
      t.same(endsIn(whole), to);
      t.same(new Uint8Array(joined), new Uint8Array(whole.buffer.slice(l4.whole)));
    }),
    { numRuns: 60 },
  );
  t.end();
});

// How much of the transport header is quoted: RFC 792 wants 8 bytes, RFC 4443 all that fits.
for (const [name, protocol, quotedBytes] of [
  ['TCP, 8 bytes of it', PROTO_TCP, 8],
  ['TCP, the whole header', PROTO_TCP, 28],
  ['UDP', PROTO_UDP, 8],
  ['UDP with data', PROTO_UDP, 28],
  ['an ICMP echo', PROTO_ICMP, 8],
] as const) {
  test(`rewriteIcmpError() keeps every checksum of an error that quotes ${name} right`, (t) => {
    fc.assert(
      fc.property(change, fc.nat({ max: 3 }), ({ before, to, router }, ipOptions) => {
        const isV6 = isIpv6(router);
        const icmp = isV6 ? PROTO_ICMPV6 : PROTO_ICMP;
        const quotedProtocol = protocol === PROTO_ICMP ? icmp : protocol;
        const payload = new Uint8Array(20).fill(7);
        const original = frame({ ...from(before), protocol: quotedProtocol, payload, ipOptions });
        const quote = original.buffer.slice(14, parsed(original).l4Start + quotedBytes);
        const view = frame({
          from: formatIp(router),
          to: formatIp(before.source),
          protocol: icmp,
          icmpType: isV6 ? 1 : 3,
          payload: new Uint8Array(quote),
        });
        const quoted = new QuotedPacket();
        const packet = parsed(view);
        t.equal(readQuotedPacket(view, packet, quoted), true);
        t.same(
          [quoted.source.toIp(), quoted.destination.toIp()],
          [before.source, before.destination],
        );
        rewriteIcmpError(view, packet, quoted, rewriteTo(to));
        t.same(wrongChecksums(view), []);
        t.match(endsIn(view), { source: to.source, destination: to.destination });
        t.same(parsed(view), packet);

        // The quote, completed with what was cut off, is the original as NAT would have sent it.
        const whole = new Uint8Array(original.buffer.slice(0));
        whole.set(new Uint8Array(view.buffer.slice(packet.l4Start + 8)), 14);
        const restored = new DataView(whole.buffer);
        const isCut = protocol === PROTO_TCP && quotedBytes === 8;
        t.same(wrongChecksums(restored), isCut ? ['transport'] : []);
        t.match(endsIn(restored), {
          source: to.destination,
          destination: to.source,
          ...(protocol === PROTO_ICMP
            ? {}
            : { sourcePort: to.destinationPort, destinationPort: to.sourcePort }),
        });
      }),
      { numRuns: 100 },
    );
    t.end();
  });
}

for (const [what, change, quotedBytes] of [
  ['cut off inside its addresses', undefined, 39],
  ['cut off before its ports end', undefined, 47],
  ['of another IP version', { at: 0, value: 0x45 }, 48],
  ['with a header that does not end', { at: 6, value: 60 }, 48],
  ['of a protocol without flows', { at: 6, value: 47 }, 48],
  ['of ICMPv4', { at: 6, value: PROTO_ICMP }, 48],
] as const) {
  test(`readQuotedPacket() refuses an IPv6 quote ${what}`, (t) => {
    const original = frame({ from: '[fd00::1]:1', to: '[fd00::2]:2' });
    const payload = new Uint8Array(original.buffer.slice(14, 14 + quotedBytes));
    if (change !== undefined) payload[change.at] = change.value;
    const view = frame({
      from: 'fd00::3',
      to: 'fd00::1',
      protocol: PROTO_ICMPV6,
      icmpType: 3,
      payload,
    });
    t.equal(readQuotedPacket(view, parsed(view), new QuotedPacket()), false);
    t.end();
  });
}

test('readQuotedPacket() refuses an IPv6 quote of a later fragment', (t) => {
  const ends = { from: '[fd00::1]:1', to: '[fd00::2]:2', payload: new Uint8Array(16) };
  for (const [fragmentOffset, expected] of [
    [0, true],
    [8, false],
  ] as const) {
    const original = frame({ ...ends, moreFragments: true, fragmentOffset });
    const payload = new Uint8Array(original.buffer.slice(14));
    const error = { protocol: PROTO_ICMPV6, icmpType: 1, payload };
    const view = frame({ from: 'fd00::3', to: 'fd00::1', ...error });
    t.equal(readQuotedPacket(view, parsed(view), new QuotedPacket()), expected);
  }
  t.end();
});

for (const [what, change, quotedBytes] of [
  ['cut off inside its addresses', undefined, 19],
  ['cut off before its ports end', undefined, 27],
  ['of another IP version', { at: 0, value: 0x65 }, 28],
  ['with an impossible header length', { at: 0, value: 0x44 }, 28],
  ['with options beyond its end', { at: 0, value: 0x4f }, 28],
  ['of a later fragment', { at: 7, value: 1 }, 28],
  ['of a protocol without flows', { at: 9, value: 47 }, 28],
] as const) {
  test(`readQuotedPacket() refuses a quote ${what}`, (t) => {
    const payload = new Uint8Array(
      frame({ from: '10.0.0.1:1', to: '10.0.0.2:2' }).buffer.slice(14, 14 + quotedBytes),
    );
    if (change !== undefined) payload[change.at] = change.value;
    const view = frame({
      from: '10.0.0.3',
      to: '10.0.0.1',
      protocol: PROTO_ICMP,
      icmpType: 11,
      payload,
    });
    t.equal(readQuotedPacket(view, parsed(view), new QuotedPacket()), false);
    t.end();
  });
}

/** Room for the answer behind the frame, filled with garbage as a reused arena is. */
function withRoom(view: DataView): DataView {
  const bytes = new Uint8Array(view.byteLength + TCP_RESET_FRAME_BYTES_MAX).fill(0xa5);
  bytes.set(new Uint8Array(view.buffer));
  return new DataView(bytes.buffer);
}

// RFC 9293 section 3.10.7.1, "If the state is CLOSED".
for (const [what, tcpFlags, payloadBytes, sequence, acknowledgment, flags] of [
  ['a SYN', TCP_SYN, 0, 0, 1001, TCP_RST | TCP_ACK],
  ['a FIN with data and no ACK', TCP_FIN, 10, 0, 1011, TCP_RST | TCP_ACK],
  ['data and no flags', 0, 5, 0, 1005, TCP_RST | TCP_ACK],
  ['an ACK with data', TCP_ACK, 10, 2000, 0, TCP_RST],
  ['a SYN-ACK', TCP_SYN | TCP_ACK, 0, 2000, 0, TCP_RST],
] as const) {
  test(`writeTcpReset() answers ${what}`, (t) => {
    const payload = new Uint8Array(payloadBytes).fill(9);
    for (const [from, to, ipBytes] of [
      ['192.0.2.7:5000', '10.0.0.254:80', 20],
      ['[2001:db8::7]:5000', '[fd00::fe]:80', 40],
    ] as const) {
      const segment = frame({ from, to, tcpFlags, payload, ipOptions: 2 });
      const view = withRoom(segment);
      const packet = parsed(view, segment.byteLength);
      const bytes = 14 + ipBytes + 20;
      t.equal(writeTcpReset(view, segment.byteLength, packet), bytes);
      const answer = new DataView(
        view.buffer.slice(segment.byteLength, segment.byteLength + bytes),
      );
      t.same(wrongChecksums(answer), []);
      t.match(parsed(answer), {
        sourceMac: packet.destinationMac,
        destinationMac: packet.sourceMac,
        tcpFlags: flags,
        ipTotalBytes: ipBytes + 20,
      });
      const { source, destination, sourcePort, destinationPort } = endsIn(answer);
      t.equal(formatIpPort(source, sourcePort), to);
      t.equal(formatIpPort(destination, destinationPort), from);
      t.equal(answer.getUint32(14 + ipBytes + 4), sequence);
      t.equal(answer.getUint32(14 + ipBytes + 8), acknowledgment);
    }
    t.end();
  });
}

test('writeTcpReset() never answers a reset, nor what is not TCP', (t) => {
  for (const spec of [
    { tcpFlags: TCP_RST },
    { tcpFlags: TCP_RST | TCP_ACK },
    { protocol: PROTO_UDP },
  ]) {
    const segment = frame({ from: '192.0.2.7:5000', to: '10.0.0.254:80', ...spec });
    const view = withRoom(segment);
    t.equal(writeTcpReset(view, segment.byteLength, parsed(view, segment.byteLength)), 0);
    t.equal(view.getUint8(segment.byteLength), 0xa5);
  }
  t.end();
});

const PINGS = [
  { from: '10.0.0.5', to: '10.0.0.254', protocol: PROTO_ICMP, reply: 0 },
  { from: 'fd00::5', to: 'fd00::fe', protocol: PROTO_ICMPV6, reply: 129 },
] as const;

test('writeEchoReply() turns a ping of any size round', (t) => {
  fc.assert(
    fc.property(
      fc.constantFrom(...PINGS),
      fc.uint8Array({ maxLength: 100 }),
      port,
      ({ from, to, protocol, reply }, payload, id) => {
        const view = frame({ from: formatIpPort(parseIp(from), id), to, protocol, payload });
        const packet = parsed(view);
        writeEchoReply(view, packet);
        t.same(wrongChecksums(view), []);
        t.match(parsed(view), {
          sourceMac: packet.destinationMac,
          destinationMac: packet.sourceMac,
          icmpType: reply,
          sourcePort: id,
        });
        t.match(endsIn(view), { source: parseIp(to), destination: parseIp(from) });
        t.same(new Uint8Array(view.buffer.slice(view.byteLength - payload.length)), payload);
      },
    ),
    { numRuns: 100, examples: [[PINGS[0], new Uint8Array(0), 0]] }, // a reply of zeros only
  );
  for (const { from, to, protocol } of PINGS) {
    const payload = Uint8Array.of(8, 0, 1, 2);
    const later = frame({ from, to, protocol, fragmentOffset: 8, payload });
    writeEchoReply(later, parsed(later));
    t.same(wrongChecksums(later), []);
    t.match(endsIn(later), { source: parseIp(to), destination: parseIp(from) });
    t.same(new Uint8Array(later.buffer.slice(parsed(later).l4Start)), payload, 'data stays data');
  }
  t.end();
});
