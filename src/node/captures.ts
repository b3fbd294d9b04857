import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '../core/capabilities.ts';
import type { CaptureRecords } from '../dataplane/capture-ring.ts';
import {
  CAPTURES_MAX,
  type CaptureFilter,
  directionOf,
  isPeerCrossing,
} from '../dataplane/capture-taps.ts';
import type { RunningCapture } from '../dataplane/data-plane.ts';
import {
  type CaptureNames,
  type CaptureRequest,
  captureFilter,
  captureInterface,
  tooManyCaptures,
} from './capture-target.ts';
import { LocalApiError } from './local-api-error.ts';
import { PcapngWriter } from './pcapng.ts';

/**
 * How often a ring is emptied. The packet thread does not say when there is something in it: it would wake
 * this one for every packet.
 */
const POLL_MS = 20;
/** What is handed on in one piece, about. */
const CHUNK_BYTES = 256 * 1024;

/** What {@link Captures} works with. */
export interface CapturesDeps {
  readonly clock: Clock;
  readonly capture: (filter: CaptureFilter) => Promise<RunningCapture>;
  /** Read anew whenever something is to be named. */
  readonly names: () => CaptureNames;
  /** What made the capture: `weft 1.2.3`. */
  readonly application: string;
}

/** The captures that run on this node, each as a stream of pcapng. */
export class Captures {
  readonly #deps: CapturesDeps;
  /** By id. BOUNDED by {@link CAPTURES_MAX}. */
  readonly #running = new Map<string, AbortController>();

  constructor(deps: CapturesDeps) {
    this.#deps = deps;
  }

  /**
   * Starts a capture. It ends with its count or duration, by {@link end}, or when its stream is cancelled.
   * Who reads slowly loses frames, which are counted in the stream; nothing waits for a reader.
   *
   * @param id - Chosen by who asks, to name it in {@link end}.
   * @throws {LocalApiError} if the request names something that is not here, or too many run
   */
  async start(id: string, request: CaptureRequest): Promise<ReadableStream<Uint8Array>> {
    const { capture, names } = this.#deps;
    const filter = captureFilter(request, names());
    if (this.#running.has(id)) {
      throw new LocalApiError(409, `Cannot start a capture: one with the id ${id} runs`);
    }
    if (this.#running.size >= CAPTURES_MAX) throw tooManyCaptures();
    const over = new AbortController();
    this.#running.set(id, over);
    try {
      const running = await capture(filter);
      return this.#stream(id, running, this.#chunks(running, request, over.signal));
    } catch (error) {
      this.#running.delete(id);
      throw error;
    }
  }

  /** Ends a capture: its stream gets what was captured until now, and closes. @returns whether it ran */
  end(id: string): boolean {
    const running = this.#running.get(id);
    running?.abort();
    return running !== undefined;
  }

  /** Ends all captures. */
  close(): void {
    for (const running of this.#running.values()) running.abort();
  }

  #stream(
    id: string,
    running: RunningCapture,
    chunks: AsyncGenerator<Uint8Array, void>,
  ): ReadableStream<Uint8Array> {
    const finish = async (): Promise<void> => {
      this.end(id);
      this.#running.delete(id);
      await running.stop();
    };
    return new ReadableStream({
      async pull(controller) {
        try {
          const { value, done } = await chunks.next();
          if (done !== true) {
            controller.enqueue(value);
            return;
          }
        } catch (error) {
          await finish();
          throw error;
        }
        await finish();
        controller.close();
      },
      cancel: finish,
    });
  }

  async *#chunks(
    running: RunningCapture,
    request: CaptureRequest,
    over: AbortSignal,
  ): AsyncGenerator<Uint8Array, void> {
    const { clock, names, application } = this.#deps;
    const file = new CaptureFile(names, request);
    const deadlineMs = clock.nowMs() + (request.durationMs ?? Number.POSITIVE_INFINITY);
    yield file.begin(application);
    let isStopped = false;
    for (;;) {
      const chunk = file.next(running.ring);
      if (chunk.length > 0) yield chunk;
      if (file.isComplete || (isStopped && chunk.length === 0)) break;
      if (isStopped) continue;
      if (over.aborted || clock.nowMs() >= deadlineMs) {
        await running.stop(); // what came until now is still to be read
        isStopped = true;
      } else if (chunk.length === 0) {
        const pauseMs = Math.min(POLL_MS, deadlineMs - clock.nowMs());
        await delay(Math.max(0, pauseMs), undefined, { signal: over }).catch(() => {});
      }
    }
    yield file.end(running.ring, clock.epochMs() * 1_000);
  }
}

interface InterfaceTally {
  readonly interfaceId: number;
  kept: number;
  lost: number;
}

/** Makes pcapng of what is in a ring. An interface is described when its first frame comes. */
class CaptureFile {
  readonly #names: () => CaptureNames;
  readonly #snaplen: number;
  readonly #countMax: number;
  readonly #writer = new PcapngWriter();
  /** By port id, or by the bitwise complement of a peer's slot. BOUNDED by the ports and peers. */
  readonly #interfaces = new Map<number, InterfaceTally>();
  #last: InterfaceTally | undefined;
  #count = 0;
  #lost = 0;

  constructor(names: () => CaptureNames, { snaplen, count }: CaptureRequest) {
    this.#names = names;
    this.#snaplen = snaplen;
    this.#countMax = count ?? Number.POSITIVE_INFINITY;
  }

  /** Whether all frames that were asked for are there. */
  get isComplete(): boolean {
    return this.#count >= this.#countMax;
  }

  begin(application: string): Uint8Array {
    this.#writer.section(application, 'Linux');
    return this.#writer.take();
  }

  /** Takes frames out of the ring, some at a time. */
  next(ring: CaptureRecords): Uint8Array {
    while (!this.isComplete && this.#writer.length < CHUNK_BYTES && ring.next()) {
      const tally = this.#interface(ring.crossing, ring.point);
      tally.kept += 1;
      tally.lost += ring.lostBefore;
      this.#count += 1;
      this.#lost += ring.lostBefore;
      this.#last = tally;
      this.#writer.packet({
        interfaceId: tally.interfaceId,
        timeUs: ring.timeUs,
        direction: directionOf(ring.crossing),
        bytes: ring.frame,
        originalBytes: ring.originalBytes,
        lost: ring.lostBefore,
      });
    }
    ring.release();
    return this.#writer.take();
  }

  /**
   * What each interface saw. Frames are lost before anybody looks where they crossed: they count where the
   * next one did that was kept.
   */
  end(ring: CaptureRecords, timeUs: number): Uint8Array {
    if (this.#last !== undefined && !this.isComplete) this.#last.lost += ring.lost - this.#lost;
    for (const { interfaceId, kept, lost } of this.#interfaces.values()) {
      this.#writer.statistics({ interfaceId, timeUs, received: kept + lost, dropped: lost });
    }
    return this.#writer.take();
  }

  #interface(crossing: number, point: number): InterfaceTally {
    const key = isPeerCrossing(crossing) ? ~point : point;
    const known = this.#interfaces.get(key);
    if (known !== undefined) return known;
    const tally = { interfaceId: this.#interfaces.size, kept: 0, lost: 0 };
    this.#interfaces.set(key, tally);
    const { name, description } = captureInterface(crossing, point, this.#names());
    this.#writer.interface({ name, description, snaplen: this.#snaplen });
    return tally;
  }
}
