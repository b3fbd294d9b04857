import type { BroadcastQueue } from './broadcast-queue.ts';
import { type GossipTuning, retransmitLimit } from './config.ts';
import type { Outbox } from './effects.ts';
import type { MemberTable } from './member.ts';
import { isWeftMeta } from './member-tags.ts';
import { encodeMessage, type Message } from './messages.ts';
import {
  COMPOUND_ENTRY_BYTES,
  COMPOUND_HEADER_BYTES,
  COMPOUND_MESSAGES_MAX,
  CRC_HEADER_BYTES,
} from './packet.ts';
import type { PeerAddress } from './peer-address.ts';
import type { Wire } from './wire.ts';

/** First protocol version whose receivers check a CRC (memberlist net.go `rawSendMsgPacket`). */
const CRC_VERSION = 5;

/** What {@link PacketSender} works on. */
export interface PacketSenderParts {
  readonly tuning: GossipTuning;
  readonly table: MemberTable;
  readonly outbox: Outbox;
  readonly wire: Wire;
  /** Sources of piggybacked broadcasts: a later one gets the room that the earlier left. */
  readonly queues: readonly {
    readonly queue: BroadcastQueue;
    /** Whether only weft nodes understand what is in it. */
    readonly weftOnly: boolean;
  }[];
}

/** Packs messages into packets, with queued broadcasts in the room that is left. */
export class PacketSender {
  readonly #parts: PacketSenderParts;

  constructor(parts: PacketSenderParts) {
    this.#parts = parts;
  }

  /**
   * Sends `messages` in one packet, broadcasts behind them.
   *
   * @param node - Name of the receiver, or empty if it is not known.
   */
  send(to: PeerAddress, node: string, messages: readonly Message[]): void {
    const own = messages.map(encodeMessage);
    const usedBytes = own.reduce((sum, part) => sum + part.length + COMPOUND_ENTRY_BYTES, 0);
    this.#emit(to, node, [...own, ...this.#takeBroadcasts(node, usedBytes, own.length)]);
  }

  /** Sends a packet of broadcasts, if there are any for this receiver. */
  sendBroadcasts(to: PeerAddress, node: string): void {
    const broadcasts = this.#takeBroadcasts(node, 0, 0);
    if (broadcasts.length > 0) this.#emit(to, node, broadcasts);
  }

  /** Sends encoded user messages in a packet each, to a node that is known to check CRCs. */
  sendUser(to: PeerAddress, messages: readonly Uint8Array[]): void {
    for (const message of messages) this.#push(to, [message], true);
  }

  #takeBroadcasts(node: string, usedBytes: number, usedCount: number): Uint8Array[] {
    const { tuning, table, queues, wire } = this.#parts;
    const limit = retransmitLimit(tuning.retransmitMult, table.size);
    const aroundBytes = wire.packetOverheadBytes + CRC_HEADER_BYTES + COMPOUND_HEADER_BYTES;
    let freeBytes = tuning.packetBytesMax - aroundBytes - usedBytes;
    const meta = table.get(node)?.meta;
    const isWeft = meta !== undefined && isWeftMeta(meta);
    const taken: Uint8Array[] = [];
    for (const { queue, weftOnly } of queues) {
      if (weftOnly && !isWeft) continue;
      const countMax = COMPOUND_MESSAGES_MAX - usedCount - taken.length;
      const some = queue.take(freeBytes, COMPOUND_ENTRY_BYTES, limit, countMax);
      for (const bytes of some) freeBytes -= bytes.length + COMPOUND_ENTRY_BYTES;
      taken.push(...some);
    }
    return taken;
  }

  #emit(to: PeerAddress, node: string, messages: readonly Uint8Array[]): void {
    const version = this.#parts.table.get(node)?.versions[1] ?? 0;
    this.#push(to, messages, version >= CRC_VERSION);
  }

  #push({ address, port }: PeerAddress, messages: readonly Uint8Array[], checksum: boolean): void {
    const bytes = this.#parts.wire.sealPacket(messages, checksum);
    this.#parts.outbox.push({ kind: 'send', to: { address, port }, bytes });
  }
}
