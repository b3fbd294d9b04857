import { type Profiler, Session } from 'node:inspector';

/**
 * Which blocks of `src` run, by V8's precise block coverage. A block has run or not: how often makes no
 * difference. A look takes milliseconds, so it is for many inputs at a time.
 */
export class Coverage {
  readonly #session = new Session();
  /** BOUNDED by the blocks of the source. */
  readonly #seen = new Set<string>();

  constructor() {
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** How many blocks have run so far. */
  get size(): number {
    return this.#seen.size;
  }

  /** Blocks that have run since the last look. */
  look(): ReadonlySet<string> {
    const blocks = new Set<string>();
    for (const { url, functions } of this.#take()) {
      if (!/\/src\/.*\.[jt]s$/.test(url)) continue;
      for (const { startOffset, endOffset, count } of functions.flatMap(({ ranges }) => ranges)) {
        if (count > 0) blocks.add(`${url}:${startOffset}-${endOffset}`);
      }
    }
    return blocks;
  }

  /** The blocks among those since the last look that had never run; from now on they have. */
  news(): ReadonlySet<string> {
    const found = [...this.look()].filter((block) => !this.#seen.has(block));
    for (const block of found) this.#seen.add(block);
    return new Set(found);
  }

  close(): void {
    this.#session.disconnect();
  }

  #take(): readonly Profiler.ScriptCoverage[] {
    let found: readonly Profiler.ScriptCoverage[] = [];
    // The inspector of the own thread answers before `post` returns.
    this.#session.post('Profiler.takePreciseCoverage', (error, answer) => {
      if (error !== null) throw error;
      found = answer.result;
    });
    return found;
  }
}
