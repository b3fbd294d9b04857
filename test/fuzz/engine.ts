import { Code, type Coverage } from './coverage.ts';
import { type Below, Mutator } from './mutator.ts';
import type { FuzzTarget, Outcome } from './target.ts';

/** What lies in front of and behind an input, in two runs that must come to the same. */
const POISONS = [0x00, 0xff] as const;
const GUARD_BYTES = 64;
/** Inputs between two looks at the coverage. */
const BATCH = 256;

/** A target that did what it must not, and the input that made it. */
export class FuzzFailure extends Error {
  override readonly name = 'FuzzFailure';
  readonly input: Uint8Array;

  constructor(message: string, options: { readonly cause: unknown; readonly input: Uint8Array }) {
    super(message, options);
    this.input = options.input;
  }
}

function describe({ name }: FuzzTarget, input: Uint8Array, cause: unknown): string {
  const hex = Buffer.from(input).toString('hex');
  const reason = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
  return `${name}: ${reason}\n  input (${input.length} bytes): ${hex}`;
}

/**
 * Runs one input three times: alone in its memory, where every read behind it fails, and between two
 * different fillings, where one would show. Once will do for a target that copies its input.
 *
 * @throws {FuzzFailure} if the target did what it must not, or the runs differ
 */
export function check(target: FuzzTarget, input: Uint8Array): Outcome {
  try {
    const alone = target.run(Uint8Array.from(input));
    if (target.isCopied) return alone;
    for (const poison of POISONS) {
      const memory = new Uint8Array(GUARD_BYTES + input.length + GUARD_BYTES).fill(poison);
      memory.set(input, GUARD_BYTES);
      const end = GUARD_BYTES + input.length;
      const { detail } = target.run(memory.subarray(GUARD_BYTES, end));
      if (detail !== alone.detail) {
        throw new Error(
          `what it says depends on bytes behind the input: ${alone.detail} alone, ${detail} before ${poison}`,
        );
      }
      const isWhole =
        memory.subarray(0, GUARD_BYTES).every((byte) => byte === poison) &&
        memory.subarray(end).every((byte) => byte === poison);
      if (!isWhole) throw new Error('it wrote outside of the input');
    }
    return alone;
  } catch (cause) {
    throw new FuzzFailure(describe(target, input, cause), { cause, input });
  }
}

/**
 * Mutates inputs. What reaches code or outcomes that none reached before joins them.
 *
 * @param inputs - To begin with; not changed.
 * @param isOver - Asked between inputs, with how many were run.
 * @param coverage - Tells of new code; without it new kinds of outcomes alone count.
 * @returns `inputs` and what joined them
 * @throws {FuzzFailure} at the first input that the target fails on
 */
export function fuzz(
  target: FuzzTarget,
  inputs: readonly Uint8Array[],
  below: Below,
  isOver: (runs: number) => boolean,
  coverage?: Coverage,
): { readonly inputs: readonly Uint8Array[]; readonly runs: number } {
  const pool = [...inputs];
  if (pool.length === 0) pool.push(new Uint8Array());
  const kinds = new Set(pool.map((input) => check(target, input).kind));
  coverage?.news();
  const mutator = new Mutator(below, target.dictionary ?? [], target.bytesMax);
  const pick = (): Uint8Array => pool[below(pool.length)] ?? new Uint8Array();
  let runs = 0;
  let batch: Uint8Array[] = [];
  while (!isOver(runs)) {
    const input = mutator.mutate(pick(), pick());
    runs += 1;
    const { kind } = check(target, input);
    if (!kinds.has(kind)) {
      kinds.add(kind);
      pool.push(input);
    }
    batch.push(input);
    if (batch.length < BATCH) continue;
    if (coverage !== undefined) {
      pool.push(...pioneers(target, batch, coverage.news(), coverage));
    }
    batch = [];
  }
  return { inputs: pool, runs };
}

/**
 * Those of a batch that reach code of `missing`, found by halves: a look takes longer than many runs.
 *
 * @param missing - What is found is taken out.
 */
function pioneers(
  target: FuzzTarget,
  batch: readonly Uint8Array[],
  missing: Code,
  coverage: Coverage,
): readonly Uint8Array[] {
  if (missing.isEmpty) return [];
  coverage.look();
  for (const input of batch) target.run(Uint8Array.from(input));
  const reached = coverage.look();
  if (batch.length === 1) return missing.takeOut(reached) ? batch : [];
  if (!missing.meets(reached)) return [];
  const half = batch.length >> 1;
  return [
    ...pioneers(target, batch.slice(0, half), missing, coverage),
    ...pioneers(target, batch.slice(half), missing, coverage),
  ];
}

/**
 * The fewest inputs that reach all that `inputs` reach together, small ones first.
 *
 * @throws {FuzzFailure} if the target fails on one
 */
export function distil(
  target: FuzzTarget,
  inputs: readonly Uint8Array[],
  coverage: Coverage,
): readonly Uint8Array[] {
  const reached = new Code();
  const kinds = new Set<string>();
  coverage.look();
  return inputs
    .toSorted((a, b) => a.length - b.length)
    .filter((input) => {
      const { kind } = check(target, input);
      const isNewKind = !kinds.has(kind);
      kinds.add(kind);
      const isNewCode = !reached.addAll(coverage.look()).isEmpty;
      return isNewKind || isNewCode;
    });
}

/** A shorter input that the target fails on, too: the same without the parts that do not matter. */
export function shrink(target: FuzzTarget, input: Uint8Array): Uint8Array {
  let best = input;
  for (let size = best.length >> 1; size > 0; size >>= 1) {
    for (let at = 0; at + size <= best.length; ) {
      const shorter = new Uint8Array(best.length - size);
      shorter.set(best.subarray(0, at));
      shorter.set(best.subarray(at + size), at);
      if (fails(target, shorter)) best = shorter;
      else at += size;
    }
  }
  return best;
}

function fails(target: FuzzTarget, input: Uint8Array): boolean {
  try {
    check(target, input);
    return false;
  } catch {
    return true;
  }
}
