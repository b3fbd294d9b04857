import type { Ipv4, Mac } from '../core/address.ts';
import { AddressWords, linkLocalOf } from '../core/address-words.ts';
import { invariant } from '../core/invariant.ts';
import type { Ipv6 } from '../core/ip.ts';
import { TokenBucket } from '../core/token-bucket.ts';
import type { ThreadPlace } from './commands.ts';

/** ICMP errors to one port: so many a second, and so many at once (RFC 4443 section 2.4 (f)). */
const ERRORS_PER_SECOND = 100;
const ERRORS_BURST = 50;

/** Answers to ARP and ND: a host asks again after a second, and once in half a minute for each neighbour. */
const NEIGHBOR_ANSWERS_PER_SECOND = 100;
const NEIGHBOR_ANSWERS_BURST = 200;

/** What a {@link Port} is made of. */
export interface PortFields {
  /** Given by the control thread; never reused in the life of a data plane. */
  readonly id: number;
  /** Where this thread writes its frames. */
  readonly fd: number;
  /** Whether this thread reads `fd`; if not, another one does. True when absent. */
  readonly isRead?: boolean;
  /** The VNI of its network, or HOST_SCOPE. */
  readonly scope: number;
  readonly address: Ipv4;
  /** Set on a network with both families. */
  readonly address6?: Ipv6;
  readonly mac: Mac;
}

/** An attachment to the switch: one TAP, whose other end is a task's interface or the host's. */
export class Port implements PortFields {
  readonly id: number;
  readonly fd: number;
  readonly isRead: boolean;
  readonly scope: number;
  readonly address: Ipv4;
  readonly address6?: Ipv6;
  readonly mac: Mac;
  /** How many frames to read before the others have their turn; adapts to the load. */
  burst = 1;
  /** Holds back errors about what comes from here. */
  readonly errors: TokenBucket = new TokenBucket(ERRORS_PER_SECOND, ERRORS_BURST);
  /** Holds back answers about neighbours. */
  readonly neighborAnswers: TokenBucket = new TokenBucket(
    NEIGHBOR_ANSWERS_PER_SECOND,
    NEIGHBOR_ANSWERS_BURST,
  );
  readonly #address: AddressWords;
  readonly #address6: AddressWords | undefined;
  readonly #linkLocal: AddressWords;

  constructor(fields: PortFields) {
    this.id = fields.id;
    this.fd = fields.fd;
    this.isRead = fields.isRead ?? true;
    this.scope = fields.scope;
    this.address = fields.address;
    if (fields.address6 !== undefined) this.address6 = fields.address6;
    this.mac = fields.mac;
    this.#address = AddressWords.of(fields.address);
    this.#address6 = fields.address6 === undefined ? undefined : AddressWords.of(fields.address6);
    this.#linkLocal = linkLocalOf(fields.mac);
  }

  /** Whether `address` is one of its own, the link-local one that its MAC makes included. */
  has(address: AddressWords): boolean {
    if (address.isIpv4) return this.#address.equals(address);
    return this.#address6?.equals(address) === true || this.#linkLocal.equals(address);
  }
}

/**
 * What the thread at `place` has of a port: its own queue of the TAP; or the only queue, which one of the
 * threads reads and all write.
 *
 * @param fds - One descriptor per thread, or one for all.
 */
export function shareOfPort(
  id: number,
  fds: readonly number[],
  place: ThreadPlace,
): { readonly fd: number; readonly isRead: boolean } {
  const isAlone = fds.length === 1;
  const fd = isAlone ? fds[0] : fds[place.index];
  invariant(
    fd !== undefined && (isAlone || fds.length === place.count),
    `port ${id} has a queue per packet thread or one: ${fds.length} for ${place.count} threads`,
  );
  return { fd, isRead: !isAlone || id % place.count === place.index };
}
