import type { Json } from '../core/store.ts';
import { ByteWriter, newUtf8Text, utf8Text } from './bytes.ts';
import { ENDPOINT_KEY_BYTES_MAX, ENDPOINT_VALUE_BYTES_MAX } from './endpoint-limits.ts';
import type { Delta, DeltaEntry } from './endpoint-record.ts';
import type { RecordVersion } from './endpoint-table.ts';
import { SUM_BYTES, TREE_FANOUT, TREE_LEAVES } from './endpoint-tree.ts';
import { FieldReader, NODE_NAME_BYTES_MAX } from './field-reader.ts';
import { isJsonTooDeep } from './json-depth.ts';
import { MESSAGE_TYPE } from './messages.ts';
import { decodeMsgpack, type MsgpackInput, type MsgpackValue, writeMsgpack } from './msgpack.ts';

/** First byte of weft's user messages and user state: serf's begin with 0 to 9. */
export const ENDPOINT_MAGIC = 0x57;
/** Second byte: what follows. */
const KIND = {
  delta: 1,
  repair: 2,
  summary: 3,
  digest: 4,
  branches: 5,
  leaves: 6,
  behind: 7,
  pull: 8,
  pulled: 9,
} as const;

/** Some leaves of the tree: from `first` on, those below `last`. */
export interface LeafRange {
  readonly first: number;
  readonly last: number;
}

/** What a node has of one record, and whether it takes the record's owner for a live member. */
export interface SeenVersion extends RecordVersion {
  readonly isLive: boolean;
}

/** What a node has of the records in some leaves: one that is not listed is not there. */
export interface DigestWindow extends LeafRange {
  readonly versions: readonly SeenVersion[];
}

/** How far a record has come that is too large for one answer: see {@link PullRequest}. */
export interface Resume {
  readonly node: string;
  readonly until: number;
}

/** "Send me what I lack of these leaves." By stream, answered by {@link PullAnswer}. */
export interface PullRequest extends DigestWindow {
  readonly kind: 'pull';
  /** As the last answer said. */
  readonly resume?: Resume;
}

/** What was lacking, as far as an answer has room. */
export interface PullAnswer {
  readonly kind: 'pulled';
  readonly deltas: readonly Delta[];
  /** The leaf to ask from next; `last` of the request when nothing is left. */
  readonly next: number;
  /** A record that only a part of was sent, where its version does not tell how much. */
  readonly resume?: Resume;
}

/** Messages about endpoints, in `user` messages: see endpoint-sync.ts for their use. */
export type EndpointMessage =
  | { readonly kind: 'delta' | 'repair'; readonly delta: Delta }
  | { readonly kind: 'summary'; readonly summary: string }
  /** `answer`: it answers a digest, and is not answered by one. */
  | { readonly kind: 'digest'; readonly windows: readonly DigestWindow[]; readonly answer: boolean }
  /** {@link TREE_FANOUT} sums of {@link SUM_BYTES}. */
  | { readonly kind: 'branches'; readonly sums: Uint8Array }
  | { readonly kind: 'leaves'; readonly branch: number; readonly sums: Uint8Array }
  | ({ readonly kind: 'behind' } & LeafRange)
  | PullRequest
  | PullAnswer;

/** Why bytes about endpoints were dropped. One counter per value. */
export type EndpointDrop = 'foreign' | 'malformed';

const VERSION_MAX = Number.MAX_SAFE_INTEGER;

/** Encodes a message as memberlist's `user` message, type byte first. */
export function encodeEndpointMessage(message: EndpointMessage): Uint8Array {
  const writer = new ByteWriter().uint8(MESSAGE_TYPE.user);
  return writeEndpointMessage(writer, message).finish();
}

/** Encodes the payload of a user message: what {@link decodeEndpointMessage} reads. */
export function encodeEndpointPayload(message: EndpointMessage): Uint8Array {
  return writeEndpointMessage(new ByteWriter(), message).finish();
}

function writeEndpointMessage(writer: ByteWriter, message: EndpointMessage): ByteWriter {
  writer.uint8(ENDPOINT_MAGIC).uint8(KIND[message.kind]);
  writeMsgpack(writer, messageFields(message));
  return writer;
}

function messageFields(message: EndpointMessage): MsgpackInput {
  switch (message.kind) {
    case 'delta':
    case 'repair':
      return deltaFields(message.delta);
    case 'summary':
      return { Summary: message.summary };
    case 'digest':
      return { Answer: message.answer, Windows: message.windows.map(windowFields) };
    case 'branches':
      return { Sums: message.sums };
    case 'leaves':
      return { Branch: message.branch, Sums: message.sums };
    case 'behind':
      return { First: message.first, Last: message.last };
    case 'pull':
      return { Window: windowFields(message), ...resumeFields(message.resume) };
    case 'pulled':
      return {
        Deltas: message.deltas.map(deltaFields),
        Next: message.next,
        ...resumeFields(message.resume),
      };
  }
}

function deltaFields(delta: Delta): MsgpackInput {
  const { node, generation, since, version, atMs, full, entries } = delta;
  return {
    At: atMs,
    Entries: entries.map(entryFields),
    Full: full,
    Generation: generation,
    Node: node,
    Since: since,
    Version: version,
  };
}

/** An entry as it travels. */
export function entryFields({ key, version, content }: DeltaEntry): MsgpackInput {
  return [key, version, content ?? null];
}

/** A version as it travels. */
export function versionFields({ node, generation, version, isLive }: SeenVersion): MsgpackInput {
  return [node, generation, version, isLive];
}

function windowFields({ first, last, versions }: DigestWindow): MsgpackInput {
  return [first, last, versions.map(versionFields)];
}

function resumeFields(resume: Resume | undefined): { Resume?: MsgpackInput } {
  return resume === undefined ? {} : { Resume: [resume.node, resume.until] };
}

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
  [KIND.delta, (fields) => withDelta('delta', fields)],
  [KIND.repair, (fields) => withDelta('repair', fields)],
  [KIND.summary, (fields) => ({ kind: 'summary', summary: fields.text('Summary', 2 * SUM_BYTES) })],
  [KIND.digest, readDigest],
  [
    KIND.branches,
    (fields) => {
      const sums = readSums(fields);
      return sums && { kind: 'branches', sums };
    },
  ],
  [
    KIND.leaves,
    (fields) => {
      const [branch, sums] = [fields.integer('Branch', TREE_FANOUT - 1), readSums(fields)];
      return sums && { kind: 'leaves', branch, sums };
    },
  ],
  [
    KIND.behind,
    (fields) => {
      const range = readRange(
        fields.integer('First', VERSION_MAX),
        fields.integer('Last', VERSION_MAX),
      );
      return range && { kind: 'behind', ...range };
    },
  ],
  [KIND.pull, readPull],
  [KIND.pulled, readPulled],
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
