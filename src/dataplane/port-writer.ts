import type { Arena } from '../io/linux/arena.ts';
import { EIO, errno, writeAt, writev } from '../io/linux/ffi.ts';
import { VNET_HEADER_BYTES } from '../io/linux/tap.ts';
import { type Counters, dropIndex, trafficIndex } from './counters.ts';
import type { Decision } from './switch.ts';

const FRAMES_OUT = trafficIndex('port-frames-out');
const BYTES_OUT = trafficIndex('port-bytes-out');
const PORT_DOWN = dropIndex('port-down');
const PORT_WRITE_FAILED = dropIndex('port-write-failed');
const ANSWERS: Readonly<Record<Decision['answer'], number>> = {
  arp: trafficIndex('arp-replies'),
  echo: trafficIndex('echo-replies'),
  reset: trafficIndex('tcp-resets'),
  'too-big': trafficIndex('too-big-answers'),
};

/** Writes frames to TAPs and counts what came of it. */
export class PortWriter {
  readonly #arena: Arena;
  readonly #counters: Counters;

  constructor(arena: Arena, counters: Counters) {
    this.#arena = arena;
    this.#counters = counters;
  }

  /** Writes the frame at `frame`, whose virtio-net header stands in front of it. */
  write(fd: number, frame: number, frameBytes: number): void {
    const start = this.#arena.base + frame - VNET_HEADER_BYTES;
    this.#count(writeAt(fd, start, VNET_HEADER_BYTES + frameBytes), frameBytes);
  }

  /** Writes what `count` iovecs describe, virtio-net header included. */
  writeVectors(fd: number, iovecs: number, count: number, frameBytes: number): void {
    this.#count(writev(fd, this.#arena.base + iovecs, count), frameBytes);
  }

  /** Counts an answer that the agent gave itself. */
  countAnswer(answer: Decision['answer']): void {
    this.#counters.add(ANSWERS[answer], 1);
  }

  #count(written: number, frameBytes: number): void {
    if (written < 0) {
      // EIO: the interface is down, as while its task starts or ends.
      this.#counters.drop(errno() === EIO ? PORT_DOWN : PORT_WRITE_FAILED);
      return;
    }
    this.#counters.add(FRAMES_OUT, 1);
    this.#counters.add(BYTES_OUT, frameBytes);
  }
}
