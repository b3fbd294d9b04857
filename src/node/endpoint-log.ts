import { z } from 'zod';
import type { Json } from '../core/store.ts';
import type { EndpointChange } from '../gossip/effects.ts';
import { appendLines, readLines, replaceLines } from '../io/line-file.ts';
import type { VisibleEntry } from './endpoint-view.ts';

/** Changes are gathered for so long before they are written. */
const WRITE_DELAY_MS = 250;
/** Changes that a file may hold, in characters, before it is written anew: at least so many. */
const CHANGES_CHARS_MIN = 1_048_576;

/** One line: an entry; that a node has taken one out; or, without key, that nothing of the node holds. */
const lineSchema = z.union([
  z.strictObject({
    node: z.string(),
    key: z.string(),
    value: z.custom<Json>((value) => value !== undefined),
  }),
  z.strictObject({ node: z.string(), key: z.string().optional(), isGone: z.literal(true) }),
]);
type Line = z.infer<typeof lineSchema>;

/**
 * A file of what other nodes announce: all entries as they were when it was begun, then each change. So a
 * change costs what it changes, and whoever is killed leaves at least what was known a moment before.
 *
 * BOUNDED to about twice the entries: then the file is begun anew.
 */
export class EndpointLog {
  readonly #path: string;
  readonly #snapshot: () => Iterable<VisibleEntry>;
  #pending: Line[] = [];
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  /** Of the entries that the file began with, and of the changes behind them; undefined: to be begun. */
  #snapshotChars: number | undefined;
  #changesChars = 0;

  /**
   * @param path - On a tmpfs: after a boot nothing of it is true any more.
   * @param snapshot - All entries now. May change while it is gone through, if {@link note} is told how.
   */
  constructor(path: string, snapshot: () => Iterable<VisibleEntry>) {
    this.#path = path;
    this.#snapshot = snapshot;
  }

  /** What the last agent knew, by node. A file that cannot be read is as good as none. */
  async read(): Promise<Map<string, Map<string, Json>>> {
    const nodes = new Map<string, Map<string, Json>>();
    try {
      for (const text of await readLines(this.#path)) {
        const line = lineSchema.parse(JSON.parse(text));
        const entries = nodes.get(line.node) ?? new Map<string, Json>();
        nodes.set(line.node, entries);
        if ('value' in line) entries.set(line.key, line.value);
        else if (line.key === undefined) nodes.delete(line.node);
        else entries.delete(line.key);
      }
    } catch {
      return new Map();
    }
    return nodes;
  }

  /** Notes what has changed of a node's entries. */
  note({ node, added, changed, removed }: EndpointChange): void {
    for (const { key, value } of added) this.#add({ node, key, value });
    for (const { key, value } of changed) this.#add({ node, key, value });
    for (const key of removed) this.#add({ node, key, isGone: true });
  }

  /** Notes that nothing is known of a node. */
  forget(node: string): void {
    this.#add({ node, isGone: true });
  }

  /** Writes what is not written yet. */
  async close(): Promise<void> {
    this.#flush();
    await this.#writing;
  }

  #add(line: Line): void {
    this.#pending.push(line);
    this.#timer ??= setTimeout(() => this.#flush(), WRITE_DELAY_MS);
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(() => this.#write());
  }

  async #write(): Promise<void> {
    const lines = this.#pending;
    if (lines.length === 0) return;
    this.#pending = [];
    const snapshotChars = this.#snapshotChars;
    const isFull =
      snapshotChars !== undefined &&
      this.#changesChars > Math.max(snapshotChars, CHANGES_CHARS_MIN);
    this.#snapshotChars = undefined; // a file of which a write fails is begun anew
    try {
      if (snapshotChars === undefined || isFull) {
        this.#snapshotChars = await replaceLines(this.#path, this.#entryLines());
        this.#changesChars = 0;
      } else {
        const texts = lines.map((line) => JSON.stringify(line));
        this.#changesChars += await appendLines(this.#path, texts);
        this.#snapshotChars = snapshotChars;
      }
    } catch {
      // It is a help to the next agent, no more. The next change tries again.
    }
  }

  *#entryLines(): Generator<string> {
    for (const { node, key, value } of this.#snapshot()) {
      yield JSON.stringify({ node, key, value });
    }
  }
}
