import { invalid, ManagerError } from './errors.ts';

/** Whether a query parameter says yes, as Docker reads it: anything but nothing, 0, false and no. */
export function isFlagSet(text: string | undefined): boolean {
  return !['', '0', 'false', 'no', 'none'].includes((text ?? '').trim().toLowerCase());
}

/**
 * Checks that an update was made on what the object is now.
 *
 * @param text - The `version` parameter: the `Version.Index` that the caller has seen.
 * @param current - The object's revision.
 * @throws {ManagerError} INVALID if it is no version, OUT_OF_SEQUENCE if it is another one
 */
export function checkVersion(text: string | undefined, current: number): void {
  const given = /^\d{1,15}$/.test(text ?? '') ? Number(text) : undefined;
  if (given === undefined) {
    throw invalid(
      `invalid version ${JSON.stringify(text ?? '')}: expected the Version.Index of the object`,
      'version',
    );
  }
  if (given !== current) {
    throw new ManagerError(
      { code: 'OUT_OF_SEQUENCE', given, current },
      `update out of sequence: version ${given} was given, the object is at ${current}`,
    );
  }
}

/**
 * A query parameter that is a whole number of 0 or more.
 *
 * @param name - Of the parameter, for the message.
 * @returns undefined if it is absent
 * @throws {ManagerError} INVALID
 */
export function parseCount(text: string | undefined, name: string): number | undefined {
  if (text === undefined || text === '') return undefined;
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw invalid(`invalid ${name} ${JSON.stringify(text)}: expected a whole number`, name);
}
