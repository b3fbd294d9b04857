import { AddressWords } from '../core/address-words.ts';
import { applyDelta, delta16, fold16 } from '../core/checksum.ts';
import { type Packet, PROTO_TCP, PROTO_UDP } from '../core/packet.ts';

/** The addresses and ports that a packet is to carry, of the packet's own family. A reused object. */
export class Rewrite {
  readonly source: AddressWords = new AddressWords();
  readonly destination: AddressWords = new AddressWords();
  sourcePort = 0;
  destinationPort = 0;
}

/** Where the checksum lies in a TCP, a UDP and an IPv4 header. */
export const TCP_CHECKSUM_OFFSET = 16;
export const UDP_CHECKSUM_OFFSET = 6;
export const IPV4_CHECKSUM_OFFSET = 10;

/**
 * Gives a packet new addresses, in its bytes and in `packet`, and updates the IPv4 header's checksum.
 *
 * @returns what that adds to the sum of a pseudo-header
 */
export function rewriteAddresses(view: DataView, packet: Packet, to: Rewrite): number {
  const { family, ipStart } = packet;
  const delta =
    to.source.replaceAt(view, packet.sourceStart, family) +
    to.destination.replaceAt(view, packet.destinationStart, family);
  packet.source = to.source.w3 >>> 0;
  packet.destination = to.destination.w3 >>> 0;
  if (family === 4) {
    const at = ipStart + IPV4_CHECKSUM_OFFSET;
    view.setUint16(at, applyDelta(view.getUint16(at), delta));
  }
  return delta;
}

/**
 * Gives a TCP or UDP packet new addresses and ports, in its bytes and in `packet`, with RFC 1624 updates
 * of every checksum: the payload is never read, so a superframe costs no more than a small one. A
 * later fragment has no ports: only its addresses change.
 *
 * @param partialChecksum - The frame carries `VIRTIO_NET_HDR_F_NEEDS_CSUM`: its TCP or UDP checksum
 *   field holds the sum of the pseudo-header, not complemented; ports are not part of it.
 */
export function rewritePacket(
  view: DataView,
  packet: Packet,
  to: Rewrite,
  partialChecksum: boolean,
): void {
  const addresses = rewriteAddresses(view, packet, to);
  const isTcp = packet.protocol === PROTO_TCP;
  if (packet.isLaterFragment || !(isTcp || packet.protocol === PROTO_UDP)) return;

  const l4 = packet.l4Start;
  const ports =
    delta16(packet.sourcePort, to.sourcePort) + delta16(packet.destinationPort, to.destinationPort);
  view.setUint16(l4, to.sourcePort);
  view.setUint16(l4 + 2, to.destinationPort);
  packet.sourcePort = to.sourcePort;
  packet.destinationPort = to.destinationPort;
  const at = l4 + (isTcp ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET);
  const before = view.getUint16(at);
  if (partialChecksum) view.setUint16(at, fold16(before + addresses));
  else if (isTcp) view.setUint16(at, applyDelta(before, addresses + ports));
  else view.setUint16(at, updateUdpChecksum(before, addresses + ports));
}

/**
 * RFC 768: a zero field says "no checksum", and stays; a sum of zero is sent as all ones. Over IPv6 a zero
 * field is for tunnels only (RFC 6935): it stays as well, and the receiver judges it.
 */
export function updateUdpChecksum(checksum: number, delta: number): number {
  if (checksum === 0) return 0;
  const updated = applyDelta(checksum, delta);
  return updated === 0 ? 0xffff : updated;
}
