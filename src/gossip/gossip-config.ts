import type { Random } from '../core/capabilities.ts';
import { utf8Bytes } from './bytes.ts';
import type { GossipTuning } from './config.ts';
import type { EndpointRecord } from './endpoint-record.ts';
import { NODE_NAME_BYTES_MAX } from './field-reader.ts';
import type { Member } from './member.ts';
import { addressBytes, type PeerAddress } from './peer-address.ts';
import type { GossipCipher } from './sealing.ts';

/**
 * What weft nodes say they speak: memberlist protocol 1 to 5, at 2 as memberlist itself does, and
 * as its delegate serf 2 to 5, at 5, without which a serf agent refuses to talk.
 */
export const PROTOCOL_VERSIONS: Uint8Array = Uint8Array.of(1, 5, 2, 2, 5, 5);

/** Who this node is. */
export interface GossipConfig extends PeerAddress {
  /** Unique in the cluster, 1 to 255 bytes of UTF-8. */
  readonly name: string;
  /** Larger than in every earlier life of this node: the epoch time of its start will do. */
  readonly generation: number;
  /** What all members know of this node, besides that it is weft's: see {@link encodeTags}. */
  readonly tags?: ReadonlyMap<string, string>;
  /** Keeps clusters apart: others' packets are dropped. At most 255 bytes; empty by default. */
  readonly label?: string;
  /** Whether what is sent is compressed. True by default, as in memberlist. */
  readonly compression?: boolean;
  readonly tuning?: Partial<GossipTuning>;
}

/**
 * Lets machines of one process hold once what they have in common: in a simulation of thousands of
 * nodes each knows all others, and mostly the same of them.
 */
export interface Sharing {
  /** @returns `member`, or another object that says the same */
  member(member: Member): Member;
  /** @returns `record`, or another object that says the same; it is not changed any more */
  record(record: EndpointRecord): EndpointRecord;
}

/** What a node knows, to start others with. */
export interface GossipSnapshot {
  readonly members: readonly Member[];
  readonly records: readonly EndpointRecord[];
}

/** What {@link Gossip} works with. */
export interface GossipDeps {
  /** Decides whom to probe, tell and ask, and when; makes nonces. */
  readonly random: Random;
  /** Without one no keys can be set. */
  readonly cipher?: GossipCipher;
  /** Milliseconds since the epoch, to tell how old a change is; 0 without it. */
  readonly epochMs?: () => number;
  readonly sharing?: Sharing;
}

/** @throws {RangeError} if the name, the generation, the address or the port cannot be used */
export function checkConfig({ name, generation, ...peer }: GossipConfig): void {
  const nameBytes = utf8Bytes(name).length;
  if (nameBytes === 0 || nameBytes > NODE_NAME_BYTES_MAX) {
    throw new RangeError(
      `Cannot use a node name of ${nameBytes} bytes: expected 1 to ${NODE_NAME_BYTES_MAX}`,
    );
  }
  if (!Number.isSafeInteger(generation) || generation < 0) {
    throw new RangeError(`Cannot use generation ${generation}: expected an integer of 0 or more`);
  }
  checkAddress(peer);
}

/** @throws {RangeError} if it is no address, or no port that can be sent to */
export function checkAddress({ address, port }: PeerAddress): void {
  addressBytes(address);
  if (!Number.isInteger(port) || port < 1 || port > 0xffff) {
    throw new RangeError(`Cannot use port ${port}: expected an integer in [1, 65535]`);
  }
}
