import { parseBase64 } from '../core/base64.ts';
import type { Log } from '../core/capabilities.ts';
import type { GossipKeysAssignment, GossipKeysReport } from '../manager/gossip-protocol.ts';
import type { GossipKeyFile } from './gossip-key-file.ts';

/** What {@link GossipKeys} works with. */
export interface GossipKeysDeps {
  readonly file: GossipKeyFile;
  readonly log: Log;
  /** Makes gossip use these keys, the one to seal by first. */
  readonly apply: (
    keys: readonly Uint8Array[],
    options: { readonly seal: boolean; readonly strict: boolean },
  ) => void;
}

/** The keys that this node gossips by: from its file, and then as the manager tells them. */
export class GossipKeys {
  readonly #deps: GossipKeysDeps;
  #held: GossipKeysAssignment | undefined;
  #report: GossipKeysReport = { mode: 'accept', ids: [] };

  constructor(deps: GossipKeysDeps) {
    this.#deps = deps;
  }

  /** How many there are. */
  get count(): number {
    return this.#held?.keys.length ?? 0;
  }

  /** Whether nothing but what is sealed may be said. */
  get isStrict(): boolean {
    return this.#held?.mode === 'strict';
  }

  /** What the manager is told: ids, and no keys. */
  get report(): GossipKeysReport {
    return this.#report;
  }

  /** Takes up the keys of the last agent. @throws {Error} if their file is damaged */
  async recall(): Promise<void> {
    const kept = await this.#deps.file.read();
    if (kept === undefined) return;
    this.#use(kept);
    this.#confirm(kept);
  }

  /**
   * Takes up what the manager says, if it is anything new. It is confirmed once it is on disk, so
   * that what others rely on survives this process. A disk that takes nothing does not keep it from
   * being used.
   *
   * @returns whether it was new
   */
  async take(told: GossipKeysAssignment): Promise<boolean> {
    if (JSON.stringify(told) === JSON.stringify(this.#held)) return false;
    this.#use(told);
    await this.#deps.file.write(told).catch((error: unknown) => {
      this.#deps.log.error({ error: String(error) }, 'gossip keys cannot be kept on disk');
    });
    this.#confirm(told);
    const { mode, ids: keyIds } = this.#report;
    this.#deps.log.info({ mode, keyIds }, 'gossip keys changed');
    return true;
  }

  #use(assignment: GossipKeysAssignment): void {
    const { mode } = assignment;
    const keys = assignment.keys.flatMap(({ key }) => parseBase64(key) ?? []);
    this.#deps.apply(keys, { seal: mode !== 'accept', strict: mode === 'strict' });
    this.#held = assignment;
  }

  #confirm({ mode, keys }: GossipKeysAssignment): void {
    this.#report = { mode, ids: keys.map(({ id }) => id) };
  }
}
