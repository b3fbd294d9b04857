// Sends hostile packets; run by tests in a namespace with what to send in argv[2], as JSON. Prints how
// many left when it is done.
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { Random } from '../../src/core/capabilities.ts';
import { PROTO_UDP } from '../../src/core/packet.ts';
import { encodeMessage, type Message } from '../../src/gossip/messages.ts';
import { encodePacket } from '../../src/gossip/packet.ts';
import { bind, check, setsockopt, socket, writeBuffer } from '../../src/io/linux/ffi.ts';
import { writeVxlanHeader } from '../../src/vxlan/header.ts';
import { ethernetFrame } from '../dataplane/frames.ts';
import { seededRandom } from './gossip-sim.ts';
import { type HostileAddresses, hostileFrames, mutated } from './hostile.ts';

/** What to send, and to whom. */
export type Storm = { readonly seed: number; readonly count: number } & (
  | {
      readonly kind: 'vxlan';
      readonly to: string;
      readonly vni: number;
      readonly addresses: HostileAddresses;
    }
  | { readonly kind: 'gossip'; readonly to: string }
  | { readonly kind: 'tcp'; readonly to: string; readonly ports: readonly number[] }
  | { readonly kind: 'frames'; readonly device: string; readonly addresses: HostileAddresses }
  /** The same small datagram, as fast as it goes or so often in a millisecond. Says when it begins. */
  | {
      readonly kind: 'flood';
      readonly device: string;
      readonly from: string;
      readonly to: string;
      readonly perMs?: number;
    }
);

/** Datagrams between two pauses: a receiver that is busy must have room for them. */
const BATCH = 64;
/** Largest payload of a UDP datagram. */
const DATAGRAM_BYTES_MAX = 65_507;
// linux/if_packet.h, linux/if_ether.h
const AF_PACKET = 17;
const SOCK_RAW = 3;
const SOL_PACKET = 263;
const PACKET_VNET_HDR = 15;
const SOCKADDR_LL_BYTES = 20;
const VNET_HEADER_BYTES = 10;

/** Sends `count` datagrams made by `next`, in small batches. */
async function datagrams(
  to: string,
  port: number,
  count: number,
  next: () => Uint8Array,
): Promise<number> {
  const udp = createSocket('udp4');
  let sent = 0;
  for (let made = 0; made < count; made += BATCH) {
    const batch = Array.from({ length: Math.min(BATCH, count - made) }, () => {
      return new Promise<void>((resolve) => {
        udp.send(next(), port, to, (error) => {
          if (error === null) sent += 1;
          resolve();
        });
      });
    });
    await Promise.all(batch);
  }
  udp.close();
  return sent;
}

function hostileVxlan(vni: number, addresses: HostileAddresses, random: Random): () => Uint8Array {
  const nextFrame = hostileFrames(addresses, random);
  return () => {
    const frame = nextFrame();
    const datagram = new Uint8Array(8 + frame.length);
    const view = new DataView(datagram.buffer);
    const kind = random.next();
    writeVxlanHeader(view, 0, kind < 0.1 ? Math.floor(random.next() * 0x100_0000) : vni);
    if (kind > 0.95) view.setUint32(0, Math.floor(random.next() * 2 ** 32));
    datagram.set(frame, 8);
    if (kind > 0.94 && kind < 0.95)
      return random.bytes(Math.floor(random.next() * DATAGRAM_BYTES_MAX));
    return kind > 0.93 && kind < 0.94 ? datagram.subarray(0, 7) : datagram;
  };
}

/**
 * Gossip about a node that does not exist. A sound "alive" is not among it: anyone may announce a
 * member who can send plain gossip, which is what its encryption is for.
 */
function hostileGossip(random: Random): () => Uint8Array {
  const peer = { address: '203.0.113.9', port: 7946 };
  const messages: Message[] = [
    { kind: 'ping', sequence: 1, node: 'nobody', source: { ...peer, node: 'nobody' } },
    { kind: 'indirectPing', sequence: 2, target: peer, node: 'nobody', nackWanted: true },
    { kind: 'ack', sequence: 3 },
    { kind: 'nack', sequence: 4 },
    { kind: 'suspect', incarnation: 2, node: 'nobody', from: 'no one' },
    { kind: 'dead', incarnation: 3, node: 'nobody', from: 'no one' },
  ];
  const alive = encodeMessage({
    kind: 'alive',
    ...{ incarnation: 2, node: 'nobody', ...peer, meta: Uint8Array.of(1) },
    versions: Uint8Array.of(1, 5, 2, 2, 5, 5),
  });
  const sound = [
    ...messages.map(encodeMessage),
    encodePacket(messages.map(encodeMessage), true),
    encodePacket(messages.map(encodeMessage), false),
    alive.subarray(0, alive.length >> 1),
    Uint8Array.of(8, 0x57, ...random.bytes(200)),
    Uint8Array.of(9, ...random.bytes(100)),
    Uint8Array.of(10, ...random.bytes(100)),
    Uint8Array.of(244, ...random.bytes(40)),
  ];
  return () => mutated(sound[Math.floor(random.next() * sound.length)]!, random);
}

/** Connects, says something senseless and hangs up, or leaves it to the other side. */
async function streams(
  to: string,
  ports: readonly number[],
  count: number,
  random: Random,
): Promise<number> {
  let opened = 0;
  for (let index = 0; index < count; index += 1) {
    const stream = connect(ports[index % ports.length] ?? 0, to);
    stream.on('error', () => stream.destroy());
    await new Promise<void>((resolve) => {
      stream.on('close', resolve);
      stream.on('connect', () => {
        opened += 1;
        const bytes = random.bytes(Math.floor(random.next() * 4_000));
        // A push/pull (6) with a header that promises much is the dearest of gossip's streams.
        if (random.next() < 0.5) bytes[0] = 6;
        stream.end(random.next() < 0.1 ? `GET /${'x'.repeat(20_000)} HTTP/1.1\r\n\r\n` : bytes);
        stream.setTimeout(500, () => stream.destroy());
        stream.resume();
      });
    });
  }
  return opened;
}

/** A socket for raw Ethernet frames of `device`. */
function openPacketSocket(device: string, withOffload: boolean): number {
  const fd = check(socket(AF_PACKET, SOCK_RAW, 0), 'socket', 'send frames');
  const address = new Uint8Array(SOCKADDR_LL_BYTES);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, 0x0003);
  const index = readFileSync(`/proc/self/net/dev_mcast`, 'utf8');
  const line = index.split('\n').find((text) => text.split(/\s+/)[1] === device);
  view.setInt32(4, Number(line?.split(/\s+/)[0]), true);
  const on = Uint8Array.of(1, 0, 0, 0);
  if (withOffload)
    check(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, on, 4), 'setsockopt', 'offload');
  check(bind(fd, address, SOCKADDR_LL_BYTES), 'bind', `send frames by ${device}`);
  return fd;
}

function flood({ device, from, to, count, perMs }: Extract<Storm, { kind: 'flood' }>): number {
  const fd = openPacketSocket(device, false);
  const payload = new Uint8Array(22); // with its headers, 64 bytes
  const spec = { from: `${from}:9`, to: `${to}:9`, protocol: PROTO_UDP, payload };
  const bytes = ethernetFrame(spec);
  console.log('flooding');
  let sent = 0;
  const never = new Int32Array(new SharedArrayBuffer(4));
  for (let index = 0; index < count; index += 1) {
    if (writeBuffer(fd, bytes, bytes.length) >= 0) sent += 1;
    if (perMs !== undefined && index % perMs === 0) Atomics.wait(never, 0, 0, 1);
  }
  return sent;
}

/** Raw Ethernet frames out of `device`, half of them with an offload header as wrong as they are. */
function frames(device: string, count: number, next: () => Uint8Array, random: Random): number {
  const plain = openPacketSocket(device, false);
  const offloaded = openPacketSocket(device, true);
  let sent = 0;
  for (let index = 0; index < count; index += 1) {
    const frame = next();
    if (random.next() < 0.5) {
      if (writeBuffer(plain, frame, frame.length) >= 0) sent += 1;
      continue;
    }
    const framed = new Uint8Array(VNET_HEADER_BYTES + frame.length);
    const header = new DataView(framed.buffer);
    header.setUint8(0, Math.floor(random.next() * 2));
    header.setUint8(1, [0, 1, 5, 0, 1][Math.floor(random.next() * 5)] ?? 0);
    header.setUint16(2, 14 + 20 + Math.floor(random.next() * 40), true);
    header.setUint16(4, Math.floor(random.next() * 200), true);
    header.setUint16(6, 14 + Math.floor(random.next() * 60), true);
    header.setUint16(8, Math.floor(random.next() * 40), true);
    framed.set(frame, VNET_HEADER_BYTES);
    if (writeBuffer(offloaded, framed, framed.length) >= 0) sent += 1;
  }
  return sent;
}

async function perform(storm: Storm): Promise<number> {
  const random = seededRandom(storm.seed);
  switch (storm.kind) {
    case 'vxlan': {
      const next = hostileVxlan(storm.vni, storm.addresses, random);
      return await datagrams(storm.to, 4789, storm.count, next);
    }
    case 'gossip':
      return await datagrams(storm.to, 7946, storm.count, hostileGossip(random));
    case 'tcp':
      return await streams(storm.to, storm.ports, storm.count, random);
    case 'flood':
      return flood(storm);
    case 'frames':
      return frames(storm.device, storm.count, hostileFrames(storm.addresses, random), random);
  }
}

console.log(String(await perform(JSON.parse(process.argv[2] ?? '') as Storm)));
