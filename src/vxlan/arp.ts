import type { MacWords } from '../core/address.ts';
import { copyMac, ETHERNET_HEADER_BYTES, writeMacWords } from '../core/packet.ts';

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

/** Where the request at `start` has the address that it asks for. */
export function arpTargetAt(start: number): number {
  return start + ETHERNET_HEADER_BYTES + 24;
}

/** Where it has the address of the asker, 0 for a probe (RFC 5227), behind his MAC. */
export function arpSenderAt(start: number): number {
  return start + ETHERNET_HEADER_BYTES + 14;
}

/** Turns the request at `start` into its reply: `owner` has the address asked for. */
export function answerArp(view: DataView, start: number, owner: MacWords): void {
  const arp = start + ETHERNET_HEADER_BYTES;
  const askerAddress = view.getInt32(arp + 14);
  const target = view.getInt32(arp + 24);
  copyMac(view, arp + 8, start);
  writeMacWords(view, start + 6, owner);
  view.setUint16(arp + 6, REPLY);
  copyMac(view, arp + 8, arp + 18);
  writeMacWords(view, arp + 8, owner);
  view.setInt32(arp + 14, target);
  view.setInt32(arp + 24, askerAddress);
}
