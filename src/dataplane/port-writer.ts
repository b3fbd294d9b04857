import type { Arena } from '../io/linux/arena.ts';
import { EIO, errno, writeAt, writev } from '../io/linux/ffi.ts';
import { VNET_HEADER_BYTES } from '../io/linux/tap.ts';
import { type CaptureTaps, CROSSING_PORT_OUT } from './capture-taps.ts';
import { type Counters, dropIndex, trafficIndex } from './counters.ts';
import type { Answer } from './decision.ts';
import type { Port } from './port.ts';

const FRAMES_OUT = trafficIndex('port-frames-out');
const BYTES_OUT = trafficIndex('port-bytes-out');
const PORT_DOWN = dropIndex('port-down');
const PORT_WRITE_FAILED = dropIndex('port-write-failed');
const ANSWERS: Readonly<Record<Answer, number>> = {
  arp: trafficIndex('arp-replies'),
  nd: trafficIndex('nd-replies'),
  echo: trafficIndex('echo-replies'),
  reset: trafficIndex('tcp-resets'),
  'too-big': trafficIndex('too-big-answers'),
};

/** Writes frames to TAPs and counts what came of it. */
export class PortWriter {
  readonly #arena: Arena;
  readonly #counters: Counters;
  readonly #taps: CaptureTaps;

  constructor(arena: Arena, counters: Counters, taps: CaptureTaps) {
    this.#arena = arena;
    this.#counters = counters;
    this.#taps = taps;
  }

  /** Writes the frame at `frame`, whose virtio-net header stands in front of it. */
  write(port: Port, frame: number, frameBytes: number): void {
    if (this.#taps.active) {
      this.#taps.frame(CROSSING_PORT_OUT, port.scope, port.id, frame, frameBytes);
    }
    const start = this.#arena.base + frame - VNET_HEADER_BYTES;
    this.#count(writeAt(port.fd, start, VNET_HEADER_BYTES + frameBytes), frameBytes);
  }

  /** Writes what `count` iovecs describe, virtio-net header included. */
  writeVectors(port: Port, iovecs: number, count: number, frameBytes: number): void {
    if (this.#taps.active) {
      const { scope, id } = port;
      this.#taps.vectors(CROSSING_PORT_OUT, scope, id, iovecs, count, frameBytes);
    }
    this.#count(writev(port.fd, this.#arena.base + iovecs, count), frameBytes);
  }

  /** Counts an answer that the agent gave itself. */
  countAnswer(answer: Answer): void {
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
