/** How long and how often to measure. */
export interface BenchOptions {
  /** Length of one throughput run. */
  readonly seconds: number;
  /** Runs of each measurement; rows hold their median. */
  readonly runs: number;
}

/** One figure beside a peer's, measured in the same run of the bench. */
export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly value: number;
  readonly peer: string;
  readonly peerValue: number;
  /** Ours divided by the peer's; for `ms` lower is better, for all else higher. */
  readonly ratio: number;
}

/** Makes a row of the medians of both sides. */
export function row(
  name: string,
  unit: string,
  ours: readonly number[],
  peer: string,
  theirs: readonly number[],
): Row {
  const value = median(ours);
  const peerValue = median(theirs);
  const ratio = round(value / peerValue);
  return { name, unit, value: round(value), peer, peerValue: round(peerValue), ratio };
}

/** The middle one of an odd number of values; of an even number, the lower middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[(sorted.length - 1) >> 1] ?? Number.NaN;
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}

/** Prints a row as one line of JSON. */
export function printRow(row: Row): void {
  console.log(JSON.stringify(row));
}

/** Prints rows for people. */
export function printTable(rows: readonly Row[]): void {
  const cells = rows.map((row) => [
    row.name,
    `${row.value} ${row.unit}`,
    row.peer,
    `${row.peerValue} ${row.unit}`,
    String(row.ratio),
  ]);
  const table = [['ROW', 'WEFT', 'PEER', 'ITS FIGURE', 'RATIO'], ...cells];
  const widths = [0, 1, 2, 3, 4].map((column) =>
    Math.max(...table.map((line) => line[column]?.length ?? 0)),
  );
  for (const line of table) {
    console.log(
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    );
  }
}
