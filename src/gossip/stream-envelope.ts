import { type CompressionDrop, decompress } from './compression.ts';
import { checkLabel, type LabelDrop } from './label.ts';
import { MESSAGE_TYPE } from './messages.ts';
import type { SealDrop } from './sealing.ts';

// What a stream carries (memberlist net.go `readStream`, `encryptLocalState`):
//
//   [label header] [type 10, sealed length as 4 bytes, sealed bytes of] [compressed message of] message
//
// Each part in brackets may be missing. The first five bytes and the label are authenticated.

/** Largest sealed or compressed form of a message (memberlist `maxPushStateBytes`). */
export const SEALED_BYTES_MAX: number = 20 * 1_024 * 1_024;
/** Largest message, however it came (memberlist `maxDecompressedBytes`). */
export const STREAM_BYTES_MAX: number = 2 * SEALED_BYTES_MAX;
/** Bytes in front of sealed ones: type, their number. */
export const SEAL_HEADER_BYTES = 5;

/** What a node asks of a stream before it reads its message. */
export interface StreamTerms {
  /** The label header that must be in front; none at all if undefined, as in answers. */
  readonly labelHeader: Uint8Array | undefined;
  /** Opens sealed bytes; undefined if encryption is not configured. */
  readonly open: ((sealed: Uint8Array, header: Uint8Array) => Uint8Array | SealDrop) | undefined;
  /** Whether a stream that is not encrypted is refused. */
  readonly strict: boolean;
}

/** Terms that take what is neither labelled nor encrypted. */
export const PLAIN_TERMS: StreamTerms = {
  labelHeader: undefined,
  open: undefined,
  strict: false,
};

/** Why a stream was given up before its message was read. */
export type EnvelopeDrop =
  | LabelDrop
  | SealDrop
  | CompressionDrop
  | 'encryption-not-configured'
  | 'truncated';

/**
 * Looks for the message in what has come of a stream so far. Declared lengths are judged before
 * their bytes have come; what is sealed or compressed is opened once, when it is whole.
 *
 * @returns 'more' if more bytes are needed; the bytes from the message on, `whole` if no more will
 *   come for it; or why it is given up
 */
export function openEnvelope(
  bytes: Uint8Array,
  terms: StreamTerms,
): { readonly body: Uint8Array; readonly whole: boolean } | EnvelopeDrop | 'more' {
  let start = 0;
  if (terms.labelHeader !== undefined) {
    const label = checkLabel(bytes, terms.labelHeader);
    if (typeof label === 'string') return label === 'truncated' ? 'more' : label;
    start = label;
  }
  let body = bytes.subarray(start);
  if (body.length === 0) return 'more';
  const sealed = body[0] === MESSAGE_TYPE.encrypt;
  if (sealed) {
    const opened = openSealed(body, terms);
    if (typeof opened === 'string') return opened;
    if (opened.length === 0) return 'truncated';
    body = opened;
  } else if (terms.open !== undefined && terms.strict) return 'not-encrypted';
  if (body[0] !== MESSAGE_TYPE.compress) return { body, whole: sealed };
  const plain = decompress(body, { inMax: SEALED_BYTES_MAX, outMax: STREAM_BYTES_MAX });
  if (plain === 'truncated') return sealed ? 'bad-compression' : 'more';
  return typeof plain === 'string' ? plain : { body: plain, whole: true };
}

function openSealed(bytes: Uint8Array, { open }: StreamTerms): Uint8Array | EnvelopeDrop | 'more' {
  if (open === undefined) return 'encryption-not-configured';
  if (bytes.length < SEAL_HEADER_BYTES) return 'more';
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(1);
  if (length > SEALED_BYTES_MAX) return 'too-large';
  const end = SEAL_HEADER_BYTES + length;
  if (bytes.length < end) return 'more';
  const opened = open(bytes.subarray(SEAL_HEADER_BYTES, end), bytes.subarray(0, SEAL_HEADER_BYTES));
  // What follows type 10 claims to be encrypted, whatever it is.
  return opened === 'not-encrypted' ? 'undecryptable' : opened;
}

/**
 * What to tell a peer whose stream was refused, in a message of type `error`. As memberlist
 * (`handleConn`), nothing is said to another cluster, nor of a message that was malformed.
 */
export const REFUSALS: ReadonlyMap<string, string> = new Map<EnvelopeDrop, string>([
  ['encryption-not-configured', 'remote state is encrypted and encryption is not configured'],
  ['not-encrypted', 'encryption is configured but remote state is not encrypted'],
  ['undecryptable', 'no installed keys could decrypt the message'],
  ['too-large', 'remote node state is larger than limit'],
  ['bad-compression', 'cannot decompress the message'],
  ['unsupported-compression', 'cannot decompress unknown algorithm'],
]);
