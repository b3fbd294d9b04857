/** Allocated numbers with what they are for, sorted by number, each number once. */
export type Allocations = readonly (readonly [number, ...(readonly string[])])[];

/** Where to search: both bounds belong to the range. */
export interface SearchRange {
  readonly first: number;
  readonly last: number;
  /** Where the search begins; a value outside the range means `first`. */
  readonly from: number;
  /** Free numbers that must not be found. */
  readonly except?: ReadonlySet<number>;
}

/** The index of the first allocation at or above `value`; `allocations.length` if there is none. */
export function lowerBound(allocations: Allocations, value: number): number {
  let low = 0;
  let high = allocations.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const allocation = allocations[middle];
    if (allocation !== undefined && allocation[0] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * The first free number at or after `range.from`, going on at the start of the range when its end
 * is reached (next-fit). A binary search and a walk over what is allocated in a row.
 *
 * @returns undefined if every number of the range is allocated or excepted
 */
export function nextFree(allocations: Allocations, range: SearchRange): number | undefined {
  const { first, last } = range;
  const from = range.from < first || range.from > last ? first : range.from;
  return (
    firstFree(allocations, { ...range, first: from, last }) ??
    firstFree(allocations, { ...range, first, last: from - 1 })
  );
}

function firstFree(allocations: Allocations, range: SearchRange): number | undefined {
  let index = lowerBound(allocations, range.first);
  for (let candidate = range.first; candidate <= range.last; candidate += 1) {
    if (allocations[index]?.[0] === candidate) index += 1;
    else if (range.except?.has(candidate) !== true) return candidate;
  }
  return undefined;
}
