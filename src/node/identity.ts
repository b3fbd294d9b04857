import { z } from 'zod';
import { readJsonFile, removeFile, writeJsonFile } from '../io/json-file.ts';
import { GOSSIP_PROFILES, type GossipSettings } from '../manager/gossip-protocol.ts';

/** Who this node is in its cluster. Kept in the state directory; holds the node's secret. */
export interface Identity {
  readonly clusterId: string;
  readonly nodeId: string;
  readonly nodeSecret: string;
  readonly role: 'worker' | 'manager';
  /** Address, without port, at which the other nodes reach this one. */
  readonly advertiseAddress: string;
  /** UDP port of VXLAN, the same on every node of the cluster. */
  readonly dataPathPort: number;
  readonly gossipPort: number;
  /** `host:port` that the manager of this node listens on; only on managers. */
  readonly listenAddress?: string | undefined;
  /** `host:port` of the managers known when the node joined. */
  readonly managers: readonly string[];
  /** The largest gossip generation used so far: the next start must use a larger one. */
  readonly generation: number;
  /** How the cluster gossips, as told when this node joined; absent if it joined before there were settings. */
  readonly gossip?: GossipSettings | undefined;
}

const gossipSchema = z.object({
  encryption: z.boolean(),
  profile: z.enum(GOSSIP_PROFILES),
  compression: z.boolean(),
  label: z.string().exactOptional(),
});
const identitySchema: z.ZodType<Identity> = z.object({
  clusterId: z.string().min(1),
  nodeId: z.string().min(1),
  nodeSecret: z.string().min(1),
  role: z.enum(['worker', 'manager']),
  advertiseAddress: z.string().min(1),
  dataPathPort: z.number().int(),
  gossipPort: z.number().int(),
  listenAddress: z.string().optional(),
  managers: z.array(z.string()),
  generation: z.number().int(),
  gossip: gossipSchema.optional(),
});

/** The file in the state directory that holds the node's identity. */
export class IdentityFile {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  /**
   * @returns `undefined` if this host is in no cluster
   * @throws {Error} if the file is damaged, naming what is wrong and what to do
   */
  async read(): Promise<Identity | undefined> {
    const value = await readJsonFile(this.#path);
    if (value === undefined) return undefined;
    const parsed = identitySchema.safeParse(value);
    if (parsed.success) return parsed.data;
    const issue = parsed.error.issues[0];
    throw new Error(
      `Cannot use ${this.#path}: ${issue?.path.join('.')}: ${issue?.message}; remove it and join again`,
    );
  }

  async write(identity: Identity): Promise<void> {
    await writeJsonFile(this.#path, identity);
  }

  async remove(): Promise<void> {
    await removeFile(this.#path);
  }
}
