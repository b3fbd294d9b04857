import { invalid } from './errors.ts';

/** What a list request asks for: an object passes if, of every key, one of the values fits. */
export type Filters = ReadonlyMap<string, readonly string[]>;

/**
 * Reads the `filters` parameter: `{"name":["web"]}`, or `{"name":{"web":true}}` as the docker CLI
 * writes it.
 *
 * @param allowed - The keys that this list knows.
 * @throws {ManagerError} INVALID if it is malformed or asks for an unknown key
 */
export function parseFilters(text: string | undefined, allowed: readonly string[]): Filters {
  if (text === undefined || text === '') return new Map();
  const filters = new Map<string, readonly string[]>();
  for (const [key, value] of Object.entries(parseObject(text))) {
    if (!allowed.includes(key)) {
      throw invalid(`invalid filter '${key}': expected ${allowed.join(', ')}`, 'filters');
    }
    filters.set(key, valuesOf(key, value));
  }
  return filters;
}

function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid(`invalid filters: ${(cause as Error).message}`, 'filters', cause);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid('invalid filters: expected an object of lists', 'filters');
  }
  return value as Record<string, unknown>;
}

function valuesOf(key: string, value: unknown): readonly string[] {
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return Object.entries(value).flatMap(([item, wanted]) => (wanted === false ? [] : [item]));
  }
  throw invalid(`invalid filter '${key}': expected a list of strings`, 'filters');
}

/** Whether one of the values of `key` fits, or none is asked for. */
export function passes(filters: Filters, key: string, fits: (wanted: string) => boolean): boolean {
  const wanted = filters.get(key);
  return wanted === undefined || wanted.length === 0 || wanted.some(fits);
}

/** Whether the labels of an object have what `key` asks for: every `name` or `name=value` of it. */
export function passesLabels(
  filters: Filters,
  key: string,
  labels: Readonly<Record<string, string>>,
): boolean {
  return (filters.get(key) ?? []).every((wanted) => {
    const split = wanted.indexOf('=');
    const name = split < 0 ? wanted : wanted.slice(0, split);
    if (!Object.hasOwn(labels, name)) return false;
    return split < 0 || labels[name] === wanted.slice(split + 1);
  });
}

/**
 * Checks that all values of `key` are among `expected`.
 *
 * @throws {ManagerError} INVALID
 */
export function requireValues(filters: Filters, key: string, expected: readonly string[]): void {
  for (const value of filters.get(key) ?? []) {
    if (expected.includes(value)) continue;
    throw invalid(`invalid filter '${key}=${value}': expected ${expected.join(', ')}`, 'filters');
  }
}
