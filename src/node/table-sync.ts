import type { Log } from '../core/capabilities.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';
import {
  type DesiredTables,
  desiredTables,
  type TableSources,
  tableChanges,
} from './desired-tables.ts';

/**
 * Keeps the data plane's tables as its sources say. Changes that come while others are applied are
 * gathered into one step.
 */
export class TableSync {
  readonly #dataPlane: DataPlane;
  readonly #log: Log;
  readonly #sources: () => TableSources;
  #applied: DesiredTables = new Map();
  #running: Promise<void> | undefined;
  #again = false;

  /** @param sources - Read anew for each step. */
  constructor(dataPlane: DataPlane, log: Log, sources: () => TableSources) {
    this.#dataPlane = dataPlane;
    this.#log = log;
    this.#sources = sources;
  }

  /** Resolves when the tables hold what the sources said at this moment, or something newer. */
  async sync(): Promise<void> {
    if (this.#running !== undefined) {
      this.#again = true;
      return await this.#running;
    }
    this.#running = this.#run();
    try {
      await this.#running;
    } finally {
      this.#running = undefined;
    }
  }

  async #run(): Promise<void> {
    do {
      this.#again = false;
      const desired = desiredTables(this.#sources());
      const changes = tableChanges(this.#applied, desired);
      if (changes.length === 0) continue;
      await this.#dataPlane.apply(changes);
      this.#applied = desired;
      this.#log.debug({ changes: changes.length, entries: desired.size }, 'tables changed');
    } while (this.#again);
  }
}
