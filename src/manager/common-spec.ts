import { z } from 'zod';

/** User metadata. */
export const labelsSchema: z.ZodRecord<z.ZodString, z.ZodString> = z.record(
  z.string('expected a label name'),
  z.string('expected a string'),
);

/** RFC 1123: a DNS label. */
const NAME_LENGTH_MAX = 63;
const DNS_NAME = /^[a-zA-Z0-9](?:[a-zA-Z0-9_-]*[a-zA-Z0-9])?$/;

/** Names of services and networks: what DNS can carry (swarmkit `validateAnnotations`). */
export const nameSchema: z.ZodString = z
  .string('expected a string')
  .max(NAME_LENGTH_MAX, `name must be ${NAME_LENGTH_MAX} characters or fewer`)
  .regex(DNS_NAME, 'name must be valid as a DNS name component');

/** A string that can be handed to the kernel: no NUL in it. */
export const cStringSchema: z.ZodString = z
  .string('expected a string')
  .regex(/^[^\0]*$/, 'expected a string without NUL characters');

/** A yes or no. */
export const flagSchema: z.ZodBoolean = z.boolean('expected true or false');

/** A count. */
export const countSchema: z.ZodNumber = z
  .number('expected a whole number of 0 or more')
  .int('expected a whole number')
  .min(0, 'expected 0 or more');

/** A duration in nanoseconds, as Go counts them. */
export const nanosecondsSchema: z.ZodNumber = z
  .number('expected a duration in nanoseconds')
  .int('expected a whole number of nanoseconds')
  .min(0, 'expected a duration of 0 or more nanoseconds');

const NANOSECONDS_PER_MS = 1_000_000;

/** Milliseconds of a Go duration, rounded up so that a short wait does not become none. */
export function millisecondsOf(nanoseconds: number): number {
  return Math.ceil(nanoseconds / NANOSECONDS_PER_MS);
}
