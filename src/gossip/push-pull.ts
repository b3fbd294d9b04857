import { ByteWriter } from './bytes.ts';
import { FieldReader } from './field-reader.ts';
import { MEMBER_STATES, type Member, type MemberState } from './member.ts';
import { type Alive, MESSAGE_TYPE, META_BYTES_MAX, VERSIONS_BYTES } from './messages.ts';
import { decodeMsgpack, encodeMsgpack, type MsgpackResult, writeMsgpack } from './msgpack.ts';
import { addressBytes } from './peer-address.ts';
import {
  type EnvelopeDrop,
  openEnvelope,
  PLAIN_TERMS,
  STREAM_BYTES_MAX,
  type StreamTerms,
} from './stream-envelope.ts';

/** Largest user state or user message (memberlist `maxPushStateBytes`, `maxUserMsgBytes`). */
export const STATE_BYTES_MAX: number = 20 * 1_024 * 1_024;
/** Most members that one push/pull may carry. */
const NODES_MAX = 65_536;
/** Largest encoding of one struct on a stream: a node state with all fields at their limits. */
const STREAM_STRUCT_BYTES_MAX = 4_096;

/** A member as a push/pull carries it (memberlist `pushNodeState`). */
export interface PushPullNode extends Omit<Alive, 'kind'> {
  readonly state: MemberState;
}

/** The whole state of one side of a push/pull. */
export interface PushPull {
  readonly kind: 'pushPull';
  readonly join: boolean;
  readonly nodes: readonly PushPullNode[];
  /** Opaque to the membership protocol. */
  readonly userState: Uint8Array;
}

/** What a stream may carry: see {@link StreamReader}. */
export type StreamMessage =
  | PushPull
  | { readonly kind: 'ping'; readonly sequence: number; readonly node: string }
  | { readonly kind: 'ack'; readonly sequence: number }
  | { readonly kind: 'user'; readonly payload: Uint8Array }
  | { readonly kind: 'error'; readonly text: string };

/** Why a stream was given up. One counter per value. */
export type StreamDrop = EnvelopeDrop | 'malformed' | 'unknown-type';

/** What {@link StreamReader.push} has so far; 'more' needs more bytes. */
export type StreamResult =
  | { readonly kind: 'more' }
  | { readonly kind: 'message'; readonly message: StreamMessage }
  | { readonly kind: 'drop'; readonly reason: StreamDrop };

/** Encodes one side's state: type byte, `pushPullHeader`, the node states, the user state. */
export function encodePushPull(
  members: Iterable<Member>,
  userState: Uint8Array,
  join: boolean,
): Uint8Array {
  const nodes = [...members];
  const writer = new ByteWriter().uint8(MESSAGE_TYPE.pushPull);
  writeMsgpack(writer, { Join: join, Nodes: nodes.length, UserStateLen: userState.length });
  for (const node of nodes) writer.bytes(encodedNode(node));
  return writer.bytes(userState).finish();
}

/** Members are values: each is encoded once, however many push/pulls carry it. */
const ENCODED_NODES = new WeakMap<Member, Uint8Array>();

/** A member as memberlist's `pushNodeState`. */
function encodedNode(node: Member): Uint8Array {
  const known = ENCODED_NODES.get(node);
  if (known !== undefined) return known;
  const bytes = encodeMsgpack({
    Addr: addressBytes(node.address),
    Incarnation: node.incarnation,
    Meta: node.meta,
    Name: node.name,
    Port: node.port,
    State: MEMBER_STATES.indexOf(node.state),
    Vsn: node.versions,
  });
  ENCODED_NODES.set(node, bytes);
  return bytes;
}

/** Encodes a user message for a stream: type byte, `userMsgHeader`, the payload. */
export function encodeUserStream(payload: Uint8Array): Uint8Array {
  const writer = new ByteWriter().uint8(MESSAGE_TYPE.user);
  writeMsgpack(writer, { UserMsgLen: payload.length });
  return writer.bytes(payload).finish();
}

/** What a reader asks of a stream, and takes for a port where none is told (protocol 1). */
export interface StreamReaderTerms extends StreamTerms {
  readonly defaultPort?: number;
}

/**
 * Reads one message from a TCP stream, in chunks as they come. Messages have no length in front, so
 * each struct is tried as soon as it may be whole. BOUNDED by {@link STREAM_BYTES_MAX}.
 */
export class StreamReader {
  readonly #terms: StreamReaderTerms;
  #bytes = new Uint8Array(4_096);
  #length = 0;
  /** Start of the next struct; 0 before the layers around the message have been taken off. */
  #offset = 0;
  /** Whether the message came in one piece, so that nothing can follow. */
  #whole = false;
  #type: number | undefined;
  #header: { join: boolean; nodesLeft: number; userBytes: number } | undefined;
  readonly #nodes: PushPullNode[] = [];

  /** @param terms - By default what is neither labelled nor encrypted is read. */
  constructor(terms: StreamReaderTerms = PLAIN_TERMS) {
    this.#terms = terms;
  }

  /** Bytes that this reader keeps in memory. */
  get size(): number {
    return this.#length;
  }

  /** Takes more bytes; after a message or a drop the reader is done. */
  push(chunk: Uint8Array): StreamResult {
    if (this.#length + chunk.length > STREAM_BYTES_MAX) return drop('too-large');
    this.#append(chunk);
    if (this.#type === undefined) {
      const opened = openEnvelope(this.#bytes.subarray(0, this.#length), this.#terms);
      if (opened === 'more') return MORE;
      if (typeof opened === 'string') return drop(opened);
      this.#bytes = opened.body as Uint8Array<ArrayBuffer>;
      this.#length = opened.body.length;
      this.#whole = opened.whole;
      this.#type = opened.body[0];
      this.#offset = 1;
    }
    const result = this.#message(this.#type);
    return result.kind === 'more' && this.#whole ? drop('truncated') : result;
  }

  #message(type: number | undefined): StreamResult {
    switch (type) {
      case MESSAGE_TYPE.pushPull:
        return this.#pushPull();
      case MESSAGE_TYPE.user:
        return this.#user();
      case MESSAGE_TYPE.ping:
      case MESSAGE_TYPE.ack:
      case MESSAGE_TYPE.error:
        return this.#small(type);
      default:
        return drop('unknown-type');
    }
  }

  #pushPull(): StreamResult {
    if (this.#header === undefined) {
      const fields = this.#struct();
      if (!(fields instanceof FieldReader)) return fields;
      this.#header = {
        join: fields.flag('Join'),
        nodesLeft: fields.integer('Nodes', NODES_MAX),
        userBytes: fields.integer('UserStateLen', STATE_BYTES_MAX),
      };
      if (fields.failed) return drop('malformed');
    }
    while (this.#header.nodesLeft > 0) {
      const fields = this.#struct();
      if (!(fields instanceof FieldReader)) return fields;
      const node = readNode(fields, this.#terms.defaultPort);
      if (node === undefined) return drop('malformed');
      this.#nodes.push(node);
      this.#header.nodesLeft--;
    }
    const { join, userBytes } = this.#header;
    const userState = this.#rest(userBytes);
    if (userState === undefined) return MORE;
    return message({ kind: 'pushPull', join, nodes: this.#nodes, userState });
  }

  /** memberlist `userMsgHeader`, then the payload. */
  #user(): StreamResult {
    if (this.#header === undefined) {
      const fields = this.#struct();
      if (!(fields instanceof FieldReader)) return fields;
      const userBytes = fields.integer('UserMsgLen', STATE_BYTES_MAX);
      if (fields.failed) return drop('malformed');
      this.#header = { join: false, nodesLeft: 0, userBytes };
    }
    const payload = this.#rest(this.#header.userBytes);
    return payload === undefined ? MORE : message({ kind: 'user', payload });
  }

  #small(type: number): StreamResult {
    const fields = this.#struct();
    if (!(fields instanceof FieldReader)) return fields;
    const result: StreamMessage =
      type === MESSAGE_TYPE.error
        ? { kind: 'error', text: fields.text('Error', STREAM_STRUCT_BYTES_MAX) }
        : type === MESSAGE_TYPE.ping
          ? { kind: 'ping', sequence: fields.uint32('SeqNo'), node: fields.text('Node', 255) }
          : { kind: 'ack', sequence: fields.uint32('SeqNo') };
    return fields.failed ? drop('malformed') : message(result);
  }

  /** The next struct, if it is whole. */
  #struct(): FieldReader | StreamResult {
    const end = Math.min(this.#length, this.#offset + STREAM_STRUCT_BYTES_MAX);
    const result: MsgpackResult = decodeMsgpack(this.#bytes.subarray(0, end), this.#offset);
    if (!result.ok) {
      const maybeLater = result.fault === 'truncated' && end === this.#length;
      return maybeLater && end - this.#offset < STREAM_STRUCT_BYTES_MAX ? MORE : drop('malformed');
    }
    this.#offset = result.end;
    return FieldReader.of(result.value) ?? drop('malformed');
  }

  #rest(size: number): Uint8Array | undefined {
    if (this.#length - this.#offset < size) return undefined;
    return this.#bytes.slice(this.#offset, this.#offset + size);
  }

  #append(chunk: Uint8Array): void {
    const length = this.#length + chunk.length;
    if (length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(length, this.#bytes.length * 2));
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    this.#bytes.set(chunk, this.#length);
    this.#length = length;
  }
}

const MORE: StreamResult = { kind: 'more' };

function drop(reason: StreamDrop): StreamResult {
  return { kind: 'drop', reason };
}

function message(value: StreamMessage): StreamResult {
  return { kind: 'message', message: value };
}

function readNode(fields: FieldReader, defaultPort?: number): PushPullNode | undefined {
  const node: PushPullNode = {
    node: fields.nodeName('Name'),
    address: fields.address('Addr'),
    port: fields.port('Port', defaultPort),
    meta: fields.bytes('Meta', META_BYTES_MAX),
    incarnation: fields.uint32('Incarnation'),
    state: MEMBER_STATES[fields.integer('State', MEMBER_STATES.length - 1)] ?? 'dead',
    versions: fields.bytes('Vsn', VERSIONS_BYTES),
  };
  return fields.failed ? undefined : node;
}
