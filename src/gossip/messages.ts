import { ByteWriter } from './bytes.ts';
import { FieldReader, NODE_NAME_BYTES_MAX } from './field-reader.ts';
import { decodeMsgpack, type MsgpackInput, writeMsgpack } from './msgpack.ts';
import { addressBytes, type PeerAddress } from './peer-address.ts';

/** The first byte of every message (memberlist net.go `messageType`). */
export const MESSAGE_TYPE = {
  ping: 0,
  indirectPing: 1,
  ack: 2,
  suspect: 3,
  alive: 4,
  dead: 5,
  pushPull: 6,
  compound: 7,
  user: 8,
  compress: 9,
  encrypt: 10,
  nack: 11,
  hasCrc: 12,
  error: 13,
  hasLabel: 244,
} as const;

/** Largest meta of a node (memberlist `MetaMaxSize`). */
export const META_BYTES_MAX = 512;
/** Bytes of `Vsn`: protocol min, max, current, then the same of the delegate (serf, weft). */
export const VERSIONS_BYTES = 6;

/** Who asks, so that the answer goes there and not to where the packet came from. */
export interface PingSource extends PeerAddress {
  readonly node: string;
}

/** "Are you there?" `node` is the intended receiver; one with another name does not answer. */
export interface Ping {
  readonly kind: 'ping';
  readonly sequence: number;
  readonly node: string;
  readonly source?: PingSource;
}

/** "Ping `node` at `target` for me": answered with an ack of this `sequence`, or with a nack. */
export interface IndirectPing {
  readonly kind: 'indirectPing';
  readonly sequence: number;
  readonly target: PeerAddress;
  readonly node: string;
  readonly nackWanted: boolean;
  readonly source?: PingSource;
}

/** "I am here": the answer to the ping of this `sequence`. */
export interface Ack {
  readonly kind: 'ack';
  readonly sequence: number;
}

/** "I asked for you and got no answer." */
export interface Nack {
  readonly kind: 'nack';
  readonly sequence: number;
}

/** A rumour that `node` lives at an address. Only `node` itself raises its incarnation. */
export interface Alive extends PeerAddress {
  readonly kind: 'alive';
  readonly incarnation: number;
  readonly node: string;
  readonly meta: Uint8Array;
  /** {@link VERSIONS_BYTES} bytes, or fewer from old nodes. */
  readonly versions: Uint8Array;
}

/** A rumour by `from` that `node` does not answer, or (dead) is gone. Dead by itself is "left". */
export interface Accusation {
  readonly kind: 'suspect' | 'dead';
  readonly incarnation: number;
  readonly node: string;
  readonly from: string;
}

/** Opaque to the membership protocol. */
export interface UserMessage {
  readonly kind: 'user';
  readonly payload: Uint8Array;
}

/** SWIM's rumours: what is gossiped on. */
export type Rumour = Alive | Accusation;
/** All that a packet may hold. */
export type Message = Ping | IndirectPing | Ack | Nack | Rumour | UserMessage;

/** Why one message was dropped: returned, never thrown. */
export type MessageDrop = 'empty' | 'malformed' | 'unknown-type' | 'unexpected-type';

/**
 * Encodes `message`, type byte first. Field names and their (alphabetical) order are those of
 * memberlist's structs as go-msgpack writes them.
 *
 * @throws {RangeError} if an address in it is not an IP address
 */
export function encodeMessage(message: Message): Uint8Array {
  const writer = new ByteWriter().uint8(MESSAGE_TYPE[message.kind]);
  if (message.kind === 'user') writer.bytes(message.payload);
  else writeMsgpack(writer, messageFields(message));
  return writer.finish();
}

function messageFields(message: Exclude<Message, UserMessage>): MsgpackInput {
  switch (message.kind) {
    case 'ping':
      return { Node: message.node, SeqNo: message.sequence, ...sourceFields(message.source) };
    case 'indirectPing':
      return {
        Nack: message.nackWanted,
        Node: message.node,
        Port: message.target.port,
        SeqNo: message.sequence,
        ...sourceFields(message.source),
        Target: addressBytes(message.target.address),
      };
    case 'ack':
      return { Payload: null, SeqNo: message.sequence };
    case 'nack':
      return { SeqNo: message.sequence };
    case 'alive':
      return {
        Addr: addressBytes(message.address),
        Incarnation: message.incarnation,
        Meta: message.meta,
        Node: message.node,
        Port: message.port,
        Vsn: message.versions,
      };
    default:
      return { From: message.from, Incarnation: message.incarnation, Node: message.node };
  }
}

function sourceFields(source: PingSource | undefined): { [key: string]: MsgpackInput } {
  if (source === undefined) return {};
  const address = addressBytes(source.address);
  return { SourceAddr: address, SourceNode: source.node, SourcePort: source.port };
}

/**
 * Decodes one message that is not a container (see packet.ts for those).
 *
 * @param bytes - Type byte and the rest; `payload` and `meta` of the result are copies.
 * @param defaultPort - Of members that are told of without a port, as protocol 1 does (memberlist
 *   `handleAlive`); without it such messages are malformed.
 * @returns the message, or why it must be dropped
 */
export function decodeMessage(bytes: Uint8Array, defaultPort = 0): Message | MessageDrop {
  const type = bytes[0];
  if (type === undefined) return 'empty';
  if (type === MESSAGE_TYPE.user) return { kind: 'user', payload: bytes.slice(1) };
  const decode = DECODERS.get(type);
  if (decode === undefined) return MISPLACED.has(type) ? 'unexpected-type' : 'unknown-type';
  const result = decodeMsgpack(bytes, 1);
  if (!result.ok) return 'malformed';
  const fields = FieldReader.of(result.value);
  const message = fields === undefined ? undefined : decode(fields, defaultPort);
  return message === undefined || fields?.failed === true ? 'malformed' : message;
}

/** Messages of streams, and containers where none belongs. */
const MISPLACED: ReadonlySet<number> = new Set([
  MESSAGE_TYPE.pushPull,
  MESSAGE_TYPE.error,
  MESSAGE_TYPE.encrypt,
  MESSAGE_TYPE.hasLabel,
  MESSAGE_TYPE.compound,
  MESSAGE_TYPE.compress,
  MESSAGE_TYPE.hasCrc,
]);

type Decoder = (fields: FieldReader, defaultPort: number) => Message;

const DECODERS: ReadonlyMap<number, Decoder> = new Map([
  [MESSAGE_TYPE.ping, readPing],
  [MESSAGE_TYPE.indirectPing, readIndirectPing],
  [MESSAGE_TYPE.ack, (fields): Message => ({ kind: 'ack', sequence: fields.uint32('SeqNo') })],
  [MESSAGE_TYPE.nack, (fields): Message => ({ kind: 'nack', sequence: fields.uint32('SeqNo') })],
  [MESSAGE_TYPE.suspect, (fields): Message => readAccusation('suspect', fields)],
  [MESSAGE_TYPE.dead, (fields): Message => readAccusation('dead', fields)],
  [MESSAGE_TYPE.alive, readAlive],
] as const satisfies readonly (readonly [number, Decoder])[]);

function readPing(fields: FieldReader): Message {
  const source = readSource(fields);
  return {
    kind: 'ping',
    sequence: fields.uint32('SeqNo'),
    node: fields.text('Node', NODE_NAME_BYTES_MAX),
    ...(source && { source }),
  };
}

function readIndirectPing(fields: FieldReader, defaultPort: number): Message {
  const source = readSource(fields);
  return {
    kind: 'indirectPing',
    sequence: fields.uint32('SeqNo'),
    target: { address: fields.address('Target'), port: fields.port('Port', defaultPort) },
    node: fields.text('Node', NODE_NAME_BYTES_MAX),
    nackWanted: fields.flag('Nack'),
    ...(source && { source }),
  };
}

/** Absent in pings of old nodes: then the answer goes to where the packet came from. */
function readSource(fields: FieldReader): PingSource | undefined {
  if (!fields.present('SourceAddr') || !fields.present('SourcePort')) return undefined;
  return {
    address: fields.address('SourceAddr'),
    port: fields.port('SourcePort'),
    node: fields.text('SourceNode', NODE_NAME_BYTES_MAX),
  };
}

function readAccusation(kind: 'suspect' | 'dead', fields: FieldReader): Message {
  return {
    kind,
    incarnation: fields.uint32('Incarnation'),
    node: fields.nodeName('Node'),
    from: fields.text('From', NODE_NAME_BYTES_MAX),
  };
}

function readAlive(fields: FieldReader, defaultPort: number): Message {
  return {
    kind: 'alive',
    incarnation: fields.uint32('Incarnation'),
    node: fields.nodeName('Node'),
    address: fields.address('Addr'),
    port: fields.port('Port', defaultPort),
    meta: fields.bytes('Meta', META_BYTES_MAX),
    versions: fields.bytes('Vsn', VERSIONS_BYTES),
  };
}
