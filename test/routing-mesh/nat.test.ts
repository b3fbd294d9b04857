import fc from 'fast-check';
import { test } from 'tap';
import { formatIpv4, parseIpv4 } from '../../src/core/address.ts';
import {
  PROTO_ICMP,
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
import { type Rewrite, rewritePacket } from '../../src/routing-mesh/nat.ts';
import {
  TCP_RESET_FRAME_BYTES,
  writeEchoReply,
  writeTcpReset,
} from '../../src/routing-mesh/replies.ts';
import { frame, parsed, wrongChecksums } from './packets.ts';

const address = fc.integer({ min: 0, max: 0xffff_ffff });
const port = fc.integer({ min: 0, max: 0xffff });
const rewriteTo: fc.Arbitrary<Rewrite> = fc.record({
  source: address,
  destination: address,
  sourcePort: port,
  destinationPort: port,
});
const ends = fc.record({
  source: address,
  destination: address,
  sourcePort: port,
  destinationPort: port,
});

function from(end: Rewrite): { from: string; to: string } {
  return {
    from: `${formatIpv4(end.source)}:${end.sourcePort}`,
    to: `${formatIpv4(end.destination)}:${end.destinationPort}`,
  };
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
        ends,
        rewriteTo,
        fc.uint8Array({ maxLength: 80 }),
        fc.nat({ max: 10 }),
        (before, to, payload, ipOptions) => {
          const view = frame({ ...from(before), protocol, payload, partial, ipOptions });
          const packet = parsed(view);
          const length = view.byteLength;
          const bytesBefore = new Uint8Array(
            view.buffer.slice(packet.l4Start + packet.l4HeaderBytes),
          );
          rewritePacket(view, packet, to, partial);
          t.same(wrongChecksums(view, 0, partial), []);
          t.same(parsed(view), packet);
          t.match(packet, to);
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
    { source: 1, destination: 2, sourcePort: 3, destinationPort: 4 },
    false,
  );
  t.equal(view.getUint16(40), 0);
  t.same(wrongChecksums(view), []);
  t.end();
});

test('rewritePacket() sends a UDP sum of zero as all ones', (t) => {
  const view = frame({ from: '10.0.0.1:1', to: '10.0.0.2:2', protocol: PROTO_UDP });
  const packet = parsed(view);
  // The checksum is ~sum, so a port raised by the checksum brings the sum to all ones.
  const destinationPort = 2 + view.getUint16(40);
  const { source, destination } = packet;
  rewritePacket(view, packet, { source, destination, sourcePort: 1, destinationPort }, false);
  t.equal(view.getUint16(40), 0xffff);
  t.same(wrongChecksums(view), []);
  t.end();
});

test('rewritePacket() changes ports and transport checksum of a first fragment only', (t) => {
  fc.assert(
    fc.property(
      ends,
      rewriteTo,
      fc.uint8Array({ minLength: 24, maxLength: 64 }),
      (end, to, data) => {
        const tail = data.slice(16);
        const whole = frame({ ...from(end), protocol: PROTO_UDP, payload: data });
        const first = frame({
          ...from(end),
          protocol: PROTO_UDP,
          payload: data.slice(0, 16),
          moreFragments: true,
        });
        // The first fragment carries the checksum and length of the whole datagram.
        first.setUint16(38, whole.getUint16(38));
        first.setUint16(40, whole.getUint16(40));
        const later = frame({
          ...from(end),
          protocol: PROTO_UDP,
          payload: tail,
          fragmentOffset: 24,
        });
        for (const view of [first, later]) rewritePacket(view, parsed(view), to, false);
        t.same(wrongChecksums(first), []);
        t.same(wrongChecksums(later), []);
        // Reassembled:
        const joined = new Uint8Array(whole.buffer.slice(0));
        joined.set(new Uint8Array(first.buffer), 0);
        joined.set(new Uint8Array(later.buffer).subarray(34), 14 + 20 + 24);
        const view = new DataView(joined.buffer);
        view.setUint32(14 + 2, (whole.getUint16(16) << 16) | 1);
        view.setUint16(14 + 6, 0);
        rewriteIpChecksum(view);
        t.same(wrongChecksums(view), []);
        t.match(parsed(view), to);
      },
    ),
    { numRuns: 60 },
  );
  t.end();
});

function rewriteIpChecksum(view: DataView): void {
  view.setUint16(24, 0);
  let sum = 0;
  for (let at = 14; at < 34; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  view.setUint16(24, ~sum & 0xffff);
}

for (const [name, protocol, quotedBytes] of [
  ['TCP, 8 bytes of it', PROTO_TCP, 28],
  ['TCP, the whole header', PROTO_TCP, 48],
  ['UDP', PROTO_UDP, 28],
  ['UDP with data', PROTO_UDP, 48],
  ['an ICMP echo', PROTO_ICMP, 28],
] as const) {
  test(`rewriteIcmpError() keeps every checksum of an error that quotes ${name} right`, (t) => {
    fc.assert(
      fc.property(ends, rewriteTo, address, (end, reply, router) => {
        const original = frame({ ...from(end), protocol, payload: new Uint8Array(20).fill(7) });
        const quote = new Uint8Array(original.buffer.slice(14, 14 + quotedBytes));
        const view = frame({
          from: formatIpv4(router),
          to: formatIpv4(end.source),
          protocol: PROTO_ICMP,
          icmpType: 3,
          payload: quote,
        });
        const quoted = new QuotedPacket();
        const packet = parsed(view);
        t.equal(readQuotedPacket(view, packet, quoted), true);
        rewriteIcmpError(view, packet, quoted, reply);
        t.same(wrongChecksums(view), []);
        t.match(packet, { source: reply.source, destination: reply.destination });
        t.same(parsed(view), packet);

        // The quote, completed with what was cut off, is the original as NAT would have sent it.
        const whole = new Uint8Array(original.buffer.slice(0));
        whole.set(new Uint8Array(view.buffer.slice(14 + 28)), 14);
        const restored = new DataView(whole.buffer);
        const isCut = protocol === PROTO_TCP && quotedBytes === 28;
        t.same(wrongChecksums(restored), isCut ? ['transport'] : []);
        t.match(parsed(restored), {
          source: reply.destination,
          destination: reply.source,
          ...(protocol === PROTO_ICMP
            ? {}
            : { sourcePort: reply.destinationPort, destinationPort: reply.sourcePort }),
        });
      }),
      { numRuns: 60 },
    );
    t.end();
  });
}

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
  const bytes = new Uint8Array(view.byteLength + TCP_RESET_FRAME_BYTES).fill(0xa5);
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
    const segment = frame({ from: '192.0.2.7:5000', to: '10.0.0.254:80', tcpFlags, payload });
    const view = withRoom(segment);
    const packet = parsed(view, segment.byteLength);
    t.equal(writeTcpReset(view, segment.byteLength, packet), TCP_RESET_FRAME_BYTES);
    const answer = new DataView(view.buffer.slice(segment.byteLength));
    t.same(wrongChecksums(answer), []);
    t.match(parsed(answer), {
      sourceMac: packet.destinationMac,
      destinationMac: packet.sourceMac,
      source: parseIpv4('10.0.0.254'),
      destination: parseIpv4('192.0.2.7'),
      sourcePort: 80,
      destinationPort: 5000,
      tcpFlags: flags,
      ipTotalBytes: 40,
    });
    t.equal(answer.getUint32(34 + 4), sequence);
    t.equal(answer.getUint32(34 + 8), acknowledgment);
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

test('writeEchoReply() turns a ping of any size round', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), port, (payload, id) => {
      const view = frame({
        from: `10.0.0.5:${id}`,
        to: '10.0.0.254',
        protocol: PROTO_ICMP,
        payload,
      });
      const packet = parsed(view);
      writeEchoReply(view, packet);
      t.same(wrongChecksums(view), []);
      t.match(parsed(view), {
        source: packet.destination,
        destination: packet.source,
        sourceMac: packet.destinationMac,
        destinationMac: packet.sourceMac,
        icmpType: 0,
        sourcePort: id,
      });
      t.same(new Uint8Array(view.buffer.slice(view.byteLength - payload.length)), payload);
    }),
    { numRuns: 100, examples: [[new Uint8Array(0), 0]] }, // a reply of zeros only
  );
  const later = frame({
    from: '10.0.0.5',
    to: '10.0.0.254',
    protocol: PROTO_ICMP,
    fragmentOffset: 8,
    payload: Uint8Array.of(8, 0, 1, 2),
  });
  writeEchoReply(later, parsed(later));
  t.same(wrongChecksums(later), []);
  t.same(new Uint8Array(later.buffer.slice(34)), Uint8Array.of(8, 0, 1, 2), 'data stays data');
  t.end();
});
