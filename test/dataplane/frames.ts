import { macOfIpv4, parseIpv4 } from '../../src/core/address.ts';
import {
  type ChecksumKernel,
  fold16,
  loadChecksumKernel,
  sum16BigEndian,
} from '../../src/core/checksum.ts';
import { ipWords } from '../../src/core/ip.ts';
import {
  ETHERTYPE_IPV4,
  Packet,
  PROTO_TCP,
  PROTO_UDP,
  parseFrame,
  writeMac,
} from '../../src/core/packet.ts';
import { CaptureTaps } from '../../src/dataplane/capture-taps.ts';
import { Counters } from '../../src/dataplane/counters.ts';
import { type Peer, Peers } from '../../src/dataplane/peers.ts';
import { Arena } from '../../src/io/linux/arena.ts';
import { Epoll } from '../../src/io/linux/epoll.ts';
import { close } from '../../src/io/linux/ffi.ts';
import { openUdp } from '../../src/io/linux/udp-socket.ts';
import { VxlanReceiver } from '../../src/io/linux/vxlan-socket.ts';
import { writeVxlanHeader } from '../../src/vxlan/header.ts';
import { endpoint, frame, type PacketSpec } from '../routing-mesh/packets.ts';
import { udpPortOf } from '../support/udp-port.ts';

export const LOOPBACK: number = parseIpv4('127.0.0.1');
const ETHERNET_BYTES = 14;
const TCP_FIN_AND_PSH = 0x09;
const DESTINATION_OPTIONS = 60;

/** xorshift32: small, and a seed replays a run. */
export function makeRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** `length` bytes that no mistake makes by chance. */
export function randomBytes(length: number, seed: number): Uint8Array {
  const random = makeRandom(seed | 1);
  return Uint8Array.from({ length }, () => random(256));
}

/** A packet with its Ethernet addresses; those of tasks follow from their IPv4 addresses. */
export interface FrameSpec extends PacketSpec {
  readonly fromMac?: number;
  readonly toMac?: number;
  /** TCP options, a multiple of 4 bytes. */
  readonly tcpOptions?: Uint8Array;
  /** Sets DF. */
  readonly dontFragment?: boolean;
}

/** A task's MAC follows from the last four bytes of its address, in either family. */
export function macOf(text: string): number {
  return macOfIpv4(ipWords(endpoint(text).address)[3] >>> 0);
}

/** A frame with right checksums. */
export function ethernetFrame(spec: FrameSpec): Uint8Array<ArrayBuffer> {
  const plain = new Uint8Array(frame(spec).buffer as ArrayBuffer);
  const bytes = spec.tcpOptions === undefined ? plain : withTcpOptions(plain, spec.tcpOptions);
  const view = new DataView(bytes.buffer);
  writeMac(view, 0, spec.toMac ?? macOf(spec.to));
  writeMac(view, 6, spec.fromMac ?? macOf(spec.from));
  if (spec.dontFragment) view.setUint8(20, view.getUint8(20) | 0x40);
  if (spec.tcpOptions !== undefined || spec.dontFragment) seal(bytes, spec.partial);
  return bytes;
}

/** Where the parts of a frame are, found without the code under test. */
function layoutOf(bytes: Uint8Array): { isV6: boolean; l4: number; protocol: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const ip = ETHERNET_BYTES;
  if (view.getUint16(12) === ETHERTYPE_IPV4) {
    return { isV6: false, l4: ip + (view.getUint8(ip) & 15) * 4, protocol: view.getUint8(ip + 9) };
  }
  const next = view.getUint8(ip + 6);
  if (next !== DESTINATION_OPTIONS) return { isV6: true, l4: ip + 40, protocol: next };
  const l4 = ip + 48 + view.getUint8(ip + 41) * 8;
  return { isV6: true, l4, protocol: view.getUint8(ip + 40) };
}

function setIpLength(bytes: Uint8Array, isV6: boolean): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (isV6) view.setUint16(ETHERNET_BYTES + 4, bytes.length - ETHERNET_BYTES - 40);
  else view.setUint16(ETHERNET_BYTES + 2, bytes.length - ETHERNET_BYTES);
}

function withTcpOptions(plain: Uint8Array, options: Uint8Array): Uint8Array<ArrayBuffer> {
  const { l4: tcp, isV6 } = layoutOf(plain);
  const bytes = new Uint8Array(plain.length + options.length);
  bytes.set(plain.subarray(0, tcp + 20));
  bytes.set(options, tcp + 20);
  bytes.set(plain.subarray(tcp + 20), tcp + 20 + options.length);
  bytes[tcp + 12] = (5 + options.length / 4) << 4;
  setIpLength(bytes, isV6);
  return bytes;
}

/** Makes the checksums of a whole frame right, all computed from scratch. */
export function seal(bytes: Uint8Array, partial = false): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const ip = ETHERNET_BYTES;
  const { isV6, l4, protocol } = layoutOf(bytes);
  const l4Bytes = bytes.length - l4;
  if (!isV6) {
    view.setUint16(ip + 10, 0);
    view.setUint16(ip + 10, ~sum16BigEndian(view, ip, l4 - ip) & 0xffff);
  }
  if (protocol !== PROTO_TCP && protocol !== PROTO_UDP) return;
  const at = l4 + (protocol === PROTO_TCP ? 16 : 6);
  const addresses = isV6 ? sum16BigEndian(view, ip + 8, 32) : sum16BigEndian(view, ip + 12, 8);
  const pseudo = fold16(addresses + protocol + l4Bytes);
  view.setUint16(at, 0);
  const sum = ~fold16(pseudo + sum16BigEndian(view, l4, l4Bytes)) & 0xffff;
  const complete = protocol === PROTO_UDP && sum === 0 ? 0xffff : sum;
  view.setUint16(at, partial ? pseudo : complete);
}

/**
 * The frames that a TCP or UDP superframe stands for, made one by one: the oracle of everything that
 * segments or coalesces.
 */
export function slowSegments(superframe: Uint8Array, gsoBytes: number): Uint8Array[] {
  const view = new DataView(superframe.buffer, superframe.byteOffset, superframe.length);
  const { isV6, l4, protocol } = layoutOf(superframe);
  const isTcp = protocol === PROTO_TCP;
  const headerBytes = l4 + (isTcp ? (view.getUint8(l4 + 12) >>> 4) * 4 : 8);
  const segments: Uint8Array[] = [];
  for (let done = 0; headerBytes + done < superframe.length; done += gsoBytes) {
    const payload = superframe.subarray(headerBytes + done).subarray(0, gsoBytes);
    const isLast = headerBytes + done + payload.length === superframe.length;
    const bytes = new Uint8Array(headerBytes + payload.length);
    bytes.set(superframe.subarray(0, headerBytes));
    bytes.set(payload, headerBytes);
    const segment = new DataView(bytes.buffer);
    setIpLength(bytes, isV6);
    if (!isV6) {
      const identification = view.getUint16(ETHERNET_BYTES + 4) + segments.length;
      segment.setUint16(ETHERNET_BYTES + 4, identification);
    }
    if (isTcp) {
      segment.setUint32(l4 + 4, view.getUint32(l4 + 4) + done);
      if (!isLast) segment.setUint8(l4 + 13, view.getUint8(l4 + 13) & ~TCP_FIN_AND_PSH);
    } else {
      segment.setUint16(l4 + 4, bytes.length - l4);
    }
    seal(bytes);
    segments.push(bytes);
  }
  return segments;
}

/** `frame` under a VXLAN header. */
export function vxlanDatagram(vni: number, inner: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8 + inner.length);
  writeVxlanHeader(new DataView(bytes.buffer), 0, vni);
  bytes.set(inner, 8);
  return bytes;
}

/** A member at the loopback whose VXLAN is served at `port`. */
export function loopbackPeer(port: number): Peer {
  return new Peers().add(LOOPBACK, port);
}

/** The memory that the parts of a data plane share. */
export interface PacketMemory {
  readonly arena: Arena;
  readonly checksum: ChecksumKernel;
  readonly counters: Counters;
  readonly taps: CaptureTaps;
}

export function makePacketMemory(): PacketMemory {
  const arena = new Arena(2048 * 1024);
  const taps = new CaptureTaps(arena, { nowMs: () => 0, epochMs: () => 0 });
  return { arena, checksum: loadChecksumKernel(arena.memory), counters: new Counters(), taps };
}

/** Parses the frame at `start`, which must be well-formed. */
export function parsedAt(view: DataView, start: number, length: number): Packet {
  const packet = new Packet();
  const fault = parseFrame(view, start, length, packet);
  if (fault !== 'none') throw new Error(`The test built a frame that does not parse: ${fault}`);
  return packet;
}

/** A VXLAN socket on the loopback, at a port that the kernel picked. Needs no privileges. */
export class LoopbackUnderlay {
  readonly receiver: VxlanReceiver;
  readonly port: number;
  readonly #epoll: Epoll;

  constructor(arena: Arena) {
    this.receiver = new VxlanReceiver(arena, openUdp(LOOPBACK, 0), false);
    this.port = udpPortOf(this.receiver.fd);
    this.#epoll = new Epoll(arena);
    this.#epoll.add(this.receiver.fd, 1);
  }

  /** Waits until something can be received. */
  wait(): void {
    if (this.#epoll.wait(5_000) === 0) throw new Error('Nothing has arrived for 5 seconds');
  }

  /**
   * Receives `datagrams` datagrams and shows each batch, where it lies in the arena.
   *
   * @param onBatch - Gets the start, the distance between datagrams and the end.
   */
  drain(datagrams: number, onBatch: (at: number, stride: number, end: number) => void): void {
    let missing = datagrams;
    while (missing > 0) {
      const received = this.receiver.receive();
      if (received < 0) {
        this.wait();
        continue;
      }
      const { buffer, segmentBytes } = this.receiver;
      missing -= Math.ceil(received / segmentBytes);
      onBatch(buffer, segmentBytes, buffer + received);
    }
  }

  close(): void {
    this.#epoll.close();
    close(this.receiver.fd);
  }
}
