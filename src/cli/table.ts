/** Narrowest column and the gap after each, in characters: Docker's tabwriter settings. */
const CELL_WIDTH_MIN = 10;
const CELL_GAP = 3;

/**
 * Lays out `rows` under `headers` as Docker does: columns as wide as their longest cell and a gap,
 * no rulers, nothing after the last cell of a line.
 *
 * @param rows - One cell per header.
 * @returns lines, each with its newline
 */
export function formatTable(
  headers: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const lines = [headers, ...rows];
  const widths = headers.map((_, column) => {
    const longest = lines.reduce((max, cells) => Math.max(max, lengthOf(cells[column])), 0);
    return Math.max(CELL_WIDTH_MIN, longest + CELL_GAP);
  });
  return lines
    .map((cells) => {
      const line = widths.map((width, column) => padEnd(cells[column] ?? '', width)).join('');
      return `${line.trimEnd()}\n`;
    })
    .join('');
}

/**
 * Lays out `names: values`, one pair per line, values in one column.
 *
 * @param indent - Put in front of every line.
 */
export function formatPairs(
  pairs: readonly (readonly [name: string, value: string])[],
  indent = ' ',
): string {
  const width = pairs.reduce((max, [name]) => Math.max(max, lengthOf(name)), 0) + 2;
  return pairs.map(([name, value]) => `${indent}${padEnd(`${name}:`, width)}${value}\n`).join('');
}

/** Length in code points: a name with an emoji in it does not shift its neighbours by two. */
function lengthOf(text: string | undefined): number {
  return text === undefined ? 0 : [...text].length;
}

function padEnd(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - lengthOf(text)));
}
