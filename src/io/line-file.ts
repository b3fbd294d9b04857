import { constants } from 'node:fs';
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Lines are gathered to about so many characters for one write: between two writes others have their turn. */
const CHUNK_CHARS = 65_536;

/**
 * Reads a file of lines. A last line without an end is one whose writer was interrupted, and left out.
 *
 * @throws {Error} if there is no such file, or it cannot be read
 */
export async function readLines(path: string): Promise<string[]> {
  const lines = (await readFile(path, 'utf8')).split('\n');
  return lines.slice(0, -1);
}

/**
 * Adds lines to a file, which must be there. Whoever is interrupted leaves some of them, the last one cut.
 *
 * @returns how many characters were added
 */
export async function appendLines(path: string, lines: readonly string[]): Promise<number> {
  const text = lines.map((line) => `${line}\n`).join('');
  const file = await open(path, constants.O_WRONLY | constants.O_APPEND);
  try {
    await file.writeFile(text);
  } finally {
    await file.close();
  }
  return text.length;
}

/**
 * Writes a file of lines in place of what is there: after a crash it holds either the old or the new lines.
 * Only the owner may read it.
 *
 * @param lines - Taken a part at a time: other work goes on in between, and may change what comes.
 * @returns how many characters it has
 */
export async function replaceLines(path: string, lines: Iterable<string>): Promise<number> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const temporary = `${path}.new`;
  const file = await open(temporary, 'w', 0o600);
  let written = 0;
  try {
    let chunk = '';
    for (const line of lines) {
      chunk += `${line}\n`;
      if (chunk.length < CHUNK_CHARS) continue;
      await file.writeFile(chunk);
      written += chunk.length;
      chunk = '';
    }
    await file.writeFile(chunk);
    written += chunk.length;
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  return written;
}
