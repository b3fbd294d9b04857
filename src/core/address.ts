/** An IPv4 address as an unsigned 32-bit number, first octet highest (network byte order). */
export type Ipv4 = number;

/**
 * Reads a dotted quad strictly: four decimal octets, no leading zeros, nothing else.
 *
 * @throws {RangeError} if `text` is not an IPv4 address
 */
export function parseIpv4(text: string): Ipv4 {
  const octets = text.split('.');
  let value = 0;
  const valid =
    octets.length === 4 &&
    octets.every((octet) => {
      value = value * 256 + Number(octet);
      return /^(0|[1-9]\d{0,2})$/.test(octet) && Number(octet) <= 255;
    });
  if (!valid) {
    throw new RangeError(
      `Cannot read ${JSON.stringify(text)} as an IPv4 address: expected a.b.c.d`,
    );
  }
  return value;
}

/** The dotted quad of `address`. */
export function formatIpv4(address: Ipv4): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** An IPv4 network: `address` has no host bits set. */
export interface Ipv4Cidr {
  readonly address: Ipv4;
  /** Prefix length in bits, 0 to 32. */
  readonly prefix: number;
}

/** The netmask of a prefix length, as an unsigned number. */
export function netmask(prefix: number): number {
  return prefix === 0 ? 0 : (0xffff_ffff << (32 - prefix)) >>> 0;
}

/**
 * Reads `a.b.c.d/n`; host bits must be zero.
 *
 * @throws {RangeError} naming what is wrong with `text`
 */
export function parseCidr(text: string): Ipv4Cidr {
  const [addressText = '', prefixText = '', ...rest] = text.split('/');
  const prefix = /^\d{1,2}$/.test(prefixText) && rest.length === 0 ? Number(prefixText) : -1;
  if (prefix < 0 || prefix > 32) {
    throw new RangeError(
      `Cannot read ${JSON.stringify(text)} as a subnet: expected a.b.c.d/n with n in [0, 32]`,
    );
  }
  const address = parseIpv4(addressText);
  if ((address & netmask(prefix)) >>> 0 !== address) {
    const network = formatIpv4((address & netmask(prefix)) >>> 0);
    throw new RangeError(
      `Cannot use ${text} as a subnet: host bits are set, did you mean ${network}/${prefix}?`,
    );
  }
  return { address, prefix };
}

/** `a.b.c.d/n` of `cidr`. */
export function formatCidr(cidr: Ipv4Cidr): string {
  return `${formatIpv4(cidr.address)}/${cidr.prefix}`;
}

/** Whether `address` lies in `cidr`. */
export function cidrContains(cidr: Ipv4Cidr, address: Ipv4): boolean {
  return (address & netmask(cidr.prefix)) >>> 0 === cidr.address;
}

/** Whether two networks share an address. */
export function cidrsOverlap(a: Ipv4Cidr, b: Ipv4Cidr): boolean {
  return a.prefix <= b.prefix ? cidrContains(a, b.address) : cidrContains(b, a.address);
}

/** A MAC address as a number below 2^48, first octet highest. */
export type Mac = number;

/** The router's address on every network of every node: gateway, VIPs and routed packets use it. */
export const GATEWAY_MAC: Mac = 0x02_57_45_46_54_01;

/** The MAC of a task: 02:42 and its IPv4 address, as Docker makes them. */
export function macOfIpv4(address: Ipv4): Mac {
  return 0x0242_0000_0000 + address;
}

/** A MAC in two integers, for hot paths: V8 allocates numbers of 48 bits to pass them. */
export interface MacWords {
  /** The upper 16 bits. */
  readonly macHigh: number;
  /** The lower 32 bits, signed. */
  readonly macLow: number;
}

/** The two words of `mac`. */
export function macWords(mac: Mac): MacWords {
  return { macHigh: Math.floor(mac / 0x1_0000_0000), macLow: mac | 0 };
}

/** `aa:bb:cc:dd:ee:ff` of `mac`. */
export function formatMac(mac: Mac): string {
  return (mac.toString(16).padStart(12, '0').match(/../g) ?? []).join(':');
}

/**
 * Reads `aa:bb:cc:dd:ee:ff`.
 *
 * @throws {RangeError} if `text` is not a MAC address
 */
export function parseMac(text: string): Mac {
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text)) {
    throw new RangeError(
      `Cannot read ${JSON.stringify(text)} as a MAC address: expected aa:bb:cc:dd:ee:ff`,
    );
  }
  return Number.parseInt(text.replaceAll(':', ''), 16);
}
