const SURROGATE_FIRST = 0xd800;
const SURROGATE_LAST = 0xdfff;
const CODE_POINT_MAX = 0x10_ffff;

/**
 * Refuses keys that have no UTF-8 form of their own: stores order and compare keys by their bytes.
 *
 * @throws {RangeError} if `key` is empty or has a lone surrogate
 */
export function checkKey(key: string): void {
  if (key === '' || !key.isWellFormed()) {
    throw new RangeError(
      `Cannot use ${JSON.stringify(key)} as a key: expected well-formed text, not empty`,
    );
  }
}

/**
 * Orders keys by their UTF-8 bytes, as `sort()` wants it. JavaScript's own `<` orders by UTF-16
 * units, which puts U+10000 before U+FFFF.
 */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at += 1) {
    if (a.charCodeAt(at) === b.charCodeAt(at)) continue;
    // Where the second halves of two surrogate pairs differ, their order is that of the pairs.
    return codePointAt(a, at) - codePointAt(b, at);
  }
  return a.length - b.length;
}

/**
 * The lowest text above all those that start with `prefix`, in UTF-8 byte order: `prefix` with its
 * last code point counted up.
 *
 * @returns undefined if there is none: everything at or above `prefix` starts with it
 */
export function prefixEnd(prefix: string): string | undefined {
  const codePoints = Array.from(prefix, (char) => codePointAt(char, 0));
  while (codePoints.at(-1) === CODE_POINT_MAX) codePoints.pop();
  const last = codePoints.pop();
  if (last === undefined) return undefined;
  const next = last + 1 === SURROGATE_FIRST ? SURROGATE_LAST + 1 : last + 1;
  return String.fromCodePoint(...codePoints, next);
}

function codePointAt(text: string, at: number): number {
  return text.codePointAt(at) ?? 0;
}
