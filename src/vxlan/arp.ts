import type { Ipv4, Mac } from '../core/address.ts';
import { ETHERNET_HEADER_BYTES, readMac, writeMac } from '../core/packet.ts';

// RFC 826 for Ethernet and IPv4: | htype | ptype | hlen plen | oper | sha spa tha tpa |
const ARP_BYTES = 28;
const HARDWARE_ETHERNET_PROTOCOL_IPV4 = 0x0001_0800;
const LENGTHS = 0x0604;
const REQUEST = 1;
const REPLY = 2;

/** Bytes of an ARP frame without padding. */
export const ARP_FRAME_BYTES: number = ETHERNET_HEADER_BYTES + ARP_BYTES;

/** Whether the frame in [start, start + length), of type ARP, is a well-formed request for IPv4. */
export function isArpRequest(view: DataView, start: number, length: number): boolean {
  if (length < ARP_FRAME_BYTES) return false;
  const arp = start + ETHERNET_HEADER_BYTES;
  return (
    view.getUint32(arp) === HARDWARE_ETHERNET_PROTOCOL_IPV4 &&
    view.getUint16(arp + 4) === LENGTHS &&
    view.getUint16(arp + 6) === REQUEST
  );
}

/** The address that the ARP request at `start` asks for. */
export function arpTarget(view: DataView, start: number): Ipv4 {
  return view.getUint32(start + ETHERNET_HEADER_BYTES + 24);
}

/** The address of the asker; 0 for a probe (RFC 5227). */
export function arpSender(view: DataView, start: number): Ipv4 {
  return view.getUint32(start + ETHERNET_HEADER_BYTES + 14);
}

/** Turns the request at `start` into its reply: `mac` has the address asked for. */
export function answerArp(view: DataView, start: number, mac: Mac): void {
  const arp = start + ETHERNET_HEADER_BYTES;
  const asker = readMac(view, arp + 8);
  const askerAddress = view.getUint32(arp + 14);
  const target = view.getUint32(arp + 24);
  writeMac(view, start, asker);
  writeMac(view, start + 6, mac);
  view.setUint16(arp + 6, REPLY);
  writeMac(view, arp + 8, mac);
  view.setUint32(arp + 14, target);
  writeMac(view, arp + 18, asker);
  view.setUint32(arp + 24, askerAddress);
}
