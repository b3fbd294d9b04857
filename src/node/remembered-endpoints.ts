import { z } from 'zod';
import type { Json } from '../core/store.ts';
import { readJsonFile, writeJsonFile } from '../io/json-file.ts';
import type { VisibleEntry } from './gossip-view.ts';

/** How long what an earlier agent knew is believed before gossip has told of a node. */
const BELIEVED_MS = 15_000;
/** Changes are gathered for so long before they are written. */
const WRITE_DELAY_MS = 250;

const entriesSchema = z.array(
  z.object({
    node: z.string(),
    key: z.string(),
    value: z.custom<Json>((value) => value !== undefined),
  }),
);

/**
 * What the other nodes announced when this host's agent was last alive. A new agent starts from it: until
 * gossip has told of a node anew, its endpoints are where they were, and flows to them go on.
 */
export class RememberedEndpoints {
  readonly #path: string;
  readonly #onExpired: () => void;
  #entries: readonly VisibleEntry[] = [];
  #expiry: NodeJS.Timeout | undefined;
  #latest: readonly VisibleEntry[] | undefined;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();

  /**
   * @param path - On a tmpfs: after a boot nothing of it is true any more.
   * @param onExpired - Told when what was remembered is no longer believed.
   */
  constructor(path: string, onExpired: () => void) {
    this.#path = path;
    this.#onExpired = onExpired;
  }

  /** Reads what was remembered. A file that cannot be read is as good as none. */
  async load(): Promise<void> {
    const value = await readJsonFile(this.#path).catch(() => undefined);
    const parsed = entriesSchema.safeParse(value);
    if (!parsed.success || parsed.data.length === 0) return;
    this.#entries = parsed.data;
    this.#expiry = setTimeout(() => {
      this.#entries = [];
      this.#onExpired();
    }, BELIEVED_MS);
  }

  /**
   * Adds what is still believed to what gossip shows.
   *
   * @param visible - What gossip shows now.
   * @param gone - Names of the members that gossip knows to have failed or left.
   */
  complete(visible: readonly VisibleEntry[], gone: ReadonlySet<string>): readonly VisibleEntry[] {
    if (this.#entries.length === 0) return visible;
    const told = new Set(visible.map(({ node }) => node));
    const missing = this.#entries.filter(({ node }) => !told.has(node) && !gone.has(node));
    return [...visible, ...missing];
  }

  /** Remembers what the other nodes announce now. */
  remember(entries: readonly VisibleEntry[]): void {
    this.#latest = entries;
    this.#timer ??= setTimeout(() => this.#write(), WRITE_DELAY_MS);
  }

  /** Writes what is not written yet. */
  async close(): Promise<void> {
    clearTimeout(this.#expiry);
    this.#write();
    await this.#writing;
  }

  #write(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const entries = this.#latest;
    if (entries === undefined) return;
    this.#latest = undefined;
    this.#writing = this.#writing.then(() => writeJsonFile(this.#path, entries)).catch(() => {});
  }
}
