import { InvalidArgumentError } from 'commander';

/** A character outside quotes, a quoted part, an escape, or the space between words. */
const TOKEN = /\s+|"((?:[^"\\]|\\.)*)"|'([^']*)'|\\(.)|([^\s"'\\]+)/gsy;

/**
 * Splits a command line into words by a shell's quotes and backslashes; nothing is expanded.
 *
 * @throws {InvalidArgumentError} if a quote is not closed
 */
export function splitWords(text: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let end = 0;
  for (const match of text.matchAll(TOKEN)) {
    const [token, doubleQuoted, singleQuoted, escaped, plain] = match;
    end = match.index + token.length;
    const part = doubleQuoted?.replaceAll(/\\(["\\$`])/g, '$1') ?? singleQuoted ?? escaped ?? plain;
    if (part !== undefined) {
      word = (word ?? '') + part;
    } else if (word !== undefined) {
      words.push(word);
      word = undefined;
    }
  }
  if (end !== text.length) throw new InvalidArgumentError('expected every quote to be closed');
  return word === undefined ? words : [...words, word];
}
