/** What a run of a target did with an input. */
export interface Outcome {
  /** In a word or two: another kind is worth keeping the input for, as new code is. */
  readonly kind: string;
  /**
   * All that the target said, as text. It must not depend on what lies behind the input in memory.
   */
  readonly detail: string;
}

/** Something that reads bytes which come from outside. */
export interface FuzzTarget {
  /** Letters, digits and dashes: its corpus is in a folder of this name. */
  readonly name: string;
  /** Longest input, in bytes. */
  readonly bytesMax: number;
  /** The input is copied before it is read: what lies behind it can make no difference. */
  readonly isCopied?: true;
  /** Sound inputs to begin with. */
  seeds(): readonly Uint8Array[];
  /** Bytes that mean something to the target, to be put in. */
  readonly dictionary?: readonly Uint8Array[];
  /**
   * Gives the input to the target, whose state is the same each time. The input may be changed.
   *
   * @throws {Error} if the target did what it must not: threw, wrote or read out of bounds, allocated
   *   more than the input accounts for, or did not say the same of what it wrote itself
   */
  run(input: Uint8Array): Outcome;
}

/** Fails unless `condition` holds. @throws {Error} with `claim` */
export function require(condition: boolean, claim: string): asserts condition {
  if (!condition) throw new Error(claim);
}

/** The bytes of a text. */
export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** The text of bytes, whatever they are. */
export function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
