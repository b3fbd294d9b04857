import { ByteWriter, utf8Text } from './bytes.ts';
import { FieldReader, NODE_NAME_BYTES_MAX } from './field-reader.ts';
import { LAMPORT_TIME_MAX } from './lamport-clock.ts';
import { decodeMsgpack, type MsgpackInput, type MsgpackValue, writeMsgpack } from './msgpack.ts';
import { STATE_BYTES_MAX } from './push-pull.ts';

/** The first byte of serf's user messages and user state (serf messages.go `messageType`). */
export const SERF_TYPE = {
  leave: 0,
  join: 1,
  pushPull: 2,
  userEvent: 3,
  query: 4,
  queryResponse: 5,
  conflictResponse: 6,
  keyRequest: 7,
  keyResponse: 8,
  relay: 9,
} as const;

/** Flag of a query that is meant for its receiver alone (`queryFlagNoBroadcast`). */
const QUERY_NO_BROADCAST = 2;

/** "I join" or "I (or whoever was made to) leave", at a Lamport time of the members' clock. */
export interface Intent {
  readonly kind: 'join' | 'leave';
  readonly time: number;
  readonly node: string;
}

/** Something for whoever listens to it, at a time of the events' clock. */
export interface UserEvent {
  readonly kind: 'event';
  readonly time: number;
  readonly name: Uint8Array;
  readonly payload: Uint8Array;
}

/** A question to all, at a time of the queries' clock. */
export interface Query {
  readonly kind: 'query';
  readonly time: number;
  /** Chosen by chance where the query was made. */
  readonly id: number;
  readonly broadcast: boolean;
}

/** What of serf's messages a node without queries and handlers of its own has to do with. */
export type SerfMessage = Intent | UserEvent | Query;

/** 'ignored': meant for who asks queries or serves as a relay of answers, which weft does not. */
export type SerfDrop = 'malformed' | 'ignored' | 'unknown';

/** Serf's part of a push/pull (`messagePushPull`), without the recent events that it carries. */
export interface SerfState {
  /** Of the members' clock: that of the next intent, as all three. */
  readonly time: number;
  /** The time of the last intent about each member, 0 if there was none. */
  readonly statusTimes: ReadonlyMap<string, number>;
  readonly left: readonly string[];
  readonly eventTime: number;
  readonly queryTime: number;
}

/** The user state of a push/pull. */
export interface UserState {
  readonly serf: SerfState;
  /** What weft nodes tell each other; undefined from all others. */
  readonly weft: Uint8Array | undefined;
}

/** Encodes an intent as the payload of a `user` message. */
export function encodeIntent({ kind, time, node }: Intent): Uint8Array {
  const writer = new ByteWriter().uint8(SERF_TYPE[kind]);
  const fields = { LTime: time, Node: node };
  writeMsgpack(writer, kind === 'join' ? fields : { ...fields, Prune: false });
  return writer.finish();
}

/** Decodes the payload of a `user` message. No view of it is in the result. */
export function decodeSerfMessage(payload: Uint8Array): SerfMessage | SerfDrop {
  const type = payload[0];
  switch (type) {
    case SERF_TYPE.leave:
    case SERF_TYPE.join:
    case SERF_TYPE.userEvent:
    case SERF_TYPE.query: {
      const result = decodeMsgpack(payload, 1);
      const fields = result.ok ? FieldReader.of(result.value) : undefined;
      const message = fields && readMessage(type, fields);
      return message === undefined || fields?.failed === true ? 'malformed' : message;
    }
    case SERF_TYPE.queryResponse:
    case SERF_TYPE.conflictResponse:
    case SERF_TYPE.keyRequest:
    case SERF_TYPE.keyResponse:
    case SERF_TYPE.relay:
      return 'ignored';
    default:
      return 'unknown';
  }
}

/**
 * Encodes the user state of a push/pull: serf's struct, and weft's state as one more field, which
 * serf's decoder skips.
 */
export function encodeUserState({ serf, weft }: UserState): Uint8Array {
  const fields: [string, MsgpackInput][] = [
    ['EventLTime', serf.eventTime],
    ['Events', []],
    ['LTime', serf.time],
    ['LeftMembers', serf.left],
    ['QueryLTime', serf.queryTime],
    ['StatusLTimes', serf.statusTimes],
  ];
  if (weft !== undefined) fields.push(['Weft', weft]);
  const writer = new ByteWriter().uint8(SERF_TYPE.pushPull);
  writeMsgpack(writer, new Map(fields));
  return writer.finish();
}

/**
 * Decodes the user state of a push/pull.
 *
 * @returns what it holds, or why it is dropped: 'foreign' is neither serf's nor weft's, 'empty' that
 *   of a memberlist without either
 */
export function decodeUserState(
  userState: Uint8Array,
): UserState | 'empty' | 'foreign' | 'malformed' {
  if (userState.length === 0) return 'empty';
  if (userState[0] !== SERF_TYPE.pushPull) return 'foreign';
  const result = decodeMsgpack(userState, 1);
  const fields = result.ok ? FieldReader.of(result.value) : undefined;
  if (fields === undefined) return 'malformed';
  const statusTimes = readTimes(fields.map('StatusLTimes'));
  const left = readNames(fields.array('LeftMembers'));
  const serf = {
    time: lamportTime(fields, 'LTime'),
    eventTime: lamportTime(fields, 'EventLTime'),
    queryTime: lamportTime(fields, 'QueryLTime'),
  };
  const weft = fields.present('Weft') ? fields.bytes('Weft', STATE_BYTES_MAX) : undefined;
  if (fields.failed || statusTimes === undefined || left === undefined) return 'malformed';
  return { serf: { ...serf, statusTimes, left }, weft };
}

function readMessage(type: number, fields: FieldReader): SerfMessage {
  const time = lamportTime(fields, 'LTime');
  switch (type) {
    case SERF_TYPE.userEvent: {
      const name = fields.bytes('Name', STATE_BYTES_MAX);
      return { kind: 'event', time, name, payload: fields.bytes('Payload', STATE_BYTES_MAX) };
    }
    case SERF_TYPE.query: {
      const broadcast = (fields.uint32('Flags') & QUERY_NO_BROADCAST) === 0;
      return { kind: 'query', time, id: fields.uint32('ID'), broadcast };
    }
    default: {
      const kind = type === SERF_TYPE.join ? 'join' : 'leave';
      return { kind, time, node: fields.nodeName('Node') };
    }
  }
}

function lamportTime(fields: FieldReader, name: string): number {
  return fields.integer(name, LAMPORT_TIME_MAX);
}

function readTimes(
  values: ReadonlyMap<string, MsgpackValue>,
): ReadonlyMap<string, number> | undefined {
  const times = new Map<string, number>();
  for (const [name, time] of values) {
    if (typeof time !== 'number' || !Number.isSafeInteger(time) || time < 0) return undefined;
    if (!isNodeName(name)) return undefined;
    times.set(name, time);
  }
  return times;
}

function readNames(values: readonly MsgpackValue[]): string[] | undefined {
  const names: string[] = [];
  for (const value of values) {
    const valid = value instanceof Uint8Array && value.length <= NODE_NAME_BYTES_MAX;
    const name = valid ? utf8Text(value) : undefined;
    if (!name) return undefined;
    names.push(name);
  }
  return names;
}

/** Of at most as many characters as a name has bytes: longer ones name no member and do no harm. */
function isNodeName(name: string): boolean {
  return name !== '' && name.length <= NODE_NAME_BYTES_MAX;
}
