// UDP payload on the VXLAN port, big-endian; the first byte tells it from VXLAN, whose first byte is 8:
// | kind 8 | version 8 | size 16 | sequence 32 | nonce 64 | sent 64 | zeros up to `size`, in a probe only |

/** First byte of a path probe and of its reply. */
export const PROBE_KIND = 5;
export const PROBE_REPLY_KIND = 6;
/** Version of the layout; a message of another one is ignored. */
const PROBE_VERSION = 1;
/** Size of a reply and of the smallest probe: an answer is never larger than its question. */
export const PROBE_HEADER_BYTES = 24;
/** The largest probe: what a 16-bit length of UDP over IPv4 leaves. */
export const PROBE_BYTES_MAX = 65_507;

/** A probe or its reply, whichever its first byte says. */
export interface PathProbe {
  /** UDP payload bytes: of a probe as sent, of a reply those that the other node received. */
  readonly sizeBytes: number;
  /** Counts the probes to one peer; 32 bits. */
  readonly sequence: number;
  /** 64 random bits: whoever has not seen the probe cannot make its reply. */
  readonly nonce: bigint;
  /** The sender's clock when the probe left, in microseconds; comes back unchanged. */
  readonly sentUs: bigint;
}

/**
 * Writes a probe and its padding: `probe.sizeBytes` bytes.
 *
 * @param offset - Where the UDP payload starts, in bytes.
 * @throws {RangeError} if the size is not in [PROBE_HEADER_BYTES, PROBE_BYTES_MAX]
 */
export function writeProbe(target: DataView, offset: number, probe: PathProbe): void {
  const { sizeBytes, sequence, nonce, sentUs } = probe;
  if (!(sizeBytes >= PROBE_HEADER_BYTES && sizeBytes <= PROBE_BYTES_MAX)) {
    throw new RangeError(
      `Cannot write a path probe of ${sizeBytes} bytes: expected ${PROBE_HEADER_BYTES} to ${PROBE_BYTES_MAX}`,
    );
  }
  target.setUint8(offset, PROBE_KIND);
  target.setUint8(offset + 1, PROBE_VERSION);
  target.setUint16(offset + 2, sizeBytes);
  target.setUint32(offset + 4, sequence);
  target.setBigUint64(offset + 8, nonce);
  target.setBigUint64(offset + 16, sentUs);
  const padding = target.byteOffset + offset + PROBE_HEADER_BYTES;
  new Uint8Array(target.buffer, padding, sizeBytes - PROBE_HEADER_BYTES).fill(0);
}

/**
 * Turns the probe in [offset, offset + length) into its reply, in place: the reply is its first
 * {@link PROBE_HEADER_BYTES} bytes.
 *
 * @returns bytes of the reply; 0 if this is no whole probe, which is not answered
 */
export function answerProbe(view: DataView, offset: number, length: number): number {
  if (!isProbeMessage(view, offset, length, PROBE_KIND)) return 0;
  if (view.getUint16(offset + 2) !== length) return 0;
  view.setUint8(offset, PROBE_REPLY_KIND);
  return PROBE_HEADER_BYTES;
}

/**
 * Reads the reply in [offset, offset + length).
 *
 * @returns undefined if this is no reply
 */
export function readProbeReply(
  view: DataView,
  offset: number,
  length: number,
): PathProbe | undefined {
  if (length !== PROBE_HEADER_BYTES) return undefined;
  if (!isProbeMessage(view, offset, length, PROBE_REPLY_KIND)) return undefined;
  return {
    sizeBytes: view.getUint16(offset + 2),
    sequence: view.getUint32(offset + 4),
    nonce: view.getBigUint64(offset + 8),
    sentUs: view.getBigUint64(offset + 16),
  };
}

function isProbeMessage(view: DataView, offset: number, length: number, kind: number): boolean {
  return (
    length >= PROBE_HEADER_BYTES &&
    view.getUint8(offset) === kind &&
    view.getUint8(offset + 1) === PROBE_VERSION
  );
}
