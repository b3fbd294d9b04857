import { z } from 'zod';
import { readJsonFile, removeFile, writeJsonFile } from '../io/json-file.ts';
import { GOSSIP_KEY_MODES, type GossipKeysAssignment } from '../manager/gossip-protocol.ts';

const keysSchema: z.ZodType<GossipKeysAssignment> = z.object({
  mode: z.enum(GOSSIP_KEY_MODES),
  keys: z.array(z.object({ id: z.string().min(1), key: z.base64().min(1) })),
});

/**
 * The file in the state directory that holds the keys of gossip, so that a node can speak to the
 * others while no manager answers. Only its owner may read it.
 */
export class GossipKeyFile {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  /**
   * @returns undefined if this node has been told no keys
   * @throws {Error} if the file is damaged, naming it and what to do; no key is repeated
   */
  async read(): Promise<GossipKeysAssignment | undefined> {
    const value = await readJsonFile(this.#path);
    if (value === undefined) return undefined;
    const parsed = keysSchema.safeParse(value);
    if (parsed.success) return parsed.data;
    const issue = parsed.error.issues[0];
    throw new Error(
      `Cannot use ${this.#path}: ${issue?.path.join('.')}: ${issue?.message}; remove it, and the manager tells the keys again`,
    );
  }

  async write(keys: GossipKeysAssignment): Promise<void> {
    await writeJsonFile(this.#path, keys);
  }

  async remove(): Promise<void> {
    await removeFile(this.#path);
  }
}
