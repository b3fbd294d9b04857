import type { z } from 'zod';
import { invalid } from './errors.ts';

/** Nesting that no request of the Docker API comes near. */
const DEPTH_MAX = 32;
/** Characters of an offending value that are repeated in a message. */
const SHOWN_LENGTH_MAX = 80;

/**
 * Reads a request's JSON body against `schema`. Null fields count as absent, as in Go. A field that
 * the schema does not know is fine while it asks for nothing (the stock docker CLI sends many such),
 * and refused by its path when it does: better than a wish that is silently dropped.
 *
 * @param text - The body; empty counts as `{}`.
 * @throws {ManagerError} INVALID naming the field, what was given and what is expected
 */
export function parseBody<S extends z.ZodType>(schema: S, text: string): z.output<S> {
  let body: unknown;
  try {
    body = text.trim() === '' ? {} : JSON.parse(text);
  } catch (cause) {
    throw invalid(`Cannot read the request body as JSON: ${(cause as Error).message}`);
  }
  return parseValue(schema, withoutNulls(body, 0));
}

/** The same for a value that has been parsed already. */
export function parseValue<S extends z.ZodType>(schema: S, value: unknown): z.output<S> {
  const first = schema.safeParse(value);
  if (first.success) return first.data;
  const unknownFields = first.error.issues.flatMap((issue) =>
    issue.code === 'unrecognized_keys' ? issue.keys.map((key) => [...issue.path, key]) : [],
  );
  const asking = unknownFields.find((path) => !asksForNothing(valueAt(value, path)));
  if (asking !== undefined) {
    const field = formatPath(asking);
    throw invalid(`${field} is not supported: ${show(valueAt(value, asking))} was given`, field);
  }
  const second = schema.safeParse(withoutFields(value, unknownFields));
  if (second.success) return second.data;
  throw describeIssue(second.error.issues[0], value);
}

function describeIssue(issue: z.core.$ZodIssue | undefined, value: unknown): Error {
  if (issue === undefined) return invalid('the request body is not valid');
  const deepest = issue.code === 'invalid_union' ? (issue.errors[0]?.[0] ?? issue) : issue;
  const path = deepest === issue ? issue.path : [...issue.path, ...deepest.path];
  const field = path.length === 0 ? 'the request body' : formatPath(path);
  const given = valueAt(value, path);
  const shown = given === undefined ? 'nothing was given' : `${show(given)} was given`;
  return invalid(`Invalid ${field}: ${deepest.message}; ${shown}`, field);
}

/** `A.B[0].C`, as people write paths. */
function formatPath(path: readonly PropertyKey[]): string {
  return path
    .map((part, at) =>
      typeof part === 'number' ? `[${part}]` : `${at === 0 ? '' : '.'}${String(part)}`,
    )
    .join('');
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= SHOWN_LENGTH_MAX ? text : `${text.slice(0, SHOWN_LENGTH_MAX)}…`;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let at = value;
  for (const part of path) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, part)) return undefined;
    at = (at as Record<PropertyKey, unknown>)[part];
  }
  return at;
}

/** Whether a value is the zero of its type all the way down: Go clients send those for unset fields. */
function asksForNothing(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0;
  if (isObject(value)) return Object.values(value).every(asksForNothing);
  return value === undefined || value === null || value === '' || value === 0 || value === false;
}

function withoutNulls(value: unknown, depth: number): unknown {
  if (depth > DEPTH_MAX) {
    throw invalid(`Cannot read the request body: nested deeper than ${DEPTH_MAX} levels`);
  }
  if (Array.isArray(value)) return value.map((item) => withoutNulls(item, depth + 1));
  if (!isObject(value)) return value;
  const kept = Object.entries(value).filter(([, item]) => item !== null);
  // fromEntries defines own properties, so that a "__proto__" field stays a field.
  return Object.fromEntries(kept.map(([key, item]) => [key, withoutNulls(item, depth + 1)]));
}

/** `value` without the fields at `paths`; what is on no path is kept as it is. */
function withoutFields(value: unknown, paths: readonly (readonly PropertyKey[])[]): unknown {
  if (paths.length === 0) return value;
  const below = (key: PropertyKey, item: unknown): unknown =>
    withoutFields(
      item,
      paths.filter(([head, ...rest]) => head === key && rest.length > 0).map(([, ...rest]) => rest),
    );
  if (Array.isArray(value)) return value.map((item, index) => below(index, item));
  if (!isObject(value)) return value;
  const dropped = new Set(paths.filter((path) => path.length === 1).map(([key]) => key));
  const kept = Object.entries(value).filter(([key]) => !dropped.has(key));
  return Object.fromEntries(kept.map(([key, item]) => [key, below(key, item)]));
}
