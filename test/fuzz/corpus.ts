import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('./corpus', import.meta.url));

/** The inputs of a target that are kept in the project, a file each, named by what they hold. */
export class Corpus {
  readonly #directory: string;

  constructor(target: string) {
    this.#directory = `${ROOT}/${target}`;
  }

  /** All inputs, by the name of their file. */
  load(): ReadonlyMap<string, Uint8Array> {
    const names = namesIn(this.#directory);
    return new Map(names.map((name) => [name, readFileSync(`${this.#directory}/${name}`)]));
  }

  /** Keeps exactly these inputs. */
  replace(inputs: Iterable<Uint8Array>): void {
    const wanted = new Map([...inputs].map((input) => [nameOf(input), input]));
    mkdirSync(this.#directory, { recursive: true });
    for (const name of namesIn(this.#directory)) {
      if (!wanted.has(name)) rmSync(`${this.#directory}/${name}`);
    }
    for (const [name, input] of wanted) writeFileSync(`${this.#directory}/${name}`, input);
  }

  /** Keeps one more, and says where. */
  add(input: Uint8Array): string {
    mkdirSync(this.#directory, { recursive: true });
    const path = `${this.#directory}/${nameOf(input)}`;
    writeFileSync(path, input);
    return path;
  }
}

function namesIn(directory: string): readonly string[] {
  try {
    return readdirSync(directory).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []; // nothing was kept yet
    throw error;
  }
}

function nameOf(input: Uint8Array): string {
  return createHash('sha256').update(input).digest('hex').slice(0, 12);
}
