import { formatIpCidr, type Ipv6Cidr, ipOfBits } from '../core/cidr.ts';
import { type Ipv6, parseIpv6 } from '../core/ip.ts';

/** Bytes of a Global ID (RFC 4193 section 3.1). */
export const GLOBAL_ID_BYTES = 5;
/** fc00::/7 with the L bit set: assigned locally (RFC 4193 section 3.1). */
const LOCAL_PREFIX = 0xfdn;
const ANY: Ipv6 = parseIpv6('::');

/**
 * A /48 of unique local addresses, from which a cluster's networks get their subnets: no two clusters
 * are likely to share one.
 *
 * @param globalId - {@link GLOBAL_ID_BYTES} bytes of chance.
 */
export function uniqueLocalPrefix(globalId: Uint8Array): string {
  let bits = LOCAL_PREFIX;
  for (const byte of globalId.subarray(0, GLOBAL_ID_BYTES)) bits = (bits << 8n) | BigInt(byte);
  const cidr: Ipv6Cidr = { address: ipOfBits(bits << 80n, ANY), prefix: 48 };
  return formatIpCidr(cidr);
}
