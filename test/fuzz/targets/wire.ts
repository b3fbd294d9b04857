// What stands around the messages of other nodes: compression, encryption, labels.

import { compress } from '../../../src/gossip/compression.ts';
import { encodeEndpointPayload } from '../../../src/gossip/endpoint-encoder.ts';
import { lzwCompress, lzwDecompress } from '../../../src/gossip/lzw.ts';
import { encodeMessage } from '../../../src/gossip/messages.ts';
import { encodePacket } from '../../../src/gossip/packet.ts';
import { encodePushPull, StreamReader } from '../../../src/gossip/push-pull.ts';
import { seal } from '../../../src/gossip/sealing.ts';
import { Wire } from '../../../src/gossip/wire.ts';
import { NodeGossipCipher } from '../../../src/io/gossip-cipher.ts';
import { bytesOf, type FuzzTarget, type Outcome, require } from '../target.ts';
import { DICTIONARY, json, MESSAGES, PEER, packet, requireBounded } from './gossip.ts';

/** Most that a reader of a stream may keep, per byte that it was given. */
const KEPT_PER_BYTE_MAX = 8;
const LZW_BYTES_MAX = 8_192;

/** What memberlist compresses with. */
export const lzw: FuzzTarget = {
  name: 'lzw',
  bytesMax: 1_024,
  dictionary: [Uint8Array.of(0, 3, 2), Uint8Array.of(0, 1), Uint8Array.of(2, 0xff, 0xf)],
  seeds() {
    const texts = [bytesOf(''), bytesOf('testing'), bytesOf('abcabcabc'.repeat(60))];
    const counting = Uint8Array.from({ length: 600 }, (_, index) => (index * 7) ^ (index >> 4));
    return [...texts, counting, new Uint8Array(6_000)].map((bytes) => packed(bytes));
  },
  run(input) {
    // As a text to be compressed, and as what may be a compressed one.
    const there = packed(input);
    require(lzwCompress(input, there.length - 1) === undefined, 'a bound is kept');
    const back = lzwDecompress(there, input.length);
    require(typeof back !== 'string' && Buffer.compare(back, input) === 0, 'it comes back');
    const output = lzwDecompress(input, LZW_BYTES_MAX);
    if (typeof output === 'string') return { kind: output, detail: output };
    require(output.length <= LZW_BYTES_MAX, 'no more comes out than is allowed');
    require(output.buffer.byteLength <= LZW_BYTES_MAX, 'nor is kept');
    const again = lzwDecompress(packed(output), LZW_BYTES_MAX);
    require(typeof again !== 'string' &&
      Buffer.compare(again, output) === 0, 'what was read is written so that it reads the same');
    return { kind: `bytes ${Math.min(output.length, 3)}`, detail: hexOf(output) };
  },
};

function packed(bytes: Uint8Array): Uint8Array {
  const output = lzwCompress(bytes);
  require(output !== undefined, 'without a bound there is an output');
  return output;
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

const FIXED_KEY = new Uint8Array(16).fill(7);
const FIXED_RANDOM = { next: () => 0.5, bytes: (length: number) => new Uint8Array(length) };
const FIXED_CIPHER = new NodeGossipCipher();

/** A wire with a fixed key and nonce: what it seals is the same each time. */
function keyedWire(label: string, strict: boolean): Wire {
  const wire = new Wire(
    { random: FIXED_RANDOM, cipher: FIXED_CIPHER },
    { label, defaultPort: PEER.port },
  );
  wire.setKeys([FIXED_KEY], { seal: true, strict });
  return wire;
}

/** Seals an input whose first byte is the version, so that mutations get behind encryption, too. */
function resealed(input: Uint8Array, data: Uint8Array): Uint8Array {
  const version = (input[0] ?? 0) & 1 ? 1 : 0;
  const nonce = new Uint8Array(12);
  // Not padded here: version 0 then ends in whatever the input ends in.
  const body = FIXED_CIPHER.seal(FIXED_KEY, nonce, input.subarray(1), data);
  return Uint8Array.of(version, ...nonce, ...body);
}

/** Packets as they are, with a label, and with the input as what was encrypted. */
export const sealedPacket: FuzzTarget = {
  name: 'gossip-sealed-packet',
  bytesMax: 1_400,
  dictionary: [...DICTIONARY, Uint8Array.of(244, 1, 0x78), Uint8Array.of(12), new Uint8Array(16)],
  seeds() {
    const encoded = MESSAGES.map(encodeMessage);
    const wire = keyedWire('x', true);
    return [
      wire.sealPacket(encoded, true),
      wire.sealPacket(encoded.slice(0, 1), false),
      seal(encodePacket(encoded, true), bytesOf('x'), {
        ...{ cipher: FIXED_CIPHER, key: FIXED_KEY, nonce: new Uint8Array(12), version: 0 },
      }),
      ...packet.seeds().map((bytes) => Uint8Array.of(1, ...bytes)),
      Uint8Array.of(0, ...encodePacket(encoded, true), 3, 3, 3),
    ];
  },
  run(input) {
    const label = Uint8Array.of(244, 1, 0x78);
    const outcomes = [
      keyedWire('x', true).openPacket(input),
      keyedWire('', false).openPacket(input),
      keyedWire('x', true).openPacket(Uint8Array.of(...label, ...resealed(input, bytesOf('x')))),
    ];
    for (const decoded of outcomes) requireBounded(input, decoded);
    const last = outcomes.at(-1);
    for (const message of last?.messages ?? []) {
      const wire = keyedWire('x', true);
      const again = wire.openPacket(wire.sealPacket([encodeMessage(message)], true));
      require(json(again.messages) ===
        json([message]), 'what was read is written so that it reads the same');
    }
    const kinds = outcomes.map(({ messages, drops }) => drops[0] ?? messages[0]?.kind);
    return { kind: kinds.join(), detail: json(outcomes) };
  },
};

/** Streams: plain, with a label and a key, and with the input as what was encrypted. */
export const stream: FuzzTarget = {
  name: 'gossip-stream',
  bytesMax: 2_048,
  dictionary: [...DICTIONARY, Uint8Array.of(244, 1, 0x78), Uint8Array.of(10, 0, 0, 0, 40)],
  seeds() {
    const members = [1, 2].map((index) => ({
      ...{ name: `n${index}`, ...PEER, incarnation: index, meta: Uint8Array.of(index) },
      ...{ versions: Uint8Array.of(1, 5, 2, 2, 5, 5), state: 'alive' as const },
      ...{ stateChangedMs: 0, suspicion: undefined },
    }));
    const own = encodeEndpointPayload({ kind: 'summary', summary: '0123456789abcdef' });
    const state = encodePushPull(members, own, true);
    return [
      state,
      compress(state, false),
      keyedWire('x', true).sealStream(state, 'request'),
      keyedWire('', true).sealStream(state, 'reply'),
      ...MESSAGES.map(encodeMessage),
    ];
  },
  run(input) {
    const sealedBytes = 29 + Math.max(0, input.length - 1); // its first byte is the version
    const header = Uint8Array.of(10, 0, 0, sealedBytes >> 8, sealedBytes & 255);
    const sealed = Uint8Array.of(
      ...[244, 1, 0x78, ...header],
      ...resealed(input, Uint8Array.of(...header, 0x78)),
    );
    const outcomes = [
      readInTwoWays(input, () => new StreamReader()),
      readInTwoWays(input, () => keyedWire('x', true).streamReader('request')),
      readInTwoWays(input, () => keyedWire('', false).streamReader('reply')),
      readInTwoWays(sealed, () => keyedWire('x', true).streamReader('request')),
    ];
    const kinds = outcomes.map(({ kind }) => kind);
    return { kind: kinds.join(), detail: json(outcomes) };
  },
};

function readInTwoWays(input: Uint8Array, make: () => StreamReader): Outcome {
  const whole = read(input, input.length, make());
  const cut = read(input, 1 + (input.length >> 2), make());
  require(whole.detail === cut.detail, 'how the stream is cut makes no difference');
  return whole;
}

function read(input: Uint8Array, chunkBytes: number, reader: StreamReader): Outcome {
  for (let at = 0; at < input.length; at += chunkBytes) {
    const result = reader.push(input.subarray(at, at + chunkBytes));
    if (result.kind === 'drop') return { kind: result.reason, detail: result.reason };
    if (result.kind === 'message') {
      return { kind: result.message.kind, detail: json(result.message) };
    }
    require(reader.size <= input.length * KEPT_PER_BYTE_MAX, 'a reader keeps what it was given');
  }
  return { kind: 'more', detail: '' };
}
