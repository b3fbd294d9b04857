import type { Delta, DeltaEntry } from './endpoint-delta.ts';
import { encodeEndpointMessage, entryFields, versionFields } from './endpoint-encoder.ts';
import type { DigestWindow, LeafRange, SeenVersion } from './endpoint-messages.ts';
import { encodeMsgpack } from './msgpack.ts';

/** Room for the map, its keys and numbers around the entries of a delta, besides the node name. */
const DELTA_OVERHEAD_BYTES = 112;
/** Room around the windows of a digest, and around the versions of a window. */
const DIGEST_OVERHEAD_BYTES = 32;
const WINDOW_OVERHEAD_BYTES = 12;
/** What an entry takes besides its text, at most. */
const ENTRY_OVERHEAD_BYTES = 16;

/**
 * Encodes `delta` as `user` messages of at most `bytesMax` each. They may arrive in any order.
 *
 * @param countMax - How many messages may be used.
 * @returns the messages, and whether they hold all of the delta; if not, the rest must go by stream
 */
export function encodeDeltas(
  delta: Delta,
  kind: 'delta' | 'repair',
  bytesMax: number,
  countMax: number,
): { readonly messages: Uint8Array[]; readonly whole: boolean } {
  const messages: Uint8Array[] = [];
  // A name of n code units has at most 3n bytes.
  const roomBytes = bytesMax - DELTA_OVERHEAD_BYTES - delta.node.length * 3;
  let since = delta.since;
  let part: DeltaEntry[] = [];
  let usedBytes = 0;
  const flush = (version: number): void => {
    messages.push(
      encodeEndpointMessage({ kind, delta: { ...delta, since, version, entries: part } }),
    );
    since = version;
    part = [];
    usedBytes = 0;
  };
  for (const entry of delta.entries) {
    const size = encodeMsgpack(entryFields(entry)).length;
    if (size > roomBytes) return { messages, whole: false };
    if (usedBytes + size > roomBytes) {
      flush(part.at(-1)?.version ?? since);
      if (messages.length === countMax) return { messages, whole: false };
    }
    part.push(entry);
    usedBytes += size;
  }
  flush(delta.version);
  return { messages, whole: true };
}

/**
 * The first part of `delta` that takes about `bytesMax`, one entry at least.
 *
 * @returns the part, and how many bytes it takes
 */
export function cutDelta(
  delta: Delta,
  bytesMax: number,
): { readonly part: Delta; readonly bytes: number } {
  let bytes = DELTA_OVERHEAD_BYTES + delta.node.length;
  for (const [index, { key, content }] of delta.entries.entries()) {
    bytes += key.length + (content?.length ?? 0) + ENTRY_OVERHEAD_BYTES;
    const last = delta.entries[index - 1];
    if (bytes <= bytesMax || last === undefined) continue;
    const part = { ...delta, version: last.version, entries: delta.entries.slice(0, index) };
    return { part, bytes };
  }
  return { part: delta, bytes };
}

/**
 * Packs what a node has of some leaves into digests that fit a packet each, as far as `countMax` of
 * them go.
 *
 * @param versions - Of all records in `range`, in the order of leaves.
 * @returns the digests' windows, and the leaves that found no room
 */
export function packWindows(
  range: LeafRange,
  versions: readonly (SeenVersion & { readonly leaf: number })[],
  bytesMax: number,
  countMax: number,
): { readonly windows: DigestWindow[]; readonly rest: LeafRange | undefined } {
  const roomBytes = bytesMax - DIGEST_OVERHEAD_BYTES - WINDOW_OVERHEAD_BYTES;
  const windows: DigestWindow[] = [];
  let first = range.first;
  let start = 0;
  while (first < range.last) {
    if (windows.length === countMax) return { windows, rest: { first, last: range.last } };
    let usedBytes = 0;
    let end = start;
    for (; end < versions.length; end++) {
      const version = versions[end];
      if (version === undefined) break;
      usedBytes += encodeMsgpack(versionFields(version)).length;
      if (usedBytes > roomBytes) break;
    }
    // A leaf is in one window: one that is cut short goes into the next as a whole.
    const cut = versions[end]?.leaf;
    while (cut !== undefined && end > start && versions[end - 1]?.leaf === cut) end--;
    const last = cut ?? range.last;
    if (cut !== undefined && end === start && last <= first) {
      return { windows, rest: { first, last: range.last } };
    }
    windows.push({ first, last, versions: versions.slice(start, end).map(seen) });
    first = last;
    start = end;
  }
  return { windows, rest: undefined };
}

function seen({ node, generation, version, isLive }: SeenVersion): SeenVersion {
  return { node, generation, version, isLive };
}

/** Windows that go into one digest each; each takes `bytesMax` at most. */
export function packDigests(windows: readonly DigestWindow[], bytesMax: number): DigestWindow[][] {
  const digests: DigestWindow[][] = [];
  let freeBytes = 0;
  for (const window of windows) {
    const bytes = windowBytes(window);
    if (bytes > freeBytes || digests.length === 0) {
      digests.push([]);
      freeBytes = bytesMax - DIGEST_OVERHEAD_BYTES;
    }
    digests.at(-1)?.push(window);
    freeBytes -= bytes;
  }
  return digests;
}

function windowBytes({ versions }: DigestWindow): number {
  const sizes = versions.map((version) => encodeMsgpack(versionFields(version)).length);
  return sizes.reduce((sum, size) => sum + size, WINDOW_OVERHEAD_BYTES);
}
