/** Containers inside containers that an endpoint's value may have: users of it may recurse. */
export const JSON_DEPTH_MAX = 32;

/** Code units of JSON's structure. */
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/** Whether the containers of `text` nest too deep for users of it; only right if it is JSON. */
export function isJsonTooDeep(text: string): boolean {
  // Most have one container or two, which a search tells faster than a walk.
  const few = JSON_DEPTH_MAX - countOf(text, '{', JSON_DEPTH_MAX);
  return countOf(text, '[', few) > few && jsonDepth(text) > JSON_DEPTH_MAX;
}

/** How often `character` is in `text`; no more are looked for once they are more than `enough`. */
function countOf(text: string, character: string, enough: number): number {
  let count = 0;
  let at = text.indexOf(character);
  for (; at >= 0 && count <= enough; at = text.indexOf(character, at + 1)) count++;
  return count;
}

/** How deep the containers of the JSON `text` nest; only right if it is JSON. */
export function jsonDepth(text: string): number {
  let depth = 0;
  let deepest = 0;
  let inString = false;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (inString) {
      if (code === BACKSLASH) index++;
      else if (code === QUOTE) inString = false;
    } else if (code === QUOTE) inString = true;
    else if (code === OPEN_OBJECT || code === OPEN_ARRAY) deepest = Math.max(deepest, ++depth);
    else if (code === CLOSE_OBJECT || code === CLOSE_ARRAY) depth--;
  }
  return deepest;
}
