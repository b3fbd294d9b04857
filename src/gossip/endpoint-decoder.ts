import type { Json } from '../core/store.ts';
import { newUtf8Text, utf8Text } from './bytes.ts';
import type { Delta, DeltaEntry } from './endpoint-delta.ts';
import { ENDPOINT_KEY_BYTES_MAX, ENDPOINT_VALUE_BYTES_MAX } from './endpoint-limits.ts';
import {
  type DigestWindow,
  ENDPOINT_KIND,
  ENDPOINT_MAGIC,
  type EndpointMessage,
  type LeafRange,
  type PullAnswer,
  type PullRequest,
  type Resume,
  type SeenVersion,
} from './endpoint-messages.ts';
import { SUM_BYTES, TREE_FANOUT, TREE_LEAVES } from './endpoint-tree.ts';
import { FieldReader, NODE_NAME_BYTES_MAX } from './field-reader.ts';
import { isJsonTooDeep } from './json-depth.ts';
import { decodeMsgpack, type MsgpackValue } from './msgpack.ts';

/** Why bytes about endpoints were dropped. One counter per value. */
export type EndpointDrop = 'foreign' | 'malformed';

const VERSION_MAX = Number.MAX_SAFE_INTEGER;

/** Decodes the payload of a `user` message. */
export function decodeEndpointMessage(payload: Uint8Array): EndpointMessage | EndpointDrop {
  if (payload[0] !== ENDPOINT_MAGIC) return 'foreign';
  const result = decodeMsgpack(payload, 2);
  const fields = result.ok ? FieldReader.of(result.value) : undefined;
  if (fields === undefined) return 'malformed';
  const message = READERS.get(payload[1] ?? 0)?.(fields);
  return message === undefined || fields.failed ? 'malformed' : message;
}

type Reader = (fields: FieldReader) => EndpointMessage | undefined;

const READERS: ReadonlyMap<number, Reader> = new Map<number, Reader>([
  [ENDPOINT_KIND.delta, (fields) => withDelta('delta', fields)],
  [ENDPOINT_KIND.repair, (fields) => withDelta('repair', fields)],
  [
    ENDPOINT_KIND.summary,
    (fields) => ({ kind: 'summary', summary: fields.text('Summary', 2 * SUM_BYTES) }),
  ],
  [ENDPOINT_KIND.digest, readDigest],
  [
    ENDPOINT_KIND.branches,
    (fields) => {
      const sums = readSums(fields);
      return sums && { kind: 'branches', sums };
    },
  ],
  [
    ENDPOINT_KIND.leaves,
    (fields) => {
      const [branch, sums] = [fields.integer('Branch', TREE_FANOUT - 1), readSums(fields)];
      return sums && { kind: 'leaves', branch, sums };
    },
  ],
  [
    ENDPOINT_KIND.behind,
    (fields) => {
      const range = readRange(
        fields.integer('First', VERSION_MAX),
        fields.integer('Last', VERSION_MAX),
      );
      return range && { kind: 'behind', ...range };
    },
  ],
  [ENDPOINT_KIND.pull, readPull],
  [ENDPOINT_KIND.pulled, readPulled],
]);

function withDelta(kind: 'delta' | 'repair', fields: FieldReader): EndpointMessage | undefined {
  const delta = readDeltaFields(fields);
  return delta && { kind, delta };
}

function readDigest(fields: FieldReader): EndpointMessage | undefined {
  const list = fields.array('Windows');
  const windows = list.length <= TREE_LEAVES ? readAll(list, readWindow) : undefined;
  // Each leaf once at most: whoever answers looks at all that is in them.
  const leaves = windows?.reduce((sum, { first, last }) => sum + last - first, 0) ?? 0;
  if (leaves > TREE_LEAVES) return undefined;
  return windows && { kind: 'digest', windows, answer: fields.flag('Answer') };
}

function readPull(fields: FieldReader): PullRequest | undefined {
  const window = readWindow(fields.value('Window'));
  const resume = readResume(fields);
  if (window === undefined || resume === 'malformed') return undefined;
  return { kind: 'pull', ...window, ...(resume && { resume }) };
}

function readPulled(fields: FieldReader): PullAnswer | undefined {
  const deltas = readAll(fields.array('Deltas'), readDelta);
  const next = fields.integer('Next', TREE_LEAVES);
  const resume = readResume(fields);
  if (deltas === undefined || resume === 'malformed') return undefined;
  return { kind: 'pulled', deltas, next, ...(resume && { resume }) };
}

function readSums(fields: FieldReader): Uint8Array | undefined {
  const sums = fields.bytes('Sums', TREE_FANOUT * SUM_BYTES);
  return sums.length === TREE_FANOUT * SUM_BYTES ? sums : undefined;
}

function readRange(first: number, last: number): LeafRange | undefined {
  return first < last && last <= TREE_LEAVES ? { first, last } : undefined;
}

function readWindow(value: MsgpackValue): DigestWindow | undefined {
  if (!isList(value, 3)) return undefined;
  const [first = null, last = null, list = null] = value;
  if (!isCount(first) || !isCount(last) || !Array.isArray(list)) return undefined;
  const range = readRange(first, last);
  const versions = readAll(list, readVersion);
  return range && versions && { ...range, versions };
}

function readResume(fields: FieldReader): Resume | undefined | 'malformed' {
  const value = fields.value('Resume');
  if (value === null) return undefined;
  if (!isList(value, 2)) return 'malformed';
  const [name = null, until = null] = value;
  const node = readName(name);
  return node === undefined || !isCount(until) ? 'malformed' : { node, until };
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
    atMs: fields.integer('At', VERSION_MAX),
    full: fields.flag('Full'),
  };
  const entries = readAll(fields.array('Entries'), readEntry);
  if (entries === undefined || delta.since >= delta.version) return undefined;
  const outside = entries.some(({ version }) => version <= delta.since || version > delta.version);
  return outside ? undefined : { ...delta, entries };
}

function readEntry(value: MsgpackValue): DeltaEntry | undefined {
  if (!isList(value, 3)) return undefined;
  const [key = null, version = null, text = null] = value;
  if (!isShortText(key, ENDPOINT_KEY_BYTES_MAX) || !isCount(version)) return undefined;
  const keyText = newUtf8Text(key);
  if (keyText === undefined) return undefined;
  if (text === null) return { key: keyText, version, content: undefined };
  if (!isShortText(text, ENDPOINT_VALUE_BYTES_MAX)) return undefined;
  const content = readContent(text);
  return content && new ReadEntry(keyText, version, content);
}

/** An entry that came in a message. Its value is no part of what it says, which is the text. */
class ReadEntry implements DeltaEntry {
  readonly key: string;
  readonly version: number;
  readonly content: string;
  readonly #value: Json;

  constructor(key: string, version: number, { content, value }: { content: string; value: Json }) {
    this.key = key;
    this.version = version;
    this.content = content;
    this.#value = value;
  }

  get value(): Json {
    return this.#value;
  }
}

/** JSON text that a reader may parse without a second look, and what it says. */
function readContent(bytes: Uint8Array): { content: string; value: Json } | undefined {
  const content = newUtf8Text(bytes);
  if (content === undefined || isJsonTooDeep(content)) return undefined;
  try {
    return { content, value: JSON.parse(content) };
  } catch {
    return undefined;
  }
}

function readVersion(value: MsgpackValue): SeenVersion | undefined {
  if (!isList(value, 4)) return undefined;
  const [name = null, generation = null, version = null, isLive = null] = value;
  const node = readName(name);
  if (node === undefined || typeof isLive !== 'boolean') return undefined;
  if (!isCount(generation) || !isCount(version)) return undefined;
  return { node, generation, version, isLive };
}

function readName(value: MsgpackValue): string | undefined {
  if (!isShortText(value, NODE_NAME_BYTES_MAX)) return undefined;
  return utf8Text(value) || undefined;
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

function isList(value: MsgpackValue, length: number): value is readonly MsgpackValue[] {
  return Array.isArray(value) && value.length === length;
}

function isShortText(value: MsgpackValue, bytesMax: number): value is Uint8Array {
  return value instanceof Uint8Array && value.length <= bytesMax;
}

function isCount(value: MsgpackValue): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
