import { type Mac, type MacWords, macWords } from './address.ts';
import { delta32 } from './checksum.ts';
import { IPV4_MAPPED_WORD, type Ip, ipFromWords, ipWords } from './ip.ts';

/**
 * An address of either family as hot paths have it: four signed 32-bit words, first one highest, an IPv4
 * address as its IPv4-mapped one. A reused object: V8 keeps such integers in its fields without allocating.
 */
export class AddressWords {
  w0 = 0;
  w1 = 0;
  w2 = 0;
  /** All of an IPv4 address. */
  w3 = 0;

  /** The words of `ip`. For control code. */
  static of(ip: Ip): AddressWords {
    const words = new AddressWords();
    words.set(...ipWords(ip));
    return words;
  }

  get isIpv4(): boolean {
    return this.w2 === IPV4_MAPPED_WORD && this.w0 === 0 && this.w1 === 0;
  }

  set(w0: number, w1: number, w2: number, w3: number): void {
    this.w0 = w0;
    this.w1 = w1;
    this.w2 = w2;
    this.w3 = w3;
  }

  /** @param address - As a signed integer; others would be allocated to be passed. */
  setIpv4(address: number): void {
    this.set(0, 0, IPV4_MAPPED_WORD, address);
  }

  copy(other: AddressWords): void {
    this.set(other.w0, other.w1, other.w2, other.w3);
  }

  equals(other: AddressWords): boolean {
    return (
      this.w3 === other.w3 && this.w2 === other.w2 && this.w1 === other.w1 && this.w0 === other.w0
    );
  }

  /** Takes the address that lies at `offset` in a packet: 4 bytes of IPv4, 16 of IPv6. */
  read(view: DataView, offset: number, family: 0 | 4 | 6): void {
    if (family !== 6) {
      this.setIpv4(view.getInt32(offset));
      return;
    }
    this.w0 = view.getInt32(offset);
    this.w1 = view.getInt32(offset + 4);
    this.w2 = view.getInt32(offset + 8);
    this.w3 = view.getInt32(offset + 12);
  }

  /**
   * Puts the address at `offset` in a packet: 4 bytes or 16.
   *
   * @returns what that adds to the sum of the packet's words, see {@link delta32}
   */
  replaceAt(view: DataView, offset: number, family: 0 | 4 | 6): number {
    if (family !== 6) {
      const before = view.getInt32(offset);
      view.setInt32(offset, this.w3);
      return delta32(before, this.w3);
    }
    const delta =
      delta32(view.getInt32(offset), this.w0) +
      delta32(view.getInt32(offset + 4), this.w1) +
      delta32(view.getInt32(offset + 8), this.w2) +
      delta32(view.getInt32(offset + 12), this.w3);
    view.setInt32(offset, this.w0);
    view.setInt32(offset + 4, this.w1);
    view.setInt32(offset + 8, this.w2);
    view.setInt32(offset + 12, this.w3);
    return delta;
  }

  /** The address as control code has it. Allocates. */
  toIp(): Ip {
    return ipFromWords(this.w0, this.w1, this.w2, this.w3);
  }
}

const LINK_LOCAL_WORD = 0xfe80_0000 | 0;

/** The link-local address that an interface makes of its MAC: RFC 4291 section 2.5.6 and appendix A. */
export function linkLocalOf(mac: Mac): AddressWords {
  const words = new AddressWords();
  const macs = macWords(mac);
  words.set(LINK_LOCAL_WORD, 0, linkLocalWord2(macs), linkLocalWord3(macs));
  return words;
}

/** Whether `address` is {@link linkLocalOf} the MAC. Allocates nothing. */
export function isLinkLocalOf(mac: MacWords, address: AddressWords): boolean {
  return (
    address.w0 === LINK_LOCAL_WORD &&
    address.w1 === 0 &&
    address.w2 === linkLocalWord2(mac) &&
    address.w3 === linkLocalWord3(mac)
  );
}

function linkLocalWord2({ macHigh, macLow }: MacWords): number {
  const universalBit = 0x0200;
  return ((macHigh ^ universalBit) << 16) | ((macLow >>> 16) & 0xff00) | 0xff;
}

function linkLocalWord3({ macLow }: MacWords): number {
  return 0xfe00_0000 | (macLow & 0x00ff_ffff);
}
