import type { Log } from '../core/capabilities.ts';
import type { DataPlaneCommand } from '../dataplane/commands.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';

/** What one batch may cost a packet thread, which forwards nothing meanwhile, in endpoints. */
const BATCH_COST_MAX = 1_000;
/** What a service costs apart from its backends: its Maglev table. */
const SERVICE_COST = 200;

/**
 * Keeps the data plane's tables as they are desired. Changes that come while others are applied are
 * gathered into one step, and a step of many changes is made in batches between which packets are served.
 */
export class TableSync {
  readonly #dataPlane: Pick<DataPlane, 'apply' | 'isServing'>;
  readonly #log: Log;
  readonly #changes: () => readonly DataPlaneCommand[];
  #running: Promise<void> | undefined;
  #again = false;

  /** @param changes - What has become different since its last call, in the order to apply it. */
  constructor(
    dataPlane: Pick<DataPlane, 'apply' | 'isServing'>,
    log: Log,
    changes: () => readonly DataPlaneCommand[],
  ) {
    this.#dataPlane = dataPlane;
    this.#log = log;
    this.#changes = changes;
  }

  /**
   * Resolves when the tables are as they were desired at this moment, or newer. What the data plane refuses
   * is logged and left out: one entry must not keep all others from it.
   */
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
      const changes = this.#changes();
      if (changes.length === 0) continue;
      const parts = this.#dataPlane.isServing ? batches(changes) : [changes];
      for (const part of parts) await this.#apply(part);
      this.#log.debug({ changes: changes.length }, 'tables changed');
    } while (this.#again);
  }

  async #apply(batch: readonly DataPlaneCommand[]): Promise<void> {
    try {
      await this.#dataPlane.apply(batch);
    } catch {
      await this.#applyEach(batch); // to set and to remove twice does no harm
    }
  }

  async #applyEach(batch: readonly DataPlaneCommand[]): Promise<void> {
    const errors: unknown[] = [];
    for (const command of batch) {
      await this.#dataPlane.apply([command]).catch((error: unknown) => errors.push(error));
    }
    const error = String(errors[0]);
    this.#log.error({ refused: errors.length, error }, 'the data plane refused table entries');
  }
}

/** Cuts `changes` so that no batch costs too much, unless a single change does. */
export function* batches(
  changes: readonly DataPlaneCommand[],
): Generator<readonly DataPlaneCommand[]> {
  let start = 0;
  let cost = 0;
  for (const [index, change] of changes.entries()) {
    const added = costOf(change);
    if (cost + added > BATCH_COST_MAX && index > start) {
      yield changes.slice(start, index);
      start = index;
      cost = 0;
    }
    cost += added;
  }
  if (start < changes.length) yield changes.slice(start);
}

function costOf(change: DataPlaneCommand): number {
  return change.kind === 'setService' ? SERVICE_COST + change.service.backends.length : 1;
}
