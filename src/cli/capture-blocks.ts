// The blocks and options of pcapng that are looked at here; all is little-endian, as the agent writes it.
const ENHANCED_PACKET = 6;
const INTERFACE_STATISTICS = 5;
const ISB_IFDROP = 5;
/** Type and length. */
const BLOCK_HEADER_BYTES = 8;
/** Block header, interface, time. */
const STATISTICS_OPTIONS = 20;
const OPTION_HEADER_BYTES = 4;

/**
 * Cuts a stream of pcapng into whole blocks, so that a capture that breaks off is still a file that can be read,
 * and counts what is in it.
 */
export class CaptureBlocks {
  /** Frames in all blocks until now. */
  frames = 0;
  /** Frames that the agent had no room for. Known at the end of a capture. */
  dropped = 0;
  /** BOUNDED by one block: a frame and its options. */
  #rest = new Uint8Array(0);

  /** Adds what came. @returns the blocks that are whole now */
  push(chunk: Uint8Array): Uint8Array {
    const bytes = this.#rest.length === 0 ? chunk : concatenate(this.#rest, chunk);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let at = 0;
    while (at + BLOCK_HEADER_BYTES <= bytes.length) {
      const length = view.getUint32(at + 4, true);
      if (at + length > bytes.length || length < BLOCK_HEADER_BYTES) break;
      this.#count(view, at, length);
      at += length;
    }
    this.#rest = bytes.slice(at);
    return bytes.subarray(0, at);
  }

  #count(view: DataView, at: number, length: number): void {
    const type = view.getUint32(at, true);
    if (type === ENHANCED_PACKET) this.frames += 1;
    if (type !== INTERFACE_STATISTICS) return;
    const end = at + length - OPTION_HEADER_BYTES;
    for (let option = at + STATISTICS_OPTIONS; option < end; ) {
      const code = view.getUint16(option, true);
      const bytes = view.getUint16(option + 2, true);
      const value = option + OPTION_HEADER_BYTES;
      if (code === ISB_IFDROP) this.dropped += Number(view.getBigUint64(value, true));
      option = value + ((bytes + 3) & ~3);
    }
  }
}

function concatenate(first: Uint8Array, second: Uint8Array): Uint8Array {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}
