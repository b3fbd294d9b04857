import { bytesEqual, utf8Bytes } from './bytes.ts';
import { MESSAGE_TYPE } from './messages.ts';

// A label keeps clusters apart that can reach each other. It stands in clear in front of every packet,
// and of what the one who opens a stream sends; answers have none (memberlist label.go):
//
//   | type 244, 1 byte | length n, 1 byte | n bytes of UTF-8 |

/** Largest label, in UTF-8 (memberlist `LabelMaxSize`). */
export const LABEL_BYTES_MAX = 255;
const TYPE_AND_LENGTH_BYTES = 2;

/** Why the front of a packet or a stream was refused. */
export type LabelDrop = 'bad-label' | 'wrong-label';

/**
 * The label header of a cluster; no bytes for the empty label.
 *
 * @throws {RangeError} if the label is longer than {@link LABEL_BYTES_MAX}
 */
export function labelHeader(label: string): Uint8Array {
  const bytes = utf8Bytes(label);
  if (bytes.length === 0) return bytes;
  if (bytes.length > LABEL_BYTES_MAX) {
    throw new RangeError(
      `Cannot use a gossip label of ${bytes.length} bytes: expected at most ${LABEL_BYTES_MAX}`,
    );
  }
  return withFront(Uint8Array.of(MESSAGE_TYPE.hasLabel, bytes.length), bytes);
}

/** The label in a header: what encryption authenticates. */
export function labelBytes(header: Uint8Array): Uint8Array {
  return header.subarray(Math.min(header.length, TYPE_AND_LENGTH_BYTES));
}

/**
 * Compares the front of `bytes` with this node's header.
 *
 * @returns the header's length, 'truncated' if more bytes may make it one, or why it is refused
 */
export function checkLabel(
  bytes: Uint8Array,
  header: Uint8Array,
): number | LabelDrop | 'truncated' {
  if (bytes.length === 0) return 'truncated';
  if (bytes[0] !== MESSAGE_TYPE.hasLabel) return header.length === 0 ? 0 : 'wrong-label';
  const size = bytes[1];
  if (size === undefined) return 'truncated';
  if (size === 0) return 'bad-label';
  const end = TYPE_AND_LENGTH_BYTES + size;
  if (bytes.length < end) return 'truncated';
  return bytesEqual(bytes.subarray(0, end), header) ? end : 'wrong-label';
}

/** `front`, then `rest`. */
export function withFront(front: Uint8Array, rest: Uint8Array): Uint8Array {
  if (front.length === 0) return rest;
  const joined = new Uint8Array(front.length + rest.length);
  joined.set(front);
  joined.set(rest, front.length);
  return joined;
}
