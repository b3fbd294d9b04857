import { GATEWAY_MAC, macOfIpv4, parseIpv4 } from '../../src/core/address.ts';
import type { Random } from '../../src/core/capabilities.ts';
import { PROTO_ICMP, PROTO_TCP, PROTO_UDP, TCP_SYN, writeMac } from '../../src/core/packet.ts';
import { frame, type PacketSpec } from '../routing-mesh/packets.ts';

/** Addresses of an overlay that hostile frames are about; all `a.b.c.d`. */
export interface HostileAddresses {
  readonly sender: string;
  readonly vip: string;
  readonly gateway: string;
  /** A task that frames are addressed to. */
  readonly task: string;
}

const BROADCAST = 0xffff_ffff_ffff;
const GRE = 47;
/** Most bytes that a frame is made longer by. */
const EXTENSION_BYTES_MAX = 9_000;

/** An ARP request of `sender` for `target`. */
function arpRequest(sender: string, target: string): Uint8Array {
  const bytes = new Uint8Array(42);
  const view = new DataView(bytes.buffer);
  writeMac(view, 0, BROADCAST);
  writeMac(view, 6, macOfIpv4(parseIpv4(sender)));
  view.setUint16(12, 0x0806);
  view.setUint32(14, 0x0001_0800);
  view.setUint32(18, 0x0604_0001);
  writeMac(view, 22, macOfIpv4(parseIpv4(sender)));
  view.setUint32(28, parseIpv4(sender));
  view.setUint32(38, parseIpv4(target));
  return bytes;
}

/** A frame of `spec`, between MACs of the overlay. */
function overlayFrame(spec: PacketSpec, destinationMac: number): Uint8Array {
  const view = frame(spec);
  writeMac(view, 0, destinationMac);
  const [sender = ''] = spec.from.split(':');
  writeMac(view, 6, macOfIpv4(parseIpv4(sender)));
  return new Uint8Array(view.buffer);
}

/** Frames as tasks send them, of every kind that the switch decides about. */
function soundFrames(addresses: HostileAddresses): readonly Uint8Array[] {
  const { sender, vip, gateway, task } = addresses;
  const taskMac = macOfIpv4(parseIpv4(task));
  const from = `${sender}:40000`;
  const payload = Uint8Array.from({ length: 64 }, (_, index) => index);
  const quoted = frame({ from: `${vip}:80`, to: from }).buffer.slice(14, 42);
  const to = (protocol: number, address: string, port: number): PacketSpec => {
    return { protocol, from, to: `${address}:${port}`, payload };
  };
  const other = frame({ from: sender, to: task, payload });
  other.setUint16(12, 0x86dd);
  return [
    overlayFrame({ ...to(PROTO_TCP, vip, 80), tcpFlags: TCP_SYN }, GATEWAY_MAC),
    overlayFrame(to(PROTO_TCP, vip, 80), GATEWAY_MAC),
    overlayFrame(to(PROTO_TCP, task, 80), taskMac),
    overlayFrame({ ...to(PROTO_TCP, task, 80), ipOptions: 3 }, taskMac),
    overlayFrame(to(PROTO_UDP, vip, 5353), GATEWAY_MAC),
    overlayFrame(to(PROTO_UDP, task, 5353), taskMac),
    overlayFrame({ ...to(PROTO_UDP, task, 5353), moreFragments: true }, taskMac),
    overlayFrame({ ...to(PROTO_UDP, vip, 5353), moreFragments: true }, GATEWAY_MAC),
    overlayFrame({ ...to(PROTO_UDP, vip, 5353), fragmentOffset: 1_480 }, GATEWAY_MAC),
    overlayFrame(to(PROTO_ICMP, vip, 0), GATEWAY_MAC),
    overlayFrame(to(PROTO_ICMP, gateway, 0), GATEWAY_MAC),
    overlayFrame(to(PROTO_ICMP, task, 0), taskMac),
    overlayFrame(
      { ...to(PROTO_ICMP, vip, 0), icmpType: 3, payload: new Uint8Array(quoted) },
      GATEWAY_MAC,
    ),
    overlayFrame(to(GRE, vip, 0), GATEWAY_MAC),
    overlayFrame(to(PROTO_TCP, '203.0.113.9', 80), GATEWAY_MAC),
    overlayFrame(to(PROTO_TCP, '203.0.113.9', 80), macOfIpv4(parseIpv4('203.0.113.9'))),
    arpRequest(sender, task),
    arpRequest(sender, vip),
    arpRequest(sender, gateway),
    arpRequest(sender, '203.0.113.9'),
    new Uint8Array(other.buffer),
  ];
}

/** Changes some bytes of a copy of `bytes`, or its length, or now and then all of it. */
export function mutated(bytes: Uint8Array, random: Random): Uint8Array {
  const below = (limit: number): number => Math.floor(random.next() * limit);
  const kind = random.next();
  if (kind < 0.05) return random.bytes(below(200));
  const copy = Uint8Array.from(bytes);
  for (let flips = below(5); flips > 0 && copy.length > 0; flips -= 1) {
    // Headers are what decides: half of the changes are in them.
    const at = below(random.next() < 0.5 ? Math.min(copy.length, 64) : copy.length);
    copy[at] = random.next() < 0.5 ? below(256) : copy[at]! ^ (1 << below(8));
  }
  if (kind < 0.25) return copy.subarray(0, below(copy.length + 1));
  if (kind > 0.98) return Buffer.concat([copy, random.bytes(below(EXTENSION_BYTES_MAX))]);
  return copy;
}

/** A source of hostile frames: sound ones, each changed a little. */
export function hostileFrames(addresses: HostileAddresses, random: Random): () => Uint8Array {
  const sound = soundFrames(addresses);
  return () => mutated(sound[Math.floor(random.next() * sound.length)]!, random);
}
