import { LocalApiError } from './local-api-error.ts';

/** Something that an operator names. */
export interface Named {
  readonly id: string;
  readonly name: string;
  /** What else it is called. */
  readonly aliases?: readonly string[];
}

/**
 * A task under its short name.
 *
 * @param task - Its name is `web.1.<id>`.
 */
export function namedTask({ id, name }: Named): Named {
  return {
    id,
    name: name.endsWith(`.${id}`) ? name.slice(0, -id.length - 1) : name,
    aliases: [name],
  };
}

/** Names that a refusal lists at most. */
const NAMES_MAX = 10;

/**
 * The one of `candidates` that an operator means: by its name, an alias, its id, or the start of
 * its id that only one has.
 *
 * @param these - What they are, in the plural, to complete "among the …".
 * @throws {LocalApiError} naming the candidates if it is none of them, or several
 */
export function findNamed<Item extends Named>(
  these: string,
  reference: string,
  candidates: readonly Item[],
): Item {
  const exact = candidates.filter(({ id, name, aliases = [] }) =>
    [id, name, ...aliases].includes(reference),
  );
  const found =
    exact.length > 0 || reference === ''
      ? exact
      : candidates.filter(({ id }) => id.startsWith(reference));
  const [first, ...more] = found;
  if (first !== undefined && more.length === 0) return first;
  const quoted = JSON.stringify(reference);
  if (first !== undefined) {
    const ids = list(found.map(({ id, name }) => `${id} (${name})`));
    throw new LocalApiError(400, `Cannot tell ${quoted} among the ${these}: it may be ${ids}`);
  }
  const names = candidates.map(({ name }) => name);
  const expected = names.length === 0 ? 'there are none' : `expected ${list(names)}`;
  throw new LocalApiError(404, `Cannot find ${quoted} among the ${these}: ${expected}`);
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, NAMES_MAX);
  const hidden = names.length - shown.length;
  if (hidden > 0) return `${shown.join(', ')} or one of ${hidden} more`;
  return [shown.slice(0, -1).join(', '), shown.at(-1)].filter(Boolean).join(' or ');
}
