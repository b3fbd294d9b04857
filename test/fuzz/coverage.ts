import { type Profiler, Session } from 'node:inspector';

/**
 * Pieces of code, as characters of the source by function. V8 tells what ran as ranges that depend on
 * what ran otherwise, so characters are what can be compared.
 */
export class Code {
  /** By function: 1 for each character that is in. BOUNDED by the source. */
  readonly #functions = new Map<string, Uint8Array>();

  /** Whether nothing is in. */
  get isEmpty(): boolean {
    return [...this.#functions.values()].every((characters) => !characters.includes(1));
  }

  /** How many characters are in. */
  get size(): number {
    let size = 0;
    for (const characters of this.#functions.values()) for (const one of characters) size += one;
    return size;
  }

  /** Adds what ran of a function: inner ranges come after those around them. */
  addFunction(url: string, { ranges }: Profiler.FunctionCoverage): void {
    const [whole] = ranges;
    if (whole === undefined || whole.count === 0) return;
    const characters = new Uint8Array(whole.endOffset - whole.startOffset);
    for (const { startOffset, endOffset, count } of ranges) {
      const from = startOffset - whole.startOffset;
      characters.fill(count > 0 ? 1 : 0, from, endOffset - whole.startOffset);
    }
    this.#functions.set(`${url}:${whole.startOffset}`, characters);
  }

  /** Adds all of `other`. @returns what was not in before */
  addAll(other: Code): Code {
    const fresh = new Code();
    for (const [key, theirs] of other.#functions) {
      const ours = this.#functions.get(key) ?? new Uint8Array(theirs.length);
      const added = theirs.map((one, at) => one & ~(ours[at] ?? 0));
      if (!added.includes(1)) continue;
      fresh.#functions.set(key, added);
      this.#functions.set(
        key,
        theirs.map((one, at) => one | (ours[at] ?? 0)),
      );
    }
    return fresh;
  }

  /** Whether something is in both. */
  meets(other: Code): boolean {
    return [...this.#functions].some(([key, ours]) => {
      const theirs = other.#functions.get(key);
      return ours.some((one, at) => (one & (theirs?.[at] ?? 0)) === 1);
    });
  }

  /** Takes out what is in `other`. @returns whether that was anything */
  takeOut(other: Code): boolean {
    let isAny = false;
    for (const [key, ours] of this.#functions) {
      const theirs = other.#functions.get(key);
      if (theirs === undefined) continue;
      const kept = ours.map((one, at) => one & ~(theirs[at] ?? 0));
      if (kept.every((one, at) => one === ours[at])) continue;
      isAny = true;
      this.#functions.set(key, kept);
    }
    return isAny;
  }
}

/**
 * Which code of the source runs, by V8's precise block coverage; how often makes no difference. A look
 * takes milliseconds, so it is for many inputs at a time. Functions that were called before this
 * object was made are seen as wholes.
 */
export class Coverage {
  readonly #session = new Session();
  readonly #seen = new Code();
  readonly #files: RegExp;

  /** @param files - Matches the URLs of the files that count. */
  constructor(files: RegExp = /\/src\/.*\.[jt]s$/) {
    this.#files = files;
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** How many characters of code have run so far. */
  get size(): number {
    return this.#seen.size;
  }

  /** What has run since the last look. */
  look(): Code {
    const code = new Code();
    for (const { url, functions } of this.#take()) {
      if (!this.#files.test(url)) continue;
      // The first one is the module as a whole, which runs once and has all others in it.
      for (const one of functions) {
        if (one.ranges[0]?.startOffset !== 0) code.addFunction(url, one);
      }
    }
    return code;
  }

  /** What has run since the last look, and never before. */
  news(): Code {
    return this.#seen.addAll(this.look());
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
