import type { Random } from '../core/capabilities.ts';
import { invariant } from '../core/invariant.ts';
import { ByteWriter } from './bytes.ts';
import { compress } from './compression.ts';
import { Keyring, KeyringError } from './keyring.ts';
import { checkLabel, labelBytes, labelHeader, withFront } from './label.ts';
import { MESSAGE_TYPE } from './messages.ts';
import { writeMsgpack } from './msgpack.ts';
import {
  type DecodedPacket,
  decodePacket,
  encodeCompound,
  type PacketDrop,
  withChecksum,
} from './packet.ts';
import { StreamReader } from './push-pull.ts';
import {
  type GossipCipher,
  NONCE_BYTES,
  open,
  type SealDrop,
  seal,
  sealedBytes,
} from './sealing.ts';
import { REFUSALS, SEAL_HEADER_BYTES } from './stream-envelope.ts';

/** Bytes that encryption adds to a packet. */
const SEAL_OVERHEAD_BYTES = sealedBytes(1, 0);

/** What {@link Wire} works with. */
export interface WireDeps {
  /** For nonces. */
  readonly random: Random;
  /** Without one no keys can be set. */
  readonly cipher?: GossipCipher | undefined;
}

/** How the nodes of a cluster write to each other; all must have the same label. */
export interface WireOptions {
  /** See label.ts; none by default. */
  readonly label?: string | undefined;
  /** Whether what is sent is compressed; what comes may always be. True by default. */
  readonly compression?: boolean | undefined;
  /** Of members that are told of without one, as protocol 1 does: this node's own. */
  readonly defaultPort?: number;
}

/** How the keys are used: memberlist's `GossipVerifyOutgoing` and `GossipVerifyIncoming`. */
export interface KeyUse {
  /** Whether what is sent is encrypted. */
  readonly seal: boolean;
  /** Whether what comes unencrypted is refused. */
  readonly strict: boolean;
}

/**
 * Who wrote a stream's message: who opened the stream, or the other side. Only the first puts the
 * label header in front.
 */
export type StreamSide = 'request' | 'reply';

/**
 * The outer layers of packets and streams, as memberlist puts them on (net.go `rawSendMsgPacket`,
 * `rawSendMsgStream`) and takes them off (`ingestPacket`, `readStream`): compression, checksum,
 * encryption, label. Bad input is a reason, never a throw.
 */
export class Wire {
  readonly #random: Random;
  readonly #cipher: GossipCipher | undefined;
  readonly #compression: boolean;
  readonly #labelHeader: Uint8Array;
  readonly #label: Uint8Array;
  readonly #defaultPort: number;
  #keyring = new Keyring();
  #use: KeyUse = { seal: true, strict: true };

  /** @throws {RangeError} if the label is too long */
  constructor(deps: WireDeps, options: WireOptions = {}) {
    this.#random = deps.random;
    this.#cipher = deps.cipher;
    this.#compression = options.compression ?? true;
    this.#labelHeader = labelHeader(options.label ?? '');
    this.#label = labelBytes(this.#labelHeader);
    this.#defaultPort = options.defaultPort ?? 0;
  }

  /** The keys in use; an empty ring is no encryption. */
  get keyring(): Keyring {
    return this.#keyring;
  }

  /** Bytes that label and encryption add to a packet as things are; checksum not included. */
  get packetOverheadBytes(): number {
    const sealing = this.#sealingKey() === undefined ? 0 : SEAL_OVERHEAD_BYTES;
    return this.#labelHeader.length + sealing;
  }

  /** What {@link packetOverheadBytes} is at most, with whatever keys. */
  get packetOverheadBytesMax(): number {
    return this.#labelHeader.length + SEAL_OVERHEAD_BYTES;
  }

  /**
   * Replaces all keys. To turn encryption on in a running cluster, give all nodes the keys without
   * `seal` and `strict`, then with `seal`, then with both.
   *
   * @param keys - The one that seals first; none is no encryption.
   * @throws {KeyringError} if one cannot be used; then all stay as they were
   */
  setKeys(keys: readonly Uint8Array[], use: KeyUse): void {
    if (keys.length > 0 && this.#cipher === undefined) {
      throw new KeyringError(
        'Cannot use gossip keys: this node has no cipher, expected one in its dependencies',
        { code: 'NO_CIPHER' },
      );
    }
    this.#keyring = new Keyring(keys);
    this.#use = use;
  }

  /**
   * Packs encoded messages into one UDP payload.
   *
   * @param messages - 1 to 255.
   * @param checksum - Whether the receiver checks a CRC: protocol 5 and later.
   */
  sealPacket(messages: readonly Uint8Array[], checksum: boolean): Uint8Array {
    let bytes = encodeCompound(messages);
    if (this.#compression) bytes = compress(bytes, true) ?? bytes;
    if (checksum) bytes = withChecksum(bytes);
    const key = this.#sealingKey();
    if (key !== undefined) bytes = this.#seal(bytes, key, this.#label);
    return withFront(this.#labelHeader, bytes);
  }

  /** Splits a UDP payload into messages, in whatever form memberlist takes it. */
  openPacket(packet: Uint8Array): DecodedPacket {
    // Whatever array this is, copies of its parts are to be copies: a Buffer's `slice()` is none.
    const bytes = new Uint8Array(packet.buffer, packet.byteOffset, packet.length);
    const start = checkLabel(bytes, this.#labelHeader);
    if (start === 'truncated') return dropped(bytes.length === 0 ? 'empty' : 'bad-label');
    if (typeof start === 'string') return dropped(start);
    let body = bytes.subarray(start);
    if (this.#keyring.primary !== undefined) {
      const opened = this.#open(body, this.#label);
      if (typeof opened !== 'string') body = opened;
      else if (this.#use.strict) return dropped(opened);
    }
    return decodePacket(body, this.#defaultPort);
  }

  /** Puts the layers of a stream around a whole encoded message. */
  sealStream(message: Uint8Array, side: StreamSide): Uint8Array {
    let bytes = this.#compression ? compress(message, false) : message;
    const key = this.#sealingKey();
    if (key !== undefined) {
      const header = new Uint8Array(SEAL_HEADER_BYTES);
      header[0] = MESSAGE_TYPE.encrypt;
      new DataView(header.buffer).setUint32(1, sealedBytes(1, bytes.length));
      bytes = withFront(header, this.#seal(bytes, key, withFront(header, this.#label)));
    }
    return side === 'request' ? withFront(this.#labelHeader, bytes) : bytes;
  }

  /** @param side - Who writes what is to be read. */
  streamReader(side: StreamSide): StreamReader {
    const encrypted = this.#keyring.primary !== undefined;
    return new StreamReader({
      labelHeader: side === 'request' ? this.#labelHeader : undefined,
      open: encrypted
        ? (sealed, header) => this.#open(sealed, withFront(header, this.#label))
        : undefined,
      strict: this.#use.strict,
      defaultPort: this.#defaultPort,
    });
  }

  /** The answer to a stream that was given up; undefined if it gets none. */
  refusal(reason: string): Uint8Array | undefined {
    const text = REFUSALS.get(reason);
    if (text === undefined) return undefined;
    const writer = new ByteWriter().uint8(MESSAGE_TYPE.error);
    writeMsgpack(writer, { Error: text });
    return this.sealStream(writer.finish(), 'reply');
  }

  #sealingKey(): Uint8Array | undefined {
    return this.#use.seal ? this.#keyring.primary : undefined;
  }

  #seal(bytes: Uint8Array, key: Uint8Array, data: Uint8Array): Uint8Array {
    const cipher = this.#cipher;
    invariant(cipher !== undefined, 'keys are refused without a cipher');
    return seal(bytes, data, { cipher, key, nonce: this.#random.bytes(NONCE_BYTES) });
  }

  #open(sealed: Uint8Array, data: Uint8Array): Uint8Array | SealDrop {
    const cipher = this.#cipher;
    if (cipher === undefined) return 'undecryptable';
    return open(sealed, data, { cipher, keys: this.#keyring.keys });
  }
}

function dropped(reason: PacketDrop): DecodedPacket {
  return { messages: [], drops: [reason] };
}
