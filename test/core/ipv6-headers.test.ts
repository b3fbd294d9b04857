import fc from 'fast-check';
import { test } from 'tap';
import { parseIpv4 } from '../../src/core/address.ts';
import { Packet, parseFrame, TCP_SYN } from '../../src/core/packet.ts';

const MACS = '02420a050002 02420a050003';
const SOURCE = 'fd000005000000000000000000000003';
const DESTINATION = 'fd000005000000000000000000000002';
const TCP = 'c000 0050 00000001 00000000 5002 ffff 0000 0000';
const UDP = 'c000 0035 0008 0000';
const PING = '8000 0000 00070001';

function bytesOf(hex: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(hex.replaceAll(/\s/g, '').match(/../g) ?? [], (pair) =>
    Number.parseInt(pair, 16),
  );
}

function hexOf(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}

interface Extension {
  readonly header: number;
  /** Its bytes from the third one on; the first two are next header and length. */
  readonly rest: string;
}

/** An extension header with `units` of 8 bytes; see RFC 8200 section 4 for what is in it. */
function extension(header: number, rest = '000000000000'): Extension {
  return { header, rest };
}

const HOP_BY_HOP = extension(0, '010400000000');
const ROUTED = extension(43, '04000000 0000 0000000000000000');
const UNROUTED = extension(43, '04010000 0000 0000000000000000');
const AUTHENTICATED = extension(51, '00000000 000000000000 000000000000000000000000');
const OPTIONS = extension(60, `0104 00000000 ${'00'.repeat(16)}`);

function fragment(offset: number, more: boolean, id = 0x8000_0001): Extension {
  return extension(44, hexOf((offset & ~7) | (more ? 1 : 0), 4) + hexOf(id, 8));
}

/** A frame with these extension headers in front of `upper`. */
function frame(extensions: readonly Extension[], protocol: number, upper: string): Uint8Array {
  const chain = extensions.map(({ header, rest }, index) => {
    const next = extensions[index + 1]?.header ?? protocol;
    const bytes = 2 + bytesOf(rest).length;
    const length = header === 44 ? 0 : header === 51 ? bytes / 4 - 2 : bytes / 8 - 1;
    return hexOf(next, 2) + hexOf(length, 2) + rest;
  });
  const payload = bytesOf(chain.join('') + upper);
  const fixed = `60000000 ${hexOf(payload.length, 4)} ${hexOf(extensions[0]?.header ?? protocol, 2)} 40`;
  return Uint8Array.of(...bytesOf(`${MACS} 86dd ${fixed} ${SOURCE} ${DESTINATION}`), ...payload);
}

/** Parses `bytes` placed at an odd offset of a larger buffer. */
function parse(bytes: Uint8Array): { readonly fault: string; readonly packet: Packet } {
  const buffer = new Uint8Array(bytes.length + 16);
  buffer.set(bytes, 7);
  const packet = new Packet();
  const fault = parseFrame(new DataView(buffer.buffer), 7, bytes.length, packet);
  return { fault, packet };
}

test('parseFrame() reads a TCP SYN over IPv6', (t) => {
  const { fault, packet } = parse(frame([], 6, TCP));
  t.equal(fault, 'none');
  t.match(packet, {
    family: 6,
    ipStart: 21,
    ipHeaderBytes: 40,
    ipTotalBytes: 60,
    protocol: 6,
    source: 3,
    destination: 2,
    sourceStart: 29,
    destinationStart: 45,
    l4Start: 61,
    l4HeaderBytes: 20,
    sourcePort: 0xc000,
    destinationPort: 80,
    tcpFlags: TCP_SYN,
    identification: 0,
    isFragment: false,
    isIcmp: false,
    icmpType: -1,
  });
  t.end();
});

for (const [name, extensions, protocol, upper, expected] of [
  ['a ping', [], 58, PING, { isIcmp: true, icmpType: 128, sourcePort: 7, destinationPort: 7 }],
  ['an ICMPv6 error', [], 58, `0200 0000 00000500`, { icmpType: 2, sourcePort: 0 }],
  ['an ICMPv4 ping', [], 1, '0800 0000 00070001', { isIcmp: false, icmpType: -1, sourcePort: 0 }],
  [
    'every extension header',
    [HOP_BY_HOP, OPTIONS, ROUTED, AUTHENTICATED, OPTIONS],
    17,
    UDP,
    { destinationPort: 53 },
  ],
  [
    'a route not yet at its end',
    [UNROUTED],
    6,
    TCP,
    { protocol: 43, l4HeaderBytes: 0, sourcePort: 0 },
  ],
  ['ESP', [HOP_BY_HOP], 50, 'ffff', { protocol: 50, l4HeaderBytes: 0, sourcePort: 0 }],
  ['no next header', [], 59, '', { protocol: 59, l4HeaderBytes: 0 }],
  ['no next header and padding', [OPTIONS], 59, 'ffffffff', { protocol: 59 }],
  [
    'a first fragment',
    [fragment(0, true)],
    17,
    `c000 0035 0800 0000`,
    {
      isFragment: true,
      isLaterFragment: false,
      destinationPort: 53,
      identification: 0x8000_0001 | 0,
    },
  ],
  [
    'a later fragment',
    [fragment(8, true, 7)],
    17,
    UDP,
    {
      isFragment: true,
      isLaterFragment: true,
      destinationPort: 0,
      identification: 7,
      protocol: 17,
    },
  ],
  [
    'the last fragment',
    [OPTIONS, fragment(65528, false, 7)],
    60,
    UDP,
    { isLaterFragment: true, protocol: 60, l4HeaderBytes: 0 },
  ],
  [
    'a fragment that is the whole datagram',
    [fragment(0, false, 9)],
    6,
    TCP,
    { isFragment: false, destinationPort: 80, identification: 9 },
  ],
] as const) {
  test(`parseFrame() of ${name}`, (t) => {
    const bytes = frame(extensions, protocol, upper);
    const { fault, packet } = parse(bytes);
    t.equal(fault, 'none');
    t.match(packet, { family: 6, ...expected });
    t.equal(packet.ipStart + packet.ipTotalBytes, 7 + bytes.length);
    t.equal(packet.l4Start, packet.ipStart + packet.ipHeaderBytes);
    t.end();
  });
}

function changed(bytes: Uint8Array, at: number, hex: string): Uint8Array {
  const copy = bytes.slice();
  copy.set(bytesOf(hex), at);
  return copy;
}

const MAPPED = '00000000000000000000ffff0a000001';
for (const [name, bytes, expected] of [
  ['half a fixed header', frame([], 6, TCP).subarray(0, 53), 'bad-ipv6'],
  ['version 4 in an IPv6 frame', changed(frame([], 6, TCP), 14, '40'), 'bad-ipv6'],
  ['a payload longer than the frame', frame([], 6, TCP).subarray(0, 73), 'bad-ipv6'],
  ['an IPv4-mapped source', changed(frame([], 6, TCP), 22, MAPPED), 'bad-ipv6'],
  ['an IPv4-mapped destination', changed(frame([], 6, TCP), 38, MAPPED), 'bad-ipv6'],
  ['hop-by-hop options that are not first', frame([OPTIONS, HOP_BY_HOP], 6, TCP), 'bad-ipv6'],
  ['two fragment headers', frame([fragment(0, false), fragment(0, false)], 6, TCP), 'bad-ipv6'],
  ['nine extension headers', frame(new Array(9).fill(OPTIONS), 6, TCP), 'bad-ipv6'],
  ['eight extension headers', frame(new Array(8).fill(OPTIONS), 6, TCP), 'none'],
  ['an option header cut short', frame([], 60, '0600 0104'), 'bad-ipv6'],
  [
    'an option header longer than the packet',
    frame([], 60, `0602 010400000000 ${TCP.slice(0, 16)}`),
    'bad-ipv6',
  ],
  [
    'an authentication header longer than the packet',
    frame([], 51, `06ff 0000 00000000`),
    'bad-ipv6',
  ],
  ['a jumbogram', changed(frame([extension(0, 'c20400010000')], 6, TCP), 18, '0000'), 'bad-ipv6'],
  ['a packet without payload that promises TCP', frame([], 6, ''), 'bad-l4'],
  ['TCP with data offset 15', frame([], 6, TCP.replace('5002', 'f002')), 'bad-l4'],
  ['TCP cut short behind options', frame([OPTIONS], 6, TCP.slice(0, 30)), 'bad-l4'],
  ['UDP of length 0, as in a jumbogram', frame([], 17, 'c000 0035 0000 0000'), 'bad-l4'],
  ['UDP of length 7', frame([], 17, 'c000 0035 0007 0000'), 'bad-l4'],
  ['UDP longer than the packet', frame([], 17, 'c000 0035 0009 0000'), 'bad-l4'],
  ['UDP shorter than the packet', frame([], 17, `${UDP} 0000`), 'none'],
  ['ICMPv6 of 7 bytes', frame([], 58, '8000 0000 0007 00'), 'bad-l4'],
  [
    'a first fragment without the transport header',
    frame([fragment(0, true)], 6, TCP.slice(0, 20)),
    'bad-l4',
  ],
] as const) {
  test(`parseFrame() of IPv6 with ${name}`, (t) => {
    t.equal(parse(bytes).fault, expected);
    t.end();
  });
}

test('parseFrame() leaves nothing of an IPv6 packet behind', (t) => {
  const packet = new Packet();
  const bytes = frame([fragment(8, true)], 6, TCP);
  parseFrame(new DataView(bytes.buffer), 0, bytes.length, packet);
  const ipv4 = bytesOf(`${MACS} 0800 4500 0028 1234 4000 4006 0000 0a050003 0a050002 ${TCP}`);
  t.equal(parseFrame(new DataView(ipv4.buffer), 0, ipv4.length, packet), 'none');
  t.match(packet, {
    family: 4,
    isFragment: false,
    isLaterFragment: false,
    identification: 0x1234,
    source: parseIpv4('10.5.0.3'),
    sourceStart: 26,
    destinationStart: 30,
  });
  t.end();
});

test('parseFrame() finds the upper layer behind any chain of extension headers', (t) => {
  const units = fc.integer({ min: 0, max: 4 });
  const middle = fc.oneof(
    units.map((more) => extension(60, '00'.repeat(6 + 8 * more))),
    units.map((more) => extension(43, '00'.repeat(6 + 8 * more))),
    units.map((more) => extension(51, '00'.repeat(6 + 4 * more))),
  );
  fc.assert(
    fc.property(fc.boolean(), fc.array(middle, { maxLength: 7 }), (hopByHop, others) => {
      const extensions = hopByHop ? [HOP_BY_HOP, ...others] : others;
      const { fault, packet } = parse(frame(extensions, 6, TCP));
      const bytes = extensions.reduce((sum, { rest }) => sum + 2 + bytesOf(rest).length, 0);
      return (
        fault === 'none' && packet.ipHeaderBytes === 40 + bytes && packet.destinationPort === 80
      );
    }),
  );
  t.end();
});

test('parseFrame() survives any IPv6 bytes, and never claims more than the frame holds', (t) => {
  const packet = new Packet();
  const bases = [
    frame([], 6, TCP),
    frame([HOP_BY_HOP, ROUTED, AUTHENTICATED, OPTIONS], 17, UDP),
    frame([fragment(0, true), OPTIONS], 58, PING),
    frame([fragment(16, false)], 58, PING),
  ];
  const seen = new Set<string>();
  fc.assert(
    fc.property(
      fc.constantFrom(...bases),
      fc.array(fc.tuple(fc.nat({ max: 150 }), fc.nat({ max: 255 })), { maxLength: 6 }),
      fc.nat({ max: 40 }),
      (base, flips, cut) => {
        const bytes = base.slice();
        for (const [at, value] of flips) if (at > 13 && at < bytes.length) bytes[at] = value;
        const length = bytes.length - (cut > 30 ? cut : 0);
        const fault = parseFrame(new DataView(bytes.buffer), 0, length, packet);
        seen.add(fault);
        if (fault !== 'none' || packet.family !== 6) return true;
        const end = packet.ipStart + packet.ipTotalBytes;
        const isInside = packet.l4Start + packet.l4HeaderBytes <= end && end <= length;
        return isInside && packet.l4Start >= 54 && packet.destinationStart === 38;
      },
    ),
    { numRuns: 20_000 },
  );
  t.same([...seen].sort(), ['bad-ipv6', 'bad-l4', 'none'], 'every way out was taken');
  t.end();
});
