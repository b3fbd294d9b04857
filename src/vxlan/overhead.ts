import { ETHERNET_HEADER_BYTES, UDP_HEADER_BYTES } from '../core/packet.ts';
import { VXLAN_HEADER_BYTES } from './header.ts';

/** Headers of the outer packet, without options or extension headers. */
const OUTER_IPV4_HEADER_BYTES = 20;
const OUTER_IPV6_HEADER_BYTES = 40;
/** What encryption adds to a datagram: type and receiver index 8, counter 8, authentication tag 16. */
const ENCRYPTION_OVERHEAD_BYTES = 32;

/** How a frame travels between two nodes. */
export interface TunnelKind {
  /** Whether the outer packet is IPv6. */
  readonly ipv6: boolean;
  /** Whether the network that the frame belongs to is encrypted. */
  readonly encrypted: boolean;
}

/** Bytes of an outer packet in front of its UDP payload: IP and UDP headers. */
export function outerHeaderBytes(ipv6: boolean): number {
  return (ipv6 ? OUTER_IPV6_HEADER_BYTES : OUTER_IPV4_HEADER_BYTES) + UDP_HEADER_BYTES;
}

/**
 * What the tunnel adds to an inner IP packet: outer IP and UDP, VXLAN and the inner Ethernet header,
 * which are 50 bytes over IPv4 and 70 over IPv6, and 32 more where the network is encrypted.
 */
export function tunnelOverheadBytes({ ipv6, encrypted }: TunnelKind): number {
  const plain = outerHeaderBytes(ipv6) + VXLAN_HEADER_BYTES + ETHERNET_HEADER_BYTES;
  return encrypted ? plain + ENCRYPTION_OVERHEAD_BYTES : plain;
}

/**
 * The largest inner IP packet that one outer packet carries.
 *
 * @param pathMtuBytes - The largest outer IP packet that gets through.
 */
export function innerMtuBytes(pathMtuBytes: number, kind: TunnelKind): number {
  return pathMtuBytes - tunnelOverheadBytes(kind);
}
