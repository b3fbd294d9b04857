import { ByteWriter, utf8Text } from './bytes.ts';
import { ENDPOINT_KEY_BYTES_MAX, ENDPOINT_VALUE_BYTES_MAX } from './endpoint-limits.ts';
import type { Delta, DeltaEntry, EntryContent } from './endpoint-record.ts';
import type { RecordVersion } from './endpoint-table.ts';
import { FieldReader, NODE_NAME_BYTES_MAX } from './field-reader.ts';
import { JSON_DEPTH_MAX, jsonDepth } from './json-depth.ts';
import { MESSAGE_TYPE } from './messages.ts';
import {
  decodeMsgpack,
  encodeMsgpack,
  type MsgpackInput,
  type MsgpackValue,
  writeMsgpack,
} from './msgpack.ts';

/** First byte of weft's user messages and user state: serf's begin with 0 to 9. */
export const ENDPOINT_MAGIC = 0x57;
/** Second byte: what follows. */
const KIND = { delta: 1, repair: 2, summary: 3, digest: 4, state: 5 } as const;

/** What one packet tells of the records in a range of node names. */
export interface DigestWindow {
  /** The range: `from` <= name, and name < `until` unless `until` is empty. */
  readonly from: string;
  readonly until: string;
  /** A record in the range that is not listed is not there. */
  readonly versions: readonly RecordVersion[];
  /** True for the answer to a digest: it is not answered by one. */
  readonly answer: boolean;
}

/** Messages about endpoints, in `user` messages: see endpoint-sync.ts for their use. */
export type EndpointMessage =
  | { readonly kind: 'delta' | 'repair'; readonly delta: Delta }
  | { readonly kind: 'summary'; readonly summary: string }
  | { readonly kind: 'digest'; readonly window: DigestWindow };

/** One side's user state in a push/pull: what it has, and what it thinks the other lacks. */
export interface EndpointState {
  readonly versions: readonly RecordVersion[];
  readonly deltas: readonly Delta[];
}

/** Why bytes about endpoints were dropped. One counter per value. */
export type EndpointDrop = 'foreign' | 'malformed';

/** Room for the map, its keys and numbers around the entries of a delta, besides the node name. */
const DELTA_OVERHEAD_BYTES = 96;
const VERSION_MAX = Number.MAX_SAFE_INTEGER;

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
    const fields = deltaFields({ ...delta, since, version, entries: part });
    messages.push(encodeUser(KIND[kind], fields));
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

/** Encodes a summary as a `user` message. */
export function encodeSummary(summary: string): Uint8Array {
  return encodeUser(KIND.summary, { Summary: summary });
}

/**
 * Encodes what fits of `versions` as one `user` message: all of them, or a window.
 *
 * @param versions - In the order of node names.
 * @param start - Index at which a window starts; its choice by chance covers all in time.
 */
export function encodeDigest(
  versions: readonly RecordVersion[],
  start: number,
  options: { readonly bytesMax: number; readonly answer: boolean },
): Uint8Array {
  const sizes = versions.map((version) => encodeMsgpack(versionFields(version)).length);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const roomBytes = options.bytesMax - DELTA_OVERHEAD_BYTES - NODE_NAME_BYTES_MAX * 2;
  const first = total <= roomBytes ? 0 : start;
  let end = first;
  for (let used = sizes[end] ?? 0; end < versions.length && used <= roomBytes; ) {
    end++;
    used += sizes[end] ?? 0;
  }
  const window: DigestWindow = {
    from: first === 0 ? '' : (versions[first]?.node ?? ''),
    until: versions[end]?.node ?? '',
    versions: versions.slice(first, end),
    answer: options.answer,
  };
  return encodeWindow(window);
}

/** Encodes a digest window as a `user` message. */
export function encodeWindow(window: DigestWindow): Uint8Array {
  return encodeUser(KIND.digest, {
    Answer: window.answer,
    From: window.from,
    Until: window.until,
    Versions: window.versions.map(versionFields),
  });
}

/** Encodes the user state of a push/pull. */
export function encodeState(state: EndpointState): Uint8Array {
  const writer = new ByteWriter().uint8(ENDPOINT_MAGIC).uint8(KIND.state);
  writeMsgpack(writer, {
    Deltas: state.deltas.map(deltaFields),
    Versions: state.versions.map(versionFields),
  });
  return writer.finish();
}

/** Decodes the payload of a `user` message. */
export function decodeEndpointMessage(payload: Uint8Array): EndpointMessage | EndpointDrop {
  const fields = openFrame(payload);
  if (typeof fields === 'string') return fields;
  const message = readMessage(payload[1] ?? 0, fields);
  return message === undefined || fields.failed ? 'malformed' : message;
}

/** Decodes the user state of a push/pull. */
export function decodeState(userState: Uint8Array): EndpointState | EndpointDrop {
  const fields = openFrame(userState);
  if (typeof fields === 'string') return fields;
  const versions = readAll(fields.array('Versions'), readVersion);
  const deltas = readAll(fields.array('Deltas'), readDelta);
  const valid = userState[1] === KIND.state && !fields.failed;
  return valid && versions && deltas ? { versions, deltas } : 'malformed';
}

function encodeUser(kind: number, fields: MsgpackInput): Uint8Array {
  const writer = new ByteWriter().uint8(MESSAGE_TYPE.user).uint8(ENDPOINT_MAGIC).uint8(kind);
  writeMsgpack(writer, fields);
  return writer.finish();
}

function deltaFields(delta: Delta): MsgpackInput {
  const { node, generation, since, version, full, entries } = delta;
  return {
    Entries: entries.map(entryFields),
    Full: full,
    Generation: generation,
    Node: node,
    Since: since,
    Version: version,
  };
}

function entryFields({ key, version, content }: DeltaEntry): MsgpackInput {
  return [key, version, content?.text ?? null];
}

function versionFields({ node, generation, version }: RecordVersion): MsgpackInput {
  return [node, generation, version];
}

function openFrame(bytes: Uint8Array): FieldReader | EndpointDrop {
  if (bytes[0] !== ENDPOINT_MAGIC) return 'foreign';
  const result = decodeMsgpack(bytes, 2);
  return (result.ok ? FieldReader.of(result.value) : undefined) ?? 'malformed';
}

function readMessage(kind: number, fields: FieldReader): EndpointMessage | undefined {
  switch (kind) {
    case KIND.delta:
    case KIND.repair: {
      const delta = readDeltaFields(fields);
      return delta && { kind: kind === KIND.delta ? 'delta' : 'repair', delta };
    }
    case KIND.summary:
      return { kind: 'summary', summary: fields.text('Summary', 16) };
    case KIND.digest: {
      const versions = readAll(fields.array('Versions'), readVersion);
      const from = fields.text('From', NODE_NAME_BYTES_MAX);
      const until = fields.text('Until', NODE_NAME_BYTES_MAX);
      const answer = fields.flag('Answer');
      return versions && { kind: 'digest', window: { from, until, versions, answer } };
    }
    default:
      return undefined;
  }
}

function readDelta(value: MsgpackValue): Delta | undefined {
  const fields = FieldReader.of(value);
  const delta = fields && readDeltaFields(fields);
  return fields?.failed === false ? delta : undefined;
}

function readDeltaFields(fields: FieldReader): Delta | undefined {
  const delta = {
    node: fields.nodeName('Node'),
    generation: fields.integer('Generation', VERSION_MAX),
    since: fields.integer('Since', VERSION_MAX),
    version: fields.integer('Version', VERSION_MAX),
    full: fields.flag('Full'),
  };
  const entries = readAll(fields.array('Entries'), readEntry);
  if (entries === undefined || delta.since >= delta.version) return undefined;
  const outside = entries.some(({ version }) => version <= delta.since || version > delta.version);
  return outside ? undefined : { ...delta, entries };
}

function readEntry(value: MsgpackValue): DeltaEntry | undefined {
  if (!isTriple(value)) return undefined;
  const [key, version, text] = value;
  if (!isShortText(key, ENDPOINT_KEY_BYTES_MAX) || !isCount(version)) return undefined;
  const keyText = utf8Text(key);
  if (keyText === undefined) return undefined;
  if (text === null) return { key: keyText, version, content: undefined };
  if (!isShortText(text, ENDPOINT_VALUE_BYTES_MAX)) return undefined;
  const content = readContent(text);
  return content && { key: keyText, version, content };
}

function readContent(bytes: Uint8Array): EntryContent {
  const text = utf8Text(bytes);
  if (text === undefined || jsonDepth(text) > JSON_DEPTH_MAX) return undefined;
  try {
    return { text, value: JSON.parse(text) };
  } catch {
    return undefined;
  }
}

function readVersion(value: MsgpackValue): RecordVersion | undefined {
  if (!isTriple(value)) return undefined;
  const [name, generation, version] = value;
  if (!isShortText(name, NODE_NAME_BYTES_MAX)) return undefined;
  const node = utf8Text(name);
  if (!node || !isCount(generation) || !isCount(version)) return undefined;
  return { node, generation, version };
}

/** All or nothing. */
function readAll<T>(
  values: readonly MsgpackValue[],
  read: (value: MsgpackValue) => T | undefined,
): T[] | undefined {
  const items: T[] = [];
  for (const value of values) {
    const item = read(value);
    if (item === undefined) return undefined;
    items.push(item);
  }
  return items;
}

function isTriple(value: MsgpackValue): value is [MsgpackValue, MsgpackValue, MsgpackValue] {
  return Array.isArray(value) && value.length === 3;
}

function isShortText(value: MsgpackValue, bytesMax: number): value is Uint8Array {
  return value instanceof Uint8Array && value.length <= bytesMax;
}

function isCount(value: MsgpackValue): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
