import { chmod, mkdir, open, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { removeFile } from '../io/json-file.ts';
import { NODE_NOISE_CRYPTO } from '../io/noise-crypto.ts';
import { KEY_BYTES } from '../noise/crypto.ts';

/** Only the owner may read or write it. */
const PRIVATE_MODE = 0o600;

/** The file in the state directory that holds the private key of this node's encrypted channels, in base64. */
export class EncryptionKeyFile {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  /**
   * The key of an earlier agent, or a new one, which is then on disk.
   *
   * @returns 32 bytes
   * @throws {Error} if the file holds no key, naming it and what to do
   */
  async load(): Promise<Uint8Array> {
    const text = await readFile(this.#path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    });
    if (text === undefined) return await this.#make();
    await chmod(this.#path, PRIVATE_MODE);
    const key = new Uint8Array(Buffer.from(text, 'base64'));
    if (key.length === KEY_BYTES) return key;
    throw new Error(
      `Cannot use ${this.#path}: expected a key of ${KEY_BYTES} bytes in base64, got ${key.length}; remove it, and the node makes itself a new one`,
    );
  }

  async remove(): Promise<void> {
    await removeFile(this.#path);
  }

  async #make(): Promise<Uint8Array> {
    const { privateKey } = NODE_NOISE_CRYPTO.generateKeyPair();
    await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
    const file = await open(this.#path, 'wx', PRIVATE_MODE);
    try {
      await file.writeFile(`${Buffer.from(privateKey).toString('base64')}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    return privateKey;
  }
}
