import { flushCompileCache } from 'node:module';
import type { EventLoopUtilization } from 'node:perf_hooks';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { mallocTrim } from './linux/ffi.ts';

/** How often the control thread is looked at. */
const LOOK_MS = 2_000;
/** A thread is at rest when it worked for less than this share of the time since the last look. */
const BUSY_SHARE_MAX = 0.1;
/** A collection must be worth its pause, about 1 ms per MB: the heap has grown by so much, … */
const GROWTH_BYTES_MIN = 3_000_000;
/** … and by this share of what the last collection left. */
const GROWTH_SHARE_MIN = 0.1;
/** Looks at rest after a collection, until the next one. */
const LOOKS_BETWEEN = 3;

/**
 * When to collect a heap's garbage. V8 collects when a heap wants to grow, so the garbage of a start, or
 * of a burst of work, stays resident for as long as the thread has nothing more to do. A second
 * collection follows the first one: threads that have ended by then leave memory that V8 keeps for others.
 */
export class RestingHeap {
  /** What the last collection left, in bytes. */
  #leftBytes = 0;
  /** Looks until the second collection; 0 if none is due. */
  #looksLeft = 0;

  /**
   * Whether to collect now.
   *
   * @param busyShare - Of the time since the last look, from 0 to 1.
   * @param heapBytes - What the heap takes of memory, garbage and unused pages included.
   */
  look(busyShare: number, heapBytes: number): boolean {
    if (busyShare >= BUSY_SHARE_MAX) return false;
    const growth = heapBytes - this.#leftBytes;
    if (growth >= Math.max(GROWTH_BYTES_MIN, this.#leftBytes * GROWTH_SHARE_MIN)) {
      this.#looksLeft = LOOKS_BETWEEN;
      return true;
    }
    if (this.#looksLeft === 0) return false;
    this.#looksLeft -= 1;
    return this.#looksLeft === 0;
  }

  /** @param heapBytes - What the heap takes of memory after a collection. */
  collected(heapBytes: number): void {
    this.#leftBytes = heapBytes;
  }
}

/**
 * Collects this thread's garbage whenever it has come to rest and the heap has grown, for as long as the
 * process lives. What was compiled is written to the compile cache then, too: an agent that gets a
 * SIGKILL writes nothing, and the next one must be quick.
 */
export function collectAtRest(): void {
  const heap = new RestingHeap();
  let before: EventLoopUtilization = performance.eventLoopUtilization();
  const look = (): void => {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, before);
    before = now;
    if (collectIfDue(heap, utilization)) flushCompileCache();
  };
  setInterval(look, LOOK_MS).unref();
}

/**
 * Looks at the calling thread's heap, and collects its garbage if that is due.
 *
 * @param busyShare - As for {@link RestingHeap.look}.
 * @returns whether it collected
 */
export function collectIfDue(heap: RestingHeap, busyShare: number): boolean {
  if (!heap.look(busyShare, heapBytes())) return false;
  collectGarbage();
  heap.collected(heapBytes());
  return true;
}

/** Collects all garbage of the calling thread and gives the memory back. It stands still for that long. */
export function collectGarbage(): void {
  // V8 offers its collector to contexts that are made after the flag is set, and to no other code.
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as NodeJS.GCFunction;
  collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  mallocTrim(0);
}

function heapBytes(): number {
  return getHeapStatistics().total_physical_size;
}
