/** Size of a TAI64N label. */
export const TAI64N_BYTES = 12;
/** 2^62, the label of TAI second 0, plus the 10 s that TAI was ahead of UTC in 1970. */
const EPOCH_HIGH = 0x4000_0000;
const EPOCH_LOW = 10;

/**
 * The external TAI64N label of a time: seconds and nanoseconds, highest byte first, so that later labels
 * are greater byte by byte (https://cr.yp.to/libtai/tai64.html). Leap seconds are not counted, as in
 * WireGuard: the label orders a sender's own initiations and is compared with nothing else.
 *
 * @param epochMs - Milliseconds since the Unix epoch; a fraction becomes nanoseconds.
 */
export function tai64n(epochMs: number): Uint8Array {
  const label = new Uint8Array(TAI64N_BYTES);
  const view = new DataView(label.buffer);
  const seconds = Math.floor(epochMs / 1_000);
  view.setUint32(0, EPOCH_HIGH + Math.floor((seconds + EPOCH_LOW) / 2 ** 32));
  view.setUint32(4, (seconds + EPOCH_LOW) >>> 0);
  view.setUint32(8, Math.floor((epochMs - seconds * 1_000) * 1_000_000));
  return label;
}

/** Whether label `a` is later than label `b`. */
export function isLater(a: Uint8Array, b: Uint8Array): boolean {
  for (let index = 0; index < TAI64N_BYTES; index += 1) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return false;
}
