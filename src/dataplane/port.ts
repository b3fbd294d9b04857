import type { Ipv4, Mac } from '../core/address.ts';
import { TokenBucket } from '../core/token-bucket.ts';

/** ICMP errors to one port: so many a second, and so many at once (RFC 4443 section 2.4 (f)). */
const ERRORS_PER_SECOND = 100;
const ERRORS_BURST = 50;

/** An attachment to the switch: one TAP, whose other end is a task's interface or the host's. */
export class Port {
  /** Given by the control thread; never reused in the life of a data plane. */
  readonly id: number;
  readonly fd: number;
  /** The VNI of its network, or HOST_SCOPE. */
  readonly scope: number;
  readonly address: Ipv4;
  readonly mac: Mac;
  /** How many frames to read before the others have their turn; adapts to the load. */
  burst = 1;
  /** Holds back errors about what comes from here. */
  readonly errors: TokenBucket = new TokenBucket(ERRORS_PER_SECOND, ERRORS_BURST);

  constructor(fields: {
    readonly id: number;
    readonly fd: number;
    readonly scope: number;
    readonly address: Ipv4;
    readonly mac: Mac;
  }) {
    this.id = fields.id;
    this.fd = fields.fd;
    this.scope = fields.scope;
    this.address = fields.address;
    this.mac = fields.mac;
  }
}
