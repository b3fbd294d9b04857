// A record is what a data message has after its first eight bytes, in the arena:
//
//   | counter, 8 bytes big-endian | plaintext or ciphertext, n bytes | tag, 16 bytes |
//
// AES-256-GCM. Nonce: 4 zero bytes, then the counter, as Noise's AESGCM has it. Associated data, 13 bytes:
// the message's first eight bytes, 3 zero bytes, and n as 16 bits big-endian. Form and associated data are
// those of a TLS 1.2 record, for which OpenSSL has a mode that makes nonce, ciphertext and tag in one call.

/** Bytes of a record in front of its plaintext. */
export const RECORD_COUNTER_BYTES = 8;
/** Bytes of a record behind its plaintext. */
export const RECORD_TAG_BYTES = 16;
/** Bytes of associated data. */
export const RECORD_AD_BYTES = 13;
/** Bytes of the header of a message, which its record's associated data begin with. */
export const RECORD_HEADER_BYTES = 8;

/** Seals the records of one key, counting them. Used by one thread. */
export interface RecordSealer {
  /**
   * Encrypts in place, and writes counter and tag around it.
   *
   * @param offset - Of the record in the arena.
   * @param length - Of the plaintext, at most 65,511 bytes.
   */
  seal(offset: number, length: number): void;
  /** Lets go of the key. */
  close(): void;
}

/** Opens the records of one key. It does not ask whether a record was seen before. */
export interface RecordOpener {
  /**
   * Decrypts in place.
   *
   * @param offset - Of the record in the arena.
   * @param length - Of the plaintext: the record's length less counter and tag.
   * @returns whether the record is authentic; its bytes are void if not
   */
  open(offset: number, length: number): boolean;
  /** Lets go of the key. */
  close(): void;
}

/** An implementation of AES-256-GCM over records in one arena. */
export interface AeadProvider {
  /** For people, as `weft status` shows it. */
  readonly name: string;
  /**
   * @param key - 32 bytes.
   * @param header - First eight bytes of every message of this key.
   * @param lane - The first byte of every counter. Threads that seal under one key have a lane each, so
   *   that no two of their nonces are equal.
   */
  sealer(key: Uint8Array, header: Uint8Array, lane: number): RecordSealer;
  /**
   * @param key - 32 bytes.
   * @param header - First eight bytes of every message of this key.
   */
  opener(key: Uint8Array, header: Uint8Array): RecordOpener;
}
