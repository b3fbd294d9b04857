import { z } from 'zod';
import { parseBase64 } from '../core/base64.ts';
import { readJsonFile, removeFile, writeJsonFile } from '../io/json-file.ts';
import { GOSSIP_KEY_MODES, type GossipKeysAssignment } from '../manager/gossip-protocol.ts';

/** AES-128, AES-192 and AES-256. */
const KEY_BYTES: readonly number[] = [16, 24, 32];

const keySchema = z.string().refine((text) => KEY_BYTES.includes(parseBase64(text)?.length ?? 0), {
  error: 'expected 16, 24 or 32 bytes in base64',
});
const keysSchema: z.ZodType<GossipKeysAssignment> = z.object({
  mode: z.enum(GOSSIP_KEY_MODES),
  keys: z.array(z.object({ id: z.string().min(1), key: keySchema })),
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
