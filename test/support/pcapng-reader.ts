// Reads pcapng as its draft says, and refuses whatever is not exactly that: the oracle of what weft writes.
import { Buffer } from 'node:buffer';

export interface CapturedInterface {
  readonly name: string;
  readonly description: string;
  readonly linkType: number;
  readonly snaplen: number;
  /** Power of ten of a timestamp's unit. */
  readonly resolution: number;
  /** From its statistics block, if it has one. */
  received?: number;
  dropped?: number;
}

export interface CapturedPacket {
  readonly interface: CapturedInterface;
  readonly direction: 'in' | 'out' | undefined;
  readonly timeUs: number;
  readonly bytes: Buffer;
  readonly originalBytes: number;
  readonly lost: number;
}

export interface CaptureFile {
  readonly application: string;
  readonly interfaces: readonly CapturedInterface[];
  readonly packets: readonly CapturedPacket[];
}

/** @throws {Error} naming the block that breaks the format; also if the last one is cut short */
export function readPcapng(data: Uint8Array): CaptureFile {
  const file = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const interfaces: CapturedInterface[] = [];
  const packets: CapturedPacket[] = [];
  let application: string | undefined;
  for (let at = 0; at < file.length; ) {
    if (at + 12 > file.length) throw new Error(`A block at ${at} is cut short`);
    const type = file.readUInt32LE(at);
    const length = file.readUInt32LE(at + 4);
    if (length % 4 !== 0 || length < 12 || at + length > file.length) {
      throw new Error(`A block at ${at} has length ${length} of ${file.length - at}`);
    }
    if (file.readUInt32LE(at + length - 4) !== length) {
      throw new Error(`A block at ${at} has another length at its end`);
    }
    const body = file.subarray(at + 8, at + length - 4);
    if ((type === 0x0a0d0d0a) !== (at === 0)) throw new Error(`A block of type ${type} at ${at}`);
    if (type === 0x0a0d0d0a) application = readSection(body);
    else if (type === 1) interfaces.push(readInterface(body));
    else if (type === 5) readStatistics(body, interfaces);
    else if (type === 6) packets.push(readPacket(body, interfaces));
    else throw new Error(`A block at ${at} has the unknown type ${type}`);
    at += length;
  }
  if (application === undefined) throw new Error('There is no section header');
  return { application, interfaces, packets };
}

function readSection(body: Buffer): string {
  if (body.readUInt32LE(0) !== 0x1a2b3c4d) throw new Error('The byte-order magic is wrong');
  if (body.readUInt16LE(4) !== 1 || body.readUInt16LE(6) !== 0) throw new Error('Not version 1.0');
  if (body.readBigInt64LE(8) !== -1n) throw new Error('A stream has no section length');
  return readOptions(body, 16).get(4)?.toString() ?? '';
}

function readInterface(body: Buffer): CapturedInterface {
  const options = readOptions(body, 8);
  return {
    name: options.get(2)?.toString() ?? '',
    description: options.get(3)?.toString() ?? '',
    linkType: body.readUInt16LE(0),
    snaplen: body.readUInt32LE(4),
    resolution: options.get(9)?.readUInt8() ?? 6,
  };
}

function readPacket(body: Buffer, interfaces: readonly CapturedInterface[]): CapturedPacket {
  const from = interfaces[body.readUInt32LE(0)];
  if (from === undefined) throw new Error('A packet is of no interface');
  const captured = body.readUInt32LE(12);
  const options = readOptions(body, 20 + Math.ceil(captured / 4) * 4);
  return {
    interface: from,
    direction: [undefined, 'in', 'out'][(options.get(2)?.readUInt32LE() ?? 0) & 3] as 'in' | 'out',
    timeUs: readTime(body),
    bytes: body.subarray(20, 20 + captured),
    originalBytes: body.readUInt32LE(16),
    lost: Number(options.get(4)?.readBigUInt64LE() ?? 0n),
  };
}

function readStatistics(body: Buffer, interfaces: readonly CapturedInterface[]): void {
  const of = interfaces[body.readUInt32LE(0)];
  if (of === undefined) throw new Error('Statistics are of no interface');
  const options = readOptions(body, 12);
  of.received = Number(options.get(4)?.readBigUInt64LE());
  of.dropped = Number(options.get(5)?.readBigUInt64LE());
}

/** Of packets and of statistics, which have it at the same place. */
function readTime(body: Buffer): number {
  return body.readUInt32LE(4) * 2 ** 32 + body.readUInt32LE(8);
}

function readOptions(body: Buffer, start: number): ReadonlyMap<number, Buffer> {
  const options = new Map<number, Buffer>();
  for (let at = start; at < body.length; ) {
    const code = body.readUInt16LE(at);
    const length = body.readUInt16LE(at + 2);
    if (code === 0) {
      if (length !== 0 || at + 4 !== body.length) throw new Error('Something follows the options');
      return options;
    }
    options.set(code, body.subarray(at + 4, at + 4 + length));
    at += 4 + Math.ceil(length / 4) * 4;
  }
  if (start === body.length) return options;
  throw new Error('The options have no end');
}
