/**
 * Writes pcapng (draft-ietf-opsawg-pcapng): a section, its interfaces, their packets, and statistics at the
 * end, little-endian. Timestamps are microseconds; the link type is Ethernet.
 */

// Block types (section 11.1) and option codes (sections 3.5, 4.1 to 4.6).
const SECTION_HEADER = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION = 1;
const INTERFACE_STATISTICS = 5;
const ENHANCED_PACKET = 6;
const BYTE_ORDER_MAGIC = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET = 1;
const OPTION_END = 0;
const SHB_OS = 3;
const SHB_USERAPPL = 4;
const IF_NAME = 2;
const IF_DESCRIPTION = 3;
const IF_TSRESOL = 9;
const EPB_FLAGS = 2;
const EPB_DROPCOUNT = 4;
const ISB_IFRECV = 4;
const ISB_IFDROP = 5;
/** Timestamps are in units of 10^-6 s. */
const MICROSECONDS = 6;

const WORD = 0x1_0000_0000;
const FIRST_BUFFER_BYTES = 64 * 1024;
const ENCODER = new TextEncoder();

/** An interface of a capture. */
export interface PcapngInterface {
  readonly name: string;
  readonly description: string;
  /** Most bytes kept of a packet. */
  readonly snaplen: number;
}

/** A packet of a capture. */
export interface PcapngPacket {
  /** Number of its interface, in the order in which interfaces were written. */
  readonly interfaceId: number;
  /** Microseconds since the Unix epoch. */
  readonly timeUs: number;
  /** 1 inbound, 2 outbound. */
  readonly direction: number;
  /** What was kept of it. */
  readonly bytes: Uint8Array;
  readonly originalBytes: number;
  /** Packets lost before this one. */
  readonly lost: number;
}

/** What was counted at an interface. */
export interface PcapngStatistics {
  readonly interfaceId: number;
  /** Microseconds since the Unix epoch. */
  readonly timeUs: number;
  /** Packets seen, the lost ones among them. */
  readonly received: number;
  readonly dropped: number;
}

/** Gathers blocks until they are taken. */
export class PcapngWriter {
  #bytes = new Uint8Array(FIRST_BUFFER_BYTES);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;
  #blockStart = 0;

  /** Bytes that {@link take} would give. */
  get length(): number {
    return this.#length;
  }

  /** All blocks written since the last call. */
  take(): Uint8Array<ArrayBuffer> {
    const taken = this.#bytes.slice(0, this.#length);
    this.#length = 0;
    return taken;
  }

  /** The Section Header Block: comes first. Its length is left open, as for every stream. */
  section(application: string, os: string): void {
    this.#begin(SECTION_HEADER);
    this.#uint32(BYTE_ORDER_MAGIC);
    this.#uint16(1); // version 1.0
    this.#uint16(0);
    this.#uint32(0xffff_ffff);
    this.#uint32(0xffff_ffff);
    this.#textOption(SHB_OS, os);
    this.#textOption(SHB_USERAPPL, application);
    this.#endOptions();
    this.#end();
  }

  /** An Interface Description Block: comes before the interface's packets. */
  interface({ name, description, snaplen }: PcapngInterface): void {
    this.#begin(INTERFACE_DESCRIPTION);
    this.#uint16(LINKTYPE_ETHERNET);
    this.#uint16(0);
    this.#uint32(snaplen);
    this.#textOption(IF_NAME, name);
    this.#textOption(IF_DESCRIPTION, description);
    this.#option(IF_TSRESOL, Uint8Array.of(MICROSECONDS));
    this.#endOptions();
    this.#end();
  }

  /** An Enhanced Packet Block. */
  packet({ interfaceId, timeUs, direction, bytes, originalBytes, lost }: PcapngPacket): void {
    this.#begin(ENHANCED_PACKET);
    this.#uint32(interfaceId);
    this.#time(timeUs);
    this.#uint32(bytes.length);
    this.#uint32(originalBytes);
    this.#padded(bytes);
    this.#uint16(EPB_FLAGS);
    this.#uint16(4);
    this.#uint32(direction);
    if (lost > 0) this.#countOption(EPB_DROPCOUNT, lost);
    this.#endOptions();
    this.#end();
  }

  /** An Interface Statistics Block. */
  statistics({ interfaceId, timeUs, received, dropped }: PcapngStatistics): void {
    this.#begin(INTERFACE_STATISTICS);
    this.#uint32(interfaceId);
    this.#time(timeUs);
    this.#countOption(ISB_IFRECV, received);
    this.#countOption(ISB_IFDROP, dropped);
    this.#endOptions();
    this.#end();
  }

  #begin(type: number): void {
    this.#blockStart = this.#length;
    this.#uint32(type);
    this.#uint32(0); // the length, known at the end
  }

  #end(): void {
    const bytes = this.#length + 4 - this.#blockStart;
    this.#uint32(bytes);
    this.#view.setUint32(this.#blockStart + 4, bytes, true);
  }

  #option(code: number, value: Uint8Array): void {
    this.#uint16(code);
    this.#uint16(value.length);
    this.#padded(value);
  }

  #textOption(code: number, text: string): void {
    this.#option(code, ENCODER.encode(text));
  }

  /** An option with a 64-bit count. */
  #countOption(code: number, count: number): void {
    this.#uint16(code);
    this.#uint16(8);
    this.#uint32(count % WORD);
    this.#uint32(Math.floor(count / WORD));
  }

  #endOptions(): void {
    this.#uint16(OPTION_END);
    this.#uint16(0);
  }

  /** A timestamp: the high word comes first, whatever the byte order. */
  #time(timeUs: number): void {
    const whole = Math.floor(timeUs);
    this.#uint32(Math.floor(whole / WORD));
    this.#uint32(whole % WORD);
  }

  #uint16(value: number): void {
    this.#reserve(2);
    this.#view.setUint16(this.#length, value, true);
    this.#length += 2;
  }

  #uint32(value: number): void {
    this.#reserve(4);
    this.#view.setUint32(this.#length, value, true);
    this.#length += 4;
  }

  /** Bytes, and zeros up to the next multiple of four. */
  #padded(bytes: Uint8Array): void {
    const padded = (bytes.length + 3) & ~3;
    this.#reserve(padded);
    this.#bytes.set(bytes, this.#length);
    this.#bytes.fill(0, this.#length + bytes.length, this.#length + padded);
    this.#length += padded;
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes;
    if (needed <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(needed, 2 * this.#bytes.length));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}
