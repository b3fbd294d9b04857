import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Reads a child's standard output line by line, as the test asks for them. */
export class Lines {
  readonly #iterator: AsyncIterator<string>;
  readonly #errors: string[] = [];

  constructor(child: ChildProcess) {
    if (child.stdout === null) throw new Error('The child has no standard output to read');
    this.#iterator = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    child.stderr?.on('data', (chunk) => this.#errors.push(String(chunk)));
  }

  /** The next line. @throws {Error} if the output has ended, with what the child said on stderr */
  async next(): Promise<string> {
    const { value, done } = await this.#iterator.next();
    if (done === true) throw new Error(`The child's output has ended: ${this.#errors.join('')}`);
    return value;
  }

  /** The next line that matches. */
  async until(pattern: RegExp): Promise<string> {
    for (;;) {
      const line = await this.next();
      if (pattern.test(line)) return line;
    }
  }
}
