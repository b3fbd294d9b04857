import { Address6 } from 'ip-address';
import { formatIpv4, type Ipv4, parseIpv4 } from './address.ts';

declare const ipv6Brand: unique symbol;

/** An IPv6 address in its one canonical text form (RFC 5952). Equal addresses are equal strings. */
export type Ipv6 = string & { readonly [ipv6Brand]: true };

/** An address of either family, as control code holds it: a number is IPv4, a string IPv6. */
export type Ip = Ipv4 | Ipv6;

/** Bytes of an IPv6 address. */
export const IPV6_BYTES = 16;
/** The prefix of IPv4-mapped addresses, `::ffff:0:0/96` (RFC 4291 section 2.5.5.2): its last word. */
export const IPV4_MAPPED_WORD = 0xffff;

/** Whether `ip` is an IPv6 address. */
export function isIpv6(ip: Ip): ip is Ipv6 {
  return typeof ip === 'string';
}

/**
 * Reads an IPv6 address; zones and prefix lengths are refused.
 *
 * @throws {RangeError} if `text` is not an IPv6 address
 */
export function parseIpv6(text: string): Ipv6 {
  if (/[%/]/.test(text) || !Address6.isValid(text)) {
    throw new RangeError(
      `Cannot read ${JSON.stringify(text)} as an IPv6 address: expected eight groups of hex digits, as in fd00::1`,
    );
  }
  return new Address6(text).correctForm() as Ipv6;
}

/**
 * Reads an address of either family.
 *
 * @throws {RangeError} if `text` is neither
 */
export function parseIp(text: string): Ip {
  return text.includes(':') ? parseIpv6(text) : parseIpv4(text);
}

/** The usual text of `ip`. */
export function formatIp(ip: Ip): string {
  return isIpv6(ip) ? ip : formatIpv4(ip);
}

/** `10.0.0.1:4789`, or `[fd00::1]:4789`. */
export function formatIpPort(ip: Ip, port: number): string {
  return formatHostPort(formatIp(ip), port);
}

/** `host:port` of an address or a name, an IPv6 address in brackets (RFC 3986 section 3.2.2). */
export function formatHostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * The four 32-bit words of `ip`, first word highest, as signed integers: what hot paths compare and
 * hash. An IPv4 address becomes its IPv4-mapped one, so both families share one space.
 */
export function ipWords(ip: Ip): readonly [number, number, number, number] {
  if (!isIpv6(ip)) return [0, 0, IPV4_MAPPED_WORD, ip | 0];
  const bits = new Address6(ip).bigInt();
  const word = (shift: bigint): number => Number((bits >> shift) & 0xffff_ffffn) | 0;
  return [word(96n), word(64n), word(32n), word(0n)];
}

/** The address of four words as {@link ipWords} gives them. */
export function ipFromWords(w0: number, w1: number, w2: number, w3: number): Ip {
  if (w0 === 0 && w1 === 0 && w2 === IPV4_MAPPED_WORD) return w3 >>> 0;
  const groups = [w0, w1, w2, w3].flatMap((word) => [word >>> 16, word & 0xffff]);
  return parseIpv6(groups.map((group) => group.toString(16)).join(':'));
}

/** Writes the 16 bytes of `ip` (an IPv4 address as its IPv4-mapped one) at `offset`. */
export function writeIp16(view: DataView, offset: number, ip: Ip): void {
  for (const [index, word] of ipWords(ip).entries()) view.setInt32(offset + 4 * index, word);
}
