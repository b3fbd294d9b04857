import fc from 'fast-check';
import { test } from 'tap';
import { parseIpv4, parseMac } from '../../src/core/address.ts';
import { Packet, parseFrame, readMac, TCP_SYN, writeMac } from '../../src/core/packet.ts';

const MACS = '02420a0500020242 0a050003';

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(hex.replaceAll(/\s/g, '').match(/../g) ?? [], (pair) =>
    Number.parseInt(pair, 16),
  );
}

/** Parses `hex` placed at an odd offset of a larger buffer. */
function parse(hex: string): { readonly fault: string; readonly packet: Packet } {
  const bytes = bytesOf(hex);
  const buffer = new Uint8Array(bytes.length + 16);
  buffer.set(bytes, 7);
  const packet = new Packet();
  const fault = parseFrame(new DataView(buffer.buffer), 7, bytes.length, packet);
  return { fault, packet };
}

const IP_SYN = '4500 0028 1234 4000 4006 0000 0a050003 0a050002';
const TCP_HEADER = 'c000 0050 00000001 00000000 5002 ffff 0000 0000';

test('parseFrame() reads a TCP SYN', (t) => {
  const { fault, packet } = parse(`${MACS} 0800 ${IP_SYN} ${TCP_HEADER}`);
  t.equal(fault, 'none');
  t.match(packet, {
    start: 7,
    destinationMac: parseMac('02:42:0a:05:00:02'),
    sourceMac: parseMac('02:42:0a:05:00:03'),
    ipStart: 21,
    l4Start: 41,
    l4HeaderBytes: 20,
    source: parseIpv4('10.5.0.3'),
    destination: parseIpv4('10.5.0.2'),
    sourcePort: 0xc000,
    destinationPort: 80,
    tcpFlags: TCP_SYN,
    identification: 0x1234,
    isFragment: false,
    icmpType: -1,
  });
  t.end();
});

test('parseFrame() says why a frame is refused', (t) => {
  const ip = (header: string, rest = ''): string => `${MACS} 0800 ${header} ${rest}`;
  const tail = '0a050003 0a050002';
  for (const [name, hex, expected] of [
    ['nothing', '', 'runt'],
    ['half an Ethernet header', MACS, 'runt'],
    ['no IP header', `${MACS} 0800 45`, 'bad-ipv4'],
    ['version 6 in an IPv4 frame', ip(`6500 0014 0000 0000 4006 0000 ${tail}`), 'bad-ipv4'],
    ['header length 16', ip(`4400 0014 0000 0000 4006 0000 ${tail}`), 'bad-ipv4'],
    ['total length over the frame', ip(`4500 0015 0000 0000 4006 0000 ${tail}`), 'bad-ipv4'],
    ['total length under the header', ip(`4500 0013 0000 0000 4006 0000 ${tail}`), 'bad-ipv4'],
    ['TCP without its header', ip(`4500 0018 0000 0000 4006 0000 ${tail}`, 'c0000050'), 'bad-l4'],
    ['TCP data offset 4', ip(IP_SYN, TCP_HEADER.replace('5002', '4002')), 'bad-l4'],
    ['TCP data offset 15', ip(IP_SYN, TCP_HEADER.replace('5002', 'f002')), 'bad-l4'],
    ['UDP of 7 bytes', ip(`4500 001b 0000 0000 4011 0000 ${tail}`, '00010002 000700'), 'bad-l4'],
    ['ICMP of 4 bytes', ip(`4500 0018 0000 0000 4001 0000 ${tail}`, '08000000'), 'bad-l4'],
    ['ARP', `${MACS} 0806 0001`, 'none'],
    ['a protocol without ports', ip(`4500 0014 0000 0000 402f 0000 ${tail}`), 'none'],
  ] as const) {
    t.equal(parse(hex).fault, expected, name);
  }
  t.end();
});

test('parseFrame() tells fragments apart', (t) => {
  const header = (fragment: string): string => IP_SYN.replace('4000', fragment);
  for (const [fragment, isFragment, isLater, port] of [
    ['4000', false, false, 80], // do not fragment
    ['2000', true, false, 80], // first, more to come
    ['2001', true, true, 0],
    ['0001', true, true, 0], // the last one
  ] as const) {
    const { packet } = parse(`${MACS} 0800 ${header(fragment)} ${TCP_HEADER}`);
    t.match(packet, { isFragment, isLaterFragment: isLater, destinationPort: port }, fragment);
  }
  t.end();
});

test('parseFrame() leaves nothing of the last packet', (t) => {
  const bytes = bytesOf(`${MACS} 0800 ${IP_SYN} ${TCP_HEADER}`);
  const packet = new Packet();
  parseFrame(new DataView(bytes.buffer), 0, bytes.length, packet);
  const arp = bytesOf(`${MACS} 0806`);
  parseFrame(new DataView(arp.buffer), 0, arp.length, packet);
  t.match(packet, {
    l4HeaderBytes: 0,
    sourcePort: 0,
    destinationPort: 0,
    tcpFlags: 0,
    icmpType: -1,
  });
  t.end();
});

test('parseFrame() survives any bytes, and never claims more than the frame holds', (t) => {
  const packet = new Packet();
  const base = bytesOf(`${MACS} 0800 ${IP_SYN} ${TCP_HEADER}`);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat({ max: base.length - 1 }), fc.nat({ max: 255 })), { maxLength: 6 }),
      fc.nat({ max: base.length }),
      (flips, length) => {
        const bytes = base.slice();
        for (const [at, value] of flips) bytes[at] = value;
        const fault = parseFrame(new DataView(bytes.buffer), 0, length, packet);
        if (fault !== 'none' || packet.etherType !== 0x0800) return true;
        const end = packet.ipStart + packet.ipTotalBytes;
        return end <= length && packet.l4Start + packet.l4HeaderBytes <= end;
      },
    ),
    { numRuns: 20_000 },
  );
  t.end();
});

test('readMac() and writeMac() keep all 48 bits', (t) => {
  const view = new DataView(new ArrayBuffer(8));
  for (const mac of [0, 1, 0x0242_0a05_0002, 0xffff_ffff_ffff]) {
    writeMac(view, 1, mac);
    t.equal(readMac(view, 1), mac);
  }
  t.end();
});
