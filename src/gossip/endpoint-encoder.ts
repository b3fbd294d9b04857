import { ByteWriter } from './bytes.ts';
import type { Delta, DeltaEntry } from './endpoint-delta.ts';
import {
  type DigestWindow,
  ENDPOINT_KIND,
  ENDPOINT_MAGIC,
  type EndpointMessage,
  type Resume,
  type SeenVersion,
} from './endpoint-messages.ts';
import { MESSAGE_TYPE } from './messages.ts';
import { type MsgpackInput, writeMsgpack } from './msgpack.ts';

/** Encodes a message as memberlist's `user` message, type byte first. */
export function encodeEndpointMessage(message: EndpointMessage): Uint8Array {
  const writer = new ByteWriter().uint8(MESSAGE_TYPE.user);
  return writeEndpointMessage(writer, message).finish();
}

/** Encodes the payload of a user message: what `decodeEndpointMessage` reads. */
export function encodeEndpointPayload(message: EndpointMessage): Uint8Array {
  return writeEndpointMessage(new ByteWriter(), message).finish();
}

function writeEndpointMessage(writer: ByteWriter, message: EndpointMessage): ByteWriter {
  writer.uint8(ENDPOINT_MAGIC).uint8(ENDPOINT_KIND[message.kind]);
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
