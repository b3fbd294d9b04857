import { InvalidArgumentError } from 'commander';
import { type Pair, type Parse, pair } from './values.ts';

/** The API's filters: every key must match, one of its values is enough. */
export type Filters = Readonly<Record<string, readonly string[]>>;

/**
 * Reads one `--filter key=value`.
 *
 * @param keys - Those that the command's API call knows.
 */
export function filter(keys: readonly string[]): Parse<Pair> {
  return (text) => {
    const read = text.includes('=') ? pair(text) : undefined;
    if (read === undefined || !keys.includes(read[0])) {
      throw new InvalidArgumentError(`expected key=value with a key of ${keys.join(', ')}`);
    }
    return read;
  };
}

/** Groups the values of each key, in the shape of the API's `filters` parameter. */
export function toFilters(pairs: readonly Pair[]): Filters {
  const filters: Record<string, string[]> = {};
  for (const [key, value] of pairs) {
    filters[key] = [...(filters[key] ?? []), value];
  }
  return filters;
}
